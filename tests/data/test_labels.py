"""Labels as people write them, and what notebook 01 says of them."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ageflow.config import ParameterError
from ageflow.data.pictures import open_image
from ageflow.data.prepare import prepare
from ageflow.data.records import Reading, checked
from tests.data.test_readers import settings_for


def prepared(folder: Path, pictures: list[Image.Image], table: str, dataset: str = "folder"):
    """The faces of a table whose rows begin with the number of a picture, and the data card."""
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    (folder / "faces.csv").write_text(table)
    faces = prepare(settings_for(dataset, folder)).table.assign(number=lambda rows: rows["file"].str[:-4])
    return faces.set_index("number"), (folder.parent / "runs" / dataset / "smoke" / "faces" / "data.md").read_text()


@pytest.mark.parametrize(
    ("written", "age"),
    [
        ("34,5", 34.5), ("34 years", 34), ("7 y.", 7), ("20-29", 24.5), ("(51, 60)", 55.5), ("(48,53)", None),
        ("more than 70", 70), ("60+", 60), ("0 - 2 years", 1), ("25-32", None), ("over 45", None), ("over 50", None),
        ("9-Mar", None), ("x", None),
    ],
)  # fmt: skip
def test_ages_are_taken_where_one_group_is_meant(written, age):
    table, rejected = checked(Reading(pd.DataFrame({"file": ["a"], "age": [written]}), Path()))
    assert table["age"].tolist() == ([] if age is None else [age])
    reasons = [line.reason for line in rejected]
    assert all(repr(written) in reason and ("group" in reason or "not a number" in reason) for reason in reasons)


def test_people_and_pictures_are_in_one_half_and_the_card_says_what_was_joined(tmp_path, pictures):
    names = ["Anna", " ANNA", "anna", "007", "7", "7.0", "Zoe\u0308", "Zo\u00eb", "ben", "eva", "ida", "", ""]
    twins = [*pictures[:8], pictures[0], pictures[9], pictures[9], *pictures[11:13]]  # Anna's is ben's, eva's is ida's
    genders = ["f", "F", "m", "woman", "u", "girl", "0", "1", "x", "", "m", "f", "f"]
    rows = [f"{n}.png,{name},{20 + n},{genders[n]},{n % 4}" for n, name in enumerate(names)]
    with pytest.warns(UserWarning, match=r"gender of 3 rows .*'0' \(1\)"):
        faces, card = prepared(tmp_path / "mine", twins, "\n".join(["file,identity,age,gender,birth", *rows]))
    assert len(faces) == len(names)
    assert faces["identity"].nunique() == 8
    for one in (["0", "1", "2", "8"], ["3", "4", "5"], ["6", "7"], ["9", "10"]):
        assert faces.loc[one, "split"].nunique() == 1
    assert faces.loc["5", "gender"] == "female"
    assert faces.loc[["4", "6", "7", "8"], "gender"].isna().all()
    for line in (
        "Identities of several spellings",
        "Identical files: 4 faces of 2 pictures, 2 of them under several names or ages",
        "Contradicting labels: 1 identities have more than one gender",
        "Contradicting labels: 3 identities have more than one birth",
        "The gender of 3 rows is not known",
    ):
        assert line in card


def test_near_duplicates_in_both_halves_are_told(tmp_path, pictures):
    copies = [pictures[0].resize((150, 150)).resize((256, 256)), pictures[1].crop((6, 4, 250, 250)), pictures[2]]
    copies[2] = copies[2].point(lambda value: min(255, int(value * 1.1)))
    rows = [f"{n}.png,{n},30,{'train' if n < 12 else 'test'}" for n in range(27)]
    with pytest.warns(UserWarning, match=r"halves: 3 test faces .*\(24.png ~ 0.png, 25.png ~ 1.png, 26.png ~ 2.png"):
        _, card = prepared(tmp_path / "a", [*pictures[:24], *copies], "\n".join(["file,identity,age,split", *rows]))
    assert "* Near-duplicates in both halves: 3" in card


def test_a_set_without_such_faults_is_told_of_none(sharded):
    card = (sharded.folder / "data.md").read_text()
    words = ("spellings", "Identical", "Near-dup", "Contradicting", "no test faces", "is not known")
    assert not any(word in card for word in words)


def test_the_tables_own_halves_are_taken(tmp_path, pictures):
    halves = ["train", "Test", "validation", "test", "", "later"]
    rows = [f"{n}.png,{n % 4},{20 + n},{half}" for n, half in enumerate(halves)]
    faces, card = prepared(tmp_path / "mine", pictures[:6], "\n".join(["file,identity,age,split", *rows]))
    assert faces["split"].to_dict() == {"0": "train", "1": "test", "2": "test", "3": "test", "4": "train"}
    assert "As the data set itself has it" in card
    assert "the split 'later' is none of train" in card


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        ("identity", ["x"] * 3, "all 3 faces are of one identity, 'x'.* leave the column identity out"),
        ("identity", ["X ", "x", "x"], "all 3 faces are of one identity, 'x'"),
        ("split", ["train"] * 3, "the data set's own halves have none.* let the column split"),
        ("split", ["test"] * 3, "no training faces"),
    ],
)
def test_a_half_without_faces_is_told_in_notebook_01(tmp_path, pictures, columns, rows, said):
    table = "\n".join([f"file,age,{columns}", *(f"{n}.png,3{n},{row}" for n, row in enumerate(rows))])
    with pytest.warns(UserWarning, match=said):
        prepared(tmp_path / "mine", pictures[:3], table)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, r"No face has a race, which notebook 03 .* pass attributes = \['gender'\] there"),
        ({"image_size": 50}, r"image_size = 50 cannot be halved 2 times.* a multiple of 4 here, or levels = 1"),
        ({"columns": "age=years"}, "columns = 'age=years' is not read: it is for dataset = 'folder'"),
        ({"groups": [60]}, r"No training face is in the age groups 61\+, and .* pass other groups than \[60\]"),
        ({"image_size": 31}, r"image_size = 31 cannot be halved .* pass a multiple of 4$"),
    ],
)
def test_what_later_notebooks_would_stop_for_is_told_in_notebook_01(tmp_path, pictures, values, said):
    (tmp_path / "Album2").mkdir()
    for person in range(2):
        pictures[person].save(tmp_path / "Album2" / f"00000{person}_1M54.JPG", quality=95)
    with pytest.warns(UserWarning, match=said):
        prepare(settings_for("morph", tmp_path, runs_root=tmp_path / "runs", **values))


@pytest.mark.parametrize(
    ("row", "said"),
    [("{}.png,old{},", "is not a number"), ("{}.png,20{},", "lies outside"), ("{}.png,30,half{}", "is none of train")],
)
def test_where_no_face_is_left_the_most_frequent_kind_of_reason_is_told(tmp_path, pictures, row, said):
    rows = ["file,age,split", *(row.format(n, n) for n in range(3)), "gone.png,30,", "gone.png,31,"]
    with pytest.raises(ParameterError, match=rf"no face is left of the 5 rows .* most often as .*{said}"):
        prepared(tmp_path / "mine", pictures[:3], "\n".join(rows))


@pytest.mark.parametrize("kind", [b"heic", b"heix", b"mif1"])
def test_a_heic_picture_is_called_one(kind):
    with pytest.raises(ValueError, match=r"HEIC picture.*convert it to JPEG"):
        open_image(b"\0\0\0\x18ftyp" + kind + bytes(64))
