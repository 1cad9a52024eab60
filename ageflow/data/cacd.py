"""CACD2000: 163,446 pictures of 2,000 celebrities, 14 to 62 years (https://bcsiriuschen.github.io/CARC/).

::

    CACD/celebrity2000_meta.mat               celebrityImageData: name (of the file), age, identity, year, rank;
                                              celebrityData: name, identity, birth
    CACD/CACD2000/14_Aaron_Johnson_0001.jpg   age, name, number

Names hold dots, apostrophes, hyphens and digits, so only the first and the last part of a file's name are taken off.
Those that are not ASCII come as UTF-8, decomposed (NFD), or decoded with the wrong table (``Zo毛`` for ``Zoë``): rows and
files are joined under the name as it stands, then composed (NFC), then repaired; never by their order. Without the
.mat, the names alone tell age and identity.

Gender is not told: it comes from the user's CSV (`genders`), or else a classifier votes (`votes.py`).
"""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.files import find_file, list_files, picture_folder
from ageflow.data.matching import any_case, base_name, join, named
from ageflow.data.records import COLUMNS, GENDERS, Reading
from ageflow.data.tables import genders, missing, read_table
from ageflow.data.votes import vote

NAME = re.compile(r"(?P<years>-?\d+)_(?P<person>.+)_(?P<number>\d{4})\.jpe?g", re.IGNORECASE)
_META = "celebrity2000_meta.mat"
_FORM = "age_name_number, as in 14_Aaron_Johnson_0001.jpg"
_EXPECTED = f"the folder CACD2000 (14_Aaron_Johnson_0001.jpg …) and {_META} beside it"
_GENDERS_CSV = "a CSV with the columns name,gender (Aaron Johnson,male) or identity,gender (the number in the .mat)"


def repaired(name: str) -> str:
    """A name whose UTF-8 was decoded as GBK (or Latin-1, or a zip program's cp437), decoded rightly and composed.

    Example:
        >>> repaired("Zo毛_Kravitz"), repaired("ZoÃ«_Kravitz"), repaired("Zoë_Kravitz"), repaired("王菲")
        ('Zoë_Kravitz', 'Zoë_Kravitz', 'Zoë_Kravitz', '王菲')
    """
    name = _nfc(name)
    for wrong in () if name.isascii() else ("gb18030", "cp1252", "latin-1", "cp437"):
        try:
            return _nfc(name.encode(wrong).decode("utf-8"))
        except UnicodeError:
            continue
    return name


def name_key(name: str) -> str:
    """What two spellings of a person's name have in common.

    Example:
        >>> name_key("Zo毛_Kravitz") == name_key("zoë  kravitz")
        True
    """
    return re.sub(r"[\s_]+", " ", any_case(repaired(name))).strip()


def read(settings: PrepareData) -> Reading:
    """The table of CACD.

    Arguments:
        settings: `data_root`: the folder of CACD2000, the one above it, or CACD2000 itself; `genders`: a CSV.

    Raises:
        ParameterError: the pictures are not there, the .mat cannot be read, or the CSV of genders cannot be used.
        ModuleNotFoundError: there is no CSV of genders, and the classifier's package is not installed.
    """
    pictures = picture_folder(settings, ("cacd2000", "cacd"), _EXPECTED)
    meta = find_file((_META,), [pictures.parent, pictures, settings.data_root])
    listing = list_files(pictures, pictures, settings.data_root, [meta])
    notes = listing.notes
    people: dict[str, str] = {}
    if meta is None:
        table, left = named(listing, NAME, _FORM)
        table = table.assign(age=table["years"], identity=None)
        notes.append(f"There is no {_META}: age and identity are what the files' names say.")
    else:
        rows, people = _meta(meta)
        table, left = join(rows, listing, meta.name, (base_name, lambda path: any_case(repaired(path))))
        parts = table["file"].map(lambda path: Path(path).name).str.extract(f"^{NAME.pattern}$", flags=re.IGNORECASE)
        table = table.join(parts)
        age = pd.to_numeric(table["age"], errors="coerce")
        differing = int((age != pd.to_numeric(table["years"])).where(table["years"].notna(), False).sum())
        if differing:
            notes.append(f"In {differing:,} rows the age is not the one in the file's name; the row's is taken.")

    # One spelling a person: the .mat's by number, else the file's own.
    spelt = table["person"].map(lambda name: repaired(name).replace(" ", "_"), na_action="ignore")
    person = table["identity"].map(people, na_action="ignore").astype(object)
    identity = person.where(person.notna(), spelt)
    nobody = identity.isna() & (table["reason"] == "")
    table.loc[nobody, "reason"] = f"no row says who it is, and the file's name is not {_FORM}"
    sound = table["reason"] == ""
    if settings.genders is not None:
        gender, told = _told_genders(settings.genders, identity, table["identity"], meta)
    else:
        by_person, told = vote(settings, listing, table.loc[sound, "file"], identity[sound])
        gender = identity.map(by_person)
    unknown = identity[sound & missing(gender).isna()].nunique()
    notes += [told, *([f"The gender of {unknown:,} identities is not known."] if unknown else [])]
    records = pd.DataFrame(
        {
            "file": table["file"],
            "identity": identity,
            "age": table["age"],
            "gender": gender,
            "race": None,
            "source": "cacd",
            "reason": table["reason"],
        },
        columns=[*COLUMNS, "reason"],
    )
    return Reading(records, pictures, left, notes=notes)


def _meta(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows of the .mat (file, age, identity, reason), and each identity number's name."""
    from scipy.io import loadmat  # slow to import

    try:
        content = loadmat(path)
    except NotImplementedError:
        raise ParameterError(f"{path} is of MATLAB 7.3, which is not read: save it with -v7") from None
    except Exception as error:  # whatever scipy meets in a damaged file
        raise ParameterError(f"{path} cannot be read as a MATLAB file: {error}") from None
    images = _fields(content, "celebrityImageData", path)
    if "name" not in images:
        raise ParameterError(f"{path}: celebrityImageData has no field name, only {', '.join(images)}")
    count = len(images["name"])
    unequal = [field for field in ("age", "identity") if field in images and len(images[field]) != count]
    if unequal:
        raise ParameterError(f"{path}: celebrityImageData has {count} names, and another number of {unequal}")
    nothing = [None] * count
    rows = pd.DataFrame({"file": [str(name).strip() for name in images["name"]]}, dtype=object)
    rows["age"] = [_plain(value) for value in images.get("age", nothing)]
    rows["identity"] = [_plain(value) for value in images.get("identity", nothing)]
    if "age" not in images:
        rows["age"] = rows["file"].str.extract(r"([^/\\]*)_\d{4}\.", expand=False).str.split("_").str[0]
    people = _fields(content, "celebrityData", path) if "celebrityData" in content else {}
    names = {
        _plain(number): re.sub(r"\s+", "_", repaired(str(name).strip()))
        for number, name in zip(people.get("identity", []), people.get("name", []), strict=False)
    }
    return rows.assign(reason=""), names


def _fields(content: dict, struct: str, path: Path) -> dict[str, list]:
    """The fields of a MATLAB struct of lists, or of a list of structs, by name."""
    data = content.get(struct)
    if data is None or data.dtype.names is None:
        known = ", ".join(name for name in content if not name.startswith("__"))
        raise ParameterError(f"{path} has no struct {struct}, only {known}: it should be CACD's own {_META}")
    records = data.ravel()
    if len(records) == 1:
        columns = {field: np.ravel(records[0][field]) for field in data.dtype.names}
    else:
        columns = {field: [record[field] for record in records] for field in data.dtype.names}
    # A cell holds an array of one value, or of one text.
    return {field: [_single(value) for value in values] for field, values in columns.items()}


def _single(value: object) -> object:
    flat = np.ravel(value)
    return flat[0] if flat.size else ""


def _plain(value: object) -> str | None:
    """A number as text, 7.0 as "7"."""
    return None if value is None else f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def _told_genders(path: Path, identity: pd.Series, number: pd.Series, meta: Path | None) -> tuple[pd.Series, str]:
    """Each row's gender by the user's CSV, and a sentence for the data card."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ParameterError(f"genders = {path} is not there: it should be {_GENDERS_CSV}; None lets a classifier vote")
    table = read_table(path, ("gender",), ("name", "identity", "gender"), file_column="name").rows
    broken = int((table["reason"] != "").sum())
    table = table[table["reason"] == ""]
    by_name = "name" in table and table["name"].fillna("").ne("").any()
    if not by_name and "identity" not in table:
        raise ParameterError(f"genders = {path} has neither a column name nor identity: it should be {_GENDERS_CSV}")
    keys = table["name" if by_name else "identity"]
    by_number = not by_name and bool(keys.str.fullmatch(r"\d+").all())
    if by_number and meta is None:
        raise ParameterError(
            f"genders = {path} goes by the identities' numbers, which only {_META} tells: put it there"
        )
    told = pd.DataFrame({"key": keys if by_number else keys.map(name_key), "gender": genders(table["gender"])})
    told = told[told["gender"].isin(GENDERS)].drop_duplicates()
    twice = sorted(told.loc[told["key"].duplicated(), "key"])
    if twice:
        raise ParameterError(f"genders = {path} says male and female of {', '.join(twice[:3])}: let it say one")
    gender = (number if by_number else identity.map(name_key, na_action="ignore")).map(
        dict(zip(told["key"], told["gender"], strict=True)), na_action="ignore"
    )
    left_out = f" {broken:,} of its rows have another number of fields than its header, and count for nothing."
    sentence = f"Genders are those of the user's {path.name}, {len(told):,} people."
    return gender.astype(object), sentence + (left_out if broken else "")


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
