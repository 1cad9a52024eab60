"""CAAE (Zhang, Song, Qi 2017): a face is z, and a decoder draws z at any age."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.baselines.base import Baseline, Batch, Losses, Recipe
from ageflow.baselines.blocks import channels_of, normalisation, total_variation, with_maps

_Z = 50


def _coded(one_hot: Tensor) -> Tensor:
    """One-hot or weights [B, n] as −1 … +1, tiled to about z's length, so that they weigh as much."""
    return (2 * one_hot - 1).repeat(1, _Z // max(1, one_hot.shape[1]))


def _bce(logits: Tensor, aim: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, aim))


class _ImageCritic(nn.Module):
    """Dimg: four 5×5 convolutions that halve, the labels as maps after the first, two linear layers."""

    def __init__(self, image_size: int, width: float, labels: int) -> None:
        super().__init__()
        sizes = channels_of(width, 16, 32, 64, 128)
        seen = [3, sizes[0] + labels, *sizes[1:-1]]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 5, 2, 2), normalisation("batch", after), nn.ReLU())
            for before, after in zip(seen, sizes, strict=True)
        )
        (hidden,) = channels_of(width, 1024)
        side = image_size // 16
        self.score = nn.Sequential(
            nn.Flatten(), nn.Linear(sizes[-1] * side**2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Faces [B, 3, S, S] and labels [B, n] → logits [B, 1]."""
        for number, layer in enumerate(self.layers):
            x = layer(with_maps(x, labels) if number == 1 else x)
        return self.score(x)


class CAAE(Baseline):
    """Conditional adversarial autoencoder. It learns to draw a face at its own age; at the test the label is changed.

    As the authors' code trains it: L1, and weights of 0 for Dz and the total variation. Label and attributes (gender)
    are tiled to about z's length. Dz has no normalisation (ours), so that one face is a batch.
    """

    needs = ("attributes",)
    recipe = Recipe(12_000, 100, 2e-4, weights={"pixel": 1.0, "adversarial": 1e-4, "uniform": 0.0, "variation": 0.0})

    def build(self, attributes: int) -> None:
        halvings = self.image_size.bit_length() - 3  # to 4×4
        sizes = channels_of(self.width, *(64 * 2**level for level in range(halvings)))
        labels = sum(_coded(torch.zeros(1, n)).shape[1] for n in (self.groups, attributes))
        encoder = []
        for before, after in pairwise([3, *sizes]):
            encoder += [nn.Conv2d(before, after, 5, 2, 2), nn.ReLU()]
        encoder += [nn.Flatten(), nn.Linear(sizes[-1] * 16, _Z), nn.Tanh()]
        decoder = [nn.Linear(_Z + labels, sizes[-1] * 16), nn.ReLU(), nn.Unflatten(1, (sizes[-1], 4, 4))]
        wide, last = channels_of(self.width, 32, 16)
        for before, after in pairwise([*sizes[::-1], wide]):
            decoder += [nn.ConvTranspose2d(before, after, 5, 2, 2, output_padding=1), nn.ReLU()]
        decoder += [nn.Conv2d(wide, last, 5, 1, 2), nn.ReLU(), nn.Conv2d(last, 3, 5, 1, 2), nn.Tanh()]
        self.generator = nn.ModuleDict({"encoder": nn.Sequential(*encoder), "decoder": nn.Sequential(*decoder)})
        self.critic_z = nn.Sequential(
            nn.Linear(_Z, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
        )
        self.critic = _ImageCritic(self.image_size, self.width, labels)

    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        return self._drawn(x, target, attributes)[0]

    def _drawn(self, x: Tensor, age: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Faces at an age; their z, and the labels that they were drawn with."""
        z, labels = self.generator["encoder"](x), torch.cat([_coded(age), _coded(attributes)], 1)
        return self.generator["decoder"](torch.cat([z, labels], 1)), z, labels

    def objectives(self):
        return super().objectives() | {"Dz": (self.critic_z, self.critic_z_losses)}

    def generator_losses(self, batch: Batch) -> Losses:
        """|x − G(z, own age)|, and three weak terms."""
        y, z, labels = self._drawn(batch.x, batch.source, batch.attributes)
        batch.made = {"z": z.detach(), "faces": y.detach(), "labels": labels}
        adversarial, uniform = _bce(self.critic(y, labels), 1), _bce(self.critic_z(z), 1)
        losses = {"pixel": F.l1_loss(y, batch.x), "adversarial": adversarial, "uniform": uniform}
        return losses | {"variation": total_variation(y)}

    def critic_losses(self, batch: Batch) -> Losses:
        """Dimg: real faces with their labels against the drawn ones."""
        faces, labels = batch.made["faces"], batch.made["labels"]
        return {"real": _bce(self.critic(batch.x, labels), 1), "fake": _bce(self.critic(faces, labels), 0)}

    def critic_z_losses(self, batch: Batch) -> Losses:
        """Dz: uniform numbers in (−1, 1) against z."""
        prior = 2 * batch.part.rows(torch.rand(batch.part.size, _Z, device=batch.x.device)) - 1
        return {"real": _bce(self.critic_z(prior), 1), "fake": _bce(self.critic_z(batch.made["z"]), 0)}
