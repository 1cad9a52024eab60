"""What a training is at an iteration, to a checkpoint and back: weights, averages, optimisers, counts."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ageflow.checkpoint import Checkpoint, save_checkpoint
from ageflow.training.task import Objective, Task


@dataclass
class State:
    """A training at an iteration; everything that the next one depends on.

    Arguments:
        task: its modules and optimisers are what is trained.
        ema: decay of the averaged weights; 0: the average is the weights themselves.
        device: where it is trained.

    Attributes:
        iteration: updates done.
        resumed: whether it has been loaded from a checkpoint.
        averaged: the modules with the running average of their weights.
        skipped: updates that were not finite, int64 [3]: all, the last in a row, the longest row. On the device: only
            reading a count waits for it.
        setbacks: how often training diverged and went back; each halves the learning rate.
        cooled: share of the learning rate that the cooldown left in the last update, 1 before it.
    """

    task: Task
    ema: float
    device: torch.device

    def __post_init__(self) -> None:
        self.iteration, self.resumed, self.setbacks, self.cooled = 0, False, 0, 1.0
        self.skipped = torch.zeros(3, device=self.device, dtype=torch.int64)
        # Not by torch.optim.swa_utils.AveragedModel: that waits for the device in every update, to read its own counter.
        self.averaged = copy.deepcopy(self.task.modules).requires_grad_(False)

    @property
    def rate(self) -> float:
        """Share of the learning rate that setbacks have left."""
        return 0.5**self.setbacks

    def count(self, skip: Tensor) -> None:
        """One more update: `skip` is 1 where it was skipped, else 0."""
        total, in_a_row, longest = self.skipped.unbind()
        skip = skip.to(torch.int64)
        in_a_row = (in_a_row + 1) * skip
        self.skipped = torch.stack([total + skip, in_a_row, torch.maximum(longest, in_a_row)])

    @torch.no_grad()
    def update_average(self) -> None:
        """Exponential moving average of the weights; buffers follow. The decay warms up, so that early steps fade."""
        decay = min(self.ema, (1 + self.iteration) / (10 + self.iteration))
        averaged, weights = (list(modules.parameters()) for modules in (self.averaged, self.task.modules))
        torch._foreach_lerp_(averaged, weights, 1 - decay)
        for buffer, newest in zip(self.averaged.buffers(), self.task.modules.buffers(), strict=True):
            buffer.copy_(newest)

    def save(self, folder: Path) -> None:
        """Write a checkpoint of it."""
        tensors = {f"model.{name}": tensor for name, tensor in self.task.modules.state_dict().items()}
        if self.ema:
            tensors |= {f"average.{name}": tensor for name, tensor in self.averaged.named_parameters()}
        for objective in self.task.objectives:
            for index, state in objective.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{objective.name}.{index}.{name}": tensor for name, tensor in state.items()}
        tensors |= {"counts.skipped": self.skipped, "counts.setbacks": torch.tensor(self.setbacks)}
        tensors["counts.cooled"] = torch.tensor(self.cooled, dtype=torch.float64)
        save_checkpoint(folder, self.iteration, tensors, self.task.manifest, self.task.networks)

    def load(self, checkpoint: Checkpoint) -> None:
        """Become what `checkpoint` holds."""
        weights = checkpoint.tensors("model.")
        self.task.modules.load_state_dict(weights)
        self.averaged.load_state_dict(weights | checkpoint.tensors("average."))
        for objective in self.task.objectives:
            _load_optimizer(objective, checkpoint.tensors(f"optimizer.{objective.name}."))
        counts = checkpoint.tensors("counts.")
        self.skipped = counts["skipped"].to(self.device)
        self.setbacks, self.cooled = int(counts["setbacks"]), float(counts["cooled"])
        self.iteration, self.resumed = checkpoint.iteration, True


@torch.no_grad()
def _load_optimizer(objective: Objective, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        parameter = objective.parameters[int(index)]
        if tensor.shape == parameter.shape:
            # A file knows no strides, and the fused optimiser walks parameter and moments side by side.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    objective.optimizer.load_state_dict({**objective.optimizer.state_dict(), "state": state})
