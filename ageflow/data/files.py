"""What lies in a data set's folder: pictures, tables, and which row belongs to which file.

Rules that hold for every data set:

* `data_root` is listed once, with its subfolders; a file is opened only when its face is aligned.
* Every file counts as one of the set, whatever its ending, except what an operating system leaves behind: names that
  begin with a dot (``.DS_Store``, ``._photo.jpg``), ``Thumbs.db``, ``desktop.ini``, and the folder ``__MACOSX``.
* A link to a folder outside `data_root` (another disk) is that folder, once. A link to a file counts where it leads to one
  inside the data folder. One that leads out, to nothing, to itself or to a folder inside is refused, and so is whatever
  is no ordinary file (a pipe would never end).
* Tables come with a byte order mark, with other delimiters, in other encodings, with broken rows. A row is a line: a
  quotation mark that is never closed spoils its own row and no other, which no CSV parser does.
* The path in a row only ever looks a file up in the `Listing`. It is never opened, so it cannot lead anywhere else.
* A row and the file it names are one thing, so each row and each file ends as one face or as one line of rejected.csv.
"""

import contextlib
import csv
import itertools
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.columns import filled, needed
from ageflow.data.pictures import ENDINGS, any_ending, opens
from ageflow.data.records import Rejection
from ageflow.run import files_state

_LITTER = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"))
# In lower case: what folders of pictures and of tables are called, and how tables end.
_PICTURES = ("images", "image", "img", "imgs", "pictures", "photos", "faces")
_BESIDE = frozenset(("csv", "index", "anno", "eval", "labels", "tables", "metadata"))
_CSVS = (".csv", ".tsv")
UNREAD = "if it is the table, save it as CSV: no other is read"
_TABLES = (*_CSVS, ".txt", ".mat")
_DELIMITERS = (",", ";", "\t", "|", " ")
_NOTHING = frozenset(("", "na", "n/a", "nan", "none", "null", "unknown", "?", "-"))
_GENDERS = {"u": None} | dict.fromkeys(("m", "male", "man", "boy"), "male")
_GENDERS |= dict.fromkeys(("f", "female", "woman", "girl"), "female")
_NO_FILE = "it is, or links to, no ordinary file inside the data folder: of a link, name the folder above both"
_OF_PICTURES = ("", *ENDINGS)  # a picture's name may have no ending
_AS_WRITTEN = ("file", "age", "reason")  # an age of "n/a" is a row's error; "unknown.jpg" is a file


# -- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """The files of a folder and its subfolders.

    Arguments:
        root: folder that the paths are relative to.
        files: ordinary files, relative paths with slashes, sorted.
        refused: links and other things that are not read, and why.
    """

    root: Path
    files: list[str]
    refused: dict[str, str]

    @property
    def tables(self) -> list[str]:
        """The CSV and TSV files, those of the uppermost folder first."""
        tables = [file for file in self.files if file.casefold().endswith(_CSVS)]
        return sorted(tables, key=lambda file: file.count("/"))

    def find(self, *names: str) -> list[str]:
        """The files of the first of these names (lower case; on disk in any), those of the uppermost folders."""
        found = [(posixpath.basename(file).casefold(), file) for file in self.files]
        ranked = sorted((names.index(name), file.count("/"), file) for name, file in found if name in names)
        return [file for *rank, file in ranked if rank == [*ranked[0][:2]]]

    def below(self, folder: str, without: Collection[str] = ()) -> "Listing":
        """What lies in one of the folders ("" for all), `without` some of the files."""
        start = f"{folder}/" if folder else ""
        files = [file.removeprefix(start) for file in self.files if file.startswith(start) and file not in without]
        refused = {file.removeprefix(start): why for file, why in self.refused.items() if file.startswith(start)}
        return Listing(self.root / folder, files, refused)


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does."""
    return name.casefold().endswith(ENDINGS)


def _ending(name: str) -> str:
    """The ending of a file's name, in lower case; "" where it has none."""
    return posixpath.splitext(name)[1].casefold()


def find_pictures(
    settings: PrepareData, names: Sequence[str], expected: str, labelled: Callable[[Listing], Any] | None = None
) -> tuple[Listing, str]:
    """Everything in `data_root` but the runs, and the pictures' folder: the uppermost of a known name, else "", all of it.

    Where `data_root` holds none of the set's tables, those beside it count too.

    Arguments:
        settings: notebook 01's.
        names: what the folder is called in the set's own layout, in lower case; the first are preferred.
        expected: what should be in `data_root`, for the message.
        labelled: the set's tables in a listing; None: the set has none.

    Raises:
        ParameterError: `data_root` is not given, cannot be read or holds no pictures.
    """
    root = settings.data_root
    everything = Listing(Path(), [], {}) if root is None else list_files(root, settings.runs_root)
    holding = {posixpath.dirname(file) for file in everything.files if is_picture(file)}
    bare = [file for file in everything.files if not _ending(file)]
    if not holding and any(opens(everything.root / file) for file in bare):
        holding = set(map(posixpath.dirname, bare))
    above = {place for folder in holding for place in PurePosixPath(folder, "picture").parents}
    known = [(len(at.parts), names.index(at.name.casefold()), str(at)) for at in above if at.name.casefold() in names]
    if not holding:
        endings = Counter(map(_ending, everything.files)).most_common(3)
        others = f" but files ending in {', '.join(map(repr, dict(endings)))}" if endings else ""
        refused = [f", and of {file}: {why}" for file, why in everything.refused.items()][:1]
        empty = everything.refused.get("", f"it holds no pictures{others}{''.join(refused)}")
        problem = "is not given" if root is None else f"= {root}: {empty}"
        do = f"for dataset = {settings.dataset!r} pass the folder that holds {expected}"
        raise ParameterError(f"data_root {problem}; {do}")
    own = everything.root.name.casefold() in (*names, *_PICTURES)
    pictures = min(known)[-1] if known and not (own and "" in holding) else ""
    elsewhere = labelled and (pictures or own) and not labelled(everything)
    return _with_tables_beside(everything, pictures) if elsewhere else (everything, pictures)


def _with_tables_beside(listing: Listing, pictures: str) -> tuple[Listing, str]:
    """A listing and its folder of pictures, with the tables that lie beside the listing's folder, or in one of tables there."""
    above, name = listing.root.parent, listing.root.name
    places = [above, *(place for place in above.glob("*/") if place.name.casefold() in _BESIDE - {name.casefold()})]
    found = (path for place in places for path in place.glob("[!.]*.*") if path.name.casefold().endswith(_TABLES))
    beside = [path.relative_to(above).as_posix() for path in found if path.is_file()]
    if not beside:
        return listing, pictures
    refused = {f"{name}/{file}": why for file, why in listing.refused.items()}
    inside = [f"{name}/{file}" for file in listing.files]
    return Listing(above, sorted([*beside, *inside]), refused), posixpath.join(name, pictures).rstrip("/")


def list_files(root: Path, without: Path | None = None) -> Listing:
    """Everything in a folder and its subfolders, but `without` one of these (where the runs are)."""
    files: list[str] = []
    refused: dict[str, str] = {}
    waiting, disks = [(str(root), "")], [root.resolve()]  # `disks`: where its files may lie
    while waiting:
        path, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            refused[prefix.rstrip("/")] = f"the folder cannot be read: {error.strerror}"
            continue
        for entry in entries:
            name, folder = f"{prefix}{entry.name}", entry.is_dir(follow_symlinks=False)
            target = Path(os.path.realpath(entry.path)) if entry.is_symlink() or folder else Path(entry.path)
            if entry.name.startswith(".") or entry.name.casefold() in _LITTER or target == without:
                continue
            shown = os.fsencode(name).decode("utf-8", "backslashreplace")
            elsewhere = not any(target.is_relative_to(disk) or disk.is_relative_to(target) for disk in disks)
            if shown != name:
                refused[shown] = "the file's name is not UTF-8: rename it"
            elif folder or (elsewhere and target.is_dir()):
                waiting.append((entry.path, f"{name}/"))
                disks += [target] if elsewhere else []
            elif target.is_file() and (not entry.is_symlink() or any(target.is_relative_to(disk) for disk in disks)):
                files.append(name)
            else:
                refused[name] = _NO_FILE
    return Listing(root, sorted(files), refused)


def raw_state(root: Path, without: Path) -> str:
    """The number and state of the files of a raw data set, as the manifest of its faces has it; arguments as `list_files`."""
    files = list_files(root, without).files
    return f"{len(files):,} files, {files_state(root, files)[:16]}"


# -- tables ----------------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank: encoded as the byte order mark says, else UTF-8, and at last cp1252.

    Raises:
        ParameterError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")  # five bytes have no meaning in it
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}") from None
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def read_table(path: Path, columns: dict[str, str], required: Sequence[str], text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of any usual delimiter and encoding.

    Arguments:
        path: the file.
        columns: by our name of a column, its name in the table (lower case), or text as of `columns.filled`; others are
            left out. The delimiter is the one that finds most of them.
        required: of ours, what the table must have.
        text: its lines, the header first, where they are not simply the file's.

    Returns:
        The rows, text by our names of the columns. None where the table lacks a column or says that nothing is known
        ("", "n/a" …); `file` and `age` stay as they are written, ``gender`` is as of `genders`. A column `reason` says
        why a row is broken, else "": such a row has a `file` only, the field that looks most like one.

    Raises:
        ParameterError: it cannot be read, or a required column is missing, or one of ours is there more than once.
    """
    text = text or lines(path)
    if text and re.fullmatch(r'"?sep=."?', text[0].strip()):  # Excel's note to itself
        text = text[1:]
    headers = {sign: [name.casefold() for name in _fields(text[0], sign)] for sign in _DELIMITERS if text}
    parts = {ours: needed(source) for ours, source in columns.items()}
    known = {*itertools.chain(*parts.values())}
    delimiter = max(headers, key=lambda sign: (len({*headers[sign]} & known), len(headers[sign])), default=",")
    header = headers.get(delimiter, [])
    there = [ours for ours in columns if {*parts[ours]} <= {*header}]
    if lacking := [name for ours in required for name in parts[ours] if name not in header]:
        has = f"it has {', '.join(header)[:300]}" if header else "it is empty"
        raise ParameterError(f"{path} has no column {', '.join(dict.fromkeys(lacking))} in its first line: {has}")
    if twice := [name for name in header if name in known and header.count(name) > 1]:
        raise ParameterError(f"{path} has several columns {twice[0]}: rename those that are not meant")
    rows = []
    for line in text[1:]:
        fields = _fields(line, delimiter)
        if not any(fields):
            continue  # a spreadsheet's empty line
        while len(fields) > len(header) and not fields[-1]:
            fields.pop()
        if len(fields) == len(header):
            row = dict(zip(header, fields, strict=True))
            rows.append({ours: filled(columns[ours], row) for ours in there})
        else:
            reason = f"the row of {path.name} has {len(fields)} fields, and the header {len(header)}"
            rows.append({"file": next(filter(is_picture, fields), line[:200]), "reason": reason})
    frame = pd.DataFrame(rows, columns=[*columns, "reason"], dtype=object).replace("", None)
    for column in frame.columns.difference(_AS_WRITTEN):
        frame[column] = (genders if column == "gender" else missing)(frame[column])
    return frame.where(frame.notna(), None).fillna({"reason": ""})


def read_tables(
    listing: Listing, columns: dict[str, str], required: Sequence[str], names: Sequence[str] | None = None
) -> dict[str, pd.DataFrame]:
    """The rows of every table in a folder, or of the `names`, that has the required columns; `file` from that folder on."""
    tables = {}
    for table in listing.tables if names is None else names:
        with contextlib.suppress(ParameterError):
            rows = read_table(listing.root / table, columns, required)
            from_root = partial(posixpath.join, posixpath.dirname(table))
            tables[table] = rows.assign(file=rows["file"].map(from_root, na_action="ignore"), written=rows["file"])
    return tables


def missing(values: pd.Series) -> pd.Series:
    """Text with None where it says that nothing is known ("", "n/a", "unknown" …)."""
    return values.astype(object).where(values.notna() & ~values.astype(str).str.casefold().isin(_NOTHING), None)


def genders(values: pd.Series) -> pd.Series:
    """``male`` and ``female`` of M, F, Male, woman …; None where nothing is known; anything else stays as it is.

    Example:
        >>> genders(pd.Series(["M", "female", "n/a", "x"], dtype=object)).tolist()
        ['male', 'female', None, 'x']
    """
    named = [_GENDERS.get(str(value).casefold(), value) for value in missing(values)]
    return pd.Series(named, index=values.index, dtype=object)  # `Series.map` would make NaN of None


def row_or_name(table: pd.DataFrame, column: str, named: str, notes: list[str]) -> pd.Series:
    """A label as the row has it, or else as the file's name does; where the two differ, a note says how often.

    Arguments:
        table: the rows.
        column: the row's label.
        named: the column of the same label by the file's name.
        notes: for the data card; added to.
    """
    row, name = table[column], table[named]
    same = (row == name) | (pd.to_numeric(row, errors="coerce") == pd.to_numeric(name, errors="coerce"))
    differing = int((row.notna() & name.notna() & ~same & (table["reason"] == "")).sum())
    if differing:
        notes.append(f"In {differing:,} rows the {column} is not the one in the file's name; the row's is taken.")
    return row.where(row.notna(), name)


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a field of over 128 KiB: no table
        return [line]


# -- rows ------------------------------------------------------------------------------------------------------------


def any_case(path: str) -> str:
    """A key under which paths agree that differ in case or in the composition of their letters."""
    return unicodedata.normalize("NFC", path).casefold()


def base_name(path: str) -> str:
    """`any_case` of the file's name, whatever its folder."""
    return any_case(posixpath.basename(path))


def stem(path: str) -> str:
    """`base_name` without a picture's ending."""
    return any_ending(base_name(path))


def join(
    rows: pd.DataFrame,
    listing: Listing,
    table: str,
    notes: list[str],
    keys: Sequence[Callable[[str], str]] = (any_case,),
) -> tuple[pd.DataFrame, list[Rejection]]:
    """Bring rows and files together by name.

    Arguments:
        rows: columns `file` (the path from the listing's folder on) and `reason` (why the row is wrong; "" where not); and
            `written`, the path as it stands in the table, where that is another.
        listing: the files.
        table: what the table is called, for the reasons.
        notes: for the data card; added to.
        keys: under which a row that names no file exactly may find one, in this order; a key that two files share
            finds none. Who still has none may find one by `_nearest`.

    Returns:
        The rows, index from 0, `file` as in the listing where it was found and `reason` filled in where not; and a
        line for every file that no row names.
    """
    rows = rows.reset_index(drop=True)
    written = rows["file"].fillna("").astype(str)
    path = written.str.strip().str.replace("\\", "/")
    root = f"{listing.root.as_posix().rstrip('/')}/"  # a path may climb out of it and come back
    full = path.map(partial(posixpath.join, root)).map(posixpath.normpath)
    outside = ~full.str.startswith(root) & (full != root[:-1])
    absolute = path.str.match(r"~|[A-Za-z]:") | (path.str.startswith("/") & outside)
    path = full.str.removeprefix(root).mask(absolute | outside | (full == root[:-1]), "")

    known = pd.Series([*listing.files, *listing.refused], dtype=object)
    found = pd.Series(None, index=rows.index, dtype=object)
    for key in (str, *keys):
        by_key = known.set_axis(known.map(key))
        by_key = by_key[~by_key.index.duplicated(keep=False)]
        found = found.where(found.notna(), path.map(key).map(by_key)).where(path != "", None)
    asked = rows.get("written", path).where(found.isna() & (path != ""), None).dropna()
    asked = asked.str.strip().str.replace("\\", "/").map(posixpath.normpath).map(any_case)
    left = known[known.map(_ending).isin(_OF_PICTURES) & ~known.isin(set(found.dropna()))]
    left = left.set_axis(left.map(any_case))
    near, unsure = _nearest(asked, left[~left.index.duplicated(keep=False)])
    found = found.where(found.notna(), near)
    of_row, of_file = (names.fillna("").map(_ending) for names in (path, found))
    if other := int((found.notna() & ((of_row != of_file) | rows.index.isin(near.index))).sum()):
        notes.append(f"{other:,} rows name their picture without its folder or by another ending: the rest told which.")
    meant = "the row's file is not there, and which is meant is not known: " + unsure.reindex(rows.index, fill_value="")
    cases = [
        (rows["reason"] != "", rows["reason"]),
        (absolute, "the path is absolute, and so leads out of the data folder: write it from the table's folder on"),
        (outside, "the path leads out of the data folder"),
        (rows.index.isin(unsure.index), meant),
        ((path != "") & found.isna(), "the row's file is not there"),
        (found.isin(list(listing.refused)), found.map(listing.refused)),
    ]
    files = found.where(found.notna(), written)
    rows = rows.assign(file=files, reason=rows["reason"].case_when(cases))
    return rows, _left(listing, files, f"no row of {table} names the file")


def _nearest(rows: pd.Series, files: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Rows and files that agree but for an ending, or for folders that one of the two has before the rest.

    Arguments:
        rows: paths of the rows that have found no file, as a key: slashes, one case.
        files: the files that no row has found yet, index: by the same key.

    Returns:
        The file of each row where one row and one file can only mean each other, else None; and the files that a row
        could mean where it is not so, as text, else "".
    """
    by_stem = defaultdict(list)
    for key in files.index:
        by_stem[stem(key)].append(key)
    meant = {}
    for row, path in rows.items():
        near = [key for key in by_stem[stem(path)] if _same_tail(any_ending(path), any_ending(key))]
        meant[row] = [key for key in near if base_name(key) == base_name(path)] or near
    claims = pd.Series([key for keys in meant.values() for key in keys], dtype=object).value_counts()
    sure = {row: keys[0] for row, keys in meant.items() if len(keys) == 1 and claims[keys[0]] == 1}
    unsure = {row: ", ".join(files[keys[:3]]) for row, keys in meant.items() if row not in sure and keys}
    return pd.Series(sure, dtype=object).map(files), pd.Series(unsure, dtype=object)


def _same_tail(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def named(listing: Listing, pattern: str, form: str) -> tuple[pd.DataFrame, list[Rejection]]:
    """The rows of a set without a table: the files whose names follow a pattern.

    Arguments:
        listing: the files.
        pattern: see `name_parts`.
        form: the pattern in words, for the reasons.

    Returns:
        Columns `file`, `reason` ("") and the groups; and a line for every other file.
    """
    files = pd.Series(listing.files, dtype=object)
    parts = name_parts(files, pattern)
    table = parts.assign(file=files, reason="")[parts.notna().any(axis=1)].reset_index(drop=True)
    alike = table["file"].map(any_case).map(any_ending).duplicated(keep=False)
    table.loc[alike, "reason"] = "several pictures are named alike but for their endings: keep the one that is meant"
    return table, _left(listing, table["file"], f"the file's name is not {form}")


def name_parts(files: pd.Series, pattern: str) -> pd.DataFrame:
    """The named groups of `pattern`, which is of a whole file name in any case; nothing where a name does not follow it."""
    return files.map(posixpath.basename).str.extract(rf"\A(?:{pattern})\Z", flags=re.IGNORECASE).astype(object)


def _left(listing: Listing, used: pd.Series, reason: str) -> list[Rejection]:
    """A line for every file that is not used: why it was refused, or `reason`."""
    heic = "a HEIC picture, which Pillow cannot read: convert it to JPEG"
    reasons = dict.fromkeys(_OF_PICTURES, reason) | dict.fromkeys((".heic", ".heif"), heic)
    reasons |= dict.fromkeys((".xlsx", ".xls", ".ods", ".parquet", ".json", ".gz"), UNREAD)
    other = "not a picture, by the ending of its name"
    unused = {file: reasons.get(_ending(file), other) for file in listing.files}
    taken = set(used)
    return [Rejection(file, None, why) for file, why in (listing.refused | unused).items() if file not in taken]
