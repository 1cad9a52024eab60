"""What a run's evaluation found, checked to be of one piece, and how its trainings went."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from ageflow.checkpoint import checkpoints, fingerprint, latest
from ageflow.evaluation.evaluate import GATHERED, Judged, read_judged
from ageflow.evaluation.scores import judged_attributes
from ageflow.run import Workspace
from ageflow.training.metrics import read_metrics

_NAMES = {"glow": "GLOW", "decoded_age": "A behind the decoder", "ictm": "ICTM", "no_ictm": "w/o ICTM"}
_SOURCES = {None: "from nothing", "pretrained": "from the weights that ship with the kit"}


class MixedResultsError(ValueError):
    """Methods were judged on different faces or by different judges; their numbers do not belong in one table."""


@dataclass(frozen=True)
class Results:
    """The judged faces of one run.

    Arguments:
        workspace: of the run.
        real: the real test faces.
        methods: the judged methods, by name.
        cycle, continuous, strength: what was measured of all methods together: faces translated there and back, to
            a continuous age, and less and more of the way.

    Example:
        ``Results.open(Workspace.of(settings)).methods["ageflow"].rows``
    """

    workspace: Workspace
    real: Judged
    methods: dict[str, Judged]
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
        folder, methods = workspace.require("evaluation"), workspace.manifest("evaluation").details["methods"]
        found = {name: read_judged(folder, name) for name in ("real", *methods, *GATHERED)}
        for name in methods:
            _check_alike(name, found[name].about["fingerprints"], found["real"].about["fingerprints"])
        for name in GATHERED:
            for called, made_from in found[name].about["fingerprints"].items():
                method = called.partition(" at ")[0]  # at each strength by itself
                if method in methods:
                    _check_alike(f"{name} of {method}", made_from, found[method].about["fingerprints"])
        of_all = {name: found[name] for name in ("real", *GATHERED)}
        return cls(workspace, methods={name: found[name] for name in methods}, **of_all)

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
        """Which of the run's networks have been trained again since they were judged, and what to do; "" for none."""
        judged = [each.about["fingerprints"] for each in (self.real, *self.methods.values())]
        then = {part: found for fingerprints in judged for part, found in fingerprints.items()}
        folders = {name: folder for name, folder in trainings(self.workspace).items() if name in then}
        again = [name for name, folder in folders.items() if then[name] != fingerprint(folder)]
        if not again:
            return ""
        return (
            f"Not of the run as it is now: trained again since 06_ablations.ipynb judged it: {', '.join(again)}. "
            "Run 06_ablations.ipynb again."
        )


def _check_alike(name: str, theirs: dict[str, str], shared: dict[str, str]) -> None:
    differing = [what for what in shared if theirs.get(what) != shared[what]]
    if differing:
        raise MixedResultsError(
            f"{name} was judged with another {', '.join(differing)} than the rest of the evaluation: "
            "run 06_ablations.ipynb again"
        )


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
        begun = checkpoint.settings.get("init_from")
        done = f"{checkpoint.iteration:,} updates" if checkpoint.iteration else "loaded"
        title = _NAMES.get(name, f"{folder.name} classifier")
        phrases.append(f"{title} {done} {_SOURCES.get(begun, f'from {begun}')}")
    return phrases


def training_diagnostics(workspace: Workspace) -> pd.DataFrame:
    """How each training of the run ended: columns training, quantity, iteration, value.

    One row for the last value of every number that a training wrote to its metrics. Trainings that are not there
    have no rows.
    """
    rows = []
    for training, folder in trainings(workspace).items():
        metrics = read_metrics(folder)
        for quantity in metrics.columns.drop("iteration", errors="ignore"):
            last = metrics[["iteration", quantity]].dropna().tail(1)
            rows += [(training, quantity, int(i), float(value)) for i, value in last.itertuples(index=False)]
    return pd.DataFrame(rows, columns=["training", "quantity", "iteration", "value"])
