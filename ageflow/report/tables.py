"""Tables 1-6: this run's numbers, each with its bootstrap interval over identities, above the paper's.

Tables 1-4 are the paper's. Table 5 has what the paper does not measure, Table 6 by how much AgeFlow leads, paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from ageflow.config import Tables
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.report.metrics import IDENTITY, METRICS, OWN, REAL, TWO_PEOPLE, scores
from ageflow.report.notes import notes
from ageflow.report.published import PAPER_DATASETS, published
from ageflow.report.rendering import Table
from ageflow.report.results import Results, training_diagnostics
from ageflow.report.statistics import Bootstrap, Estimate
from ageflow.report.verdict import tiles, verdict
from ageflow.run import Manifest, Workspace, digest, write_atomically
from ageflow.translation.methods import METHODS
from ageflow.work import progress_bar

MEAN = "mean"
_ALL = tuple(range(len(AGE_GROUPS)))
_PAPER = ("age_accuracy", *IDENTITY)
_BEYOND = ("second_accuracy", *(name for name, metric in METRICS.items() if metric.part))
_OURS = METHODS["ageflow"]
# Whom AgeFlow's lead is over; of several, the better.
_RIVALS = {f"over {name}": (name,) for name in METHODS.values() if name != _OURS}
_RIVALS["over the better of GLOW and GLOW + attribute"] = ("GLOW", "GLOW + attribute")


@dataclass(frozen=True)
class Layout:
    """What a table has: metrics × methods × columns, each column a group, or the mean of all."""

    title: str
    metrics: Sequence[str]
    methods: Sequence[str] = tuple(METHODS.values())
    groups: Sequence[int] = _ALL
    mean: bool = False

    @property
    def columns(self) -> dict[str, Sequence[int]]:
        """The groups of each column, by its label."""
        return {AGE_GROUPS[group]: (group,) for group in self.groups} | ({MEAN: self.groups} if self.mean else {})


LAYOUTS = {
    1: Layout("Age accuracy and identity preservation, by target group", _PAPER, (_OURS,)),
    2: Layout("Attribute preservation when faces of 30- are aged", ATTRIBUTES, (_OURS,), _ALL[1:]),
    3: Layout("Age accuracy and identity preservation of the variants, by target group", _PAPER),
    4: Layout("Attribute preservation of the variants when faces of 30- are aged", ATTRIBUTES, groups=_ALL[1:]),
    5: Layout("What the paper does not measure: a second age judge, cycles, ages between, realism", _BEYOND, mean=True),
    6: Layout("AgeFlow's lead over the other methods, paired", (*_PAPER, *ATTRIBUTES, "second_accuracy"), mean=True),
}


def make_tables(settings: Tables) -> list[Table]:
    """Make Tables 1-6 and write them into ``tables/``.

    Each becomes ``table<n>.md``, ``.tex``, ``.html`` and ``.csv`` (long, one number a row, with its interval and the
    run it comes from); ``diagnostics.csv`` says how the trainings ended; ``manifest.json`` is written last, and has the
    verdict and the main numbers in its details.

    Raises:
        MissingArtefactError: notebook 06 has not run to its end.
        MixedResultsError: the methods were judged on different faces or by different judges.
    """
    workspace = Workspace.of(settings)
    results, folder = Results.open(workspace), workspace.folder("tables")
    tables = []
    for number in progress_bar(LAYOUTS, unit="table", title="tables", show=settings.progress):
        tables.append(make_table(number, results, settings))
        for suffix, text in tables[-1].files().items():
            write_atomically(folder / f"table{number}.{suffix}", text.encode())
    write_atomically(folder / "diagnostics.csv", training_diagnostics(workspace).to_csv(index=False).encode())
    details = {"run": results.run, "evaluated": results.evaluated, "verdict": verdict(results, _bootstrap(settings))}
    details["tiles"] = [asdict(tile) for tile in tiles(results)]
    Manifest(fingerprint=digest([table.numbers.to_csv() for table in tables]), details=details).write(folder)
    return tables


def make_table(number: int, results: Results, settings: Tables) -> Table:
    """One table.

    Arguments:
        number: 1 to 6.
        results: of the run.
        settings: bootstrap, confidence and seed.
    """
    if number not in LAYOUTS:
        raise ValueError(f"table {number!r}: there are Tables 1 to 6")
    layout, bootstrap, rows = LAYOUTS[number], _bootstrap(settings), []
    for metric in layout.metrics:
        found = scores(metric, results)
        rows += _leads(metric, found, layout, bootstrap) if number == 6 else _means(metric, found, layout, bootstrap)
        rows += _paper_rows(number, metric, results)
    if number == 5:
        rows += _kid_rows(results)
    if number == 6:
        rows += _leads_at_equal_age(results, bootstrap)
        rows = rows or [_row("age_accuracy", OWN, _OURS, MEAN, Estimate(note="no two methods were judged"))]
    numbers = (
        pd.DataFrame(rows)
        .replace({"source": {OWN: f"{OWN} ({results.run})"}})
        .assign(
            table=number,
            run=results.run,
            preset=results.real.about["preset"],
            evaluated=results.evaluated,
            embedder=results.real.about["embedder"],
            confidence=settings.confidence,
        )
    )
    return Table(number, layout.title, numbers, notes(number, numbers, results, settings), signed=number == 6)


def _bootstrap(settings: Tables) -> Bootstrap:
    return Bootstrap(settings.bootstrap, settings.confidence, settings.seed)


def _paper_rows(number: int, metric: str, results: Results) -> list[dict]:
    if number > 4:
        return []
    own, source = results.workspace.dataset, "paper, {}, as published"
    numbers = published(number)[lambda every: every["metric"] == metric]
    return [
        _row(metric, source.format(dataset.upper()), method, AGE_GROUPS[group], Estimate(value))
        for dataset, _, method, group, value in numbers.itertuples(index=False)
        if dataset == own or own not in PAPER_DATASETS
    ]


Found = Mapping[tuple[str, str], pd.DataFrame]  # see `ageflow.report.metrics.scores`


def _means(metric: str, found: Found, layout: Layout, bootstrap: Bootstrap) -> list[dict]:
    """The methods' means and those of the real test faces, and which method of each column is best beyond chance."""
    found = {(source, name): part for (source, name), part in found.items() if source == REAL or name in layout.methods}
    rows = []
    for label, groups in layout.columns.items():
        parts = {key: part[part["group"].isin(groups)] for key, part in found.items()}
        values = {key: bootstrap.mean(part) for key, part in parts.items()}
        best = best_method(metric, {key: value for key, value in values.items() if key[0] == OWN}, parts, bootstrap)
        for key, value in values.items():
            if key[1] == TWO_PEOPLE and not value.note:
                # Each of its numbers is a mean over everyone else: people drawn on one side only vary too little.
                value = replace(value, low=math.nan, high=math.nan, note="a mean over all pairs of people")
            rows.append(_row(metric, *key, label, value, key == best))
    return rows


def best_method(metric: str, values: Mapping, parts: Mapping, bootstrap: Bootstrap) -> tuple[str, str] | None:
    """The method whose lead over the second best excludes 0 in the paired bootstrap, if any.

    Arguments:
        metric: a key of `METRICS`.
        values: the estimates of the methods.
        parts: what they are of: columns identity and value, one row a face.
        bootstrap: of the comparison.
    """
    shown, sign = METRICS[metric].format, -1.0 if METRICS[metric].lower else 1.0
    known = [method for method, found in values.items() if not math.isnan(found.value)]
    if len(known) < 2:
        return None
    first, second = sorted(known, key=lambda method: sign * values[method].value, reverse=True)[:2]
    # What is compared is what is printed: the mean over the faces, of whichever groups they are.
    one, other = (parts[method].assign(group=0, value=sign * parts[method]["value"]) for method in (first, second))
    # What reads 1.000 beside 1.000 is not better.
    differs = shown(values[first].value, values[first].low) != shown(values[second].value, values[second].low)
    return first if differs and bootstrap.lead(one, [other], [0]).low > 0 else None


def _kid_rows(results: Results) -> list[dict]:
    judged = {(OWN, METHODS[name]): part.about for name, part in results.methods.items()}
    rows = []
    for key, about in (judged | {(REAL, "of the other groups, as they are"): results.real.about}).items():
        kid = pd.DataFrame(about["kid"])
        values = [(AGE_GROUPS[row.target], row.kid, row.faces) for row in kid.itertuples()]
        # Groups differ by more than methods do: a mean over fewer of them could not be compared.
        for label, value, faces in [*values, (MEAN, kid["kid"].mean(skipna=False), kid["faces"].sum())]:
            why = "fewer than two faces of a group on one side" if math.isnan(value) else ""
            found = Estimate(1000 * value, faces=int(faces), identities=about["identities"], note=why)
            rows.append(_row(about["features"], *key, label, found))
    return rows


def _leads(metric: str, found: Found, layout: Layout, bootstrap: Bootstrap) -> list[dict]:
    # Faces of 30- are never aged to 30-.
    columns, rows = replace(layout, groups=_ALL[1:] if metric in ATTRIBUTES else _ALL).columns, []
    for name, rivals in _RIVALS.items():
        parts = [found.get((OWN, method)) for method in (_OURS, *rivals)]
        if all(part is not None for part in parts):
            for label, groups in columns.items():
                ahead = bootstrap.lead(parts[0], parts[1:], groups)
                rows.append(_row(metric, OWN, name, label, ahead, _reads_above_0(metric, ahead)))
    return rows


def _leads_at_equal_age(results: Results, bootstrap: Bootstrap) -> list[dict]:
    """AgeFlow's centred cosine where it reaches as many of the ages as another method does, less that one's.

    As that one is, and going less of its way: the next strength below 1 that was judged. A direction that overshoots
    reaches as many ages there and keeps more of the person.
    """
    metric, judged = "cosine_at_equal_age", results.strength.rows
    reached = METRICS["age_accuracy"].scores(judged)["value"]
    scored = METRICS["cosine_centred"].scores(judged).assign(strength=judged["strength"], reached=reached)
    parts = {METHODS[method]: part for method, part in scored.groupby(judged["method"]) if part["value"].notna().all()}
    rows = []
    for name, (rival, *more) in _RIVALS.items():
        if more or _OURS not in parts or rival not in parts:
            continue
        other = parts[rival]
        less = other["strength"][other["strength"] < 1].max()
        for way, label in ((1.0, name), (less, f"{name} at {less:g} of its way")):
            if not math.isnan(way):
                part = other[other["strength"] == way]
                ahead, strength = bootstrap.lead_at_equal_age(parts[_OURS], part, _ALL)
                row = _row(metric, OWN, label, MEAN, ahead, _reads_above_0(metric, ahead))
                rows.append(row | {"strength": strength})
    return rows


def _reads_above_0(metric: str, ahead: Estimate) -> bool:
    return float(METRICS[metric].format(ahead.low, ahead.low)) > 0


def _row(metric: str, source: str, method: str, group: str, found: Estimate, best: bool = False) -> dict:
    names = {"metric": metric, "source": source, "method": method, "group": group}
    return names | asdict(found) | {"best": bool(best)}
