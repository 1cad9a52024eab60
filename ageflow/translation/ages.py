"""Ages: the four age groups, and years between them, as weights over the groups."""

import numpy as np
import torch
from torch import Tensor

# The age at which a group's weight is one. The first and the last group are open: a decade like the others.
GROUP_CENTRES = (25.0, 35.5, 45.5, 57.0)
YOUNGEST, OLDEST = 20.0, 70.0  # of a continuous target, years
HINT = "ageflow.age_to_weights makes weights of an age in years"


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


def as_weights(groups: Tensor, count: int, check: bool = True) -> Tensor:
    """Group weights, float [B, count]: integer groups [B] as one-hot, weights as they are.

    Arguments:
        groups: integers [B] or weights [B, count].
        count: number of groups.
        check: look at the values, for which the host waits for the device; training, whose groups come from
            checked tables, does not.

    Raises:
        ValueError: groups outside 0 … count − 1, or weights of another width or that do not sum to 1.

    Example:
        >>> as_weights(torch.tensor([1, 0]), 3).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if groups.ndim == 1 and not groups.is_floating_point():
        if check and len(groups) and (int(groups.min()) < 0 or int(groups.max()) >= count):
            raise ValueError(f"age groups are 0 … {count - 1}, not {sorted(set(groups.tolist()))}; {HINT}")
        return (groups[:, None] == torch.arange(count, device=groups.device)).float()
    if groups.ndim != 2 or groups.shape[1] != count:
        raise ValueError(
            f"a target is int groups [B] or weights [B, {count}], not {groups.dtype} {tuple(groups.shape)}; {HINT}"
        )
    if check and not torch.allclose(groups.sum(1), torch.ones_like(groups[:, 0]), atol=1e-3):
        raise ValueError(f"the weights of a target must sum to 1, not {groups.sum(1).tolist()}")
    return groups
