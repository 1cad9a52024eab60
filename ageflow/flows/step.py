"""One step of the flow: ActNorm, invertible 1×1 convolution, coupling."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ageflow.flows.actnorm import ActNorm
from ageflow.flows.coupling import AdditiveCoupling, AffineCoupling
from ageflow.flows.linear import InvertibleConv1x1
from ageflow.flows.transform import Transform, over_pixels

_FACES_AT_A_TIME = 8  # while ActNorm is initialised
COUPLINGS = {"additive": AdditiveCoupling, "affine": AffineCoupling}


class FlowStep(Transform):
    """ActNorm → invertible 1×1 convolution → coupling (Fig. 2a).

    ActNorm and the convolution are folded into one 1×1 convolution with a bias, exactly and with their own
    gradients: W((x + b)·s) = (W·diag(s)) x + W(s·b).

    Arguments:
        channels: number of channels C.
        hidden: hidden channels of the coupling network.
        coupling: ``additive`` or ``affine``.
        precision: arithmetic of the coupling network, ``fp32`` or ``bf16``.
        generator: source of the random rotation.
        edges: ``zeros`` or ``ones``, see `GlowConfig`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        coupling: str = "additive",
        precision: str = "fp32",
        generator: torch.Generator | None = None,
        edges: str = "zeros",
    ) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.linear = InvertibleConv1x1(channels, generator)
        self.coupling = COUPLINGS[coupling](channels, hidden, precision, edges)
        self._kept: dict[str, tuple[tuple, tuple[Tensor, Tensor]]] = {}

    def folded(self) -> tuple[Tensor, Tensor]:
        """ActNorm and the 1×1 convolution as one: (weight [C, C, 1, 1], bias [C])."""
        weight = self.linear.weight()
        scale = self.actnorm.log_scale.flatten().exp()
        bias = weight @ (scale * self.actnorm.bias.flatten())
        return (weight * scale)[:, :, None, None], bias

    def folded_inverse(self) -> tuple[Tensor, Tensor]:
        """What undoes `folded`: (weight [C, C, 1, 1], bias [C])."""
        inverse_scale = (-self.actnorm.log_scale.flatten()).exp()
        weight = inverse_scale[:, None] * self.linear.inverse_weight()
        return weight[:, :, None, None], -self.actnorm.bias.flatten()

    def _cached(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """`compute`'s result, kept while encoding and decoding (evaluation mode, no gradients), dropped in training."""
        if self.training or torch.is_grad_enabled():
            self._kept.clear()
            return compute()
        # A changed weight has another version, a moved or converted one another address.
        weights = (*self.actnorm.parameters(), *self.linear.parameters())
        if any(weight.is_inference() for weight in weights):  # a flow made under inference_mode counts no versions
            return compute()
        state, name = tuple((weight.data_ptr(), weight._version) for weight in weights), compute.__name__
        if self._kept.get(name, (None,))[0] != state:
            self._kept[name] = (state, compute())
        return self._kept[name][1]

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """ActNorm and the 1×1 convolution of x [B, C, H, W], with their log-determinant [B]."""
        return F.conv2d(x, *self._cached(self.folded)), self._mix_log_det(x)

    def unmix(self, y: Tensor) -> Tensor:
        """`mix` undone, [B, C, H, W]."""
        return F.conv2d(y, *self._cached(self.folded_inverse))

    def _mix_log_det(self, x: Tensor) -> Tensor:
        return over_pixels(self.actnorm.log_scale.sum() + self.linear.log_abs.sum(), x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.actnorm.check_initialized()
        mixed, log_det = self.mix(x)
        y, of_coupling = self.coupling(mixed)
        return y, of_coupling + log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        self.actnorm.check_initialized()
        mixed, log_det = self.coupling.inverse(y)
        return self.unmix(mixed), log_det - self._mix_log_det(y)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        self.actnorm.initialize(x)
        # All of x decides ActNorm's values; the coupling network needs few faces at a time, and 13 GB for 128 of the
        # paper's size at once.
        return torch.cat([self(some)[0] for some in x.split(_FACES_AT_A_TIME)])
