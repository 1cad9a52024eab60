"""A3GAN (Liu et al. 2019): attributes go into generator and discriminator, which sees wavelet coefficients."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ageflow.baselines.base import Baseline, Batch, Losses, Recipe
from ageflow.baselines.blocks import PatchD, Translator, channels_of, haar, lsgan, with_maps


class A3GAN(Baseline):
    """Attribute-aware ageing with wavelet-based GANs (CVPR 2019; not the attention version of that name).

    The condition is the age group beside the attributes, for one generator and both ways (ours; the paper, as far as is
    known, has a model a group). D sees wavelet coefficients of two levels beside its own features, and real faces
    with wrong conditions as negatives. C stands in for LightCNN. Layers and weights are ours.
    """

    needs = ("attributes",)
    recipe = Recipe(50_000, 16, 1e-4, weights={"adversarial": 750.0, "pixel": 800.0, "identity": 40.0})

    def build(self, attributes: int) -> None:
        (base,) = channels_of(self.width, 64)
        condition = self.groups + attributes
        self.generator = Translator(3, base, 6, condition=condition, transposed=False)
        self.critic = PatchD(3, channels_of(self.width, 64, 128, 256, 512), (2, 2, 2, 1), (12 + condition, 48))

    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        return self.generator(x, torch.cat([target, attributes], 1))[0].tanh()

    def score(self, faces: Tensor, condition: Tensor) -> Tensor:
        """D of faces, their coefficients and a condition [B, groups + A]."""
        once = haar(faces)
        return self.critic(faces, with_maps(once, condition), haar(once))[0]

    def generator_losses(self, batch: Batch) -> Losses:
        """LSGAN, pixels and features kept."""
        y = self.generate(batch.x, batch.target, None, batch.attributes)
        batch.made = {"faces": y.detach()}
        scores = self.score(y, torch.cat([batch.target, batch.attributes], 1))
        losses = {"adversarial": 2 * lsgan(scores, 1), "pixel": F.mse_loss(y, batch.x)}
        return losses | {"identity": batch.identity_loss(y)}

    def critic_losses(self, batch: Batch) -> Losses:
        """Real faces against wrong groups, wrong attributes and made faces."""
        right, made = (torch.cat([batch.target, about], 1) for about in (batch.y_attributes, batch.attributes))
        others = batch.y_attributes.split([len(labels) for labels in self.attributes.values()], 1)
        wrong = torch.cat([batch.target, *(one.roll(1, 1) for one in others)], 1)
        group = torch.cat([batch.wrong, batch.y_attributes], 1)
        cases = {"real": (batch.y, right, 1), "fake": (batch.made["faces"], made, 0), "wrong": (batch.y, group, 0)}
        cases |= {"attributes": (batch.y, wrong, 0)} if others else {}
        losses = {name: lsgan(self.score(faces, about), aim) for name, (faces, about, aim) in cases.items()}
        return {name: loss if name == "real" else loss / (len(cases) - 1) for name, loss in losses.items()}
