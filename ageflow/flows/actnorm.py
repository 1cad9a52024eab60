"""ActNorm: an affine map per channel whose first values come from data."""

import torch
from torch import Tensor, nn

from ageflow.flows.transform import NotInitializedError, Transform, over_pixels


class ActNorm(Transform):
    """y = (x + bias) · exp(log_scale), per channel (Kingma & Dhariwal 2018, 3.1).

    ln |det| = H·W·Σ log_scale. `initialize` sets both so that the given batch comes out with mean 0 and
    standard deviation 1 per channel. It is explicit and counts once: whether it has happened is a buffer, so
    a reload keeps it, and every process of a distributed run gets the same values before the model is wrapped.

    Arguments:
        channels: number of channels C.

    Raises:
        NotInitializedError: `forward` or `inverse` before `initialize` (or a loaded state).
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(False))
        self._ready = False  # mirrors the buffer on the host: reading a GPU buffer each step would wait for the GPU

    def check_initialized(self) -> None:
        """Raise `NotInitializedError` unless `initialize` or a loaded state has set the parameters."""
        self._ready = self._ready or bool(self.initialized)
        if not self._ready:
            raise NotInitializedError("ActNorm has no values yet: call initialize(x), or load a trained state")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.check_initialized()
        return (x + self.bias) * self.log_scale.exp(), over_pixels(self.log_scale.sum(), x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        self.check_initialized()
        return y * (-self.log_scale).exp() - self.bias, -over_pixels(self.log_scale.sum(), y)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Normalise the channels of `x` [B, C, H, W]; a second call changes nothing."""
        if not bool(self.initialized):
            deviation, mean = torch.std_mean(x.double(), dim=(0, 2, 3), keepdim=True, correction=0)
            self.bias.copy_(-mean)
            self.log_scale.copy_(-torch.log(deviation + 1e-6))
            self.initialized.fill_(True)
        return self(x)[0]
