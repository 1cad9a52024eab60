"""The one contract of every transform, its errors, and the squeeze between two levels."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class Squeeze(Transform):
    """[B, C, H, W] → [B, 4C, H/2, W/2]; channel c's four neighbours become channels 4c … 4c+3.

    A permutation, so its log-determinant is zero. What it gives is laid out channels_last.

    Raises:
        ShapeError: a side is odd, or the channels to unsqueeze are not a multiple of four.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise ShapeError(f"squeeze takes [B, C, H, W] with even H and W, not {tuple(x.shape)}")
        batch, channels, height, width = x.shape
        # torch leaves a batch of none as it is; on a GPU it does not keep the layout that the flow computes in.
        y = F.pixel_unshuffle(x, 2).reshape(batch, 4 * channels, height // 2, width // 2)
        return y.contiguous(memory_format=torch.channels_last), x.new_zeros(batch)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if y.ndim != 4 or y.shape[1] % 4:
            raise ShapeError(f"unsqueeze takes [B, 4C, H, W], not {tuple(y.shape)}")
        batch, channels, height, width = y.shape
        return F.pixel_shuffle(y, 2).reshape(batch, channels // 4, 2 * height, 2 * width), y.new_zeros(batch)
