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

    value: float
    low: float
    high: float
    faces: int
    identities: int
    note: str = ""


def estimate(scores: pd.DataFrame, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The mean over faces, with a percentile bootstrap interval over identities.

    Arguments:
        scores: columns identity and value, one row a face; rows without a value do not count.
        resamples: bootstrap resamples.
        confidence: of the interval.
        seed: of the resampling.

    Returns:
        The estimate. Without faces every number is NaN; with one identity the interval is; the note says so.

    Example:
        >>> scores = pd.DataFrame({"identity": ["a", "a", "b"], "value": [100.0, 100.0, 0.0]})
        >>> round(estimate(scores).value, 2)
        66.67
    """
    scores = scores[scores["value"].notna()]
    if scores.empty:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "no such test faces")
    per_identity = scores.groupby("identity", observed=True)["value"].agg(["sum", "count"])
    sums, counts = per_identity["sum"].to_numpy(float), per_identity["count"].to_numpy(float)
    value = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Estimate(value, math.nan, math.nan, len(scores), 1, "one identity: no interval")
    interval = bootstrap(
        (sums, counts),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // len(sums)),  # bounds the memory: resamples × identities at a time
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(scores), len(sums))


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def lead(
    first: pd.DataFrame,
    others: Sequence[pd.DataFrame],
    groups: Sequence[int],
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """How much higher one method's mean is than the best of others', paired: every resample has the same people in all.

    Arguments:
        first: columns identity, group and value, one row a face.
        others: the same of one method or more. Of several, the best *of each resample* counts, so that the interval
            knows that it was chosen.
        groups: the mean is the mean of these groups' means.
        resamples, confidence, seed: as in `estimate`.

    Returns:
        The estimate. Resamples in which a group has no face of a method do not count.

    Example:
        >>> one = pd.DataFrame({"identity": ["a", "b", "c"], "group": 0, "value": [3.0, 5.0, 9.0]})
        >>> found = lead(one, [one.assign(value=one["value"] - 2)], [0])
        >>> round(found.value, 6), round(found.low, 6), round(found.high, 6)
        (2.0, 2.0, 2.0)
    """
    every = [part[part["value"].notna() & part["group"].isin(groups)] for part in (first, *others)]
    if any(set(groups) - set(part["group"]) for part in every):
        return _NO_FACES
    people = _people(every)
    sums, counts = map(np.stack, zip(*(_per_person(part, groups, people, "value") for part in every), strict=True))

    def ahead(times: np.ndarray) -> np.ndarray:
        means = np.mean((sums @ times.T) / (counts @ times.T), axis=1)  # [methods, resamples]
        return means[0] - means[1:].max(axis=0)

    return _resampled(ahead, counts, len(every[0]), resamples, confidence, seed)


def lead_at_equal_age(
    first: pd.DataFrame,
    other: pd.DataFrame,
    groups: Sequence[int],
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, float]:
    """How much higher one method's mean is than another's where it reaches as many of the ages, paired.

    Arguments:
        first: columns identity, group, strength, reached (100 where the age was, else 0) and value, one row a face and
            strength.
        other: the same of the other method, at the strength that it is compared at. One that overshoots there reaches as
            many at less of its way, and keeps more: a method leads itself then, so look at less of its way, too.
        groups: a mean is the mean of these groups' means.
        resamples, confidence, seed: as in `estimate`.

    Returns:
        The estimate, and the least strength at which `first` reaches as many. In every resample that strength is found
        anew, on straight lines between those that were judged. Where none reaches as many, or where the least already
        reaches more, there is no number; a resample in which the least reaches more counts with the value at the least.
    """
    strengths = np.sort(first["strength"].unique())
    every = [*(first[first["strength"] == strength] for strength in strengths), other]
    every = [part[part["value"].notna() & part["group"].isin(groups)] for part in every]
    if any(set(groups) - set(part["group"]) for part in every):
        return _NO_FACES, math.nan
    people = _people(every)
    parts = {
        name: [
            np.stack(arrays)
            for arrays in zip(*(_per_person(part, groups, people, name) for part in every), strict=True)
        ]
        for name in ("reached", "value")
    }
    counts = parts["value"][1]

    def means_of(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reached and value, [strengths and the other, resamples]."""
        return tuple(np.mean((sums @ times.T) / (n @ times.T), axis=1) for sums, n in parts.values())

    def lead_or_least(times: np.ndarray) -> np.ndarray:
        reached, value = means_of(times)
        _, there = _at_equal_age(strengths, reached[:-1], value[:-1], reached[-1])
        # Left out, the resamples in which it reaches too few would make the interval better than it is; those that
        # lack a group say nothing.
        enough = (reached[:-1] >= reached[-1]).any(axis=0) | np.isnan(reached).any(axis=0)
        return np.where(enough, there - value[-1], -np.inf)

    reached, value = means_of(np.ones((1, len(people))))
    strength = float(_at_equal_age(strengths, reached[:-1], value[:-1], reached[-1])[0][0])
    found = _resampled(lead_or_least, counts, len(every[-1]), resamples, confidence, seed, "inverted_cdf")
    nothing = {"low": math.nan, "high": math.nan}
    if math.isnan(strength):
        note = "at no strength does it reach as many"
        return replace(found, value=math.nan, **nothing, note=note), strength
    if reached[0, 0] > reached[-1, 0]:
        note = (
            f"at {strengths[0]:g}, the least strength that was judged, it reaches more: judge it at lower `strengths`"
        )
        return replace(found, value=math.nan, **nothing, note=note), math.nan
    if found.low == -math.inf:
        return replace(found, **nothing, note="it reaches as many, but not in every resample"), strength
    return found, strength


def _at_equal_age(
    strengths: np.ndarray, reached: np.ndarray, value: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The least strength at which a method reaches a share of the ages, and what another number of it is there.

    Between two strengths both are taken to lie on a line.

    Arguments:
        strengths: [S], rising.
        reached: age accuracy at each, [S,R].
        value: the other number at each, [S,R].
        wanted: the age accuracy to reach, [R].

    Returns:
        Strength and value, [R]. Where the least strength reaches more already, those of that strength; where none
        reaches it, NaN.
    """
    enough = reached >= wanted
    after = enough.argmax(axis=0)  # the first that does
    before = np.maximum(after - 1, 0)

    def at(numbers: np.ndarray, place: np.ndarray) -> np.ndarray:
        return np.take_along_axis(numbers, place[None], axis=0)[0]

    low, high = at(reached, before), at(reached, after)
    share = np.where(after > 0, (wanted - low) / np.where(high > low, high - low, 1.0), 0.0)
    every = np.broadcast_to(strengths[:, None], reached.shape)
    found = [at(numbers, before) * (1 - share) + at(numbers, after) * share for numbers in (every, value)]
    return tuple(np.where(enough.any(axis=0), each, np.nan) for each in found)


_NO_FACES = Estimate(math.nan, math.nan, math.nan, 0, 0, "no such test faces")


def _people(parts: Sequence[pd.DataFrame]) -> pd.Index:
    return pd.Index(pd.concat([part["identity"].astype(str) for part in parts]).unique())


def _per_person(
    part: pd.DataFrame, groups: Sequence[int], people: pd.Index, column: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of a column, [groups, people]."""
    person = people.get_indexer(part["identity"].astype(str))
    places = pd.Index(groups).get_indexer(part["group"]) * len(people) + person
    shape = (len(groups), len(people))
    values = part[column].to_numpy(float)
    return tuple(np.bincount(places, of, math.prod(shape)).reshape(shape) for of in (values, np.ones_like(values)))


def _resampled(
    measure: Callable[[np.ndarray], np.ndarray],
    counts: np.ndarray,
    faces: int,
    resamples: int,
    confidence: float,
    seed: int,
    method: str = "linear",
) -> Estimate:
    """A number and its interval over resampled people.

    Arguments:
        measure: how often each person is drawn, [resamples, people] → the number [resamples].
        counts: faces of each person, [methods, groups, people].
        faces: what the estimate says that it is of.
        resamples, confidence, seed: as in `estimate`.
        method: of the percentile; between numbers that may be infinite there is no line.
    """
    groups, people = counts.shape[1:]
    value = float(measure(np.ones((1, people)))[0])
    if people < 2:
        return Estimate(value, math.nan, math.nan, faces, 1, "one identity: no interval")
    if groups > 1 and (counts > 0).sum(axis=2).min() < 2:
        # Only resamples with that person count, so its own part of the variance would be missing.
        return Estimate(value, math.nan, math.nan, faces, people, "a group of one identity: no interval")
    # By hand, as scipy's bootstrap gives up on all resamples where one has no number.
    shares = np.full(people, 1 / people)
    times = np.random.default_rng(seed).multinomial(people, shares, size=resamples).astype(float)
    with np.errstate(invalid="ignore"):  # 0/0: a group without a face
        drawn = measure(times)
    outside = 50 * (1 - confidence)
    low, high = np.nanpercentile(drawn, [outside, 100 - outside], method=method)
    return Estimate(value, float(low), float(high), faces, people)
