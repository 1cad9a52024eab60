"""Tables as people keep them: CSV with a byte order mark, with other delimiters, in other encodings, with broken rows.

A table is a row a line. A quotation mark that is never closed therefore spoils its own row and no other.
"""

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ageflow.config import ParameterError
from ageflow.data.files import ENDINGS

_DELIMITERS = (",", ";", "\t", "|")
_NOTHING = frozenset(("", "na", "n/a", "nan", "none", "null", "unknown", "?", "-"))
_GENDERS = {"m": "male", "male": "male", "man": "male", "f": "female", "female": "female", "woman": "female"}


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Arguments:
        path: its file.
        rows: text, a column a field of the header (in lower case), and `reason`: why a row is broken, else "". Of a
            broken row only the file column is filled, with what looks most like a file.
        encoding: how it was decoded.
    """

    path: Path
    rows: pd.DataFrame
    encoding: str

    @property
    def notes(self) -> list[str]:
        """A sentence for the data card where the encoding was a guess."""
        if self.encoding != "cp1252":
            return []
        return [f"{self.path.name} is not UTF-8; it was read as {self.encoding}."]


def decoded(content: bytes) -> tuple[str, str]:
    """The text of a file and its encoding: as the byte order mark says, else UTF-8, UTF-16, and at last cp1252.

    Example:
        >>> decoded("Zoë".encode("cp1252")), decoded("Zoë".encode("utf-16"))
        (('Zoë', 'cp1252'), ('Zoë', 'utf-16'))
    """
    tried = ["utf-8-sig", "cp1252"]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        tried.insert(0, "utf-16")
    elif 0 in content[:2]:  # without a mark, a header in ASCII has a zero in every other byte
        tried.insert(0, "utf-16-be" if content[0] == 0 else "utf-16-le")
    for encoding in tried:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return content.decode("cp1252", "replace"), "cp1252"  # five bytes have no meaning in it


def lines(path: Path) -> tuple[list[str], str]:
    """The lines of a text file that are not blank, whatever ends them, and its encoding.

    Raises:
        ParameterError: it cannot be read.
    """
    try:
        text, encoding = decoded(path.read_bytes())
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}") from None
    return [line for line in io.StringIO(text, newline=None).read().split("\n") if line.strip()], encoding


def read_table(path: Path, required: Sequence[str], known: Collection[str], file_column: str = "file") -> Table:
    """Read a CSV of any usual delimiter and encoding.

    Arguments:
        path: the file.
        required: columns it must have.
        known: these and all others that mean something; the delimiter is the one that finds most of them.
        file_column: where a broken row's file goes.

    Raises:
        ParameterError: it cannot be read, or a required column is missing.
    """
    told, encoding = lines(path)
    if told and re.fullmatch(r'"?sep=."?', told[0].strip()):  # Excel's note to itself
        told = told[1:]
    header, delimiter = [""], ","
    for candidate in _DELIMITERS if told else ():
        names = [name.strip().casefold() for name in _fields(told[0], candidate)]
        if (len(set(names) & set(known)), len(names)) > (len(set(header) & set(known)), len(header)):
            header, delimiter = names, candidate
    lacking = [name for name in required if name not in header]
    if lacking:
        raise ParameterError(
            f"{path} has no column {', '.join(lacking)}: its first line should name {', '.join(known)} "
            f"({', '.join(required)} at least), and it names {', '.join(filter(None, header)) or 'nothing'}"
        )
    rows, broken = [], []
    for line in told[1:]:
        fields = [field.strip() for field in _fields(line, delimiter)]
        if not any(fields):
            continue  # a spreadsheet's empty line
        while len(fields) > len(header) and not fields[-1]:
            fields.pop()
        if len(fields) == len(header):
            rows.append([*fields, ""])
            continue
        guess = next((field for field in fields if Path(field).suffix.casefold() in ENDINGS), line[:200])
        broken.append((len(rows), guess))
        count = f"the row has {len(fields)} fields, and the header {len(header)}"
        rows.append([*([""] * len(header)), count])
    frame = pd.DataFrame(rows, columns=[*header, "reason"], dtype=object)
    frame = frame.loc[:, ~frame.columns.duplicated() & (frame.columns != "")]
    for place, guess in broken:
        frame.loc[place, file_column] = guess
    return Table(path, frame, encoding)


def missing(values: pd.Series) -> pd.Series:
    """Text with None where it says that nothing is known ("", "n/a", "unknown" …)."""
    return values.astype(object).where(values.notna() & ~values.astype(str).str.casefold().isin(_NOTHING), None)


def genders(values: pd.Series) -> pd.Series:
    """``male`` and ``female`` of M, F, Male, woman …; None where nothing is known; anything else stays as it is.

    Example:
        >>> genders(pd.Series(["M", "female", "n/a", "x"], dtype=object)).tolist()
        ['male', 'female', None, 'x']
    """
    told = missing(values)
    named = [None if value is None else _GENDERS.get(value.strip().casefold(), value) for value in told]
    return pd.Series(named, index=values.index, dtype=object)  # `Series.map` would make NaN of None


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])
