"""D and A: real or translated, and which age group, seen in the latent (2.2, Fig. 3)."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """An MLP on the latent: two linear layers with spectral normalisation and leaky ReLU 0.2, then two heads.

    Arguments:
        dimensions: length of the latent part it sees.
        groups: n, the number of age groups.
        width: neurons of the two layers.

    Example:
        >>> import torch
        >>> confidence, age = Discriminator(12, groups=4)(torch.zeros(2, 12))
        >>> confidence.shape, age.shape
        (torch.Size([2]), torch.Size([2, 4]))
    """

    def __init__(self, dimensions: int, groups: int, width: int = 512) -> None:
        super().__init__()
        self.body = nn.Sequential(
            spectral_norm(nn.Linear(dimensions, width)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(width, width)),
            nn.LeakyReLU(0.2),
        )
        self.real = nn.Linear(width, 1)
        self.age = nn.Linear(width, groups)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, dimensions] → (D(z) [B], A(z) logits [B, groups])."""
        h = self.body(z)
        return self.real(h).squeeze(1), self.age(h)
