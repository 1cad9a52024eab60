"""The training loop: one for GLOW, for ICTM with D, and for the classifiers.

A `Task` says what is trained: its modules and, in order, its turns. A turn is one optimiser with its parameters
and its loss; GLOW and a classifier have one, ICTM and D alternate as two. `train` reads from top to bottom.

Everything random in iteration i comes from (seed, i), and a checkpoint holds weights, averages and optimisers:
a run that was stopped goes on to the same numbers as one that never was.
"""

import copy
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ageflow.config import Training
from ageflow.memory import keep_freed_memory
from ageflow.progress import progress_bar
from ageflow.storage import device_of, latest, write_atomically
from ageflow.training.checkpoint import ConfigChangedError, describe_changes, save_checkpoint, set_aside
from ageflow.training.metrics import Metrics

__all__ = ["Task", "TrainingDivergedError", "Turn", "sample_batch", "train"]

_MOST_IN_A_ROW = 20

# What may change between two calls without making it another training.
_FREE = {"iterations", "log_every", "preview_every", "checkpoint_every", "restart", "progress", "device"}
_FREE |= {"data_root", "runs_root", "run", "preset", "dataset"}


class TrainingDivergedError(RuntimeError):
    """Too many steps in a row had a gradient that was not finite."""


@dataclass
class Turn:
    """One optimiser and what it minimises.

    Arguments:
        name: prefix of its metrics.
        parameters: what it updates; gradients of all others are thrown away.
        loss: called with the number of the micro-batch, counted from 0 over the whole training; gives the loss
            and values to log, all scalar tensors.
        learning_rate: Adam's.
        weight_decay: AdamW's.
    """

    name: str
    parameters: list[nn.Parameter]
    loss: Callable[[int], tuple[Tensor, dict[str, Tensor]]]
    learning_rate: float
    weight_decay: float = 0.0
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def step(self, gradient_norm: Tensor, warmup: float) -> Tensor:
        """Update the parameters, unless the gradient is not finite; 1 where that was skipped, else 0, a scalar.

        Arguments:
            gradient_norm: norm of the gradient, a scalar.
            warmup: the share of the learning rate that counts in this iteration.

        The device decides, by what `torch.amp.GradScaler` uses: the host does not wait for it.
        """
        bad = (~torch.isfinite(gradient_norm)).to(torch.float32)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * warmup
        self.optimizer.grad_scale, self.optimizer.found_inf = None, bad
        self.optimizer.step()
        return bad


class _Skipped:
    """Counts the skipped iterations on the device; only reading a count waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(3, device=device, dtype=torch.int64)  # all, in a row, the longest row

    def count(self, bad: Tensor) -> None:
        """One more iteration: `bad` is 1 where one of its updates was skipped, else 0."""
        total, in_a_row, longest = self._counts.unbind()
        bad = bad.to(torch.int64)
        in_a_row = (in_a_row + 1) * bad
        self._counts = torch.stack([total + bad, in_a_row, torch.maximum(longest, in_a_row)])

    @property
    def total(self) -> int:
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        return int(self._counts[2])


class Task(ABC):
    """What `train` trains.

    Attributes:
        modules: all that a checkpoint keeps.
        turns: optimisers, in the order in which they take their turn.
        config: what the result depends on, kept in the checkpoint; a change of it is another training.
    """

    modules: nn.ModuleDict
    turns: list[Turn]
    config: dict[str, Any]

    @abstractmethod
    def start(self) -> None:
        """Once, before the first iteration of a new training: data-dependent initialisation."""

    @abstractmethod
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Write sample pictures into `folder`; return validation numbers of the `averaged` modules."""


def train(task: Task, settings: Training, folder: Path) -> Path:
    """Train `task` in `folder`; where it was stopped, it goes on.

    Arguments:
        task: what to train.
        settings: iterations, warm-up, clipping and so on.
        folder: holds checkpoints, ``metrics.jsonl``, ``tensorboard/``, ``samples/`` and, at the end, ``done.json``.

    Returns:
        `folder`.

    Raises:
        ConfigChangedError: `folder` holds a training with another config.
        TrainingDivergedError: 20 steps in a row were not finite (noticed at the next logged iteration).
    """
    device = device_of(settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    config = _comparable(task.config)
    if settings.restart:
        set_aside(folder)
    task.modules.to(device)
    checkpoint = latest(folder) if folder.exists() else None
    if checkpoint is None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        task.start()
        averaged = copy.deepcopy(task.modules)
        done = 0
    else:
        if checkpoint.config != config:
            raise ConfigChangedError(
                f"{folder} holds a training with other values ({describe_changes(checkpoint.config, config)}): "
                "name another run, or pass restart=True, which keeps the old one under a number"
            )
        task.modules.load_state_dict(checkpoint.tensors("model."))
        averaged = copy.deepcopy(task.modules)
        averaged.load_state_dict(checkpoint.tensors("model.") | checkpoint.tensors("average."))
        _load_optimizers(task.turns, checkpoint.tensors("optimizer."))
        done = checkpoint.iteration
        if done >= settings.iterations and (folder / "done.json").is_file():
            return folder
        (folder / "done.json").unlink(missing_ok=True)  # more iterations were asked for
    averaged.requires_grad_(False)

    metrics = Metrics(folder, done)
    bar = progress_bar(total=settings.iterations, initial=done, title=folder.name, unit="step", show=settings.progress)
    skipped = _Skipped(device)
    began = time.perf_counter()
    try:
        for iteration in range(done + 1, settings.iterations + 1):
            torch.manual_seed(_seed_of(settings.seed, iteration))
            task.modules.train()
            values: dict[str, Tensor] = {}
            bad = torch.zeros((), device=device)
            for turn in task.turns:
                gradient_norm, turn_values = _accumulate(task, turn, settings, iteration)
                values |= {f"{turn.name}/{name}": value for name, value in turn_values.items()}
                values[f"{turn.name}/gradient_norm"] = gradient_norm
                bad = torch.maximum(bad, turn.step(gradient_norm, min(1.0, iteration / max(1, settings.warmup))))
            skipped.count(bad)
            _update_average(averaged, task.modules, settings.ema, iteration)

            last = iteration == settings.iterations
            if iteration % settings.log_every == 0 or last:  # the only place that waits for the device
                if skipped.longest >= _MOST_IN_A_ROW:
                    raise TrainingDivergedError(
                        f"{_MOST_IN_A_ROW} steps in a row up to iteration {iteration} had gradients that are not "
                        f"finite: lower learning_rate ({settings.learning_rate}) or set clip; the last checkpoint in "
                        f"{folder} is whole"
                    )
                numbers = {name: float(value) for name, value in values.items()}
                numbers |= {"skipped": skipped.total, "seconds": time.perf_counter() - began}
                metrics.write(iteration, numbers)
                bar.set_postfix_str(_headline(numbers), refresh=False)
            if iteration % settings.preview_every == 0 or last:
                metrics.write(iteration, task.preview(averaged.eval(), folder / "samples", iteration))
            if iteration % settings.checkpoint_every == 0 or last:
                save_checkpoint(folder, iteration, _tensors(task, averaged, settings.ema), config)
            bar.update()
    finally:
        bar.close()
        metrics.close()
    summary = {"iterations": settings.iterations, "skipped": skipped.total, "seconds": time.perf_counter() - began}
    write_atomically(folder / "done.json", json.dumps(summary).encode())
    return folder


def sample_batch(count: int, batch_size: int, seed: int, number: int) -> Tensor:
    """The `number`-th batch of indices below `count`: every epoch in a new order, the last short batch dropped.

    It depends on nothing but its arguments, so that a resumed training sees the batches it would have seen.

    Example:
        >>> epoch = torch.cat([sample_batch(10, 5, seed=0, number=n) for n in (0, 1)])
        >>> sorted(epoch.tolist()) == list(range(10))
        True
    """
    if count < 1:
        raise ValueError("there are no faces to train on: look at the data card's counts")
    generator = torch.Generator()
    if count < batch_size:  # with replacement, where one batch is more than there is
        return torch.randint(count, (batch_size,), generator=generator.manual_seed(_seed_of(seed, number)))
    per_epoch = count // batch_size
    epoch, place = divmod(number, per_epoch)
    order = torch.randperm(count, generator=generator.manual_seed(_seed_of(seed, epoch)))
    return order[place * batch_size : (place + 1) * batch_size]


def _accumulate(task: Task, turn: Turn, settings: Training, iteration: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients of one turn, averaged over its micro-batches and clipped after; their norm and the logged values."""
    for parameter in task.modules.parameters():
        parameter.grad = None
    sums: dict[str, Tensor] = {}
    for micro in range(settings.accumulate):
        loss, values = turn.loss((iteration - 1) * settings.accumulate + micro)
        (loss / settings.accumulate).backward()
        for name, value in {"loss": loss, **values}.items():
            sums[name] = sums.get(name, 0) + value.detach() / settings.accumulate
    norm = nn.utils.clip_grad_norm_(turn.parameters, settings.clip or math.inf)
    return norm, sums


@torch.no_grad()
def _update_average(averaged: nn.Module, modules: nn.Module, decay: float, iteration: int) -> None:
    """Exponential moving average of the weights; buffers follow. The decay warms up, so that early steps fade."""
    decay = min(decay, (1 + iteration) / (10 + iteration))
    mine, theirs = list(averaged.parameters()), list(modules.parameters())
    if decay:
        torch._foreach_lerp_(mine, theirs, 1 - decay)
    else:
        torch._foreach_copy_(mine, theirs)
    for mine_buffer, buffer in zip(averaged.buffers(), modules.buffers(), strict=True):
        mine_buffer.copy_(buffer)


def _tensors(task: Task, averaged: nn.Module, ema: float) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in task.modules.state_dict().items()}
    if ema:
        tensors |= {f"average.{name}": tensor for name, tensor in averaged.named_parameters()}
    for turn in task.turns:
        for index, state in turn.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{turn.name}.{index}.{name}": tensor for name, tensor in state.items()}
    return tensors


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


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """`config` as JSON gives it back, without what does not change the result."""
    return json.loads(json.dumps({name: value for name, value in config.items() if name not in _FREE}, default=str))


def _headline(numbers: dict[str, float]) -> str:
    shown = [(name.split("/")[-1], v) for name, v in numbers.items() if name.endswith("loss")]
    return ", ".join(f"{name} {value:.3g}" for name, value in shown)


def _seed_of(seed: int, number: int) -> int:
    """A seed for the `number`-th of a series; neighbours are unrelated (splitmix64)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
