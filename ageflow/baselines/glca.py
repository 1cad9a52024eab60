"""GLCA-GAN (Li et al. 2018): a global and three local networks that draw what changes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.baselines.base import Batch, Losses, Recipe
from ageflow.baselines.blocks import PatchD, Translator, channels_of, haar, inverse_haar, total_variation, with_maps
from ageflow.baselines.ipcgan import IPCGAN

# Forehead, eyes and mouth of an aligned face, eighths of its side: top, bottom; all from the 1st to the 7th column.
_PATCHES = ((0, 3), (2, 5), (5, 8))


def _window(height: int, width: int, like: Tensor) -> Tensor:
    """1 inside, falling to 0 over an eighth at each edge: [height, width]."""
    rows, columns = (
        torch.linspace(0, 8, n, device=like.device).minimum(torch.linspace(8, 0, n, device=like.device)).clamp(max=1)
        for n in (height, width)
    )
    return rows[:, None] * columns


class GlobalLocal(nn.Module):
    """What to add, at first nothing: of one network for all of the maps, and of one for each patch, feathered into its place.

    Arguments:
        channels: of the maps.
        labels: numbers a face about the target.
        base: channels of the global network's stem; the local ones have half.
    """

    def __init__(self, channels: int, labels: int, base: int) -> None:
        super().__init__()
        sizes = [(base, 6), *[(base // 2, 2)] * len(_PATCHES)]  # stem and residual blocks
        self.networks = nn.ModuleList(
            Translator(channels + labels, *size, (channels,), transposed=False) for size in sizes
        )
        for network in self.networks:
            nn.init.zeros_(network.heads[0].weight)
            nn.init.zeros_(network.heads[0].bias)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """[B, C, H, W] and [B, labels] → [B, C, H, W]."""
        height, width = x.shape[2:]
        whole, *parts = self.networks
        added = whole(with_maps(x, labels))[0]
        left, right = width // 8, width - width // 8
        for network, (top, bottom) in zip(parts, _PATCHES, strict=True):
            top, bottom = top * height // 8, bottom * height // 8
            part = network(with_maps(x[:, :, top:bottom, left:right], labels))[0]
            part = part * _window(bottom - top, right - left, part)
            added = added + F.pad(part, (left, width - right, top, height - bottom))
        return added


class GLCA(IPCGAN):
    """Global and local consistent age GAN: y = x + global + three local residuals; both ways.

    The abstract names networks and losses; patches, layers and weights are ours, D is IPCGAN's, and C stands in for
    LightCNN.
    """

    recipe = Recipe(
        100_000, 16, 1e-4, weights={"adversarial": 30.0, "identity": 20.0, "age": 3.0, "pixel": 20.0, "variation": 0.0}
    )
    levels = 0  # of the wavelet packet transform whose bands the networks see: WGLCA-GAN's

    def build(self, attributes: int) -> None:
        (base,), bands = channels_of(self.width, 32), 3 * 4**self.levels
        self.generator = GlobalLocal(bands, self.groups, base)
        widths = channels_of(self.width, 64, 128, 256, 512)
        self.critic = PatchD(bands, widths, (2, 2, 1, 1) if self.levels else (2, 2, 2, 1), [self.groups])

    def bands_of(self, x: Tensor) -> Tensor:
        """What the networks see of faces."""
        for _ in range(self.levels):
            x = haar(x)
        return x

    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        bands = self.bands_of(x)
        y = bands + self.generator(bands, target)
        for _ in range(self.levels):
            y = inverse_haar(y)
        return y.clamp(-1, 1)

    def score(self, faces: Tensor, labels: Tensor) -> Tensor:
        return super().score(self.bands_of(faces), labels)

    def losses_of(self, y: Tensor, batch: Batch) -> Losses:
        """IPCGAN's, pixels kept, and WGLCA-GAN's total variation."""
        return super().losses_of(y, batch) | {"pixel": F.l1_loss(y, batch.x), "variation": total_variation(y)}
