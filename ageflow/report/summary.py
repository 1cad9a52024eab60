"""Many runs in one table: what their methods reach on average over the seeds, and how far the seeds lie apart."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.judged import NotJudgedError
from ageflow.report.layout import METRIC_NAMES
from ageflow.report.metrics import known, real_scores, scores
from ageflow.report.results import MixedResultsError, Results
from ageflow.run import MissingArtefactError, Workspace, write_atomically
from ageflow.translation.methods import METHODS

ALL_GROUPS = "mean"
_REAL = "real test faces: "
_OWN = "its own test faces"
_KEYS = ["metric", "dataset", "judged_on", "settings", "method"]
_SIGNIFICANT = {"cosine": 3, "cosine_centred": 3}  # digits after the point; the others are percentages
_STYLE = (
    "body { font: 15px/1.5 sans-serif; margin: 2em; } table { border-collapse: collapse; }"
    " th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }"
    " td { text-align: right; white-space: nowrap; }"
)


@dataclass(frozen=True)
class Measured:
    """A finished run and what sets it apart.

    Arguments:
        workspace: its folders.
        settings: the parameters it was given beside its seed, as text; runs of equal data set and settings are
            averaged.
    """

    workspace: Workspace
    settings: str = ""

    @property
    def name(self) -> str:
        """The run with its data set."""
        return f"{self.workspace.dataset}/{self.workspace.run}"


@dataclass(frozen=True)
class Summary:
    """The table.

    Arguments:
        numbers: one row a number: metric, dataset, judged_on (the run whose test faces they were, where it is another),
            settings, method, group (its label, or `ALL_GROUPS`), mean and standard_deviation over the seeds (of the
            sample, NaN for one seed; percentages, or cosines), seeds (how many), runs (their names, by spaces).
        notes: what a reader must know to read it.
    """

    numbers: pd.DataFrame
    notes: list[str]

    @property
    def text(self) -> pd.DataFrame:
        """The cells as text, ``mean ± standard deviation (seeds)``: rows metric, data set and so on."""
        columns = [*AGE_GROUPS, ALL_GROUPS]
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        for row in self.numbers.itertuples():
            key = (METRIC_NAMES.get(row.metric, row.metric), row.dataset, row.judged_on, row.settings, row.method)
            rows.setdefault(key, dict.fromkeys(columns, "n/a"))[row.group] = _cell(row)
        names = ["", "data set", "judged on", "settings", "method"]
        index = (
            pd.MultiIndex.from_tuples(list(rows), names=names) if rows else pd.MultiIndex.from_arrays([[]] * len(names))
        )
        return pd.DataFrame(list(rows.values()), index=index, columns=columns)

    def to_markdown(self) -> str:
        """The table as GitHub's Markdown, under its heading and above its notes."""
        text = self.text
        lines = [f"| | data set | judged on | settings | method | {' | '.join(text.columns)} |"]
        lines += ["|---|---|---|---|---|" + "---:|" * len(text.columns)]
        for names, cells in zip(text.index, text.to_numpy(), strict=True):
            # A bar would end the cell, wherever it stands.
            lines.append("| " + " | ".join(part.replace("|", r"\|") for part in (*names, *cells)) + " |")
        return "\n".join(["# Summary", "", *lines, "", *(f"- {note}" for note in self.notes), ""])

    def to_html(self) -> str:
        """The table as a page of its own."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Summary</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>Summary</h1>\n{self.text.to_html(border=0)}\n"
            f"<ul>{notes}</ul></body></html>\n"
        )

    def write(self, folder: Path) -> list[Path]:
        """Write ``summary.csv`` (long, one number a row), ``summary.md`` and ``summary.html``; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {"csv": self.numbers.to_csv(index=False), "md": self.to_markdown(), "html": self.to_html()}
        for suffix, text in files.items():
            write_atomically(folder / f"summary.{suffix}", text.encode())
        return [folder / f"summary.{suffix}" for suffix in files]


def summarise(runs: Sequence[Measured], notes: Sequence[str] = ()) -> Summary | None:
    """Average what the runs' evaluations found.

    Each run counts once, with the means over its test faces; no interval of a run goes in. A run without an
    evaluation, or with one that is not of one piece, is left out, and a note says why.

    Arguments:
        runs: finished runs; those of one data set and settings, judged on their own or on the same run's test faces,
            differ by their seed.
        notes: to stand below the table, after its own.

    Returns:
        The table; None if no run has an evaluation.
    """
    parts, left_out, with_care = [], [], []
    faces: dict[tuple[str, ...], list[frozenset]] = {}
    for run in runs:
        try:
            results = Results.open(run.workspace)
            measured = _measure(results)
        except (MissingArtefactError, MixedResultsError, NotJudgedError) as error:
            left_out.append(f"Left out: {run.name}: {error}")
            continue
        with_care += [f"{run.name}: {said}" for said in (results.trained_since, results.not_alike) if said]
        judged_on = results.real.about.get("external") or _OWN
        of = {"dataset": run.workspace.dataset, "judged_on": judged_on, "settings": run.settings}
        faces.setdefault(tuple(of.values()), []).append(frozenset(results.real.rows["face"]))
        parts.append(measured.assign(**of, run=run.name))
    if not parts:
        return None
    whole = pd.concat(parts, ignore_index=True)
    grouped = whole.dropna(subset="value").groupby([*_KEYS, "group"], sort=False)
    numbers = grouped.agg(
        mean=("value", "mean"), standard_deviation=("value", "std"), seeds=("value", "size"), runs=("run", " ".join)
    ).reset_index()
    numbers = numbers.sort_values([*_KEYS, "group"], key=lambda column: column.map(_places(whole, column.name)))
    numbers = numbers.reset_index(drop=True)
    told = [
        "Mean ± standard deviation (of the sample) over the seeds; in brackets the number of seeds. "
        + _what_is_in_the_spread(faces),
        f"{ALL_GROUPS}: the mean of the groups' numbers; n/a: no test face of that group.",
        "Preserved: faces of 30-, as in Tables 2 and 4; real test faces: the same judges on faces of each group.",
    ]
    return Summary(numbers, [*told, *with_care, *left_out, *notes])


def _what_is_in_the_spread(faces: dict[tuple[str, ...], list[frozenset]]) -> str:
    """What every seed has of its own; `faces` holds the test faces of each seed, by data set, judged_on and settings."""
    shared, own = {}, {}
    for (dataset, judged_on, _), seeds in faces.items():
        # The same, too, where a data set says itself which faces are to test on.
        one = judged_on != _OWN or (len(seeds) > 1 and len(set(seeds)) == 1)
        (shared if one else own)[f"{dataset} judged on {judged_on}"] = judged_on
    if not shared:
        return "Every seed has its own training, judges and test faces, so that their differences are in the spread."
    told = (
        "Every seed has its own training and judges, so that their differences are in the spread. The choice of test faces "
        f"is not, where all seeds have the same: {', '.join(shared)}"
    )
    told += "; the others have their own." if own else "."
    if set(shared.values()) != {_OWN}:
        told += " Of another run's test faces those are left out whose people the seed was trained on."
    return told


def _places(whole: pd.DataFrame, column: str) -> dict[str, int]:
    """The order of a column's values: metrics and groups as the tables have them, the others as they came."""
    first = {"metric": list(METRIC_NAMES), "group": [*AGE_GROUPS, ALL_GROUPS]}.get(column, [])
    return {value: place for place, value in enumerate(dict.fromkeys([*first, *whole[column]]))}


def _measure(results: Results) -> pd.DataFrame:
    """What one run reaches: columns metric, method, group, value; NaN where no test face is of a group."""
    rows: list[tuple[str, str, str, float]] = []
    for metric in known(results):
        found = {METHODS[name]: scores(metric, judged.rows) for name, judged in results.methods.items()}
        found |= {_REAL + name: part for name, part in real_scores(metric, results.real.rows).items()}
        for method, part in found.items():
            # Faces of 30- are never aged to 30-, so a method's attributes have three groups.
            aged = metric in results.attributes and not method.startswith(_REAL)
            groups = range(1 if aged else 0, len(AGE_GROUPS))
            means = part["value"].astype(float).groupby(part["group"]).mean()
            values = [float(means.get(group, math.nan)) for group in groups]
            rows += [(metric, method, AGE_GROUPS[group], value) for group, value in zip(groups, values, strict=True)]
            rows.append((metric, method, ALL_GROUPS, sum(values) / len(values)))
    return pd.DataFrame(rows, columns=["metric", "method", "group", "value"])


def _cell(row: tuple) -> str:
    digits = _SIGNIFICANT.get(row.metric, 1)
    spread = "" if math.isnan(row.standard_deviation) else f" ± {row.standard_deviation:.{digits}f}"
    return f"{row.mean:.{digits}f}{spread} ({row.seeds})"
