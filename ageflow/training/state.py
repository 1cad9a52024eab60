"""What a training is at an iteration, to a checkpoint and back: weights, averages, optimisers, counts."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ageflow.storage import Checkpoint
from ageflow.training.checkpoint import save_checkpoint
from ageflow.training.task import Task, Turn

__all__ = ["Skipped", "State"]


class Skipped:
    """Counts the skipped updates on the device; only reading a count waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(3, device=device, dtype=torch.int64)  # all, in a row, the longest row

    def count(self, bad: Tensor) -> None:
        """One more iteration: `bad` is 1 where it was skipped, else 0."""
        total, in_a_row, longest = self.counts.unbind()
        bad = bad.to(torch.int64)
        in_a_row = (in_a_row + 1) * bad
        self.counts = torch.stack([total + bad, in_a_row, torch.maximum(longest, in_a_row)])

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
        ema: decay of the averaged weights; 0: they follow.
        device: where it is trained.

    Attributes:
        iteration: updates done.
        averaged: the modules with the running average of their weights.
        skipped: counts of the updates that were not finite.
        setbacks: how often training diverged and went back; each halves the learning rate.
        cooled: what a cooldown had left of the learning rate in the last update, 1 before it.
    """

    task: Task
    ema: float
    device: torch.device

    def __post_init__(self) -> None:
        self.iteration, self.setbacks, self.cooled = 0, 0, 1.0
        self.skipped = Skipped(self.device)
        self.average_anew()

    def average_anew(self) -> None:
        """Let the average begin at the weights of now."""
        self.averaged = copy.deepcopy(self.task.modules).requires_grad_(False)

    @property
    def rate(self) -> float:
        """What setbacks have left of the learning rate."""
        return 0.5**self.setbacks

    @torch.no_grad()
    def update_average(self) -> None:
        """Exponential moving average of the weights; buffers follow. The decay warms up, so that early steps fade."""
        decay = min(self.ema, (1 + self.iteration) / (10 + self.iteration))
        mine, theirs = list(self.averaged.parameters()), list(self.task.modules.parameters())
        if decay:
            torch._foreach_lerp_(mine, theirs, 1 - decay)
        else:
            torch._foreach_copy_(mine, theirs)
        for mine_buffer, buffer in zip(self.averaged.buffers(), self.task.modules.buffers(), strict=True):
            mine_buffer.copy_(buffer)

    def save(self, folder: Path, config: dict[str, Any]) -> None:
        """Write a checkpoint of it."""
        tensors = {f"model.{name}": tensor for name, tensor in self.task.modules.state_dict().items()}
        if self.ema:
            tensors |= {f"average.{name}": tensor for name, tensor in self.averaged.named_parameters()}
        for turn in self.task.turns:
            for index, state in turn.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{turn.name}.{index}.{name}": tensor for name, tensor in state.items()}
        tensors |= {"counts.skipped": self.skipped.counts, "counts.setbacks": torch.tensor(self.setbacks)}
        tensors["counts.cooled"] = torch.tensor(self.cooled, dtype=torch.float64)
        save_checkpoint(folder, self.iteration, tensors, config)

    def load(self, checkpoint: Checkpoint) -> None:
        """Be what `checkpoint` holds."""
        self.task.modules.load_state_dict(checkpoint.tensors("model."))
        self.average_anew()
        self.averaged.load_state_dict(checkpoint.tensors("model.") | checkpoint.tensors("average."))
        _load_optimizers(self.task.turns, checkpoint.tensors("optimizer."))
        counts = checkpoint.tensors("counts.")
        if counts:
            self.skipped.counts = counts["skipped"].to(self.device)
            self.setbacks = int(counts["setbacks"])
            self.cooled = float(counts.get("cooled", 1.0))  # the first versions did not note it
        self.iteration = checkpoint.iteration


@torch.no_grad()
def _load_optimizers(turns: Iterable[Turn], tensors: dict[str, Tensor]) -> None:
    for turn in turns:
        state: dict[int, dict[str, Tensor]] = {}
        prefix = f"{turn.name}."
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                index, key = name[len(prefix) :].split(".")
                parameter = turn.parameters[int(index)]
                if tensor.shape == parameter.shape:
                    # A file knows no strides, and the fused optimiser walks parameter and moments side by side.
                    tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
                state.setdefault(int(index), {})[key] = tensor
        turn.optimizer.load_state_dict({**turn.optimizer.state_dict(), "state": state})
