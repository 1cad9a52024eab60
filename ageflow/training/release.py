"""``python -m ageflow.training.release FOLDER FILE``: a training's averaged weights as one file to pass on.

The file is a safetensors file with plain names; its metadata hold ``part`` (``glow``, ``translator`` or
``classifier``), ``config`` (the network's shape, as JSON) and ``checksum``. `init_from` takes it. With ``--half`` it is
half as large, with ``--int8`` a quarter: weights in eight bits, each with its scales by its name and ``/scale``
(`ageflow.packed`). A released file can be released again so.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from ageflow.packed import SCALE, packed
from ageflow.storage import CheckpointError, averaged, checksum, latest, write_atomically
from ageflow.training.initial import Weights, describe, read_released

__all__ = ["main", "release"]

PARTS = ("glow", "translator", "classifier")


def release(folder: Path, path: Path, part: str | None = None, half: bool = False, int8: bool = False) -> Path:
    """Write the averaged weights of a training folder's newest checkpoint as one file.

    Arguments:
        folder: a training's folder, ``runs/<dataset>/<run>/glow``, or a file that was released before.
        path: the file to write, ``….safetensors``.
        part: ``glow``, ``translator`` or ``classifier``; None: the one that is there.
        half: store numbers in half precision, at half the size; they are read back as float32.
        int8: store the weights of layers in eight bits (`ageflow.packed`) and the rest in half precision, at a quarter
            of the size.

    Returns:
        `path`.

    Raises:
        CheckpointError: no such training or file, one of another part, or numbers too large for half precision.
        ValueError: `path` is not called ``….safetensors``.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: released weights are called ….safetensors")
    weights = _weights(folder, part)
    state = {name: tensor.contiguous() for name, tensor in weights.state.items()}
    if int8:
        state = packed(state)
    if half or int8:
        state = {name: _halved(name, tensor) for name, tensor in state.items()}
    metadata = {"part": weights.module, "config": json.dumps(weights.config, sort_keys=True)}
    write_atomically(path, save(state, metadata | {"checksum": checksum(state, metadata)}))
    return path


def _weights(place: Path, part: str | None) -> Weights:
    if place.is_file():
        weights = read_released(place)
        if part not in (None, weights.module):
            raise CheckpointError(f"{place} holds a {weights.module}, not a {part}")
        return weights
    checkpoint = latest(place) if place.is_dir() else None
    if checkpoint is None:
        raise CheckpointError(f"no checkpoint in {place}")
    states = {name: averaged(checkpoint, name) for name in ((part,) if part else PARTS)}
    module = next((name for name, state in states.items() if state), None)
    if module is None:
        raise CheckpointError(f"{checkpoint.path} is of a training without a {' or '.join(states)}")
    return Weights(checkpoint.path, module, describe(checkpoint.config, module), states[module])


def _halved(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor if name.endswith(SCALE) else tensor.to(torch.float16)  # scales are small numbers, and few
    if not bool(torch.isfinite(half).all()):
        raise CheckpointError(f"{name} has values that half precision cannot hold: release it in full")
    return half


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 1 for an error that it names."""
    parser = argparse.ArgumentParser(
        prog="python -m ageflow.training.release", description=__doc__.splitlines()[0].split(": ", 1)[1]
    )
    parser.add_argument("folder", type=Path, help="a training's folder, runs/<dataset>/<run>/glow, or a released file")
    parser.add_argument("file", type=Path, help="what to write, weights.safetensors")
    parser.add_argument("--part", choices=PARTS, help="which network; by default the one that is there")
    stored = parser.add_mutually_exclusive_group()
    stored.add_argument("--half", action="store_true", help="store numbers in half precision")
    stored.add_argument(
        "--int8", action="store_true", help="store the weights of layers in eight bits, the rest in half"
    )
    given = parser.parse_args(arguments)
    try:
        release(given.folder, given.file, given.part, given.half, given.int8)
    except (CheckpointError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
