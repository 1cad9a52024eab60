"""A folder of a user's own: pictures, in subfolders or not, and a CSV.

::

    mine/faces.csv         file,identity,age,gender,race     the first line; the columns in any order and case
    mine/images/a.jpg      images/a.jpg,anna,34,female,

`file` is relative to the CSV's folder and stays in it. `age` is in years. `identity` (any text), `gender` (male,
female, m, f) and `race` (any text) may be empty or left out. Delimiters ``, ; tab |``; UTF-8 with or without a mark,
UTF-16, cp1252. Several CSVs are read one after the other, by name; one without the columns `file` and `age` is passed
over. A picture that no row names is rejected.
"""

import posixpath

from ageflow.config import ParameterError, PrepareData
from ageflow.data.files import list_data
from ageflow.data.matching import join
from ageflow.data.records import Reading
from ageflow.data.tables import has_columns, read_tables

_COLUMNS = {name: name for name in ("file", "identity", "age", "gender", "race")}
_EXAMPLE = "a CSV with the columns file,identity,age,gender,race (file and age at least; file relative to the CSV)"


def read(settings: PrepareData) -> Reading:
    """The table of a user's own folder.

    Arguments:
        settings: `data_root`: the folder of the CSV, or one above it.

    Raises:
        ParameterError: there is no CSV, or none that names files and ages.
    """
    everything = list_data(settings, f"pictures and {_EXAMPLE}")
    folders = {posixpath.dirname(table) for table in everything.tables}
    uppermost = [folder for folder in folders if _depth(folder) == min(map(_depth, folders))]
    if len(uppermost) != 1:
        advice = f"{', '.join(sorted(uppermost))} have one; name one of them" if folders else f"write one: {_EXAMPLE}"
        raise ParameterError(f"no CSV is found in data_root = {everything.root}: {advice}")
    csvs = [table for table in everything.tables if posixpath.dirname(table) == uppermost[0]]
    used = [csv for csv in csvs if has_columns(everything.root / csv, "file", "age")] or csvs
    rows, names, notes = read_tables([everything.root / csv for csv in used], _COLUMNS, ("file", "age"))
    notes += [f"{csv} was passed over: it lacks a column file or age." for csv in csvs if csv not in used]
    listing = everything.below(uppermost[0], csvs)
    table, left = join(rows, listing, names)
    some = table["identity"].notna().any()
    nameless = int((table["identity"].isna() & (table["reason"] == "")).sum())
    if some and nameless:
        notes.append(f"{nameless:,} rows name no identity: each counts as a person of its own.")
    return Reading.of(listing, table, left, notes, "folder", identities=bool(some))


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0
