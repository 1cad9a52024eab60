"""Several processes that train one model: how they join, and what they exchange.

Every process holds the whole model and takes its rows of every batch (`task.micro_batches`);
`DistributedDataParallel` averages the gradients while the last backward pass of an update still runs. On GPUs through
nccl, on the CPU through gloo: the same code.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ageflow.config import ParameterError
from ageflow.device import device_of
from ageflow.training.task import MicroBatch, Objective, running_statistics

# The first process alone draws samples and writes checkpoints, while the others wait.
_PATIENCE = timedelta(hours=1)
_TO_JOIN = timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; alone by default.

    Arguments:
        rank: its number.
        count: how many there are.
        control: gloo group for what the hosts exchange without waiting for their devices.
    """

    rank: int = 0
    count: int = 1
    control: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def broadcast(self, value: int) -> int:
        """The first process's `value`."""
        if self.count == 1:
            return value
        message = torch.tensor([value])
        dist.broadcast(message, 0, group=self.control)
        return int(message)

    def largest(self, value: int) -> int:
        """The largest `value` of any process, once all of them have come here."""
        if self.count == 1:
            return value
        message = torch.tensor([value])
        dist.all_reduce(message, dist.ReduceOp.MAX, group=self.control)
        return int(message)

    @torch.no_grad()
    def broadcast_module(self, module: nn.Module) -> None:
        """Overwrite every process's parameters and buffers with the first one's."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                whole = tensor.contiguous()
                dist.broadcast(whole, 0)
                tensor.copy_(whole)

    def sum(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars added up over the processes, in one message."""
        if self.count == 1:
            return values
        together = torch.stack([value.float() for value in values.values()])
        dist.all_reduce(together)
        return dict(zip(values, together.unbind(), strict=True))

    @torch.no_grad()
    def average_statistics(self, modules: nn.Module) -> None:
        """Average the running statistics of batch normalisation, of which each process saw its own faces."""
        if self.count == 1:
            return
        for statistic in running_statistics(modules):
            dist.all_reduce(statistic)
            statistic /= self.count


class _Loss(nn.Module):
    """An objective's loss, as a module whose gradients are averaged over the processes."""

    def __init__(self, objective: Objective, together: Processes) -> None:
        super().__init__()
        self._objective = objective
        self._parameters_of = nn.ParameterList(objective.parameters)
        self._weight = together.count  # DistributedDataParallel divides by it

    def forward(self, part: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the batch's mean loss, times the number of processes; and all values, detached."""
        loss, values = self._objective.loss(part)
        return loss * (part.share * self._weight), {k: v.detach() for k, v in {"loss": loss, **values}.items()}


def as_module(objective: Objective, together: Processes) -> nn.Module:
    """The objective's loss, ready to be called by every process on its own micro-batches."""
    losses = _Loss(objective, together)
    if together.count == 1:
        return losses
    for parameter in objective.parameters:
        parameter.register_hook(partial(_laid_as, parameter))
    # It has no buffers to send: it holds parameters only, and batch normalisation has `average_statistics`.
    return nn.parallel.DistributedDataParallel(losses)


def _laid_as(parameter: nn.Parameter, grad: Tensor) -> Tensor:
    """`grad` with the strides of its parameter, which the buckets have: a 1×1 convolution's differ in name only."""
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter, dtype=grad.dtype).copy_(grad)


def maybe_no_sync(losses: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """No exchange of gradients in all but the last pass of an update."""
    distributed = isinstance(losses, nn.parallel.DistributedDataParallel)
    return losses.no_sync() if distributed and not last else contextlib.nullcontext()


def processes() -> Processes:
    """Those that this process trains with: torchrun's, once they have joined; otherwise itself alone."""
    return _joined or Processes()


_joined: Processes | None = None


@contextlib.contextmanager
def join(device: str) -> Iterator[str]:
    """Train together with the other processes that torchrun started, while the block lasts.

    Arguments:
        device: the settings' device: nccl on GPUs, gloo on the CPU.

    Yields:
        This process's own device, ``cuda:2`` or ``cpu``.
    """
    global _joined
    kind, failed = device_of(device).type, False
    if kind == "cuda":
        check_index(device, int(os.environ.get("WORLD_SIZE", "1")))
        if device_of(device).index is None:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    store, rank, count = next(dist.rendezvous("env://", timeout=_TO_JOIN))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # torchrun keeps one store for all its attempts, and what a killed process wrote there is stale. On several machines
        # the attempts are not counted alike; `launched` has each attempt make a store of its own.
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    try:
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        _joined = Processes(dist.get_rank(), dist.get_world_size(), control)
        if not _joined.first:
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  printed once, not by every process
        yield device
    except Exception:
        failed = True
        raise
    finally:
        _joined = None
        if not failed:  # NCCL waits until all have left, and where one failed the others wait for it
            gc.collect()  # `DistributedDataParallel` holds on to the group: the last of it is to go before the group does
            dist.destroy_process_group()


def check_index(device: str, count: int) -> None:
    """Refuse one GPU for several processes.

    Raises:
        ParameterError: `device` names one, and `count` processes are to train.
    """
    if count > 1 and device_of(device).index is not None:
        raise ParameterError(
            f"device = {device!r} is one GPU, and {count} processes train, on one each: pass device = cuda, and choose the "
            "GPUs by CUDA_VISIBLE_DEVICES"
        )
