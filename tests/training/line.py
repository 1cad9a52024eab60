"""A task of a moment: fit a line, with every source of randomness in use."""

from pathlib import Path

import torch
from torch import nn

from ageflow.checkpoint import checkpoints, latest
from ageflow.config import Training
from ageflow.run import Manifest
from ageflow.training.task import MicroBatch, Objective, Task


class Line(Task):
    """Fit y = 3x − 1 from noisy batches, with dropout.

    Arguments:
        broken_at: updates, counted from 0, whose loss is not finite.
        stopped_at: the update in which it is interrupted, as by Ctrl-C.
        settings: more of what the manifest says.
    """

    def __init__(self, broken_at=(), stopped_at=None, **settings):
        torch.manual_seed(5)
        self.modules = nn.ModuleDict({"line": nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))})
        self.objectives = [Objective("line", list(self.modules.parameters()), self.loss, 0.05)]
        self.manifest, self.networks = Manifest({"faces": "ab"}, {"slope": 3, **settings}), {"line": {}}
        self.x = torch.linspace(-1, 1, 64)[:, None]
        self.broken_at, self.stopped_at = broken_at, stopped_at
        self.seen, self.noise, self.rates = [], [], []

    def loss(self, part: MicroBatch):
        if part.number == self.stopped_at:
            raise KeyboardInterrupt
        self.seen.append(part.number)
        x = self.x[part.choose(64, 0)]
        noise = part.rows(torch.randn(part.size, 1))
        self.noise.append(float(noise[0]))
        loss = (self.modules["line"](x + 0.1 * noise) - (3 * x - 1)).square().mean()
        return (loss * float("nan") if part.number in self.broken_at else loss), {"x": x.mean()}

    @torch.no_grad()
    def preview(self, averaged, folder, iteration):
        self.rates.append(self.objectives[0].optimizer.param_groups[0]["lr"])
        return {"test/loss": float((averaged["line"](self.x) - (3 * self.x - 1)).square().mean())}


def settings(**values) -> Training:
    """30 updates of four points, a checkpoint every ten."""
    often = {"iterations": 30, "checkpoint_every": 10, "preview_every": 10, "log_every": 1, "batch_size": 4}
    return Training(**often | {"progress": False} | values)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint's weights and their averages."""
    tensors = latest(folder).tensors("")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(("model.", "average."))}


def saved(folder: Path) -> list[int]:
    """The iterations that `folder` has checkpoints of."""
    return [iteration for iteration, _ in checkpoints(folder)]
