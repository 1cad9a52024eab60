"""From raw pictures to aligned faces: shards of uint8 arrays, one table of labels, and what was rejected.

``faces/`` of a run holds, when finished::

    shard-00000.npy   uint8 [rows, S, S, 3], the faces of `shard_size` rows of the reader's table
    rejected.csv      file, row, reason
    data.md           the data card
    faces.parquet     labels, split, landmarks, checksums
    manifest.json     what the faces were made from; written last

Stopped and called again, `prepare` continues with the shards that are missing (``pieces/`` lists those that are there),
or whose rows have changed since. Shards are made in this process, in several (`workers`) or on many machines
(`scheduler`); the result is the same to the last bit, because a shard depends on its own rows only: its pictures go
through the detector in batches of eight that the rows decide. This process holds the tables, and never more pixels than
one batch.
"""

import hashlib
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ageflow.config import PAPER_BOUNDS, ParameterError, PrepareData
from ageflow.data.advice import advice_on_faces, advice_on_side
from ageflow.data.align import DETECTION_BATCH, Aligned, Aligner
from ageflow.data.faces import TABLE_FILE, Faces, shard_file
from ageflow.data.files import raw_state
from ageflow.data.people import look, lookalikes, one_spelling, remarks, together
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.readers import READERS
from ageflow.data.records import NO_GROUP, PAPER_GROUPS, AgeGroups, Reading, Rejection, checked, split_by_identity
from ageflow.device import devices_of, exact_products, free_memory, keep_freed_memory, processors
from ageflow.run import Manifest, Workspace, atomic_file, digest, files_state, remove_leftovers, sole_writer
from ageflow.work import resumable_map

_OF_A_PROCESS = 2 * 2**30  # bytes of a GPU: CUDA's own, and MTCNN on a batch
_MUCH_OUTSIDE, _UPRIGHT = 0.1, 45.0  # the data card counts faces with more outside their picture, and turned further
_LEFT_OUT = {"runs_root", "progress", "workers", "scheduler"}  # they change nothing in what is made
_DECIDING = ("dataset", "data_root", "image_size", "groups", "shard_size", "test_share", "seed")
_OF_ONE_SET = {"demo": ("faces",), "cacd": ("genders",), "folder": ("columns",)}


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
        ParameterError: the folder holds faces made with other settings, or no scheduler answers; or no face is left, and
            nothing of it is kept but ``rejected.csv``.
        FolderInUseError: another process prepares this run.
        OSError: the disk is full; what is whole stays, and the next call continues with the rest.
        WorkersLostError: workers died again and again.
    """
    folder = Workspace.of(settings).folder("faces")
    with sole_writer(folder):
        made = Manifest.read(folder)
        try:
            if made is None:
                _prepare(settings, folder)
            else:
                _check(made, settings, folder)
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
    """The folder of the raw pictures that a finished folder was made from."""
    return Path(Manifest.read(folder).details["pictures"])


def _prepare(settings: PrepareData, folder: Path) -> None:
    """Make the faces, or continue where that was stopped."""
    for own, (name,) in _OF_ONE_SET.items():
        if own not in ("demo", settings.dataset) and (value := getattr(settings, name)) is not None:
            warnings.warn(f"{name} = {str(value)!r} is not read: it is for dataset = {own!r}", stacklevel=3)
    for line in advice_on_side(settings):
        warnings.warn(line, stacklevel=3)
    inputs = _inputs(settings, settings.data_root)  # before they are read: what changes meanwhile shows the next time
    reading = READERS[settings.dataset](settings)
    age_groups = AgeGroups(tuple(settings.groups))
    table, rejected = checked(reading, age_groups)
    shards = _align(settings, folder, table, reading)
    rejected = reading.rejections + rejected + [Rejection(*line) for part in shards for line in part["rejected"]]
    rows = pd.DataFrame(rejected, columns=Rejection._fields).astype({"row": "Int64"})
    with atomic_file(folder / "rejected.csv") as file:
        file.write(rows.to_csv(index=False).encode())
    columns = ["position", "shard", "row", "found", "checksum", "landmarks", "look", "outside", "roll"]
    aligned = pd.DataFrame([line for part in shards for line in part["faces"]], columns=columns)
    if aligned.empty:  # nothing is kept but the reasons, so that another `data_root` may be named
        shutil.rmtree(folder / "pieces", ignore_errors=True)
        for path in (folder / "genders.csv", *folder.glob("shard-*.npy")):
            path.unlink(missing_ok=True)
        why = ", ".join(_kinds(rows["reason"])["first"][:1])
        what = f"no face is left of the {len(rows):,} rows and files in {reading.root}, most often as {why}"
        do = f"Is data_root = {settings.data_root} the folder of dataset = {settings.dataset!r}?"
        raise ParameterError(f"{what} ({folder / 'rejected.csv'}). {do}")
    faces = table.join(aligned.set_index("position"), how="inner").reset_index(drop=True)
    faces["group"] = age_groups.of(faces["age"]) if reading.ages else NO_GROUP
    written, named = faces["identity"], faces["identity"] != faces["file"]
    faces["identity"] = one_spelling(written[named]).reindex(faces.index).fillna(written)
    asked = faces.get("split")
    faces["split"] = split_by_identity(faces.assign(identity=together(faces)), settings.test_share, settings.seed)
    notes = [*reading.notes, *remarks(faces, written)]
    faces = faces.drop(columns="birth", errors="ignore")
    if asked is not None and (moved := int(((asked == "test") & (faces["split"] == "train")).sum())):
        notes.append(f"In training, not in the test half as the data set has it: {moved:,} faces of people who train.")
    looks = [bytes.fromhex(text) for text in faces.pop("look")]
    for line in (told := [*advice_on_faces(settings, faces, reading), *lookalikes(faces, looks)]):
        warnings.warn(line, stacklevel=3)
    reach_out, turned = (faces.pop("outside") > _MUCH_OUTSIDE).sum(), (faces.pop("roll").abs() > _UPRIGHT).sum()
    notes += [
        *told,
        f"Faces that reach out of their pictures by more than {_MUCH_OUTSIDE:.0%} of the aligned square: {reach_out:,}; "
        "there they are black.",
        f"Faces that lay on their side or upside down, and were turned: {turned:,}.",
    ]
    faces.insert(0, "face", np.arange(len(faces)))
    faces["source"] = settings.dataset
    faces.attrs["shards"] = [part["checksum"] for part in shards]
    if age_groups != PAPER_GROUPS:
        faces.attrs["bounds"] = settings.groups
    with atomic_file(folder / "data.md") as file:
        file.write(_data_card(settings, reading, faces, rows["reason"], notes).encode())
    with atomic_file(folder / TABLE_FILE) as file:
        faces.to_parquet(file, index=False)
    details = {"pictures": reading.root.resolve(), "faces": len(faces), "rejected": len(rejected)}
    Manifest(inputs, _decided_by(settings), Faces.open(folder).fingerprint, details).write(folder)


# -- the data card ---------------------------------------------------------------------------------------------------


def counts_table(faces: pd.DataFrame, attribute: str = "gender", age_groups: AgeGroups = PAPER_GROUPS) -> pd.DataFrame:
    """Faces per age group (rows), part and value of an attribute (columns), with totals.

    Where ages are not known, one row takes the place of the groups.

    Arguments:
        faces: `Faces.table`.
        attribute: "gender" or "race"; unknown values are counted as "unknown".
        age_groups: the faces'.
    """
    names = ["unknown"] if (faces["group"] == NO_GROUP).all() else list(age_groups.labels)  # a set has ages or has none
    groups = pd.Categorical.from_codes(faces["group"].clip(lower=0), categories=names)
    halves = pd.Categorical(faces["split"], categories=["train", "test"])
    values = faces[attribute].astype(object).where(faces[attribute].notna(), "unknown").to_numpy()
    titles = {"rownames": ["age group"], "colnames": ["split", attribute], "margins_name": "all"}
    return pd.crosstab(groups, [halves, values], dropna=False, margins=True, **titles)


def _data_card(
    settings: PrepareData, reading: Reading, faces: pd.DataFrame, reasons: pd.Series, notes: list[str]
) -> str:
    """The data card as Markdown."""
    ages = f"ages {faces['age'].min():g} to {faces['age'].max():g} years" if reading.ages else "ages unknown"
    rule = f"By identity, seed {settings.seed}, test share {settings.test_share:g}"
    rule = "As the data set itself has it" if "split" in reading.table else rule
    people = faces.groupby("split")["identity"].nunique().reindex(["train", "test"], fill_value=0)
    several, nameless = (faces["found"] > 1).sum(), (faces["identity"] == faces["file"]).sum()
    lines = [
        f"# {settings.dataset}: {len(faces):,} faces of {people.sum():,} identities\n",
        f"Aligned to {settings.image_size}×{settings.image_size} pixels, {ages}. "
        f"Source: {settings.data_root or 'made by the kit'}. Rejected: {len(reasons):,} (rejected.csv).\n",
        *(f"* {note}" for note in notes),
        f"* Pictures of several faces: {several:,} (`found`); the one that is largest and nearest the centre was taken.",
        f"* Pictures without a name: {nameless:,}; each counts as an identity, so somebody may be in both halves.",
        f"\n## Split\n\n{rule}: {people['train']:,} identities to train on, {people['test']:,} to test on, none in both.",
    ]
    for attribute in [name for name in ("gender", "race") if faces[name].notna().any()] or ["gender"]:
        counts = counts_table(faces, attribute, AgeGroups(tuple(settings.groups)))
        lines.append(f"\n## Faces per age group, part and {attribute}\n\n{_markdown(counts)}")
    lines.append("\n## Rejected: the first reason of each kind\n")
    lines += [f"* {n:,}: {reason}" for n, reason in _kinds(reasons).to_numpy()]
    parameters = settings.model_dump(exclude=_LEFT_OUT)
    lines += ["\n## Parameters\n", *(f"* {name}: {value}" for name, value in parameters.items()), ""]
    return "\n".join(lines)


def _kinds(reasons: pd.Series) -> pd.DataFrame:
    """How many there are of each kind of reason, whatever it quotes or counts, and the first; the most frequent on top."""
    kinds = reasons.str.replace(r"'.*?'|\d+", "", regex=True)
    return reasons.groupby(kinds).agg(["size", "first"]).sort_values("size", ascending=False, kind="stable")


def _markdown(counts: pd.DataFrame) -> str:
    titles = [" ".join(filter(None, column)) for column in counts.columns]
    rows = [["age group", *titles], ["---"] * (len(titles) + 1), *counts.reset_index().to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


# -- what the faces are made from ------------------------------------------------------------------------------------


def _decided_by(settings: PrepareData) -> dict[str, Any]:
    """The settings that decide the outcome."""
    chosen = settings.model_dump(mode="json", include={*_DECIDING, *_OF_ONE_SET.get(settings.dataset, ())})
    return chosen | {"data_root": settings.data_root and str(settings.data_root.resolve())}


def _inputs(settings: PrepareData, data_root: Path | None) -> dict[str, str]:
    """The state of the raw data set but the runs, and of the CSV of genders where the set reads one; of those that are there."""
    inputs = {"data_root": raw_state(data_root, settings.runs_root)} if data_root and data_root.is_dir() else {}
    if settings.dataset == "cacd" and settings.genders and settings.genders.is_file():
        inputs["genders"] = digest(settings.genders.read_bytes())
    return inputs


def _check(made: Manifest, settings: PrepareData, folder: Path) -> None:
    """Refuse faces made with other settings, and warn where what they were made from has changed since."""
    wanted = _decided_by(settings)
    if settings.data_root is None:  # to open what is there, it is not needed
        wanted["data_root"] = made.settings.get("data_root")
    made.settings.setdefault("groups", [*PAPER_BOUNDS])  # of faces prepared before there were others
    if changes := made.changes(made.inputs, wanted):
        do = "Leave data_root out if its folder has only moved; else name" if "data_root: " in changes else "Name"
        raise ParameterError(f"{folder} holds faces made with other settings: {changes}. {do} another run or delete it")
    root = wanted["data_root"]
    for name, state in _inputs(settings, root and Path(root)).items():
        if name in made.inputs and made.inputs[name] != state:
            what = f"{name} = {wanted[name]} has changed since {folder} was made from it (then {made.inputs[name]}; now {state})"
            do = "To prepare it anew, name another run or delete that folder"
            warnings.warn(f"{what}: these are the faces of then. {do}", stacklevel=3)


# -- shards ----------------------------------------------------------------------------------------------------------


class Shard(NamedTuple):
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


def _align(settings: PrepareData, folder: Path, table: pd.DataFrame, reading: Reading) -> list[dict[str, Any]]:
    """Make the shards that are not there yet; what `make_shard` says of each."""
    shards, keys = [], []
    for number, start in enumerate(range(0, len(table), settings.shard_size)):
        files = table["file"].iloc[start : start + settings.shard_size].to_dict()
        points = None if reading.landmarks is None else reading.landmarks[list(files)]
        path = shard_file(folder.resolve(), number)
        shards.append(Shard(path, number, reading.root.resolve(), files, points, settings.image_size, settings.device))
        # All that decides the faces: a picture that is mended has another date; the fields change with the alignment.
        state = files_state(reading.root, files.values())
        decide = [reading.root, list(files.items()), state, np.array(points).tolist(), settings.image_size]
        keys.append(digest([*decide, Aligned._fields, "look", "roll"]))
    # Of a scheduler's workers this machine knows nothing: it may be without the GPUs that they have.
    workers = 1 if settings.scheduler else min(settings.workers or _processes(settings), len(shards))
    options = {"workers": workers, "scheduler": settings.scheduler, "show": settings.progress}
    bar = {"sizes": [len(shard.files) for shard in shards], "title": "aligning faces", "unit": "face"}
    return resumable_map(make_shard, shards, folder / "pieces" / "shards", keys, **options, **bar)


def _processes(settings: PrepareData) -> int:
    """How many shards this machine makes best at a time: one a processor, as many as GPUs have memory for.

    Reading and cutting the pictures is the processors' where GPUs find the faces, too: a few processes leave those waiting.
    """
    gpus = [device for device in devices_of(settings.device) if device.type != "cpu"]
    fit = sum(int(free_memory(device) // _OF_A_PROCESS) for device in gpus)
    return max(len(gpus), min(processors(), fit)) if gpus else processors()


def make_shard(shard: Shard) -> dict[str, Any]:
    """Align the faces of a shard and write them.

    Faces go to the disk as they are aligned, so that a shard of any size takes the memory of one batch.

    Returns:
        ``faces``, a list of (the reader's row, shard, row in the shard, faces found in the picture, SHA-256 of the
        file, ten numbers of landmarks, `look` in hexadecimal digits, `outside` and `roll` of `Aligned`); ``rejected``,
        a list of (file, the reader's row, reason); and ``checksum``, the SHA-256 of the shard.

    Raises:
        FileNotFoundError: this machine does not see the folders.
        OSError: it cannot be written; on a full disk the message says what to do.
    """
    for folder in (shard.root, shard.path.parent):
        if not folder.is_dir():  # or every picture would be rejected as missing
            do = "data_root, runs_root and cache must be paths of a shared disk"
            raise FileNotFoundError(f"a worker does not see {folder}: {do}")
    devices, side = devices_of(shard.device), shard.image_size
    own = devices[shard.number % len(devices)]
    aligner = _aligner(side, own)
    positions, names = list(shard.files), list(shard.files.values())
    faces, rejected = [], []
    with exact_products(own), atomic_file(shard.path) as file:  # a GPU finds what a CPU does
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), side, side, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(names), DETECTION_BATCH):
            checksums, images, results = {}, {}, {}
            for row, name in enumerate(names[start : start + DETECTION_BATCH], start):
                try:
                    content = read_picture(shard.root, name)
                    checksums[row] = hashlib.sha256(content).hexdigest()
                    images[row] = open_image(content)
                except ValueError as error:
                    results[row] = str(error)
            known = None if shard.landmarks is None else shard.landmarks[list(images)]
            results |= zip(images, aligner.align(list(images.values()), known), strict=True)
            for row, face in sorted(results.items()):
                if isinstance(face, str):
                    rejected.append([names[row], positions[row], face])
                    file.write(bytes(side**2 * 3))
                else:
                    landmarks = face.landmarks.astype(float).round(3).ravel().tolist()
                    place = [positions[row], shard.number, row, face.found, checksums[row], landmarks]
                    faces.append([*place, look(face.image).hex(), face.outside, face.roll])
                    file.write(face.image.tobytes())
        file.seek(0)
        checksum = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return {"faces": faces, "rejected": rejected, "checksum": checksum}


@cache
def _aligner(image_size: int, device: torch.device) -> Aligner:
    """One for all the shards of a process: the networks take a second to load."""
    if device.type == "cpu":
        keep_freed_memory()  # dask has its workers give memory back at once, which halves their speed
    return Aligner(image_size, device)
