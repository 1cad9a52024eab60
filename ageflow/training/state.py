"""What a training is at an iteration, to a checkpoint and back: weights, averages, optimisers, counts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ageflow.checkpoint import Checkpoint, save_checkpoint
from ageflow.training.task import Objective, Task


class Skipped:
    """Counts the skipped updates on the device; only reading a count waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(3, device=device, dtype=torch.int64)  # all, in a row, the longest row

    def count(self, skipped: Tensor) -> None:
        """One more iteration: `skipped` is 1 where it was skipped, else 0."""
        total, in_a_row, longest = self.counts.unbind()
        skipped = skipped.to(torch.int64)
        in_a_row = (in_a_row + 1) * skipped
        self.counts = torch.stack([total + skipped, in_a_row, torch.maximum(longest, in_a_row)])

    @property
    def total(self) -> int:
        return int(self.counts[0])

    @property
    def in_a_row(self) -> int:
        return int(self.counts[1])

    @property
    def longest(self) -> int:
        return int(self.counts[2])


@dataclass
class State:
    """A training at an iteration; everything that the next one depends on.

    Arguments:
        task: its modules and optimisers are what is trained.
        ema: decay of the averaged weights; 0: the average is the weights themselves.
        device: where it is trained.

    Attributes:
        iteration: updates done.
        skipped: counts of the updates that were not finite.
        setbacks: how often training diverged and went back; each halves the learning rate.
        cooled: share of the learning rate that the cooldown left in the last update, 1 before it.
    """

    task: Task
    ema: float
    device: torch.device

    def __post_init__(self) -> None:
        self.iteration, self.setbacks, self.cooled = 0, 0, 1.0
        self.skipped = Skipped(self.device)
        self._average = AveragedModel(self.task.modules, multi_avg_fn=self._towards_weights).requires_grad_(False)

    @property
    def averaged(self) -> nn.ModuleDict:
        """The modules with the running average of their weights."""
        return self._average.module

    @property
    def rate(self) -> float:
        """Share of the learning rate that setbacks have left."""
        return 0.5**self.setbacks

    def update_average(self) -> None:
        """Exponential moving average of the weights; buffers follow."""
        self._average.update_parameters(self.task.modules)

    @torch.no_grad()
    def _towards_weights(self, averaged: list[Tensor], weights: list[Tensor], updates: int | Tensor) -> None:
        """The decay warms up, so that early steps fade."""
        decay = min(self.ema, (1 + self.iteration) / (10 + self.iteration))
        torch._foreach_lerp_(averaged, weights, 1 - decay)

    def save(self, folder: Path) -> None:
        """Write a checkpoint of it."""
        tensors = {f"model.{name}": tensor for name, tensor in self.task.modules.state_dict().items()}
        if self.ema:
            tensors |= {f"average.{name}": tensor for name, tensor in self.averaged.named_parameters()}
        for objective in self.task.objectives:
            for index, state in objective.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{objective.name}.{index}.{name}": tensor for name, tensor in state.items()}
        tensors |= {"counts.skipped": self.skipped.counts, "counts.setbacks": torch.tensor(self.setbacks)}
        tensors["counts.cooled"] = torch.tensor(self.cooled, dtype=torch.float64)
        save_checkpoint(folder, self.iteration, tensors, self.task.manifest, self.task.networks)

    def load(self, checkpoint: Checkpoint) -> None:
        """Become what `checkpoint` holds."""
        weights = checkpoint.tensors("model.")
        self.task.modules.load_state_dict(weights)
        self.averaged.load_state_dict(weights | checkpoint.tensors("average."))
        self._average.n_averaged.fill_(checkpoint.iteration)
        _load_optimizers(self.task.objectives, checkpoint.tensors("optimizer."))
        counts = checkpoint.tensors("counts.")
        self.skipped.counts = counts["skipped"].to(self.device)
        self.setbacks, self.cooled = int(counts["setbacks"]), float(counts["cooled"])
        self.iteration = checkpoint.iteration


@torch.no_grad()
def _load_optimizers(objectives: Iterable[Objective], tensors: dict[str, Tensor]) -> None:
    for objective in objectives:
        state: dict[int, dict[str, Tensor]] = {}
        prefix = f"{objective.name}."
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                index, key = name[len(prefix) :].split(".")
                parameter = objective.parameters[int(index)]
                if tensor.shape == parameter.shape:
                    # A file knows no strides, and the fused optimiser walks parameter and moments side by side.
                    tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
                state.setdefault(int(index), {})[key] = tensor
        objective.optimizer.load_state_dict({**objective.optimizer.state_dict(), "state": state})
