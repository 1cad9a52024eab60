"""Tables 1-4: the paper's numbers beside this run's, each of these with its bootstrap interval over identities.

Table 5 has what the paper does not measure, Table 6 by how much AgeFlow leads, paired.
"""

import math
from dataclasses import replace

import pandas as pd

from ageflow.config import Tables
from ageflow.data.records import AGE_GROUPS
from ageflow.report.estimates import Estimate, estimate, lead, lead_at_equal_age
from ageflow.report.layout import Table, digits
from ageflow.report.metrics import (
    BEYOND,
    IDENTITY,
    LOWER_IS_BETTER,
    TWO_PEOPLE,
    beyond_scores,
    known,
    real_scores,
    scores,
)
from ageflow.report.notes import REAL, notes
from ageflow.report.published import PAPER_DATASETS, TABLE_GROUPS, published
from ageflow.report.results import Results, training_diagnostics
from ageflow.run import Manifest, Workspace, digest, write_atomically
from ageflow.translation.methods import METHODS
from ageflow.work import progress_bar

TITLES = {
    1: "Age accuracy and identity preservation, by target group",
    2: "Attribute preservation when faces of 30- are aged",
    3: "Age accuracy and identity preservation of the variants, by target group",
    4: "Attribute preservation of the variants when faces of 30- are aged",
    5: "What the paper does not measure: a second age judge, there and back, realism, and a continuous target",
    6: "AgeFlow's lead over the other methods, paired",
}
MEAN = "mean"  # of the groups
_JUDGED, _ATTRIBUTES = ("age_accuracy", *IDENTITY), ("gender", "race")
_METRICS = {1: _JUDGED, 2: _ATTRIBUTES, 3: _JUDGED, 4: _ATTRIBUTES}
_METHODS = {1: ("ageflow",), 2: ("ageflow",), 3: tuple(METHODS), 4: tuple(METHODS)}
# Whom AgeFlow's lead is over; of several, the better.
_RIVALS = {
    "over GLOW": ("glow",),
    "over GLOW + attribute": ("glow+attribute",),
    "over the better of these two": ("glow", "glow+attribute"),
    "over AgeFlow w/o ICTM": ("no_ictm",),
}


def make_tables(settings: Tables) -> list[Table]:
    """Make Tables 1-6 and write them into ``tables/``.

    Each becomes ``table<n>.md``, ``.tex``, ``.html`` and ``.csv`` (long, one number a row, with its interval and the
    run it comes from); ``diagnostics.csv`` says how the trainings ended; ``manifest.json`` is written last.

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
    Manifest(fingerprint=digest([table.numbers.to_csv() for table in tables]), details=done).write(folder)
    return tables


def make_table(number: int, results: Results, settings: Tables) -> Table:
    """One table.

    Arguments:
        number: 1 to 6.
        results: of the run.
        settings: bootstrap, confidence and seed.
    """
    if number not in TITLES:
        raise ValueError(f"table {number!r}: there are Tables 1 to 6")
    rows = {5: _beyond_rows, 6: _lead_rows}[number](results, settings) if number > 4 else []
    if number <= 4:
        rows = _paper_rows(number, results)
        here = [metric for metric in _METRICS[number] if metric in known(results)]
        for metric in dict.fromkeys([*(row["metric"] for row in rows), *here]):
            rows += _run_rows(number, metric, results, settings)
            rows += _real_rows(metric, TABLE_GROUPS[number], results, settings)
        rows.sort(key=lambda row: _METRICS[number].index(row["metric"]))
    numbers = pd.DataFrame(rows).assign(
        table=number,
        run=results.run,
        preset=results.real.about["preset"],
        evaluated=results.evaluated,
        embedder=results.real.about["embedder"],
        confidence=settings.confidence,
    )
    return Table(number, TITLES[number], numbers, notes(number, numbers, results, settings), signed=number == 6)


def _chosen(settings: Tables) -> tuple[int, float, int]:
    return settings.bootstrap, settings.confidence, settings.seed


def _paper_rows(number: int, results: Results) -> list[dict]:
    own = results.workspace.dataset
    wanted = (own,) if own in PAPER_DATASETS else PAPER_DATASETS
    numbers = published(number)
    numbers = numbers[numbers["dataset"].isin(wanted)]
    return [
        _row(metric, f"paper, {dataset.upper()}, as published", method, AGE_GROUPS[group], _bare(value))
        for dataset, metric, method, group, value in numbers.itertuples(index=False)
    ]


def _run_rows(number: int, metric: str, results: Results, settings: Tables) -> list[dict]:
    methods, groups = _METHODS[number], TABLE_GROUPS[number]
    reasons = {method: _why_missing(metric, method, results) for method in methods}
    found = {m: scores(metric, results.methods[m].rows) for m in methods if not reasons[m]}
    return _block(metric, found, reasons, [(AGE_GROUPS[group], (group,)) for group in groups], results, settings)


def _why_missing(metric: str, method: str, results: Results) -> str:
    if method not in results.methods:
        return f"{METHODS[method]} was not judged"
    if metric not in known(results):
        whose = results.real.about.get("external") or results.workspace.dataset
        return (
            f"no classifier judged {metric}: the faces of {whose} have no {metric} labels, or the training faces fewer "
            "than two values of it"
        )
    return ""


Columns = list[tuple[str, tuple[int, ...]]]  # each column's label and the groups it is the mean of


def _block(
    metric: str,
    found: dict[str, pd.DataFrame],
    reasons: dict[str, str],
    columns: Columns,
    results: Results,
    settings: Tables,
) -> list[dict]:
    """The rows of one metric: methods × columns, and which of each column is best beyond chance."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    source, rows = f"this run ({results.run})", []
    for label, groups in columns:
        parts = {m: part[part["group"].isin(groups)] for m, part in found.items()}
        values = {m: estimate(part, *_chosen(settings)) for m, part in parts.items()}
        best = _best(metric, values, {m: p.assign(value=sign * p["value"]) for m, p in parts.items()}, settings)
        for method, reason in reasons.items():
            value = _bare(math.nan, reason) if reason else values[method]
            rows.append(_row(metric, source, METHODS[method], label, value, best == method))
    places = {METHODS[method]: place for place, method in enumerate(reasons)}
    return sorted(rows, key=lambda row: places[row["method"]])  # method by method, the columns as they are


def _best(
    metric: str,
    values: dict[str, Estimate],
    higher: dict[str, pd.DataFrame],
    settings: Tables,
) -> str | None:
    """The method whose lead over the second best excludes 0 in the paired bootstrap, if any; `higher` is better."""
    known_values = [method for method, found in values.items() if not math.isnan(found.value)]
    if len(known_values) < 2:
        return None
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    first, second = sorted(known_values, key=lambda method: sign * values[method].value, reverse=True)[:2]
    # What reads 1.000 beside 1.000 is not better.
    shown = {f"{values[method].value:{digits(metric, values[method].low)}}" for method in (first, second)}
    # What is compared is what is printed: the mean over the faces, of whichever groups they are.
    one, other = higher[first].assign(group=0), higher[second].assign(group=0)
    ahead = lead(one, [other], [0], *_chosen(settings))
    return first if ahead.low > 0 and len(shown) == 2 else None


def _real_rows(metric: str, groups: tuple[int, ...], results: Results, settings: Tables) -> list[dict]:
    """What the judges make of the real test faces of each group: the scale to read the run's numbers on."""
    if metric not in known(results) and not (metric == "second_accuracy" and "second_age" in results.real.rows):
        return []
    rows = []
    for name, part in real_scores(metric, results.real.rows).items():
        for group in groups:
            value = estimate(part[part["group"] == group], *_chosen(settings))
            if name == TWO_PEOPLE and not value.note:
                # Each of its numbers is a mean over everyone else: people drawn on one side only vary too little.
                value = replace(value, low=math.nan, high=math.nan, note="a mean over all pairs of people")
            rows.append(_row(metric, REAL, name, AGE_GROUPS[group], value))
    return rows


def _beyond_rows(results: Results, settings: Tables) -> list[dict]:
    every = tuple(range(len(AGE_GROUPS)))
    columns: Columns = [*((AGE_GROUPS[group], (group,)) for group in every), (MEAN, every)]
    rows = []
    for metric in BEYOND:
        measured = {m: beyond_scores(metric, m, results) for m in METHODS if m in results.methods}
        reasons = {m: "" if measured.get(m) is not None else _why_not_measured(m, results) for m in METHODS}
        found = {m: part for m, part in measured.items() if part is not None}
        for method, part in found.items():
            if part["value"].isna().all():
                reasons[method] = f"{METHODS[method]} has no inverse"
        found = {m: part for m, part in found.items() if not reasons[m]}
        rows += _block(metric, found, reasons, columns, results, settings)
        if metric == "second_accuracy":
            rows += _real_rows(metric, every, results, settings)
    return rows + _kid_rows(results)


def _why_not_measured(method: str, results: Results) -> str:
    if method not in results.methods:
        return f"{METHODS[method]} was not judged"
    return "not measured by the version that judged it: run 06_ablations.ipynb again"


def _kid_rows(results: Results) -> list[dict]:
    rows, own = [], f"this run ({results.run})"
    judged = [(own, METHODS[name], part) for name, part in results.methods.items()]
    for source, name, part in [*judged, (REAL, "of the other groups, as they are", results.real)]:
        if "kid" not in part.about:
            continue
        kid = pd.DataFrame(part.about["kid"])
        values = [(AGE_GROUPS[row.target], row.kid, row.faces) for row in kid.itertuples()]
        # Groups differ by more than methods do: a mean over fewer of them could not be compared.
        for label, value, faces in [*values, (MEAN, kid["kid"].mean(skipna=False), kid["faces"].sum())]:
            why = "fewer than two faces of a group on one side" if math.isnan(value) else ""
            found = Estimate(1000 * value, math.nan, math.nan, int(faces), part.about["identities"], why)
            rows.append(_row(part.about["features"], source, name, label, found))
    return rows


def _lead_rows(results: Results, settings: Tables) -> list[dict]:
    rows = []
    for metric in [*known(results), "second_accuracy"]:
        for name, rivals in _RIVALS.items():
            missing = [method for method in ("ageflow", *rivals) if method not in results.methods]
            if missing or (metric == "second_accuracy" and "second_age" not in results.real.rows):
                continue
            first, *others = (scores(metric, results.methods[method].rows) for method in ("ageflow", *rivals))
            groups = TABLE_GROUPS[4 if metric in results.attributes else 3]
            for label, of in [*((AGE_GROUPS[group], (group,)) for group in groups), (MEAN, groups)]:
                ahead = lead(first, others, of, *_chosen(settings))
                # What reads +0.000 is no lead.
                ahead_as_shown = float(f"{ahead.low:{digits(metric, ahead.low)}}") > 0
                rows.append(_row(metric, f"this run ({results.run})", name, label, ahead, ahead_as_shown))
    rows += _equal_age_rows(results, settings)
    if not rows:
        nothing = _bare(math.nan, "AgeFlow and another method were not both judged")
        rows = [_row("age_accuracy", f"this run ({results.run})", "AgeFlow", MEAN, nothing)]
    return rows


def _equal_age_rows(results: Results, settings: Tables) -> list[dict]:
    """AgeFlow's centred cosine where it reaches as many of the ages as another method does, less that one's.

    As that one is, and going less of its way: the next strength below 1 that was judged. A direction that overshoots
    reaches as many ages there and keeps more of the person.
    """
    judged = results.strength.rows if results.strength is not None else pd.DataFrame({"method": []})
    rows = []
    for name, rivals in _RIVALS.items():
        both = [judged[judged["method"] == method] for method in ("ageflow", *rivals)]
        if len(rivals) > 1 or any(part.empty or part["cosine_centred"].isna().any() for part in both):
            continue
        first, other = (
            scores("cosine_centred", part).assign(
                strength=part["strength"].to_numpy(), reached=scores("age_accuracy", part)["value"].to_numpy()
            )
            for part in both
        )
        groups = TABLE_GROUPS[3]
        less = other["strength"][other["strength"] < 1].max()
        for way, label in ((1.0, name), (less, f"{name} at {less:g} of its way")):
            if math.isnan(way):
                continue
            ahead, strength = lead_at_equal_age(first, other[other["strength"] == way], groups, *_chosen(settings))
            better = float(f"{ahead.low:{digits('cosine_at_equal_age', ahead.low)}}") > 0
            row = _row("cosine_at_equal_age", f"this run ({results.run})", label, MEAN, ahead, better)
            rows.append(row | {"strength": strength})
    return rows


def _bare(value: float, note: str = "") -> Estimate:
    return Estimate(value, math.nan, math.nan, 0, 0, note)


def _row(metric: str, source: str, method: str, group: str, found: Estimate, best: bool = False) -> dict:
    return {
        "metric": metric,
        "source": source,
        "method": method,
        "group": group,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "faces": found.faces,
        "identities": found.identities,
        "note": found.note,
        "best": bool(best),
    }
