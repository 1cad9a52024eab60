"""Where a run keeps what it makes: ``runs/<dataset>/<run>/…``.

Every notebook writes into its own folder of the run and reads those of the notebooks before it.
`Workspace.require` finds what an earlier step made, or says which notebook makes it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ageflow.config import ParameterError, Settings


@dataclass(frozen=True)
class Artefact:
    """Something a step leaves behind: the file that tells it is complete, and the notebook that makes it."""

    path: str
    notebook: str
    what: str


# The marker is the file that is written last, so that a step that was stopped half-way does not count as done.
ARTEFACTS: dict[str, Artefact] = {
    "faces": Artefact("faces/faces.parquet", "01_prepare_data", "prepared faces"),
    "glow": Artefact("glow/done.json", "02_train_glow", "a trained GLOW"),
    "latents": Artefact("latents/latents.json", "03_prototypes", "encoded faces"),
    "prototypes": Artefact("prototypes/prototypes.safetensors", "03_prototypes", "average latents"),
    "ictm": Artefact("ictm/done.json", "04_train_ictm", "a trained ICTM"),
    "classifiers": Artefact("classifiers/done.json", "05_train_classifiers", "trained classifiers"),
    "no_ictm": Artefact("no_ictm/done.json", "06_ablations", "the trained network without ICTM"),
    "evaluation": Artefact("evaluation/done.json", "06_ablations", "the four methods' evaluation"),
    "tables": Artefact("tables/done.json", "07_tables", "the tables"),
    "figures": Artefact("figures/done.json", "08_figures", "the figures"),
}


class MissingArtefactError(FileNotFoundError):
    """What a step needs is not there; the message names the notebook that makes it."""


@dataclass(frozen=True)
class Workspace:
    """The folders of one run.

    Arguments:
        runs_root: folder of all runs.
        dataset: name of the data set.
        run: name of the run.

    Example:
        >>> Workspace(Path("runs"), "morph", "paper").path("glow").as_posix()
        'runs/morph/paper/glow'
    """

    runs_root: Path
    dataset: str
    run: str

    def __post_init__(self) -> None:
        for name in (self.dataset, self.run):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]*", name):
                raise ParameterError(
                    f"{name!r} cannot name a folder: use letters, digits, '.', '_', '+', '=' and '-', beginning with a "
                    "letter or digit"
                )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The folders of the run that `settings` name."""
        return cls(settings.runs_root, settings.dataset, settings.run)

    @property
    def root(self) -> Path:
        """``runs/<dataset>/<run>``."""
        return self.runs_root / self.dataset / self.run

    def path(self, *parts: str) -> Path:
        """A path inside the run; nothing is created."""
        return self.root.joinpath(*parts)

    def folder(self, *parts: str) -> Path:
        """A folder inside the run, created if need be."""
        folder = self.path(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has(self, artefact: str) -> bool:
        """Whether an earlier step has finished making `artefact` (a key of `ARTEFACTS`)."""
        return self.path(ARTEFACTS[artefact].path).is_file()

    def require(self, artefact: str) -> Path:
        """The folder of something an earlier step made.

        Arguments:
            artefact: a key of `ARTEFACTS`.

        Raises:
            MissingArtefactError: it is not there, or its step was stopped before the end; the message names
                the notebook to run.
        """
        wanted = ARTEFACTS[artefact]
        marker = self.path(wanted.path)
        if not marker.is_file():
            raise MissingArtefactError(
                f"this step needs {wanted.what}, and {marker} is not there: run {wanted.notebook}.ipynb first, "
                f"with the same dataset, preset, run and runs_root (dataset {self.dataset}, run {self.run})"
            )
        return marker.parent
