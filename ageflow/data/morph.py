"""MORPH-II, Album 2 (a paid licence; https://uncw.edu/myuncw/research/innovation-commercialization/technology-portfolio/morph).

::

    MORPH/morph_2008_nonCommercial.csv     or MORPH_Album2_comp.csv: id_num, picture_num, dob, doa, race, gender,
                                           facial_hair, age, age_diff, glasses, photo
    MORPH/Album2/009055_1M54.JPG           subject, picture, sex, age

The rows are the set's labels; `photo` is relative and begins with ``Album2/``. The file's name fills what a row leaves
open. Without such a CSV, all those with a column `photo` are read; without any, the names give everything but the race.
With a CSV, a file that no row names is rejected.
"""

import re

from ageflow.config import PrepareData
from ageflow.data.files import find_pictures
from ageflow.data.matching import any_case, base_name, join, name_parts, named
from ageflow.data.records import Reading
from ageflow.data.tables import genders, has_columns, read_tables, row_or_name

_NAME = re.compile(r"(?P<subject>\d{6})_\d{1,2}(?P<sex>[MF])(?P<years>\d{2})\.jpe?g", re.IGNORECASE)
_CSV_NAMES = ("morph_2008_noncommercial.csv", "morph_album2_comp.csv")  # in lower case
_COLUMNS = {"photo": "file", "id_num": "identity", "age": "age", "gender": "gender", "race": "race"}
_EXPECTED = "the folder Album2 (009055_1M54.JPG …) and morph_2008_nonCommercial.csv or MORPH_Album2_comp.csv beside it"


def read(settings: PrepareData) -> Reading:
    """The table of MORPH-II.

    Arguments:
        settings: `data_root`: the folder of Album2, the one above it, or Album2 itself.

    Raises:
        ParameterError: Album2 is not there, or the CSV has no column `photo`.
    """
    everything, pictures = find_pictures(settings, ("album2",), _EXPECTED)
    official = everything.find(*_CSV_NAMES)
    csvs = [official] if official else [csv for csv in everything.tables if has_columns(everything.root / csv, "photo")]
    listing = everything.below(pictures, csvs)
    if csvs:
        rows, names, notes = read_tables([everything.root / csv for csv in csvs], _COLUMNS, ("photo",))
        table, left = join(rows, listing, names, (any_case, base_name))
        table = name_parts(table, _NAME)
    else:
        table, left = named(listing, _NAME, "subject_picture, sex and age, as in 009055_1M54.JPG")
        table = table.assign(identity=None, age=None, gender=None, race=None)
        notes = ["There is no CSV: subject, sex and age are those in the files' names, and no race is known."]
    table["identity"] = table["identity"].map(_subject, na_action="ignore")
    other = table["identity"].notna() & table["subject"].notna() & (table["identity"] != table["subject"])
    table.loc[other & (table["reason"] == ""), "reason"] = "the row's id_num is not the subject in the file's name"
    table["sex"] = genders(table["sex"])
    for column, part in (("identity", "subject"), ("age", "years"), ("gender", "sex")):
        table[column] = row_or_name(table, column, part, notes)
    table["race"] = table["race"].str.upper()
    return Reading.of(listing, table, left, notes, "morph")


def _subject(number: str) -> str:
    """Six digits, though a spreadsheet took the leading zeros away or made a decimal number of it."""
    return re.sub(r"\.0+$", "", number).zfill(6)
