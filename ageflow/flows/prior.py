"""GLOW's learned prior as one more flow layer, so that every latent is standard normal."""

import torch
from torch import Tensor, nn

from ageflow.flows.coupling import Coupling, zero_convolution
from ageflow.flows.transform import Transform, over_pixels

# Of faces log σ lies within ±3 (the weights that ship). Far from any latent of a face it grows without end, as z₁ is
# whatever a finer prior's exponential made it: at three times a face's z the decoded picture was not finite.
_LARGEST_LOG_SIGMA = 7.0


class ConditionalWhitening(Coupling):
    """The prior at a split: [z₁, z₂] → [z₁, ε] with ε = (z₂ − mean(z₁)) · exp(−log σ(z₁)).

    GLOW says z₂ ~ N(mean(z₁), σ(z₁)²); then ε ~ N(0, 1), and ln |det| = −Σ log σ(z₁) carries the rest of the
    likelihood. It starts as the identity (zero-initialised convolution). log σ is kept within ±7, so a latent that is
    no face's is decoded to a finite picture too, and through it gradients are finite.

    Arguments:
        channels: channels of z₁ and z₂ together, even.
        edges: see `zero_convolution`.
    """

    def __init__(self, channels: int, edges: str = "zeros") -> None:
        super().__init__()
        self.parameters_of = zero_convolution(channels // 2, channels, edges)

    def drive(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sigma = self.parameters_of(kept).chunk(2, dim=1)
        return -mean, -log_sigma.clamp(-_LARGEST_LOG_SIGMA, _LARGEST_LOG_SIGMA)


class ConstantWhitening(Transform):
    """The prior of the deepest level: ε = (z − mean) · exp(−log σ), with a learned mean and log σ.

    Arguments:
        channels: number of channels C.
        side: 1 for one mean and log σ a channel; the level's side for one at every place.
    """

    def __init__(self, channels: int, side: int = 1) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, channels, side, side))
        self.log_sigma = nn.Parameter(torch.zeros(1, channels, side, side))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.mean) * (-self.log_sigma).exp(), -self._log_det(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y * self.log_sigma.exp() + self.mean, self._log_det(y)

    def _log_det(self, x: Tensor) -> Tensor:
        return over_pixels(self.log_sigma.mean((2, 3)).sum(), x)
