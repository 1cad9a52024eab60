"""How a table of numbers looks: as Markdown, LaTeX, HTML and CSV, from one frame."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

METRIC_NAMES = {
    "age_accuracy": "Age accuracy (%)",
    "cosine": "Cosine similarity",
    "cosine_centred": "Centred cosine",
    "cosine_at_equal_age": "Centred cosine at equal age accuracy",
    "verified": "Verified as the same person (%)",
    "gender": "Gender preserved (%)",
    "race": "Race preserved (%)",
    "second_accuracy": "Age accuracy, second judge (%)",
    "inverse_error": "Back by the inverse: error",
    "inverse_equal": "Back by the inverse: equal values (%)",
    "cycle_error": "Cycle error (re-translation)",
    "cycle_equal": "Equal values after the cycle (%)",
    "rho": "Continuous target: rank correlation",
    "monotone": "Continuous target: monotone faces (%)",
    "monotone_second": "Continuous target, second judge: monotone faces (%)",
    "kid_face_api": "KID × 1000, face-api.js features",
    "kid_inception": "KID × 1000, InceptionV3 features",
}
_FORMATS = {
    **dict.fromkeys(("cosine", "cosine_centred", "cosine_at_equal_age", "rho"), ".3f"),
    **dict.fromkeys(("inverse_error", "cycle_error"), ".1e"),
    **dict.fromkeys(("kid_face_api", "kid_inception"), ".2f"),
}
_LATEX_SPECIAL = re.compile(r"([&%$#_{}])")


@dataclass(frozen=True)
class Table:
    """One table of the report.

    Arguments:
        number: 1 to 6.
        title: its caption's first sentence.
        numbers: one row a number, in the order of the table: metric, source, method, group (its label), value, low,
            high, faces, identities, note, best (whether it stands in bold), and the run's own columns.
        notes: what a reader must know to read it.
        signed: its numbers are differences, shown with their sign.
    """

    number: int
    title: str
    numbers: pd.DataFrame
    notes: list[str]
    signed: bool = False

    @property
    def text(self) -> pd.DataFrame:
        """The cells as text: rows (metric, source, method), columns the age groups; ``n/a`` where there is none."""
        sign = "+" if self.signed else ""
        cells = [_cell(row.metric, row.value, row.low, row.high, sign) for row in self.numbers.itertuples()]
        return self._grid(cells, "n/a")

    @property
    def best(self) -> pd.DataFrame:
        """Where the best of its block stands, beyond chance: bool, laid out as `text`."""
        return self._grid(self.numbers["best"].tolist(), False)

    def styled(self) -> Styler:
        """The table for a notebook, its notes as caption."""
        caption = " ".join([f"<b>Table {self.number}: {self.title}.</b>", *self.notes])
        rule = {"selector": "caption", "props": "caption-side: bottom; text-align: left; max-width: 60em;"}
        return self._bold(self.text).set_caption(caption).set_table_styles([rule])

    def to_markdown(self) -> str:
        """The table as GitHub's Markdown, under its heading and above its notes."""
        text, best = self.text, self.best
        lines = ["| | | | " + " | ".join(text.columns) + " |", "|---|---|---|" + "---:|" * len(text.columns)]
        before: tuple[str, ...] = ("", "")
        for names, cells, bold in zip(text.index, text.to_numpy(), best.to_numpy(), strict=True):
            # A name stands where it changes, as in the paper.
            shown = ["" if names[: place + 1] == before[: place + 1] else names[place] for place in (0, 1)]
            marked = [f"**{cell}**" if b else cell for cell, b in zip(cells, bold, strict=True)]
            lines.append("| " + " | ".join([*shown, names[2], *marked]) + " |")
            before = names
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"### Table {self.number}: {self.title}\n\n" + "\n".join(lines) + f"\n\n{notes}\n"

    def to_latex(self) -> str:
        """The table as LaTeX, as wide as the text, its notes below it; for packages booktabs, graphicx and multirow."""
        text = self.text
        text.index = text.index.map(lambda names: tuple(map(_latex, names)))
        text = text.map(_latex)
        latex = self._bold(text).to_latex(
            column_format="lll" + "r" * len(text.columns),
            position="t",
            position_float="centering",
            hrules=True,
            multirow_align="t",
            caption=_latex(f"{self.title}."),
            label=f"tab:ageflow{self.number}",
            convert_css=True,
        )
        # Notes in the caption would be set on one line first, and longer ones than TeX can measure end the run.
        below = "}\n\\par\\medskip\\raggedright\\footnotesize\n" + "\n".join(map(_latex, self.notes))
        latex = latex.replace("\\begin{tabular}", "\\resizebox{\\textwidth}{!}{\\begin{tabular}")
        latex = latex.replace("\\end{tabular}", "\\end{tabular}" + below)
        return "% needs \\usepackage{booktabs,graphicx,multirow}\n" + latex

    def files(self) -> dict[str, str]:
        """What is written to disk, by suffix."""
        return {
            "md": self.to_markdown(),
            "tex": self.to_latex(),
            "html": self.styled().to_html(),
            "csv": self.numbers.to_csv(index=False),
        }

    def _grid(self, cells: list, missing: object) -> pd.DataFrame:
        names = self.numbers["metric"].map(METRIC_NAMES)
        keys = list(zip(names, self.numbers["source"], self.numbers["method"], strict=True))
        rows: dict[tuple[str, str, str], dict[str, object]] = {}
        for key, group, cell in zip(keys, self.numbers["group"], cells, strict=True):
            rows.setdefault(key, {})[group] = cell
        index = pd.MultiIndex.from_tuples(rows, names=[None] * 3)
        columns = dict.fromkeys(self.numbers["group"])
        return pd.DataFrame([[row.get(column, missing) for column in columns] for row in rows.values()], index, columns)

    def _bold(self, text: pd.DataFrame) -> Styler:
        best = self.best.to_numpy()
        return text.style.apply(lambda _: np.where(best, "font-weight: bold;", ""), axis=None)


def _cell(metric: str, value: float, low: float, high: float, sign: str = "") -> str:
    if math.isnan(value):
        return "n/a"
    form = sign + digits(metric, low)
    interval = "" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{interval}"


def digits(metric: str, low: float) -> str:
    """The format of a metric's numbers; a percentage without an interval as the paper prints it, else one digit."""
    return _FORMATS.get(metric, ".2f" if math.isnan(low) else ".1f")


def _latex(text: str) -> str:
    return _LATEX_SPECIAL.sub(r"\\\1", text).replace("×", r"$\times$").replace("−", r"$-$")
