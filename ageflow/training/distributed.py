"""Several processes that train one model: how they start, join, exchange and stop, and how many faces each passes.

Every process holds the whole model and takes its rows of every batch (`task.micro_batches`);
`DistributedDataParallel` averages the gradients while the last backward pass of an update still runs. On GPUs through
nccl, on the CPU through gloo: the same code.
"""

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ageflow.config import ParameterError, Training
from ageflow.device import device_of, free_memory, peak_memory, processors, reset_peak_memory
from ageflow.run import PROCESS_ENVIRONMENT
from ageflow.training.task import MicroBatch, Objective, Task, Values, freeze_spectral_norms

# The first process alone draws samples and writes checkpoints, while the others wait.
_PATIENCE = timedelta(hours=1)
# For saving, once processes were told to stop; then they are killed.
_SECONDS_TO_SAVE = 120
# Of the memory that is free: the rest is for what a measurement of small passes does not show.
_SHARE = 0.7


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

    def largest(self, value: int) -> int:
        """The largest `value` of any process, once all of them have come here."""
        if self.count == 1:
            return value
        message = torch.tensor([value])
        dist.all_reduce(message, dist.ReduceOp.MAX, group=self.control)
        return int(message)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite each process's tensors, of one dtype, with their sums over the processes: in one exchange."""
        tensors = list(tensors)
        if self.count > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(total.view_as(tensor))


class _Loss(nn.Module):
    """An objective's loss, as a module whose gradients are averaged over the processes."""

    def __init__(self, objective: Objective, together: Processes) -> None:
        super().__init__()
        self._objective = objective
        self._parameters_of = nn.ParameterList(objective.parameters)
        self._weight = together.count  # DistributedDataParallel divides by it

    def forward(self, part: MicroBatch) -> tuple[Tensor, Values]:
        """The micro-batch's share of the batch's mean loss, times the number of processes; and all values, detached."""
        loss, values = self._objective.loss(part)
        return loss * (part.share * self._weight), {k: v.detach() for k, v in {"loss": loss, **values}.items()}


def as_module(objective: Objective, together: Processes) -> nn.Module:
    """The objective's loss, ready to be called by every process on its own micro-batches."""
    losses = _Loss(objective, together)
    # It has no buffers to send: it holds parameters only, and batch normalisation's statistics are averaged by the loop.
    return nn.parallel.DistributedDataParallel(losses) if together.count > 1 else losses


def accumulate(modules: nn.Module, losses: nn.Module, mine: list[MicroBatch], seed: int) -> Values:
    """Gradients of an objective over the whole batch; the values to log, of this process's rows.

    What another objective updates gets no gradient, so that none is computed for it (D's, while T learns). Gradients are
    exchanged in the last pass only. The same seed before every micro-batch: what a loss draws, it draws for
    the whole batch, and takes its rows.
    """
    modules.zero_grad()
    modules.train()
    sums: Values = {}
    with learning(losses, modules):
        for part in mine:
            if part is not mine[0]:
                freeze_spectral_norms(modules)
            torch.manual_seed(seed)
            alone = part is not mine[-1] and isinstance(losses, nn.parallel.DistributedDataParallel)
            with losses.no_sync() if alone else contextlib.nullcontext():
                loss, values = losses(part)
                loss.backward()
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value * part.share
    return sums


@contextlib.contextmanager
def learning(losses: nn.Module, modules: nn.Module) -> Iterator[None]:
    """While the block lasts, of `modules` only the parameters of `losses` ask for gradients."""
    own = {*losses.parameters()}
    others = [each for each in modules.parameters() if each.requires_grad and each not in own]
    try:
        for parameter in others:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


# -- joining ---------------------------------------------------------------------------------------------------------


_joined: Processes | None = None


def processes() -> Processes:
    """Those that this process trains with: torchrun's, once they have joined; otherwise itself alone."""
    return _joined or Processes()


def end_with_parent(number: int) -> None:
    """Have the kernel send this process the signal `number` when its parent has gone (Linux)."""
    ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def join(device: str) -> Iterator[str]:
    """Train together with the other processes that torchrun started, while the block lasts.

    Arguments:
        device: the settings' device: nccl on GPUs, gloo on the CPU.

    Yields:
        This process's own device, ``cuda:2`` or ``cpu``.

    Raises:
        ParameterError: `device` names one GPU for several processes, or there are fewer GPUs than processes here.
    """
    global _joined
    # Those of a 1×1 convolution differ in name only.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    end_with_parent(signal.SIGKILL)  # torchrun, told to stop, waits until its processes have saved
    on = device_of(device)
    if on.type == "cuda":
        if on.index is not None and os.environ["WORLD_SIZE"] != "1":
            what = f"device = {device!r} is one GPU, and {os.environ['WORLD_SIZE']} processes train, on one each"
            raise ParameterError(f"{what}: pass device = cuda, and choose the GPUs by CUDA_VISIBLE_DEVICES")
        device = device if on.index is not None else f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device_of(device))
    dist.init_process_group("nccl" if on.type == "cuda" else "gloo", timeout=_PATIENCE)
    _joined = Processes(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=_PATIENCE))
    try:
        yield device
    finally:
        _joined = None
        # NCCL waits until all have left, and where one failed the others wait for it.
        if not isinstance(sys.exc_info()[1], Exception):
            gc.collect()  # `DistributedDataParallel` holds on to the group: the last of it is to go before the group does
            dist.destroy_process_group()


# -- faces in a pass -------------------------------------------------------------------------------------------------


def choose_micro_batch(task: Task, settings: Training, together: Processes, device: torch.device) -> int:
    """The settings' `micro_batch`, or for ``"auto"`` the largest power of two that fits into memory.

    Peak memory of a pass of four faces is measured. The weights stay as they are.
    """
    share = -(-settings.batch_size // together.count)
    if settings.micro_batch != "auto":
        return min(share, settings.micro_batch or share)
    kept = {name: tensor.clone() for name, tensor in task.modules.state_dict().items()}
    task.modules.train()
    for _ in range(2):  # gradients and the library's own buffers are allocated in the first
        before = reset_peak_memory(device)
        for objective in task.objectives:
            objective.loss(MicroBatch(0, 0, 4, 4))[0].backward()
    a_face = max((peak_memory(device) - before) / 4, 1.0)
    task.modules.load_state_dict(kept)
    # Adam's two moments come with the first update.
    moments = 2 * sum(p.numel() * p.element_size() for p in task.modules.parameters() if p.requires_grad)
    free, fits = (_free_memory(device, together) - moments) * _SHARE, 1
    while fits < share and 2 * fits * a_face <= free:
        fits *= 2
    return -together.largest(-min(fits, share))  # the smallest of any process


def _free_memory(device: torch.device, together: Processes) -> float:
    """Bytes that this process may still take."""
    if device.type == "cuda":
        return free_memory(device)
    from distributed.system import memory_limit  # slow to import

    # A container's limit holds for all processes in it together; the page cache is given back when memory is needed.
    used = psutil.Process().memory_info().rss * together.count
    return max(0, min(psutil.virtual_memory().available, memory_limit() - used)) / together.count


# -- starting and stopping --------------------------------------------------------------------------------------------


class Stopping:
    """While the block lasts, SIGTERM and SIGINT are noted, and come into force when the block has ended.

    A second SIGINT (Ctrl-C again, the stop button again) stops at once, and what was done since the last checkpoint
    is done again next time. Outside the main thread no signal arrives, and nothing is changed.

    Example:
        >>> with Stopping() as stopping:
        ...     stopping.signal
        0
    """

    signal = 0

    def __enter__(self) -> "Stopping":
        numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self.signal and self._before:
            signal.raise_signal(self.signal)


class TrainingFailedError(RuntimeError):
    """The processes that trained together ended without a result; the message is theirs."""


def launched(settings: Training, folder: Path) -> bool:
    """Train by torchrun where more than one process is asked for; returns whether that was done.

    What they print goes to stderr as it comes. They end with this process, however it ends: told to stop, they save first.

    Arguments:
        settings: `gpus`, `nodes`, `rendezvous` and `max_restarts`; the rest is what they train with.
        folder: the training's.

    Raises:
        TrainingFailedError: they failed, after `max_restarts`; what was saved is whole.
    """
    count = settings.gpus * settings.nodes
    if count == 1 or dist.is_initialized():
        return False
    with Stopping() as stopping, tempfile.TemporaryDirectory(prefix="ageflow-") as scratch:
        report, log = (Path(scratch) / name for name in ("error.txt", "processes.log"))
        code = _run(_command(settings, report), log, stopping, processors() // settings.gpus)
        if report.is_file():
            raise TrainingFailedError(report.read_text())
        if code and not stopping.signal:
            last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            what = f"the {count} processes ended with code {code}: run again, it continues from the last checkpoint"
            raise TrainingFailedError(f"{what} in {folder}. Their last lines:\n{last_lines}")
    return True


def _command(settings: Training, report: Path) -> list[str]:
    where = ["--standalone"]
    if settings.nodes > 1:
        where = [f"--nnodes={settings.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={settings.rendezvous}"]
        where.append(f"--rdzv-id={settings.dataset}-{settings.run}-{settings.step}")
    run = [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={settings.gpus}"]
    run += [f"--max-restarts={settings.max_restarts}", "--monitor-interval=0.2", "-m", "ageflow.train", settings.step]
    return [*run, "--settings", settings.model_dump_json(), "--report", str(report)]


def _run(command: list[str], log: Path, stopping: Stopping, threads: int = 1) -> int:
    """Run torchrun to its end, or until a signal comes, passing on what it prints; its exit code."""
    # Every attempt makes a store of its own, and there is time to save, also where Slurm stops torchrun itself.
    ours = {"OMP_NUM_THREADS": str(max(1, threads)), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    ours["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(_SECONDS_TO_SAVE)
    options = {"env": PROCESS_ENVIRONMENT | ours | os.environ, "stderr": subprocess.STDOUT, "start_new_session": True}
    options["preexec_fn"] = lambda: end_with_parent(signal.SIGTERM)
    # A file, not a pipe: printing must not fail, and so end what can still be saved, when this process has gone.
    with log.open("wb") as output, log.open(errors="replace", newline="") as printed:
        process = subprocess.Popen(command, stdout=output, **options)
        try:
            while process.poll() is None and not stopping.signal:
                time.sleep(0.2)
                sys.stderr.write(printed.read())
        finally:
            process.terminate()  # torchrun passes it on, and kills its processes when their time is over
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # interrupted again: at once
                process.wait(_SECONDS_TO_SAVE + 10)
            process.kill()  # and with it its processes (see `join`)
            process.wait()
            sys.stderr.write(printed.read())
    return process.returncode
