"""The network inside a coupling: three convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zero_convolution(inputs: int, outputs: int, edges: str = "zeros") -> nn.Conv2d:
    """A 3×3 convolution that starts at zero, so that what it feeds starts as the identity.

    Arguments:
        inputs, outputs: channels.
        edges: what it sees beyond the edge, ``zeros`` or ``ones``.
    """
    kinds = {"zeros": nn.Conv2d, "ones": _PaddedWithOnes}
    convolution = kinds[edges](inputs, outputs, 3, padding=1)
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return convolution


class _PaddedWithOnes(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), value=1.0), self.weight, self.bias)


class CouplingNetwork(nn.Module):
    """conv 3×3 → ReLU → conv 1×1 → ReLU → zero-initialised conv 3×3 (GLOW, B).

    Arguments:
        inputs, outputs: channels in and out.
        hidden: channels between.
        precision: arithmetic inside: ``fp32`` (the parameters' own) or ``bf16``, which rounds only inside this
            network; what comes out is of the input's dtype. As the same input gives the same output in either
            direction, the coupling stays exactly invertible.
        edges: see `zero_convolution`.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, precision: str = "fp32", edges: str = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.middle = nn.Conv2d(hidden, hidden, 1)
        self.last = zero_convolution(hidden, outputs, edges)
        for convolution in (self.first, self.middle):
            nn.init.normal_(convolution.weight, std=0.05)
            nn.init.zeros_(convolution.bias)
        self.precision = precision

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] → [B, outputs, H, W]."""
        # A caller's own autocast must not change what the inverse recomputes. Nothing is cached: a weight that was
        # rounded where no gradient was asked for has none.
        rounded = self.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=rounded, cache_enabled=False):
            h = F.relu_(self.first(x))
            h = F.relu_(self.middle(h))
            return self.last(h).to(x.dtype)
