"""One shard of aligned faces, made from its rows alone: whoever makes it, the bytes are the same.

A shard's rows go through the detector in batches of eight that the rows decide, on one thread: the last bits of a
convolution depend on the batch and may depend on the threads.
"""

import hashlib
import io
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ageflow.data.align import DETECTION_BATCH, Aligned, Aligner
from ageflow.data.faces import shard_file
from ageflow.data.pictures import open_image, read_picture
from ageflow.device import devices_of, keep_freed_memory
from ageflow.run import atomic_file, write_atomically

_HEADER = 128  # bytes; numpy pads the header so that any number of faces fits in


@dataclass(frozen=True)
class Shard:
    """All that it takes to make a shard, on any machine that sees both folders.

    Arguments:
        folder: where it is written.
        number: of the shard, from 0.
        rows: file, identity, age, gender, race, source, and `position`, the row of the reader's table.
        root: folder that the files are relative to.
        landmarks: [rows, 5, 2] pixels, where they are known; None: they are searched for.
        image_size: side of the faces, pixels.
        device: where they are searched for, as in the settings.
    """

    folder: Path
    number: int
    rows: pd.DataFrame
    root: Path
    landmarks: np.ndarray | None
    image_size: int
    device: str


def rows_file(folder: Path, number: int) -> Path:
    """What tells that a shard is whole, while the others are made: its faces' rows, its rejected ones, its checksum."""
    return shard_file(folder, number).with_suffix(".json")


def finished_shard(shard: Shard) -> dict[str, Any] | None:
    """What `make_shard` returned for it before; None: it is not there, or was made from other rows."""
    file = rows_file(shard.folder, shard.number)
    part = json.loads(file.read_text()) if file.is_file() else None
    return part if part is not None and part.get("made_from") == _made_from(shard) else None


def _made_from(shard: Shard) -> str:
    """A checksum of a shard's rows; the pictures' own are in its table."""
    content = [shard.rows.to_json(orient="split", index=False, double_precision=15), str(shard.root)]
    known = b"" if shard.landmarks is None else np.ascontiguousarray(shard.landmarks).tobytes()
    return hashlib.sha256(json.dumps(content).encode() + known).hexdigest()


def make_shard(shard: Shard, done: Callable[[int], Any] = lambda rows: None) -> dict[str, Any]:
    """Align the faces of a shard and write them: the pixels first, then `rows_file`.

    Faces go to the disk as they are aligned, so that a shard of any size takes the memory of one batch.

    Arguments:
        shard: what to make.
        done: told how many rows were finished, again and again.

    Returns:
        What `rows_file` holds: ``faces`` and ``rejected``, lists of rows, the file's ``checksum``, and
        ``made_from``, that of the rows it was asked to make.

    Raises:
        FileNotFoundError: this machine does not see the folders.
        OSError: it cannot be written; on a full disk the message says what to do.
    """
    for folder in (shard.root, shard.folder):
        if not folder.is_dir():  # or every picture would be turned away as missing
            raise FileNotFoundError(
                f"the machine {socket.gethostname()} does not see {folder}: with a scheduler, data_root, runs_root "
                "and cache must be the same paths, of a shared disk, for every worker"
            )
    devices = devices_of(shard.device)
    aligner = _aligner(shard.image_size, devices[shard.number % len(devices)])
    faces: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    with atomic_file(shard_file(shard.folder, shard.number)) as file:
        file.write(bytes(_HEADER))
        for start in range(0, len(shard.rows), DETECTION_BATCH):
            batch = shard.rows.iloc[start : start + DETECTION_BATCH]
            points = None if shard.landmarks is None else shard.landmarks[start : start + DETECTION_BATCH]
            for row, outcome, checksum in zip(
                batch.to_dict("records"), *_align(batch["file"].tolist(), shard.root, points, aligner), strict=True
            ):
                if isinstance(outcome, str):
                    rejected.append({"file": row["file"], "row": int(row["position"]), "reason": outcome})
                    continue
                file.write(outcome.image.tobytes())
                faces.append(
                    {
                        "shard": shard.number,
                        "row": len(faces),
                        **{column: row[column] for column in ("file", "identity", "age", "gender", "race")},
                        "landmarks": outcome.landmarks.astype(float).round(3).ravel().tolist(),
                        "found": outcome.found,
                        "checksum": checksum,
                        "source": row["source"],
                    }
                )
            done(len(batch))
        checksum = _finish(file, (len(faces), shard.image_size, shard.image_size, 3))
    part = {"faces": faces, "rejected": rejected, "checksum": checksum, "made_from": _made_from(shard)}
    write_atomically(rows_file(shard.folder, shard.number), json.dumps(part).encode())
    return part


def _align(
    files: list[str], root: Path, points: np.ndarray | None, aligner: Aligner
) -> tuple[list[Aligned | str], list[str]]:
    """The aligned face, or the reason why there is none, and the checksum of each file of a batch."""
    outcomes: list[Aligned | str] = [""] * len(files)
    checksums = [""] * len(files)
    images: dict[int, Image.Image] = {}
    for place, file in enumerate(files):
        try:
            content = read_picture(root, file)
            checksums[place] = hashlib.sha256(content).hexdigest()
            images[place] = open_image(content)
        except ValueError as error:
            outcomes[place] = str(error)
    known = None if points is None else points[list(images)]
    for place, outcome in zip(images, aligner.align(list(images.values()), known), strict=True):
        outcomes[place] = outcome
    return outcomes, checksums


def _finish(file: IO[bytes], shape: tuple[int, ...]) -> str:
    """Write the header of a .npy file that holds its pixels already; the SHA-256 of the whole."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    if header.tell() != _HEADER:
        raise RuntimeError(f"numpy {np.__version__} writes {header.tell()} bytes of header, expected {_HEADER}")
    file.seek(0)
    file.write(header.getvalue())
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@cache
def _aligner(image_size: int, device: torch.device) -> Aligner:
    """One for all the shards of a process: the networks take a second to load."""
    if device.type == "cpu":
        keep_freed_memory()  # dask has its workers give memory back at once, which halves their speed
    return Aligner(image_size, device)
