"""The one table that every reader fills, its age groups, and the rows it turns away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

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
        table: one row a picture, `COLUMNS`; `identity`, `gender` and `race` may be None. Two columns more, where a
            reader needs them: `reason`, why a row is turned away ("" where it is not), and `split`, "train" or "test",
            where the data set says itself to which half a picture belongs.
        root: folder that the `file` column is relative to.
        rejections: files and rows turned away while reading.
        landmarks: [rows, 5, 2] pixels, where the reader knows the five points already; else they are searched for.
        notes: sentences for the data card: where the pictures come from, what the labels are worth.
        identities: False where the set names nobody, so that every picture is an identity of its own.
        ages: False where the set tells no ages: they are NaN then, and the faces are in no age group.
    """

    table: pd.DataFrame
    root: Path
    rejections: list[Rejection] = field(default_factory=list)
    landmarks: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    identities: bool = True
    ages: bool = True


def checked(table: pd.DataFrame, ages_known: bool = True) -> tuple[pd.DataFrame, list[Rejection]]:
    """Keep the rows that can be used, and say why the others cannot.

    Arguments:
        table: at least the `COLUMNS`; further ones are kept. Where it has a column `reason`, the reader has turned
            away the rows in which that is not empty.
        ages_known: False lets rows without an age pass: all of them then have none.

    Returns:
        The usable rows (the index is kept, ages are floats, a row without identity gets its file's name as
        identity), and a `Rejection` for every other row; `row` counts from 0 in `table`.

    Raises:
        ValueError: a column is missing.
    """
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(f"the table of records lacks {', '.join(missing)}; a reader fills {', '.join(COLUMNS)}")
    table = table.copy()
    reasons = pd.Series([""] * len(table), index=table.index, dtype=object)
    if "reason" in table:
        reasons = table.pop("reason").fillna("").astype(object)

    ages = pd.to_numeric(table["age"], errors="coerce").astype(float)
    tests: tuple[tuple[pd.Series, Callable[[pd.Series], str]], ...] = (
        (table["file"].isna() | (table["file"].astype(str) == ""), lambda row: "no file is named"),
        (~np.isfinite(ages) & ages_known, lambda row: f"the age {row['age']!r} is not a number"),
        ((ages < 0) | (ages > MAX_AGE), lambda row: f"the age {row['age']} lies outside 0 to {MAX_AGE} years"),
        (
            table["gender"].notna() & ~table["gender"].isin(GENDERS),
            lambda row: f"the gender {row['gender']!r} is neither of {', '.join(GENDERS)}",
        ),
    )
    for wrong, reason in tests:
        for index in table.index[wrong & (reasons == "")]:
            reasons[index] = reason(table.loc[index])
    # Last, so that a bad row does not stand in the way of a good one of the same file.
    usable = table.loc[reasons == "", "file"]
    reasons[usable.index[usable.duplicated(keep="first")]] = "the file stands in an earlier row too"

    rejections = [
        Rejection(str(file), position, reason)
        for position, (file, reason) in enumerate(zip(table["file"], reasons, strict=True))
        if reason
    ]
    keep = (reasons == "").to_numpy()
    table["age"] = ages
    table = table[keep]
    table["identity"] = table["identity"].where(table["identity"].notna(), table["file"]).astype(str)
    for column in ("gender", "race"):
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    return table, rejections
