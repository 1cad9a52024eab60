"""CACD2000: 163,446 pictures of 2,000 celebrities, 14 to 62 years (https://bcsiriuschen.github.io/CARC/).

::

    CACD/celebrity2000_meta.mat               celebrityImageData: name (of the file), age, identity, year, rank;
                                              celebrityData: name, identity, birth
    CACD/CACD2000/14_Aaron_Johnson_0001.jpg   age, name, number

Names hold dots, apostrophes, hyphens and digits, so only the first and the last part of a file's name are taken off.
Those that are not ASCII come as UTF-8, decomposed (NFD), or decoded with the wrong table (``Zo毛`` for ``Zoë``): rows and
files are joined under the name as it stands, then composed (NFC), then repaired; never by their order. Without the
.mat, age and identity are those in the files' names.

The set has no genders: they come from the user's CSV (`genders`), or else a classifier votes (`votes.py`).
"""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.files import find_pictures
from ageflow.data.matching import any_case, base_name, join, name_parts, named
from ageflow.data.records import GENDERS, Reading
from ageflow.data.tables import read_table, row_or_name
from ageflow.data.votes import vote

_NAME = re.compile(r"(?P<years>-?\d+)_(?P<person>.+)_\d{4}\.jpe?g", re.IGNORECASE)
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
    name = unicodedata.normalize("NFC", name)
    for wrong in () if name.isascii() else ("gb18030", "cp1252", "latin-1", "cp437"):
        try:
            return unicodedata.normalize("NFC", name.encode(wrong).decode("utf-8"))
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
    everything, pictures = find_pictures(settings, ("cacd2000", "cacd"), _EXPECTED)
    meta = everything.find(_META)
    listing = everything.below(pictures, [meta])
    notes: list[str] = []
    if meta is None:
        table, left = named(listing, _NAME, _FORM)
        table = table.assign(age=None, number=None, identity=None)
        notes.append(f"There is no {_META}: age and identity are those in the files' names.")
    else:
        table, left = join(
            _meta(everything.root / meta), listing, _META, (base_name, lambda path: any_case(repaired(path)))
        )
        table = name_parts(table, _NAME)
    table["age"] = row_or_name(table, "age", "years", notes)
    # One spelling a person: the .mat's by number, else the file's own.
    spelt = table["person"].map(lambda name: repaired(name).replace(" ", "_"), na_action="ignore")
    table["identity"] = table["identity"].where(table["identity"].notna(), spelt)
    nobody = table["identity"].isna() & (table["reason"] == "")
    table.loc[nobody, "reason"] = f"no row says who it is, and the file's name is not {_FORM}"
    sound = table["reason"] == ""
    if settings.genders is not None:
        table["gender"], note = _genders(settings.genders, table)
    else:
        by_person, note = vote(settings, listing, table.loc[sound, "file"], table.loc[sound, "identity"])
        table["gender"] = table["identity"].map(by_person)
    unknown = table.loc[sound & table["gender"].isna(), "identity"].nunique()
    notes += [note, *([f"The gender of {unknown:,} identities is not known."] if unknown else [])]
    return Reading.of(listing, table, left, notes, "cacd")


def _meta(path: Path) -> pd.DataFrame:
    """The rows of the .mat: file, age, the identity's number and name, reason ("")."""
    from scipy.io import loadmat  # slow to import

    try:
        content = loadmat(path, simplify_cells=True)
        images = _struct(content["celebrityImageData"], ["name", "age", "identity"])
        if images["name"].isna().any():
            raise ValueError("celebrityImageData has no field name")
        people = _struct(content.get("celebrityData", {}), ["identity", "name"])
    except NotImplementedError:
        raise ParameterError(f"{path} is of MATLAB 7.3, which is not read: save it with -v7") from None
    except Exception as error:  # whatever scipy meets in a damaged file, and other content than CACD's
        raise ParameterError(f"{path} cannot be read as CACD's own {_META}: {error!r}") from None
    images = images.rename(columns={"name": "file", "identity": "number"})
    spelt = people["name"].map(lambda name: re.sub(r"\s+", "_", repaired(name)))
    names = dict(zip(people["identity"], spelt, strict=True))
    return images.assign(identity=images["number"].map(names), reason="").astype(object)


def _struct(struct: dict | list, fields: list[str]) -> pd.DataFrame:
    """Fields of a MATLAB struct of lists, or of a list of structs, as text (7.0 as "7"); None for one that it lacks."""
    columns = struct if isinstance(struct, dict) else pd.DataFrame(list(struct))
    texts = {
        field: [f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value).strip() for value in values]
        for field, values in ((field, np.atleast_1d(columns[field])) for field in fields if field in columns)
    }
    return pd.DataFrame(texts, dtype=object).reindex(columns=fields)


def _genders(path: Path, table: pd.DataFrame) -> tuple[pd.Series, str]:
    """Each row's gender by the user's CSV, under the person's name or number, and a sentence for the data card."""
    if not path.is_file():
        raise ParameterError(f"genders = {path} is not there: it should be {_GENDERS_CSV}; None lets a classifier vote")
    columns = {name: name for name in ("name", "identity", "gender")}
    rows, _ = read_table(path, columns, ("gender",))
    broken = int((rows["reason"] != "").sum())
    rows["key"] = rows["name"].where(rows["name"].notna(), rows["identity"]).map(name_key, na_action="ignore")
    rows = rows[rows["gender"].isin(GENDERS)].dropna(subset="key").drop_duplicates(["key", "gender"])
    contradicting = sorted(rows.loc[rows["key"].duplicated(), "key"])
    if contradicting:
        raise ParameterError(f"genders = {path} says male and female of {', '.join(contradicting[:3])}: let it say one")
    by_key = dict(zip(rows["key"], rows["gender"], strict=True))
    gender = table["identity"].map(name_key, na_action="ignore").map(by_key)
    gender = gender.where(gender.notna(), table["number"].map(by_key))
    if gender.isna().all():
        raise ParameterError(f"genders = {path} names nobody of this set: it should be {_GENDERS_CSV}")
    note = f"Genders are those of the user's {path.name}, {len(by_key):,} people."
    left_out = f" {broken:,} of its rows have another number of fields than its header and are not used."
    return gender, note + (left_out if broken else "")
