"""Ages: the age groups, and years between them, as weights over the groups."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ageflow.data.records import PAPER_GROUPS, AgeGroups


def age_to_weights(age: float, age_groups: AgeGroups = PAPER_GROUPS) -> Tensor:
    """Weights over the age groups that stand for an age: linear between the two nearest centres.

    Arguments:
        age: years. Below the first centre and beyond the last, the outer group alone.
        age_groups: those of the method (`LatentMethod.age_groups`) or the faces; left out: the paper's.

    Returns:
        Float [groups], at least zero, summing to 1.

    Example:
        >>> age_to_weights(40.5).tolist()
        [0.0, 0.5, 0.5, 0.0]
    """
    one_hot = np.eye(len(age_groups), dtype=np.float32)
    return torch.tensor([np.interp(age, age_groups.centres, column) for column in one_hot], dtype=torch.float32)


def as_weights(groups: Tensor | Sequence | int, count: int, check: bool = True, faces: int | None = None) -> Tensor:
    """Group weights, float [B, count]: integer groups [B] as one-hot, weights as they are.

    Arguments:
        groups: integers [B] or weights [B, count]; a number, or one of either, counts for all the `faces`.
        count: number of groups.
        check: look at the values, for which the host waits for the device; training, whose groups come from
            checked tables, does not.
        faces: B, where it has to be that; None: whatever it is.

    Raises:
        ValueError: groups outside 0 … count − 1, weights of another width or that do not sum to 1, or another B.

    Example:
        >>> as_weights(torch.tensor([1, 0]), 3).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    try:
        weights = torch.tensor(groups) if isinstance(groups, np.ndarray) else torch.as_tensor(groups)  # maybe read-only
    except (TypeError, ValueError, RuntimeError):
        weights = torch.empty(())  # of no shape that fits
    if weights.ndim < 2 and not weights.is_floating_point():
        weights = (weights.view(-1, 1) == torch.arange(count, device=weights.device)).float()
    fits = weights.ndim == 2 and weights.shape[1] == count and (faces is None or len(weights) in (1, faces))
    # A group that is none has weights of zero.
    if not fits or (check and not torch.allclose(weights.sum(1), torch.ones_like(weights[:, 0]), atol=1e-3)):
        raise ValueError(
            f"age groups = {groups!r}{'' if faces is None else f' for {faces} faces'}: expected int [B] from 0 to {count - 1}, "
            f"or weights [B, {count}] that sum to 1; ageflow.age_to_weights makes weights of an age in years"
        )
    return weights if faces is None else weights.expand(faces, -1)
