"""Many runs in one table: what their methods reach on average over the seeds, and how far the seeds lie apart."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.report.rendering import MISSING, grid, styled, to_markdown
from ageflow.report.results import IDENTITY, METRICS, OWN, MixedResultsError, Results, scores
from ageflow.run import MissingArtefactError, Workspace, write_atomically

_MEAN = "mean"
_KEYS = ["metric", "dataset", "judged_on", "settings", "method"]
_NOTES = [
    "Mean ± standard deviation (of the sample) over the seeds; in brackets the number of seeds.",
    "Every seed has its own training and judges, and test faces, but where a data set says itself which these are or "
    "another set's were judged.",
    f"{_MEAN}: the mean of the groups' numbers; {MISSING}: no test face of that group.",
    "Preserved: faces of the youngest group, as in Tables 2 and 4; real test faces: the judges on faces of each group.",
]


def summarise(runs: Sequence[tuple[Workspace, str]], folder: Path, notes: Sequence[str] = ()) -> list[Path]:
    """Average what the runs' evaluations found, and write ``summary.csv`` (long, one number a row), ``.md`` and ``.html``.

    Each run counts once, with the means over its test faces; no interval of a run goes in. A run without an
    evaluation, or with one that is not of one piece, is left out, and a note says why.

    Arguments:
        runs: finished runs, each with the parameters it was given beside its seed, as text. Runs of equal data set and
            settings, judged on their own or on the same run's test faces, are averaged.
        folder: where the files go.
        notes: to stand below the table, after its own.

    Returns:
        The files; none if no run has an evaluation.
    """
    parts, warnings, columns = [], [], {}
    for workspace, settings in runs:
        name = f"{workspace.dataset}/{workspace.run}"
        try:
            results = Results.open(workspace)
        except (MissingArtefactError, MixedResultsError) as error:
            warnings.append(f"Left out: {name}: {error}")
            continue
        warnings += [f"{name}: {results.trained_since}"] if results.trained_since else []
        judged_on = results.real.about.get("external") or "its own test faces"
        names = {"dataset": workspace.dataset, "judged_on": judged_on, "settings": settings, "run": name}
        columns |= dict.fromkeys(results.age_groups.labels)
        parts.append(_measure(results).assign(**names))
    if not parts:
        return []
    whole = pd.concat(parts).sort_values("metric", key=lambda names: names.map(list(METRICS).index), kind="stable")
    grouped = whole.dropna(subset="value").groupby([*_KEYS, "group"], sort=False)
    numbers = grouped.agg(
        mean=("value", "mean"), standard_deviation=("value", "std"), seeds=("value", "size"), runs=("run", " ".join)
    ).reset_index()
    text = grid(numbers[[*_KEYS, "group"]], list(map(_cell, numbers.itertuples())), MISSING)
    text = text.reindex(columns=[*columns, _MEAN], fill_value=MISSING)
    notes = [*_NOTES, *warnings, *notes]
    files = {
        "csv": numbers.to_csv(index=False),
        "md": f"# Summary\n\n{to_markdown(text, notes)}",
        "html": styled(text, "Summary", notes).to_html(doctype_html=True),
    }
    for suffix, content in files.items():
        write_atomically(folder / f"summary.{suffix}", content.encode())
    return [folder / f"summary.{suffix}" for suffix in files]


def _measure(results: Results) -> pd.DataFrame:
    """What one run reaches: columns metric, method, group, value; NaN where no test face is of a group."""
    rows, labels = [], results.age_groups.labels
    for metric in ("age_accuracy", *IDENTITY, *ATTRIBUTES):
        for source, parts in scores(metric, results).items():
            # Faces of the youngest group are never aged to it, so a method's attributes have one group less.
            groups = range(1 if metric in ATTRIBUTES and source == OWN else 0, len(labels))
            for name, part in parts.items():
                means = part["value"].astype(float).groupby(part["group"]).mean().reindex(groups)
                named = {labels[group]: mean for group, mean in means.items()} | {_MEAN: means.mean(skipna=False)}
                rows += [(metric, name if source == OWN else f"{source}: {name}", *number) for number in named.items()]
    return pd.DataFrame(rows, columns=["metric", "method", "group", "value"])


def _cell(row: tuple) -> str:
    form = METRICS[row.metric].format
    spread = "" if math.isnan(row.standard_deviation) else f" ± {form(row.standard_deviation)}"
    return f"{form(row.mean)}{spread} ({row.seeds})"
