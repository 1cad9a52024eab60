"""GLCA-GAN (Li et al. 2018): a global and three local networks that draw what changes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.baselines.base import Baseline, Batch, Losses, Recipe, conditional
from ageflow.baselines.blocks import PatchD, Translator, channels_of, lsgan, total_variation, with_maps

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
    """What to add: of one network for all of the maps, and of one for each patch, feathered into its place.

    Arguments:
        channels: of the maps.
        labels: numbers a face about the target.
        base: channels of the global network's stem; the local ones have half.
    """

    def __init__(self, channels: int, labels: int, base: int) -> None:
        super().__init__()
        whole = Translator(channels + labels, base, 6, (channels,), zero=True, transposed=False)
        parts = (
            Translator(channels + labels, base // 2, 2, (channels,), zero=True, transposed=False) for _ in _PATCHES
        )
        self.networks = nn.ModuleList([whole, *parts])

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


class GLCA(Baseline):
    """Global and local consistent age GAN: y = x + global + three local residuals; both ways.

    The abstract names networks and losses; patches, layers and weights are ours, and C stands in for LightCNN.
    """

    recipe = Recipe(
        100_000, 16, 1e-4, weights={"adversarial": 30.0, "identity": 20.0, "age": 3.0, "pixel": 20.0, "variation": 0.0}
    )
    bands = 3  # channels that the networks see

    def build(self, attributes: int) -> None:
        (base,) = channels_of(self.width, 32)
        self.generator = GlobalLocal(self.bands, self.groups, base)
        widths = channels_of(self.width, 64, 128, 256, 512)
        self.critic = PatchD(self.bands, widths, (2, 2, 2, 1) if self.bands == 3 else (2, 2, 1, 1), self.groups)

    def analysed(self, x: Tensor) -> Tensor:
        """What the networks see of faces."""
        return x

    def drawn(self, maps: Tensor) -> Tensor:
        """The faces of what the networks made."""
        return maps

    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        maps = self.analysed(x)
        return self.drawn(maps + self.generator(maps, target)).clamp(-1, 1)

    def objectives(self):
        return {
            "G": (self.generator, self.generator_losses),
            "D": (self.critic, lambda batch: conditional(self._score, batch)),
        }

    def _score(self, faces: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.critic(self.analysed(faces), labels)

    def generator_losses(self, batch: Batch) -> Losses:
        """LSGAN, features kept, C's age, pixels kept; WGLCA-GAN's total variation."""
        y = self.generate(batch.x, batch.target, None, batch.attributes)
        batch.made = {"faces": y.detach()}
        losses = {"adversarial": lsgan(self._score(y, batch.target)[0], 1)}
        losses |= {"identity": batch.identity_loss(y), "age": batch.age_loss(y), "pixel": F.l1_loss(y, batch.x)}
        return losses | {"variation": total_variation(y)}
