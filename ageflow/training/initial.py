"""Weights to begin from: another run's, a file's, a public code's, or those that ship with the kit.

`init_from` of a training names them:

* ``pretrained``: the kit's own;
* ``morph/paper``: a run, by data set and name; or the path of a run or of one of its training folders;
* ``nothing``: new weights (`ageflow.config` makes it None), where a preset names others;
* ``weights.safetensors``: a file that `ageflow.training.release` wrote, or a checkpoint;
* any other file: a GLOW of a public code (`ageflow.flows.released`).

Of runs and of the kit's own files the averaged weights are taken. Optimisers, counts and learning rate are the new
training's.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ageflow.config import Training
from ageflow.data.faces import TABLE_FILE, Faces
from ageflow.flows.glow import GlowConfig
from ageflow.storage import (
    Checkpoint,
    CheckpointError,
    averaged,
    checkpoints,
    latest,
    read_checkpoint,
    released_metadata,
    released_weights,
)
from ageflow.workspace import Workspace

__all__ = ["PRETRAINED", "Weights", "describe", "find", "find_unless_begun", "warn_of_known_people", "weights_of"]

# Which of the trained modules a step's network is, by the part of a run it lies in.
_MODULES = {"glow": "glow", "ictm": "translator", "no_ictm": "translator", "age": "classifier"}
PRETRAINED = Path(__file__).parents[1] / "pretrained"
_NO_JUDGE = {"glow", "ictm", "no_ictm", "decoded_age"}


@dataclass(frozen=True)
class Weights:
    """Trained weights, wherever they come from.

    Arguments:
        source: the file.
        module: ``glow``, ``translator`` or ``classifier``.
        config: the network's shape (`describe`).
        state: its averaged weights.
        critic: the discriminator's, where they come from a training of a translator.
    """

    source: Path
    module: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    critic: dict[str, Tensor] | None = None

    def fill(self, module: nn.Module, expected: Mapping[str, Any]) -> None:
        """Load the weights into `module`, whose shape is `expected`, by the names in `config`.

        Raises:
            CheckpointError: the shapes differ; the message names each value that does.
        """
        asked = json.loads(json.dumps(expected))
        mine = self.config | self.config.get("translator", {})
        if names := [name for name in asked if mine.get(name) != asked[name]]:
            told = ", ".join(f"{name} = {mine.get(name)!r}, not {asked[name]!r}" for name in names)
            raise CheckpointError(
                f"the weights in {self.source} do not fit these settings and faces: they have {told}. Leave the shape as "
                "it is, or begin from other weights, or from new ones (init_from = nothing, with a learning rate and "
                "iterations for that)"
            )
        try:
            module.load_state_dict(self.state)
        except RuntimeError as error:
            raise CheckpointError(f"{self.source} does not fit this {type(module).__name__}: {error}") from None


def find_unless_begun(init_from: str, settings: Training, part: str, *folder: str) -> Path | None:
    """What `find` finds; None where it is gone, but the run's training in `folder` has begun, and goes on without.

    Raises:
        CheckpointError: there is nothing of that name, and the training has not begun.
    """
    try:
        return find(init_from, settings.runs_root, part)
    except CheckpointError:
        if settings.restart or not checkpoints(Workspace.of(settings).path(*folder)):
            raise
        return None


def describe(config: Mapping[str, Any], module: str) -> dict[str, Any]:
    """What of a training's config is the network's shape: as JSON, the ``config`` of a released file."""
    if module == "translator":
        return {name: config[name] for name in ("kind", "translator", "latent_shapes", "groups")}
    if module == "glow":
        shape = GlowConfig(**config["glow"])
        # How it was computed in training says nothing about the weights: in bf16 a face would not come back whole.
        return shape.model_dump(exclude={"memory", "precision"}) | {"steps": shape.steps_per_level}
    return dict(config[module])


def find(init_from: str, runs_root: Path, part: str) -> Path:
    """The file or training folder that `init_from` names.

    Arguments:
        init_from: see the module.
        runs_root: folder of all runs.
        part: what is asked for: ``glow``, ``ictm``, ``no_ictm``, ``age``, ``gender``, …

    Raises:
        CheckpointError: there is nothing of that name; the message says where it was looked for.
    """
    if init_from == "pretrained":
        # The judges, one for ages and one for each attribute, begin from one network that tells several of these.
        path = PRETRAINED / f"{part if part in _NO_JUDGE else 'judge'}.safetensors"
        if not path.is_file():
            there = ", ".join(sorted(file.stem for file in PRETRAINED.glob("*.safetensors"))) or "none"
            raise CheckpointError(
                f"no pretrained weights for {part} come with this installation (there are: {there}): name a run or a file"
            )
        return path
    places = [Path(init_from).expanduser()]
    if not places[0].is_absolute():
        places.append(runs_root / init_from)
    for place in places:
        if place.is_file():
            return place
    inside = (".", part) if part in _MODULES and part != "age" else (".", f"classifiers/{part}", part)
    for place in places:
        for name in inside:
            if checkpoints(place / name):
                return place / name
    tried = ", ".join(str(place / name) for place in places for name in inside)
    raise CheckpointError(
        f"init_from = {init_from!r}: no file of that name, and no trained {part} in any of {tried}. "
        "Name a run as dataset/run, the path of a run or of a file, or 'pretrained'"
    )


def warn_of_known_people(init_from: str, path: Path, faces: Faces) -> None:
    """Warn where the run that the weights come from learned from people who are to test here.

    Only runs tell that: a released file does not hold whose faces it learned from (the kit's own do so in their card).

    Arguments:
        init_from: what the weights were called.
        path: what `find` found.
        faces: the new training's.
    """
    source = next((folder / "faces" for folder in path.parents[:3] if (folder / "faces" / TABLE_FILE).is_file()), None)
    if source is None:
        return
    test = faces.select(split="test")
    known = len(test) - len(test.unseen_by(Faces.open(source)))
    if known:
        warnings.warn(
            f"init_from = {init_from!r}: {known:,} of the {len(test):,} test faces are of people whom those weights "
            "learned from, so what is measured on them flatters. Begin from other weights, or prepare faces of other "
            "people",
            stacklevel=3,
        )


def weights_of(path: Path, part: str) -> Weights | None:
    """The weights that `find` found; None for a file that is not the kit's own, but may be a public code's.

    Raises:
        CheckpointError: the file is damaged, or holds another network.
    """
    module = _MODULES.get(part, "classifier")
    if path.is_dir():
        checkpoint = latest(path)
        assert checkpoint is not None, "find() has seen one"
        return _of_checkpoint(checkpoint, module)
    metadata = released_metadata(path)
    if "iteration" in metadata:
        return _of_checkpoint(read_checkpoint(path), module)
    if "config" not in metadata:
        return None
    weights = read_released(path)
    if weights.module != module:
        raise CheckpointError(f"{path} holds a {weights.module}, not a {module}")
    return weights


def read_released(path: Path) -> Weights:
    """A file that `ageflow.training.release` wrote; numbers stored in half precision come back as float32.

    Raises:
        CheckpointError: it is damaged, or no such file.
    """
    module, config, state = released_weights(path)
    return Weights(path, module, config, state)


def _of_checkpoint(checkpoint: Checkpoint, module: str) -> Weights:
    state = averaged(checkpoint, module)
    if not state:
        raise CheckpointError(f"{checkpoint.path} is of a training without a {module}")
    critic = averaged(checkpoint, "discriminator") if module == "translator" else None
    return Weights(checkpoint.path, module, describe(checkpoint.config, module), state, critic)
