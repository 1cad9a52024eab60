"""A continuous target: does the age that the judges see rise with the age that is asked for?

The paper shows ages between its groups (Fig. 1) and measures none. Here faces are translated to ages from 20 to 70,
each a weighting of the age groups (`ageflow.translation.ages`), and Spearman's rank correlation of the age asked for and
the age told says, face by face, whether the order is kept.
"""

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from ageflow.data.faces import Faces
from ageflow.evaluation.judging import Judges, Method, translate
from ageflow.evaluation.parts import Parts, in_batches
from ageflow.flows.glow import to_uint8
from ageflow.translation.ages import GROUP_CENTRES, OLDEST, YOUNGEST, age_to_weights

STOPS = tuple(float(age) for age in np.linspace(YOUNGEST, OLDEST, 11))  # target ages, years
MONOTONE = 0.9  # a face whose rank correlation is at least this counts as monotone


def predicted_ages(
    method: Method,
    name: str,
    faces: Faces,
    chosen: np.ndarray,
    judges: Judges,
    batch: int = 64,
    progress: bool = True,
    parts: Parts | None = None,
) -> pd.DataFrame:
    """Translate every face to every stop and ask the age judges.

    Arguments:
        method: the method; `name` is what the rows call it.
        faces: prepared faces.
        chosen: which of them, [M] int64.
        judges: who judges.
        batch: faces at a time.
        progress: draw a bar.
        parts: where what is measured is kept on the way.

    Returns:
        One row a face × stop: method, face, identity, source (its group), target_age, predicted_age (the age
        classifier's expectation) and second_age (the second judge's), years.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    # Beyond the outer groups' centres several stops are the same weights: translated and judged once.
    weights, which_weights = torch.stack([age_to_weights(age) for age in STOPS]).unique(dim=0, return_inverse=True)
    row, step = (index.ravel() for index in np.indices((len(chosen), len(weights))))

    def measure(some: slice) -> pd.DataFrame:
        images = to_uint8(translate(method, name, faces, chosen[row[some]], weights[step[some]]))
        return pd.DataFrame(judges.ages(images))

    told = in_batches(measure, len(row), batch, f"{name}, 20 to 70", progress, parts)
    columns = {"face": faces.table["face"].to_numpy()[chosen], "identity": faces.identities[chosen]}
    columns |= {"source": faces.groups[chosen]}
    rows = {column: np.repeat(values, len(STOPS)) for column, values in columns.items()}
    rows["target_age"] = np.tile(STOPS, len(chosen))
    for column in ("predicted_age", "second_age"):
        ages = told[column].to_numpy().reshape(len(chosen), len(weights))
        rows[column] = ages[:, which_weights.numpy()].ravel().astype(float)
    return pd.DataFrame({"method": name} | rows)


def monotonicity(rows: pd.DataFrame, column: str = "predicted_age") -> pd.DataFrame:
    """Spearman's rank correlation of target and predicted age, face by face.

    Below the first group's centre and beyond the last one's a target is the outer group alone: such stops are one
    and the same translation, and count once.

    Arguments:
        rows: of `predicted_ages`.
        column: ``predicted_age`` or ``second_age``.

    Returns:
        One row a method and face: method, face, identity, source, rho (0 where all predictions are the same: such
        a face does not age) and monotone (bool: rho is at least `MONOTONE`).

    Example:
        >>> ages = {"target_age": [25.0, 40.0, 50.0], "predicted_age": [31.0, 35.0, 44.0]}
        >>> monotonicity(pd.DataFrame({"method": "m", "face": "f", "identity": "i", "source": 0} | ages))["rho"].tolist()
        [1.0]
    """
    asked = rows["target_age"].clip(GROUP_CENTRES[0], GROUP_CENTRES[-1])
    keys = ["method", "face", "identity", "source"]
    once = rows.assign(asked=asked).drop_duplicates([*keys, "asked"])
    found = []
    for names, part in once.groupby(keys, sort=False):
        told = part[column].round(3)  # a picture in another batch differs in the last bits: that is no age
        constant = told.nunique() < 2
        rho = 0.0 if constant else float(spearmanr(part["asked"], told).statistic)
        found.append([*names, round(rho, 6)])
    return pd.DataFrame(found, columns=[*keys, "rho"]).assign(monotone=lambda told: told["rho"] >= MONOTONE)
