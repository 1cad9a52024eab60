"""One shard of aligned faces, made from its rows alone: whoever makes it, the bytes are the same.

A shard's pictures go through the detector in batches of eight that the rows decide.
"""

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ageflow.data.align import DETECTION_BATCH, Aligned, Aligner
from ageflow.data.pictures import open_image, read_picture
from ageflow.device import devices_of, keep_freed_memory
from ageflow.run import atomic_file, digest


@dataclass(frozen=True)
class Shard:
    """All that it takes to make a shard, on any machine that sees both folders.

    Arguments:
        path: where it is written: uint8 [files, S, S, 3]; a file without a face is black there.
        number: of the shard, from 0.
        root: folder that the files are relative to.
        files: the pictures, by their row in the reader's table.
        landmarks: [files, 5, 2] pixels, where they are known; None: they are searched for.
        image_size: side S of the faces, pixels.
        device: where they are searched for, as in the settings.
    """

    path: Path
    number: int
    root: Path
    files: dict[int, str]
    landmarks: np.ndarray | None
    image_size: int
    device: str

    @property
    def key(self) -> str:
        """A fingerprint of all that decides the faces, but the pictures' own content."""
        known = None if self.landmarks is None else self.landmarks.tolist()
        return digest([str(self.root), list(self.files.items()), known, self.image_size])


def make_shard(shard: Shard) -> dict[str, Any]:
    """Align the faces of a shard and write them.

    Faces go to the disk as they are aligned, so that a shard of any size takes the memory of one batch.

    Returns:
        ``faces``, a list of (the reader's row, shard, row in the shard, faces found in the picture, SHA-256 of the
        file, ten numbers of landmarks); ``rejected``, a list of (file, the reader's row, reason); and ``checksum``, the
        SHA-256 of the shard.

    Raises:
        FileNotFoundError: this machine does not see the folders.
        OSError: it cannot be written; on a full disk the message says what to do.
    """
    for folder in (shard.root, shard.path.parent):
        if not folder.is_dir():  # or every picture would be rejected as missing
            raise FileNotFoundError(
                f"the machine {socket.gethostname()} does not see {folder}: with a scheduler, data_root, runs_root "
                "and cache must be the same paths, of a shared disk, for every worker"
            )
    faces: list[list[Any]] = []
    rejected: list[list[Any]] = []
    shape = (len(shard.files), shard.image_size, shard.image_size, 3)
    with atomic_file(shard.path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row, ((position, name), (checksum, face)) in enumerate(
            zip(shard.files.items(), _align(shard), strict=True)
        ):
            if isinstance(face, str):
                rejected.append([name, position, face])
                file.write(bytes(shard.image_size**2 * 3))
            else:
                landmarks = face.landmarks.astype(float).round(3).ravel().tolist()
                faces.append([position, shard.number, row, face.found, checksum, landmarks])
                file.write(face.image.tobytes())
        file.seek(0)
        checksum = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return {"faces": faces, "rejected": rejected, "checksum": checksum}


def _align(shard: Shard) -> Iterator[tuple[str, Aligned | str]]:
    """Of each file its checksum, and its face or the reason why there is none."""
    devices = devices_of(shard.device)
    aligner = _aligner(shard.image_size, devices[shard.number % len(devices)])
    files = list(shard.files.values())
    for start in range(0, len(files), DETECTION_BATCH):
        batch = slice(start, start + DETECTION_BATCH)
        pictures = [_read(shard.root, file) for file in files[batch]]
        images = {place: image for place, (_, image) in enumerate(pictures) if not isinstance(image, str)}
        known = None if shard.landmarks is None else shard.landmarks[batch][list(images)]
        faces = dict(zip(images, aligner.align(list(images.values()), known), strict=True))
        for place, (checksum, reason) in enumerate(pictures):
            yield checksum, faces.get(place, reason)


def _read(root: Path, file: str) -> tuple[str, Image.Image | str]:
    """The checksum of a file and its picture, or the reason why there is none."""
    try:
        content = read_picture(root, file)
        return hashlib.sha256(content).hexdigest(), open_image(content)
    except ValueError as error:
        return "", str(error)


@cache
def _aligner(image_size: int, device: torch.device) -> Aligner:
    """One for all the shards of a process: the networks take a second to load."""
    if device.type == "cpu":
        keep_freed_memory()  # dask has its workers give memory back at once, which halves their speed
    return Aligner(image_size, device)
