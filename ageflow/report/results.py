"""What a run's evaluation found, checked to be of one piece; the metrics of the tables; what the trainings began from."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from ageflow.checkpoint import checkpoints, fingerprint, latest
from ageflow.data.records import AgeGroups
from ageflow.evaluation import scores as per_face
from ageflow.evaluation.evaluate import GATHERED, Judged, read_judged
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.run import Workspace
from ageflow.translation.methods import METHODS

_NAMES = {"glow": "GLOW", "decoded_age": "A behind the decoder", "ictm": "ICTM", "no_ictm": "w/o ICTM"}
_SOURCES = {None: "from nothing", "pretrained": "from the weights that ship with the kit"}

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


def _of_column(name: str) -> Scores:
    return partial(per_face.identity_scores, column=name)


def _identity(name: str, label: str, form: str | None = None) -> Metric:
    real = {"two photos of one person": _of_column(f"{name}_same"), TWO_PEOPLE: _of_column(f"{name}_other")}
    return Metric(label, _of_column(name), form, real=real)


def _judged_right(label: str, scores: Scores, right: str) -> Metric:
    """Whether a judge agrees, and how often it is right on the real faces."""
    return Metric(label, scores, real={right: scores})


def _preserved(attribute: str) -> Metric:
    scores = partial(per_face.attribute_scores, attribute=attribute)  # of the youngest, as in the paper
    real = {"the classifier is right": partial(scores, source=None)}
    return Metric(f"{attribute.capitalize()} preserved (%)", scores, real=real)


def _continuous(label: str, judge: str, column: str, form: str | None = None) -> Metric:
    def scores(rows: pd.DataFrame) -> pd.DataFrame:
        found = per_face.monotonicity(rows, judge)
        return found[["identity"]].assign(group=found["source"], value=found[column] * (1.0 if form else 100.0))

    return Metric(f"Continuous target{label}", scores, form, part="continuous")


METRICS: dict[str, Metric] = {
    "age_accuracy": _judged_right("Age accuracy (%)", per_face.age_scores, "the classifier is right"),
    "cosine": _identity("cosine", "Cosine similarity", ".3f"),
    "cosine_centred": _identity("cosine_centred", "Centred cosine", ".3f"),
    "verified": _identity("verified", "Verified as the same person (%)"),
    **{name: _preserved(name) for name in ATTRIBUTES},
    "second_accuracy": _judged_right(
        "Age accuracy, second judge (%)", per_face.second_age_scores, "the second judge is right"
    ),
    "agreement": Metric("Both age judges see the same group (%)", per_face.agreement_scores),
    "inverse_error": Metric("Inverse error", _of_column("inverse_error"), ".1e", lower=True, part="cycle"),
    "inverse_equal": Metric("Equal 8-bit values after the inverse (%)", _of_column("inverse_equal"), part="cycle"),
    "cycle_error": Metric("Cycle error (re-translation)", _of_column("cycle_error"), ".1e", lower=True, part="cycle"),
    "cycle_equal": Metric("Equal 8-bit values after re-translation (%)", _of_column("cycle_equal"), part="cycle"),
    "rho": _continuous(": rank correlation", "predicted_age", "rho", ".3f"),
    "monotone": _continuous(": monotone faces (%)", "predicted_age", "monotone"),
    "monotone_second": _continuous(", second judge: monotone faces (%)", "second_age", "monotone"),
    "kid_face_api": Metric("KID × 1000, face-api.js features", form=".2f", lower=True),
    "kid_inception": Metric("KID × 1000, InceptionV3 features", form=".2f", lower=True),
}


class MixedResultsError(ValueError):
    """Methods were judged on different faces or by different judges; their numbers do not belong in one table."""


@dataclass(frozen=True)
class Results:
    """The judged faces of one run.

    Arguments:
        workspace: of the run.
        real: the real test faces.
        methods: the judged methods, by name.
        titles: what the tables call them, by name.
        cycle, continuous, strength: what was measured of all methods together: faces translated there and back, to
            a continuous age, and less and more of the way.

    Example:
        ``Results.open(Workspace.of(settings)).methods["ageflow"].rows``
    """

    workspace: Workspace
    real: Judged
    methods: dict[str, Judged]
    titles: dict[str, str]
    cycle: Judged
    continuous: Judged
    strength: Judged

    @classmethod
    def open(cls, workspace: Workspace) -> "Results":
        """Read what notebook 06 left.

        Raises:
            MissingArtefactError: notebook 06 has not run to its end.
            MixedResultsError: the methods were judged differently.
        """
        folder, details = workspace.require("evaluation"), workspace.manifest("evaluation").details
        methods = details["methods"]
        found = {name: read_judged(folder, name) for name in ("real", *methods, *GATHERED)}
        made_from = {name: judged.about["fingerprints"] for name, judged in found.items()}
        pairs = [(name, made_from[name], made_from["real"]) for name in methods]
        for part in GATHERED:
            for name, theirs in made_from[part].items():
                of = re.sub(r" at \S+$", "", name) if part == "strength" else name  # each strength: "glow at 0.5"
                pairs.append((f"{part} of {of}", theirs, made_from.get(of, {})))
        for name, theirs, wanted in pairs:
            if differing := [what for what in wanted if theirs.get(what) != wanted[what]]:
                what = f"{name} was judged with another {', '.join(differing)} than the rest of the evaluation"
                raise MixedResultsError(f"{what}: run 06_ablations.ipynb again")
        of_all = {name: found[name] for name in ("real", *GATHERED)}
        titles = METHODS | details.get("titles", {})
        titles = {name: titles.get(name, name) for name in sorted(methods, key=[*METHODS, *methods].index)}
        return cls(workspace, methods={name: found[name] for name in methods}, titles=titles, **of_all)

    @property
    def run(self) -> str:
        """The run's name, with its data set."""
        return f"{self.workspace.dataset}/{self.workspace.run}"

    @property
    def others(self) -> list[str]:
        """The titles of the methods beyond the ablation's: baselines, one's own, folders of pictures."""
        return [title for name, title in self.titles.items() if name not in METHODS]

    @property
    def age_groups(self) -> AgeGroups:
        """The age groups of the faces."""
        return AgeGroups.noted(self.real.about)

    @property
    def evaluated(self) -> str:
        """When the last of it was judged, ISO 8601."""
        return max(judged.about["evaluated"] for judged in (self.real, *self.methods.values()))

    @property
    def attributes(self) -> list[str]:
        """The attributes that were judged."""
        return per_face.judged_attributes(self.real.rows)

    @cached_property
    def trained_since(self) -> str:
        """Which of the run's networks have been trained again since they were judged, and what to do; "" for none."""
        then = {}
        for judged in (self.real, *self.methods.values()):
            then |= judged.about["fingerprints"]
        folders = trainings(self.workspace)
        again = ", ".join(name for name, of in folders.items() if name in then and then[name] != fingerprint(of))
        what = "Not of the run as it is now: trained again since 06_ablations.ipynb judged it"
        return again and f"{what}: {again}. Run 06_ablations.ipynb again."


def scores(name: str, results: Results) -> dict[str, dict[str, pd.DataFrame]]:
    """What each face scores in a metric, see `Metric.scores`: of `OWN` by method, of `REAL` by row.

    A method that has no such number is not in it; nor is anything, where no classifier judged an attribute. Rows of a
    method that are of one translation are indexed by its face and target, so that two methods can be paired.
    """
    metric, found = METRICS[name], {}
    if name in ATTRIBUTES and name not in results.attributes:
        return {OWN: {}, REAL: {}}
    for method, judged in results.methods.items():
        rows = judged.rows
        if metric.part is not None:
            rows = getattr(results, metric.part).rows
            rows = rows[rows["method"] == method]
            if rows.empty:
                continue
        if "target" in rows and rows["target"].notna().all():
            rows = rows.set_index(["face", "target"], drop=False).rename_axis([None, None])
        scored = metric.scores(rows)
        if scored.empty or scored["value"].notna().any():  # else it has none
            found[results.titles[method]] = scored
    return {OWN: found, REAL: {row: of_real(results.real.rows) for row, of_real in metric.real.items()}}


def trainings(workspace: Workspace) -> dict[str, Path]:
    """The folders of the run's trainings that have a checkpoint, by their place in the run: ``classifiers/age``."""
    judges = sorted(f"classifiers/{folder.name}" for folder in workspace.path("classifiers").glob("*"))
    folders = {name: workspace.path(name) for name in (*_NAMES, *judges)}
    return {name: folder for name, folder in folders.items() if checkpoints(folder)}


def origins(workspace: Workspace) -> list[str]:
    """A phrase for every network of the run: the updates it had here, and from what it began or, without any, is."""
    phrases = []
    for name, folder in trainings(workspace).items():
        checkpoint = latest(folder)
        begun, title = checkpoint.settings.get("init_from"), _NAMES.get(name, f"{folder.name} classifier")
        done = f"{checkpoint.iteration:,} updates" if checkpoint.iteration else "loaded"
        phrases.append(f"{title} {done} {_SOURCES.get(begun, f'from {begun}')}")
    return phrases
