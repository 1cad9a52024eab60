"""Which levels of a latent the networks in it see."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ageflow.config import ParameterError

Shapes = Sequence[tuple[int, int, int]]


class VisibleLatent:
    """Cuts the levels that T and D see out of a flat latent [B, D], and puts them back.

    Arguments:
        latent: ``all``, ``top`` or level numbers.
        shapes: (C, H, W) of each level, `Glow.latent_shapes`.
    """

    def __init__(self, latent: str | list[int], shapes: Shapes) -> None:
        levels = {"all": list(range(len(shapes))), "top": [len(shapes) - 1]}.get(str(latent), latent)
        if not levels or any(not 0 <= level < len(shapes) for level in levels) or len(set(levels)) < len(levels):
            raise ParameterError(
                f"latent = {latent!r}: expected 'all', 'top' or different levels of 0 … {len(shapes) - 1}"
            )
        self.levels = sorted(levels)
        self.shapes = [tuple(shapes[level]) for level in self.levels]
        self.sizes = [math.prod(shape) for shape in shapes]
        self.dimensions = sum(self.sizes[level] for level in self.levels)

    def take(self, z: Tensor) -> list[Tensor]:
        """The visible levels of z [B, D], each [B, C, H, W]."""
        parts = z.split(self.sizes, dim=1)
        return [parts[level].reshape(-1, *shape) for level, shape in zip(self.levels, self.shapes, strict=True)]

    def flat(self, z: Tensor) -> Tensor:
        """The visible part of z [B, D] as one vector [B, dimensions]."""
        if len(self.levels) == len(self.sizes):
            return z
        parts = z.split(self.sizes, dim=1)
        return torch.cat([parts[level] for level in self.levels], dim=1)

    def cut(self, flat: Tensor) -> list[Tensor]:
        """A visible vector [B, dimensions] as its levels, each [B, C, H, W]."""
        parts = flat.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def put(self, z: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """z [B, D] with its visible levels replaced."""
        parts = list(z.split(self.sizes, dim=1))
        for level, new in zip(self.levels, levels, strict=True):
            parts[level] = new.flatten(1)
        return torch.cat(parts, dim=1)
