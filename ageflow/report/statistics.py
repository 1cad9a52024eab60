"""A mean and its bootstrap interval over identities, and the lead of one method over others.

Faces of one person are alike, so they are no independent draws: whole identities are resampled, each with all of
its faces. Two methods judged on the same people are compared resample by resample: what makes a person's faces easy or
hard for both drops out of the difference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import bootstrap


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
        interval = bootstrap(
            (sums, counts),
            lambda sums, counts, axis=-1: sums.sum(axis=axis) / counts.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=self.resamples,
            batch=max(1, 10_000_000 // len(sums)),  # bounds the memory: resamples × identities at a time
            confidence_level=self.confidence,
            method="percentile",
            rng=np.random.default_rng(self.seed),
        ).confidence_interval
        return replace(found, low=float(interval.low), high=float(interval.high))

    def lead(self, first: pd.DataFrame, others: Sequence[pd.DataFrame], groups: Sequence[int]) -> Estimate:
        """How much higher one method's mean is than the best of others', paired: every resample has the same people in all.

        Arguments:
            first: columns identity, group and value, one row a face.
            others: the same of one method or more. Of several, the best *of each resample* counts, so that the interval
                knows that it was chosen.
            groups: the mean is the mean of these groups' means.

        Returns:
            The estimate. Resamples in which a group has no face of a method do not count.

        Example:
            >>> one = pd.DataFrame({"identity": ["a", "b", "c"], "group": 0, "value": [3.0, 5.0, 9.0]})
            >>> found = Bootstrap().lead(one, [one.assign(value=one["value"] - 2)], [0])
            >>> round(found.value, 6), round(found.low, 6), round(found.high, 6)
            (2.0, 2.0, 2.0)
        """
        people = _PerPerson.of([first, *others], groups, ["value"])
        if people is None:
            return NO_FACES

        def ahead(times: np.ndarray) -> np.ndarray:
            (means,) = people.means(times)
            return means[0] - means[1:].max(axis=0)

        return self._over_people(ahead, people, of=0)

    def lead_at_equal_age(
        self, first: pd.DataFrame, other: pd.DataFrame, groups: Sequence[int]
    ) -> tuple[Estimate, float]:
        """How much higher one method's mean is than another's where it reaches as many of the ages, paired.

        Arguments:
            first: columns identity, group, strength, reached (100 where the age was, else 0) and value, one row a face
                and strength.
            other: the same of the other method, at the strength that it is compared at. One that overshoots there
                reaches as many at less of its way, and keeps more: a method leads itself then, so look at less of its
                way, too.
            groups: a mean is the mean of these groups' means.

        Returns:
            The estimate, and the least strength at which `first` reaches as many. In every resample that strength is
            found anew, on straight lines between those that were judged. Where none reaches as many, or where the least
            already reaches more, there is no number; a resample in which the least reaches more counts with the value at
            the least.
        """
        strengths, parts = zip(*first.groupby("strength"), strict=True)
        people = _PerPerson.of([*parts, other], groups, ["reached", "value"])
        if people is None:
            return NO_FACES, math.nan

        def ahead(times: np.ndarray) -> np.ndarray:
            reached, value = people.means(times)  # [strengths and the other, resamples]
            there = _at_equal_age(value[:-1], reached)
            # Left out, the resamples in which it reaches too few would make the interval better than it is; those that
            # lack a group say nothing.
            enough = (reached[:-1] >= reached[-1]).any(axis=0) | np.isnan(reached).any(axis=0)
            return np.where(enough, there - value[-1], -np.inf)

        reached, _ = people.means(people.everybody)
        strength = float(_at_equal_age(np.array(strengths)[:, None], reached)[0])
        found = self._over_people(ahead, people, of=-1, method="inverted_cdf")
        without = replace(found, low=math.nan, high=math.nan)
        if math.isnan(strength):
            return replace(without, value=math.nan, note="at no strength does it reach as many"), strength
        if reached[0, 0] > reached[-1, 0]:
            least = f"at {strengths[0]:g}, the least strength judged, it reaches more: judge it at lower `strengths`"
            return replace(without, value=math.nan, note=least), math.nan
        if found.low == -math.inf:
            return replace(without, note="it reaches as many, but not in every resample"), strength
        return found, strength

    def _over_people(
        self, measure: Callable[[np.ndarray], np.ndarray], people: "_PerPerson", of: int, method: str = "linear"
    ) -> Estimate:
        """A number and its interval over resampled people.

        Arguments:
            measure: how often each person is drawn, [resamples, people] → the number [resamples].
            people: whom it is measured on.
            of: the part whose faces the estimate counts.
            method: of the percentile; between numbers that may be infinite there is no line.
        """
        _, groups, count = people.counts.shape
        value = float(measure(people.everybody)[0])
        found = Estimate(value, faces=int(people.counts[of].sum()), identities=count)
        if count < 2:
            return replace(found, note=_ONE_IDENTITY)
        if groups > 1 and (people.counts > 0).sum(axis=2).min() < 2:
            # Only resamples with that person count, so its own part of the variance would be missing.
            return replace(found, note="a group of one identity: no interval")
        # By hand, as scipy's bootstrap gives up on all resamples where one has no number.
        rng = np.random.default_rng(self.seed)
        times = rng.multinomial(count, np.full(count, 1 / count), size=self.resamples).astype(float)
        with np.errstate(invalid="ignore"):  # 0/0: a group without a face
            drawn = measure(times)
        outside = 50 * (1 - self.confidence)
        low, high = np.nanpercentile(drawn, [outside, 100 - outside], method=method)
        return replace(found, low=float(low), high=float(high))


@dataclass(frozen=True)
class _PerPerson:
    """What several parts' faces add up to for each person.

    Arguments:
        sums: of each column, [columns, parts, groups, people].
        counts: of faces, [parts, groups, people].
    """

    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[pd.DataFrame], groups: Sequence[int], columns: Sequence[str]) -> "_PerPerson | None":
        """Rows without a value do not count; None where a part has no face of a group."""
        parts = [part[part["value"].notna() & part["group"].isin(groups)] for part in parts]
        if any(set(groups) - set(part["group"]) for part in parts):
            return None
        people = pd.Index(pd.concat([part["identity"].astype(str) for part in parts]).unique())
        shape = (len(groups), len(people))

        def summed(part: pd.DataFrame, weights: np.ndarray | None) -> np.ndarray:
            places = pd.Index(groups).get_indexer(part["group"]) * len(people)
            places += people.get_indexer(part["identity"].astype(str))
            return np.bincount(places, weights, math.prod(shape)).reshape(shape).astype(float)

        sums = np.stack([[summed(part, part[column].to_numpy(float)) for part in parts] for column in columns])
        return cls(sums, np.stack([summed(part, None) for part in parts]))

    @property
    def everybody(self) -> np.ndarray:
        """Each person once, [1, people]."""
        return np.ones((1, self.counts.shape[-1]))

    def means(self, times: np.ndarray) -> np.ndarray:
        """The means of the groups' means where each person counts so many `times` [resamples, people].

        Returns:
            [columns, parts, resamples].
        """
        return np.mean((self.sums @ times.T) / (self.counts @ times.T), axis=2)


def _at_equal_age(numbers: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """A number of a method at the least strength at which it reaches a share of the ages, [R].

    Between two strengths everything is taken to lie on a line.

    Arguments:
        numbers: at each strength, [S,R].
        reached: age accuracy at each, and below them the one to reach, [S+1,R].

    Returns:
        Where the least strength reaches more already, the number there; where none reaches it, NaN.
    """
    wanted, reached = reached[-1], reached[:-1]
    enough = reached >= wanted
    after = enough.argmax(axis=0)  # the first that does
    before = np.maximum(after - 1, 0)
    low, high, start, end = (
        np.take_along_axis(of, place[None], axis=0)[0] for of in (reached, numbers) for place in (before, after)
    )
    share = np.where(after > 0, (wanted - low) / np.where(high > low, high - low, 1.0), 0.0)
    return np.where(enough.any(axis=0), start * (1 - share) + end * share, np.nan)
