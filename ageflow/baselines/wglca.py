"""WGLCA-GAN (Li et al. 2019): GLCA-GAN on wavelet coefficients."""

from torch import Tensor

from ageflow.baselines.base import Recipe
from ageflow.baselines.blocks import haar, inverse_haar
from ageflow.baselines.glca import GLCA


class WGLCA(GLCA):
    """Wavelet-domain GLCA-GAN: generator and discriminator see Haar coefficients, one level up to 128×128, two above.

    The abstract names networks and losses; wavelet, levels, layers and weights are ours, and C stands in for LightCNN.
    """

    recipe = Recipe(
        100_000, 16, 1e-4, weights={"adversarial": 30.0, "identity": 20.0, "age": 3.0, "pixel": 30.0, "variation": 30.0}
    )

    @property
    def levels(self) -> int:
        """Of the wavelet packet transform."""
        return 1 if self.image_size <= 128 else 2

    @property
    def bands(self) -> int:
        return 3 * 4**self.levels

    def analysed(self, x: Tensor) -> Tensor:
        for _ in range(self.levels):
            x = haar(x)
        return x

    def drawn(self, maps: Tensor) -> Tensor:
        for _ in range(self.levels):
            maps = inverse_haar(maps)
        return maps
