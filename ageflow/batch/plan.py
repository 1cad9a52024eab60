"""Which runs are asked for: their notebooks, and what each is given. All of it is checked before anything runs."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ageflow.config import STEPS, ParameterError, Settings, nearest
from ageflow.parameters import settings
from ageflow.run import ARTEFACTS, Workspace

_TRAINED = ("faces", "glow", "latents", "prototypes", "ictm", "classifiers")
# The notebooks in order, and the artefacts that each reads.
READS: dict[str, tuple[str, ...]] = {
    "01_prepare_data": (),
    "02_train_glow": ("faces",),
    "03_prototypes": ("faces", "glow"),
    "04_train_ictm": ("faces", "glow", "latents", "prototypes"),
    "05_train_classifiers": ("faces",),
    "06_ablations": _TRAINED,
    "07_tables": ("glow", "ictm", "classifiers", "evaluation"),
    "08_figures": (*_TRAINED, "no_ictm", "evaluation"),
}
NOTEBOOKS = tuple(READS)
# Parameters that name a file, a folder or another run, and the words that do not.
NAMES = ("init_from", "age_classifier_from", "embedder", "external")
WORDS = ("pretrained", "nothing", "dlib")


@dataclass(frozen=True)
class Plan:
    """One run, the same wherever it is carried out.

    Arguments:
        given: the parameters of each notebook, in order; files and folders are named from the root.
        folder: where the notebooks lie.
        force: run also what has not changed.
        varied: the varied values that set it apart, as text: ``"scale=1.4, akd_weight=2"``.
    """

    given: Mapping[str, Mapping[str, Any]]
    folder: Path
    force: bool = False
    varied: str = ""

    def settings(self, notebook: str) -> Settings:
        """The settings that a notebook will see."""
        return settings(step_of(notebook), self.given[notebook])

    @cached_property
    def workspace(self) -> Workspace:
        """The folders of the run."""
        return Workspace.of(self.settings(next(iter(self.given))))

    @property
    def name(self) -> str:
        """The run with its data set, ``"morph/paper-seed1"``."""
        return f"{self.workspace.dataset}/{self.workspace.run}"

    @property
    def log(self) -> Path:
        """The file that it prints into when it is one of several."""
        return self.workspace.path("notebooks", "batch.log")


def step_of(notebook: str) -> str:
    """The key of a notebook's settings in `ageflow.config.STEPS`."""
    return notebook[3:]


def made_by(notebook: str, chosen: Settings) -> list[str]:
    """The artefacts that a notebook leaves behind, without a network that its settings do not ask for."""
    made = [name for name, artefact in ARTEFACTS.items() if artefact.notebook == notebook]
    return [name for name in made if name != "no_ictm" or name in chosen.methods]


def given_to(notebook: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a notebook is given: its own before those of all; those it does not take are left out."""
    given: dict[str, Any] = {}
    for name, value in sorted(parameters.items(), key=lambda item: "." in item[0]):
        reach, _, bare = name.rpartition(".")
        if reach in ("", notebook, notebook[:2], step_of(notebook)) and bare in STEPS[step_of(notebook)].model_fields:
            given[bare] = value
    return given


def plan_run(
    parameters: Mapping[str, Any], notebooks: Sequence[str] = NOTEBOOKS, folder: Path | None = None, **more: Any
) -> Plan:
    """One run.

    Arguments:
        parameters: by name; ``"train_glow.iterations"`` or ``"02.iterations"`` reaches one notebook only,
            ``"iterations"`` every one that takes it. Paths are meant from the working directory.
        notebooks: which, in order.
        folder: where they lie; None: the project's ``notebooks/``.
        more: ``force`` and ``varied``, see `Plan`.

    Raises:
        ParameterError: a parameter that none of the notebooks takes, or a value that cannot be used.
        FileNotFoundError: a notebook is not there.
    """
    folder = (folder or Path(__file__).parents[2] / "notebooks").expanduser().resolve()
    if missing := [name for name in notebooks if not (folder / f"{name}.ipynb").is_file()]:
        raise FileNotFoundError(f"{folder} holds no {missing[0]}.ipynb: name the notebooks' folder")
    known = {name for notebook in notebooks for name in STEPS[step_of(notebook)].model_fields}
    for name in parameters:
        if not any(given_to(notebook, {name: None}) for notebook in notebooks):
            what = f"no notebook of this batch takes a parameter {name!r}"
            raise ParameterError(what + nearest(name.rpartition(".")[2], known))
    if "external" in parameters and {"06_ablations", "08_figures"} <= {*notebooks}:
        both = "notebook 06 judges on the faces of external, notebook 08 draws Figure A.1 of it"
        raise ParameterError(f"{both}: pass ablations.external or figures.external, or both")
    given = {notebook: _from_the_root(notebook, given_to(notebook, parameters)) for notebook in notebooks}
    return Plan(given, folder, **more)


def _from_the_root(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with every path from the root; the name of another run stays one."""
    chosen = settings(step_of(notebook), given)
    rooted = {"runs_root": str(chosen.runs_root)}
    for name in given:
        value = getattr(chosen, name)
        place = Path(value).expanduser().resolve() if name in NAMES and value not in (None, *WORDS) else None
        if isinstance(value, Path):
            rooted[name] = str(value)
        elif place and place.exists() and place != (chosen.runs_root / value).resolve():
            rooted[name] = str(place)
    return given | rooted


def plan_runs(
    parameters: Mapping[str, Any], varied: Mapping[str, Sequence[Any]], data_roots: Mapping[str, str], **more: Any
) -> list[Plan]:
    """A run for every combination of values.

    A run is called as it would be alone (its `run`, or else the preset's name), then ``-seed<N>`` where seeds vary, then
    ``-<name>=<value>`` for every other value; what a folder's name should not hold becomes ``-``.

    Arguments:
        parameters: what the runs share, see `plan_run`.
        varied: values by parameter, ``dataset`` and ``seed`` among them.
        data_roots: folders of raw data sets by name.
        more: see `plan_run`.

    Returns:
        The runs, those of one data set together.

    Raises:
        ParameterError: two runs of one name, or as `plan_run`.
        FileNotFoundError: as `plan_run`.
    """
    plans = []
    for values in itertools.product(*varied.values()):
        own = dict(zip(varied, values, strict=True))
        given = {**parameters, **own}
        given |= {"prepare_data.data_root": data_roots[own["dataset"]]} if own["dataset"] in data_roots else {}
        apart = [f"{name}={_safe(value)}" for name, value in own.items() if name not in ("dataset", "seed")]
        parts = [f"seed{own['seed']}", *apart] if "seed" in own else apart
        if parts:
            alone = settings("tables", {name: given.get(name) for name in ("dataset", "preset", "run")}).run
            given["run"] = "-".join([alone, *parts])
        plans.append(plan_run(given, **more, varied=", ".join(apart)))
    for name, times in Counter(plan.name for plan in plans).items():
        if times > 1:
            what = f"{times} runs would be called {name}: leave out the duplicate value"
            raise ParameterError(f"{what}, or start this command twice with another --run")
    return plans


def _safe(value: Any) -> str:
    """A value as a part of a folder's name; the values of a list are joined by ``+``."""
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text)
