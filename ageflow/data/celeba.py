"""CelebA: 202,599 pictures of 10,177 people (https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), as torchvision lays it.

::

    celeba/img_align_celeba/000001.jpg
    celeba/list_attr_celeba.txt       a count, a header of 40 attributes, then a file and 40 times 1 or -1
    celeba/identity_CelebA.txt        a file and a number, no header
    celeba/list_eval_partition.txt    a file and 0 (training), 1 (validation) or 2 (test), no header
    celeba/list_landmarks_align_celeba.txt    not read: MTCNN's points align every set in the same way

Fields stand any number of spaces apart. The tables may lie in Anno/ and Eval/ as in the original, and ``.csv`` takes the
place of ``.txt`` as on Kaggle. They are read line by line and may be subsets, unlike torchvision's, which checks MD5s
of the whole; a count that is not right does no harm. A picture's row is what all the tables say of it.

`Young` is a yes or no, so the ages are not known: the set is for GLOW's pre-training, and its test half for testing
models of other sets. The halves are the set's own partition (validation counts as test).
"""

import re
from pathlib import Path

import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.files import find_file, list_files, picture_folder
from ageflow.data.matching import base_name, join, named
from ageflow.data.records import COLUMNS, Reading
from ageflow.data.tables import lines

NAME = re.compile(r".+\.(jpe?g|png)", re.IGNORECASE)
_EXPECTED = (
    "the folder img_align_celeba (000001.jpg …) and, beside it, list_attr_celeba.txt, identity_CelebA.txt and "
    "list_eval_partition.txt"
)
_GENDERS = {"1": "male", "-1": "female"}
_HALVES = {"0": "train", "1": "test", "2": "test"}


def read(settings: PrepareData) -> Reading:
    """The table of CelebA.

    Arguments:
        settings: `data_root`: the folder of img_align_celeba, one above it, or img_align_celeba itself.

    Raises:
        ParameterError: the pictures are not there, or a table is not what it should be.
    """
    pictures = picture_folder(settings, ("img_align_celeba",), _EXPECTED)
    places = [pictures.parent, pictures, settings.data_root, pictures.parent.parent]
    places = [place / folder for place in places for folder in (".", "Anno", "Eval")]
    paths = {
        column: find_file((f"{name}.txt", f"{name}.csv"), places)
        for column, name in (
            ("gender", "list_attr_celeba"),
            ("identity", "identity_celeba"),
            ("split", "list_eval_partition"),
        )
    }
    if pictures.name.casefold() != "img_align_celeba" and not any(paths.values()):
        raise ParameterError(
            f"data_root = {settings.data_root} holds pictures, but neither img_align_celeba nor a table of CelebA's: for "
            f"dataset = 'celeba' it should be the folder that holds {_EXPECTED}. Pictures of your own are dataset = 'folder'"
        )
    listing = list_files(pictures, pictures, settings.data_root, paths.values())
    read_by = {"gender": _attributes, "identity": _pairs, "split": _pairs}
    tables = {column: read_by[column](path) for column, path in paths.items() if path is not None}
    notes = [
        "Ages are not known (Young is a yes or no): the set serves to pre-train GLOW and as a test set of models "
        "trained on other sets, and takes no part in anything that needs age groups.",
        *(f"{path.name} was read." for path in paths.values() if path is not None),
        *listing.notes,
    ]
    if tables:
        rows = _merged(tables)
        table, left = join(rows, listing, " or ".join(paths[column].name for column in tables), (base_name,))
    else:
        table, left = named(listing, NAME, "a picture's")
        notes.append("There are no tables: neither gender nor identity nor partition is known.")
    for column in ("gender", "identity", "split"):
        table[column] = table[column].astype(object) if column in table else None
    _translate(table, "gender", _GENDERS, "Male is neither 1 nor -1")
    _translate(table, "split", _HALVES, "the partition is none of 0, 1 and 2")
    nameless = int((table["identity"].isna() & (table["reason"] == "")).sum())
    if "identity" in tables and nameless:
        notes.append(f"{nameless:,} pictures have no identity: each counts as a person of its own.")
    columns = [*COLUMNS, "reason"]
    if "split" in tables:
        columns.append("split")
        notes.append("The halves are the set's partition: its training part; and validation and test together.")
        without = int((table["split"].isna() & (table["reason"] == "")).sum())
        if without:
            notes.append(
                f"{without:,} pictures stand in no row of {paths['split'].name}: each goes with its person's others, or else "
                "to the test half."
            )
    records = table.assign(age=None, race=None, source="celeba")[columns]
    return Reading(records, pictures, left, notes=notes, identities="identity" in tables, ages=False)


def _attributes(path: Path) -> pd.DataFrame:
    """File, the value of Male, and what is wrong with the row."""
    told = _split_lines(path)
    if told and len(told[0]) == 1 and told[0][0].isdigit():  # the count, which a subset may have kept from the whole
        told = told[1:]
    header = [name for name in told[0] if name != "image_id"] if told else []
    if "Male" not in header:
        raise ParameterError(
            f"{path} names no attribute Male in its header but {' '.join(header[:5]) or 'nothing'} …: it should be "
            "CelebA's list_attr_celeba (a count, a header, and a row a picture)"
        )
    place = header.index("Male") + 1
    whole = len(header) + 1
    return pd.DataFrame(
        [
            (fields[0], fields[place], "")
            if len(fields) == whole
            else (fields[0], None, f"the row of {path.name} has {len(fields)} fields, not {whole}")
            for fields in told[1:]
        ],
        columns=["file", "value", "reason"],
        dtype=object,
    )


def _pairs(path: Path) -> pd.DataFrame:
    """File, value, and what is wrong with the row, of a table of two columns; one row a file."""
    told = _split_lines(path)
    if told and told[0][0] == "image_id":
        told = told[1:]
    rows: dict[str, tuple[str | None, str]] = {}
    for fields in told:
        file, *values = fields
        value, reason = values[0] if values else None, ""
        if len(values) != 1:
            value, reason = None, f"the row of {path.name} has {len(fields)} fields, not 2"
        elif rows.get(file, (value,))[0] != value:
            reason = f"two rows of {path.name} contradict each other"
        rows[file] = (value, reason or rows.get(file, (None, ""))[1])
    return pd.DataFrame([(file, *row) for file, row in rows.items()], columns=["file", "value", "reason"], dtype=object)


def _split_lines(path: Path) -> list[list[str]]:
    return [re.split(r"[,\s]+", line.strip()) for line in lines(path)[0]]


def _merged(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a row of the first table, then one for every picture that only a later table names."""
    columns = list(tables)
    rows = tables[columns[0]].rename(columns={"value": columns[0]})
    for column in columns[1:]:
        other = tables[column].set_index("file")
        new = other.index[~other.index.isin(rows["file"])]
        rows = pd.concat([rows, pd.DataFrame({"file": new, "reason": ""}, dtype=object)], ignore_index=True)
        rows[column] = rows["file"].map(other["value"])
        rows["reason"] = rows["reason"].where(rows["reason"] != "", rows["file"].map(other["reason"]).fillna(""))
    return rows


def _translate(table: pd.DataFrame, column: str, values: dict[str, str], problem: str) -> None:
    """Replace a table's codes by words, and note the rows whose code means nothing."""
    told = table[column]
    wrong = told.notna() & ~told.isin(list(values)) & (table["reason"] == "")
    table.loc[wrong, "reason"] = problem
    table[column] = told.map(values, na_action="ignore").astype(object)
