"""The one contract of every transform, and its errors."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable

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


def over_pixels(log_det: Tensor, x: Tensor) -> Tensor:
    """The log-determinant [B] of a transform of x [B, C, H, W] that has `log_det`, a scalar, at every pixel."""
    return (log_det * (x.shape[2] * x.shape[3])).expand(len(x))
