"""Coupling layers: one half of the channels moves the other half."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from ageflow.flows.network import CouplingNetwork
from ageflow.flows.transform import ShapeError, Transform


class Coupling(Transform):
    """y₁ = x₁, y₂ = f(x₂; drive(x₁)): what drives the second half is the same in both directions."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x.chunk(2, dim=1)
        moved, log_det = self.move(moved, self.drive(kept))
        return torch.cat([kept, moved], dim=1), log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = y.chunk(2, dim=1)
        moved, log_det = self.move_back(moved, self.drive(kept))
        return torch.cat([kept, moved], dim=1), log_det

    @abstractmethod
    def drive(self, kept: Tensor) -> Tensor:
        """What a network makes of the first half."""

    @abstractmethod
    def move(self, x: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """The second half, moved, and the log-determinant [B]."""

    @abstractmethod
    def move_back(self, y: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """`move` undone."""


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

    def drive(self, kept: Tensor) -> Tensor:
        return self.network(kept)

    def move(self, x: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        return x + drive, x.new_zeros(len(x))

    def move_back(self, y: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        return y - drive, y.new_zeros(len(y))


class AffineCoupling(AdditiveCoupling):
    """y₁ = x₁, y₂ = (x₂ + t(x₁)) · σ(r(x₁) + 2) (Dinh et al. 2017; GLOW's sigmoid).

    ln |det| = Σ ln σ(r + 2). The offset 2 starts the scale at 0.88, near the identity. Arguments as `AdditiveCoupling`;
    its network gives t and r.
    """

    outputs_per_channel = 2

    def move(self, x: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._moments(drive)
        return (x + shift) * log_scale.exp(), log_scale.flatten(1).sum(1)

    def move_back(self, y: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._moments(drive)
        return y * (-log_scale).exp() - shift, -log_scale.flatten(1).sum(1)

    @staticmethod
    def _moments(drive: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = drive.chunk(2, dim=1)
        return shift, F.logsigmoid(raw + 2.0)
