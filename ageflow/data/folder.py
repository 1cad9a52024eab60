"""A folder of a user's own: pictures, in subfolders or not, and a CSV.

::

    mine/faces.csv         file,identity,age,gender,race     the first line; the columns in any order and case
    mine/images/a.jpg      images/a.jpg,anna,34,female,

`file` is relative to the CSV's folder and stays in it. `age` is in years. `identity` (any text), `gender` (male,
female, m, f) and `race` (any text) may be empty or left out. Delimiters ``, ; tab |``; UTF-8 with or without a mark,
UTF-16, cp1252. Several CSVs are read one after the other, by name; one without the columns `file` and `age` is passed
over. A picture that no row names is turned away.
"""

from pathlib import Path

import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.files import data_folder, list_files
from ageflow.data.matching import join
from ageflow.data.records import COLUMNS, Reading
from ageflow.data.tables import Table, genders, missing, read_table

_CSV_COLUMNS = ("file", "identity", "age", "gender", "race")
_ENDINGS = (".csv", ".tsv")
_EXAMPLE = "a CSV with the columns file,identity,age,gender,race (file and age at least; file relative to the CSV)"


def read(settings: PrepareData) -> Reading:
    """The table of a user's own folder.

    Arguments:
        settings: `data_root`: the folder of the CSV, or the one above it.

    Raises:
        ParameterError: there is no CSV, or none that names files and ages.
    """
    expected = f"pictures and {_EXAMPLE}"
    root = data_folder(settings, expected)
    csvs = _csvs(root)
    if not csvs:
        below = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _csvs(folder)]
        if len(below) != 1 or not below[0].resolve().is_relative_to(root):
            told = f"{len(below)} of its folders have one; name one of them" if below else f"write one: {_EXAMPLE}"
            raise ParameterError(f"no CSV is found in data_root = {root}: {told}")
        root = below[0]
        csvs = _csvs(root)
    tables, notes = _tables(csvs)
    listing = list_files(root, root, settings.data_root, csvs)
    notes += [*listing.notes, *(note for table in tables for note in table.notes)]
    rows = pd.concat([table.rows for table in tables], ignore_index=True)
    for column in _CSV_COLUMNS:
        rows[column] = rows[column].astype(object) if column in rows else None
    table, left = join(rows, listing, " and ".join(table.path.name for table in tables))

    identity = missing(table["identity"])
    nameless = int((identity.isna() & (table["reason"] == "")).sum())
    if identity.notna().any() and nameless:
        notes.append(f"{nameless:,} rows name no identity: each counts as a person of its own.")
    records = table.assign(
        identity=identity, gender=genders(table["gender"]), race=missing(table["race"]), source="folder"
    )
    return Reading(records[[*COLUMNS, "reason"]], root, left, notes=notes, identities=bool(identity.notna().any()))


def _csvs(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.suffix.casefold() in _ENDINGS and path.name[0] != "."]
    except OSError:
        return []
    return sorted(path for path in found if path.is_file())


def _tables(paths: list[Path]) -> tuple[list[Table], list[str]]:
    """The tables that name files and ages, and notes on the others."""
    tables, problems = [], []
    for path in paths:
        try:
            tables.append(read_table(path, ("file", "age"), _CSV_COLUMNS))
        except ParameterError as error:
            problems.append(error)
    if not tables:
        raise problems[0]
    names = [table.path.name for table in tables]
    notes = [f"The rows are those of {', then '.join(names)}."] if len(names) > 1 else []
    return tables, notes + [f"Passed over: {error}." for error in problems]
