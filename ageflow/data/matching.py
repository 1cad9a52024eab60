"""Which row of a data set's table belongs to which file.

The path in a row only ever looks a file up in the `Listing`. It is never opened, so it cannot lead anywhere else.
A row and the file it names are one thing, so each row and each file ends as one face or as one line of rejected.csv.
"""

import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence

import pandas as pd

from ageflow.data.files import Listing, is_picture
from ageflow.data.records import Rejection


def any_case(path: str) -> str:
    """A key under which paths agree that differ in case or in the composition of their letters."""
    return unicodedata.normalize("NFC", path).casefold()


def base_name(path: str) -> str:
    """`any_case` of the file's name, whatever its folder."""
    return any_case(posixpath.basename(path))


def join(
    rows: pd.DataFrame, listing: Listing, table: str, keys: Sequence[Callable[[str], str]] = (any_case,)
) -> tuple[pd.DataFrame, list[Rejection]]:
    """Bring rows and files together by name.

    Arguments:
        rows: columns `file` (the path as it stands in the table) and `reason` (why the row is wrong; "" where not).
        listing: the files.
        table: what the table is called, for the reasons.
        keys: under which a row that names no file exactly may find one, in this order; a key that two files share
            finds none.

    Returns:
        The rows, index from 0, `file` as in the listing where it was found and `reason` filled in where not; and a
        line for every file that no row names.
    """
    rows = rows.reset_index(drop=True)
    written = rows["file"].fillna("").astype(str).tolist()
    paths, problems = zip(*map(_path, written), strict=True) if written else ((), ())
    sought = pd.Series(paths, dtype=object)
    known = pd.Series([*listing.files, *listing.refused], dtype=object)
    found = pd.Series(None, index=sought.index, dtype=object)
    for key in (str, *keys):
        by_key = known.set_axis(known.map(key))
        by_key = by_key[~by_key.index.duplicated(keep=False)]
        found = found.where(found.notna(), sought.map(key).map(by_key))
    found = found.where(sought != "", None).tolist()  # "" in place of a path that is none or not allowed
    reasons = [
        reason
        or problem
        or ("the row's file is not there" if path and pd.isna(file) else listing.refused.get(file, ""))
        for reason, problem, path, file in zip(rows["reason"], problems, paths, found, strict=True)
    ]
    files = [path if pd.isna(file) else file for path, file in zip(written, found, strict=True)]
    matched = rows.assign(file=pd.Series(files, dtype=object), reason=pd.Series(reasons, dtype=object))
    return matched, _rejections(listing, set(files), f"no row of {table} names the file")


def named(listing: Listing, pattern: re.Pattern[str], form: str) -> tuple[pd.DataFrame, list[Rejection]]:
    """The rows of a set without a table: the files whose names follow a pattern.

    Arguments:
        listing: the files.
        pattern: of a whole file name; its named groups become columns.
        form: the pattern in words, for the reasons.

    Returns:
        Columns `file`, `reason` ("") and the groups; and a line for every other file.
    """
    files = [file for file in listing.files if pattern.fullmatch(posixpath.basename(file))]
    table = name_parts(pd.DataFrame({"file": files, "reason": ""}, dtype=object), pattern)
    return table, _rejections(listing, set(files), f"the file's name is not {form}")


def name_parts(table: pd.DataFrame, pattern: re.Pattern[str]) -> pd.DataFrame:
    """A table with the named groups of `pattern` as further columns, None where a file's name does not follow it."""
    matches = [pattern.fullmatch(posixpath.basename(file)) for file in table["file"]]
    parts = {group: [match and match[group] for match in matches] for group in pattern.groupindex}
    return table.assign(**{group: pd.Series(values, dtype=object) for group, values in parts.items()})


def _path(written: str) -> tuple[str, str]:
    """A row's path in the form of a `Listing`; or "" and what is wrong with it.

    Example:
        >>> _path("./Album2\\\\009055_1M54.JPG"), _path("Album2/../../secret.jpg")
        (('Album2/009055_1M54.JPG', ''), ('', 'the path leads out of the data folder'))
    """
    path = written.strip().replace("\\", "/")
    if re.match(r"[/~]|[A-Za-z]:", path):
        reason = "the path is absolute, and so leads out of the data folder: write it from the table's folder on"
        return "", reason
    path = posixpath.normpath(path) if path else ""
    if path == ".." or path.startswith("../"):
        return "", "the path leads out of the data folder"
    return path, ""


def _rejections(listing: Listing, used: set[str], reason: str) -> list[Rejection]:
    """A line for every file that is not used: why it was refused, or `reason`."""
    left = [Rejection(file, None, why) for file, why in listing.refused.items() if file not in used]
    for file in listing.files:
        if file not in used:
            why = reason if is_picture(file) else "not a picture, by the ending of its name"
            left.append(Rejection(file, None, why))
    return left
