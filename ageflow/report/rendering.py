"""How a table of numbers looks: as Markdown, LaTeX, HTML and CSV, from one frame."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ageflow.report.results import METRICS
from ageflow.report.statistics import NOT_MEASURED

MISSING = "n/a"
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
        return self._grid([self._cell(row) for row in self.numbers.itertuples()], MISSING)

    @property
    def best(self) -> pd.DataFrame:
        """Where the best of its block stands, beyond chance: bool, laid out as `text`."""
        return self._grid(self.numbers["best"].tolist(), False)

    def styled(self) -> Styler:
        """The table for a notebook, its notes as caption."""
        return styled(self.text, f"Table {self.number}: {self.title}", self.notes, self.best)

    def to_markdown(self) -> str:
        """The table as GitHub's Markdown, under its heading and above its notes."""
        text = self.text.where(~self.best, "**" + self.text + "**")
        return f"### Table {self.number}: {self.title}\n\n{to_markdown(text, self.notes)}"

    def to_latex(self) -> str:
        """The table as LaTeX, as wide as the text, its notes below it; for packages booktabs, graphicx and multirow."""
        text = self.text.map(_latex)
        text.index = text.index.map(lambda names: tuple(map(_latex, names)))
        look = {"position": "t", "position_float": "centering", "hrules": True, "multirow_align": "t"}
        caption = {"caption": _latex(f"{self.title}."), "label": f"tab:ageflow{self.number}"}
        form = "lll" + "r" * len(text.columns)
        latex = _bold(text.style, self.best).to_latex(column_format=form, convert_css=True, **look, **caption)
        # Notes in the caption would be set on one line first, and longer ones than TeX can measure end the run.
        below = "}\n\\par\\medskip\\raggedright\\footnotesize\n" + "\n".join(map(_latex, self.notes))
        latex = latex.replace("\\begin{tabular}", "\\resizebox{\\textwidth}{!}{\\begin{tabular}")
        latex = latex.replace("\\end{tabular}", "\\end{tabular}" + below)
        return "% needs \\usepackage{booktabs,graphicx,multirow}\n" + latex

    def files(self) -> dict[str, str]:
        """What is written to disk, by suffix."""
        page, numbers = self.styled().to_html(), self.numbers.to_csv(index=False)
        return {"md": self.to_markdown(), "tex": self.to_latex(), "html": page, "csv": numbers}

    def _cell(self, row: tuple) -> str:
        if pd.isna(row.value):
            return "–" if row.note == NOT_MEASURED.note else MISSING
        form = partial(METRICS[row.metric].format, low=row.low, sign="+" if self.signed else "")
        return form(row.value) + ("" if pd.isna(row.low) else f" [{form(row.low)}, {form(row.high)}]")

    def _grid(self, cells: list, missing: object) -> pd.DataFrame:
        return grid(self.numbers[["metric", "source", "method", "group"]], cells, missing).rename_axis(index=[None] * 3)


def grid(keys: pd.DataFrame, cells: list, missing: object) -> pd.DataFrame:
    """The cells of a table, laid out.

    Arguments:
        keys: a row for each cell: metric (its label is shown), what else names the cell's row, and group, its column.
        cells: as many.
        missing: what stands where there is no cell.
    """
    labels = keys["metric"].map(lambda name: METRICS[name].label)
    long = pd.Series(cells, pd.MultiIndex.from_frame(keys.assign(metric=labels)))
    wide = long.unstack(fill_value=missing)[keys["group"].unique()]
    return wide.reindex(long.index.droplevel("group").unique()).rename_axis(columns=None)


def to_markdown(text: pd.DataFrame, notes: Sequence[str]) -> str:
    """Cells of text as a table of GitHub's Markdown, its index in columns of their own, above its notes."""
    names = [name or "" for name in text.index.names]
    lines = [[*names, *text.columns], ["---"] * len(names) + ["---:"] * len(text.columns)]
    lines += [[*keys, *cells] for keys, cells in zip(text.index, text.to_numpy(), strict=True)]
    # A bar would end the cell, wherever it stands.
    table = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return "\n".join([*table, "", *(f"- {note}" for note in notes), ""])


def styled(text: pd.DataFrame, title: str, notes: Sequence[str], bold: pd.DataFrame | None = None) -> Styler:
    """Cells of text as HTML, for a notebook or a page; the notes are its caption."""
    caption = "<br>".join([f"<b>{html.escape(title)}.</b>", *map(html.escape, notes)])
    rules = [{"selector": "caption", "props": "caption-side: bottom; text-align: left; max-width: 60em;"}]
    style = text.style.format(escape="html").format_index(escape="html").set_caption(caption).set_table_styles(rules)
    return style if bold is None else _bold(style, bold)


def _bold(style: Styler, bold: pd.DataFrame) -> Styler:
    return style.apply(lambda _: np.where(bold, "font-weight: bold;", ""), axis=None)


def _latex(text: str) -> str:
    return _LATEX_SPECIAL.sub(r"\\\1", text).replace("×", r"$\times$")
