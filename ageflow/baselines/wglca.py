"""WGLCA-GAN (Li et al. 2019): GLCA-GAN on wavelet coefficients."""

from dataclasses import replace

from ageflow.baselines.glca import GLCA


class WGLCA(GLCA):
    """Wavelet-domain GLCA-GAN: generator and discriminator see Haar coefficients, one level up to 128×128, two above.

    The abstract names networks and losses; wavelet, levels, layers and weights are ours, and C stands in for LightCNN.
    """

    recipe = replace(GLCA.recipe, weights=GLCA.recipe.weights | {"pixel": 30.0, "variation": 30.0})

    @property
    def levels(self) -> int:
        """Of the wavelet packet transform."""
        return 1 if self.image_size <= 128 else 2
