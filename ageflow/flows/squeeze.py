"""Space to channels: each level of the flow halves the side and has four times the channels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ageflow.flows.transform import ShapeError, Transform


class Squeeze(Transform):
    """[B, C, H, W] → [B, 4C, H/2, W/2]; channel c's four neighbours become channels 4c … 4c+3.

    A permutation, so its log-determinant is zero. What it gives is laid out channels_last.

    Raises:
        ShapeError: a side is odd, or the channels to unsqueeze are not a multiple of four.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise ShapeError(f"squeeze takes [B, C, H, W] with even H and W, not {tuple(x.shape)}")
        if not len(x):  # torch's two leave a batch of none as it is
            return x.reshape(0, 4 * x.shape[1], x.shape[2] // 2, x.shape[3] // 2), x.new_zeros(0)
        # On the CPU it keeps the layout that the flow computes in; on a GPU it does not.
        return F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if y.ndim != 4 or y.shape[1] % 4:
            raise ShapeError(f"unsqueeze takes [B, 4C, H, W], not {tuple(y.shape)}")
        if not len(y):
            return y.reshape(0, y.shape[1] // 4, y.shape[2] * 2, y.shape[3] * 2), y.new_zeros(0)
        return F.pixel_shuffle(y, 2), y.new_zeros(len(y))
