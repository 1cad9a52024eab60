"""Encode a set of faces once, and keep the latents."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.lib.format import open_memmap

from ageflow.config import Prototypes as PrototypesSettings
from ageflow.data.faces import Faces
from ageflow.flows.glow import load_glow
from ageflow.folders import sole_writer
from ageflow.memory import keep_freed_memory
from ageflow.progress import progress_bar
from ageflow.storage import CheckpointError, fingerprint, write_atomically
from ageflow.workspace import Workspace

__all__ = ["Latents", "encode_faces"]

_ARRAY, _PARTIAL, _MARKER = "latents.npy", "latents.partial.npy", "latents.json"


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
        marker = json.loads((folder / _MARKER).read_text())
        if marker["faces"] != faces.fingerprint:
            raise CheckpointError(
                f"{folder} holds the latents of other faces ({marker['faces'][:12]}, not {faces.fingerprint[:12]}): "
                "run 03_prototypes.ipynb again"
            )
        array = _whole(folder, len(faces))
        if array is None:
            raise CheckpointError(f"{folder / _ARRAY} is damaged: run 03_prototypes.ipynb again, which encodes anew")
        return cls(faces.table, array, marker["glow"], marker["faces"])

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
    """Encode all of the run's faces with its GLOW, once; stopped, it goes on with the batch it was at.

    Raises:
        MissingArtefactError: no faces, or no trained GLOW.
        FolderInUseError: another process encodes them.
    """
    workspace = Workspace.of(settings)
    faces = Faces.open(workspace.require("faces"))
    glow_folder = workspace.require("glow")
    folder = workspace.folder("latents")
    wanted = {"glow": fingerprint(glow_folder), "faces": faces.fingerprint}
    marker = folder / _MARKER
    if marker.is_file() and json.loads(marker.read_text()) == wanted and _whole(folder, len(faces)) is not None:
        return Latents.open(folder, faces)
    with sole_writer(folder):
        marker.unlink(missing_ok=True)
        _encode(settings, faces, glow_folder, folder, wanted)
    return Latents.open(folder, faces)


def _encode(
    settings: PrototypesSettings, faces: Faces, glow_folder: Path, folder: Path, wanted: dict[str, str]
) -> None:
    glow = load_glow(glow_folder, settings.device)
    device = next(glow.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    array, done = _partial(folder, wanted, (len(faces), glow.dimensions))
    bar = progress_bar(total=len(faces), initial=done, title="encode", unit="face", show=settings.progress)
    with torch.inference_mode(), bar:
        for start in range(done, len(faces), settings.encode_batch):
            stop = min(start + settings.encode_batch, len(faces))
            array[start:stop] = glow.encode(faces.images(slice(start, stop)).to(device)).cpu().numpy()
            array.flush()
            _note(folder, wanted | {"done": stop})
            bar.update(stop - start)
    (folder / _PARTIAL).replace(folder / _ARRAY)
    write_atomically(folder / _MARKER, json.dumps(wanted).encode())
    (folder / "partial.json").unlink()


def _whole(folder: Path, count: int) -> np.ndarray | None:
    """The latents of so many faces, memory-mapped; None where they are not there, or not all."""
    try:
        array = np.load(folder / _ARRAY, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return array if array.ndim == 2 and len(array) == count else None


def _partial(folder: Path, wanted: dict[str, str], shape: tuple[int, int]) -> tuple[np.memmap, int]:
    """The half-written array and how many rows of it are done; a new one where it is not of these latents."""
    note = folder / "partial.json"
    if note.is_file() and (folder / _PARTIAL).is_file():
        state = json.loads(note.read_text())
        done = state.pop("done")
        if state == wanted:
            return open_memmap(folder / _PARTIAL, mode="r+"), done
    array = open_memmap(folder / _PARTIAL, mode="w+", dtype=np.float32, shape=shape)
    _note(folder, wanted | {"done": 0})
    return array, 0


def _note(folder: Path, state: dict[str, object]) -> None:
    write_atomically(folder / "partial.json", json.dumps(state).encode())
