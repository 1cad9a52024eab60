"""ICTM: the invertible conditional translation module T, and its prior generator (Eq. 3, Fig. 2b)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ageflow.config import LatentChoice, ParameterError
from ageflow.flows.coupling import zero_convolution
from ageflow.flows.transform import ShapeError, Squeeze
from ageflow.translation.ages import as_weights

Shapes = Sequence[tuple[int, int, int]]
Parts = tuple[Tensor, Tensor, Tensor]  # (z, μ, log σ)


class ICTMConfig(BaseModel):
    """The shape of an `ICTM` (or of the network that stands in for it in the ablation).

    Arguments:
        latent: which levels of the latent T and D see: ``all``, ``top`` (the deepest), or their numbers from 0.
        couplings: m; the paper has 32.
        width: hidden channels of each F.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    latent: LatentChoice = "all"
    couplings: int = Field(32, ge=1)
    width: int = Field(64, ge=4)
    seed: int = 0


class VisibleLatent:
    """Cuts the levels that T and D see out of a flat latent [B, D], and puts them back.

    Arguments:
        latent: ``all``, ``top`` or level numbers.
        shapes: (C, H, W) of each level, `Glow.latent_shapes`.
    """

    def __init__(self, latent: str | list[int], shapes: Shapes) -> None:
        levels = {"all": list(range(len(shapes))), "top": [len(shapes) - 1]}.get(str(latent), latent)
        if not levels or any(not 0 <= level < len(shapes) for level in levels) or len(set(levels)) < len(levels):
            raise ParameterError(f"latent = {latent!r}: expected 'all', 'top' or some levels of 0 … {len(shapes) - 1}")
        self.levels = sorted(levels)
        self.shapes = [tuple(shapes[level]) for level in self.levels]
        self.sizes = [math.prod(shape) for shape in shapes]
        self.dimensions = sum(self.sizes[level] for level in self.levels)

    def take(self, z: Tensor) -> list[Tensor]:
        """The visible levels of z [B, D], each [B, C, H, W]."""
        parts = z.split(self.sizes, dim=1)
        return [parts[level].unflatten(1, shape) for level, shape in zip(self.levels, self.shapes, strict=True)]

    def flat(self, z: Tensor) -> Tensor:
        """The visible part of z [B, D] as one vector [B, dimensions]."""
        return joined(self.take(z))

    def cut(self, flat: Tensor) -> list[Tensor]:
        """A visible vector [B, dimensions] as its levels, each [B, C, H, W]."""
        parts = flat.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def put(self, z: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """z [B, D] with its visible levels replaced."""
        parts = list(z.split(self.sizes, dim=1))
        for level, new in zip(self.levels, levels, strict=True):
            parts[level] = new
        return joined(parts)


def joined(levels: Iterable[Tensor]) -> Tensor:
    """Levels [B, …] as one vector [B, D]."""
    return torch.cat([level.flatten(1) for level in levels], dim=1)


class PriorGenerator(nn.Module):
    """Target age → N(μ_t, σ_t²): a zero-initialised linear map of the group weights (Fig. 2a; log σ is ours).

    Arguments:
        groups: number of age groups.
        dimensions: length of the visible latent.
    """

    def __init__(self, groups: int, dimensions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(groups, 2 * dimensions)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [B, groups] → (μ_t, log σ_t), each [B, dimensions]."""
        mu, log_sigma = self.linear(weights).chunk(2, dim=1)
        return mu, log_sigma

    @torch.no_grad()
    def start_from(self, means: Tensor) -> None:
        """Set μ_t to `means` [groups, dimensions], the age groups' average latents; log σ_t stays 0."""
        self.linear.weight[: means.shape[1]].copy_(means.T)


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): scales each channel by a function of all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(8, channels // 4)
        self.layers = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same."""
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


class TranslationNetwork(nn.Module):
    """F_i: two convolutions (3×3, 1×1), channel attention, and a convolution that starts at zero."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 1)
        self.attention = ChannelAttention(width)
        self.last = zero_convolution(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        h = F.relu(self.second(F.relu(self.first(x))))
        return self.last(self.attention(h))


class LevelTranslator(nn.Module):
    """T on one level: stack (z, μ, log σ), squeeze, m additive couplings in turn upwards and downwards, undo.

    z stands first in the stack on both sides: at the start every F is zero and T is the identity, z'_t = z_s.
    """

    def __init__(self, channels: int, config: ICTMConfig) -> None:
        super().__init__()
        self.squeeze = Squeeze()
        # 3C channels become 12C, cut into halves of 6C
        self.networks = nn.ModuleList(TranslationNetwork(6 * channels, config.width) for _ in range(config.couplings))

    def forward(self, *parts: Tensor, strength: float = 1.0) -> Parts:
        """(z_s, μ_t, log σ_t) → (z'_t, μ'_s, log σ'_s), each [B, C, H, W]."""
        return self._couple(parts, range(len(self.networks)), strength)

    def inverse(self, *parts: Tensor, strength: float = 1.0) -> Parts:
        """(z'_t, μ'_s, log σ'_s) → (z_s, μ_t, log σ_t)."""
        return self._couple(parts, reversed(range(len(self.networks))), -strength)

    def _couple(self, parts: Sequence[Tensor], order: Iterable[int], strength: float) -> Parts:
        halves = list(self.squeeze(torch.cat(parts, dim=1))[0].chunk(2, dim=1))
        for number in order:
            moved, seen = number % 2, 1 - number % 2  # F_1 sees the bottom half and moves the top one
            halves[moved] = halves[moved].add(self.networks[number](halves[seen]), alpha=strength)
        return self.squeeze.inverse(torch.cat(halves, dim=1))[0].chunk(3, dim=1)


class Translator(nn.Module, ABC):
    """What ICTM and its ablation share: the visible levels, the prior generator, a network a level.

    Arguments:
        config: an `ICTMConfig`.
        latent_shapes: (C, H, W) of each level, `Glow.latent_shapes`.
        groups: number of age groups.
    """

    kind: str

    def __init__(self, config: ICTMConfig, latent_shapes: Shapes, groups: int = 4) -> None:
        super().__init__()
        self.config = config
        self.groups = groups
        self.latent_shapes = [tuple(shape) for shape in latent_shapes]
        self.visible = VisibleLatent(config.latent, latent_shapes)
        self.checks_targets = True  # for which the host waits for the device: training switches it off
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # the CPU's, which is put back
            self.prior = PriorGenerator(groups, self.visible.dimensions)
            self.levels = nn.ModuleList(self.level(channels) for channels, _, _ in self.visible.shapes)
        self.to(memory_format=torch.channels_last)

    @property
    def shape(self) -> dict[str, object]:
        """All that the weights need to be used again."""
        shape = self.config.model_dump(exclude={"seed"}) | {"kind": self.kind, "groups": self.groups}
        return shape | {"latent_shapes": [list(shape) for shape in self.latent_shapes]}

    @abstractmethod
    def level(self, channels: int) -> nn.Module:
        """The network of a level of so many channels."""

    def inputs(self, z_s: Tensor, target: Tensor) -> list[Parts]:
        """(z_s, μ_t, log σ_t) of each visible level, each [B, C, H, W]."""
        mu, log_sigma = self.prior(as_weights(target, self.groups, check=self.checks_targets).to(z_s))
        return list(zip(self.visible.take(z_s), self.visible.cut(mu), self.visible.cut(log_sigma), strict=True))


class ICTM(Translator):
    """T(z_s, μ_t, σ_t) = (z'_t, μ'_s, σ'_s), Eq. 3; exactly invertible.

    Each visible level of the latent has couplings of its own; levels that T does not see pass unchanged.

    Arguments:
        config: an `ICTMConfig`.
        latent_shapes: (C, H, W) of each level, `Glow.latent_shapes`.
        groups: number of age groups.

    Example:
        >>> translator = ICTM(ICTMConfig(couplings=2, width=8), [(6, 4, 4), (24, 2, 2)], groups=4)
        >>> z = torch.randn(2, 192)
        >>> z_t, mu_s, log_sigma_s = translator(z, torch.tensor([3, 0]))
        >>> bool((z_t == z).all())  # the identity at the start
        True

    Raises:
        ShapeError: a visible level has an odd side, so its couplings cannot halve it.
    """

    kind = "ictm"

    def __init__(self, config: ICTMConfig, latent_shapes: Shapes, groups: int = 4) -> None:
        super().__init__(config, latent_shapes, groups)
        fitting = [level for level, (_, *sides) in enumerate(latent_shapes) if not any(side % 2 for side in sides)]
        if odd := [level for level in self.visible.levels if level not in fitting]:
            raise ShapeError(
                f"latent = {config.latent!r}: level {odd[0]} of this GLOW is {latent_shapes[odd[0]][1]}×"
                f"{latent_shapes[odd[0]][2]}, and T halves every level that it sees: pass latent = {fitting}, or train "
                "a GLOW of fewer levels"
            )

    def level(self, channels: int) -> nn.Module:
        """T's couplings on a level of so many channels."""
        return LevelTranslator(channels, self.config)

    def forward(self, z_s: Tensor, target: Tensor, strength: float = 1.0) -> Parts:
        """Move latents to another age.

        Arguments:
            z_s: latents [B, D].
            target: age groups, int [B], or weights over the groups [B, groups]: any age between.
            strength: how much of the way (ours): what every coupling adds is taken so many times. 0 is the identity,
                1 what was trained; T is exactly invertible at each.

        Returns:
            z'_t [B, D], and μ'_s and log σ'_s [B, dimensions T sees].
        """
        parts = zip(self.levels, self.inputs(z_s, target), strict=True)
        return self._joined(z_s, [level(*part, strength=strength) for level, part in parts])

    def inverse(self, z_t: Tensor, mu_s: Tensor, log_sigma_s: Tensor, strength: float = 1.0) -> Parts:
        """Undo `forward` of that strength: its three outputs → (z_s [B, D], μ_t, log σ_t)."""
        visible = self.visible
        parts = zip(self.levels, visible.take(z_t), visible.cut(mu_s), visible.cut(log_sigma_s), strict=True)
        return self._joined(z_t, [level.inverse(*part, strength=strength) for level, *part in parts])

    def _joined(self, z: Tensor, levels: list[Parts]) -> Parts:
        moved, mu, log_sigma = zip(*levels, strict=True)
        return self.visible.put(z, moved), joined(mu), joined(log_sigma)
