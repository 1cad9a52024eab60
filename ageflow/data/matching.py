"""The file that a row means where no file is called exactly as the row says: a folder or an ending more or less."""

import posixpath
from collections import defaultdict

import pandas as pd

from ageflow.data.pictures import ENDINGS


def any_ending(path: str) -> str:
    """The path without a picture's ending: data sets are converted from one format to another.

    Example:
        >>> any_ending("a.b/c.JPG"), any_ending("a.b/c.d"), any_ending("c.jpg.chip.jpg")
        ('a.b/c', 'a.b/c.d', 'c.jpg.chip')
    """
    stem, ending = posixpath.splitext(path)
    return stem if ending.casefold() in ENDINGS else path


def nearest(rows: pd.Series, files: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Rows and files that agree but for an ending, or for folders that one of the two has before the rest.

    Arguments:
        rows: paths of the rows that have found no file, as a key: slashes, one case.
        files: the files that no row has found yet, index: by the same key.

    Returns:
        The file of each row where one row and one file can only mean each other, else None; and the files that a row
        could mean where it is not so, as text, else "".
    """
    by_name = defaultdict(list)
    for key in files.index:
        by_name[posixpath.basename(any_ending(key))].append(key)
    meant = {}
    for row, path in rows.items():
        near = [
            key
            for key in by_name[posixpath.basename(any_ending(path))]
            if _same_tail(any_ending(path), any_ending(key))
        ]
        exact = [key for key in near if posixpath.basename(key) == posixpath.basename(path)]
        meant[row] = exact or near
    claims = pd.Series([key for keys in meant.values() for key in keys], dtype=object).value_counts()
    sure = {row: keys[0] for row, keys in meant.items() if len(keys) == 1 and claims[keys[0]] == 1}
    unsure = {row: ", ".join(files[keys[:3]]) for row, keys in meant.items() if row not in sure and keys}
    return pd.Series(sure, dtype=object).map(files), pd.Series(unsure, dtype=object)


def _same_tail(one: str, other: str) -> bool:
    short, long = sorted((f"/{one}", f"/{other}"), key=len)
    return long.endswith(short)
