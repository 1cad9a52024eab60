"""Dual AcGAN (Li, Liu, Sun 2020): one network makes faces older, one younger, and each undoes the other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.baselines.base import Baseline, Batch, Losses, Recipe
from ageflow.baselines.blocks import PatchD, Translator, channels_of, lsgan, with_maps

_WAYS = ("younger", "older")


class _Critic(nn.Module):
    """A map of scores, and the age group that it reads."""

    def __init__(self, image_size: int, width: float, groups: int) -> None:
        super().__init__()
        halvings = image_size.bit_length() - 3  # to 4×4
        widths = channels_of(width, *(64 * 2**level for level in range(halvings)))
        self.patches = PatchD(3, widths, [2] * halvings, norm=None, slope=0.01)
        self.labels = nn.Conv2d(widths[-1], groups, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Faces → scores [B, 1, h, w] and labels [B, groups]."""
        scores, features = self.patches(x)
        return scores, self.labels(features).flatten(1)


class DualAcGAN(Baseline):
    """Progressor Gp and regressor Gr, each y = A·x + (1 − A)·C with an attention A; pairs of a younger and an older face.

    No image pool and no gradient penalty: a resumed training is to have the same numbers. Weights and rates are ours, the
    code has them for inference only. A face's own group leaves it as it is.
    """

    needs = ("source",)
    recipe = Recipe(100_000, 8, 1e-4, weights={"adversarial": 2.0, "labels": 5.0, "cycle": 10.0, "attention": 1.0})

    def build(self, attributes: int) -> None:
        (base,) = channels_of(self.width, 64)
        self.generator = nn.ModuleDict({way: Translator(3 + self.groups, base, 6, (1, 3), kernel=4) for way in _WAYS})
        self.critic = nn.ModuleDict({way: _Critic(self.image_size, self.width, self.groups) for way in _WAYS})

    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        places = torch.arange(self.groups, device=x.device).float()
        far, y = (target - source) @ places, x.clone()
        for way, mine in (("older", far > 1e-3), ("younger", far < -1e-3)):
            if mine.any():
                y[mine] = self._drawn(way, x[mine], target[mine])[0]
        return y

    def _drawn(self, way: str, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """y = A·x + (1 − A)·C, and A."""
        attention, colours = self.generator[way](with_maps(x, target))
        attention = attention.sigmoid()
        return attention * x + (1 - attention) * colours.tanh(), attention

    def generator_losses(self, batch: Batch) -> Losses:
        """LSGAN, the label that D reads, the cycle through the other network, and the attention's mean."""
        losses = dict.fromkeys(self.recipe.weights, 0.0)
        x_is_younger = batch.source.argmax(1) < batch.target.argmax(1)

        def ordered(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            young = x_is_younger.view(-1, *[1] * (x.ndim - 1))
            return torch.where(young, x, y), torch.where(young, y, x)

        pairs = (batch.x, batch.y), (batch.source, batch.target)
        faces, labels = (dict(zip(_WAYS, ordered(*pair), strict=True)) for pair in pairs)
        batch.made = {"real": faces, "labels": labels}
        for way, back in zip(_WAYS, reversed(_WAYS), strict=True):
            made, there = self._drawn(way, faces[back], labels[way])
            again, home = self._drawn(back, made, labels[back])
            batch.made[way] = made.detach()
            scores, read = self.critic[way](made)
            losses["adversarial"] += 2 * lsgan(scores, 1)
            losses["labels"] += (read - labels[way]).square().sum(1).mean()
            losses["cycle"] += F.l1_loss(again, faces[back])
            losses["attention"] += there.mean() + home.mean()
        return losses

    def critic_losses(self, batch: Batch) -> Losses:
        """LSGAN of each network's own side, and the labels of real faces."""
        losses = dict.fromkeys(("real", "fake", "labels"), 0.0)
        for way, critic in self.critic.items():
            scores, read = critic(batch.made["real"][way])
            losses["real"] += 2 * lsgan(scores, 1)
            losses["fake"] += 2 * lsgan(critic(batch.made[way])[0], 0)
            losses["labels"] += (read - batch.made["labels"][way]).square().sum(1).mean()
        return losses
