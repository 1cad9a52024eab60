"""Tables as people keep them: CSV with a byte order mark, with other delimiters, in other encodings, with broken rows.

A table is a row a line. A quotation mark that is never closed therefore spoils its own row and no other, which no CSV
parser does: each line is parsed by itself.
"""

import contextlib
import csv
import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ageflow.config import ParameterError
from ageflow.data.files import Listing, is_picture

_DELIMITERS = (",", ";", "\t", "|", " ")
_NOTHING = frozenset(("", "na", "n/a", "nan", "none", "null", "unknown", "?", "-"))
_GENDERS = {"m": "male", "male": "male", "man": "male", "f": "female", "female": "female", "woman": "female"}
_AS_WRITTEN = ("file", "age", "reason")  # an age of "n/a" is a row's error; "unknown.jpg" is a file


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


def read_table(
    path: Path, columns: Mapping[str, str], required: Sequence[str], text: list[str] | None = None
) -> pd.DataFrame:
    """Read a table of any usual delimiter and encoding.

    Arguments:
        path: the file.
        columns: our name of a column by its name in the table (lower case); others are left out. The delimiter is the
            one that finds most of them.
        required: of these, what the table must have.
        text: its lines, the header first, where they are not simply the file's.

    Returns:
        The rows, text by our names of the columns. None where the table lacks a column or says that nothing is known
        ("", "n/a" …); `file` and `age` stay as they are written, ``gender`` is as of `genders`. A column `reason` says
        why a row is broken, else "": such a row has a `file` only, the field that looks most like one.

    Raises:
        ParameterError: it cannot be read, or a required column is missing.
    """
    text = lines(path) if text is None else text
    if text and re.fullmatch(r'"?sep=."?', text[0].strip()):  # Excel's note to itself
        text = text[1:]
    headers = {sign: [name.casefold() for name in _fields(text[0], sign)] for sign in _DELIMITERS if text}
    delimiter = max(headers, key=lambda sign: (len({*headers[sign]} & {*columns}), len(headers[sign])), default=",")
    header = headers.get(delimiter, [])
    if lacking := [name for name in required if name not in header]:
        raise ParameterError(
            f"{path} has no column {', '.join(lacking)}: its first line should name {', '.join(columns)} "
            f"({', '.join(required)} at least), and it names {', '.join(filter(None, header)) or 'nothing'}"
        )
    rows = []
    for line in text[1:]:
        fields = _fields(line, delimiter)
        if not any(fields):
            continue  # a spreadsheet's empty line
        while len(fields) > len(header) and not fields[-1]:
            fields.pop()
        if len(fields) == len(header):
            # Reversed, as the first of two columns of one name counts.
            rows.append({columns.get(name): value for name, value in zip(header[::-1], fields[::-1], strict=True)})
        else:
            reason = f"the row of {path.name} has {len(fields)} fields, and the header {len(header)}"
            rows.append({"file": next(filter(is_picture, fields), line[:200]), "reason": reason})
    frame = pd.DataFrame(rows, columns=[*columns.values(), "reason"], dtype=object).replace("", None)
    for column in frame.columns.difference(_AS_WRITTEN):
        frame[column] = (genders if column == "gender" else missing)(frame[column])
    return frame.where(frame.notna(), None).fillna({"reason": ""})


def read_tables(listing: Listing, columns: Mapping[str, str], required: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The rows of every table in a folder that has the required columns, as of `read_table`; `file` from that folder on."""
    tables = {}
    for table in listing.tables:
        with contextlib.suppress(ParameterError):
            rows = read_table(listing.root / table, columns, required)
            from_root = partial(posixpath.join, posixpath.dirname(table))
            tables[table] = rows.assign(file=rows["file"].map(from_root, na_action="ignore"))
    return tables


def missing(values: pd.Series) -> pd.Series:
    """Text with None where it says that nothing is known ("", "n/a", "unknown" …)."""
    known = values.notna() & ~values.astype(str).str.casefold().isin(_NOTHING)
    return values.astype(object).where(known, None)


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
