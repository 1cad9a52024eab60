"""From pictures to shards: nothing lost, nothing half done."""

import errno
import hashlib
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ageflow
from ageflow.config import ParameterError
from ageflow.data import prepare as module
from ageflow.data.align import EYES, Aligner
from ageflow.data.faces import shard_file
from ageflow.data.prepare import prepare, source_folder
from ageflow.run import FolderInUseError, Workspace, sole_writer


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture
def picture(pictures) -> Image.Image:
    """A drawn face."""
    return pictures[0]


def test_checksums_name_the_files_they_were_taken_from(sharded):
    assert [hashlib.sha256(shard_file(sharded.folder, shard).read_bytes()).hexdigest() for shard in range(3)] == (
        sharded.table.attrs["shards"]
    )
    for file, checksum in sharded.table[["file", "checksum"]].iloc[::9].itertuples(index=False):
        assert hashlib.sha256((source_folder(sharded.folder) / file).read_bytes()).hexdigest() == checksum


def test_a_face_is_its_own_picture_aligned(sharded):
    """A table row that points at another face's pixels would fail here."""
    rows = [0, 39, 40, 95]
    files = [source_folder(sharded.folder) / sharded.table["file"][row] for row in rows]
    aligned = Aligner(image_size=32).align([Image.open(file).convert("RGB") for file in files])
    for row, face in zip(rows, aligned, strict=True):
        stored = sharded.images(row)[0].permute(1, 2, 0).numpy().astype(float)
        assert np.abs(stored - face.image).mean() < 8
        points = np.reshape(sharded.table["landmarks"][row], (5, 2))
        np.testing.assert_allclose(points[:2] / 32, EYES, atol=1e-3)


def test_the_split_is_by_identity(sharded):
    train, test = (set(sharded.select(split=split).identities) for split in ("train", "test"))
    assert not train & test
    assert abs(len(test) - 0.2 * len(train | test)) <= 1


def test_finished_it_does_nothing_again_and_other_settings_do_not_overwrite_what_is_there(wanted):
    faces = prepare(wanted)
    before = {file: file.stat().st_mtime_ns for file in faces.folder.iterdir()}
    again = prepare(wanted)
    assert again.table.equals(faces.table)
    with pytest.raises(ParameterError, match=r"image_size: 32 → 48\. [Nn]ame another run"):
        prepare(wanted.model_copy(update={"image_size": 48}))
    assert {file: file.stat().st_mtime_ns for file in again.folder.iterdir()} == before


def test_stopped_by_a_full_disk_it_continues_to_the_same_bytes(wanted, sharded, monkeypatch):
    """The kernel refuses the second shard: a limit on the size of files stands in for the end of the disk."""
    make, limits = module.make_shard, resource.getrlimit(resource.RLIMIT_FSIZE)

    def with_little_room(shard):
        if shard.number == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        return make(shard)

    monkeypatch.setattr(module, "make_shard", with_little_room)
    try:
        with pytest.raises(OSError, match=r"shard-00001.npy was not written. Make room") as failure:
            prepare(wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failure.value.errno == errno.EFBIG
    folder = Workspace.of(wanted).path("faces")
    assert not Workspace.of(wanted).has("faces"), "what is unfinished must not count as done"
    assert {file.name for file in folder.rglob("*.*")} == {"shard-00000.npy", "00000.json"}
    first = shard_file(folder, 0).stat().st_mtime_ns

    monkeypatch.undo()
    prepare(wanted)
    assert shard_file(folder, 0).stat().st_mtime_ns == first, "a finished shard is not made again"
    assert bytes_of(folder) == bytes_of(sharded.folder)


def utkface(data_root: Path | None, runs_root: Path):
    parameters = {"dataset": "utkface", "preset": "smoke", "data_root": data_root, "runs_root": runs_root}
    return ageflow.settings("prepare_data", parameters | {"progress": False})


def test_after_a_wrong_data_root_the_right_one_is_taken(picture, tmp_path: Path):
    wrong, empty, right, runs = (tmp_path / name for name in ("docs", "grey", "UTKFace", "runs"))
    for folder in (wrong, empty, right):
        folder.mkdir()
    Image.new("RGB", (80, 80), "grey").save(wrong / "architecture.png")
    Image.new("RGB", (80, 80), "grey").save(empty / "30_0_1_20170109142408075.jpg")
    for age in (25, 60):
        picture.save(right / f"{age}_0_1_20170109142408075.jpg", quality=95)

    for folder, reason in ((wrong, "the file's name is not"), (empty, "MTCNN finds no face")):
        with pytest.raises(ParameterError, match=f"no face is left of the 1 rows.*{reason}.*Is data_root = {folder}"):
            prepare(utkface(folder, runs))
        assert [path.name for path in (runs / "utkface" / "smoke" / "faces").iterdir()] == ["rejected.csv"]
    faces = prepare(utkface(right, runs))
    assert len(faces) == 2

    assert prepare(utkface(None, runs)).table.equals(faces.table), "to open what is there, data_root is not needed"
    with pytest.raises(ParameterError, match=r"other settings: data_root: .* Leave data_root out if its folder has"):
        prepare(utkface(wrong, runs))


def test_the_data_card_counts_turned_and_cut_faces_and_names_the_refused(picture, tmp_path: Path):
    cut = picture.crop((40, 20, 216, 236))
    shown = [
        picture,
        picture.rotate(180),
        picture.transpose(Image.Transpose.ROTATE_90),
        cut,
        picture.crop((70, 70, 190, 190)),
    ]
    for age, image in enumerate(shown, 30):
        image.save(tmp_path / f"{age}_0_1_20170109142408075.jpg", quality=95)
    faces = prepare(utkface(tmp_path, tmp_path / "runs"))
    card = (faces.folder / "data.md").read_text()
    assert len(faces) == 4
    assert "more than 10% of the aligned square: 1;" in card
    assert "on their side or upside down, and were turned: 2." in card
    assert "would lie outside its picture" in card
    images = faces.images(slice(3)).float()
    assert (images - images[0]).abs().mean() < 6, "turned, they are the one that was upright"


def test_a_warning_says_that_the_data_changed_after_they_were_prepared(picture, tmp_path: Path, recwarn):
    raw = tmp_path / "UTKFace"
    runs = raw / "runs"  # where a user may well keep them
    raw.mkdir()
    for age in (25, 60):
        picture.save(raw / f"{age}_0_1_20170109142408075.jpg", quality=95)
    made = prepare(utkface(raw, runs))
    (raw / ".DS_Store").write_bytes(b"of an operating system")
    prepare(utkface(raw, runs))
    assert not [warning for warning in recwarn if "changed" in str(warning.message)]
    picture.save(raw / "40_0_1_20170109142408075.jpg", quality=95)
    for data_root in (raw, None):
        with pytest.warns(UserWarning, match=r"changed since .*was made from it \(then 2 files.*; now 3 files"):
            assert prepare(utkface(data_root, runs)).table.equals(made.table)
    (raw / "40_0_1_20170109142408075.jpg").unlink()
    picture.rotate(5).save(raw / "60_0_1_20170109142408075.jpg", quality=95)
    with pytest.warns(UserWarning, match="has changed since"):
        prepare(utkface(raw, runs))


def test_two_at_once_do_not_write_one_run(wanted):
    with (
        sole_writer(Workspace.of(wanted).folder("faces")),
        pytest.raises(FolderInUseError, match=r"another process is writing .*faces.*[Ww]ait"),
    ):
        prepare(wanted)


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
