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

OWN, REAL = "this run", "real test faces"  # sources of numbers
TWO_PEOPLE = "photos of two people"  # a row of real faces
IDENTITY = ("cosine", "cosine_centred", "verified")


@dataclass(frozen=True)
class Metric:
    """One metric of the tables.

    Arguments:
        label: what the tables call it.
        scores: from judged rows to a number a face: columns identity, group (the target, or the face's own where
            every target is asked for) and value. None: a number of the whole crowd, without one a face.
        form: format of its numbers; None: a percentage.
        lower: whether lower is better.
        part: of `Results`, that has it; None: the judged faces of each method.
        real: the same of the real faces, by the name of the row that it makes: the scale to read the metric on.
    """

    label: str
    scores: Scores | None = None
    form: str | None = None
    lower: bool = False
    part: str | None = None
    real: Mapping[str, Scores] = field(default_factory=dict)

    def format(self, value: float, low: float = 0.0, sign: str = "") -> str:
        """A number as it is shown: a percentage without an interval as the paper prints it, else with one digit."""
        return f"{value:{sign}{self.form or ('.2f' if pd.isna(low) else '.1f')}}"


def _column(name: str) -> Scores:
    return partial(identity_scores, column=name)


def _pairs(name: str) -> dict[str, Scores]:
    return {"two photos of one person": _column(f"{name}_same"), TWO_PEOPLE: _column(f"{name}_other")}


def _preserved(attribute: str) -> Metric:
    def of_every_group(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([attribute_scores(rows, attribute, source) for source in range(len(AGE_GROUPS))])

    scores = partial(attribute_scores, attribute=attribute)  # of faces of 30-, as in the paper
    real = {"the classifier is right": of_every_group}
    return Metric(f"{attribute.capitalize()} preserved (%)", scores, real=real)


def _continuous(label: str, judge: str, column: str, form: str | None = None) -> Metric:
    def scores(rows: pd.DataFrame) -> pd.DataFrame:
        found = monotonicity(rows, judge)
        return found[["identity"]].assign(group=found["source"], value=found[column] * (1.0 if form else 100.0))

    return Metric(f"Continuous target{label}", scores, form, part="continuous")


METRICS: dict[str, Metric] = {
    "age_accuracy": Metric("Age accuracy (%)", age_scores, real={"the classifier is right": age_scores}),
    "cosine": Metric("Cosine similarity", _column("cosine"), ".3f", real=_pairs("cosine")),
    "cosine_centred": Metric("Centred cosine", _column("cosine_centred"), ".3f", real=_pairs("cosine_centred")),
    "cosine_at_equal_age": Metric("Centred cosine at equal age accuracy", form=".3f"),
    "verified": Metric("Verified as the same person (%)", _column("verified"), real=_pairs("verified")),
    **{name: _preserved(name) for name in ATTRIBUTES},
    "second_accuracy": Metric(
        "Age accuracy, second judge (%)", second_age_scores, real={"the second judge is right": second_age_scores}
    ),
    "inverse_error": Metric("Inverse error", _column("inverse_error"), ".1e", lower=True, part="cycle"),
    "inverse_equal": Metric("Equal 8-bit values after the inverse (%)", _column("inverse_equal"), part="cycle"),
    "cycle_error": Metric("Cycle error (re-translation)", _column("cycle_error"), ".1e", lower=True, part="cycle"),
    "cycle_equal": Metric("Equal 8-bit values after re-translation (%)", _column("cycle_equal"), part="cycle"),
    "rho": _continuous(": rank correlation", "predicted_age", "rho", ".3f"),
    "monotone": _continuous(": monotone faces (%)", "predicted_age", "monotone"),
    "monotone_second": _continuous(", second judge: monotone faces (%)", "second_age", "monotone"),
    "kid_face_api": Metric("KID × 1000, face-api.js features", form=".2f", lower=True),
    "kid_inception": Metric("KID × 1000, InceptionV3 features", form=".2f", lower=True),
}


def scores(name: str, results: Results) -> dict[tuple[str, str], pd.DataFrame]:
    """What each face scores in a metric, see `Metric.scores`, by source (`OWN` or `REAL`) and by method or row.

    A method that has no such number is not in it; nor is anything, where no classifier judged an attribute.
    """
    metric, found = METRICS[name], {}
    if name in ATTRIBUTES and name not in results.attributes:
        return found
    for method, judged in results.methods.items():
        rows = judged.rows
        if metric.part is not None:
            rows = getattr(results, metric.part).rows
            rows = rows[rows["method"] == method]
        found[OWN, METHODS[method]] = metric.scores(rows)
    found = {key: part for key, part in found.items() if part.empty or part["value"].notna().any()}  # else it has none
    return found | {(REAL, row): of_real(results.real.rows) for row, of_real in metric.real.items()}
