"""Files that are whole or not there, and trained weights read back from them.

A training folder holds ``checkpoint-00001000.safetensors`` and the one before it; each has the weights
(``model.…``), their running average (``average.…``), the optimisers' state (``optimizer.…``) and, as JSON in the
file's metadata, the iteration and the config. Nothing is pickled.
"""

import errno
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ageflow.config import ParameterError
from ageflow.packed import unpacked

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "atomic_file",
    "averaged",
    "checkpoint_file",
    "checkpoints",
    "checksum",
    "device_of",
    "devices_of",
    "fingerprint",
    "latest",
    "load_state",
    "read_checkpoint",
    "released_metadata",
    "released_weights",
    "remove_leftovers",
    "write_atomically",
]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # no room: on the disk, in the quota, in the limit of a file
_NAME = re.compile(r"checkpoint-(\d{8})\.safetensors")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file and what its metadata say."""

    path: Path
    iteration: int
    config: dict[str, Any]

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, by the rest of their names; the others are not read."""
        with safe_open(self.path, framework="pt") as file:
            return {name[len(prefix) :]: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that `path` is either what it was or complete, whenever the power goes.

    Raises:
        OSError: it cannot be written; on a full disk the message says what to do.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write (and to read back) that becomes `path` when the block ends, and vanishes when it fails.

    Raises:
        OSError: it cannot be written; on a full disk the message says what to do.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            advice = f"{os.strerror(error.errno)}: {path} is not written. Make room on that disk and run this again"
            raise OSError(error.errno, f"{advice}: it goes on with what is not there yet") from error
        raise


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the temporary files of writers that were killed.

    Arguments:
        folder: where to look; its subfolders are not. There may be none.
        name: a regular expression of the files that were to be written.
    """
    temporary = re.compile(rf"\.(?:{name})\.[a-z0-9_]{{8}}")
    for path in folder.iterdir() if folder.is_dir() else ():
        if temporary.fullmatch(path.name):
            path.unlink(missing_ok=True)


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of `folder` that can be read; None where there is none.

    A damaged file (a full disk, a copy cut short) is passed over with a warning, and the one before it is used.

    Raises:
        CheckpointError: there are checkpoints, and none can be read.
    """
    files = checkpoints(folder)
    for _, path in reversed(files):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
    if files:
        raise CheckpointError(
            f"none of the {len(files)} checkpoints in {folder} can be read: delete them to begin anew"
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, its checksum compared.

    Raises:
        CheckpointError: it is cut short, changed, a pickle or anything else than a checkpoint of the kit.
    """
    try:
        status = path.stat()
        return _checked(path, status.st_mtime_ns, status.st_size)
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None


@lru_cache(maxsize=64)
def _checked(path: Path, changed: int, size: int) -> Checkpoint:
    """`read_checkpoint`; a file that has not changed since is not read whole again."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        config, iteration = json.loads(metadata["config"]), int(metadata["iteration"])
        told = metadata.pop("checksum", None)  # checkpoints of the first versions have none
        if told is not None and told != checksum({name: file.get_tensor(name) for name in file.keys()}, metadata):  # noqa: SIM118
            raise ValueError("its checksum is another: the file has changed since it was written")
    return Checkpoint(path, iteration, config)


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of tensors, on the CPU and contiguous, with their names, types and shapes, and of what is said of them."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_state(module: nn.Module, folder: Path, part: str = "", averaged: bool = True) -> Checkpoint:
    """Load the newest checkpoint's weights into `module`: the running average, or the weights themselves.

    Arguments:
        module: what to fill.
        folder: a training's folder.
        part: name of one of the modules that were trained together (``"translator"``); all of them by default.
        averaged: take the running average where the checkpoint has one.

    Raises:
        CheckpointError: no checkpoint, or its weights are not this module's.
    """
    checkpoint = latest(folder)
    if checkpoint is None:
        raise CheckpointError(f"no checkpoint in {folder}")
    state = _state(checkpoint, part, averaged)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit this {type(module).__name__}: {error}") from None
    return checkpoint


def averaged(checkpoint: Checkpoint, part: str) -> dict[str, Tensor]:
    """The running average of one of the modules that were trained together; empty where it was not among them."""
    return _state(checkpoint, part, averaged=True)


def _state(checkpoint: Checkpoint, part: str, averaged: bool) -> dict[str, Tensor]:
    prefix = f"{part}." if part else ""
    state = checkpoint.tensors(f"model.{prefix}")
    return state | checkpoint.tensors(f"average.{prefix}") if averaged else state


def released_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; of any other file, nothing.

    Raises:
        CheckpointError: it is called ``….safetensors`` and is none.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None


def released_weights(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """What `ageflow.training.release` wrote: the part, the network's shape, and its weights, as float32.

    However they are stored: in float32, in half precision or in eight bits (`ageflow.packed`).

    Raises:
        CheckpointError: the file is damaged, or no such file.
    """
    try:
        metadata = released_metadata(path)
        told = metadata.pop("checksum")
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if checksum(state, metadata) != told:
            raise ValueError("its checksum is another: the file has changed since it was written")
        config, part = json.loads(metadata["config"]), metadata["part"]
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as released weights ({error!r})") from None
    return part, config, unpacked({k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()})


def fingerprint(folder: Path) -> str:
    """A short hash of the newest checkpoint's weights, so that what was made from them can name them."""
    checkpoint = latest(folder)
    if checkpoint is None:
        raise CheckpointError(f"no checkpoint in {folder}")
    status = checkpoint.path.stat()
    return _digest(checkpoint.path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _digest(path: Path, changed: int, size: int) -> str:
    """`fingerprint`; a file that has not changed since is not read whole again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def checkpoint_file(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies; a machine that shares the folder may not list it yet."""
    return folder / f"checkpoint-{iteration:08d}.safetensors"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Every checkpoint of `folder`, (iteration, file), the newest last."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("checkpoint-*.safetensors"))
    return sorted((int(match[1]), path) for match, path in found if match)


def device_of(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first accelerator there is that has float64, or the CPU.

    Raises:
        ParameterError: no device's name, or one that is not here; or Apple's GPUs (``mps``), which have no float64,
            in which ActNorm's first values and the boxes of faces are computed.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator if accelerator and accelerator.type != "mps" else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ParameterError(f"device = {name!r}: expected auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= there:
            raise ParameterError(f"device = {name!r}: this machine has {there} CUDA devices; auto takes what there is")
    if device.type == "mps":
        raise ParameterError(f"device = {name!r}: it has no float64, which this needs; name cpu, cuda or auto")
    return device


def devices_of(name: str) -> list[torch.device]:
    """Every device that a name may mean, for work that is done in pieces: all GPUs where it names no one of them.

    Raises:
        ParameterError: as for `device_of`.
    """
    device = device_of(name)
    if device.type == "cuda" and device.index is None:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [device]
