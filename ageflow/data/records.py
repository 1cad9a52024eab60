"""The one table that every reader fills, its age groups, and the rows that are rejected."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from ageflow.data.files import Listing

AGE_GROUPS = ("30-", "31-40", "41-50", "51+")
GROUP_EDGES = (30, 40, 50)  # the last completed year of every group but the last
NO_GROUP = -1  # of a face whose age is not known
MAX_AGE = 120
GENDERS = ("female", "male")
COLUMNS = ("file", "identity", "age", "gender", "race", "source")


def age_group(ages: Sequence[float] | np.ndarray) -> np.ndarray:
    """The age group of each age: 0 up to 30 years, 1 up to 40, 2 up to 50, 3 from 51 on.

    Ages count completed years, so somebody of 30.9 is 30 and in group 0.

    Arguments:
        ages: years, any shape.

    Returns:
        Indices into `AGE_GROUPS`, int64, the shape of `ages`.

    Raises:
        ValueError: an age is not a finite number.

    Example:
        >>> age_group([16, 30, 31, 50.5, 51]).tolist()
        [0, 0, 1, 2, 3]
    """
    years = np.asarray(ages, dtype=np.float64)
    if not np.isfinite(years).all():
        raise ValueError(f"ages must be finite numbers of years, found {years[~np.isfinite(years)].ravel()[:3]}")
    return np.searchsorted(GROUP_EDGES, np.floor(years), side="left").astype(np.int64)


@dataclass(frozen=True)
class Rejection:
    """A file or a row that did not become a face: one line of ``rejected.csv``."""

    file: str
    row: int | None
    reason: str


@dataclass(frozen=True)
class Reading:
    """What a reader found on disk.

    Arguments:
        table: one row a picture, `COLUMNS`; `identity`, `gender` and `race` may be None. Two optional columns: `reason`,
            why a row is rejected ("" where it is not), and `split`, "train" or "test", where the data set itself says to
            which half a picture belongs.
        root: folder that the `file` column is relative to.
        rejections: files and rows rejected while reading.
        landmarks: [rows, 5, 2] pixels, where the reader knows the five points already; else they are searched for.
        notes: sentences for the data card: where the pictures come from, what the labels are worth.
        identities: False where the set names nobody, so that every picture is an identity of its own.
        ages: False where the set has no ages: they are NaN then, and the faces are in no age group.
    """

    table: pd.DataFrame
    root: Path
    rejections: list[Rejection] = field(default_factory=list)
    landmarks: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    identities: bool = True
    ages: bool = True

    @classmethod
    def of(
        cls, listing: Listing, table: pd.DataFrame, left: list[Rejection], notes: list[str], source: str, **known: Any
    ) -> Self:
        """What a reader found in a folder; columns that `table` lacks are unknown, and superfluous ones are dropped.

        Arguments:
            listing: the files.
            table: the rows, `file` and whatever is known.
            left: the files that no row names.
            notes: for the data card.
            source: name of the data set.
            **known: `identities`, `ages`.
        """
        columns = [*COLUMNS, *(name for name in ("reason", "split") if name in table)]
        records = table.assign(source=source).reindex(columns=columns)
        return cls(records, listing.root, left, notes=notes + listing.notes, **known)


def checked(table: pd.DataFrame, ages_known: bool = True) -> tuple[pd.DataFrame, list[Rejection]]:
    """Keep the rows that can be used, and say why the others cannot.

    Arguments:
        table: at least the `COLUMNS`; further ones are kept. Where it has a column `reason`, the reader has rejected the
            rows in which that is not empty.
        ages_known: False accepts rows without an age: all of them then have none.

    Returns:
        The usable rows (the index is kept, ages are floats, a row without identity gets its file's name as identity),
        and a `Rejection` for every other row; `row` counts from 0 in `table`.

    Raises:
        ValueError: a column is missing.
    """
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(f"the table of records lacks {', '.join(missing)}; a reader fills {', '.join(COLUMNS)}")
    table = table.copy()
    reasons = table.pop("reason").fillna("").tolist() if "reason" in table else [""] * len(table)
    written = table["age"]
    table["age"] = pd.to_numeric(written, errors="coerce").astype(float)
    for column in ("gender", "race"):
        table[column] = table[column].astype(object).where(table[column].notna(), None)

    seen: set[str] = set()
    rows = zip(table["file"], table["age"], written, table["gender"], strict=True)
    for place, (file, *labels) in enumerate(rows):
        reasons[place] = reasons[place] or _problem(file, *labels, ages_known)
        # Checked last: a rejected row does not stand in the way of a good one of the same file.
        if not reasons[place] and file in seen:
            reasons[place] = "duplicate: an earlier row names the same file"
        elif not reasons[place]:
            seen.add(file)
    rejections = [
        Rejection(str(file), place, reason)
        for place, (file, reason) in enumerate(zip(table["file"], reasons, strict=True))
        if reason
    ]
    table = table[np.array(reasons, dtype=object) == ""]
    identity = table["identity"].where(table["identity"].notna(), table["file"]).astype(str)
    return table.assign(identity=identity), rejections


def _problem(file: object, age: float, written: object, gender: str | None, ages_known: bool) -> str:
    """Why a row cannot be used; "" where it can. `age` is the number that `written` means, or NaN."""
    if pd.isna(file) or not str(file):
        return "no file is named"
    if ages_known and not np.isfinite(age):
        return "no age is given" if pd.isna(written) else f"the age {written!r} is not a number"
    if age < 0 or age > MAX_AGE:
        return f"the age {written} lies outside 0 to {MAX_AGE} years"
    if gender is not None and gender not in GENDERS:
        return f"the gender {gender!r} is neither of {', '.join(GENDERS)}"
    return ""
