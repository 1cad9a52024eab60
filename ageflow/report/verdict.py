"""What a run shows in three sentences, and its main numbers beside those to read them by."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ageflow.data.records import AGE_GROUPS
from ageflow.report.metrics import METRICS, OWN, REAL, scores
from ageflow.report.results import Results
from ageflow.report.statistics import Bootstrap
from ageflow.translation.methods import METHODS

_JUDGES = {
    "age_accuracy": "By the run's own age judge",
    "second_accuracy": "By the second age judge, which the run did not train",
}


@dataclass(frozen=True)
class Tile:
    """One number of the run, what it is, and the numbers to read it by."""

    number: str
    what: str
    scale: str = ""


def verdict(results: Results, bootstrap: Bootstrap) -> list[str]:
    """Who reaches the target ages most often, by each judge, and what the first of them costs of identity and realism.

    Arguments:
        results: of the run.
        bootstrap: of the comparisons.

    Returns:
        Three sentences. Every mean is of the groups' means.
    """
    leaders = {metric: max(means := _means(metric, results), key=means.get) for metric in _JUDGES}
    sentences = [
        f"{judge}, {leaders[metric]} reaches the most target ages: {_compared(metric, leaders[metric], results, bootstrap)}."
        for metric, judge in _JUDGES.items()
    ]
    leader = leaders["age_accuracy"]
    kid = {METHODS[name]: _kid(judged.about["kid"]) for name, judged in results.methods.items()}
    realism, others = kid.pop(leader), "".join(f", {name} {text}" for name, text in kid.items())
    identity = _compared("cosine_centred", leader, results, bootstrap)
    cost = f"a centred cosine of {identity}; a KID × 1000 of {realism} (± over subsets, lower is better{others})"
    return [*sentences, f"The cost to {leader}: {cost}."]


def tiles(results: Results) -> list[Tile]:
    """The numbers of AgeFlow (or the first method judged) beside those of real faces; a mean is of the groups' means."""
    method = "ageflow" if "ageflow" in results.methods else next(iter(results.methods))
    external = results.real.about.get("external")
    of = METHODS[method] + (f", on the test faces of {external}" if external else "")
    right, people = "on real faces the judge is right for {}", "two photos of one person {}, of two people {}"
    texts = {"age_accuracy": ("age accuracy", right), "second_accuracy": ("age accuracy by the second judge", right)}
    found = []
    for metric, (what, scale) in (texts | {"cosine_centred": ("centred cosine of face and aged face", people)}).items():
        (number,) = (_text(metric, mean) for name, mean in _means(metric, results).items() if name == METHODS[method])
        real = [_text(metric, mean) for mean in _means(metric, results, REAL).values()]
        found.append(Tile(number, f"{what}, {of}", scale.format(*real)))
    kid, unchanged = (_kid(judged.about["kid"]) for judged in (results.methods[method], results.real))
    return [
        *found,
        Tile(kid, f"KID × 1000 of {of} (lower is better)", f"faces of the other ages as they are {unchanged}"),
    ]


def _means(metric: str, results: Results, source: str = OWN) -> dict[str, float]:
    """The mean of the groups' means of each method, or row of real faces."""
    parts = {name: part for (of, name), part in scores(metric, results).items() if of == source}
    return {name: float(part.groupby("group")["value"].mean().mean()) for name, part in parts.items()}


def _compared(metric: str, method: str, results: Results, bootstrap: Bootstrap) -> str:
    """The mean of a method, and its lead over the best of the others, in words."""
    means, parts = _means(metric, results), scores(metric, results)
    text = _text(metric, means.pop(method))
    if not means:
        return text
    other = max(means, key=means.get)
    found = bootstrap.lead(parts[OWN, method], [parts[OWN, other]], range(len(AGE_GROUPS)))
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
