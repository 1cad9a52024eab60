"""A mean and its bootstrap interval over identities.

Faces of one person are alike, so they are no independent draws: whole identities are resampled, each with all of
its faces.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

__all__ = ["Estimate", "estimate"]


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
