"""A mean and its bootstrap interval over identities, and the lead of one method over others.

Faces of one person are alike, so they are no independent draws: whole identities are resampled, each with all of
its faces. Two methods judged on the same people are compared resample by resample: what makes a person's faces easy or
hard for both drops out of the difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

__all__ = ["Estimate", "estimate", "lead"]


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
    people = pd.Index(pd.concat([part["identity"].astype(str) for part in every]).unique())
    if any(set(groups) - set(part["group"]) for part in every):
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "no such test faces")

    def per_person(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:  # sums and counts, [groups, people]
        person = people.get_indexer(part["identity"].astype(str))
        places = pd.Index(groups).get_indexer(part["group"]) * len(people) + person
        shape = (len(groups), len(people))
        values = part["value"].to_numpy(float)
        return tuple(np.bincount(places, of, math.prod(shape)).reshape(shape) for of in (values, np.ones_like(values)))

    sums, counts = map(np.stack, zip(*map(per_person, every), strict=True))  # [methods, groups, people]

    def ahead(times: np.ndarray) -> np.ndarray:  # [resamples, people], how often each is drawn
        means = np.mean((sums @ times.T) / (counts @ times.T), axis=1)  # [methods, resamples]
        return means[0] - means[1:].max(axis=0)

    value, faces = float(ahead(np.ones((1, len(people))))[0]), len(every[0])
    if len(people) < 2:
        return Estimate(value, math.nan, math.nan, faces, 1, "one identity: no interval")
    if len(groups) > 1 and (counts > 0).sum(axis=2).min() < 2:
        # Only resamples with that person count, so its own part of the variance would be missing.
        return Estimate(value, math.nan, math.nan, faces, len(people), "a group of one identity: no interval")
    # By hand, as scipy's bootstrap gives up on all resamples where one has no number.
    shares = np.full(len(people), 1 / len(people))
    times = np.random.default_rng(seed).multinomial(len(people), shares, size=resamples).astype(float)
    with np.errstate(invalid="ignore"):  # 0/0: a group without a face
        drawn = ahead(times)
    outside = 50 * (1 - confidence)
    low, high = np.nanpercentile(drawn, [outside, 100 - outside])
    return Estimate(value, float(low), float(high), faces, len(people))
