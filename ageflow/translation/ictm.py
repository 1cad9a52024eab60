"""ICTM: the invertible conditional translation module T with its prior generator (Eq. 3, Fig. 2b), what stands in for it
in the ablation (3.4), and the discriminator (Fig. 3)."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ageflow.config import Condition, LatentChoice, ParameterError
from ageflow.flows.coupling import zero_convolution
from ageflow.flows.transform import ShapeError, Squeeze
from ageflow.translation.ages import as_weights
from ageflow.translation.calibration import condition_of

Shapes = Sequence[tuple[int, int, int]]
Parts = tuple[Tensor, Tensor, Tensor]  # (z, μ, log σ)


class ICTMConfig(BaseModel):
    """The shape of an `ICTM` (or of the network that stands in for it in the ablation).

    Arguments:
        latent: which levels of the latent T and D see: ``all``, ``top`` (the deepest), or their numbers from 0.
        couplings: m; the paper has 32.
        width: hidden channels of each F.
        condition: what the prior generator sees: the ``target`` group (the paper), or the target less the face's own
            age (``source_aware``, ours).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    latent: LatentChoice = "all"
    couplings: int = Field(32, ge=1)
    width: int = Field(64, ge=4)
    condition: Condition = "target"
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
        self.all_shapes, self.dimensions = shapes, sum(map(math.prod, self.shapes))

    def take(self, z: Tensor) -> list[Tensor]:
        """The visible levels of z [B, D], each [B, C, H, W]."""
        parts = _levels(z, self.all_shapes)
        return [parts[level] for level in self.levels]

    def flat(self, z: Tensor) -> Tensor:
        """The visible part of z [B, D] as one vector [B, dimensions]."""
        return joined(self.take(z))

    def only(self, step: Tensor) -> Tensor:
        """A step [B, D] that moves the visible levels alone."""
        return self.put(torch.zeros_like(step), self.take(step))

    def cut(self, flat: Tensor) -> list[Tensor]:
        """A visible vector [B, dimensions] as its levels, each [B, C, H, W]."""
        return _levels(flat, self.shapes)

    def put(self, z: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """z [B, D] with its visible levels replaced."""
        parts = _levels(z, self.all_shapes)
        for level, new in zip(self.levels, levels, strict=True):
            parts[level] = new
        return joined(parts)


def _levels(flat: Tensor, shapes: Shapes) -> list[Tensor]:
    parts = flat.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


def joined(levels: Iterable[Tensor]) -> Tensor:
    """Levels [B, …] as one vector [B, D]."""
    return torch.cat([level.flatten(1) for level in levels], dim=1)


class TranslationNetwork(nn.Module):
    """F_i: two convolutions (3×3, 1×1), channel attention, and a convolution that starts at zero.

    The attention is squeeze-and-excitation (Hu et al. 2018): each channel times a function of all channels' means.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        narrow = max(8, width // 4)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 1)
        self.attention = nn.Sequential(nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, width), nn.Sigmoid())
        self.last = zero_convolution(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        h = F.relu(self.second(F.relu(self.first(x))))
        return self.last(h * self.attention(h.mean((2, 3)))[:, :, None, None])


class Step(nn.Module):
    """z + s·μ, a coupling of z with its prior (ours); s is learned.

    Begun at the average latents, μ is Σ_k w_k z̄_k with w = target − source, and this is Eq. 5 with a soft source.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, mu: Tensor, strength: float) -> Tensor:
        """[B, C, H, W] each; `strength` is negative on the way back."""
        return z + strength * self.scale * mu


class Couplings(nn.Module):
    """T on one level: stack (z, μ, log σ), squeeze, m additive couplings in turn upwards and downwards, undo.

    z stands first in the stack on both sides: at the start every F is zero and T is the identity, z'_t = z_s.
    Where T knows the face's age, a coupling of its own comes first: z + s·μ (ours).
    """

    def __init__(self, channels: int, config: ICTMConfig) -> None:
        super().__init__()
        self.squeeze = Squeeze()
        # 3C channels become 12C, cut into halves of 6C
        self.networks = nn.ModuleList(TranslationNetwork(6 * channels, config.width) for _ in range(config.couplings))
        self.step = Step() if config.condition == "source_aware" else None

    def forward(self, *parts: Tensor, strength: float = 1.0) -> Parts:
        """(z_s, μ_t, log σ_t) → (z'_t, μ'_s, log σ'_s), each [B, C, H, W]."""
        z, mu, log_sigma = parts
        z = z if self.step is None else self.step(z, mu, strength)
        return self._couple((z, mu, log_sigma), range(len(self.networks)), strength)

    def inverse(self, *parts: Tensor, strength: float = 1.0) -> Parts:
        """(z'_t, μ'_s, log σ'_s) → (z_s, μ_t, log σ_t)."""
        z, mu, log_sigma = self._couple(parts, reversed(range(len(self.networks))), -strength)
        return z if self.step is None else self.step(z, mu, -strength), mu, log_sigma

    def _couple(self, parts: Sequence[Tensor], order: Iterable[int], strength: float) -> Parts:
        halves = list(self.squeeze(torch.cat(parts, dim=1))[0].chunk(2, dim=1))
        for number in order:
            moved, seen = number % 2, 1 - number % 2  # F_1 sees the bottom half and moves the top one
            halves[moved] = halves[moved].add(self.networks[number](halves[seen]), alpha=strength)
        return self.squeeze.inverse(torch.cat(halves, dim=1))[0].chunk(3, dim=1)


class Residuals(nn.Module):
    """What stands in for `Couplings` in the ablation: residual convolutions on the stack, which cannot be inverted."""

    def __init__(self, channels: int, config: ICTMConfig) -> None:
        super().__init__()
        self.networks = nn.ModuleList(TranslationNetwork(3 * channels, config.width) for _ in range(config.couplings))
        self.step = Step() if config.condition == "source_aware" else None

    def forward(self, z: Tensor, mu: Tensor, log_sigma: Tensor, strength: float = 1.0) -> tuple[Tensor]:
        """(z_s, μ_t, log σ_t) → (z'_t,), each [B, C, H, W]."""
        z = z if self.step is None else self.step(z, mu, strength)
        x = torch.cat([z, mu, log_sigma], dim=1).contiguous(memory_format=torch.channels_last)
        for network in self.networks:
            x = x.add(network(x), alpha=strength)
        return x.chunk(3, dim=1)[:1]


class Translator(nn.Module):
    """What ICTM and its ablation share: the visible levels, the prior generator, a network a level.

    The prior generator, target age → N(μ_t, σ_t²), is a zero-initialised linear map of the group weights (Fig. 2a;
    log σ is ours).

    Arguments:
        config: an `ICTMConfig`.
        latent_shapes: (C, H, W) of each level, `Glow.latent_shapes`.
        groups: number of age groups.
        combinations: K, of attributes, that a source tells apart; where T is told the source.
    """

    kind: str
    level: type[nn.Module]

    def __init__(self, config: ICTMConfig, latent_shapes: Shapes, groups: int = 4, combinations: int = 1) -> None:
        super().__init__()
        self.config, self.groups, self.combinations = config, groups, combinations
        self.latent_shapes = [tuple(shape) for shape in latent_shapes]
        self.visible = VisibleLatent(config.latent, self.latent_shapes)
        self.checks_targets = True  # for which the host waits for the device: training switches it off
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # the CPU's, which is put back
            self.prior = nn.Linear(groups * combinations, 2 * self.visible.dimensions)
            self.levels = nn.ModuleList(self.level(channels, config) for channels, _, _ in self.visible.shapes)
        for parameter in self.prior.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)

    @property
    def shape(self) -> dict[str, object]:
        """All that the weights need to be used again."""
        shape = self.config.model_dump(exclude={"seed"}) | {"kind": self.kind, "groups": self.groups}
        shape |= {"combinations": self.combinations}
        return shape | {"latent_shapes": [list(shape) for shape in self.latent_shapes]}

    @torch.no_grad()
    def start_from(self, means: Tensor, scale: float) -> None:
        """Set μ_t to `means` [groups · K, dimensions], average latents; log σ_t stays 0.

        Where T knows the face's age, its first step begins as s = `scale`.
        """
        self.prior.weight[: means.shape[1]].copy_(means.T)
        for level in self.levels:
            if level.step is not None:
                level.step.scale.fill_(scale)

    def forward(
        self,
        z_s: Tensor,
        target: Tensor,
        strength: float = 1.0,
        source: Tensor | None = None,
        length: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Move latents to another age.

        Arguments:
            z_s: latents [B, D].
            target: age groups, int [B], or weights over the groups [B, groups]: any age between;
                one for all, too.
            strength: how much of the way (ours): what every coupling adds is taken so many times. 0 is the identity,
                1 what was trained; T is exactly invertible at each.
            source: weights over groups × combinations [B, groups · K], what C reads in the faces (`Reader`);
                where the condition is ``source_aware``, which needs them.
            length: how many times the condition counts [B], `Reader.lengths`; None: once.

        Returns:
            z'_t [B, D]; of ICTM also μ'_s and log σ'_s [B, dimensions T sees].
        """
        condition = as_weights(target, self.groups, self.checks_targets, len(z_s)).to(z_s)
        if self.config.condition == "source_aware":
            own = as_weights(source, self.groups * self.combinations, self.checks_targets, len(z_s))
            condition = condition_of(condition, own.to(z_s))
            condition = condition if length is None else condition * length[:, None].to(z_s)
        prior = self.prior(condition)
        parts = zip(self.levels, self.visible.take(z_s), *map(self.visible.cut, prior.chunk(2, dim=1)), strict=True)
        return self._joined(z_s, [level(*part, strength=strength) for level, *part in parts])

    def _joined(self, z: Tensor, levels: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        moved, *others = zip(*levels, strict=True)
        return self.visible.put(z, moved), *map(joined, others)


class ICTM(Translator):
    """T(z_s, μ_t, σ_t) = (z'_t, μ'_s, σ'_s), Eq. 3; exactly invertible.

    Each visible level of the latent has couplings of its own; levels that T does not see pass unchanged.

    Arguments:
        config: an `ICTMConfig`.
        latent_shapes: (C, H, W) of each level, `Glow.latent_shapes`.
        groups: number of age groups.
        combinations: K, see `Translator`.

    Raises:
        ShapeError: a visible level has an odd side, so its couplings cannot halve it.

    Example:
        >>> translator = ICTM(ICTMConfig(couplings=2, width=8), [(6, 4, 4), (24, 2, 2)], groups=4)
        >>> z = torch.randn(2, 192)
        >>> z_t, mu_s, log_sigma_s = translator(z, torch.tensor([3, 0]))
        >>> bool((z_t == z).all())  # the identity at the start
        True
    """

    kind, level = "ictm", Couplings

    def __init__(self, config: ICTMConfig, latent_shapes: Shapes, groups: int = 4, combinations: int = 1) -> None:
        super().__init__(config, latent_shapes, groups, combinations)
        fitting = [level for level, (_, *sides) in enumerate(latent_shapes) if not any(side % 2 for side in sides)]
        if not {*self.visible.levels} <= {*fitting}:
            message = f"latent = {config.latent!r}: T halves every level that it sees, of {self.latent_shapes}"
            raise ShapeError(f"{message}: pass latent = {fitting}, or train a GLOW of fewer levels")

    def inverse(self, z_t: Tensor, mu_s: Tensor, log_sigma_s: Tensor, strength: float = 1.0) -> Parts:
        """Undo `forward` of that strength: its three outputs → (z_s [B, D], μ_t, log σ_t)."""
        visible = self.visible
        parts = zip(self.levels, visible.take(z_t), visible.cut(mu_s), visible.cut(log_sigma_s), strict=True)
        return self._joined(z_t, [level.inverse(*part, strength=strength) for level, *part in parts])


class ConvolutionalTranslator(Translator):
    """AgeFlow w/o ICTM (3.4), as a conditional GAN would have it: residual convolutions on (z_s, μ_t, log σ_t).

    It has ICTM's prior generator, its F_i in the same number, and starts as the identity too, so that the ablation
    changes one thing: invertibility. Its F_i see 3C channels at every place, where ICTM's see 6C at every fourth: at
    half the width they do as many multiply-adds.

    Arguments:
        config, latent_shapes, groups, combinations: as `ICTM`.
    """

    kind, level = "no_ictm", Residuals


class Discriminator(nn.Module):
    """D and A (2.2, Fig. 3): real or translated, and which age group, seen in the latent.

    An MLP: two linear layers with spectral normalisation and leaky ReLU 0.2, then two heads.

    Arguments:
        dimensions: length of the latent part it sees.
        groups: n, the number of age groups.
        width: neurons of the two layers.

    Example:
        >>> confidence, age = Discriminator(12, groups=4)(torch.zeros(2, 12))
        >>> confidence.shape, age.shape
        (torch.Size([2]), torch.Size([2, 4]))
    """

    def __init__(self, dimensions: int, groups: int, width: int = 512) -> None:
        super().__init__()
        linear = (spectral_norm(nn.Linear(seen, width)) for seen in (dimensions, width))
        self.body = nn.Sequential(*(layer for each in linear for layer in (each, nn.LeakyReLU(0.2))))
        self.real, self.age = nn.Linear(width, 1), nn.Linear(width, groups)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, dimensions] → (D(z) [B], A(z) logits [B, groups])."""
        h = self.body(z)
        return self.real(h).squeeze(1), self.age(h)
