"""Which row of a data set's table belongs to which file.

The path in a row only ever looks a file up in the `Listing`. It is never opened, so it cannot lead anywhere else.
A row and the file it names are one thing, so each row and each file ends as one face or as one line of rejected.csv.
"""

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from ageflow.data.files import ENDINGS, Listing
from ageflow.data.records import Rejection

_MISSING = "the row's file is not there"
_OUTSIDE = "the path leads out of the data folder"
_ABSOLUTE = "the path is absolute, and so leads out of the data folder: write it from the table's folder on"
_NO_PICTURE = "no picture, as the ending of its name tells"


def safe_path(path: str) -> str | None:
    """A row's path in the form of a `Listing`; None where it leads out of the data folder.

    Example:
        >>> safe_path("./Album2\\\\009055_1M54.JPG"), safe_path("Album2/../../secret.jpg"), safe_path("/etc/secret.jpg")
        ('Album2/009055_1M54.JPG', None, None)
    """
    path = path.strip().replace("\\", "/")
    if is_absolute(path):
        return None
    path = posixpath.normpath(path) if path else ""
    return None if path == ".." or path.startswith("../") else path


def is_absolute(path: str) -> bool:
    """Whether a row's path begins at a root, a drive or somebody's home."""
    return re.match(r"[/~]|[A-Za-z]:", path.strip().replace("\\", "/")) is not None


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
    known = {file: file for file in (*listing.files, *listing.refused)}
    tables: list[dict[str, str]] | None = None
    files, reasons = rows["file"].fillna("").astype(str).tolist(), rows["reason"].fillna("").tolist()
    claimed = set()
    for place, told in enumerate(files):
        path = safe_path(told)
        if path is None:
            reasons[place] = reasons[place] or (_ABSOLUTE if is_absolute(told) else _OUTSIDE)
            continue
        found = known.get(path) if path else None
        if found is None and path:
            tables = tables if tables is not None else [_unique(known, key) for key in keys]
            found = next(
                (paths[key(path)] for key, paths in zip(keys, tables, strict=True) if key(path) in paths), None
            )
        if found is not None:
            files[place] = found
            claimed.add(found)
            reasons[place] = reasons[place] or listing.refused.get(found, "")
        elif path:
            reasons[place] = reasons[place] or _MISSING
    left = [Rejection(file, None, reason) for file, reason in listing.refused.items() if file not in claimed]
    for file in listing.files:
        if file not in claimed:
            picture = posixpath.splitext(file)[1].casefold() in ENDINGS
            left.append(Rejection(file, None, f"no row of {table} names the file" if picture else _NO_PICTURE))
    return rows.assign(file=pd.Series(files, dtype=object), reason=pd.Series(reasons, dtype=object)), left


def named(
    listing: Listing, pattern: re.Pattern[str], form: str, key: Callable[[str], str] = str
) -> tuple[pd.DataFrame, list[Rejection]]:
    """The table of a set without one: what the files' own names say.

    Arguments:
        listing: the files.
        pattern: of a whole file name; its named groups become columns.
        form: the pattern in words, for the reasons.
        key: applied to a name before it is matched.

    Returns:
        Column `file`, `reason` ("") and the groups; and a line for every other file.
    """
    rows, left = [], [Rejection(file, None, reason) for file, reason in listing.refused.items()]
    for file in listing.files:
        match = pattern.fullmatch(key(posixpath.basename(file)))
        if match:
            rows.append({"file": file, "reason": ""} | match.groupdict())
        elif posixpath.splitext(file)[1].casefold() in ENDINGS:
            left.append(Rejection(file, None, f"the file's name is not {form}"))
        else:
            left.append(Rejection(file, None, _NO_PICTURE))
    return pd.DataFrame(rows, columns=["file", "reason", *pattern.groupindex], dtype=object), left


def _unique(known: Iterable[str], key: Callable[[str], str]) -> dict[str, str]:
    paths = {file: key(file) for file in known}
    counts = Counter(paths.values())
    return {path: file for file, path in paths.items() if counts[path] == 1}
