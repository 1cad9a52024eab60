"""Coupling layers, in which one half of the channels moves the other half, and the network inside them."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.flows.transform import ShapeError, Transform


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
        precision: arithmetic inside: ``fp32`` (the parameters' own; while training on a GPU, products in TF32, as torch
            has it: `ageflow.device.exact_products`) or ``bf16``, which rounds only inside this network; what comes out is
            of the input's dtype. As the same input gives the same output in either direction, the coupling stays
            exactly invertible.
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
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            h = F.relu_(self.first(x))
            h = F.relu_(self.middle(h))
            return self.last(h).to(x.dtype)


class Coupling(Transform):
    """y₁ = x₁, y₂ = (x₂ + t(x₁)) · exp(s(x₁)), ln |det| = Σ s: t and s are the same in both directions."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x.chunk(2, dim=1)
        moved, log_det = self.move(moved, *self.drive(kept))
        return torch.cat([kept, moved], dim=1), log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = y.chunk(2, dim=1)
        moved, log_det = self.move_back(moved, *self.drive(kept))
        return torch.cat([kept, moved], dim=1), log_det

    @abstractmethod
    def drive(self, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        """t and s of the first half; s is None where it is 0."""

    @staticmethod
    def move(x: Tensor, shift: Tensor, log_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """The second half, moved, and the log-determinant [B]."""
        if log_scale is None:
            return x + shift, x.new_zeros(len(x))
        return (x + shift) * log_scale.exp(), log_scale.flatten(1).sum(1)

    @staticmethod
    def move_back(y: Tensor, shift: Tensor, log_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """`move` undone."""
        if log_scale is None:
            return y - shift, y.new_zeros(len(y))
        return y * (-log_scale).exp() - shift, -log_scale.flatten(1).sum(1)


class AdditiveCoupling(Coupling):
    """y₁ = x₁, y₂ = x₂ + F(x₁); ln |det| = 0 (Dinh et al. 2015; AgeFlow, 2.2).

    Arguments:
        channels: number of channels, even.
        hidden: hidden channels of F.
        precision: see `CouplingNetwork`.
        edges: ``zeros`` or ``ones``, see `GlowConfig`.
    """

    outputs_per_channel = 1

    def __init__(self, channels: int, hidden: int, precision: str = "fp32", edges: str = "zeros") -> None:
        super().__init__()
        if channels % 2:
            raise ShapeError(f"a coupling needs an even number of channels, not {channels}")
        half = channels // 2
        self.network = CouplingNetwork(half, half * self.outputs_per_channel, hidden, precision, edges)

    def drive(self, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.network(kept), None


class AffineCoupling(AdditiveCoupling):
    """y₁ = x₁, y₂ = (x₂ + t(x₁)) · σ(r(x₁) + 2) (Dinh et al. 2017; GLOW's sigmoid).

    ln |det| = Σ ln σ(r + 2). The offset 2 starts the scale at 0.88, near the identity. Arguments as `AdditiveCoupling`;
    its network gives t and r.
    """

    outputs_per_channel = 2

    def drive(self, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        shift, raw = self.network(kept).chunk(2, dim=1)
        return shift, F.logsigmoid(raw + 2.0)
