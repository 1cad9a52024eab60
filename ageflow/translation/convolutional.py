"""AgeFlow w/o ICTM: convolutions in the latent, as a conditional GAN would have them (3.4)."""

import torch
from torch import Tensor, nn

from ageflow.translation.ictm import TranslationNetwork, Translator


class ConvolutionalTranslator(Translator):
    """A series of residual convolutions on (z_s, μ_t, log σ_t); it cannot be inverted.

    It has ICTM's prior generator, its F_i in the same number, and starts as the identity too, so that the ablation
    changes one thing: invertibility. Its F_i see 3C channels at every place, where ICTM's see 6C at every fourth: at
    half the width they do as many multiply-adds.

    Arguments:
        config, latent_shapes, groups: as `ICTM`.

    Example:
        >>> from ageflow.translation.ictm import ICTMConfig
        >>> translator = ConvolutionalTranslator(ICTMConfig(couplings=2, width=8), [(6, 4, 4), (24, 2, 2)])
        >>> translator(torch.zeros(2, 192), torch.tensor([3, 0]))[0].shape
        torch.Size([2, 192])
    """

    kind = "no_ictm"

    def level(self, channels: int) -> nn.ModuleList:
        """The residual convolutions on a level of so many channels."""
        return nn.ModuleList(TranslationNetwork(3 * channels, self.config.width) for _ in range(self.config.couplings))

    def forward(self, z_s: Tensor, target: Tensor, strength: float = 1.0) -> tuple[Tensor]:
        """Latents z_s [B, D] and a target, int [B] or weights [B, groups] → (z'_t [B, D],); `strength` as in `ICTM`."""
        moved = []
        for networks, part in zip(self.levels, self.inputs(z_s, target), strict=True):
            x = torch.cat(part, dim=1).contiguous(memory_format=torch.channels_last)
            for network in networks:
                x = x.add(network(x), alpha=strength)
            moved.append(x.chunk(3, dim=1)[0])
        return (self.visible.put(z_s, moved),)
