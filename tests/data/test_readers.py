"""Each of the six data sets in its real layout: every file and every row becomes one face or one line of rejected.csv."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import ageflow
from ageflow.config import ParameterError, PrepareData
from ageflow.data.faces import Faces
from ageflow.data.prepare import READERS, prepare, rejections, source_folder
from tests.conftest import ROOT
from tests.data.trees import TREES, Drawn


@pytest.fixture(scope="session")
def drawn(demo_faces_folder: Path) -> Drawn:
    return Drawn(demo_faces_folder)


def settings_for(dataset: str, data_root: Path, **more) -> PrepareData:
    runs_root = data_root.parent / "runs"
    values = {"dataset": dataset, "preset": "smoke", "data_root": data_root, "runs_root": runs_root, "progress": False}
    return ageflow.settings("prepare_data", values | more)


@pytest.mark.parametrize("dataset", TREES)
def test_notebook_01_turns_the_tree_into_faces_and_loses_nothing(dataset, tmp_path, drawn):
    tree = TREES[dataset](tmp_path / "raw", drawn)
    settings = settings_for(dataset, tree.data_root, workers=1)
    cells = json.loads((ROOT / "notebooks" / "01_prepare_data.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    exec("\n".join(code[2:]), {"settings": settings})  # in this process: six kernels would take minutes to start

    reading = READERS[dataset](settings)
    assert reading.ages == tree.ages
    assert any(tree.note in note for note in reading.notes)
    assert tree.rows in (None, len(reading.table)), "a row of the data set's table is a row of the reader's"
    faces = Faces.open(tmp_path / "raw" / "runs" / dataset / "smoke" / "faces")
    assert reading.root == source_folder(faces.folder) == tree.pictures
    labels = faces.table[["identity", "age", "gender", "race"]].astype(object)
    labels = labels.where(labels.notna(), None).itertuples(index=False, name=None)
    assert dict(zip(faces.table["file"], labels, strict=True)) == tree.accepted
    lines = [(file, None if pd.isna(row) else row, reason) for file, row, reason in rejections(faces.folder).to_numpy()]
    found = {(file, row): reason for file, row, reason in lines}
    assert len(found) == len(lines)
    assert found.keys() == tree.rejected.keys()
    assert {place: reason for place, reason in found.items() if tree.rejected[place] not in reason} == {}

    # accepted + rejected = files ∪ rows, counted from the disk rather than from what the tree expects
    with_row = [(file, row) for file, row in found if row is not None]
    if tree.rows is not None:
        assert len({row for _, row in with_row}) + len(tree.accepted) == tree.rows, "each row once"
    once = Counter(
        [*tree.accepted.keys() | {file for file, _ in with_row}, *(file for file, row in found if row is None)]
    )
    assert {file: once[file] for file in tree.on_disk()} == dict.fromkeys(tree.on_disk(), 1), "each file once"
    nameless = sum(file == labels[0] for file, labels in tree.accepted.items())
    assert f"without a name: {nameless};" in (faces.folder / "data.md").read_text()


# Of each set: files and their content, and file, identity, age, gender, race of the faces.
LAYOUTS = {
    "morph": (  # the public archive: tables beside, one for each part
        {"Images/Train/009055_1M54.JPG": "", "Images/Test/012345_0F31.JPG": ""},
        {
            "Index/Train.csv": "photo,race,sex,file\n009055_1M54.JPG,W,x,x",
            "Index/Test.csv": "photo;race\n012345_0F31.JPG;A",
        },
        {
            ("Images/Train/009055_1M54.JPG", "009055", "54", "male", "W"),
            ("Images/Test/012345_0F31.JPG", "012345", "31", "female", "A"),
        },
    ),
    "cacd": (  # a folder a person, and no .mat
        {"CACD/Aaron/14_Aaron_Johnson_0001.jpg": ""},
        {"genders.csv": "\ufeffname\tgender\nAARON JOHNSON\tM"},
        {("Aaron/14_Aaron_Johnson_0001.jpg", "Aaron_Johnson", "14", "male", None)},
    ),
    "celeba": (  # as published, with one of Kaggle's tables
        {"Img/img_align_celeba/1.jpg": ""},
        {"Anno/list_attr_celeba.csv": "image_id,Young,Male\n1.jpg,-1,-1", "Anno/identity_CelebA.txt": "1.jpg 7"},
        {("1.jpg", "7", None, "female", None)},
    ),
    "utkface": (  # nested, beside another copy of itself
        {"archive/UTKFace/part1/25_0_2_2017.jpg": "", "archive/crop_part1/25_0_2_2017.jpg": ""},
        {},
        {("part1/25_0_2_2017.jpg", None, "25", "male", "asian")},
    ),
    "folder": (  # the CSV one folder below, and one that is something else
        {"mine/a, b.jpg": ""},
        {"mine/x.csv": 'sep=,\nFile,age,Identity\n"a, b.jpg",31,n/a\n', "mine/other.csv": "x"},
        {("mine/a, b.jpg", None, "31", None, None)},
    ),
}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_as_the_sets_lie_on_real_disks(tmp_path, dataset):
    pictures, tables, accepted = LAYOUTS[dataset]
    for file, content in (pictures | tables).items():
        (tmp_path / "raw" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / file).write_text(content)
    genders = {"genders": tmp_path / "raw" / "genders.csv"} if dataset == "cacd" else {}
    reading = READERS[dataset](settings_for(dataset, tmp_path / "raw", **genders))
    labels = reading.table.reindex(columns=["file", "identity", "age", "gender", "race"]).astype(object)
    assert {*labels.where(labels.notna(), None).itertuples(index=False, name=None)} == accepted


def test_a_picture_folder_that_is_a_link_to_another_disk_is_named(tmp_path):
    (tmp_path / "disk" / "Album2").mkdir(parents=True)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "Album2").symlink_to(tmp_path / "disk" / "Album2")
    with pytest.raises(ParameterError, match=rf"a link out of data_root, to {tmp_path}/disk/Album2: name that folder"):
        READERS["morph"](settings_for("morph", tmp_path / "raw"))


def test_cacds_genders_go_by_number_and_a_broken_row_spoils_no_other(tmp_path, drawn):
    tree = TREES["cacd"](tmp_path / "raw", drawn)
    csv = tmp_path / "genders.csv"
    csv.write_text("identity,gender\n1,male\n3,female\n50 Cent,male,extra")
    reading = READERS["cacd"](settings_for("cacd", tree.data_root, genders=csv))
    known = reading.table.dropna(subset="gender").groupby("identity")["gender"].agg(set)
    assert known.to_dict() == {"Aaron_Johnson": {"male"}, "Zoë_Kravitz": {"female"}}
    assert any("2 people; 1 of its rows are broken" in note for note in reading.notes)


def test_a_csv_of_genders_that_contradicts_itself_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "14_Aaron_Johnson_0001.jpg").write_text("")
    (tmp_path / "genders.csv").write_text("name,gender\nAaron Johnson,male\naaron_johnson,f")
    with pytest.raises(ParameterError, match="says male and female of aaron johnson"):
        READERS["cacd"](settings_for("cacd", tmp_path / "raw", genders=tmp_path / "genders.csv"))


def test_votes_on_pictures_that_do_not_open_are_not_kept(tmp_path, drawn):
    """A download cut short is mended and prepared again: everybody is asked."""
    tree = TREES["cacd"](tmp_path / "raw", drawn)
    whole = {path: path.read_bytes() for path in tree.data_root.rglob("*.jpg")}
    for path in whole:
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    settings = settings_for("cacd", tree.data_root)
    with pytest.raises(ParameterError, match="no face is left"):
        prepare(settings)
    for path, content in whole.items():
        path.write_bytes(content)
    assert prepare(settings).table["gender"].notna().any()


def test_pictures_that_are_not_celebas_are_refused(tmp_path, drawn):
    drawn.save(tmp_path / "docs" / "screenshot.png")
    with pytest.raises(ParameterError, match=r"neither img_align_celeba nor a table.*dataset = 'folder'"):
        READERS["celeba"](settings_for("celeba", tmp_path / "docs"))
