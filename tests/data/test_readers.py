"""Each of the six data sets in its real layout: every file and every row becomes one face or one line of rejected.csv."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

import ageflow
from ageflow.config import ParameterError, PrepareData
from ageflow.data.faces import Faces
from ageflow.data.prepare import READERS, prepare, rejections, source_folder
from ageflow.data.readers import _cacd_meta
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
    without = [file for file, row in found if row is None]
    once = Counter([*tree.accepted.keys() | {file for file, _ in with_row}, *without])
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


MORPH = "009055_1M54.JPG"
MORPH_HEAD, MORPH_ROW = "id_num,race,gender,age,photo\n", f"9055,W,M,54,Album2/{MORPH}"
CELEBA = {"list_attr_celeba.txt": "1\nMale\n1.jpg -1", "identity_CelebA.txt": "1.jpg 7"}
BARE = "P1 1 1 0"  # a picture, whatever it is called
WOMAN = ("1.jpg", "7", None, "female", None)
OF_TABLE, OF_NAME = (MORPH, "009055", "54", "male", "W"), (MORPH, "009055", "54", "male", None)


def write(folder: Path, files: dict[str, str], links: dict[str, str]) -> None:
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    for link, target in links.items():
        (folder / link).parent.mkdir(parents=True, exist_ok=True)
        (folder / link).symlink_to(folder / target)


def labels_of(table: pd.DataFrame) -> set[tuple]:
    sound = table[table["reason"] == ""] if "reason" in table else table
    labels = sound.reindex(columns=["file", "identity", "age", "gender", "race"]).astype(object)
    return {*labels.where(labels.notna(), None).itertuples(index=False, name=None)}


@pytest.mark.parametrize(
    ("dataset", "data_root", "files", "links", "accepted"),
    [
        # The pictures' folder is a link to another disk, and the tables lie beside the link.
        ("morph", "raw", {f"disk/x/{MORPH}": "", "raw/m.csv": MORPH_HEAD + MORPH_ROW}, {"raw/Album2": "disk/x"}, OF_TABLE),
        ("celeba", "raw", {"disk/1.jpg": ""} | {f"raw/{n}": t for n, t in CELEBA.items()}, {"raw/img_align_celeba": "disk"}, WOMAN),
        ("celeba", "raw/img_align_celeba", {"disk/1.jpg": ""} | {f"raw/{n}": t for n, t in CELEBA.items()}, {"raw/img_align_celeba": "disk"}, WOMAN),
        ("folder", "raw", {"disk/a.jpg": "", "raw/x.csv": "file,age\nimages/a.jpg,3"}, {"raw/images": "disk"}, ("images/a.jpg", None, "3", None, None)),
        ("utkface", "raw", {"disk/a/25_0_2_2017.jpg": ""}, {"raw/UTKFace/part1": "disk/a"}, ("part1/25_0_2_2017.jpg", None, "25", "male", "asian")),
        # The pictures' folder itself is named, and the tables lie beside it, or in a folder of tables.
        ("morph", "raw/Album2", {f"raw/Album2/{MORPH}": "", "raw/m.csv": MORPH_HEAD + MORPH_ROW}, {}, OF_TABLE),
        ("morph", "raw/MORPH", {f"raw/MORPH/Album2/{MORPH}": "", "raw/CSV/m.csv": MORPH_HEAD + MORPH_ROW}, {}, OF_TABLE),
        ("morph", "raw/Images", {f"raw/Images/Train/{MORPH}": "", "raw/Index/m.csv": MORPH_HEAD + MORPH_ROW}, {}, (f"Train/{MORPH}", *OF_TABLE[1:])),
        ("celeba", "raw/img_align_celeba", {"raw/img_align_celeba/1.jpg": ""} | {f"raw/Anno/{n}": t for n, t in CELEBA.items()}, {}, WOMAN),
        ("folder", "raw/images", {"raw/images/a.jpg": "", "raw/labels/x.csv": "file,age\n../images/a.jpg,3"}, {}, ("images/a.jpg", None, "3", None, None)),
        ("folder", "raw", {"raw/images/a.jpg": "", "raw/labels/faces.csv": "file,age\n../images/a.jpg,3"}, {}, ("images/a.jpg", None, "3", None, None)),
        # A text that is no table lies among the pictures, or above them.
        ("celeba", "raw/Img", {"raw/Img/img_align_celeba/1.jpg": "", "raw/Img/README.txt": "about"} | {f"raw/Anno/{n}": t for n, t in CELEBA.items()}, {}, WOMAN),
        ("morph", "raw/MORPH", {f"raw/MORPH/Album2/{MORPH}": "", "raw/MORPH/a.txt": "about", "raw/CSV/m.csv": MORPH_HEAD + MORPH_ROW}, {}, OF_TABLE),
        ("morph", "raw/MORPH", {f"raw/MORPH/Album2/{MORPH}": "", "raw/MORPH/x.csv": "a,b\n1,2", "raw/m.csv": MORPH_HEAD + MORPH_ROW}, {}, OF_TABLE),
        # Subfolders of a folder that is named itself.
        ("morph", "raw/Album2", {f"raw/Album2/p1/{MORPH}": ""}, {}, (f"p1/{MORPH}", *OF_NAME[1:])),
        ("utkface", "raw/UTKFace", {"raw/UTKFace/p/25_0_2_2017.jpg": ""}, {}, ("p/25_0_2_2017.jpg", None, "25", "male", "asian")),
        ("fgnet", "raw", {"raw/FGNET/images/001/001A02.JPG": ""}, {}, ("001/001A02.JPG", "001", "02", None, None)),
        # Another picture format than the table's, or none; a folder more or less.
        ("morph", "raw", {f"raw/Album2/p1/{MORPH[:-4]}.png": "", "raw/m.csv": MORPH_HEAD + MORPH_ROW}, {}, (f"p1/{MORPH[:-4]}.png", *OF_TABLE[1:])),
        ("morph", "raw", {f"raw/Album2/{MORPH[:-4]}.png": ""}, {}, (f"{MORPH[:-4]}.png", *OF_NAME[1:])),
        ("celeba", "raw", {"raw/img_align_celeba/1.png": ""} | {f"raw/{n}": t for n, t in CELEBA.items()}, {}, ("1.png", *WOMAN[1:])),
        ("folder", "raw", {"raw/images/a.jpg": "", "raw/x.csv": "file,age\na,3"}, {}, ("images/a.jpg", None, "3", None, None)),
        ("folder", "raw", {"raw/a.webp": "", "raw/x.csv": "file,age\nraw/A.jpg,3"}, {}, ("a.webp", None, "3", None, None)),
        ("folder", "raw", {"raw/p/a": BARE, "raw/x.csv": "file,age\na,3"}, {}, ("p/a", None, "3", None, None)),
        ("folder", "raw", {"raw/p/a": BARE, "raw/x.csv": "file,age\np/A.jpg,3"}, {}, ("p/a", None, "3", None, None)),
        ("morph", "raw", {f"raw/Album2/{MORPH[:-4]}": BARE}, {}, (MORPH[:-4], *OF_NAME[1:])),
        ("folder", "raw", {"raw/a.jpg": "", "raw/x.csv": "file,age\n../raw/a.jpg,3"}, {}, ("a.jpg", None, "3", None, None)),
    ],
)  # fmt: skip
def test_labels_are_found_wherever_people_keep_them(tmp_path, dataset, data_root, files, links, accepted):
    write(tmp_path, files, links)
    reading = READERS[dataset](settings_for(dataset, tmp_path / data_root, runs_root=tmp_path / "runs"))
    assert labels_of(reading.table) == {accepted}
    assert reading.rejections == []


@pytest.mark.parametrize("names", [("random_train", "random_test"), tuple("abc"), ("x/morph_2008_nonCommercial",) * 2])
def test_several_tables_are_read_together_and_what_is_not_read_is_named(tmp_path, names):
    rows = {f"00000{number}_1M54.JPG": "BWA"[number] for number in range(len(names))}
    tables = {f"{number if '/' in name else ''}{name}.csv": "" for number, name in enumerate(names)}
    tables = {table: f"race,photo\n{race},{row}" for table, (row, race) in zip(tables, rows.items(), strict=True)}
    write(tmp_path, {f"raw/{name}": content for name, content in (dict.fromkeys(rows, "") | tables).items()}, {})
    read = READERS["morph"](settings_for("morph", tmp_path / "raw")).table
    assert dict(zip(read["file"], read["race"], strict=True)) == rows
    write(tmp_path, {"raw/morph_2008_nonCommercial.csv": "race,photo\nO,000000_1M54.JPG"}, {})
    reading = READERS["morph"](settings_for("morph", tmp_path / "raw"))
    assert any("Not read" in note and next(iter(tables)) in note for note in reading.notes)


def test_a_row_that_could_mean_several_pictures_says_so(tmp_path):
    rows = "file,age\na,3\nz/b.jpg,4\nb.jpg,5\n../c.jpg,6"
    write(tmp_path, {"raw/a.jpg": "", "raw/x/a.png": "", "raw/y/z/b.jpg": "", "c.jpg": "", "raw/x.csv": rows}, {})
    table = READERS["folder"](settings_for("folder", tmp_path / "raw")).table
    several = "which is meant is not known: {}"
    wanted = [several.format("a.jpg, x/a.png"), several.format("y/z/b.jpg"), several.format("y/z/b.jpg"), "leads out"]
    assert all(part in reason for part, reason in zip(wanted, table["reason"], strict=True))


@pytest.mark.parametrize(
    ("dataset", "files", "said"),
    [
        ("utkface", ["25_0_2_2017.png", "25_0_2_2017.tif"], "several pictures are named alike but for their endings"),
        ("morph", ["Album2/009055_1M54.jpg", "Album2/009055_1M54.PNG"], "several pictures are named alike"),
        ("celeba", ["img_align_celeba/1.png", "img_align_celeba/1.tif"], "which is meant is not known: 1.png, 1.tif"),
    ],
)
def test_of_two_pictures_named_alike_none_is_guessed(tmp_path, dataset, files, said):
    write(tmp_path / "raw", dict.fromkeys(files, "") | (CELEBA if dataset == "celeba" else {}), {})
    reading = READERS[dataset](settings_for(dataset, tmp_path / "raw"))
    assert labels_of(reading.table) == set()
    assert reading.table["reason"].str.contains(said).all()


def test_cacds_genders_go_by_number_and_a_broken_row_spoils_no_other(tmp_path, drawn):
    tree = TREES["cacd"](tmp_path / "raw", drawn)
    csv = tmp_path / "genders.csv"
    csv.write_text("identity,gender\n1,male\n3,female\n50 Cent,male,extra")
    reading = READERS["cacd"](settings_for("cacd", tree.data_root, genders=csv))
    known = reading.table.dropna(subset="gender").groupby("identity")["gender"].agg(set)
    assert known.to_dict() == {"Aaron_Johnson": {"male"}, "Zoë_Kravitz": {"female"}}
    assert any("2 people; 1 of its rows are broken" in note for note in reading.notes)


def test_cacds_ages_of_eight_bits_stay_ages(tmp_path):
    numbers, names = np.uint16([[1], [2]]), np.array([["Aaron Johnson"], ["Zoë Kravitz"]], dtype=object)
    pictures = np.array([["a.jpg"], ["b.jpg"]], dtype=object)
    images = {"age": np.uint8([[30], [62]]), "identity": numbers, "name": pictures}
    content = {"celebrityImageData": images, "celebrityData": {"name": names, "identity": numbers}}
    savemat(tmp_path / "meta.mat", content)
    assert _cacd_meta(tmp_path / "meta.mat")["age"].tolist() == ["30", "62"]


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
