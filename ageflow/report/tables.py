"""Tables 1-6: this run's numbers, each with its bootstrap interval over identities, above the paper's; and the verdict.

Tables 1-4 are the paper's. Table 5 has what the paper does not measure, Table 6 by how much AgeFlow leads, paired.
``published.csv`` has the paper's numbers, ``notes.toml`` the lines below the tables.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources

import numpy as np
import pandas as pd

from ageflow.config import Tables
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.report.rendering import Table
from ageflow.report.results import IDENTITY, METRICS, OWN, REAL, TWO_PEOPLE, Results, scores
from ageflow.report.statistics import NOT_MEASURED, Bootstrap, Estimate
from ageflow.run import Manifest, Workspace, digest, write_atomically
from ageflow.translation.methods import METHODS
from ageflow.work import progress_bar

MEAN = "mean"
PAPER_DATASETS = ("morph", "cacd")
_FILES = resources.files("ageflow.report")
_ALL = tuple(range(len(AGE_GROUPS)))
_PAPER = ("age_accuracy", *IDENTITY)
_GATHERED = tuple(name for name, metric in METRICS.items() if metric.part)
_BEYOND = ("age_accuracy", "cosine_centred", "second_accuracy", "agreement", *_GATHERED)
_OURS = METHODS["ageflow"]
_UNCHANGED = "of the other groups, as they are"
_JUDGES = {
    "age_accuracy": "By the run's own age judge",
    "second_accuracy": "By the second age judge, which the run did not train",
}

Found = Mapping[tuple[str, str], pd.DataFrame]  # see `ageflow.report.results.scores`


@dataclass(frozen=True)
class Layout:
    """What a table has: metrics × methods × columns, each column a group, or the mean of all.

    `others`: whether it has the methods beyond the ablation's too.
    """

    title: str
    metrics: Sequence[str]
    methods: Sequence[str] = tuple(METHODS.values())
    groups: Sequence[int] = _ALL
    mean: bool = False
    others: bool = False

    @property
    def columns(self) -> dict[str, Sequence[int]]:
        """The groups of each column, by its label."""
        return {AGE_GROUPS[group]: (group,) for group in self.groups} | ({MEAN: self.groups} if self.mean else {})


LAYOUTS = {
    1: Layout("Age accuracy and identity preservation, by target group", _PAPER, (_OURS,), others=True),
    2: Layout("Attribute preservation when faces of 30- are aged", ATTRIBUTES, (_OURS,), _ALL[1:], others=True),
    3: Layout(
        "Age accuracy and identity preservation of the variants, by target group",
        (*_PAPER, "second_accuracy", "cycle_error"),
    ),
    4: Layout("Attribute preservation of the variants when faces of 30- are aged", ATTRIBUTES, groups=_ALL[1:]),
    5: Layout("All methods; a second age judge, cycles, ages between, realism", _BEYOND, mean=True, others=True),
    6: Layout("AgeFlow's lead over the other methods, paired", (*_PAPER, *ATTRIBUTES, "second_accuracy"), mean=True),
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
    details["verdict"] = verdict(results, _bootstrap(settings))
    Manifest(fingerprint=digest([table.numbers.to_csv() for table in tables]), details=details).write(folder)
    return tables


def make_table(number: int, results: Results, settings: Tables) -> Table:
    """One table.

    Arguments:
        number: 1 to 6.
        results: of the run.
        settings: bootstrap, confidence and seed.
    """
    layout, bootstrap, rows = LAYOUTS[number], _bootstrap(settings), []
    layout = replace(layout, methods=(*layout.methods, *results.others)) if layout.others else layout
    for metric in layout.metrics:
        found = scores(metric, results)
        rows += (_leads if number == 6 else _means)(metric, found, layout, bootstrap)
        rows += _not_measured(metric, found, layout, results)
        rows += _paper_rows(number, metric, results.workspace.dataset) if number <= 4 else []
    kid, shown = _kid_rows(results) if number in (3, 5) else [], (*layout.methods, _UNCHANGED)
    rows += [row for row in kid if row["group"] in layout.columns and row["method"] in shown]
    rows = rows or [_row("age_accuracy", OWN, _OURS, MEAN, Estimate(note="no two methods were judged"))]
    numbers = pd.DataFrame(rows).replace({"source": {OWN: f"{OWN} ({results.run})"}})
    about = {"table": number, "run": results.run, "preset": results.real.about["preset"]}
    about |= {"evaluated": results.evaluated, "embedder": results.real.about["embedder"]}
    numbers = numbers.assign(**about, confidence=settings.confidence)
    return Table(number, layout.title, numbers, _notes(number, numbers, results, settings), signed=number == 6)


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
    with _FILES.joinpath("published.csv").open() as file:
        wide = pd.read_csv(file).rename(columns={name: group for group, name in enumerate(AGE_GROUPS)})
    wide = wide[wide.pop("table") == table]
    long = wide.melt(["dataset", "metric", "method"], var_name="group", ignore_index=False).sort_index(kind="stable")
    return long.dropna().astype({"group": int}).reset_index(drop=True)


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
    one, other = (part.assign(group=0, value=sign * part["value"]) for part in _paired(parts[first], parts[second]))
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
        number, what = _text(metric, _group_means(metric, results)[of]), f"{METRICS[metric].label}, {of}"
        found.append({"number": number, "what": what, "scale": f"{REAL}: {', '.join(real)}"})
    kid, unchanged = (_kid(judged.about["kid"]) for judged in (results.methods[method], results.real))
    what, scale = f"KID × 1000 of {of} (lower is better)", f"faces of the other ages as they are {unchanged}"
    return [*found, {"number": kid, "what": what, "scale": scale}]


def _bootstrap(settings: Tables) -> Bootstrap:
    return Bootstrap(settings.bootstrap, settings.confidence, settings.seed)


def _row(metric: str, source: str, method: str, group: str, found: Estimate, best: bool = False) -> dict:
    names = {"metric": metric, "source": source, "method": method, "group": group}
    return names | asdict(found) | {"best": bool(best)}


def _paper_rows(number: int, metric: str, own: str) -> list[dict]:
    numbers = published(number)
    numbers = numbers[(numbers["metric"] == metric) & ((numbers["dataset"] == own) | (own not in PAPER_DATASETS))]
    return [
        _row(metric, f"paper, {dataset.upper()}, as published", method, AGE_GROUPS[group], Estimate(value))
        for dataset, _, method, group, value in numbers.itertuples(index=False)
    ]


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


def _leads(metric: str, found: Found, layout: Layout, bootstrap: Bootstrap) -> list[dict]:
    # Faces of 30- are never aged to 30-.
    columns, rows = replace(layout, groups=_ALL[1:] if metric in ATTRIBUTES else _ALL).columns, []
    rivals = [name for source, name in found if source == OWN and name != _OURS and (OWN, _OURS) in found]
    for rival in rivals:
        for label, groups in columns.items():
            ahead = bootstrap.lead(*_paired(found[OWN, _OURS], found[OWN, rival]), groups)
            reads_above_0 = float(METRICS[metric].format(ahead.low, ahead.low)) > 0
            rows.append(_row(metric, OWN, f"over {rival}", label, ahead, reads_above_0))
    return rows


def _not_measured(metric: str, found: Found, layout: Layout, results: Results) -> list[dict]:
    """Rows of the methods beyond the ablation's that have no such number."""
    judged = metric not in ATTRIBUTES or metric in results.attributes
    names = [name for name in results.others if judged and layout.others and (OWN, name) not in found]
    return [_row(metric, OWN, name, label, NOT_MEASURED) for name in names for label in layout.columns]


def _paired(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of two methods' scores those of the translations that both did."""
    if one.index.equals(other.index) or min(one.index.nlevels, other.index.nlevels) < 2:
        return one, other
    return one[one.index.isin(other.index)], other[other.index.isin(one.index)]


def _kid_rows(results: Results) -> list[dict]:
    judged = {(OWN, results.titles[name]): part.about for name, part in results.methods.items()}
    rows = []
    for key, about in (judged | {(REAL, _UNCHANGED): results.real.about}).items():
        kid = pd.DataFrame(about["kid"]).set_index("target")[["kid", "faces"]].rename(index=dict(enumerate(AGE_GROUPS)))
        # Groups differ by more than methods do: a mean over fewer of them could not be compared.
        kid.loc[MEAN] = kid["kid"].mean(skipna=False), kid["faces"].sum()
        for label, value, faces in kid.itertuples():
            why = "fewer than two faces of a group on one side" if math.isnan(value) else ""
            found = Estimate(1000 * value, faces=int(faces), identities=about["identities"], note=why)
            rows.append(_row(about["features"], *key, label, found))
    return rows


def _notes(number: int, numbers: pd.DataFrame, results: Results, settings: Tables) -> list[str]:
    """What a reader must know: the lines of ``notes.toml``, what was not judged, and why cells are empty."""
    about = results.real.about
    of_others = about["identities"] == about["faces"]
    facts = about | {
        "run": results.run,
        "evaluated": results.evaluated[:10],
        "people": "each of another person, as far as known" if of_others else f"of {about['identities']} people",
        "whose": f", {about['external']}'s, new to the run" if about.get("external") else "",
        "confidence": 100 * settings.confidence,
        "bootstrap": settings.bootstrap,
    }
    lines = tomllib.loads(_FILES.joinpath("notes.toml").read_text())["line"]
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
    parts = {name: part for (of, name), part in scores(metric, results).items() if of == source}
    most = max((part["group"].nunique() for part in parts.values()), default=0)
    parts = {name: part for name, part in parts.items() if part["group"].nunique() == most}
    return {name: float(part.groupby("group")["value"].mean().mean()) for name, part in parts.items()}


def _compared(metric: str, method: str, results: Results, bootstrap: Bootstrap) -> str:
    """The mean of a method, and its lead over the best of the others, in words."""
    means, parts = _group_means(metric, results), scores(metric, results)
    text = _text(metric, means.pop(method))
    if not means:
        return text
    other = max(means, key=means.get)
    found = bootstrap.lead(*_paired(parts[OWN, method], parts[OWN, other]), _ALL)
    lead, low, high = (METRICS[metric].format(number, sign="+") for number in (found.value, found.low, found.high))
    chance = ", within chance" if found.low <= 0 <= found.high else ""
    return f"{text}, {lead} [{low}, {high}] against {other}{chance}"


def _text(metric: str, number: float) -> str:
    return METRICS[metric].format(number) + ("" if METRICS[metric].form else " %")


def _kid(groups: list[dict]) -> str:
    """KID × 1000, the mean of the groups', with its standard deviation over the subsets."""
    table = 1000 * pd.DataFrame(groups)
    mean, spread = table["kid"].mean(skipna=False), np.sqrt((table["spread"] ** 2).sum()) / len(table)
    return "n/a" if pd.isna(mean) else f"{mean:.2f} ± {spread:.2f}"
