"""Ages in years, and what they are between the age groups."""

import numpy as np
import torch
from torch import Tensor

# The age at which a group's weight is one. The first and the last group are open: a decade like the others.
GROUP_CENTRES = (25.0, 35.5, 45.5, 57.0)
YOUNGEST, OLDEST = 20.0, 70.0  # of a continuous target, years


def age_to_weights(age: float) -> Tensor:
    """Weights over the age groups that stand for an age: linear between the two nearest centres.

    Arguments:
        age: years. Below the first centre and beyond the last, the outer group alone.

    Returns:
        Float [groups], at least zero, summing to 1.

    Example:
        >>> age_to_weights(40.5).tolist()
        [0.0, 0.5, 0.5, 0.0]
    """
    one_hot = np.eye(len(GROUP_CENTRES), dtype=np.float32)
    return torch.tensor([np.interp(age, GROUP_CENTRES, column) for column in one_hot], dtype=torch.float32)
