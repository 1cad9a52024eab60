"""Checkpoints, and trained weights by run, file or name.

A training folder holds ``checkpoint-00001000.safetensors`` and the one before it: the weights (``model.…``), their
running average (``average.…``), the optimisers' state (``optimizer.…``), and as JSON in the metadata the iteration, the
settings, the inputs' fingerprints and the networks' shapes. Nothing is pickled.

A *released* file holds one network's averaged weights under plain names; its metadata say ``part`` (glow, translator or
classifier), ``config`` (the network's shape) and ``checksum``. Write one by::

    python -m ageflow.checkpoint runs/morph/paper/glow weights.safetensors --half

`init_from` of a training names the weights to begin from:

* ``pretrained``: those that come with the kit;
* ``morph/paper``: a run, by data set and name; or the path of a run or of one of its training folders;
* ``weights.safetensors``: a released file, or a checkpoint;
* any other file: a GLOW of a public code (`ageflow.flows.released`);
* ``nothing``: new weights, where a preset names others.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from ageflow.downloads import not_downloaded
from ageflow.run import Manifest, as_json, atomic_file, write_atomically

PRETRAINED = Path(__file__).with_name("pretrained")
PARTS = ("glow", "translator", "classifier")
_KEPT = 2  # checkpoints: a damaged one has another before it
# What may change between two calls of one training. `cooldown` ends a training wherever it is ended.
_FREE = {"iterations", "cooldown", "log_every", "preview_every", "checkpoint_every", "restart", "progress", "device"}
_FREE |= {"data_root", "runs_root", "run", "preset", "dataset", "temperature"}
_FREE |= {"micro_batch", "memory", "gpus", "nodes", "rendezvous", "max_restarts"}


class CheckpointError(RuntimeError):
    """A checkpoint or weights that cannot be used; the message names the file."""


class ConfigChangedError(CheckpointError):
    """A folder holds a training with other values than those asked for."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file and its metadata.

    Attributes:
        iteration: updates done.
        settings: of the training, JSON values.
        inputs: fingerprints of what it was trained on, by name.
        networks: shape of each network, by its part (``glow``, ``translator``, ``discriminator``, ``classifier``).
        fingerprint: of the weights' values: the same training gives the same one.
    """

    path: Path
    iteration: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    networks: dict[str, dict[str, Any]]
    fingerprint: str

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, by the rest of their names; the others are not read."""
        return _tensors(self.path, prefix)

    def state(self, part: str) -> dict[str, Tensor]:
        """The weights of one network, their running average where there is one; empty for a part that is not there."""
        return self.tensors(f"model.{part}.") | self.tensors(f"average.{part}.")

    def check_same(self, manifest: Manifest, step: str) -> None:
        """Refuse to continue a training with other settings or on other inputs.

        Arguments:
            manifest: settings and inputs asked for.
            step: whose ``restart`` begins it anew.

        Raises:
            ConfigChangedError: what differs, and what to do.
        """
        if changed := Manifest(self.inputs, self.settings).changes(manifest.inputs, manifest.settings, _FREE):
            step = {"no_ictm": "ablations", "decoded_age": "train_ictm"}.get(self.path.parent.name, step)
            what = f"{self.path.parent} holds a training with other values ({changed}): name another run"
            restart = f"pass restart=True (in a batch: -p {step}.restart True), which keeps the old one"
            raise ConfigChangedError(f"{what}, or {restart}")


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of tensors, on the CPU and contiguous, with their names, types and shapes, and of the metadata."""
    total = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


# -- a training's checkpoints ----------------------------------------------------------------------------------------


def save_checkpoint(
    folder: Path, iteration: int, tensors: Mapping[str, Tensor], manifest: Manifest, networks: Mapping[str, Any]
) -> Path:
    """Write one checkpoint atomically, without a copy of it in memory, and drop all but the newest two.

    Arguments:
        folder: the training's.
        iteration: updates done.
        tensors: on the CPU, by name, beginning with ``model.``, ``average.``, ``optimizer.``, …
        manifest: settings and inputs of the training.
        networks: shape of each network, by part.
    """
    path = checkpoint_file(folder, iteration)
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}  # safetensors loses channels_last strides
    weights = {name: tensor for name, tensor in kept.items() if name.startswith(("model.", "average."))}
    about = {"settings": manifest.settings, "inputs": manifest.inputs, "networks": networks}
    metadata = {"iteration": str(iteration), "fingerprint": checksum(weights, {})[:16]}
    metadata |= {name: json.dumps(value, sort_keys=True, default=str) for name, value in about.items()}
    metadata["checksum"] = checksum(kept, metadata)
    with atomic_file(path) as file:
        try:
            save_file(kept, file.name, metadata)  # another file of that name, from its own `.tmp……`
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else None, str(error)) from error
        with Path(file.name).open("rb") as written:
            os.fsync(written.fileno())
    for _, old in checkpoints(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, its checksum compared.

    Raises:
        CheckpointError: it is cut short, changed, a pickle or anything else than a checkpoint of the kit.
    """
    metadata = file_metadata(path)
    if "iteration" not in metadata:
        raise CheckpointError(f"{path} cannot be read: it is no checkpoint of a training")
    about = (json.loads(metadata[name]) for name in ("settings", "inputs", "networks"))
    return Checkpoint(path, int(metadata["iteration"]), *about, metadata["fingerprint"])


def file_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file that the kit wrote, its checksum compared; nothing for any other file.

    A file that has not changed is not read again.

    Raises:
        CheckpointError: it has changed since it was written, or is called ``….safetensors`` and is none.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        return _compared(path, path.stat().st_mtime_ns, path.stat().st_size)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({not_downloaded(path) or error})") from None


@lru_cache(maxsize=64)
def _compared(path: Path, changed: int, size: int) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    expected = metadata.pop("checksum", None)
    if expected is None:
        return {}
    if expected != checksum(_tensors(path), metadata):
        raise ValueError("its checksum differs: the file has changed since it was written")
    return metadata


def _tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    with safe_open(path, framework="pt") as file:
        return {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def checkpoint_file(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return folder / f"checkpoint-{iteration:08d}.safetensors"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Every checkpoint of `folder`, (iteration, file), the newest last."""
    return sorted((int(path.stem[-8:]), path) for path in folder.glob(f"checkpoint-{8 * '[0-9]'}.safetensors"))


def readable(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints of `folder`, the newest first; a damaged one (a copy cut short) is left out with a warning."""
    for _, path in reversed(checkpoints(folder)):
        try:
            yield read_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=3)


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of `folder` that can be read (see `readable`); None where there is none.

    Raises:
        CheckpointError: there are checkpoints, and none can be read.
    """
    checkpoint = next(readable(folder), None)
    if checkpoint is None and checkpoints(folder):
        raise CheckpointError(f"no checkpoint in {folder} can be read: delete them to begin anew")
    return checkpoint


def newest(folder: Path, part: str = "") -> Checkpoint:
    """`latest` of a training that must have one, of a network `part` if that is named; CheckpointError: it has none."""
    checkpoint = latest(folder)
    if checkpoint is None or (part and part not in checkpoint.networks):
        what = f"no checkpoint{part and f' of a {part}'} in {folder}"
        raise CheckpointError(f"{what}: run the notebook that trains it again, with restart = True")
    return checkpoint


def fingerprint(folder: Path) -> str:
    """The fingerprint of the newest checkpoint's weights, by their values, so that what is made from them can name them."""
    return newest(folder).fingerprint


def load_state(module: nn.Module, folder: Path, part: str) -> None:
    """Load one network of a training's newest checkpoint, ``"translator"``, into `module`: its averaged weights.

    Raises:
        CheckpointError: no checkpoint, or its weights are not this module's.
    """
    checkpoint = newest(folder)
    _load(module, checkpoint.state(part), checkpoint.path)


def _load(module: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not fit this {type(module).__name__}: {error}") from None


def set_aside(folder: Path) -> None:
    """Rename `folder`, unless it is empty, to ``<folder>.1`` (.2, …), so that beginning anew loses nothing."""
    if folder.exists() and any(folder.iterdir()):
        names = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
        folder.rename(next(name for name in names if not name.exists()))


# -- weights to begin from, and to pass on ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Trained weights, wherever they come from.

    Attributes:
        source: the file.
        part: ``glow``, ``translator`` or ``classifier``.
        config: the network's shape.
        state: its averaged weights.
        critic: the discriminator's, where they come from a training of a translator.
    """

    source: Path
    part: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    critic: dict[str, Tensor] | None = None

    def fill(self, module: nn.Module, expected: Mapping[str, Any]) -> None:
        """Load the weights into `module`, whose shape is `expected`, by the names in `config`.

        Raises:
            CheckpointError: the shapes differ; the message names each value that does.
        """
        expected = as_json(expected)
        differ = [name for name in expected if self.config.get(name) != expected[name]]
        if differ:
            values = ", ".join(f"{name} = {self.config.get(name)!r}, not {expected[name]!r}" for name in differ)
            what = f"the weights in {self.source} do not fit these settings and faces: they have {values}"
            raise CheckpointError(f"{what}. Leave the shape, or begin from other or new weights (init_from = nothing)")
        _load(module, self.state, self.source)


def find_weights(init_from: str, runs_root: Path, folder: str) -> Path:
    """The file or training folder that `init_from` names.

    Arguments:
        init_from: see the module.
        runs_root: folder of all runs.
        folder: the training's folder in a run: ``glow``, ``ictm``, ``no_ictm``, ``decoded_age``, ``classifiers/age``, …

    Raises:
        CheckpointError: there is nothing of that name; the message says where it was looked for.
    """
    if init_from == "pretrained":
        # The judges, one for ages and one for each attribute, begin from one network that predicts several of these.
        path = PRETRAINED / f"{'judge' if folder.startswith('classifiers/') else folder}.safetensors"
        if not path.is_file():
            raise CheckpointError(f"no pretrained weights for {folder} come with the kit: name a run or a file")
        return path
    places = list(dict.fromkeys((Path(init_from).expanduser(), runs_root / init_from)))
    inside = [place / name for place in places for name in dict.fromkeys((".", folder, Path(folder).name))]
    for path in (*places, *inside):
        if path.is_file() or checkpoints(path):
            return path
    what = f"init_from = {init_from!r}: no file of that name, and no training in any of {', '.join(map(str, inside))}"
    raise CheckpointError(f"{what}. Name a run as dataset/run, the path of a run or of a file, or 'pretrained'")


def read_weights(path: Path, part: str | None = None) -> Weights | None:
    """The weights of a training folder, a checkpoint or a released file; None for a file of other code.

    Numbers stored in half precision come back as float32.

    Arguments:
        path: of `find_weights`.
        part: the network asked for; None: the one that is there.

    Raises:
        CheckpointError: the file is damaged, or holds another network.
    """
    metadata = {} if path.is_dir() else file_metadata(path)
    if path.is_dir() or "iteration" in metadata:
        checkpoint = newest(path) if path.is_dir() else read_checkpoint(path)
        wanted = next((name for name in ((part,) if part else PARTS) if name in checkpoint.networks), None)
        if wanted is None:
            raise CheckpointError(f"{checkpoint.path} is of a training without a {part or ' or '.join(PARTS)}")
        critic = checkpoint.state("discriminator") if wanted == "translator" else None
        return Weights(checkpoint.path, wanted, checkpoint.networks[wanted], checkpoint.state(wanted), critic)
    if "part" not in metadata:
        return None
    if part not in (None, metadata["part"]):
        raise CheckpointError(f"{path} holds a {metadata['part']}, not a {part}")
    state = {name: value.float() if value.dtype == torch.float16 else value for name, value in _tensors(path).items()}
    return Weights(path, metadata["part"], json.loads(metadata["config"]), state)


def release(folder: Path, path: Path, half: bool = False) -> Path:
    """Write the averaged weights of a training folder's newest checkpoint as one file to pass on.

    Arguments:
        folder: a training's folder, ``runs/<dataset>/<run>/glow``, or a file that was released before.
        path: the file to write, ``….safetensors``.
        half: store numbers in half precision, at half the size; they are read back as float32.

    Raises:
        CheckpointError: no such training or file, numbers too large for half precision, or `path` is not called
            ``….safetensors``.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: released weights are called ….safetensors")
    weights = read_weights(folder) if folder.exists() else None
    if weights is None:
        raise CheckpointError(f"no checkpoint in {folder}, and it is no released file")
    state = {name: tensor.contiguous() for name, tensor in weights.state.items()}
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
            raise CheckpointError(f"{weights.source} has values that half precision cannot hold: release it in full")
    metadata = {"part": weights.part, "config": json.dumps(weights.config, sort_keys=True)}
    write_atomically(path, save(state, metadata | {"checksum": checksum(state, metadata)}))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 1 for an error that it names."""
    parser = argparse.ArgumentParser("python -m ageflow.checkpoint", description="Write trained weights as one file.")
    parser.add_argument("folder", type=Path, help="a training's folder, runs/<dataset>/<run>/glow, or a released file")
    parser.add_argument("file", type=Path, help="what to write, weights.safetensors")
    parser.add_argument("--half", action="store_true", help="store numbers in half precision")
    given = parser.parse_args(arguments)
    try:
        release(given.folder, given.file, given.half)
    except (CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
