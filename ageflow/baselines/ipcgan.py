"""IPCGAN (Wang et al. 2018): a conditional generator that keeps features of the face."""

from torch import Tensor

from ageflow.baselines.base import Baseline, Batch, Losses, Recipe
from ageflow.baselines.blocks import PatchD, Translator, channels_of, lsgan, with_maps


class IPCGAN(Baseline):
    """Identity-preserved conditional GAN: LSGAN with wrong labels, a feature term and an age term.

    C stands in for both of its AlexNets: its first stages for the features (conv5 there), its age head for the age. D has
    one channel of scores (the authors' 512 collapse), and its label maps come after the first convolution.
    """

    recipe = Recipe(200_000, 32, 1e-3, weights={"adversarial": 75.0, "identity": 100.0, "age": 30.0})

    def build(self, attributes: int) -> None:
        (base,) = channels_of(self.width, 32)
        self.generator = Translator(3 + self.groups, base, blocks=6, norm="batch")
        self.critic = PatchD(3, channels_of(self.width, 64, 128, 256, 512), (2, 2, 2, 1), [self.groups])

    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        return self.generator(with_maps(x, target))[0].tanh()

    def score(self, faces: Tensor, labels: Tensor) -> Tensor:
        """D of faces and labels [B, groups]."""
        return self.critic(faces, labels)[0]

    def generator_losses(self, batch: Batch) -> Losses:
        y = self.generate(batch.x, batch.target, None, batch.attributes)
        batch.made = {"faces": y.detach()}
        return self.losses_of(y, batch)

    def losses_of(self, y: Tensor, batch: Batch) -> Losses:
        """LSGAN, features kept, and C's age, of the made faces."""
        adversarial = lsgan(self.score(y, batch.target), 1)
        return {"adversarial": adversarial, "identity": batch.identity_loss(y), "age": batch.age_loss(y)}

    def critic_losses(self, batch: Batch) -> Losses:
        """LSGAN: real faces of the target group against others' labels and the made faces.

        ½(D(y|t) − 1)² + ½·½(D(y|f)² + D(G|t)²).
        """
        return {
            "real": lsgan(self.score(batch.y, batch.target), 1),
            "wrong": 0.5 * lsgan(self.score(batch.y, batch.wrong), 0),
            "fake": 0.5 * lsgan(self.score(batch.made["faces"], batch.target), 0),
        }
