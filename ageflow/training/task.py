"""What is trained: modules, the objectives that update them, and the micro-batch that one forward pass sees.

An update's batch is the same whatever it is cut into. Its faces depend on (seed, update) alone; noise is drawn for
the whole batch by every process, from the same seed, and each takes its rows of it (`MicroBatch.rows`).
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ageflow.checkpoint import CheckpointError, Weights, checkpoints, find_weights, read_weights
from ageflow.config import ParameterError, Training
from ageflow.data.faces import Faces, warn_of_known_people
from ageflow.run import Manifest, Workspace

Values = dict[str, Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """The rows of an update's batch that one forward pass takes.

    Arguments:
        number: the update, counted from 0.
        start, stop: first row, and the one after the last.
        size: rows of the whole batch, over all passes and processes.

    Example:
        >>> MicroBatch(number=0, start=2, stop=4, size=8).rows(torch.arange(8)).tolist()
        [2, 3]
    """

    number: int
    start: int
    stop: int
    size: int

    @property
    def share(self) -> float:
        """Its weight in the batch's mean."""
        return (self.stop - self.start) / self.size

    def rows(self, whole: Tensor) -> Tensor:
        """Its rows of what was drawn for the whole batch, [size, …] → [stop − start, …]."""
        return whole[self.start : self.stop]

    def choose(self, count: int, seed: int) -> Tensor:
        """Which of `count` faces it trains on, indices."""
        return self.rows(sample_batch(count, self.size, seed, self.number))


def micro_batches(number: int, size: int, micro_batch: int, rank: int = 0, processes: int = 1) -> list[MicroBatch]:
    """What one of several processes trains on in an update: its contiguous share, `micro_batch` rows at a time."""
    first, last = rank * size // processes, (rank + 1) * size // processes
    return [
        MicroBatch(number, start, min(start + micro_batch, last), size) for start in range(first, last, micro_batch)
    ]


@dataclass
class Objective:
    """One loss and the optimiser that minimises it.

    Arguments:
        name: prefix of its metrics.
        parameters: what it updates; gradients of all others are thrown away.
        loss: called with a `MicroBatch`; returns the mean loss over its rows and values to log, all scalar tensors.
        learning_rate: Adam's.
        weight_decay: AdamW's.
        reduce_metrics: makes what is logged from the values' means over the whole batch (a ratio, say).
    """

    name: str
    parameters: list[nn.Parameter]
    loss: Callable[[MicroBatch], tuple[Tensor, Values]]
    learning_rate: float
    weight_decay: float = 0.0
    reduce_metrics: Callable[[Values], Values] = dict
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def step(self, skip: Tensor, rate: float) -> None:
        """Update the parameters.

        Arguments:
            skip: 1 where the update is to be skipped, else 0, a scalar.
            rate: the share of the learning rate that counts in this update.

        The device decides, by what `torch.amp.GradScaler` uses: the host does not wait for it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate
        self.optimizer.grad_scale, self.optimizer.found_inf = None, skip
        self.optimizer.step()


class Task(ABC):
    """What `train` trains.

    Attributes:
        modules: all that a checkpoint keeps.
        objectives: in the order in which they take their updates.
        manifest: settings and inputs that the result depends on; a change of them is another training.
        networks: shape of each module, as JSON values: enough to build it again (`ageflow.checkpoint.Weights`).
    """

    modules: nn.ModuleDict
    objectives: list[Objective]
    manifest: Manifest
    networks: dict[str, dict[str, Any]]

    def start(self) -> None:  # noqa: B027  (most tasks start from nothing that depends on data)
        """Once, before the first iteration of a new training: data-dependent initialisation."""

    @abstractmethod
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Write sample pictures into `folder`; return validation numbers of the `averaged` modules."""


def initial_weights(settings: Training, folder: str, part: str, faces: Faces) -> Weights | None:
    """The weights that `init_from` names; None where a training begins from nothing, or has begun.

    Arguments:
        settings: of the training.
        folder: its folder in the run.
        part: the network: ``translator`` or ``classifier``.
        faces: what it is trained on.

    Raises:
        CheckpointError: nothing of that name, or no weights of the kit's.
    """
    begun = checkpoints(Workspace.of(settings).path(folder)) and not settings.restart
    if settings.init_from is None or begun:
        return None
    path = find_weights(settings.init_from, settings.runs_root, folder)
    warn_of_known_people(settings.init_from, path, faces)
    weights = read_weights(path, part)
    if weights is None:
        raise CheckpointError(f"{path} is not a file of the kit: a {part} begins from a run or a released file")
    return weights


def running_statistics(modules: nn.Module) -> list[Tensor]:
    """The running means and variances of batch normalisation: what a forward pass in training changes."""
    layers = [layer for layer in modules.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    return [statistic for layer in layers for statistic in (layer.running_mean, layer.running_var)]


def freeze_spectral_norms(modules: nn.Module) -> None:
    """Stop spectral normalisation's power iteration until `modules.train()`.

    Every forward pass would iterate once more; so a batch in four passes would be another update than the same batch
    in one, and processes with different numbers of passes would drift apart.
    """
    for layer in modules.modules():
        if isinstance(layer, nn.utils.parametrizations._SpectralNorm):
            layer.eval()


def sample_batch(count: int, batch_size: int, seed: int, number: int) -> Tensor:
    """The `number`-th batch of indices below `count`: every epoch in a new order, the last short batch dropped.

    It depends on nothing but its arguments, so that a resumed training sees the batches it would have seen.

    Raises:
        ParameterError: there is nothing to choose from.

    Example:
        >>> epoch = torch.cat([sample_batch(10, 5, seed=0, number=n) for n in (0, 1)])
        >>> sorted(epoch.tolist()) == list(range(10))
        True
    """
    if count < 1:
        raise ParameterError(
            "there are no faces to train on: the data card lists how many each half has. FG-NET is a set to test models "
            "of other sets on, so all of it is the test half"
        )
    generator = torch.Generator()
    if count < batch_size:  # with replacement, where one batch is more than there is
        return torch.randint(count, (batch_size,), generator=generator.manual_seed(seed_of(seed, number)))
    per_epoch = count // batch_size
    epoch, place = divmod(number, per_epoch)
    return _order(count, seed_of(seed, epoch))[place * batch_size : (place + 1) * batch_size]


@functools.lru_cache(maxsize=2)  # every micro-batch of an epoch asks for it
def _order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def seed_of(seed: int, number: int) -> int:
    """A seed for the `number`-th of a series; neighbours are unrelated (splitmix64)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
