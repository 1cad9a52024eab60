"""The flows that are measured, each behind the same three calls."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ageflow.flows.glow import Glow, GlowConfig


@dataclass(frozen=True)
class Flow:
    """A flow to be timed.

    Arguments:
        module: its parameters.
        loss: x [B, 3, S, S] in [-0.5, 0.5] → nats a dimension, a scalar.
        encode: x → latents, whatever form they have.
        decode: what `encode` gave → x.
    """

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]


def ageflow(config: GlowConfig, x: Tensor, peer: Path | None = None) -> Flow:
    """This project's `Glow`."""
    glow = Glow(config).to(x.device)
    glow.initialize(x)
    return Flow(
        glow, lambda x: -glow.log_prob(x).mean() / x[0].numel(), lambda x: glow(x)[0], lambda z: glow.inverse(z)[0]
    )


def normflows(config: GlowConfig, x: Tensor, peer: Path | None = None) -> Flow:
    """normflows' multi-scale flow of its GlowBlocks, built as in its documentation's GLOW example."""
    import normflows as nf

    levels, side, channels = config.levels, config.image_size, config.channels
    bases, merges, flows = [], [], []
    for i in range(levels):  # theirs count from the deepest
        steps = config.steps_per_level[levels - 1 - i]
        wide = channels * 2 ** (levels + 1 - i)
        blocks = [nf.flows.GlowBlock(wide, config.hidden, scale=config.coupling == "affine") for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        shape = (wide, side // 2**levels) if i == 0 else (wide // 2, side // 2 ** (levels - i))
        if i > 0:
            merges.append(nf.flows.Merge())
        bases.append(nf.distributions.DiagGaussian((shape[0], shape[1], shape[1]), trainable=False))
    flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=False).to(x.device)
    with torch.no_grad():
        flow.log_prob(x, None)  # sets its ActNorms
    return Flow(
        flow,
        lambda x: -flow.log_prob(x, None).mean() / x[0].numel(),
        lambda x: flow.inverse_and_log_det(x)[0],
        lambda z: flow.forward_and_log_det(z)[0],
    )


def rosinality(config: GlowConfig, x: Tensor, peer: Path | None = None) -> Flow:
    """rosinality's glow-pytorch, from a clone of it: `peer` is its folder or its ``model.py``."""
    if peer is None:
        raise ValueError("rosinality is measured from a clone of github.com/rosinality/glow-pytorch: pass its folder")
    theirs = _module(peer / "model.py" if peer.is_dir() else peer)
    if config.hidden != 512:  # its own default, not passed on by its Glow
        theirs.AffineCoupling.__init__.__defaults__ = (config.hidden, True)
    glow = theirs.Glow(
        config.channels, config.steps_per_level[0], config.levels, affine=config.coupling == "affine"
    ).to(x.device)
    with torch.no_grad():
        glow(x)  # sets its ActNorms

    def loss(x: Tensor) -> Tensor:
        log_p, log_det, _ = glow(x)
        return -(log_p + log_det).mean() / x[0].numel()

    return Flow(glow, loss, lambda x: glow(x)[2], lambda z: glow.reverse(z, reconstruct=True))


CODES: dict[str, Callable[..., Flow]] = {"ageflow": ageflow, "normflows": normflows, "rosinality": rosinality}


def multiply_adds(config: GlowConfig) -> int:
    """Multiply-adds of one face through the flow once: the convolutions of `Glow`, nothing recomputed.

    A training step takes three times as many: forward, and the gradients of inputs and of weights.

    Example:
        >>> round(multiply_adds(GlowConfig(image_size=64, levels=4, steps=8, hidden=512)) / 1e9, 2)
        3.71
    """
    total = 0
    channels, side = config.channels, config.image_size
    for level, steps in enumerate(config.steps_per_level):
        channels, side = 4 * channels, side // 2
        half = channels // 2
        outputs = half * (2 if config.coupling == "affine" else 1)
        step = 9 * half * config.hidden + config.hidden**2 + 9 * config.hidden * outputs + channels**2
        total += steps * step * side**2
        if level < config.levels - 1:
            total += 9 * half * channels * side**2 if config.prior == "learned" else 0
            channels = half
    return math.floor(total)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("peer_model", path)
    if spec is None or not path.is_file():
        raise FileNotFoundError(f"{path} is not there: name a clone of github.com/rosinality/glow-pytorch")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
