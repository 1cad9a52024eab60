"""Tables 1-6: this run's numbers, each with its bootstrap interval over identities, above the paper's; and the verdict.

Tables 1-4 are the paper's. Table 5 has what the paper does not measure, Table 6 by how much AgeFlow leads, paired.
``published.csv`` has the paper's numbers, ``notes.toml`` the lines below the tables.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ageflow.config import Tables
from ageflow.data.records import PAPER_GROUPS, AgeGroups
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.report.rendering import Table
from ageflow.report.results import IDENTITY, METRICS, OWN, REAL, TWO_PEOPLE, Results, scores
from ageflow.report.statistics import NOT_MEASURED, Bootstrap, Estimate
from ageflow.run import Manifest, Workspace, digest, write_atomically
from ageflow.translation.methods import METHODS
from ageflow.work import progress_bar

MEAN = "mean"
PAPER_DATASETS = ("morph", "cacd")
_HERE = Path(__file__).parent
_PAPER = ("age_accuracy", *IDENTITY)
_GATHERED = tuple(name for name, metric in METRICS.items() if metric.part)
_BEYOND = ("age_accuracy", "cosine_centred", "second_accuracy", "agreement", *_GATHERED)
_VARIANTS = (*_PAPER, "second_accuracy", "cycle_error")
_PAIRED = (*_PAPER, *ATTRIBUTES, "second_accuracy")
_OURS = METHODS["ageflow"]
_UNCHANGED = "of the other groups, as they are"
_JUDGES = {
    "age_accuracy": "By the run's own age judge",
    "second_accuracy": "By the second age judge, which the run did not train",
}

Rows = list[dict]  # one a number, see `_row`
Columns = Mapping[str, Sequence[int]]  # the groups of each column, by its label


@dataclass(frozen=True)
class Layout:
    """What a table has: metrics × methods × columns, each column a group, or the `mean` of these.

    `others`: whether it has the methods beyond the ablation's too.
    """

    title: str
    metrics: Sequence[str]
    methods: Sequence[str] = tuple(METHODS.values())
    mean: bool = False
    others: bool = False

    def columns(self, metric: str, age_groups: AgeGroups) -> Columns:
        """The columns of a metric; faces of the youngest group are never aged to it, so an attribute has one less."""
        first = int(metric in ATTRIBUTES)
        groups = dict(enumerate(age_groups.labels[first:], first))
        return {label: (group,) for group, label in groups.items()} | ({MEAN: tuple(groups)} if self.mean else {})


LAYOUTS = {
    1: Layout("Age accuracy and identity preservation, by target group", _PAPER, (_OURS,), others=True),
    2: Layout("Attribute preservation when faces of {youngest} are aged", ATTRIBUTES, (_OURS,), others=True),
    3: Layout("Age accuracy and identity preservation of the variants, by target group", _VARIANTS),
    4: Layout("Attribute preservation of the variants when faces of {youngest} are aged", ATTRIBUTES),
    5: Layout("All methods; a second age judge, cycles, ages between, realism", _BEYOND, mean=True, others=True),
    6: Layout("AgeFlow's lead over the other methods, paired", _PAIRED, mean=True, others=True),
}


def make_tables(settings: Tables) -> list[Table]:
    """Make Tables 1-6 and write them into ``tables/``.

    Each becomes ``table<n>.md``, ``.tex``, ``.html`` and ``.csv`` (long, one number a row, with its interval and the
    run it comes from); ``manifest.json`` is written last, and has the verdict and the main numbers in its details.

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
    details = {"run": results.run, "evaluated": results.evaluated, "tiles": tiles(results)}
    details |= {"groups": results.age_groups.labels, "verdict": verdict(results, _bootstrap(settings))}
    Manifest(fingerprint=digest([table.numbers.to_csv() for table in tables]), details=details).write(folder)
    return tables


def make_table(number: int, results: Results, settings: Tables) -> Table:
    """One table.

    Arguments:
        number: 1 to 6.
        results: of the run.
        settings: bootstrap, confidence and seed.
    """
    layout, rows, age_groups = LAYOUTS[number], [], results.age_groups
    methods = (*layout.methods, *results.others) if layout.others else layout.methods
    for metric in layout.metrics:
        columns = layout.columns(metric, age_groups)
        rows += (_leads if number == 6 else _means)(metric, results, methods, columns, _bootstrap(settings))
        if number <= 4 and age_groups == PAPER_GROUPS:
            rows += _paper_rows(number, metric, results.workspace.dataset)
    if number in (3, 5):
        rows += _kid_rows((kid := results.real.about["features"]), results, methods, layout.columns(kid, age_groups))
    rows = rows or [_row("age_accuracy", OWN, _OURS, MEAN, Estimate(note="no two methods were judged"))]
    numbers = pd.DataFrame(rows).replace({"source": {OWN: f"{OWN} ({results.run})"}})
    about = {"table": number, "run": results.run, "preset": results.real.about["preset"]}
    about |= {"evaluated": results.evaluated, "embedder": results.real.about["embedder"]}
    numbers = numbers.assign(**about, confidence=settings.confidence)
    title = layout.title.format(youngest=age_groups.labels[0])
    return Table(number, title, numbers, _notes(number, numbers, results, settings), signed=number == 6)


def published(table: int) -> pd.DataFrame:
    """The paper's numbers of one of its Tables 1 to 4, long.

    Returns:
        One row a number: dataset (``morph``, ``cacd``), metric (``age_accuracy``, ``cosine``, ``gender``, ``race``),
        method, group (number of the target group), value (%, or a cosine).

    Example:
        >>> numbers = published(1).set_index(["dataset", "metric", "method", "group"])["value"]
        >>> float(numbers["cacd", "cosine", "AgeFlow", 3])
        0.847
    """
    groups = {name: group for group, name in enumerate(PAPER_GROUPS.labels)}
    wide = pd.read_csv(_HERE / "published.csv").rename(columns=groups)
    wide = wide[wide.pop("table") == table]
    long = wide.melt(["dataset", "metric", "method"], var_name="group", ignore_index=False).sort_index(kind="stable")
    return long.dropna().astype({"group": int}).reset_index(drop=True)


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
    return first if differs and bootstrap.lead(one, other, [0]).low > 0 else None


def verdict(results: Results, bootstrap: Bootstrap) -> list[str]:
    """Who reaches the target ages most often, by each judge, and what the first of them costs of identity and realism.

    Returns:
        Three sentences. Every mean is of the groups' means.
    """
    leaders = {metric: max(means := _group_means(metric, results), key=means.get) for metric in _JUDGES}
    sentences = [
        f"{judge}, {leaders[metric]} reaches the most target ages: {_compared(metric, leaders[metric], results, bootstrap)}."
        for metric, judge in _JUDGES.items()
    ]
    leader = leaders["age_accuracy"]
    kid = {results.titles[name]: _kid(judged.about["kid"]) for name, judged in results.methods.items()}
    realism, others = kid.pop(leader), "".join(f", {name} {text}" for name, text in kid.items())
    identity = _compared("cosine_centred", leader, results, bootstrap)
    cost = f"a centred cosine of {identity}; a KID × 1000 of {realism} (± over subsets, lower is better{others})"
    return [*sentences, f"The cost to {leader}: {cost}."]


def tiles(results: Results) -> list[dict[str, str]]:
    """The main numbers of AgeFlow (or the first method judged) beside those of real faces: number, what, scale."""
    means, found = _group_means("age_accuracy", results), []
    of = _OURS if _OURS in means else next(iter(means))
    method = {title: name for name, title in results.titles.items()}[of]
    for metric in (*_JUDGES, "cosine_centred"):
        real = [f"{row} {_text(metric, mean)}" for row, mean in _group_means(metric, results, REAL).items()]
        # Of a single face there is no centred cosine.
        number, what = _text(metric, _group_means(metric, results).get(of, math.nan)), f"{METRICS[metric].label}, {of}"
        found.append({"number": number, "what": what, "scale": f"{REAL}: {', '.join(real)}"})
    kid, unchanged = (_kid(judged.about["kid"]) for judged in (results.methods[method], results.real))
    what, scale = f"KID × 1000 of {of} (lower is better)", f"faces of the other ages as they are {unchanged}"
    return [*found, {"number": kid, "what": what, "scale": scale}]


def _bootstrap(settings: Tables) -> Bootstrap:
    return Bootstrap(settings.bootstrap, settings.confidence, settings.seed)


def _row(metric: str, source: str, method: str, group: str, found: Estimate, best: bool = False) -> dict:
    names = {"metric": metric, "source": source, "method": method, "group": group}
    return names | asdict(found) | {"best": bool(best)}


def _paper_rows(number: int, metric: str, own: str) -> Rows:
    numbers = published(number)
    numbers = numbers[(numbers["metric"] == metric) & ((numbers["dataset"] == own) | (own not in PAPER_DATASETS))]
    return [
        _row(metric, f"paper, {dataset.upper()}, as published", method, PAPER_GROUPS.labels[group], Estimate(value))
        for dataset, _, method, group, value in numbers.itertuples(index=False)
    ]


def _means(metric: str, results: Results, methods: Sequence[str], columns: Columns, bootstrap: Bootstrap) -> Rows:
    """The methods' means and those of the real test faces, and which method of each column is best beyond chance."""
    found, rows = scores(metric, results), []
    of_methods = {name: part for name, part in found[OWN].items() if name in methods}
    for label, groups in columns.items():
        parts = {name: part[part["group"].isin(groups)] for name, part in of_methods.items()}
        values = {name: bootstrap.mean(part) for name, part in parts.items()}
        best = best_method(metric, values, parts, bootstrap)
        rows += [_row(metric, OWN, name, label, value, name == best) for name, value in values.items()]
        for name, part in found[REAL].items():
            value = bootstrap.mean(part[part["group"].isin(groups)])
            if name == TWO_PEOPLE and not value.note:
                # Each of its numbers is a mean over everyone else: people drawn on one side only vary too little.
                value = replace(value, low=math.nan, high=math.nan, note="a mean over all pairs of people")
            rows.append(_row(metric, REAL, name, label, value))
    judged = metric not in ATTRIBUTES or metric in results.attributes
    cannot = [name for name in results.others if judged and name in methods and name not in of_methods]
    return rows + [_row(metric, OWN, name, label, NOT_MEASURED) for name in cannot for label in columns]


def _leads(metric: str, results: Results, methods: Sequence[str], columns: Columns, bootstrap: Bootstrap) -> Rows:
    rows, found = [], {name: part for name, part in scores(metric, results)[OWN].items() if name in methods}
    rivals = [name for name in found if name != _OURS and _OURS in found]
    for rival in rivals:
        for label, groups in columns.items():
            ahead = bootstrap.lead(found[_OURS], found[rival], groups)
            reads_above_0 = float(METRICS[metric].format(ahead.low, ahead.low)) > 0
            rows.append(_row(metric, OWN, f"over {rival}", label, ahead, reads_above_0))
    return rows


def _kid_rows(metric: str, results: Results, methods: Sequence[str], columns: Columns) -> Rows:
    judged = {(OWN, title): results.methods[name] for name, title in results.titles.items() if title in methods}
    rows = []
    for key, of in (judged | {(REAL, _UNCHANGED): results.real}).items():
        kid = pd.DataFrame(of.about["kid"]).set_index("target")
        for label, groups in columns.items():
            # Groups differ by more than methods do: a mean over fewer of them could not be compared.
            value = 1000 * kid.loc[[*groups], "kid"].mean(skipna=False)
            why = "fewer than two faces of a group on one side" if math.isnan(value) else ""
            faces = int(kid.loc[[*groups], "faces"].sum())
            found = Estimate(value, faces=faces, identities=of.about["identities"], note=why)
            rows.append(_row(metric, *key, label, found))
    return rows


def _notes(number: int, numbers: pd.DataFrame, results: Results, settings: Tables) -> list[str]:
    """What a reader must know: the lines of ``notes.toml``, what was not judged, and why cells are empty."""
    about = results.real.about
    of_others = about["identities"] == about["faces"]
    age_groups = results.age_groups
    facts = about | {
        "youngest": age_groups.stops[0],
        "oldest": age_groups.stops[-1],
        "run": results.run,
        "evaluated": results.evaluated[:10],
        "people": "each of another person, as far as known" if of_others else f"of {about['identities']} people",
        "whose": f", {about['external']}'s, new to the run" if about.get("external") else "",
        "confidence": 100 * settings.confidence,
        "bootstrap": settings.bootstrap,
    }
    lines = tomllib.loads((_HERE / "notes.toml").read_text())["line"]
    lines = [line for line in lines if line.get("paper") in (None, age_groups == PAPER_GROUPS)]
    found = [line["text"].format(**facts) for line in lines if number in line["tables"]]
    missing = [name for method, name in METHODS.items() if method not in results.methods]
    missing += [name for name in ATTRIBUTES if number in (2, 4) and name not in results.attributes]
    found += [f"Not judged: {', '.join(missing)} (no such labels, or not asked for)."] if missing else []
    for name, judged in results.methods.items() if number not in (3, 4) else ():
        if (judged_on := len(judged.rows)) < (asked := judged.about.get("asked", 0)):
            faces = f"{judged_on} of {asked} translations ({judged.about['faces']} faces), all that it has"
            found.append(f"{results.titles[name]} is judged, and compared, on {faces}.")
    found += [results.trained_since] if results.trained_since else []
    for note, rows in numbers[numbers["note"] != ""].groupby("note", sort=False):
        labels = "; ".join(METRICS[metric].label for metric in rows["metric"].unique())
        missing = "–" if note == NOT_MEASURED.note else "n/a"
        found.append(f"{missing if rows['value'].isna().all() else 'No interval'}: {note} ({labels}).")
    return found


def _group_means(metric: str, results: Results, source: str = OWN) -> dict[str, float]:
    """The mean of the groups' means of each method, or row of real faces; of methods that have all the groups."""
    parts = scores(metric, results)[source]
    most = max((part["group"].nunique() for part in parts.values()), default=0)
    parts = {name: part for name, part in parts.items() if part["group"].nunique() == most}
    return {name: float(part.groupby("group")["value"].mean().mean()) for name, part in parts.items()}


def _compared(metric: str, method: str, results: Results, bootstrap: Bootstrap) -> str:
    """The mean of a method, and its lead over the best of the others, in words."""
    means, parts = _group_means(metric, results), scores(metric, results)[OWN]
    text = _text(metric, number := means.pop(method, math.nan))
    if math.isnan(number) or not means:
        return text
    other = max(means, key=means.get)
    found = bootstrap.lead(parts[method], parts[other], range(len(results.age_groups)))
    lead, low, high = (METRICS[metric].format(number, sign="+") for number in (found.value, found.low, found.high))
    chance = ", within chance" if found.low <= 0 <= found.high else ""
    return text if math.isnan(found.low) else f"{text}, {lead} [{low}, {high}] against {other}{chance}"


def _text(metric: str, number: float) -> str:
    return "–" if math.isnan(number) else METRICS[metric].format(number) + ("" if METRICS[metric].form else " %")


def _kid(groups: list[dict]) -> str:
    """KID × 1000, the mean of the groups', with its standard deviation over the subsets."""
    table = 1000 * pd.DataFrame(groups)
    mean, spread = table["kid"].mean(skipna=False), np.sqrt((table["spread"] ** 2).sum()) / len(table)
    return "n/a" if pd.isna(mean) else f"{mean:.2f} ± {spread:.2f}"
