"""Many runs in one table: what their methods reach on average over the seeds, and how far the seeds lie apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.report.metrics import IDENTITY, METRICS, OWN, scores
from ageflow.report.rendering import MISSING, grid, styled, to_markdown
from ageflow.report.results import MixedResultsError, Results
from ageflow.run import MissingArtefactError, Workspace, write_atomically

ALL_GROUPS = "mean"
_OWN = "its own test faces"
_KEYS = ["metric", "dataset", "judged_on", "settings", "method"]


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
        wide = grid(self.numbers[[*_KEYS, "group"]], [_cell(row) for row in self.numbers.itertuples()], MISSING)
        return wide.reindex(columns=[*AGE_GROUPS, ALL_GROUPS], fill_value=MISSING)

    def write(self, folder: Path) -> list[Path]:
        """Write ``summary.csv`` (long, one number a row), ``summary.md`` and ``summary.html``; returns their paths."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        files = {
            "csv": self.numbers.to_csv(index=False),
            "md": f"# Summary\n\n{to_markdown(self.text)}\n\n{notes}\n",
            "html": styled(self.text, "Summary", self.notes).to_html(doctype_html=True),
        }
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
    parts, faces, warnings = [], [], []
    for run in runs:
        name = f"{run.workspace.dataset}/{run.workspace.run}"
        try:
            results = Results.open(run.workspace)
        except (MissingArtefactError, MixedResultsError) as error:
            warnings.append(f"Left out: {name}: {error}")
            continue
        warnings += [f"{name}: {results.trained_since}"] if results.trained_since else []
        of = {"dataset": run.workspace.dataset, "judged_on": results.real.about.get("external") or _OWN}
        parts.append(_measure(results).assign(**of, settings=run.settings, run=name))
        faces.append(of | {"settings": run.settings, "faces": frozenset(results.real.rows["face"])})
    if not parts:
        return None
    whole = pd.concat(parts, ignore_index=True)
    whole = whole.sort_values("metric", key=lambda names: names.map(list(METRICS).index), kind="stable")
    grouped = whole.dropna(subset="value").groupby([*_KEYS, "group"], sort=False)
    numbers = grouped.agg(
        mean=("value", "mean"), standard_deviation=("value", "std"), seeds=("value", "size"), runs=("run", " ".join)
    )
    lines = [
        "Mean ± standard deviation (of the sample) over the seeds; in brackets the number of seeds.",
        _spread_over(pd.DataFrame(faces)),
        f"{ALL_GROUPS}: the mean of the groups' numbers; {MISSING}: no test face of that group.",
        "Preserved: faces of 30-, as in Tables 2 and 4; real test faces: the same judges on faces of each group.",
    ]
    return Summary(numbers.reset_index(), [*lines, *warnings, *notes])


def _spread_over(seeds: pd.DataFrame) -> str:
    """What every seed has of its own; `seeds` has the dataset, judged_on, settings and test faces of each."""
    counted = seeds.groupby(["dataset", "judged_on", "settings"], sort=False)["faces"].agg(["nunique", "size"])
    # The same, too, where a data set says itself which faces are to test on.
    same = (counted["nunique"] == 1) & (counted["size"] > 1) | (counted.index.get_level_values("judged_on") != _OWN)
    shared = dict.fromkeys(f"{dataset} judged on {judged_on}" for dataset, judged_on, _ in counted.index[same])
    own = "Every seed has its own training and judges"
    if not shared:
        return f"{own}, and test faces."
    return f"{own}; all seeds have the same test faces, less the people each was trained on, of {', '.join(shared)}."


def _measure(results: Results) -> pd.DataFrame:
    """What one run reaches: columns metric, method, group, value; NaN where no test face is of a group."""
    rows: list[tuple[str, str, str, float]] = []
    for metric in ("age_accuracy", *IDENTITY, *ATTRIBUTES):
        for (source, name), part in scores(metric, results).items():
            method = name if source == OWN else f"{source}: {name}"
            # Faces of 30- are never aged to 30-, so a method's attributes have three groups.
            groups = range(1 if metric in ATTRIBUTES and source == OWN else 0, len(AGE_GROUPS))
            means = part["value"].astype(float).groupby(part["group"]).mean().reindex(groups)
            rows += [(metric, method, AGE_GROUPS[group], value) for group, value in means.items()]
            rows.append((metric, method, ALL_GROUPS, means.mean(skipna=False)))
    return pd.DataFrame(rows, columns=["metric", "method", "group", "value"])


def _cell(row: tuple) -> str:
    form = METRICS[row.metric].format
    spread = "" if math.isnan(row.standard_deviation) else f" ± {form(row.standard_deviation)}"
    return f"{form(row.mean)}{spread} ({row.seeds})"
