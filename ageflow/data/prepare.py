"""From raw pictures to aligned faces: shards of uint8 arrays, one table of labels, and what was turned away.

``faces/`` of a run holds, when finished::

    shard-00000.npy   uint8 [faces, S, S, 3], the faces of `shard_size` rows of the reader's table
    rejected.csv      file, row, reason
    data.md           the data card
    source.json       what the faces were made from (`ageflow.data.source`)
    settings.json     the settings that decide the outcome
    faces.parquet     labels, split, landmarks, checksums; written last, so that it tells that the rest is whole

While it is being made, ``shard-00000.json`` beside a shard holds its rows, and is written after it: stopped and
called again, `prepare` goes on with the shards that have none, or whose rows the data set has changed since. Shards
are made in this process, in several (`workers`) or on many machines (`scheduler`); what comes out is the same to the
last bit, because a shard depends on its own rows only. This process holds the tables, and never more pixels than one
batch.
"""

import io
import json
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
import torch

from ageflow.config import ParameterError, PrepareData
from ageflow.data.card import data_card, nobody_to_train_on
from ageflow.data.faces import SETTINGS_FILE, TABLE_FILE, Faces
from ageflow.data.readers import READERS
from ageflow.data.records import NO_GROUP, Reading, Rejection, age_group, checked
from ageflow.data.shards import Shard, finished_shard, make_shard
from ageflow.data.source import state_of, tell_of_changes, write_source
from ageflow.data.split import split_as_given
from ageflow.data.votes import VOTES_FILE
from ageflow.device import devices_of
from ageflow.run import MANIFEST, Manifest, Workspace, remove_leftovers, same_place, sole_writer, write_atomically
from ageflow.work import in_any_order, progress_bar

_PROCESSES_A_GPU = 4
_DECIDING = ("dataset", "data_root", "image_size", "faces", "shard_size", "test_share", "seed")
_OUR_FILES = r"shard-\d+\.(?:npy|json)|rejected\.csv|data\.md|source\.json|settings\.json|genders\.csv|faces\.parquet|manifest\.json"


def prepare(settings: PrepareData) -> Faces:
    """Read a data set, align its faces, split it by identity and write it down.

    Finished already with the same settings, it only opens what is there, and warns where `data_root` or the CSV of
    `genders` has changed since; stopped half-way, it goes on. More than one
    shard (4,096 faces) goes to a local cluster of processes: a script then needs ``if __name__ == "__main__":``, a
    notebook does not.

    Arguments:
        settings: notebook 01's.

    Returns:
        The prepared faces.

    Raises:
        ParameterError: the folder holds faces made with other settings, the data set has no reader, or no scheduler
            answers; or no face is left, and nothing of it is kept but ``rejected.csv``.
        FolderInUseError: another process prepares this run.
        OSError: the disk is full; what is whole stays, and the next call goes on with the rest.
        RuntimeError: workers died again and again.
    """
    folder = Workspace.of(settings).folder("faces")
    with sole_writer(folder):
        return _prepare(settings, folder)


def _prepare(settings: PrepareData, folder: Path) -> Faces:
    """`prepare`, alone in `folder`."""
    _check_same_settings(settings, folder)
    finished = (folder / MANIFEST).is_file()
    _tidy(folder, table_too=finished)
    if finished:
        tell_of_changes(settings, folder)
        return Faces.open(folder)
    if settings.dataset not in READERS:
        raise ParameterError(
            f"dataset = {settings.dataset!r} has no reader yet: this version reads {', '.join(READERS)}"
        )

    # Noted before it is read: what changes while it is read is told the next time.
    state = state_of(settings)
    reading = READERS[settings.dataset](settings)
    table, turned_away = checked(reading.table, reading.ages)
    if table.empty:
        raise _no_face(settings, folder, reading, reading.rejections + turned_away)
    # Noted only now, so that a data_root that was not the right one can be mended.
    write_atomically(folder / SETTINGS_FILE, json.dumps(_decided_by(settings), indent=1).encode())
    # The reader's row numbers lead back to its landmarks and stand in rejected.csv.
    table["position"] = np.flatnonzero(reading.table.index.isin(table.index))
    table = table.reset_index(drop=True)
    try:
        parts = _shards(settings, folder, table, reading)
    finally:
        _tidy(folder)  # workers that were stopped amid a file

    filled = [part["faces"] for part in parts if len(part["faces"])]
    faces = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    rejected = reading.rejections + turned_away + [Rejection(**row) for part in parts for row in part["rejected"]]
    if faces.empty:
        raise _no_face(settings, folder, reading, rejected)
    _write_rejections(folder / "rejected.csv", rejected)
    faces.insert(0, "face", np.arange(len(faces)))
    faces.insert(faces.columns.get_loc("age") + 1, "group", age_group(faces["age"]) if reading.ages else NO_GROUP)
    faces.insert(
        faces.columns.get_loc("race") + 1,
        "split",
        split_as_given(reading, faces, settings.test_share, settings.seed),
    )
    write_source(folder, reading.root, state)
    write_atomically(folder / "data.md", data_card(settings, reading, faces, rejected).encode())
    _write_table(
        folder / TABLE_FILE, faces, {str(shard): part["checksum"] for shard, part in enumerate(parts)}, settings
    )
    _tidy(folder, table_too=True)
    manifest = Manifest(settings=_decided_by(settings), fingerprint=Faces.open(folder).fingerprint)
    manifest.write(folder)
    if nobody := nobody_to_train_on(faces):
        warnings.warn(nobody, stacklevel=3)
    return Faces.open(folder)


def rejections(folder: Path) -> pd.DataFrame:
    """The lines of ``rejected.csv``: file, row (of the reader's table; empty for a file without one), reason."""
    types = {"file": str, "row": "Int64", "reason": str}
    # A file may be called "NA" or "null", and a row may name none: only an empty row number is nothing.
    return pd.read_csv(folder / "rejected.csv", dtype=types, keep_default_na=False, na_values={"row": [""]})


def _shards(settings: PrepareData, folder: Path, table: pd.DataFrame, reading: Reading) -> list[dict[str, Any]]:
    """Make every shard that is not there yet; the faces (a table), rejected rows and checksum of each."""
    parts: dict[int, dict[str, Any]] = {}
    missing: list[Shard] = []
    with progress_bar(total=len(table), unit="face", title="aligning faces", show=settings.progress) as bar:
        for number, start in enumerate(range(0, len(table), settings.shard_size)):
            rows = table.iloc[start : start + settings.shard_size]
            known = None if reading.landmarks is None else reading.landmarks[rows["position"].to_numpy()]
            root = reading.root.resolve()
            shard = Shard(folder.resolve(), number, rows, root, known, settings.image_size, settings.device)
            made = finished_shard(shard)
            if made is None:
                missing.append(shard)
                continue
            parts[number] = _compact(made)
            bar.update(len(rows))
        # Of a scheduler's workers this machine knows nothing: it may be without the GPUs that they have.
        workers = len(missing) if settings.scheduler else min(settings.workers or _processors(settings), len(missing))
        if workers <= 1 and settings.scheduler is None:
            for shard in missing:
                parts[shard.number] = _compact(make_shard(shard, bar.update))
        else:
            for place, part in in_any_order(make_shard, missing, workers, settings.scheduler):
                parts[missing[place].number] = _compact(part)
                bar.update(len(missing[place].rows))
    return [parts[number] for number in sorted(parts)]


def _processors(settings: PrepareData) -> int:
    """How many shards this machine makes best at a time: one a processor, or a few a GPU where these find the faces.

    Reading and cutting the pictures is the processors' all the same: one process alone leaves a GPU waiting.
    """
    devices = devices_of(settings.device)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices == [torch.device("cpu")]:
        return processors
    return max(len(devices), min(processors, _PROCESSES_A_GPU * len(devices)))


def _compact(part: dict[str, Any]) -> dict[str, Any]:
    """A shard's rows as a table, which takes a fraction of the memory."""
    faces = pd.DataFrame(part["faces"])
    if len(faces):
        faces["landmarks"] = list(np.array(faces["landmarks"].tolist(), dtype=np.float32))
    return part | {"faces": faces}


def _tidy(folder: Path, table_too: bool = False) -> None:
    """Remove what killed writers left, and the notes on single shards once the table is there."""
    remove_leftovers(folder, _OUR_FILES)
    if table_too:
        for file in folder.glob("shard-*.json"):
            file.unlink(missing_ok=True)


def _decided_by(settings: PrepareData) -> dict[str, str]:
    """The settings that decide the outcome."""
    only = {"faces": "demo", "genders": "cacd"}  # of one data set's
    names = [name for name in (*_DECIDING, "genders") if only.get(name, settings.dataset) == settings.dataset]
    return {name: str(getattr(settings, name)) for name in names}


def _no_face(settings: PrepareData, folder: Path, reading: Reading, rejected: list[Rejection]) -> ParameterError:
    """What to raise where nothing is left; nothing is kept but the reasons, so that another `data_root` may be named."""
    for file in [folder / SETTINGS_FILE, folder / VOTES_FILE, *folder.glob("shard-*")]:
        file.unlink(missing_ok=True)
    _write_rejections(folder / "rejected.csv", rejected)
    reasons = Counter(line.reason for line in rejected).most_common(1)
    most = f" Most often: {reasons[0][0]} ({reasons[0][1]:,} times)." if reasons else ""
    return ParameterError(
        f"no face is left of the {len(rejected):,} rows and files in {reading.root}: {folder / 'rejected.csv'} says why."
        f"{most} Is data_root = {settings.data_root} the folder of dataset = {settings.dataset!r}?"
    )


def _check_same_settings(settings: PrepareData, folder: Path) -> None:
    """Compare the settings that decide the outcome with those noted before, where anything was made with them."""
    file = folder / SETTINGS_FILE
    if not file.is_file() or not ((folder / TABLE_FILE).is_file() or any(folder.glob("shard-*.npy"))):
        return
    wanted, noted = _decided_by(settings), json.loads(file.read_text())
    if settings.data_root is None:  # to open what is there, it is not needed
        wanted["data_root"] = noted.get("data_root", wanted["data_root"])
    different = [
        f"{name} = {wanted.get(name)} (there: {noted.get(name)})"
        for name in sorted(wanted.keys() | noted.keys())
        if not same_place(wanted.get(name), noted.get(name))  # earlier versions noted `genders` as it was written
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
            ("found", arrow.int32()),
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
