"""MORPH-II, Album 2 (a paid licence; https://uncw.edu/myuncw/research/innovation-commercialization/technology-portfolio/morph).

::

    MORPH/morph_2008_nonCommercial.csv     or MORPH_Album2_comp.csv: id_num, picture_num, dob, doa, race, gender,
                                           facial_hair, age, age_diff, glasses, photo
    MORPH/Album2/009055_1M54.JPG           subject, picture, sex, age

The rows are the set's labels; `photo` is relative and begins with ``Album2/``. The file's name fills what a row leaves
open. Without a CSV the names tell everything but the race; with one, a file that no row names is turned away.
"""

import os
import re
from pathlib import Path

import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.files import find_file, list_files, picture_folder
from ageflow.data.matching import any_case, base_name, join, named
from ageflow.data.records import COLUMNS, Reading
from ageflow.data.tables import genders, lines, missing, read_table

NAME = re.compile(r"(?P<subject>\d{6})_(?P<picture>\d{1,2})(?P<sex>[MF])(?P<years>\d{2})\.jpe?g", re.IGNORECASE)
CSV_NAMES = ("morph_2008_noncommercial.csv", "morph_album2_comp.csv")  # in lower case
_CSV_COLUMNS = ("photo", "id_num", "picture_num", "race", "gender", "age", "dob", "doa")
_FORM = "subject_picture, sex and age, as in 009055_1M54.JPG"
_EXPECTED = "the folder Album2 (009055_1M54.JPG …) and morph_2008_nonCommercial.csv or MORPH_Album2_comp.csv beside it"


def read(settings: PrepareData) -> Reading:
    """The table of MORPH-II.

    Arguments:
        settings: `data_root`: the folder of Album2, the one above it, or Album2 itself.

    Raises:
        ParameterError: Album2 is not there, or the CSV has no column `photo`.
    """
    pictures = picture_folder(settings, ("album2",), _EXPECTED)
    root = pictures if pictures == settings.data_root else pictures.parent
    places = [pictures.parent, pictures, settings.data_root]
    path = find_file(CSV_NAMES, places) or _other_csv(root)
    listing = list_files(pictures, root, settings.data_root, [path])
    notes = listing.notes
    if path is None:
        table, left = named(listing, NAME, _FORM)
        table = table.assign(id_num="", age="", gender="", race="")
        notes.append("There is no CSV: subject, sex and age are what the files' names say, and no race is known.")
    else:
        csv = read_table(path, ("photo",), _CSV_COLUMNS, file_column="photo")
        rows = csv.rows[[column for column in csv.rows if column in (*_CSV_COLUMNS, "photo", "reason")]]
        table, left = join(rows.rename(columns={"photo": "file"}), listing, path.name, (any_case, base_name))
        table = table.join(table["file"].map(os.path.basename).str.extract(f"^{NAME.pattern}$", flags=re.IGNORECASE))
        notes += [f"Labels are those of {path.name}.", *csv.notes]
    for column in ("id_num", "age", "gender", "race"):
        table[column] = missing(table[column]) if column in table else None
    sound = table["reason"] == ""

    subject = table["id_num"].map(_subject, na_action="ignore")
    other = sound & subject.notna() & table["subject"].notna() & (subject != table["subject"])
    table.loc[other, "reason"] = "the row's id_num is not the subject that the file's name tells"
    # "n/a" is told as the age of a row that says so; only an empty field leaves the age to the name.
    told = table["age"] if path is None or "age" not in csv.rows else csv.rows["age"].fillna("")
    age = told.where(told.notna() & (told != ""), table["years"])
    sex = genders(table["gender"])
    years = pd.to_numeric(table["years"], errors="coerce")
    differing = int((sound & years.notna() & (pd.to_numeric(age, errors="coerce") != years)).sum())
    if differing:
        notes.append(f"In {differing:,} rows the age is not the one in the file's name; the row's is taken.")
    named_sex = genders(table["sex"])
    differing = int((sound & sex.notna() & named_sex.notna() & (sex != named_sex)).sum())
    if differing:
        notes.append(f"In {differing:,} rows the gender is not the one in the file's name; the row's is taken.")
    records = pd.DataFrame(
        {
            "file": table["file"],
            "identity": subject.where(subject.notna(), table["subject"]),
            "age": age,
            "gender": sex.where(sex.notna(), named_sex),
            "race": table["race"].map(lambda race: race.strip().upper(), na_action="ignore"),
            "source": "morph",
            "reason": table["reason"],
        },
        columns=[*COLUMNS, "reason"],
    )
    return Reading(records, root, left, notes=notes)


def _subject(number: str) -> str:
    """Six digits, though a spreadsheet took the leading zeros away or made a decimal number of it."""
    match = re.fullmatch(r"(\d+)(\.0+)?", number.strip())
    return match[1].zfill(6) if match else number.strip()


def _other_csv(folder: Path) -> Path | None:
    """A CSV of another name that has a column `photo`."""
    for path in sorted(folder.glob("*.[cC][sS][vV]")):
        try:
            header = lines(path)[0][:1]
        except ParameterError:
            continue
        if header and "photo" in re.split(r"[,;\t|\s\"]+", header[0].casefold()):
            return path
    return None
