"""What is trained: modules, the objectives that update them, the micro-batch of a forward pass, the state to resume.

An update's batch is the same whatever it is cut into. Its faces depend on (seed, update) alone; noise is drawn for
the whole batch by every process, from the same seed, and each takes its rows of it (`MicroBatch.rows`).
"""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ageflow.checkpoint import Checkpoint, CheckpointError, Weights, find_weights, latest, read_weights, save_checkpoint
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
    starts = range(first, last, micro_batch)
    return [MicroBatch(number, start, min(start + micro_batch, last), size) for start in starts]


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
        betas: Adam's.
    """

    name: str
    parameters: list[nn.Parameter]
    loss: Callable[[MicroBatch], tuple[Tensor, Values]]
    learning_rate: float
    weight_decay: float = 0.0
    reduce_metrics: Callable[[Values], Values] = dict
    betas: tuple[float, float] = (0.9, 0.999)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        adam = {"lr": self.learning_rate, "betas": self.betas, "weight_decay": self.weight_decay}
        self.optimizer = torch.optim.AdamW(self.parameters, **adam, fused=True)

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

    @torch.no_grad()
    def load(self, tensors: Values) -> None:
        """The optimiser's state from a checkpoint, ``<parameter's number>.<name>``."""
        state: dict[int, Values] = {}
        for name, tensor in tensors.items():
            index, key = name.split(".")
            parameter = self.parameters[int(index)]
            if tensor.shape == parameter.shape:
                # A file knows no strides, and the fused optimiser walks parameter and moments side by side.
                tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


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
    """

    task: Task
    ema: float
    device: torch.device

    def __post_init__(self) -> None:
        self.iteration, self.resumed, self.setbacks = 0, False, 0
        self._writes: Future | None = None
        self.skipped = torch.zeros(3, device=self.device, dtype=torch.int64)
        # Not by torch.optim.swa_utils.AveragedModel: that waits for the device in every update, to read its own counter.
        self.averaged = copy.deepcopy(self.task.modules).requires_grad_(False)
        self._followed = [changing_buffers(modules) for modules in (self.averaged, self.task.modules)]

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
        for buffer, newest in zip(*self._followed, strict=True):
            buffer.copy_(newest)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """While the block lasts, `save` writes beside the next update's gradients; at its end, all is written."""
        with ThreadPoolExecutor(1) as self._writer:
            yield
            self.written()

    def written(self) -> None:
        """Wait for what is being written. On the CPU nothing is copied for it, so weights may change only afterwards.

        Raises:
            OSError: it could not be written.
        """
        if self._writes is not None:
            self._writes.result()

    def save(self, folder: Path) -> None:
        """Begin to write a checkpoint of it."""
        self.written()
        tensors = {f"model.{name}": tensor for name, tensor in self.task.modules.state_dict().items()}
        if self.ema:
            tensors |= {f"average.{name}": tensor for name, tensor in self.averaged.named_parameters()}
        for objective in self.task.objectives:
            for index, state in objective.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{objective.name}.{index}.{name}": tensor for name, tensor in state.items()}
        tensors |= {"counts.skipped": self.skipped, "counts.setbacks": torch.tensor(self.setbacks)}
        changing = {buffer.data_ptr() for buffer in changing_buffers(self.task.modules)}  # by the next forward pass
        tensors |= {name: tensor.clone() for name, tensor in tensors.items() if tensor.data_ptr() in changing}
        kept = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        about = self.iteration, kept, self.task.manifest, self.task.networks
        self._writes = self._writer.submit(save_checkpoint, folder, *about)

    def load(self, checkpoint: Checkpoint) -> None:
        """Become what `checkpoint` holds."""
        weights = checkpoint.tensors("model.")
        self.task.modules.load_state_dict(weights)
        self.averaged.load_state_dict(weights | checkpoint.tensors("average."))
        for objective in self.task.objectives:
            objective.load(checkpoint.tensors(f"optimizer.{objective.name}."))
        counts = checkpoint.tensors("counts.")
        self.skipped, self.setbacks = counts["skipped"].to(self.device), int(counts["setbacks"])
        self.iteration, self.resumed = checkpoint.iteration, True


def begun(settings: Training, folder: str) -> Checkpoint | None:
    """What the training in the run's `folder` continues from, so that it needs its initial weights no more."""
    return None if settings.restart else latest(Workspace.of(settings).path(folder))


def initial_weights(settings: Training, folder: str, part: str, faces: Faces) -> Weights | Path | None:
    """The weights that `init_from` names; None where a training begins from nothing, or has `begun`.

    Arguments:
        settings: of the training.
        folder: its folder in the run.
        part: the network: ``glow``, ``translator`` or ``classifier``.
        faces: what it is trained on.

    Returns:
        The weights, or for a GLOW the file of a public code.

    Raises:
        CheckpointError: nothing of that name, or no weights of the kit's.
    """
    if settings.init_from is None or begun(settings, folder):
        return None
    path = find_weights(settings.init_from, settings.runs_root, folder)
    warn_of_known_people(settings.init_from, path, faces)
    weights = read_weights(path, part)
    if weights is None and part != "glow":
        raise CheckpointError(f"{path} is not a file of the kit: a {part} begins from a run or a released file")
    return weights or path


def running_statistics(modules: nn.Module) -> list[Tensor]:
    """The running means and variances of batch normalisation: what a forward pass in training changes."""
    layers = [layer for layer in modules.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    return [statistic for layer in layers for statistic in (layer.running_mean, layer.running_var)]


def changing_buffers(modules: nn.Module) -> list[Tensor]:
    """The buffers that a forward pass in training changes: batch and spectral normalisation's. All others are constants."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.utils.parametrizations._SpectralNorm)
    return [buffer for layer in modules.modules() if isinstance(layer, kinds) for buffer in layer.buffers()]


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
        look = "the data card lists how many each half has (FG-NET is a test half only)"
        raise ParameterError(f"there are no faces to train on: {look}")
    generator = torch.Generator()
    if count < batch_size:  # with replacement, where one batch is more than there is
        return torch.randint(count, (batch_size,), generator=generator.manual_seed(seed_of(seed, number)))
    epoch, place = divmod(number, count // batch_size)
    order = torch.randperm(count, generator=generator.manual_seed(seed_of(seed, epoch)))
    return order[place * batch_size : (place + 1) * batch_size]


def seed_of(seed: int, number: int) -> int:
    """A seed for the `number`-th of a series; neighbours are unrelated (splitmix64)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
