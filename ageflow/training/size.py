"""How many faces fit into one forward pass, and how long a training will take."""

from datetime import datetime, timedelta

import psutil
import torch

from ageflow.config import Training
from ageflow.device import peak_memory, reset_peak_memory
from ageflow.training.distributed import Processes
from ageflow.training.state import State
from ageflow.training.task import MicroBatch, Task

# Of the memory that is free: the rest is for what a measurement of small passes does not show.
_SHARE = 0.7


def choose_micro_batch(task: Task, settings: Training, together: Processes, device: torch.device) -> int:
    """The settings' `micro_batch`, or for ``"auto"`` the largest power of two that fits into memory.

    Peak memory of passes of two faces and of four is measured, and extrapolated. The weights stay as they are.
    """
    share = -(-settings.batch_size // together.count)
    if settings.micro_batch is None:
        return share
    if settings.micro_batch != "auto":
        return min(share, settings.micro_batch)
    kept = {name: tensor.clone() for name, tensor in task.modules.state_dict().items()}
    try:
        peaks = []
        for faces in (2, 4):
            _forward_backward(task, faces)  # gradients and the library's own buffers are allocated now
            before = reset_peak_memory(device)
            _forward_backward(task, faces)
            peaks.append(peak_memory(device) - before)
    finally:
        task.modules.load_state_dict(kept)
        for parameter in task.modules.parameters():
            parameter.grad = None
    a_face = max((peaks[1] - peaks[0]) / 2, peaks[1] / 4, 1.0)
    # Adam's two moments come with the first update.
    moments = 2 * sum(p.numel() * p.element_size() for p in task.modules.parameters() if p.requires_grad)
    free = (_free_memory(device, together) - moments) * _SHARE
    fits = 1
    while fits < share and 2 * fits * a_face <= free:
        fits *= 2
    return -together.largest(-min(fits, share))  # the smallest of any process


def _forward_backward(task: Task, faces: int) -> None:
    task.modules.train()
    for objective in task.objectives:
        objective.loss(MicroBatch(0, 0, faces, faces))[0].backward()


def _free_memory(device: torch.device, together: Processes) -> float:
    """Bytes that this process may still take."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps of the passes that were measured is free, too
        return torch.cuda.mem_get_info(device)[0]
    from distributed.system import memory_limit  # slow to import

    # A container's limit holds for all processes in it together; the page cache is given back when memory is needed.
    used = psutil.Process().memory_info().rss * together.count
    return max(0, min(psutil.virtual_memory().available, memory_limit() - used)) / together.count


def outlook(state: State, settings: Training, micro_batch: int, together: Processes, seconds: float) -> str:
    """Size, speed, memory and the expected end, in a line; `seconds` are those of one update."""
    parameters = sum(parameter.numel() for parameter in state.task.modules.parameters())
    left = settings.iterations - state.iteration
    end = datetime.now() + timedelta(seconds=left * seconds)
    passes = -(-settings.batch_size // (together.count * micro_batch))
    return (
        f"{parameters:,} parameters; {settings.batch_size} faces an update = {together.count} process"
        f"{'es' if together.count > 1 else ''} × {passes} passes of {micro_batch}; "
        f"{settings.batch_size / seconds:.1f} faces/s; {peak_memory(state.device) / 2**30:.1f} GB a process; "
        f"{left} updates to do, until {end:%Y-%m-%d %H:%M}"
    )
