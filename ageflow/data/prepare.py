"""From raw pictures to aligned faces: shards of uint8 arrays, one table of labels, and what was rejected.

``faces/`` of a run holds, when finished::

    shard-00000.npy   uint8 [rows, S, S, 3], the faces of `shard_size` rows of the reader's table
    rejected.csv      file, row, reason
    data.md           the data card
    faces.parquet     labels, split, landmarks, checksums
    manifest.json     what the faces were made from; written last

Stopped and called again, `prepare` continues with the shards that are missing (``pieces/`` lists those that are there),
or whose rows have changed since. Shards are made in this process, in several (`workers`) or on many machines
(`scheduler`); the result is the same to the last bit, because a shard depends on its own rows only. This process holds
the tables, and never more pixels than one batch.
"""

import io
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.card import data_card, without_training_faces
from ageflow.data.faces import TABLE_FILE, Faces, shard_file
from ageflow.data.files import list_files
from ageflow.data.readers import READERS
from ageflow.data.records import NO_GROUP, Reading, Rejection, age_group, checked
from ageflow.data.shards import Shard, make_shard
from ageflow.data.split import split_as_given
from ageflow.data.votes import VOTES_FILE
from ageflow.device import devices_of, processors
from ageflow.run import (
    Manifest,
    Workspace,
    describe_changes,
    digest,
    files_state,
    remove_leftovers,
    sole_writer,
    write_atomically,
)
from ageflow.work import resumable_map

_PROCESSES_A_GPU = 4
_DECIDING = ("dataset", "data_root", "image_size", "shard_size", "test_share", "seed")
_COLUMNS = (
    *("face", "shard", "row", "file", "identity", "age", "group", "gender", "race", "split"),
    *("landmarks", "found", "checksum", "source"),
)


def prepare(settings: PrepareData) -> Faces:
    """Read a data set, align its faces, split it by identity and write it down.

    Finished already with the same settings, it only opens what is there, and warns where `data_root` or the CSV of
    `genders` has changed since; stopped half-way, it continues. More than one shard (4,096 faces) goes to a local
    cluster of processes: a script then needs ``if __name__ == "__main__":``, a notebook does not.

    Arguments:
        settings: notebook 01's.

    Returns:
        The prepared faces.

    Raises:
        ParameterError: the folder holds faces made with other settings, the data set has no reader, or no scheduler
            answers; or no face is left, and nothing of it is kept but ``rejected.csv``.
        FolderInUseError: another process prepares this run.
        OSError: the disk is full; what is whole stays, and the next call continues with the rest.
        WorkersLostError: workers died again and again.
    """
    folder = Workspace.of(settings).folder("faces")
    with sole_writer(folder):
        made = Manifest.read(folder)
        if made is not None:
            _check(made, settings, folder)
        try:
            if made is None:
                _prepare(settings, folder)
            shutil.rmtree(folder / "pieces", ignore_errors=True)
        finally:
            remove_leftovers(folder, r"[\w-]+\.\w+")
    return Faces.open(folder)


def rejections(folder: Path) -> pd.DataFrame:
    """The lines of ``rejected.csv``: file, row (of the reader's table; empty for a file without one), reason."""
    types = {"file": str, "row": "Int64", "reason": str}
    # A file may be called "NA" or "null", and a row may name none: only an empty row number is nothing.
    return pd.read_csv(folder / "rejected.csv", dtype=types, keep_default_na=False, na_values={"row": [""]})


def source_folder(folder: Path) -> Path:
    """The folder of the raw pictures that a prepared folder was made from."""
    manifest = Manifest.read(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder} holds no prepared faces: 01_prepare_data.ipynb makes them")
    return Path(manifest.details["pictures"])


def _prepare(settings: PrepareData, folder: Path) -> None:
    """Make the faces, or continue where that was stopped."""
    if settings.dataset not in READERS:
        raise ParameterError(f"dataset = {settings.dataset!r} has no reader: this version reads {', '.join(READERS)}")
    inputs = _inputs(settings, settings.data_root)  # before they are read: what changes meanwhile shows the next time
    reading = READERS[settings.dataset](settings)
    table, rejected = checked(reading.table.reset_index(drop=True), reading.ages)
    shards = _align(settings, folder, table, reading)
    rejected = reading.rejections + rejected + [Rejection(*line) for part in shards for line in part["rejected"]]
    columns = ["position", "shard", "row", "found", "checksum", "landmarks"]
    aligned = pd.DataFrame([line for part in shards for line in part["faces"]], columns=columns)
    if aligned.empty:
        raise _no_face(settings, folder, reading, rejected)
    faces = table.join(aligned.set_index("position"), how="inner").reset_index(drop=True)
    faces["face"] = np.arange(len(faces))
    faces["group"] = age_group(faces["age"]) if reading.ages else NO_GROUP
    faces["split"] = split_as_given(reading, faces, settings.test_share, settings.seed)

    _write_rejections(folder, rejected)
    write_atomically(folder / "data.md", data_card(settings, reading, faces, rejected).encode())
    faces = faces[list(_COLUMNS)]
    faces.attrs["shards"] = [part["checksum"] for part in shards]
    content = io.BytesIO()
    faces.to_parquet(content, index=False)
    write_atomically(folder / TABLE_FILE, content.getvalue())
    for path in folder.glob("shard-*.npy"):  # of another shard_size, before it was stopped
        if path not in {shard_file(folder, number) for number in range(len(shards))}:
            path.unlink()
    details = {"pictures": reading.root.resolve(), "faces": len(faces), "rejected": len(rejected)}
    Manifest(inputs, _decided_by(settings), digest(content.getvalue()), details).write(folder)
    if warning := without_training_faces(faces):
        warnings.warn(warning, stacklevel=3)


def _align(settings: PrepareData, folder: Path, table: pd.DataFrame, reading: Reading) -> list[dict[str, Any]]:
    """Make the shards that are not there yet; what `make_shard` says of each."""
    shards = []
    for number, start in enumerate(range(0, len(table), settings.shard_size)):
        files = table["file"].iloc[start : start + settings.shard_size].to_dict()
        points = None if reading.landmarks is None else reading.landmarks[list(files)]
        path = shard_file(folder.resolve(), number)
        shards.append(Shard(path, number, reading.root.resolve(), files, points, settings.image_size, settings.device))
    # Of a scheduler's workers this machine knows nothing: it may be without the GPUs that they have.
    workers = 1 if settings.scheduler else min(settings.workers or _processes(settings), len(shards))
    return resumable_map(
        make_shard,
        shards,
        folder / "pieces" / "shards",
        [shard.key for shard in shards],
        workers=workers,
        scheduler=settings.scheduler,
        sizes=[len(shard.files) for shard in shards],
        title="aligning faces",
        unit="face",
        show=settings.progress,
    )


def _processes(settings: PrepareData) -> int:
    """How many shards this machine makes best at a time: one a processor, or a few a GPU where these find the faces.

    Reading and cutting the pictures is the processors' all the same: one process alone leaves a GPU waiting.
    """
    devices = devices_of(settings.device)
    if devices[0].type == "cpu":
        return processors()
    return max(len(devices), min(processors(), _PROCESSES_A_GPU * len(devices)))


def _decided_by(settings: PrepareData) -> dict[str, Any]:
    """The settings that decide the outcome."""
    of_one_set = {"demo": ("faces",), "cacd": ("genders",)}
    return settings.model_dump(mode="json", include={*_DECIDING, *of_one_set.get(settings.dataset, ())})


def _inputs(settings: PrepareData, data_root: Path | None) -> dict[str, str]:
    """The state of the raw data set, and of the CSV of genders where the set reads one; of those that are there.

    Runs that lie in the data set's folder are no part of it.
    """
    inputs = {}
    if data_root is not None and data_root.is_dir():
        files = list_files(data_root, settings.runs_root).files
        inputs["data_root"] = f"{len(files):,} files, {files_state(data_root, files)[:16]}"
    if settings.dataset == "cacd" and settings.genders is not None and settings.genders.is_file():
        # By its content: it is small, and saved again as it was it says the same.
        inputs["genders"] = digest(settings.genders.read_bytes())
    return inputs


def _check(made: Manifest, settings: PrepareData, folder: Path) -> None:
    """Refuse faces made with other settings, and warn where what they were made from has changed since."""
    wanted, data_root = _decided_by(settings), settings.data_root
    if data_root is None and made.settings.get("data_root"):  # to open what is there, it is not needed
        wanted["data_root"] = made.settings["data_root"]
        data_root = Path(wanted["data_root"])
    if changes := describe_changes(made.settings, wanted):
        raise ParameterError(
            f"{folder} holds faces made with other settings: {changes}. Name another run, or delete that folder to "
            "prepare it anew"
        )
    for name, state in _inputs(settings, data_root).items():
        if name in made.inputs and made.inputs[name] != state:
            warnings.warn(
                f"{name} = {wanted[name]} has changed since {folder} was made from it (then {made.inputs[name]}; now "
                f"{state}): these are the faces and labels of then. To take it as it is now, name another run, or delete "
                "that folder",
                stacklevel=3,
            )


def _no_face(settings: PrepareData, folder: Path, reading: Reading, rejected: list[Rejection]) -> ParameterError:
    """What to raise where nothing is left; nothing is kept but the reasons, so that another `data_root` may be named."""
    shutil.rmtree(folder / "pieces", ignore_errors=True)
    for file in [folder / VOTES_FILE, *folder.glob("shard-*.npy")]:
        file.unlink(missing_ok=True)
    _write_rejections(folder, rejected)
    reasons = Counter(line.reason for line in rejected).most_common(1)
    most = f" Most often: {reasons[0][0]} ({reasons[0][1]:,} times)." if reasons else ""
    return ParameterError(
        f"no face is left of the {len(rejected):,} rows and files in {reading.root}: {folder / 'rejected.csv'} says why."
        f"{most} Is data_root = {settings.data_root} the folder of dataset = {settings.dataset!r}?"
    )


def _write_rejections(folder: Path, rejected: list[Rejection]) -> None:
    rows = pd.DataFrame(rejected, columns=["file", "row", "reason"])
    write_atomically(folder / "rejected.csv", rows.astype({"row": "Int64"}).to_csv(index=False).encode())
