"""Encode a set of faces once, and keep the latents: ``latents-00000.npy``, … of some faces each."""

import contextlib
import errno
import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ageflow.checkpoint import CheckpointError, fingerprint
from ageflow.config import Prototypes as PrototypesSettings
from ageflow.data.faces import Faces
from ageflow.device import devices_of, keep_freed_memory
from ageflow.flows.glow import Glow, load_glow
from ageflow.run import MANIFEST, Manifest, Workspace, atomic_file, digest, remove_leftovers, sole_writer
from ageflow.work import resumable_map

_SHARD = 512  # faces: 400 MB at 256×256


@dataclass(frozen=True)
class Latents:
    """The latents of prepared faces, D numbers each.

    Attributes:
        table: the faces, one row each, as `Faces.table`.
        shards: float32 [n, D] each, memory-mapped, in the table's order; all but the last of the same length.
        glow: fingerprint of the GLOW that encoded them.
        faces: that of the faces.
    """

    table: pd.DataFrame
    shards: Sequence[np.ndarray]
    glow: str
    faces: str

    @classmethod
    def open(cls, folder: Path, faces: Faces, glow: str | None = None) -> "Latents":
        """The latents that `encode_faces` left in `folder`, of these `faces`.

        Arguments:
            folder: the run's ``latents``, finished.
            faces: the run's.
            glow: fingerprint of the run's GLOW; None: not compared.

        Raises:
            CheckpointError: they are of other faces or of another GLOW, or damaged.
        """
        inputs = check_inputs(folder, faces=faces.fingerprint, glow=glow)
        shards = [_read(_file(folder, number), count) for number, count in enumerate(_counts(faces))]
        return cls(faces.table, shards, **inputs)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def dimensions(self) -> int:
        """D."""
        return self.shards[0].shape[1]

    def batch(self, index: Sequence[int] | np.ndarray | slice | torch.Tensor) -> torch.Tensor:
        """Rows of the latents, float32 [B, D], on the CPU, in the order asked for."""
        rows = np.arange(len(self))[index.numpy() if isinstance(index, torch.Tensor) else index]
        shards, positions = np.divmod(rows, len(self.shards[0]))
        batch = np.empty((len(rows), self.dimensions), dtype=np.float32)
        for shard in np.unique(shards):
            batch[shards == shard] = self.shards[shard][positions[shards == shard]]
        return torch.from_numpy(batch)

    def rows(self, **conditions: object) -> np.ndarray:
        """Positions of the faces whose columns have these values: ``rows(split="train")``."""
        return np.flatnonzero(self.table[[*conditions]].eq(pd.Series(conditions)).all(axis=1))


def check_inputs(folder: Path, **expected: str | None) -> dict[str, str]:
    """Fingerprints of what notebook 03's `folder`, which is finished, was made from.

    Raises:
        CheckpointError: it was made from others than `expected`, by name; None: not compared.
    """
    inputs = Manifest.read(folder).inputs
    other = [name for name, value in expected.items() if value not in (None, inputs[name])]
    if other:
        raise CheckpointError(f"{folder} was made from other {' and '.join(other)}: run 03_prototypes.ipynb again")
    return inputs


def _file(folder: Path, shard: int) -> Path:
    return folder / f"latents-{shard:05d}.npy"


def _counts(faces: Faces) -> list[int]:
    """Faces in each shard."""
    return [min(_SHARD, len(faces) - start) for start in range(0, len(faces), _SHARD)]


def _read(file: Path, count: int) -> np.ndarray:
    with contextlib.suppress(OSError, ValueError, EOFError):
        array = np.load(file, mmap_mode="r")
        if array.ndim == 2 and len(array) == count:
            return array
    raise CheckpointError(f"{file} is damaged: run 03_prototypes.ipynb again, which encodes anew")


def encode_faces(settings: PrototypesSettings) -> Latents:
    """Encode all of the run's faces with its GLOW, once; stopped, it continues with what is missing.

    In this process, or where there are several GPUs in one process each, or on a dask cluster's workers, which see the
    same folders: a script that starts processes needs ``if __name__ == "__main__":``, a notebook does not.

    Raises:
        MissingArtefactError: no faces, or no trained GLOW.
        FolderInUseError: another process encodes them.
        ParameterError: no dask scheduler answers.
        WorkersLostError: workers died again and again; what they finished stays.
        OSError: the disk has no room for the latents.
    """
    workspace = Workspace.of(settings)
    faces, glow = Faces.open(workspace.require("faces")), workspace.require("glow")
    folder = workspace.folder("latents")
    inputs = {"glow": fingerprint(glow), "faces": faces.fingerprint}
    manifest = Manifest.read(folder)
    if manifest is not None and manifest.inputs == inputs:
        with contextlib.suppress(CheckpointError):  # damaged: encoded anew
            return Latents.open(folder, faces)
    with sole_writer(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        remove_leftovers(folder, r"latents-\d+\.npy")
        counts = _counts(faces)
        for file in set(folder.glob("latents-*.npy")) - {_file(folder, shard) for shard in range(len(counts))}:
            file.unlink()  # of more faces
        _check_room(folder, len(faces), 3 * faces.image_size**2 * np.dtype(np.float32).itemsize)
        where = {"faces": faces.folder.resolve(), "glow": glow.resolve(), "folder": folder.resolve()}
        how = {"of_glow": inputs["glow"], "batch": settings.encode_batch, "device": settings.device, "length": _SHARD}
        keys = [digest([inputs, _SHARD, shard, count]) for shard, count in enumerate(counts)]
        # A cluster's workers have devices of their own, which this machine may lack.
        workers = settings.workers or (1 if settings.scheduler else len(devices_of(settings.device)))
        places = {"workers": workers, "scheduler": settings.scheduler}
        bar = {"sizes": counts, "title": "encode", "unit": "face", "show": settings.progress}
        try:
            encode = functools.partial(_encode, **where, **how)
            resumable_map(encode, range(len(counts)), folder / "pieces", keys, **places, **bar)
        finally:
            _opened.cache_clear()  # the GLOW's memory is wanted for what comes next
        shutil.rmtree(folder / "pieces")
        Manifest(inputs, fingerprint=digest(inputs)).write(folder)
    return Latents.open(folder, faces)


def _check_room(folder: Path, faces: int, bytes_a_face: int) -> None:
    """Refuse what would end on a full disk after hours of encoding; latents that are there stay or are replaced.

    Raises:
        OSError: too few bytes are free.
    """
    needed = faces * bytes_a_face - sum(file.stat().st_size for file in folder.glob("latents-*.npy"))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the latents of {faces:,} faces take {needed / 1e9:,.1f} GB, and the disk of {folder} has {free / 1e9:,.1f} "
            "GB free: make room there, or pass another runs_root",
        )


_turn: dict[str, int] = {}  # the shard that this process began with


def _encode(
    shard: int, faces: Path, glow: Path, folder: Path, of_glow: str, batch: int, device: str, length: int
) -> dict[str, Any]:
    """Encode the faces of a shard, `batch` at a time, and write it, in this process or another.

    Where `device` names no one of several GPUs, each process takes the next and stays with it, as it holds the GLOW.
    """
    devices = devices_of(device)
    own = devices[_turn.setdefault(device, shard) % len(devices)]
    opened, encoder = _opened(faces, glow, of_glow, str(own))
    stop, latents = min((shard + 1) * length, len(opened)), []
    with torch.inference_mode():
        for first in range(shard * length, stop, batch):
            images = opened.images(slice(first, min(first + batch, stop)))
            latents.append(encoder.encode(images.to(own)).cpu().numpy())
    with atomic_file(_file(folder, shard)) as file:
        np.save(file, np.concatenate(latents))
    return {}


@functools.lru_cache(maxsize=1)  # one set's shards after another
def _opened(faces: Path, glow: Path, of_glow: str, device: str) -> tuple[Faces, Glow]:
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    return Faces.open(faces), load_glow(glow, device)
