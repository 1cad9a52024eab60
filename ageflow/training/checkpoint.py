"""What training writes: checkpoints, one atomic file each."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ageflow.storage import CheckpointError, checkpoints, checksum, write_atomically

__all__ = ["ConfigChangedError", "describe_changes", "save_checkpoint", "set_aside"]


class ConfigChangedError(CheckpointError):
    """A folder holds training with another config than the one asked for."""


def save_checkpoint(
    folder: Path, iteration: int, tensors: dict[str, Tensor], config: dict[str, Any], keep: int = 2
) -> Path:
    """Write one checkpoint atomically and drop all but the newest `keep`."""
    path = folder / f"checkpoint-{iteration:08d}.safetensors"
    metadata = {"iteration": str(iteration), "config": json.dumps(config, sort_keys=True)}
    # safetensors refuses views that share memory and loses channels_last strides, so every tensor goes in as its own.
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(kept, metadata | {"checksum": checksum(kept, metadata)})
    write_atomically(path, content)
    for _, old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def set_aside(folder: Path) -> Path | None:
    """Rename `folder` to ``<folder>.1`` (.2, …), so that beginning anew loses nothing; None where it is empty."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    number = 1
    while folder.with_name(f"{folder.name}.{number}").exists():
        number += 1
    return folder.rename(folder.with_name(f"{folder.name}.{number}"))


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The values that differ, ``name: old → new``."""
    names = sorted(set(old) | set(new))
    return ", ".join(f"{n}: {old.get(n)!r} → {new.get(n)!r}" for n in names if old.get(n) != new.get(n))
