"""Tables 1-4: the paper's numbers beside this run's, each of these with its bootstrap interval over identities."""

import json
from collections.abc import Callable

import pandas as pd

from ageflow.config import Tables
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.age import age_scores
from ageflow.evaluation.attributes import attribute_scores
from ageflow.evaluation.identity import identity_scores
from ageflow.progress import progress_bar
from ageflow.report.estimates import Estimate, estimate
from ageflow.report.layout import METRIC_NAMES, Table
from ageflow.report.published import PAPER_DATASETS, TABLE_GROUPS, published
from ageflow.report.results import Results, training_diagnostics
from ageflow.storage import write_atomically
from ageflow.translation.methods import METHODS
from ageflow.workspace import Workspace

__all__ = ["TITLES", "make_table", "make_tables", "real_scores", "scores"]

TITLES = {
    1: "Age accuracy and identity preservation, by target group",
    2: "Attribute preservation when faces of 30- are aged",
    3: "Age accuracy and identity preservation of the variants, by target group",
    4: "Attribute preservation of the variants when faces of 30- are aged",
}
_METRICS = {1: ("age_accuracy", "cosine"), 2: ("gender", "race"), 3: ("age_accuracy", "cosine"), 4: ("gender", "race")}
_METHODS = {1: ("ageflow",), 2: ("ageflow",), 3: tuple(METHODS), 4: tuple(METHODS)}
_REAL = "real test faces"


def make_tables(settings: Tables) -> list[Table]:
    """Make Tables 1-4 and write them into ``tables/``.

    Each becomes ``table<n>.md``, ``.tex``, ``.html`` and ``.csv`` (long, one number a row, with its interval and the
    run it comes from); ``diagnostics.csv`` says how the trainings ended; ``done.json`` is written last.

    Raises:
        MissingArtefactError: notebook 06 has not run to its end.
        MixedResultsError: the methods were judged on different faces or by different judges.
    """
    results = Results.open(Workspace.of(settings))
    folder = Workspace.of(settings).folder("tables")
    tables = []
    for number in progress_bar(TITLES, unit="table", title="tables", show=settings.progress):
        table = make_table(number, results, settings)
        for suffix, text in table.files().items():
            write_atomically(folder / f"table{number}.{suffix}", text.encode())
        tables.append(table)
    diagnostics = training_diagnostics(Workspace.of(settings))
    write_atomically(folder / "diagnostics.csv", diagnostics.to_csv(index=False).encode())
    done = {"run": results.run, "evaluated": results.evaluated, "tables": sorted(TITLES)}
    write_atomically(folder / "done.json", json.dumps(done, indent=2).encode())
    return tables


def make_table(number: int, results: Results, settings: Tables) -> Table:
    """One table.

    Arguments:
        number: 1 to 4.
        results: of the run.
        settings: bootstrap, confidence and seed.
    """
    if number not in TITLES:
        raise ValueError(f"table {number!r}: there are Tables 1 to 4")
    measure = _measurer(number, settings)
    rows = _paper_rows(number, results)
    for metric in dict.fromkeys(
        [row["metric"] for row in rows] + [m for m in _METRICS[number] if m in _known(results)]
    ):
        rows += _run_rows(number, metric, results, measure)
        rows += _real_rows(metric, results, measure)
    numbers = pd.DataFrame(rows).assign(
        table=number,
        run=results.run,
        preset=results.real.about["preset"],
        evaluated=results.evaluated,
        embedder=results.real.about["embedder"],
        confidence=settings.confidence,
    )
    order = {metric: place for place, metric in enumerate(_METRICS[number])}
    numbers = numbers.sort_values("metric", key=lambda column: column.map(order), kind="stable")
    return Table(number, TITLES[number], numbers.reset_index(drop=True), _notes(number, numbers, results, settings))


Measure = Callable[[pd.DataFrame], list[tuple[int, Estimate]]]


def _measurer(number: int, settings: Tables) -> Measure:
    def measure(scores: pd.DataFrame) -> list[tuple[int, Estimate]]:
        groups = TABLE_GROUPS[number]
        chosen = (settings.bootstrap, settings.confidence, settings.seed)
        return [(group, estimate(scores[scores["group"] == group], *chosen)) for group in groups]

    return measure


def _known(results: Results) -> list[str]:
    return ["age_accuracy", "cosine", *results.attributes]


def _paper_rows(number: int, results: Results) -> list[dict]:
    own = results.workspace.dataset
    wanted = (own,) if own in PAPER_DATASETS else PAPER_DATASETS
    numbers = published(number)
    numbers = numbers[numbers["dataset"].isin(wanted)]
    return [
        _row(metric, f"paper, {dataset.upper()}", method, group, Estimate(value, *(float("nan"),) * 2, 0, 0))
        for dataset, metric, method, group, value in numbers.itertuples(index=False)
    ]


def _run_rows(number: int, metric: str, results: Results, measure: Measure) -> list[dict]:
    source, rows = f"this run ({results.run})", []
    for method in _METHODS[number]:
        missing = Estimate(*(float("nan"),) * 3, 0, 0, _why_missing(metric, method, results))
        if missing.note:
            estimates = [(group, missing) for group in TABLE_GROUPS[number]]
        else:
            estimates = measure(scores(metric, results.methods[method].rows))
        rows += [_row(metric, source, METHODS[method], group, found) for group, found in estimates]
    return rows


def _why_missing(metric: str, method: str, results: Results) -> str:
    if method not in results.methods:
        return f"{METHODS[method]} was not judged"
    if metric not in _known(results):
        return f"the faces of {results.workspace.dataset} have no {metric} labels to judge"
    return ""


def scores(metric: str, judged: pd.DataFrame) -> pd.DataFrame:
    """What each translated face scores: columns identity, group (the target) and value.

    Arguments:
        metric: age_accuracy, cosine or an attribute that was judged.
        judged: rows of a method in `Results`.
    """
    if metric == "age_accuracy":
        return age_scores(judged)
    if metric == "cosine":
        return identity_scores(judged)
    return attribute_scores(judged, metric)


def _real_rows(metric: str, results: Results, measure: Measure) -> list[dict]:
    """What the judges make of the real test faces of each group: the scale to read the run's numbers on."""
    if metric not in _known(results):
        return []
    parts = real_scores(metric, results.real.rows)
    return [_row(metric, _REAL, name, group, found) for name, part in parts.items() for group, found in measure(part)]


def real_scores(metric: str, real: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What the real test faces score, laid out as `scores`, by the name of the row it makes in a table."""
    if metric == "cosine":
        kinds = {"two photos of one person": "cosine_same", "photos of two people": "cosine_other"}
        return {name: identity_scores(real.assign(cosine=real[column])) for name, column in kinds.items()}
    if metric == "age_accuracy":
        return {"the classifier is right": age_scores(real)}
    # of all groups, not only of 30-: each stands under its own
    return {
        "the classifier is right": pd.concat(
            [attribute_scores(real, metric, source=group) for group in range(len(AGE_GROUPS))]
        )
    }


def _row(metric: str, source: str, method: str, group: int, found: Estimate) -> dict:
    return {
        "metric": metric,
        "source": source,
        "method": method,
        "group": AGE_GROUPS[group],
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "faces": found.faces,
        "identities": found.identities,
        "note": found.note,
    }


def _notes(number: int, numbers: pd.DataFrame, results: Results, settings: Tables) -> list[str]:
    about = results.real.about
    notes = [
        f"This run is {results.run} (preset {about['preset']}), evaluated {results.evaluated[:10]} on {about['faces']} "
        f"test faces of {about['identities']} people. In brackets: {100 * settings.confidence:g} % bootstrap intervals over "
        f"identities, {settings.bootstrap} resamples. Bold: the best of its block."
    ]
    if results.workspace.dataset not in PAPER_DATASETS:
        notes.append(
            f"The paper has no numbers on {results.workspace.dataset}; its numbers on MORPH and CACD are here for "
            "orientation: other faces, other classifiers."
        )
    if number in (1, 3):
        other = "" if about["embedder"].startswith("ArcFace") else ", a scale that cannot be compared with this run's"
        notes.append(f"Cosines: this run's by {about['embedder']}; the paper's by ArcFace{other}.")
    notes.append(f"{_REAL.capitalize()}: the same judges on real faces of each column's group, to read this run by.")
    if number in (2, 4):
        notes.append("Preserved: the attribute classifier's answer on the aged face is the face's own label.")
    return notes + _reasons(numbers)


def _reasons(numbers: pd.DataFrame) -> list[str]:
    """Why cells are empty or have no interval, a line a reason."""
    told = []
    for note, rows in numbers[numbers["note"] != ""].groupby("note", sort=False):
        places = []
        for (source, method, metric), cells in rows.groupby(["source", "method", "metric"], sort=False):
            places.append(f"{METRIC_NAMES[metric]}, {source}, {method}: {', '.join(cells['group'])}")
        told.append(f"{'n/a' if rows['value'].isna().all() else 'No interval'}: {note} ({'; '.join(places)}).")
    return told
