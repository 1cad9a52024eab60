"""The metrics of the tables: a label, a format, which way is better, and each face's own number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import pandas as pd

from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.evaluation.scores import age_scores, attribute_scores, identity_scores, monotonicity, second_age_scores
from ageflow.report.results import Results
from ageflow.translation.methods import METHODS

Scores = Callable[[pd.DataFrame], pd.DataFrame]

TWO_PEOPLE = "photos of two people"  # a row of real faces
_RIGHT, _SECOND_RIGHT = "the classifier is right", "the second judge is right"


@dataclass(frozen=True)
class Metric:
    """One metric of the tables.

    Arguments:
        label: what the tables call it.
        scores: from judged rows to a number a face: columns identity, group (the target, or the face's own where
            every target is asked for) and value. None: a number of the whole crowd, without one a face.
        form: format of its numbers; None: a percentage.
        lower: whether lower is better.
        measured_in: the part of `Results` that has it; None: the judged faces of each method.
        real: the same of the real faces, by the name of the row that it makes: the scale to read the metric on.
    """

    label: str
    scores: Scores | None = None
    form: str | None = None
    lower: bool = False
    measured_in: str | None = None
    real: Mapping[str, Scores] = field(default_factory=dict)

    def format(self, value: float, low: float, sign: str = "") -> str:
        """A number as it is shown: a percentage without an interval as the paper prints it, else with one digit."""
        return f"{value:{sign}{self.form or ('.2f' if pd.isna(low) else '.1f')}}"


def _identity(label: str, column: str, form: str | None = None) -> Metric:
    real = {"two photos of one person": f"{column}_same", TWO_PEOPLE: f"{column}_other"}
    real = {name: partial(identity_scores, column=pairs) for name, pairs in real.items()}
    return Metric(label, partial(identity_scores, column=column), form, real=real)


def _attribute(name: str) -> Metric:
    def of_every_group(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([attribute_scores(rows, name, source) for source in range(len(AGE_GROUPS))])

    # Aged faces are those of 30-, as in the paper.
    scores = partial(attribute_scores, attribute=name)
    return Metric(f"{name.capitalize()} preserved (%)", scores, real={_RIGHT: of_every_group})


def _cycle(label: str, column: str, form: str | None = None) -> Metric:
    def scores(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[["identity"]].assign(group=rows["target"], value=rows[column])

    return Metric(label, scores, form, lower=column.endswith("error"), measured_in="cycle")


def _continuous(label: str, judge: str, column: str, form: str | None = None) -> Metric:
    def scores(rows: pd.DataFrame) -> pd.DataFrame:
        found = monotonicity(rows, judge)
        values = found[column] if column == "rho" else 100.0 * found[column]
        return found[["identity"]].assign(group=found["source"], value=values)

    return Metric(label, scores, form, measured_in="continuous")


METRICS: dict[str, Metric] = {
    "age_accuracy": Metric("Age accuracy (%)", age_scores, real={_RIGHT: age_scores}),
    "cosine": _identity("Cosine similarity", "cosine", ".3f"),
    "cosine_centred": _identity("Centred cosine", "cosine_centred", ".3f"),
    "cosine_at_equal_age": Metric("Centred cosine at equal age accuracy", form=".3f"),
    "verified": _identity("Verified as the same person (%)", "verified"),
    "gender": _attribute("gender"),
    "race": _attribute("race"),
    "second_accuracy": Metric(
        "Age accuracy, second judge (%)", second_age_scores, real={_SECOND_RIGHT: second_age_scores}
    ),
    "inverse_error": _cycle("Inverse error", "inverse_error", ".1e"),
    "inverse_equal": _cycle("Equal 8-bit values after the inverse (%)", "inverse_equal"),
    "cycle_error": _cycle("Cycle error (re-translation)", "cycle_error", ".1e"),
    "cycle_equal": _cycle("Equal 8-bit values after re-translation (%)", "cycle_equal"),
    "rho": _continuous("Continuous target: rank correlation", "predicted_age", "rho", ".3f"),
    "monotone": _continuous("Continuous target: monotone faces (%)", "predicted_age", "monotone"),
    "monotone_second": _continuous("Continuous target, second judge: monotone faces (%)", "second_age", "monotone"),
    "kid_face_api": Metric("KID × 1000, face-api.js features", form=".2f", lower=True),
    "kid_inception": Metric("KID × 1000, InceptionV3 features", form=".2f", lower=True),
}
IDENTITY = ("cosine", "cosine_centred", "verified")
KID = ("kid_face_api", "kid_inception")


def scores(name: str, method: str, results: Results) -> pd.DataFrame:
    """What each face of a method scores in a metric, see `Metric.scores`."""
    metric = METRICS[name]
    if metric.measured_in is None:
        return metric.scores(results.methods[method].rows)
    rows = getattr(results, metric.measured_in).rows
    return metric.scores(rows[rows["method"] == method])


def why_missing(name: str, method: str, results: Results) -> str:
    """Why a method has no numbers of a metric; empty where it has."""
    if method not in results.methods:
        return f"{METHODS[method]} was not judged"
    if name in ATTRIBUTES and name not in results.attributes:
        whose = results.real.about.get("external") or results.workspace.dataset
        return f"no classifier judged {name}: {whose} has no {name} labels, or the training faces only one value"
    if name.startswith("inverse") and scores(name, method, results)["value"].isna().all():
        return f"{METHODS[method]} has no inverse"
    return ""
