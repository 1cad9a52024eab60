"""Each of the six data sets in its real layout: every file and every row becomes one face or one line of rejected.csv."""

import warnings
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import ageflow
from ageflow.config import ParameterError, PrepareData
from ageflow.data.faces import Faces
from ageflow.data.files import Listing
from ageflow.data.matching import join
from ageflow.data.prepare import READERS, prepare, rejections, source_folder
from ageflow.data.records import Rejection, checked
from tests.data.trees import TREES, Drawn, Tree


@pytest.fixture(scope="session")
def drawn(demo_faces_folder: Path) -> Drawn:
    return Drawn(demo_faces_folder)


@pytest.fixture(params=TREES)
def dataset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tree(dataset: str, tmp_path: Path, drawn: Drawn) -> Tree:
    return TREES[dataset](tmp_path / "raw", drawn)


def settings_for(dataset: str, data_root: Path, **more) -> PrepareData:
    runs_root = data_root.parent / "runs"
    values = {"dataset": dataset, "preset": "smoke", "data_root": data_root, "runs_root": runs_root, "progress": False}
    return ageflow.settings("prepare_data", values | more)


def labels(table: pd.DataFrame, prefix: str) -> dict[str, tuple]:
    """Identity, age, gender, race by file, None for what is not known; files as from `data_root`."""
    known = table[["identity", "age", "gender", "race"]].astype(object)
    rows = known.where(known.notna(), None).itertuples(index=False, name=None)
    return dict(zip(prefix + table["file"], rows, strict=True))


def told(lines: list[Rejection], prefix: str, tree: Tree) -> list[tuple[str, int | None, str]]:
    """Each line with the part of the reason that the tree expects of it, or with all of it."""
    found = []
    for line in lines:
        file = prefix + line.file if (prefix + line.file) in tree.on_disk() else line.file
        row = None if line.row is None or pd.isna(line.row) else int(line.row)
        expected = [part for name, number, part in tree.rejected if (name, number) == (file, row)]
        found.append((file, row, next((part for part in expected if part in line.reason), line.reason)))
    return sorted(found, key=str)


def prefix_of(tree: Tree, root: Path) -> str:
    inside = root.relative_to(tree.data_root).as_posix()
    return "" if inside == "." else f"{inside}/"


def test_the_table_and_the_rejections_are_exactly_those_of_the_tree(dataset, tree):
    reading = READERS[dataset](settings_for(dataset, tree.data_root))
    prefix = prefix_of(tree, reading.root)
    table, turned_away = checked(reading.table, reading.ages)
    accepted = labels(table, prefix)
    assert {file: row for file, row in accepted.items() if file not in tree.damaged} == tree.accepted
    assert set(tree.damaged) <= set(accepted)
    expected = [line for line in tree.rejected if line[0] not in tree.damaged]
    assert told(reading.rejections + turned_away, prefix, tree) == sorted(expected, key=str)
    assert (reading.ages, reading.identities) == (tree.ages, tree.identities)
    if tree.rows is not None:
        assert len(reading.table) == tree.rows, "a row of the data set's table is a row of the reader's"


def test_the_notebook_turns_the_tree_into_faces_and_loses_nothing(dataset, tree, papermill, tmp_path):
    done = papermill(
        *("01_prepare_data.ipynb", str(tmp_path / "out.ipynb"), "-p", "dataset", dataset, "-p", "preset", "smoke"),
        *("-p", "data_root", str(tree.data_root), "-p", "runs_root", str(tmp_path / "runs"), "-p", "workers", "1"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    faces = Faces.open(tmp_path / "runs" / dataset / "smoke" / "faces")
    prefix = prefix_of(tree, source_folder(faces.folder))
    accepted = labels(faces.table, prefix)
    lines = [Rejection(*line) for line in rejections(faces.folder).itertuples(index=False, name=None)]
    rejected = told(lines, prefix, tree)
    assert accepted == tree.accepted
    assert rejected == sorted(tree.rejected, key=str)

    # accepted + rejected = files ∪ rows, counted from the disk rather than from what the tree expects
    counts = Counter([*accepted, *(file for file, _, _ in rejected)])
    files = tree.on_disk()
    assert files <= counts.keys()
    assert len(lines) == len(pd.read_csv(faces.folder / "rejected.csv"))
    if tree.rows is None:
        assert counts == Counter(files), "each file once"
        return
    of_rows = [row for _, row, _ in rejected if row is not None]
    assert len(set(of_rows)) == len(of_rows)
    assert len(accepted) + len(of_rows) == tree.rows, "each row once"
    without_row = {file for file, row, _ in rejected if row is None}
    assert without_row <= files
    assert files - without_row == {*accepted} | {file for file, row, _ in rejected if row is not None} & files
    assert sum(counts.values()) == tree.rows + len(without_row)

    card = (faces.folder / "data.md").read_text()
    assert ("names no identities" in card) == (not tree.identities)


@pytest.mark.parametrize(
    ("dataset", "note"),
    [
        ("morph", "In 1 rows the gender is not the one in the file's name; the row's is taken."),
        ("celeba", "1 pictures stand in no row of list_eval_partition.txt: each goes with its person's others"),
    ],
)
def test_labels_that_contradict_or_lack_are_counted_on_the_data_card(note, dataset, tree):
    notes = READERS[dataset](settings_for(dataset, tree.data_root)).notes
    assert any(note in each for each in notes), notes


@pytest.mark.parametrize(
    ("header", "people"),
    [
        ("identity,gender", {"1": "male", "3": "female"}),
        ("name,gender", {"Aaron Johnson": "male", "Zoë Kravitz": "female"}),
    ],
)
def test_cacds_genders_may_be_told_by_number_or_name_and_a_broken_row_spoils_no_other(tmp_path, drawn, header, people):
    tree = TREES["cacd"](tmp_path / "raw", drawn)
    told = tmp_path / "genders.csv"
    lines = [header, *(f"{key},{gender}" for key, gender in people.items()), "50 Cent,male,extra"]
    told.write_text("\n".join(lines))
    reading = READERS["cacd"](settings_for("cacd", tree.data_root, genders=told))
    known = reading.table.dropna(subset="gender").groupby("identity")["gender"].agg(set)
    assert known.to_dict() == {"Aaron_Johnson": {"male"}, "Zoë_Kravitz": {"female"}}
    assert any("2 people. 1 of its rows have another number of fields" in note for note in reading.notes)


def test_a_csv_of_genders_that_changed_after_it_was_prepared_is_told(tmp_path, drawn, monkeypatch):
    tree = TREES["cacd"](tmp_path / "raw", drawn)
    told = tmp_path / "genders.csv"
    told.write_text("name,gender\nAaron Johnson,male\nZoë Kravitz,female\n")
    monkeypatch.chdir(tmp_path)
    wanted = settings_for("cacd", tree.data_root, genders="genders.csv")
    made = prepare(wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told.touch()  # saved again as it was
        assert prepare(wanted).table.equals(made.table)

    told.write_text(told.read_text().replace("Johnson,male", "Johnson,female"))
    with pytest.warns(UserWarning, match=rf"genders = {told} has changed since .*faces was made from it .*another run"):
        assert prepare(wanted).table.equals(made.table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told.unlink()
        prepare(wanted)


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


@pytest.mark.parametrize("column", ["sex", "file", "years", "subject", "picture"])
def test_a_morph_csv_may_have_columns_of_its_own(tmp_path, drawn, column):
    drawn.save(tmp_path / "raw" / "Album2" / "009055_1M54.JPG")
    (tmp_path / "raw" / "mine.csv").write_text(f"photo,{column},age\nAlbum2/009055_1M54.JPG,x,54\n")
    table = READERS["morph"](settings_for("morph", tmp_path / "raw")).table
    assert table[["identity", "gender"]].to_numpy().tolist() == [["009055", "male"]]


def test_pictures_that_are_not_celebas_are_refused(tmp_path, drawn):
    drawn.save(tmp_path / "docs" / "screenshot.png")
    with pytest.raises(ParameterError, match=r"neither img_align_celeba nor a table.*dataset = 'folder'"):
        READERS["celeba"](settings_for("celeba", tmp_path / "docs"))


def test_a_row_whose_path_is_absolute_is_told_what_to_write_instead(tmp_path: Path):
    """Even below the data folder: what another machine calls its folders means nothing here."""
    listing = Listing(tmp_path, ["0.png", "1.png"], {}, 0)
    told = [str(tmp_path / "0.png"), "../1.png", "1.png", "C:\\faces\\0.png", "~/0.png"]
    rows, left = join(pd.DataFrame({"file": told, "reason": ""}), listing, "faces.csv")
    absolute, outside, right, drive, home = rows["reason"]
    assert absolute == drive == home != outside
    assert absolute.endswith("write it from the table's folder on")
    assert right == ""
    assert [line.file for line in left] == ["0.png"]
