"""AgeFlow w/o ICTM: convolutions in the latent, as a conditional GAN would have them (3.4)."""

import torch
from torch import Tensor, nn

from ageflow.translation.ictm import ICTMConfig, PriorGenerator, Shapes, TranslationNetwork, VisibleLatent
from ageflow.translation.prototypes import as_weights

__all__ = ["ConvolutionalTranslator"]


class ConvolutionalTranslator(nn.Module):
    """A series of residual convolutions on (z_s, μ_t, log σ_t); it cannot be inverted.

    It has ICTM's prior generator, its F_i in the same number and width, and starts as the identity too, so that
    the ablation changes one thing: invertibility.

    Arguments:
        config, latent_shapes, groups: as `ICTM`.

    Example:
        >>> translator = ConvolutionalTranslator(ICTMConfig(couplings=2, width=8), [(6, 4, 4), (24, 2, 2)])
        >>> translator(torch.zeros(2, 192), torch.tensor([3, 0])).shape
        torch.Size([2, 192])
    """

    def __init__(self, config: ICTMConfig, latent_shapes: Shapes, groups: int = 4) -> None:
        super().__init__()
        self.config = config
        self.groups = groups
        self.visible = VisibleLatent(config.latent, latent_shapes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.prior = PriorGenerator(groups, self.visible.dimensions)
            self.levels = nn.ModuleList(
                nn.ModuleList(
                    TranslationNetwork(3 * channels, config.width, config.reduction) for _ in range(config.couplings)
                )
                for channels, _, _ in self.visible.shapes
            )
        self.to(memory_format=torch.channels_last)

    def forward(self, z_s: Tensor, target: Tensor) -> Tensor:
        """Latents z_s [B, D] and a target, int [B] or weights [B, groups] → z'_t [B, D]."""
        mu, log_sigma = self.prior(as_weights(target, self.groups).to(z_s))
        parts = zip(self.visible.take(z_s), self.visible.cut(mu), self.visible.cut(log_sigma), strict=True)
        moved = []
        for networks, part in zip(self.levels, parts, strict=True):
            x = torch.cat(part, dim=1).contiguous(memory_format=torch.channels_last)
            for network in networks:
                x = x + network(x)
            moved.append(x.chunk(3, dim=1)[0])
        return self.visible.put(z_s, moved)
