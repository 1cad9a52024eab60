"""What a flow does to faces, level by level and step by step: to look at when a training goes wrong."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ageflow.flows.transform import Chain, Transform


@dataclass(frozen=True)
class GlowReport:
    """The outcome of `Glow.report`.

    Attributes:
        levels: one row a level: ``level`` (0 is the finest), ``shape`` of its latent, ``mean`` and
            ``standard_deviation`` of the latent's values (0 and 1 where the flow fits), ``log_det`` (nats a
            dimension of the image, mean over the faces) and ``round_trip`` (largest error of the level undone).
        steps: one row a flow step: ``level``, ``step``, ``condition`` (of the 1×1 convolution), ``scale_range``
            (largest over smallest of ActNorm's scales), ``log_det``, ``largest`` (absolute value of what comes out)
            and ``round_trip``.
        round_trip: largest error of inverse(forward(x)), in units of x.
    """

    levels: pd.DataFrame
    steps: pd.DataFrame
    round_trip: float


def inspect_level(
    level: int, chain: Chain, prior: Transform | None, x: Tensor, dimensions: int
) -> tuple[Tensor, dict[str, float], list[dict[str, float]]]:
    """Run a level's steps on the squeezed x [B, C, H, W]: its output, its row and its steps' rows.

    Arguments:
        level: its number.
        chain: its flow steps.
        prior: its learned prior, or None.
        x: what comes in.
        dimensions: of the image, for the log-determinants.
    """
    begin, total, rows = x, torch.zeros((), dtype=x.dtype, device=x.device), []
    for number, step in enumerate(chain.transforms):
        y, log_det = step(x)
        scales = step.actnorm.log_scale.exp()
        rows.append(
            {
                "level": level,
                "step": number,
                "condition": float(torch.linalg.cond(step.linear.weight().double())),
                "scale_range": float(scales.max() / scales.min()),
                "log_det": float(log_det.mean() / dimensions),
                "largest": float(y.abs().max()),
                "round_trip": largest_error(step.inverse(y)[0], x),
            }
        )
        x, total = y, total + log_det.mean()
    if prior is not None:
        x, log_det = prior(x)
        total = total + log_det.mean()
    back = x if prior is None else prior.inverse(x)[0]
    back, _ = chain.inverse(back)
    return x, {"level": level, "log_det": float(total / dimensions), "round_trip": largest_error(back, begin)}, rows


def largest_error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; not a number where either is not."""
    return float((found - expected).abs().max())
