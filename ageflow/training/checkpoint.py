"""What training writes: checkpoints, one atomic file each."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ageflow.folders import same_place
from ageflow.storage import CheckpointError, checkpoint_file, checkpoints, checksum, write_atomically

__all__ = [
    "ConfigChangedError",
    "comparable",
    "describe_changes",
    "refuse_another",
    "save_checkpoint",
    "set_aside",
    "told_by",
]

# What may change between two calls without making it another training.
# `cooldown` ends a training wherever it is ended, so it may come with more iterations to one that had none.
_FREE = {"iterations", "cooldown", "log_every", "preview_every", "checkpoint_every", "restart", "progress", "device"}
_FREE |= {"data_root", "runs_root", "run", "preset", "dataset"}
_FREE |= {"micro_batch", "memory", "gpus", "nodes", "rendezvous", "max_restarts"}
_FREE |= {"temperature"}  # of the samples that are drawn meanwhile
# What checkpoints of earlier versions do not tell, though it was there: not compared with theirs.
_LATER = {"averages_of", "faces"}
# What a fingerprint would say to nobody.
_NAMED = {
    "glow": "it learned from the latents of a GLOW that has been trained again since",
    "faces": "it learned from other faces than the run has now",
}


class ConfigChangedError(CheckpointError):
    """A folder holds training with another config than the one asked for."""


def save_checkpoint(
    folder: Path, iteration: int, tensors: dict[str, Tensor], config: dict[str, Any], keep: int = 2
) -> Path:
    """Write one checkpoint atomically and drop all but the newest `keep`."""
    path = checkpoint_file(folder, iteration)
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


def told_by(before: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """`config` to compare with `before`, a checkpoint's: without what one of an earlier version does not tell."""
    told = {name: value for name, value in config.items() if name not in _LATER - before.keys()}
    flows = (before.get("glow"), told.get("glow"))
    if all(isinstance(flow, Mapping) for flow in flows):  # of its shape, what only tells how gradients are computed
        told["glow"] = flows[1] | {name: value for name, value in flows[0].items() if name in _FREE}
    if "init_from" in before and same_place(before["init_from"], told.get("init_from")):
        told["init_from"] = before["init_from"]  # a sweep writes out what a single run is given as a relative path
    return told


def refuse_another(
    before: dict[str, Any], config: dict[str, Any], folder: Path, step: str, begun_by: str | None = None
) -> None:
    """Raise where a folder's training has another config than the one asked for.

    Arguments:
        before, config: of its checkpoint, and asked for.
        folder: the training's.
        step: that asks.
        begun_by: the step that begins it anew, where that is another.

    Raises:
        ConfigChangedError: what differs, and what to do.
    """
    before = comparable(before)
    config = told_by(before, comparable(config))
    if before != config:
        raise ConfigChangedError(
            f"{folder} holds a training with other values ({describe_changes(before, config)}): "
            f"name another run, or pass restart=True{f' to {begun_by}' if begun_by else ''}, which keeps the old one "
            f"under a number" + (f" (in a batch: -p {begun_by or step}.restart True)" if begun_by or step else "")
        )


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """`config` as JSON gives it back, without what does not change the result, and without what is not set: a
    checkpoint of an earlier version does not have what came later.
    """
    kept = {name: value for name, value in config.items() if name not in _FREE and value is not None}
    return json.loads(json.dumps(kept, default=str))


def describe_changes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The values that differ, ``name: old → new``; of what holds several, each by its own name."""
    old, new = dict(_leaves(old)), dict(_leaves(new))
    told = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        parameter = name.rpartition(".")[2]
        if before == now or (parameter != name and (old.get(parameter), new.get(parameter)) == (before, now)):
            continue  # the second: a network's shape, where the parameter that it comes from is told already
        if name in _NAMED:
            told.append(_NAMED[name])
        elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now) > 4:
            told.append(f"{name}: {sum(b != n for b, n in zip(before, now, strict=True))} of {len(now)} are others")
        else:
            told.append(f"{name}: {before!r} → {now!r}")
    return ", ".join(told)


def _leaves(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Values by name, ``translator.width`` for one inside another."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield before + name, value
