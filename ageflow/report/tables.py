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
from ageflow.report.metrics import IDENTITY, METRICS, TWO_PEOPLE, scores, why_missing
from ageflow.report.notes import OWN, notes
from ageflow.report.published import PAPER_DATASETS, published
from ageflow.report.rendering import Table
from ageflow.report.results import Results, training_diagnostics
from ageflow.report.statistics import Bootstrap, Estimate
from ageflow.report.verdict import tiles, verdict
from ageflow.run import Manifest, Workspace, digest, write_atomically
from ageflow.translation.methods import METHODS
from ageflow.work import progress_bar

MEAN, REAL = "mean", "real test faces"
_ALL = tuple(range(len(AGE_GROUPS)))
_PAPER_METRICS = ("age_accuracy", *IDENTITY)
_BEYOND = ("second_accuracy", *(name for name, metric in METRICS.items() if metric.measured_in))


@dataclass(frozen=True)
class Layout:
    """What a table has: metrics × methods × columns, each column a group, or the mean of all."""

    title: str
    metrics: Sequence[str] = ()
    methods: Sequence[str] = tuple(METHODS)
    groups: Sequence[int] = _ALL
    mean: bool = False

    @property
    def columns(self) -> dict[str, Sequence[int]]:
        """The groups of each column, by its label."""
        return {AGE_GROUPS[group]: (group,) for group in self.groups} | ({MEAN: self.groups} if self.mean else {})


LAYOUTS = {
    1: Layout("Age accuracy and identity preservation, by target group", _PAPER_METRICS, ("ageflow",)),
    2: Layout("Attribute preservation when faces of 30- are aged", ATTRIBUTES, ("ageflow",), _ALL[1:]),
    3: Layout("Age accuracy and identity preservation of the variants, by target group", _PAPER_METRICS),
    4: Layout("Attribute preservation of the variants when faces of 30- are aged", ATTRIBUTES, groups=_ALL[1:]),
    5: Layout("What the paper does not measure: a second age judge, cycles, ages between, realism", _BEYOND, mean=True),
    6: Layout(
        "AgeFlow's lead over the other methods, paired", (*_PAPER_METRICS, *ATTRIBUTES, "second_accuracy"), mean=True
    ),
}
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
    layout, bootstrap = LAYOUTS[number], _bootstrap(settings)
    if number == 6:
        nothing = Estimate(note="AgeFlow and another method were not both judged")
        rows = [*_leads(layout, results, bootstrap), *_leads_at_equal_age(results, bootstrap)]
        rows = rows or [_row("age_accuracy", _own(results), "AgeFlow", MEAN, nothing)]
    else:
        paper, rows = _paper_rows(number, results), []
        for metric in layout.metrics:
            printed = [row for row in paper if row["metric"] == metric]
            judged = metric not in ATTRIBUTES or metric in results.attributes
            if judged or printed:
                rows += _own_rows(metric, layout, results, bootstrap)
                rows += _real_rows(metric, layout, results, bootstrap) if judged else []
                rows += printed
        rows += _kid_rows(results) if number == 5 else []
    numbers = pd.DataFrame(rows).assign(
        table=number,
        run=results.run,
        preset=results.real.about["preset"],
        evaluated=results.evaluated,
        embedder=results.real.about["embedder"],
        confidence=settings.confidence,
    )
    return Table(number, layout.title, numbers, notes(number, numbers, results, settings), signed=number == 6)


def _bootstrap(settings: Tables) -> Bootstrap:
    return Bootstrap(settings.bootstrap, settings.confidence, settings.seed)


def _own(results: Results) -> str:
    return f"{OWN} ({results.run})"


def _paper_rows(number: int, results: Results) -> list[dict]:
    own = results.workspace.dataset
    numbers = published(number) if number <= 4 else pd.DataFrame({"dataset": []})
    numbers = numbers[numbers["dataset"].isin((own,) if own in PAPER_DATASETS else PAPER_DATASETS)]
    return [
        _row(
            row.metric,
            f"paper, {row.dataset.upper()}, as published",
            row.method,
            AGE_GROUPS[row.group],
            Estimate(row.value),
        )
        for row in numbers.itertuples()
    ]


def _own_rows(metric: str, layout: Layout, results: Results, bootstrap: Bootstrap) -> list[dict]:
    """A metric of this run: columns × methods, and which of each column is best beyond chance."""
    reasons = {method: why_missing(metric, method, results) for method in layout.methods}
    found = {method: scores(metric, method, results) for method, reason in reasons.items() if not reason}
    rows = []
    for label, groups in layout.columns.items():
        parts = {method: part[part["group"].isin(groups)] for method, part in found.items()}
        values = {method: bootstrap.mean(part) for method, part in parts.items()}
        best = best_method(metric, values, parts, bootstrap)
        for method, reason in reasons.items():
            value = values.get(method, Estimate(note=reason))
            rows.append(_row(metric, _own(results), METHODS[method], label, value, best == method))
    return rows


def best_method(
    metric: str, values: Mapping[str, Estimate], parts: Mapping[str, pd.DataFrame], bootstrap: Bootstrap
) -> str | None:
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


def _real_rows(metric: str, layout: Layout, results: Results, bootstrap: Bootstrap) -> list[dict]:
    """What the judges make of the real test faces of each group: the scale to read the run's numbers on."""
    rows = []
    for name, of_real in METRICS[metric].real.items():
        part = of_real(results.real.rows)
        for label, groups in layout.columns.items():
            value = bootstrap.mean(part[part["group"].isin(groups)])
            if name == TWO_PEOPLE and not value.note:
                # Each of its numbers is a mean over everyone else: people drawn on one side only vary too little.
                value = replace(value, low=math.nan, high=math.nan, note="a mean over all pairs of people")
            rows.append(_row(metric, REAL, name, label, value))
    return rows


def _kid_rows(results: Results) -> list[dict]:
    judged = [(_own(results), METHODS[name], part) for name, part in results.methods.items()]
    rows = []
    for source, method, part in [*judged, (REAL, "of the other groups, as they are", results.real)]:
        kid = pd.DataFrame(part.about["kid"])
        values = [(AGE_GROUPS[row.target], row.kid, row.faces) for row in kid.itertuples()]
        # Groups differ by more than methods do: a mean over fewer of them could not be compared.
        for label, value, faces in [*values, (MEAN, kid["kid"].mean(skipna=False), kid["faces"].sum())]:
            why = "fewer than two faces of a group on one side" if math.isnan(value) else ""
            found = Estimate(1000 * value, faces=int(faces), identities=part.about["identities"], note=why)
            rows.append(_row(part.about["features"], source, method, label, found))
    return rows


def _leads(layout: Layout, results: Results, bootstrap: Bootstrap) -> list[dict]:
    rows = []
    for metric in layout.metrics:
        # Faces of 30- are never aged to 30-.
        groups = _ALL[1:] if metric in ATTRIBUTES else _ALL
        for name, rivals in _RIVALS.items():
            if any(why_missing(metric, method, results) for method in ("ageflow", *rivals)):
                continue
            first, *others = (scores(metric, method, results) for method in ("ageflow", *rivals))
            for label, of in replace(layout, groups=groups).columns.items():
                ahead = bootstrap.lead(first, others, of)
                rows.append(_row(metric, _own(results), name, label, ahead, _reads_above_0(metric, ahead)))
    return rows


def _leads_at_equal_age(results: Results, bootstrap: Bootstrap) -> list[dict]:
    """AgeFlow's centred cosine where it reaches as many of the ages as another method does, less that one's.

    As that one is, and going less of its way: the next strength below 1 that was judged. A direction that overshoots
    reaches as many ages there and keeps more of the person.
    """
    judged = results.strength.rows
    cosine, age = (METRICS[name].scores for name in ("cosine_centred", "age_accuracy"))
    rows = []
    for name, rivals in _RIVALS.items():
        both = [judged[judged["method"] == method] for method in ("ageflow", *rivals)]
        if len(rivals) > 1 or any(part.empty or part["cosine_centred"].isna().any() for part in both):
            continue
        first, other = (
            cosine(part).assign(strength=part["strength"].to_numpy(), reached=age(part)["value"].to_numpy())
            for part in both
        )
        less = other["strength"][other["strength"] < 1].max()
        for way, label in ((1.0, name), (less, f"{name} at {less:g} of its way")):
            if not math.isnan(way):
                ahead, strength = bootstrap.lead_at_equal_age(first, other[other["strength"] == way], _ALL)
                metric = "cosine_at_equal_age"
                row = _row(metric, _own(results), label, MEAN, ahead, _reads_above_0(metric, ahead))
                rows.append(row | {"strength": strength})
    return rows


def _reads_above_0(metric: str, ahead: Estimate) -> bool:
    return float(METRICS[metric].format(ahead.low, ahead.low)) > 0


def _row(metric: str, source: str, method: str, group: str, found: Estimate, best: bool = False) -> dict:
    names = {"metric": metric, "source": source, "method": method, "group": group}
    return names | asdict(found) | {"best": bool(best)}
