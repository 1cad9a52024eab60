"""What a flow does to faces, level by level and step by step: to look at when a training goes wrong."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ageflow.flows.glow import Glow


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


def inspect(glow: "Glow", x: Tensor) -> GlowReport:
    """Run x [B, 3, S, S] in [-0.5, 0.5] through every step of `glow`, forth and back."""
    images, levels, steps = x, [], []
    for level, (chain, prior) in enumerate(zip(glow.levels, glow.priors, strict=True)):
        x, total = glow.squeeze(x)[0], 0.0
        for number, step in enumerate(chain.transforms):
            y, log_det = step(x)
            steps.append(
                {
                    "level": level,
                    "step": number,
                    "condition": float(torch.linalg.cond(step.linear.weight().double())),
                    "log_det": float(log_det.mean() / glow.dimensions),
                    "largest": float(y.abs().max()),
                    "round_trip": _largest_error(step.inverse(y)[0], x),
                }
            )
            x, total = y, total + steps[-1]["log_det"]
        x, log_det = prior(x)
        total += float(log_det.mean() / glow.dimensions)
        x, latent = glow.split(x, level)
        moments = {"mean": float(latent.mean()), "standard_deviation": float(latent.std())}
        levels.append({"level": level, "shape": glow.latent_shapes[level], **moments, "log_det": total})
    round_trip = _largest_error(glow.inverse(glow(images)[0])[0], images)
    return GlowReport(pd.DataFrame(levels), pd.DataFrame(steps), round_trip)


def _largest_error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; not a number where either is not."""
    return float((found - expected).abs().max())
