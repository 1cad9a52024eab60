"""The one contract of every transform, and its errors."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

import ageflow.device  # noqa: F401  (switches TF32 off)


def full_precision(method: Callable) -> Callable:
    """Run a method, whose first argument is a tensor, outside any autocast of its caller."""

    @functools.wraps(method)
    def run(self: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return method(self, x)

    return run


class NotInitializedError(RuntimeError):
    """A transform with data-dependent parameters was used before `initialize`."""


class ShapeError(ValueError):
    """A tensor that does not fit the transform; the message gives both shapes."""


class Transform(nn.Module, ABC):
    """A bijection with its log-determinant.

    ``forward(x) -> (y, log_det)`` and ``inverse(y) -> (x, log_det)``, where ``log_det`` [B] is
    ln |det ∂output/∂input| of the direction that was called, in nats, one number a sample. Both directions
    are differentiable and change nothing in their input.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x → (y, ln |det ∂y/∂x|)."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The other direction: y → (x, ln |det ∂x/∂y|)."""

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Set data-dependent parameters from `x` [B, C, H, W], once, and return the transformed `x`.

        Transforms without such parameters only pass the data on.
        """
        return self(x)[0]


class Chain(Transform):
    """Transforms one after the other.

    Example:
        >>> from ageflow.flows.squeeze import Squeeze
        >>> y, log_det = Chain(Squeeze(), Squeeze())(torch.zeros(2, 3, 8, 8))
        >>> y.shape, log_det.tolist()
        (torch.Size([2, 48, 2, 2]), [0.0, 0.0])
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for transform in self.transforms:
            x, step = transform(x)
            log_det = log_det + step
        return x, log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        log_det = y.new_zeros(len(y))
        for transform in reversed(self.transforms):
            y, step = transform.inverse(y)
            log_det = log_det + step
        return y, log_det

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform.initialize(x)
        return x

    def append(self, transform: Transform) -> Self:
        """Add `transform` at the end."""
        self.transforms.append(transform)
        return self
