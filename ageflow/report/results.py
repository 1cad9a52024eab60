"""What the evaluation of a run found, checked to be of one piece."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from ageflow.checkpoint import checkpoints, fingerprint
from ageflow.evaluation.judged import Judged, file_name, read_judged
from ageflow.evaluation.judges import ATTRIBUTES, classifier_names
from ageflow.evaluation.scores import judged_attributes
from ageflow.run import Manifest, Workspace
from ageflow.training.metrics import read_metrics


class MixedResultsError(ValueError):
    """Methods were judged on different faces or by different judges; their numbers do not belong in one table."""


@dataclass(frozen=True)
class Results:
    """The judged faces of one run.

    Arguments:
        workspace: of the run.
        real: the real test faces.
        methods: the judged methods, by name.
        cycle, continuous, strength: rows of `ageflow.evaluation.evaluate.Evaluation` of all methods;
            None where a version of the kit that did not measure them made the evaluation.

    Example:
        ``Results.open(Workspace.of(settings)).methods["ageflow"].rows``
    """

    workspace: Workspace
    real: Judged
    methods: dict[str, Judged]
    cycle: Judged | None = None
    continuous: Judged | None = None
    strength: Judged | None = None

    @classmethod
    def open(cls, workspace: Workspace) -> "Results":
        """Read what notebook 06 left.

        Raises:
            MissingArtefactError: notebook 06 has not run to its end.
            MixedResultsError: the methods were judged differently.
        """
        folder = workspace.require("evaluation")
        names = Manifest.read(folder).details["methods"]
        real = read_judged(folder / file_name("real"))
        methods = {name: read_judged(folder / file_name(name)) for name in names}
        for name, judged in methods.items():
            theirs, shared = judged.about["fingerprints"], real.about["fingerprints"]
            differing = [what for what in shared if theirs.get(what) != shared[what]]
            if differing:
                raise MixedResultsError(
                    f"{name} was judged with another {', '.join(differing)} than the real faces in {folder}: "
                    "run 06_ablations.ipynb again"
                )
        beyond = {name: folder / file_name(name) for name in ("cycle", "continuous", "strength")}
        kept = {name: read_judged(path) for name, path in beyond.items() if path.is_file()}
        for name, judged in kept.items():
            for called, made_from in judged.about["fingerprints"].items():
                method = called.partition(" at ")[0]  # at each strength by itself
                if method in methods and not methods[method].about["fingerprints"].items() <= made_from.items():
                    raise MixedResultsError(
                        f"{name} of {method} was measured with other faces, weights or judges than the rest in {folder}: "
                        "run 06_ablations.ipynb again"
                    )
        return cls(workspace, real, methods, **kept)

    @property
    def run(self) -> str:
        """The run's name, with its data set."""
        return f"{self.workspace.dataset}/{self.workspace.run}"

    @property
    def evaluated(self) -> str:
        """When the last of it was judged, ISO 8601."""
        return max(judged.about["evaluated"] for judged in (self.real, *self.methods.values()))

    @property
    def attributes(self) -> list[str]:
        """The attributes that were judged."""
        return judged_attributes(self.real.rows)

    @cached_property
    def trained_since(self) -> str:
        """`trained_since` of all that was judged."""
        return trained_since(self.workspace, (self.real, *self.methods.values()))


def trained_since(workspace: Workspace, judged: Iterable[Judged]) -> str:
    """Which of a run's networks have been trained again since they were judged, and what to do; "" for none.

    A network that is not there any more tells nothing.
    """
    parts = ("glow", "ictm", "no_ictm", *(f"classifiers/{name}" for name in ("age", *ATTRIBUTES)))
    others = set()
    for one in judged:
        for part, then in one.about["fingerprints"].items():
            folder = workspace.path(*part.split("/"))
            if part in parts and checkpoints(folder) and fingerprint(folder) != then:
                others.add(part)
    if not others:
        return ""
    return (
        f"Not of the run as it is now: since 06_ablations.ipynb judged it, {', '.join(sorted(others))} "
        f"{'has' if len(others) == 1 else 'have'} been trained again. Run 06_ablations.ipynb again."
    )


def training_diagnostics(workspace: Workspace) -> pd.DataFrame:
    """How each training of the run ended: columns training, quantity, iteration, value.

    One row for the last value of every number that a training wrote to its metrics. Trainings that are not there
    have no rows.
    """
    folders = {name: workspace.path(name) for name in ("glow", "decoded_age", "ictm", "no_ictm")}
    if workspace.has("classifiers"):
        classifiers = workspace.require("classifiers")
        folders |= {f"classifiers/{name}": classifiers / name for name in classifier_names(classifiers)}
    rows = []
    for training, folder in folders.items():
        metrics = read_metrics(folder)
        for quantity in metrics.columns.drop("iteration", errors="ignore"):
            last = metrics[["iteration", quantity]].dropna().tail(1)
            rows += [(training, quantity, int(i), float(value)) for i, value in last.itertuples(index=False)]
    return pd.DataFrame(rows, columns=["training", "quantity", "iteration", "value"])
