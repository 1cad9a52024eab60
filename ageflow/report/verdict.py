"""What a run shows in three sentences, and its main numbers beside what they are to be read by."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ageflow.data.records import AGE_GROUPS
from ageflow.report.metrics import METRICS, TWO_PEOPLE, scores
from ageflow.report.results import Results
from ageflow.report.statistics import Bootstrap
from ageflow.translation.methods import METHODS

_JUDGES = {
    "age_accuracy": "the run's own age judge",
    "second_accuracy": "the second age judge, which the run did not train",
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
    sentences, leaders = [], []
    for metric, judge in _JUDGES.items():
        leader, number, ahead = _compared(metric, None, results, bootstrap)
        sentences.append(f"By {judge}, {leader} reaches the most target ages: {number} %{ahead}.")
        leaders.append(leader)
    _, number, ahead = _compared("cosine_centred", leaders[0], results, bootstrap)
    kid = {METHODS[name]: _kid(judged.about["kid"]) for name, judged in results.methods.items()}
    others = {name: found for name, found in kid.items() if name != leaders[0]}
    realism = f"a KID × 1000 of {kid[leaders[0]][1]}"
    if others:
        best = min(others, key=lambda name: others[name][0])
        realism += f", against {others[best][1]} of {best} (± over subsets; lower is better)"
    return [*sentences, f"The cost to {leaders[0]}: a centred cosine of {number}{ahead}; {realism}."]


def _compared(metric: str, method: str | None, results: Results, bootstrap: Bootstrap) -> tuple[str, str, str]:
    """A method (None: the best), its mean and by how much it leads the best of the others, as text."""
    parts = {METHODS[name]: scores(metric, name, results) for name in results.methods}
    ranked = sorted(parts, key=lambda name: -_mean(parts[name]))
    method = method or ranked[0]
    form, others = METRICS[metric].format, [name for name in ranked if name != method]
    number = form(_mean(parts[method]), 0)
    if not others:
        return method, number, ""
    found = bootstrap.lead(parts[method], [parts[others[0]]], range(len(AGE_GROUPS)))
    if pd.isna(found.value):
        return method, number, ""
    ahead = f", {form(found.value, 0, '+')} [{form(found.low, 0, '+')}, {form(found.high, 0, '+')}] against {others[0]}"
    return method, number, ahead + (", within chance" if found.low <= 0 <= found.high else "")


def tiles(results: Results) -> list[Tile]:
    """The numbers of AgeFlow (or the method judged last) beside those of real faces; every mean is of the groups' means."""
    name = "ageflow" if "ageflow" in results.methods else list(results.methods)[-1]
    where = results.real.about.get("external")
    of = f"{METHODS[name]}{f', on the test faces of {where}' if where else ''}"
    found = []
    for metric, what in (("age_accuracy", "age accuracy"), ("second_accuracy", "age accuracy by the second judge")):
        (on_real,) = (_mean(of_real(results.real.rows)) for of_real in METRICS[metric].real.values())
        number = f"{_mean(scores(metric, name, results)):.1f} %"
        found.append(Tile(number, f"{what} of {of}", f"on real faces this judge is right for {on_real:.1f} %"))
    metric = METRICS["cosine_centred"]
    same, other = (f"{_mean(of_real(results.real.rows)):.3f}" for of_real in metric.real.values())
    number = f"{_mean(scores('cosine_centred', name, results)):.3f}"
    scale = f"two photos of one person {same}, {TWO_PEOPLE} {other}"
    found.append(Tile(number, f"centred cosine of a face and its translation, {of}", scale))
    kid, unchanged = (_kid(judged.about["kid"])[1] for judged in (results.methods[name], results.real))
    return [
        *found,
        Tile(kid, f"KID × 1000 of {of} (lower is better)", f"faces of the other ages as they are {unchanged}"),
    ]


def _mean(part: pd.DataFrame) -> float:
    return float(part["value"].astype(float).groupby(part["group"]).mean().mean())


def _kid(groups: list[dict]) -> tuple[float, str]:
    """KID × 1000, the mean of the groups', and as text with its standard deviation over the subsets."""
    table = 1000 * pd.DataFrame(groups)
    mean, spread = table["kid"].mean(skipna=False), np.sqrt((table["spread"] ** 2).sum()) / len(table)
    return mean, "n/a" if pd.isna(mean) else f"{mean:.2f} ± {spread:.2f}"
