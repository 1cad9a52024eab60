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

__all__ = ["at_strengths"]


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
            parts=None if parts is None else parts.of(repr(strength)),
            centre=centre,
            title=f"{name}, strength {strength:g}",
        )
        judged.append(rows.assign(strength=float(strength)))
    return pd.concat(judged, ignore_index=True)
