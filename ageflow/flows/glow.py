"""GLOW: faces to standard normal latents and back, exactly (paper 2.2, Fig. 2a)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Generator, Tensor

from ageflow.checkpoint import load_state, newest
from ageflow.device import device_of, exact_products, free_memory
from ageflow.flows.prior import ConditionalWhitening, ConstantWhitening
from ageflow.flows.step import Chain, FlowStep
from ageflow.flows.transform import ShapeError, Squeeze, Transform

_AT_ONCE = 2**29  # bytes that a coupling network may take on a CPU where no gradient is asked for
_MOST_AT_ONCE = 2**33  # and on a GPU, whose kernels count a tensor's values in 32 bits
_BEYOND = 16  # no float picture in [0, 1] reaches this, whatever was done to it; one in 0 … 255 does


class GlowConfig(BaseModel):
    """The shape of a `Glow`.

    ``steps`` is one number, or one number a level. ``bits`` is what the likelihood is computed at; encoding
    never quantises. ``edges`` is what the last convolution of a coupling network, and a learned prior's, sees beyond
    the edge: ``zeros``, or ``ones`` as in the public GLOWs (`load_released`), whose deepest prior then has a mean
    and log σ at every place.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(64, ge=2)
    channels: int = Field(3, ge=1)
    levels: int = Field(4, ge=1)
    steps: int | list[int] = 16
    hidden: int = Field(128, ge=1)
    coupling: Literal["additive", "affine"] = "additive"
    prior: Literal["standard", "learned"] = "standard"
    edges: Literal["zeros", "ones"] = "zeros"
    bits: int = Field(5, ge=1, le=8)
    memory: Literal["plain", "checkpoint", "reversible"] = "plain"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> "GlowConfig":
        if self.image_size % 2**self.levels:
            raise ValueError(f"image_size = {self.image_size} cannot be halved {self.levels} times: use fewer levels")
        if len(self.steps_per_level) != self.levels or min(self.steps_per_level) < 1:
            raise ValueError(f"steps = {self.steps}: expected one positive number, or {self.levels} of them")
        return self

    @property
    def steps_per_level(self) -> list[int]:
        """Flow steps of each level, the first at the full resolution."""
        return [self.steps] * self.levels if isinstance(self.steps, int) else list(self.steps)

    @property
    def shape(self) -> dict[str, object]:
        """All that the weights need to be used again: without how they were computed, and with one `steps` a level."""
        return self.model_dump(exclude={"memory", "precision"}) | {"steps": self.steps_per_level}


@dataclass(frozen=True)
class GlowReport:
    """The outcome of `Glow.report`.

    Attributes:
        levels: one row a level: ``level`` (0 is the finest), ``shape`` of its latent, ``mean`` and
            ``standard_deviation`` of the latent's values (0 and 1 where the flow fits), and ``log_det`` (nats a
            dimension of the image, mean over the faces).
        steps: one row a flow step: ``level``, ``step``, ``condition`` (of the 1×1 convolution), ``log_det``,
            ``largest`` (absolute value of what comes out) and ``round_trip`` (largest error of the step undone).
        round_trip: largest error of inverse(forward(x)), in units of x.
    """

    levels: pd.DataFrame
    steps: pd.DataFrame
    round_trip: float


class Glow(Transform):
    """Squeeze, K steps, split; L levels of it.

    Images x [B, 3, S, S] in [-0.5, 0.5] ↔ latents z [B, D], D = 3·S·S, standard normal. A latent is one flat
    vector: the halves that levels 0, 1, … split off, then what the deepest level leaves. `split_latent` gives
    a view per level.

    Arguments:
        config: a `GlowConfig`.

    Example:
        >>> glow = Glow(GlowConfig(image_size=8, levels=2, steps=2, hidden=8))
        >>> x = torch.rand(4, 3, 8, 8) - 0.5
        >>> _ = glow.initialize(x)
        >>> z, log_det = glow(x)
        >>> z.shape, glow.latent_shapes
        (torch.Size([4, 192]), [(6, 4, 4), (24, 2, 2)])
        >>> bool((glow.inverse(z)[0] - x).abs().max() < 1e-5)
        True
    """

    def __init__(self, config: GlowConfig) -> None:
        super().__init__()
        self.config = config
        self.squeeze = Squeeze()
        self.levels = torch.nn.ModuleList()
        self.priors = torch.nn.ModuleList()
        self.latent_shapes: list[tuple[int, int, int]] = []
        rotations = Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # the CPU's, which is put back
            channels, side = config.channels, config.image_size
            for level, count in enumerate(config.steps_per_level):
                channels, side = channels * 4, side // 2
                shape = (channels, config.hidden, config.coupling, config.precision, rotations, config.edges)
                self.levels.append(Chain(*(FlowStep(*shape) for _ in range(count)), memory=config.memory))
                deepest = level == config.levels - 1
                if config.prior == "standard":
                    self.priors.append(Chain())
                elif deepest:
                    self.priors.append(ConstantWhitening(channels, side if config.edges == "ones" else 1))
                else:
                    self.priors.append(ConditionalWhitening(channels, config.edges))
                channels = channels if deepest else channels // 2
                self.latent_shapes.append((channels, side, side))
        self.to(memory_format=torch.channels_last)

    @property
    def dimensions(self) -> int:
        """D, the length of a latent and the number of values in an image."""
        return self.config.channels * self.config.image_size**2

    # -- the bijection ------------------------------------------------------------------------------------------

    # The state and the log-determinants stay in the parameters' own precision, whatever autocast the caller is in:
    # a state in bf16 could not be inverted. The coupling networks choose theirs by `GlowConfig.precision`.

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, 3, S, S] in [-0.5, 0.5] → (z [B, D] standard normal, log_det [B] in nats)."""
        return self._through(x, lambda layer, x: layer(x))

    def _through(self, x: Tensor, apply: Callable[[Transform, Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        self._check_images(x)
        log_det, latents = x.new_zeros(len(x)), []
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, enabled=False):
            for level, layers in enumerate(zip(self.levels, self.priors, strict=True)):
                x, _ = self.squeeze(x)
                for layer in layers:
                    x, of_layer = apply(layer, x)
                    log_det = log_det + of_layer
                x, latent = self.split(x, level)
                latents.append(latent)
        return self.merge_latent(latents), log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, D] → (x [B, 3, S, S], log_det [B]); differentiable, nothing rounded or clamped."""
        latents = self.split_latent(z)
        x, log_det = latents[-1][:, :0], z.new_zeros(len(z))
        with torch.autocast(z.device.type, enabled=False):
            for latent, *layers in zip(latents[::-1], self.priors[::-1], self.levels[::-1], strict=True):
                x = torch.cat([x, latent], dim=1).contiguous(memory_format=torch.channels_last)
                for layer in layers:
                    x, of_layer = layer.inverse(x)
                    log_det = log_det + of_layer
                x, _ = self.squeeze.inverse(x)
        return x, log_det

    def split(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] after a level's steps → what goes deeper, and the level's latent: all of it at the deepest."""
        channels = self.latent_shapes[level][0]
        return x.split([x.shape[1] - channels, channels], dim=1)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Set every ActNorm from x [B, 3, S, S] in [-0.5, 0.5], once and explicitly; returns z [B, D].

        Raises:
            ValueError: `x` holds values that are not finite.
        """
        if not bool(torch.isfinite(x).all()):
            raise ValueError("initialize(x) was given values that are not finite: look at the faces for NaNs")
        return self._through(x, lambda layer, x: (layer.initialize(x), x.new_zeros(len(x))))[0]

    @torch.inference_mode()
    def report(self, x: Tensor) -> GlowReport:
        """What each level and step does to x [B, 3, S, S] in [-0.5, 0.5]; `ageflow.report.plots` draws it.

        Values that are not finite are reported, not refused: they are what one looks for.
        """
        back, levels, steps = self.inverse(self(x)[0])[0], [], []
        round_trip = float((back - x).abs().max())
        for level, (chain, prior) in enumerate(zip(self.levels, self.priors, strict=True)):
            x, of_level = self.squeeze(x)
            for number, step in enumerate(chain.transforms):
                y, log_det = step(x)
                condition, error = torch.linalg.cond(step.linear.weight().double()), (step.inverse(y)[0] - x).abs()
                values = condition, log_det.mean() / self.dimensions, y.abs().max(), error.max()
                steps.append((level, number, *map(float, values)))
                x, of_level = y, of_level + log_det
            x, log_det = prior(x)
            x, latent = self.split(x, level)
            values = latent.mean(), latent.std(), (of_level + log_det).mean() / self.dimensions
            levels.append((level, self.latent_shapes[level], *map(float, values)))
        return GlowReport(
            pd.DataFrame(levels, columns=["level", "shape", "mean", "standard_deviation", "log_det"]),
            pd.DataFrame(steps, columns=["level", "step", "condition", "log_det", "largest", "round_trip"]),
            round_trip,
        )

    # -- likelihood ---------------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) [B], nats, of x [B, 3, S, S] in [-0.5, 0.5] (Eq. 4: log p(z) + ln |det dG/dI|)."""
        z, log_det = self(x)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det

    def dequantize(self, images: Tensor, generator: Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """uint8 [B, 3, S, S] → x in [-0.5, 0.5): cut to `bits`, uniform noise within a bin (`noise`, or drawn)."""
        if images.dtype != torch.uint8:
            raise ShapeError(f"the likelihood is of 8-bit images: expected uint8, not {images.dtype}")
        dtype = next(self.parameters()).dtype
        levels = torch.div(images, 2 ** (8 - self.config.bits), rounding_mode="floor").to(dtype)
        if noise is None:
            noise = torch.rand(levels.shape, dtype=dtype, device=levels.device, generator=generator)
        return (levels + noise) / 2**self.config.bits - 0.5

    def bits_per_dim(self, images: Tensor, generator: Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """Bits per dimension [B] of uint8 images [B, 3, S, S] at `config.bits`, by uniform dequantisation.

        −log₂ P(image)/D ≤ (−ln p(x)/D + ln 2^bits)/ln 2: a bin of x is 2^−bits wide in each of D dimensions.
        """
        x = self.dequantize(images, generator, noise)
        nats = -self.log_prob(x) / self.dimensions + self.config.bits * math.log(2)
        return nats / math.log(2)

    # -- faces --------------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """Faces, uint8 or float in [0, 1], [B, 3, S, S] → z [B, D]; no noise, no quantisation.

        Raises:
            ShapeError: faces of another size or type.
            ValueError: float faces far outside [0, 1], as those in 0 … 255 are, or not finite.
        """
        whole = images.dtype == torch.uint8
        if not (whole or images.is_floating_point()):
            raise ShapeError(f"faces are uint8, or float in [0, 1]; not {images.dtype}")
        if not whole and images.numel() and not images.detach().abs().amax() <= _BEYOND:
            found = f"{images.min():.4g} to {images.max():.4g}"
            raise ValueError(f"float faces are in [0, 1], not {found}: divide those in 0 … 255, or pass them as uint8")
        x = images.to(next(self.parameters()).dtype) / (255 if whole else 1) - 0.5
        self._check_images(x)
        return self._in_pieces(lambda some: self(some)[0], x)

    def decode(self, z: Tensor) -> Tensor:
        """z [B, D] → faces [B, 3, S, S], float, in [0, 1] up to rounding; differentiable."""
        self._check_latents(z)
        return self._in_pieces(lambda some: self.inverse(some)[0], z) + 0.5

    @torch.inference_mode()
    def sample(self, count: int, temperature: float = 1.0, seed: int = 0) -> Tensor:
        """`count` faces [count, 3, S, S], float, from z ~ N(0, temperature²)."""
        parameter = next(self.parameters())
        generator = Generator().manual_seed(seed)
        z = torch.randn(count, self.dimensions, generator=generator, device="cpu") * temperature
        return self.decode(z.to(parameter))

    def _in_pieces(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`compute` of x [B, …] in full fp32; without a gradient no more of it at once than memory is for.

        On a CPU 8 faces at paper size, on a GPU what fits into a quarter of its free memory. So whoever looks at faces,
        many at a time, needs no more memory than training does, a few at a time.
        """
        with exact_products(x.device):
            if torch.is_grad_enabled():
                return compute(x)
            at_once = _AT_ONCE if x.device.type == "cpu" else min(_MOST_AT_ONCE, free_memory(x.device) // 4)
            # Its first hidden layer is the widest at the full resolution, and its second stands beside it.
            of_one = 2 * self.config.hidden * (self.config.image_size // 2) ** 2 * x.element_size()
            return torch.cat([compute(some) for some in x.split(max(1, at_once // of_one))])

    # -- latents ------------------------------------------------------------------------------------------------

    def split_latent(self, z: Tensor) -> list[Tensor]:
        """Views [B, C, H, W] of z [B, D], one a level; the last is the deepest."""
        self._check_latents(z)
        sizes = [math.prod(shape) for shape in self.latent_shapes]
        return [part.view(-1, *shape) for part, shape in zip(z.split(sizes, dim=1), self.latent_shapes, strict=True)]

    @staticmethod
    def merge_latent(latents: Sequence[Tensor]) -> Tensor:
        """The levels' latents, each [B, C, H, W], as one [B, D]; undoes `split_latent`."""
        return torch.cat([latent.flatten(1) for latent in latents], dim=1)

    def _check_latents(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != self.dimensions:
            raise ShapeError(f"a latent is [B, {self.dimensions}] for this GLOW, not {tuple(z.shape)}")

    def _check_images(self, x: Tensor) -> None:
        size = self.config.image_size
        if x.shape[1:] != (self.config.channels, size, size):
            expected = f"[B, {self.config.channels}, {size}, {size}]"
            raise ShapeError(f"this GLOW takes {expected}, not {tuple(x.shape)}: prepare the faces at its size")
        if not x.is_floating_point():
            raise ShapeError(f"forward takes floats in [-0.5, 0.5], not {x.dtype}: encode() takes 8-bit faces")


def to_uint8(images: Tensor) -> Tensor:
    """Faces, float in [0, 1] (clamped), to the nearest 8-bit values; uint8 passes unchanged."""
    if images.dtype == torch.uint8:
        return images
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def load_glow(folder: Path, device: str = "auto", precision: Literal["fp32", "bf16"] = "fp32") -> Glow:
    """The trained GLOW of a training folder, with its averaged weights, fixed, for encoding and decoding.

    Arguments:
        folder: where it was trained.
        device: ``auto``, ``cpu``, ``cuda``…
        precision: inside the coupling networks, however it was trained. In bf16 what a GLOW in fp32 encoded comes back to
            3·10⁻³ of the range only: enough for what a network learns from.

    Raises:
        CheckpointError: the folder holds no checkpoint, or one of another model.
    """
    glow = Glow(GlowConfig(**newest(folder, "glow").networks["glow"] | {"precision": precision}))
    load_state(glow, folder, "glow")
    return glow.to(device_of(device)).eval().requires_grad_(False)
