"""The numbers that the tables show: what they are called, which way is better, and each face's own."""

from collections.abc import Callable

import pandas as pd

from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.protocol import CYCLE_COLUMNS
from ageflow.evaluation.scores import age_scores, attribute_scores, identity_scores, monotonicity, second_age_scores
from ageflow.report.results import Results

IDENTITY = ("cosine", "cosine_centred", "verified")
MONOTONICITY = {"rho": "predicted_age", "monotone": "predicted_age", "monotone_second": "second_age"}
# What the paper does not measure; KID is of crowds and has no number of a face's own.
BEYOND = ("second_accuracy", *CYCLE_COLUMNS, *MONOTONICITY)
TWO_PEOPLE = "photos of two people"  # a row of real faces
LOWER_IS_BETTER = {"inverse_error", "cycle_error", "kid_face_api", "kid_inception"}


def known(results: Results) -> list[str]:
    """The metrics of Tables 1-4 that a run has."""
    return ["age_accuracy", *(name for name in IDENTITY if _judged(results, name)), *results.attributes]


def _judged(results: Results, column: str) -> bool:
    return all(column in judged.rows for judged in results.methods.values())


def scores(metric: str, judged: pd.DataFrame) -> pd.DataFrame:
    """What each translated face scores: columns identity, group (the target) and value.

    Arguments:
        metric: age_accuracy, second_accuracy, one of `IDENTITY` or an attribute that was judged.
        judged: rows of a method in `Results`.
    """
    if metric == "age_accuracy":
        return age_scores(judged)
    if metric == "second_accuracy":
        return second_age_scores(judged)
    if metric in IDENTITY:
        return identity_scores(judged, metric)
    return attribute_scores(judged, metric)


def real_scores(metric: str, real: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What the real test faces score, laid out as `scores`, by the name of the row it makes in a table."""
    if metric in IDENTITY:
        kinds = {"two photos of one person": "same", TWO_PEOPLE: "other"}
        return {name: identity_scores(real, f"{metric}_{kind}") for name, kind in kinds.items()}
    if metric == "age_accuracy":
        return {"the classifier is right": age_scores(real)}
    if metric == "second_accuracy":
        return {"the second judge is right": second_age_scores(real)}
    # of all groups, not only of 30-: each stands under its own
    return {
        "the classifier is right": pd.concat(
            [attribute_scores(real, metric, source=group) for group in range(len(AGE_GROUPS))]
        )
    }


def beyond_scores(metric: str, method: str, results: Results) -> pd.DataFrame | None:
    """The same of a metric of `BEYOND`; monotonicity's group is the face's own. None where it was not measured."""
    if metric == "second_accuracy":
        rows = results.methods[method].rows
        return second_age_scores(rows) if "second_age" in rows else None
    measure: Callable[[pd.DataFrame], pd.DataFrame] = _cycle if metric in CYCLE_COLUMNS else _monotone
    kept = results.cycle if metric in CYCLE_COLUMNS else results.continuous
    if kept is None or method not in set(kept.rows["method"]):
        return None
    return measure(kept.rows[kept.rows["method"] == method], metric)


def _cycle(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return pd.DataFrame({"identity": rows["identity"], "group": rows["target"], "value": rows[metric]})


def _monotone(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    told = monotonicity(rows, MONOTONICITY[metric])
    values = told["rho"] if metric == "rho" else 100.0 * told["monotone"]
    return pd.DataFrame({"identity": told["identity"], "group": told["source"], "value": values})
