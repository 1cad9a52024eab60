"""The invertible 1×1 convolution in its LU form."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.device import exact_products
from ageflow.flows.transform import Transform, over_pixels


class InvertibleConv1x1(Transform):
    """y = W x at every pixel, W = P L (U + diag(s)) (Kingma & Dhariwal 2018, Eq. 10).

    P is a fixed permutation, L unit lower and U strictly upper triangular, and s = sign · exp(log_abs), so
    ln |det| = H·W·Σ log_abs costs O(C). W starts as a random rotation. The inverse takes two triangular
    solves, O(C³), and no general matrix inverse.

    Arguments:
        channels: number of channels C.
        generator: source of the rotation.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        # The decomposition is done once, on the CPU and in float64, whatever the defaults are.
        normal = torch.randn(channels, channels, dtype=torch.float64, device="cpu", generator=generator)
        rotation, _ = torch.linalg.qr(normal)
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        like = torch.empty(())
        self.lower = nn.Parameter(lower.tril(-1).to(like))
        self.upper = nn.Parameter(upper.triu(1).to(like))
        self.log_abs = nn.Parameter(diagonal.abs().log().to(like))
        self.register_buffer("permutation", permutation.to(like))
        self.register_buffer("sign", diagonal.sign().to(like))

    def _factors(self) -> tuple[Tensor, Tensor]:
        identity = torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_abs.exp())
        return self.lower.tril(-1) + identity, upper

    def weight(self) -> Tensor:
        """W [C, C]."""
        lower, upper = self._factors()
        return self.permutation @ lower @ upper

    def inverse_weight(self) -> Tensor:
        """W⁻¹ [C, C] = U⁻¹ L⁻¹ Pᵀ by two triangular solves."""
        lower, upper = self._factors()
        half = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, half, upper=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with exact_products(x.device):
            return F.conv2d(x, self.weight()[:, :, None, None]), over_pixels(self.log_abs.sum(), x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        with exact_products(y.device):
            return F.conv2d(y, self.inverse_weight()[:, :, None, None]), -over_pixels(self.log_abs.sum(), y)
