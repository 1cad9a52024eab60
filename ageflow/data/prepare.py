"""From raw pictures to aligned faces: shards of uint8 arrays, one table of labels, and what was turned away.

``faces/`` of a run holds, when finished::

    shard-00000.npy   uint8 [faces, S, S, 3], the faces of `shard_size` rows of the reader's table
    rejected.csv      file, row, reason
    data.md           the data card
    source.json       the folder that the column `file` is relative to
    settings.json     the settings that decide the outcome
    faces.parquet     labels, split, landmarks, checksums; written last, so that it tells that the rest is whole

While it is being made, ``shard-00000.json`` beside a shard holds its rows, and is written after it: stopped and
called again, `prepare` goes on with the shards that have none.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
from PIL import Image, ImageOps, UnidentifiedImageError

from ageflow.config import ParameterError, PrepareData
from ageflow.data.align import Aligned, Aligner
from ageflow.data.card import data_card
from ageflow.data.faces import TABLE_FILE, Faces, shard_file
from ageflow.data.readers import READERS
from ageflow.data.records import NO_GROUP, Reading, Rejection, age_group, checked
from ageflow.data.split import split_as_given
from ageflow.progress import progress_bar
from ageflow.storage import device_of, write_atomically
from ageflow.workspace import Workspace

__all__ = ["READERS", "open_image", "prepare", "rejections", "source_folder"]

_BATCH = 32  # pictures searched for faces at a time
_DECIDING = ("dataset", "data_root", "image_size", "faces", "shard_size", "test_share", "seed")
_SETTINGS_FILE = "settings.json"
_SOURCE_FILE = "source.json"


def prepare(settings: PrepareData) -> Faces:
    """Read a data set, align its faces, split it by identity and write it down.

    Finished already with the same settings, it only opens what is there; stopped half-way, it goes on.

    Arguments:
        settings: notebook 01's.

    Returns:
        The prepared faces.

    Raises:
        ParameterError: the folder holds faces made with other settings, or the data set has no reader.
        ValueError: no face is left.
    """
    folder = Workspace.of(settings).folder("faces")
    _check_same_settings(settings, folder)
    if (folder / TABLE_FILE).is_file():
        return Faces.open(folder)
    if settings.dataset not in READERS:
        raise ParameterError(
            f"dataset = {settings.dataset!r} has no reader yet: this version reads {', '.join(READERS)}"
        )

    reading = READERS[settings.dataset](settings)
    # Noted only now, so that a data_root that was not the right one can be mended.
    _note_settings(settings, folder)
    table, turned_away = checked(reading.table, reading.ages)
    # The reader's row numbers lead back to its landmarks and stand in rejected.csv.
    table["position"] = np.flatnonzero(reading.table.index.isin(table.index))
    table = table.reset_index(drop=True)
    parts = list(_shards(settings, folder, table, reading))

    faces = pd.DataFrame([face for part in parts for face in part["faces"]])
    rejected = reading.rejections + turned_away + [Rejection(**row) for part in parts for row in part["rejected"]]
    _write_rejections(folder / "rejected.csv", rejected)
    if faces.empty:
        raise ValueError(f"no face is left of {len(reading.table)} rows: {folder / 'rejected.csv'} says why")
    faces.insert(0, "face", np.arange(len(faces)))
    faces.insert(faces.columns.get_loc("age") + 1, "group", age_group(faces["age"]) if reading.ages else NO_GROUP)
    faces.insert(
        faces.columns.get_loc("race") + 1,
        "split",
        split_as_given(reading, faces, settings.test_share, settings.seed),
    )
    write_atomically(folder / _SOURCE_FILE, json.dumps({"folder": str(reading.root.resolve())}).encode())
    write_atomically(folder / "data.md", data_card(settings, reading, faces, rejected).encode())
    _write_table(
        folder / TABLE_FILE, faces, {str(shard): part["checksum"] for shard, part in enumerate(parts)}, settings
    )
    for shard in range(len(parts)):
        _rows_file(folder, shard).unlink(missing_ok=True)
    return Faces.open(folder)


def rejections(folder: Path) -> pd.DataFrame:
    """The lines of ``rejected.csv``: file, row (of the reader's table; empty for a file without one), reason."""
    return pd.read_csv(folder / "rejected.csv", dtype={"file": str, "row": "Int64", "reason": str})


def source_folder(folder: Path) -> Path:
    """The folder of the raw pictures that a prepared folder was made from."""
    return Path(json.loads((folder / _SOURCE_FILE).read_text())["folder"])


def open_image(content: bytes) -> Image.Image:
    """Decode a picture: upright as its EXIF says, three colours.

    Raises:
        ValueError: it is none, or it is damaged; the message says so.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ValueError(f"the file does not open as a picture: {error}") from None


def _shards(settings: PrepareData, folder: Path, table: pd.DataFrame, reading: Reading) -> Iterator[dict[str, Any]]:
    """Make every shard that is not there yet; its rows, rejected ones and checksum."""
    aligner: Aligner | None = None
    total = len(table)
    with progress_bar(total=total, unit="face", title="aligning faces", show=settings.progress) as bar:
        for shard, start in enumerate(range(0, total, settings.shard_size)):
            rows = table.iloc[start : start + settings.shard_size]
            if not _rows_file(folder, shard).is_file():
                aligner = aligner or Aligner(settings.image_size, device_of(settings.device))
                _make_shard(folder, shard, rows, reading, aligner, bar.update)
            else:
                bar.update(len(rows))
            yield json.loads(_rows_file(folder, shard).read_text())


def _make_shard(
    folder: Path, shard: int, rows: pd.DataFrame, reading: Reading, aligner: Aligner, done: Callable[[int], Any]
) -> None:
    pixels: list[np.ndarray] = []
    faces: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for start in range(0, len(rows), _BATCH):
        batch = rows.iloc[start : start + _BATCH]
        for (_, row), outcome, checksum in zip(batch.iterrows(), *_align(batch, reading, aligner), strict=True):
            if isinstance(outcome, str):
                rejected.append({"file": row["file"], "row": int(row["position"]), "reason": outcome})
                continue
            faces.append(
                {
                    "shard": shard,
                    "row": len(pixels),
                    **{column: row[column] for column in ("file", "identity", "age", "gender", "race")},
                    "landmarks": outcome.landmarks.astype(float).round(3).ravel().tolist(),
                    "checksum": checksum,
                    "source": row["source"],
                }
            )
            pixels.append(outcome.image)
        done(len(batch))
    side = aligner.image_size
    content = io.BytesIO()
    np.save(content, np.stack(pixels) if pixels else np.empty((0, side, side, 3), dtype=np.uint8))
    write_atomically(shard_file(folder, shard), content.getvalue())
    checksum = hashlib.sha256(content.getvalue()).hexdigest()
    part = {"faces": faces, "rejected": rejected, "checksum": checksum}
    write_atomically(_rows_file(folder, shard), json.dumps(part).encode())


def _align(batch: pd.DataFrame, reading: Reading, aligner: Aligner) -> tuple[list[Aligned | str], list[str]]:
    """The aligned face, or the reason why there is none, and the checksum of each file of a batch."""
    outcomes: list[Aligned | str] = [""] * len(batch)
    checksums = [""] * len(batch)
    images: dict[int, Image.Image] = {}
    for place, file in enumerate(batch["file"]):
        try:
            content = (reading.root / file).read_bytes()
            checksums[place] = hashlib.sha256(content).hexdigest()
            images[place] = open_image(content)
        except OSError as error:
            outcomes[place] = f"the file cannot be read: {error.strerror or error}"
        except ValueError as error:
            outcomes[place] = str(error)
    points = None if reading.landmarks is None else reading.landmarks[batch["position"].to_numpy()[list(images)]]
    for place, outcome in zip(images, aligner.align(list(images.values()), points), strict=True):
        outcomes[place] = outcome
    return outcomes, checksums


def _rows_file(folder: Path, shard: int) -> Path:
    return shard_file(folder, shard).with_suffix(".json")


def _decided_by(settings: PrepareData) -> dict[str, str]:
    """The settings that decide the outcome."""
    only = {"faces": "demo", "genders": "cacd"}  # of one data set's
    names = [name for name in (*_DECIDING, "genders") if only.get(name, settings.dataset) == settings.dataset]
    return {name: str(getattr(settings, name)) for name in names}


def _note_settings(settings: PrepareData, folder: Path) -> None:
    if not (folder / _SETTINGS_FILE).is_file():
        write_atomically(folder / _SETTINGS_FILE, json.dumps(_decided_by(settings), indent=1).encode())


def _check_same_settings(settings: PrepareData, folder: Path) -> None:
    """Compare the settings that decide the outcome with those noted before, where there are any."""
    wanted = _decided_by(settings)
    file = folder / _SETTINGS_FILE
    if not file.is_file():
        return
    noted = json.loads(file.read_text())
    different = [
        f"{name} = {wanted.get(name)} (there: {noted.get(name)})"
        for name in sorted(wanted.keys() | noted.keys())
        if wanted.get(name) != noted.get(name)
    ]
    if different:
        raise ParameterError(
            f"{folder} holds faces made with other settings: {'; '.join(different)}. "
            f"Name another run, or delete that folder to make it anew."
        )


def _write_rejections(file: Path, rejected: list[Rejection]) -> None:
    rows = pd.DataFrame([(line.file, line.row, line.reason) for line in rejected], columns=["file", "row", "reason"])
    write_atomically(file, rows.astype({"row": "Int64"}).to_csv(index=False).encode())


def _write_table(file: Path, faces: pd.DataFrame, checksums: dict[str, str], settings: PrepareData) -> None:
    schema = arrow.schema(
        [
            ("face", arrow.int64()),
            ("shard", arrow.int32()),
            ("row", arrow.int32()),
            ("file", arrow.string()),
            ("identity", arrow.string()),
            ("age", arrow.float64()),
            ("group", arrow.int64()),
            ("gender", arrow.string()),
            ("race", arrow.string()),
            ("split", arrow.string()),
            ("landmarks", arrow.list_(arrow.float32(), 10)),
            ("checksum", arrow.string()),
            ("source", arrow.string()),
        ],
        metadata={
            "shards": json.dumps(checksums),
            "settings": json.dumps({name: str(getattr(settings, name)) for name in _DECIDING}),
        },
    )
    content = io.BytesIO()
    parquet.write_table(arrow.Table.from_pandas(faces[schema.names], schema=schema, preserve_index=False), content)
    write_atomically(file, content.getvalue())
