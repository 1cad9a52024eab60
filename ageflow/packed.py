"""Weights in eight bits, to pass on: int8 with a scale for every output of a layer, a quarter of float32's size."""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = "/scale"  # after a weight's name; no module's parameter has a slash in its name
_LARGEST = 127
_LEAST = 32  # numbers of an output: of fewer the scale would be no saving


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of layers in int8, with their scales; the others as they are.

    The largest weight of each output is ±127, and no weight is further from its own than half of a step. A GLOW stays
    invertible: what is rounded are the networks of its couplings and its prior, not its 1×1 convolutions or ActNorms.

    Arguments:
        state: a module's ``state_dict``.

    Returns:
        What `unpacked` takes: int8 [out, …] by name, and float32 [out] by name and `SCALE`.
    """
    kept = {}
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.is_floating_point() and tensor.ndim > 1 and tensor[0].numel() >= _LEAST:
            rows = tensor.float().flatten(1)
            scale = rows.abs().amax(1) / _LARGEST
            steps = rows / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
            kept[name] = steps.round().to(torch.int8).view_as(tensor).contiguous()
            kept[name + SCALE] = scale
        else:
            kept[name] = tensor
    return kept


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ``state_dict`` again, in float32 where `packed` had made int8 of it."""
    kept = {}
    for name, tensor in state.items():
        if name.endswith(SCALE):
            continue
        scale = state.get(name + SCALE)
        kept[name] = tensor if scale is None else tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
    return kept
