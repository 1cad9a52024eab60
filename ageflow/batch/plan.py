"""Which notebooks to run, with which parameters, on which inputs."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ageflow.config import STEPS, ParameterError, Settings
from ageflow.parameters import settings
from ageflow.run import ARTEFACTS, Workspace


@dataclass(frozen=True)
class Chapter:
    """One notebook of the pipeline and the artefacts' folders that it reads."""

    notebook: str
    reads: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """Its two digits, ``"02"``."""
        return self.notebook[:2]

    @property
    def step(self) -> str:
        """The key of its settings in `ageflow.config.STEPS`."""
        return self.notebook[3:]

    @property
    def makes(self) -> tuple[str, ...]:
        """The artefacts it leaves behind."""
        return tuple(name for name, artefact in ARTEFACTS.items() if artefact.notebook == self.notebook)

    def makes_with(self, chosen: Settings) -> tuple[str, ...]:
        """`makes`, without a network that these settings do not ask for."""
        methods = getattr(chosen, "methods", ["no_ictm"])
        return tuple(name for name in self.makes if name != "no_ictm" or name in methods)


_TRAINED = ("faces", "glow", "latents", "prototypes", "ictm", "classifiers")
CHAPTERS: tuple[Chapter, ...] = (
    Chapter("01_prepare_data"),
    Chapter("02_train_glow", ("faces",)),
    Chapter("03_prototypes", ("faces", "glow")),
    Chapter("04_train_ictm", ("faces", "glow", "latents", "prototypes")),
    Chapter("05_train_classifiers", ("faces",)),
    Chapter("06_ablations", _TRAINED),
    Chapter("07_tables", ("glow", "ictm", "classifiers", "evaluation")),
    Chapter("08_figures", (*_TRAINED, "no_ictm", "evaluation")),
)


@dataclass(frozen=True)
class Plan:
    """What to run: which notebooks, of which run, with which parameters.

    Arguments:
        dataset: name of the data set.
        preset: smoke, demo or paper; None for the data set's own.
        run: name of the run; None for the preset's name.
        parameters: further parameters by name; ``"train_glow.iterations"`` or ``"02.iterations"`` reaches one
            notebook only, ``"iterations"`` every one that takes it.
        data_root: folder of the raw data set.
        runs_root: folder of all runs; None for the project's.
        chapters: the notebooks, in order.
        notebooks: folder they lie in; None for the project's.
        force: run also what has not changed.
    """

    dataset: str = "demo"
    preset: str | None = None
    run: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    data_root: Path | None = None
    runs_root: Path | None = None
    chapters: Sequence[Chapter] = CHAPTERS
    notebooks: Path | None = None
    force: bool = False

    def parameters_of(self, chapter: Chapter) -> dict[str, Any]:
        """The parameters that `chapter` is given: its own before those of all; those it does not take are left out."""
        common = {"dataset": self.dataset, "preset": self.preset, "run": self.run}
        common |= {"data_root": self.data_root, "runs_root": self.runs_root}
        given = {name: str(value) if isinstance(value, Path) else value for name, value in common.items()}
        given = {name: value for name, value in given.items() if value is not None}
        # What is given to one notebook overrides what is given to all.
        for name, value in sorted(self.parameters.items(), key=lambda item: "." in item[0]):
            reach, _, bare = name.rpartition(".")
            if (
                reach in ("", chapter.step, chapter.number, chapter.notebook)
                and bare in STEPS[chapter.step].model_fields
            ):
                given[bare] = value
        return given

    def settings_of(self, chapter: Chapter) -> Settings:
        """The validated settings `chapter` will see."""
        return settings(chapter.step, self.parameters_of(chapter))

    def check(self) -> None:
        """Every parameter is taken by a notebook of the plan, and every notebook's settings are valid.

        Raises:
            ParameterError: otherwise, before anything has run.
        """
        reachable: set[str] = set()
        for chapter in self.chapters:
            names = STEPS[chapter.step].model_fields
            for reach in ("", f"{chapter.step}.", f"{chapter.number}.", f"{chapter.notebook}."):
                reachable |= {reach + name for name in names}
        for name in self.parameters:
            if name not in reachable:
                near = difflib.get_close_matches(name, reachable, n=1)
                hint = f": did you mean {near[0]!r}?" if near else ""
                raise ParameterError(f"no notebook of this batch takes a parameter {name!r}{hint}")
        if "external" in self.parameters and {"ablations", "figures"} <= {chapter.step for chapter in self.chapters}:
            raise ParameterError(
                "external means two things: to notebook 06, whose test faces to judge on; to notebook 08, what to draw "
                "Figure A.1 of. Pass ablations.external or figures.external, or both"
            )
        for chapter in self.chapters:
            self.settings_of(chapter)

    @property
    def workspace(self) -> Workspace:
        """The folders of the run."""
        return Workspace.of(self.settings_of(self.chapters[0]))

    @property
    def folder(self) -> Path:
        """Where the notebooks lie.

        Raises:
            FileNotFoundError: a notebook of the plan is not there.
        """
        folder = self.notebooks or Path(__file__).resolve().parents[2] / "notebooks"
        for chapter in self.chapters:
            if not (folder / f"{chapter.notebook}.ipynb").is_file():
                raise FileNotFoundError(f"{folder} holds no {chapter.notebook}.ipynb: name the notebooks' folder")
        return folder
