"""Encode a set of faces once, and keep the latents."""

import errno
import functools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.lib.format import open_memmap

from ageflow.checkpoint import CheckpointError, fingerprint
from ageflow.config import Prototypes as PrototypesSettings
from ageflow.data.faces import Faces
from ageflow.device import devices_of, keep_freed_memory
from ageflow.flows.glow import Glow, load_glow
from ageflow.run import MANIFEST, Manifest, Workspace, digest, sole_writer, write_atomically
from ageflow.work import in_any_order, progress_bar

_FACES_OF_A_TASK = 2048  # where other processes encode: loading the GLOW is little beside it
_ARRAY, _PARTIAL = "latents.npy", "latents.partial.npy"


@dataclass(frozen=True)
class Latents:
    """The latents of prepared faces.

    Attributes:
        table: the faces, one row each, as `Faces.table`.
        array: float32 [N, D], memory-mapped, in the table's order.
        glow: fingerprint of the GLOW that encoded them.
        faces: that of the faces.
    """

    table: pd.DataFrame
    array: np.ndarray
    glow: str
    faces: str

    @classmethod
    def open(cls, folder: Path, faces: Faces) -> "Latents":
        """The latents that `encode_faces` left in `folder`, of these `faces`.

        Raises:
            CheckpointError: they are of other faces, or damaged.
        """
        inputs = Manifest.read(folder).inputs
        if inputs["faces"] != faces.fingerprint:
            raise CheckpointError(
                f"{folder} holds the latents of other faces ({inputs['faces']}, not {faces.fingerprint}): "
                "run 03_prototypes.ipynb again"
            )
        array = _whole(folder, len(faces))
        if array is None:
            raise CheckpointError(f"{folder / _ARRAY} is damaged: run 03_prototypes.ipynb again, which encodes anew")
        return cls(faces.table, array, inputs["glow"], inputs["faces"])

    @property
    def dimensions(self) -> int:
        """Numbers of a latent, D."""
        return int(self.array.shape[1])

    def batch(self, index: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Rows of the latents, float32 [B, D], on the CPU."""
        return torch.from_numpy(self.array[np.asarray(index)])

    def rows(self, **conditions: object) -> np.ndarray:
        """Positions of the faces whose columns have these values: ``rows(split="train")``."""
        keep = np.ones(len(self.table), dtype=bool)
        for column, value in conditions.items():
            keep &= (self.table[column] == value).to_numpy()
        return np.flatnonzero(keep)


def encode_faces(settings: PrototypesSettings) -> Latents:
    """Encode all of the run's faces with its GLOW, once; stopped, it goes on with what is missing.

    In this process, or where there are several GPUs in one process each, or on a dask cluster's workers, which see the
    same folders: a script that starts processes needs ``if __name__ == "__main__":``, a notebook does not.

    Raises:
        MissingArtefactError: no faces, or no trained GLOW.
        FolderInUseError: another process encodes them.
        ParameterError: no dask scheduler answers.
        WorkersLostError: workers died again and again; what they finished stays.
    """
    workspace = Workspace.of(settings)
    faces = Faces.open(workspace.require("faces"))
    glow_folder = workspace.require("glow")
    folder = workspace.folder("latents")
    wanted = {"glow": fingerprint(glow_folder), "faces": faces.fingerprint}
    manifest = Manifest.read(folder)
    if manifest and manifest.inputs == wanted and _whole(folder, len(faces)) is not None:
        return Latents.open(folder, faces)
    with sole_writer(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        _encode(settings, faces, glow_folder, folder, wanted)
    return Latents.open(folder, faces)


def _encode(
    settings: PrototypesSettings, faces: Faces, glow_folder: Path, folder: Path, wanted: dict[str, str]
) -> None:
    done = _begun(folder, wanted, (len(faces), 3 * faces.image_size**2))
    # A cluster's workers have devices of their own, which this machine may lack.
    workers = settings.workers or (1 if settings.scheduler else len(devices_of(settings.device)))
    alone = settings.scheduler is None and workers == 1
    length = settings.encode_batch if alone else -(-_FACES_OF_A_TASK // settings.encode_batch) * settings.encode_batch
    threads = None if alone or settings.scheduler else max(1, (os.cpu_count() or 1) // workers)
    where = {"faces": faces.folder.resolve(), "glow": glow_folder.resolve(), "file": (folder / _PARTIAL).resolve()}
    common = {"batch": settings.encode_batch, "device": settings.device, "threads": threads, "of_glow": wanted["glow"]}
    pieces = [
        _Piece(0 if alone else number, start, min(start + length, stop), **common, **where)
        for number, (start, stop) in enumerate(
            (start, stop) for first, stop in _missing(done, len(faces)) for start in range(first, stop, length)
        )
    ]
    missing = sum(piece.stop - piece.start for piece in pieces)
    _make_sure_of_room(folder, missing * 3 * faces.image_size**2 * np.dtype(np.float32).itemsize, missing)
    begun = len(faces) - missing
    bar = progress_bar(total=len(faces), initial=begun, title="encode", unit="face", show=settings.progress)
    try:
        with bar:
            for number, _ in in_any_order(_encode_piece, pieces, workers, settings.scheduler):
                piece = pieces[number]
                done = _joined([*done, [piece.start, piece.stop]])
                _note(folder, wanted | {"done": done})
                bar.update(piece.stop - piece.start)
    finally:
        _opened.cache_clear()  # the GLOW's memory is wanted for what comes next
    (folder / _PARTIAL).replace(folder / _ARRAY)
    Manifest(wanted, fingerprint=digest(wanted)).write(folder)
    (folder / "partial.json").unlink()


@dataclass(frozen=True)
class _Piece:
    """Rows of a set to encode: a task of a process of its own, on this machine or another.

    Arguments:
        number: of the piece; 0 for all where one process encodes them, which so loads the GLOW on one GPU alone.
        start, stop: first row, and the one after the last.
        batch: faces at a time.
        device: as in the settings; where it names no one of several GPUs, each piece takes the next.
        threads: of the processor; None: as torch has it.
        of_glow: the GLOW's fingerprint.
        faces, glow: folders of the prepared faces and of the trained GLOW.
        file: the array, which holds a row for each face already.
    """

    number: int
    start: int
    stop: int
    batch: int
    device: str
    threads: int | None
    of_glow: str
    faces: Path
    glow: Path
    file: Path


def _make_sure_of_room(folder: Path, needed: int, faces: int) -> None:
    """Hours of encoding would end on a full disk.

    Raises:
        OSError: fewer bytes than `needed` are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the latents of {faces:,} faces take {needed / 1e9:,.1f} GB, and the disk of {folder} has {free / 1e9:,.1f} "
            "GB free: make room there, or pass another runs_root",
        )


_FIRST_PIECE: dict[int, int] = {}  # by process: the number of the piece that it began with


def _encode_piece(piece: _Piece) -> None:
    """Encode the piece's faces, and write them where they belong in the file."""
    if piece.threads is not None:
        torch.set_num_threads(piece.threads)
    devices = devices_of(piece.device)
    # A process stays with the GPU of its first piece, or it would load the GLOW for every other piece anew.
    device = devices[_FIRST_PIECE.setdefault(os.getpid(), piece.number) % len(devices)]
    faces, glow = _opened(piece.faces, piece.glow, piece.of_glow, str(device))
    offset, width = np.load(piece.file, mmap_mode="r").offset, glow.dimensions * np.dtype(np.float32).itemsize
    # Written, not mapped: two machines that write into one page of a shared file would undo each other's half.
    with piece.file.open("r+b") as file, torch.inference_mode():
        for start in range(piece.start, piece.stop, piece.batch):
            images = faces.images(slice(start, min(start + piece.batch, piece.stop)))
            file.seek(offset + start * width)
            file.write(glow.encode(images.to(device)).cpu().numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())


@functools.lru_cache(maxsize=1)  # one set's pieces after another
def _opened(faces: Path, glow: Path, of_glow: str, device: str) -> tuple[Faces, Glow]:
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    return Faces.open(faces), load_glow(glow, device)


def _missing(done: list[list[int]], count: int) -> Iterator[tuple[int, int]]:
    """The stretches of `count` rows that none of the sorted stretches `done` holds."""
    first = 0
    for start, stop in [*done, [count, count]]:
        if first < start:
            yield first, start
        first = stop


def _joined(stretches: list[list[int]]) -> list[list[int]]:
    """Stretches of rows, sorted, those that touch as one."""
    joined: list[list[int]] = []
    for start, stop in sorted(stretches):
        if joined and joined[-1][1] == start:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    return joined


def _whole(folder: Path, count: int) -> np.ndarray | None:
    """The latents of so many faces, memory-mapped; None where they are not there, or not all."""
    try:
        array = np.load(folder / _ARRAY, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return array if array.ndim == 2 and len(array) == count else None


def _begun(folder: Path, wanted: dict[str, str], shape: tuple[int, int]) -> list[list[int]]:
    """The stretches of rows of the half-written array that are done; a new array where it is not of these latents."""
    note = folder / "partial.json"
    if note.is_file() and (folder / _PARTIAL).is_file():
        state = json.loads(note.read_text())
        done = state.pop("done")
        if state == wanted:
            return [[0, done]] if isinstance(done, int) else done  # a number: the first rows, of an earlier version
    open_memmap(folder / _PARTIAL, mode="w+", dtype=np.float32, shape=shape).flush()
    _note(folder, wanted | {"done": []})
    return []


def _note(folder: Path, state: dict[str, object]) -> None:
    write_atomically(folder / "partial.json", json.dumps(state).encode())
