"""What a method gives up of the person for an age: the same judges, with faces moved less or more of the way.

A method that moves a face further reaches more ages and keeps less of the person, so two methods' cosines can be
compared only where they reach the same share of the ages. `at_strength` has the judges see one at a strength
(`ageflow.translation.methods.LatentMethod.at`); at several, that share lies between two of them.
"""

import numpy as np
import pandas as pd
from torch import Tensor

from ageflow.data.faces import Faces
from ageflow.evaluation.judging import Judges, judge_method
from ageflow.evaluation.parts import Parts
from ageflow.translation.methods import LatentMethod


def at_strength(
    method: LatentMethod,
    name: str,
    faces: Faces,
    chosen: np.ndarray,
    judges: Judges,
    descriptors: Tensor,
    centre: Tensor,
    strength: float,
    batch: int = 64,
    progress: bool = True,
    parts: Parts | None = None,
) -> pd.DataFrame:
    """Translate every face into the groups that are not its own, at a strength, and put the results before the judges.

    Arguments:
        method: the method; `name` is what the rows call it.
        faces: prepared faces.
        chosen: which of them, [M] int64.
        judges: who judges.
        descriptors: [M,d], of those real faces.
        centre: [d], the mean embedding that cosines are centred on.
        strength: how much of the way; 1 is the method as it is.
        batch: faces at a time.
        progress: draw a bar.
        parts: where what is judged is kept on the way.

    Returns:
        The rows of `ageflow.evaluation.judging.judge_method` with a column strength.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    rows, _ = judge_method(
        method.at(strength),
        *(name, faces, chosen, judges, None, descriptors, batch, progress, parts),
        centre=centre,
        title=f"{name}, strength {strength:g}",
    )
    return rows.assign(strength=float(strength))
