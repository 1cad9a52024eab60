"""The one table that every reader fills: its age groups, the rows that are rejected, and the two halves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from ageflow.config import PAPER_BOUNDS, ParameterError
from ageflow.data.ages import shown, years

NO_GROUP = -1  # of a face whose age is not known
MAX_AGE = 120
GENDERS = ("female", "male")
COLUMNS = ("file", "identity", "age", "gender", "race")


@dataclass(frozen=True)
class AgeGroups:
    """The age groups of a run, from young to old, and the ages that stand for them.

    Arguments:
        bounds: the last completed year of every group but the last, rising; those of the paper are the default.

    Example:
        >>> AgeGroups().labels, AgeGroups((12, 13)).labels
        (('30-', '31-40', '41-50', '51+'), ('12-', '13', '14+'))
    """

    bounds: tuple[int, ...] = PAPER_BOUNDS

    @classmethod
    def of_labels(cls, labels: Iterable[str]) -> Self:
        """The groups that have these `labels`."""
        return cls(tuple(int(label.rstrip("-").split("-")[-1]) for label in [*labels][:-1]))

    @classmethod
    def noted(cls, about: Mapping) -> Self:
        """The groups whose `bounds` something notes about itself; the paper's need no note."""
        return cls(tuple(about.get("bounds", PAPER_BOUNDS)))

    def __len__(self) -> int:
        return len(self.bounds) + 1

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names."""
        inner = (f"{low + 1}-{high}" if high - low > 1 else f"{high}" for low, high in pairwise(self.bounds))
        return (f"{self.bounds[0]}-", *inner, f"{self.bounds[-1] + 1}+")

    @property
    def centres(self) -> tuple[float, ...]:
        """The age, in years, at which a group's weight is one. The outer groups, which are open, count as decades."""
        first, last = self.bounds[0], self.bounds[-1]
        return (max(first - 5.0, first / 2), *((low + 1 + high) / 2 for low, high in pairwise(self.bounds)), last + 7.0)

    @property
    def aims(self) -> tuple[float, ...]:
        """The expected age, in years, at which a face counts as of a group.

        Those of the outer groups lie within the centres: C is never sure, so its expectation does not reach them. The
        inner ones lie a year above: so the demo's translations look as old as real faces (docs/study.md).
        """
        first, *inner, last = self.centres
        return (first + 1, *(centre + 1 for centre in inner), last - 2)

    @property
    def stops(self) -> tuple[float, ...]:
        """Eleven continuous target ages, years, from the youngest to the oldest that may be asked for."""
        return tuple(np.linspace(max(self.bounds[0] - 10, 0), self.bounds[-1] + 20, 11).tolist())

    def of(self, ages: Sequence[float] | np.ndarray) -> np.ndarray:
        """The age group of each age.

        Ages count completed years, so somebody of 30.9 is 30 and in the group 30-.

        Arguments:
            ages: years, any shape.

        Returns:
            The groups' numbers from 0, int64, the shape of `ages`.

        Raises:
            ValueError: an age is not a finite number.

        Example:
            >>> PAPER_GROUPS.of([16, 30, 31, 50.5, 51]).tolist()
            [0, 0, 1, 2, 3]
        """
        years = np.asarray(ages, dtype=np.float64)
        if not np.isfinite(years).all():
            raise ValueError(f"ages must be finite numbers of years, found {years[~np.isfinite(years)].ravel()[:3]}")
        return np.searchsorted(self.bounds, np.floor(years), side="left").astype(np.int64)

    def require(self, theirs: "AgeGroups | None", whose: str, do: str) -> None:
        """Refuse what has other groups: `whose` it is, and what to `do`; None goes with any.

        Raises:
            ParameterError: the groups differ.
        """
        if theirs not in (None, self):
            what = f"{whose} has the age groups {', '.join(theirs.labels)}, and the faces have {', '.join(self.labels)}"
            raise ParameterError(f"{what}: {do}")


PAPER_GROUPS = AgeGroups()


class Rejection(NamedTuple):
    """A file or a row that did not become a face: one line of ``rejected.csv``."""

    file: str
    row: int | None
    reason: str


@dataclass(frozen=True)
class Reading:
    """What a reader found on disk.

    Arguments:
        table: one row a picture, columns `file` and whatever is known of `COLUMNS`. Four more are optional: `reason`, why a
            row is rejected ("" where it is not), `split`, "train" or "test", where the data set itself says to which
            half a picture belongs, `age_spread`, the standard deviation of a measured age, and `birth`, a date as it is
            written. Others are ignored.
        root: folder that the `file` column is relative to.
        rejections: files and rows rejected while reading.
        landmarks: [rows, 5, 2] pixels, where the reader knows the five points already; else they are searched for.
        notes: sentences for the data card: where the pictures come from, what the labels are worth.
        ages: False where the set has no ages: they are NaN then, and the faces are in no age group.
    """

    table: pd.DataFrame
    root: Path
    rejections: list[Rejection] = field(default_factory=list)
    landmarks: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    ages: bool = True


def checked(reading: Reading, age_groups: AgeGroups = PAPER_GROUPS) -> tuple[pd.DataFrame, list[Rejection]]:
    """Keep the rows that can be used, and say why the others cannot.

    Arguments:
        reading: where no ages are known, no row needs one.
        age_groups: one of which a range of ages must lie in.

    Returns:
        The usable rows (index: the row in the reading's table from 0; ages are floats, of a range within an age group its middle; a
        row without identity gets its file's name as identity; a gender that is none of `GENDERS` is None), and a
        `Rejection` for every other row.
    """
    columns = [*COLUMNS, "reason", *reading.table.columns.intersection(["split", "age_spread", "birth"])]
    table = reading.table.reset_index(drop=True).reindex(columns=columns).astype(object)
    table = table.where(table.notna(), None)
    file, written = table["file"], table["age"]
    known = {value: years(value) for value in set(written) if isinstance(value, str)}
    low, high = (written.map(lambda value, end=end: (known.get(value) or (value, value))[end]) for end in (0, 1))
    low, high = (pd.to_numeric(ages, errors="coerce").astype(float) for ages in (low, high))
    age = low.where(low == high, [shown(*ends) for ends in zip(low, high, strict=True)])
    groups = (age_groups.of(np.nan_to_num(ages, posinf=0, neginf=0)) for ages in (low, high))
    reasons = table.pop("reason").fillna("")
    cases = [
        (reasons != "", reasons),
        (file.isna() | (file == ""), "no file is named"),
        (written.isna() & reading.ages, "no age is given"),
        (~np.isfinite(age) & reading.ages, "the age " + written.map(repr) + " is not a number"),
        ((age < 0) | (age > MAX_AGE), "the age " + written.astype(str) + f" lies outside 0 to {MAX_AGE} years"),
        (np.not_equal(*groups), "the age " + written.map(repr) + " is of more than one age group"),
    ]
    reasons = reasons.case_when(cases)  # the first that holds
    # Last, so that a rejected row does not stand in the way of a good one of the same file.
    again = (reasons == "") & file.where(reasons == "").duplicated()
    reasons = reasons.mask(again, "duplicate: an earlier row names the same file")
    rejections = [Rejection(str(file[row]), row, reasons[row]) for row in table.index[reasons != ""]]
    identity = table["identity"].where(table["identity"].notna(), file).astype(str)
    gender = table["gender"].where(table["gender"].isin(GENDERS), None)  # `advice_on_faces` names other words
    return table.assign(age=age, identity=identity, gender=gender)[reasons == ""], rejections


def split_by_identity(table: pd.DataFrame, test_share: float, seed: int) -> pd.Series:
    """Which half each face belongs to, decided identity by identity.

    Where there is a column `split`, it decides; who is in the training half with one picture is in it with all of them.
    Otherwise identities are put in order of the age groups and genders their faces have, in random order within, and every
    (1/test_share)-th goes to the test half: so each age group and gender keeps the share, to within one identity.

    Arguments:
        table: one row a face, columns `identity`, `group` and `gender` (None where it is not known), and perhaps `split`.
        test_share: share of the identities to test on, between 0 and 1.
        seed: decides the order within an age group.

    Returns:
        "train" or "test" per row, with the table's index. With two identities or more, neither half is empty, but where
        the column has it so.

    Example:
        >>> table = pd.DataFrame({"identity": ["a", "a", "b", "c", "d"], "group": [0, 1, 0, 1, 1], "gender": None})
        >>> split_by_identity(table, 0.25, seed=0).nunique()
        2
    """
    if "split" in table:
        train = table["identity"].isin(table.loc[table["split"] == "train", "identity"])
        return pd.Series(np.where(train, "train", "test"), index=table.index)
    generator = np.random.default_rng(seed)
    people = table.assign(gender=table["gender"].fillna("")).groupby("identity")
    strata = people.agg(groups=("group", lambda groups: tuple(sorted(set(groups)))), gender=("gender", "first"))
    strata["random"] = generator.permutation(len(strata))
    order = strata.sort_values(["gender", "groups", "random"]).index.to_numpy()
    # The k-th identity is tested on where k·share passes a whole number.
    tested = np.diff(np.floor((np.arange(len(order) + 1) + generator.random()) * test_share)) > 0
    if len(order) > 1 and tested.all() == tested.any():  # all or none
        tested[generator.integers(len(order))] ^= True
    return pd.Series(np.where(table["identity"].isin(order[tested]), "test", "train"), index=table.index)
