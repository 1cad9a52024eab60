"""PAG-GAN (Yang et al. 2018): one generator for each older group, judged on a pyramid of features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.baselines.base import Baseline, Batch, Losses, Recipe
from ageflow.baselines.blocks import Translator, channels_of, feature_distance, lsgan, stages_of


class PyramidD(nn.Module):
    """Four paths of halving 4×4 convolutions, one on each stage of C, to small maps, one above the other.

    Arguments:
        stages: [channels, side] of C's stages.
        width: share of the paper's channels.
    """

    def __init__(self, stages: list[list[int]], width: float) -> None:
        super().__init__()
        self.paths = nn.ModuleList()
        for place, (channels, side) in enumerate(stages):
            layers = []
            for size in channels_of(width, *(128, 256, 512, 512, 512)[place:]):
                if side < 8:
                    break
                layers += [nn.Conv2d(channels, size, 4, 2, 1, bias=False), nn.BatchNorm2d(size), nn.LeakyReLU(0.2)]
                channels, side = size, side // 2
            self.paths.append(nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 2, 1)))

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Features of faces → scores, stacked: at the paper's 224×224 [B, 1, 12, 3]."""
        return torch.cat([path(stage) for path, stage in zip(self.paths, stages, strict=True)], dim=2)


class PAG(Baseline):
    """Pyramid architecture of GANs: the youngest group's faces to each older one, a G and a D for each.

    It neither makes faces younger nor begins from another group: `pairs` says so, and tables say of how many faces they
    speak. All its models are trained in every update. C stands in for the VGG-16 whose features D sees, and for VGG-Face.
    λ_p is the paper's on 0-255, λ_i ours.
    """

    needs = ("source",)
    mixes = False
    recipe = Recipe(50_000, 8, 1e-4, weights={"adversarial": 750.0, "pixel": 3251.0, "identity": 200.0})

    def build(self, attributes: int) -> None:
        (base,) = channels_of(self.width, 32)
        older = range(1, self.groups)
        self.generator = nn.ModuleList(Translator(3, base, 5, stem=9) for _ in older)
        self.critic = nn.ModuleList(PyramidD(self.stages, self.width) for _ in older)

    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        y, chosen = x.clone(), target.argmax(1)
        for number, network in enumerate(self.generator, 1):
            if (mine := chosen == number).any():
                y[mine] = self._aged(network, x[mine])
        return y

    def _aged(self, network: nn.Module, x: Tensor) -> Tensor:
        # Up to 150/127.5, so that white is reached; pixels end at ±1 (ours).
        return (network(x)[0].tanh() * (150 / 127.5)).clamp(-1, 1)

    @property
    def pairs(self) -> frozenset[tuple[int, int]]:
        return frozenset((0, target) for target in range(1, self.groups))

    def generator_losses(self, batch: Batch) -> Losses:
        """LSGAN, pixels and features kept, of every older group."""
        losses = dict.fromkeys(self.recipe.weights, 0.0)
        batch.made = {"faces": []}
        for network, critic in zip(self.generator, self.critic, strict=True):
            y = self._aged(network, batch.x)
            batch.made["faces"].append(y.detach())
            stages = stages_of(batch.c, y)
            losses["adversarial"] += 2 * lsgan(critic(stages), 1)
            losses["pixel"] += F.mse_loss(y, batch.x)
            losses["identity"] += feature_distance(stages, batch.x_stages)
        return losses

    def critic_losses(self, batch: Batch) -> Losses:
        """Old faces against made and real young ones."""
        losses = dict.fromkeys(("real", "fake", "young"), 0.0)
        for number, (critic, made) in enumerate(zip(self.critic, batch.made["faces"], strict=True), 1):
            old = batch.real(torch.full((len(made),), number))
            with torch.no_grad():
                real, fake = (stages_of(batch.c, faces) for faces in (old, made))
            for name, found in {"real": real, "fake": fake, "young": batch.x_stages}.items():
                losses[name] += lsgan(critic(found), 1 if name == "real" else 0)
        return losses
