"""A mean and its bootstrap interval over identities, and the lead of one method over another.

Faces of one person are alike, so they are no independent draws: whole identities are resampled, each with all of
its faces. Two methods judged on the same people are compared resample by resample: what makes a person's faces easy or
hard for both drops out of the difference.

Over a handful of people any bootstrap is too narrow: of 95 % intervals over ten people some 83 % hold the truth, by BCa as
by percentiles (findings/bca-bootstrap-of-ten-people.sh). So every estimate says of how many people it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Estimate:
    """A mean over faces with its interval.

    Arguments:
        value: the mean; NaN where there is no face.
        low, high: the interval's ends; NaN where it is not defined.
        faces: how many faces it is the mean of.
        identities: of how many people.
        note: why a number is missing; empty where none is.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    faces: int = 0
    identities: int = 0
    note: str = ""


NOT_MEASURED = Estimate(note="not measured: the method cannot do it")
NO_FACES = Estimate(note="no such test faces")
_ONE_IDENTITY = "one identity: no interval"


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap over identities.

    Arguments:
        resamples: how many.
        confidence: of the intervals.
        seed: of the resampling.

    Example:
        >>> scores = pd.DataFrame({"identity": ["a", "a", "b"], "value": [100.0, 100.0, 0.0]})
        >>> round(Bootstrap().mean(scores).value, 2)
        66.67
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def mean(self, scores: pd.DataFrame) -> Estimate:
        """The mean over faces.

        Arguments:
            scores: columns identity and value, one row a face; rows without a value do not count.

        Returns:
            The estimate. Without faces every number is NaN; with one identity the interval is; the note says so.
        """
        scores = scores[scores["value"].notna()]
        if scores.empty:
            return NO_FACES
        sums, counts = scores.groupby("identity", observed=True)["value"].agg(["sum", "count"]).to_numpy(float).T
        found = Estimate(float(sums.sum() / counts.sum()), faces=len(scores), identities=len(sums))
        if len(sums) < 2:
            return replace(found, note=_ONE_IDENTITY)
        people = np.random.default_rng(self.seed).integers(len(sums), size=(self.resamples, len(sums)))
        return self._with_interval(found, sums[people].sum(axis=1) / counts[people].sum(axis=1))

    def lead(self, first: pd.DataFrame, other: pd.DataFrame, groups: Sequence[int]) -> Estimate:
        """How much higher one method's mean is than another's, paired: every resample has the same people in both.

        Arguments:
            first: columns identity, group and value, one row a face.
            other: the same of the other method. Where both are indexed by face and target, only the translations that
                both did are compared.
            groups: the mean is the mean of these groups' means.

        Returns:
            The estimate. Resamples in which a group has no face of a method do not count.

        Example:
            >>> one = pd.DataFrame({"identity": ["a", "b", "c"], "group": 0, "value": [3.0, 5.0, 9.0]})
            >>> found = Bootstrap().lead(one, one.assign(value=one["value"] - 2), [0])
            >>> round(found.value, 6), round(found.low, 6), round(found.high, 6)
            (2.0, 2.0, 2.0)
        """
        if first.index.nlevels == other.index.nlevels == 2 and not first.index.equals(other.index):
            first, other = first[first.index.isin(other.index)], other[other.index.isin(first.index)]
        faces = pd.concat([first, other], keys=[0, 1], names=["method"]).dropna(subset="value")
        faces = faces[faces["group"].isin(groups)].astype({"identity": str, "value": float})
        people = faces["identity"].unique()
        totals = faces.groupby(["method", "group", "identity"])["value"].agg(["sum", "count"]).unstack(fill_value=0)
        if len(totals) < 2 * len(groups):
            return NO_FACES
        sums, counts = (totals[name][people].to_numpy(float) for name in ("sum", "count"))  # [2 × groups, people]

        def ahead(times: np.ndarray) -> np.ndarray:
            """How often each person is drawn [resamples, people] → the lead [resamples]."""
            means = (sums @ times.T) / (counts @ times.T)
            one, two = means.reshape(2, len(groups), -1).mean(axis=1)
            return one - two

        value = float(ahead(np.ones((1, len(people))))[0])
        found = Estimate(value, faces=int(counts[: len(groups)].sum()), identities=len(people))
        if len(people) < 2:
            return replace(found, note=_ONE_IDENTITY)
        if len(groups) > 1 and (counts > 0).sum(axis=1).min() < 2:
            # Only resamples with that person count, so its own part of the variance would be missing.
            return replace(found, note="a group of one identity: no interval")
        rng = np.random.default_rng(self.seed)
        times = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=self.resamples).astype(float)
        with np.errstate(invalid="ignore"):  # 0/0: a group without a face
            drawn = ahead(times)
        return self._with_interval(found, drawn)

    def _with_interval(self, found: Estimate, drawn: np.ndarray) -> Estimate:
        """The estimate with the percentiles of its resamples [resamples]; one without a number does not count."""
        outside = 50 * (1 - self.confidence)
        # Not by scipy.stats.bootstrap, which gives up on all resamples where one has no number.
        low, high = np.nanpercentile(drawn, [outside, 100 - outside])
        return replace(found, low=float(low), high=float(high))
