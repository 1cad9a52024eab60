"""What a method gives up of the person for an age: the same judges, with faces moved less or more of the way.

A method that moves a face further reaches more ages and keeps less of the person, so two methods' cosines can be
compared only where they reach the same share of the ages. `at_strengths` has the judges see each at several strengths
(`ageflow.translation.methods.LatentMethod.at`), between which that share lies.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from ageflow.data.faces import Faces
from ageflow.evaluation.judging import Judges, judge_method
from ageflow.evaluation.parts import Parts
from ageflow.translation.methods import LatentMethod

__all__ = ["at_equal_age", "at_strengths"]


def at_strengths(
    method: LatentMethod,
    name: str,
    faces: Faces,
    chosen: np.ndarray,
    judges: Judges,
    descriptors: Tensor,
    centre: Tensor,
    strengths: Sequence[float],
    batch: int = 64,
    progress: bool = True,
    parts: Parts | None = None,
) -> pd.DataFrame:
    """Translate every face into the groups that are not its own, at every strength, and put the results before the judges.

    Arguments:
        method: the method; `name` is what the rows call it.
        faces: prepared faces.
        chosen: which of them, [M] int64.
        judges: who judges.
        descriptors: [M,d], of those real faces.
        centre: [d], the mean embedding that cosines are centred on.
        strengths: how much of the way; 1 is the method as it is.
        batch: faces at a time.
        progress: draw a bar.
        parts: where what is judged is kept on the way.

    Returns:
        The rows of `ageflow.evaluation.judging.judge_method` of one strength after the other, with a column strength.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    judged = []
    for strength in strengths:
        rows, _ = judge_method(
            method.at(strength),
            *(name, faces, chosen, judges, None, descriptors, batch, progress),
            parts=None if parts is None else parts.of(f"{strength:g}"),
            centre=centre,
            title=f"{name}, strength {strength:g}",
        )
        judged.append(rows.assign(strength=float(strength)))
    return pd.concat(judged, ignore_index=True)


def at_equal_age(
    strengths: np.ndarray, reached: np.ndarray, value: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The least strength at which a method reaches a share of the ages, and what another number of it is there.

    Between two strengths both are taken to lie on a line.

    Arguments:
        strengths: [S], rising.
        reached: age accuracy at each, [S,…].
        value: the other number at each, [S,…].
        wanted: the age accuracy to reach, […].

    Returns:
        Strength and value, […]. Where the least strength reaches more already, those of that strength; where none
        reaches it, NaN.

    Example:
        >>> strength, cosine = at_equal_age(
        ...     np.array([0.5, 1.0]), np.array([60.0, 80.0]), np.array([0.8, 0.6]), np.array(70.0)
        ... )
        >>> float(strength), round(float(cosine), 3)
        (0.75, 0.7)
    """
    enough = reached >= wanted
    after = enough.argmax(axis=0)  # the first that does
    before = np.maximum(after - 1, 0)

    def at(numbers: np.ndarray, place: np.ndarray) -> np.ndarray:
        return np.take_along_axis(numbers, place[None], axis=0)[0]

    low, high = at(reached, before), at(reached, after)
    share = np.where(after > 0, (wanted - low) / np.where(high > low, high - low, 1.0), 0.0)
    every = np.broadcast_to(strengths.reshape(-1, *[1] * (reached.ndim - 1)), reached.shape)
    found = [at(numbers, before) * (1 - share) + at(numbers, after) * share for numbers in (every, value)]
    return tuple(np.where(enough.any(axis=0), each, np.nan) for each in found)
