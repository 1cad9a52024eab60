"""How many faces fit into one forward pass, and what a training will take."""

from datetime import datetime, timedelta

import psutil
import torch
from torch import nn

from ageflow.config import Training
from ageflow.memory import peak_memory, reset_peak_memory
from ageflow.training.distributed import Processes
from ageflow.training.task import Piece, Task

__all__ = ["faces_a_pass", "outlook"]

# Of the memory that is free: the rest is for the optimiser's state, which comes with the first update, and for luck.
_SHARE = 0.7


def faces_a_pass(task: Task, settings: Training, together: Processes, device: torch.device) -> int:
    """The settings' `micro_batch`, or for ``"auto"`` the largest power of two that fits.

    On CUDA passes are tried, larger and larger, until memory is short. A CPU does not say when it is: there the
    peaks of two faces and of four are measured, and the rest is reckoned. The weights stay as they are.
    """
    share = -(-settings.batch_size // together.count)
    if settings.micro_batch is None:
        return share
    if settings.micro_batch != "auto":
        return min(share, settings.micro_batch)
    kept = {name: tensor.clone() for name, tensor in task.modules.state_dict().items()}
    try:
        fits = _tried(task, share, device) if device.type == "cuda" else _reckoned(task, share, together)
    finally:
        task.modules.load_state_dict(kept)
        for parameter in task.modules.parameters():
            parameter.grad = None
    return together.smallest(fits)


def _pass(task: Task, faces: int) -> None:
    """One forward and backward pass of every turn."""
    task.modules.train()
    for turn in task.turns:
        turn.loss(Piece(0, 0, faces, faces))[0].backward()


def _tried(task: Task, share: int, device: torch.device) -> int:
    # The optimiser's two moments come with the first update: their room is taken while what fits is sought.
    learning = [parameter for parameter in task.modules.parameters() if parameter.requires_grad]
    room = [torch.empty_like(parameter) for parameter in learning for _ in range(2)]
    fits, faces = 0, min(2, share)  # of one face batch normalisation may have a single value
    while True:
        full = False
        try:
            _pass(task, faces)
            torch.cuda.synchronize(device)
            fits = faces
        except RuntimeError as error:
            full = _no_memory(error)
            if not full:
                raise
        if full:  # outside of the block: the error holds what the pass left
            torch.cuda.empty_cache()
            if fits or faces == 1:
                break
            faces = 1
        elif faces >= share or fits == 1:
            break
        else:
            faces = min(2 * faces, share)
    del room
    torch.cuda.reset_peak_memory_stats(device)
    if fits == 0:
        raise MemoryError(f"one face does not fit into the memory of {device}: try memory='reversible'")
    # Half of what was tried leaves room for other faces' passes, which need not be the same to the byte.
    return fits if fits == share else max(1, fits // 2)


def _no_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory was too small, which cuDNN and cuBLAS tell in ways of their own."""
    told = ("unable to find an engine", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)


def _reckoned(task: Task, share: int, together: Processes) -> int:
    peaks = []
    for faces in (2, 4):
        _pass(task, faces)  # the gradients and the library's own buffers are there then
        before = reset_peak_memory()
        _pass(task, faces)
        peaks.append(peak_memory() - before)
    a_face = max((peaks[1] - peaks[0]) / 2, peaks[1] / 4, 1.0)
    free = _free_memory(together) / together.count * _SHARE
    fits = 1
    while fits < share and 2 * fits * a_face <= free:
        fits *= 2
    return min(fits, share)


def _free_memory(together: Processes) -> int:
    """Bytes that `together` may still take, of the machine's and of what a container allows them."""
    from distributed.system import memory_limit  # here: it takes a second to import

    # A limit tells what all in it may take together; what the files that it read take is given back when it is needed.
    used = psutil.Process().memory_info().rss * together.count
    return max(0, min(psutil.virtual_memory().available, memory_limit() - used))


def outlook(
    modules: nn.Module, settings: Training, micro_batch: int, together: Processes, left: int, seconds: float
) -> str:
    """What a person wants to know at the start, in a line.

    Arguments:
        modules: what is trained.
        settings: batch size.
        micro_batch: faces in one forward pass.
        together: the processes.
        left: updates still to do.
        seconds: what one update takes.
    """
    parameters = sum(parameter.numel() for parameter in modules.parameters())
    device = next(modules.parameters()).device
    end = datetime.now() + timedelta(seconds=left * seconds)
    passes = -(-settings.batch_size // (together.count * micro_batch))
    return (
        f"{parameters:,} parameters; {settings.batch_size} faces an update = {together.count} process"
        f"{'es' if together.count > 1 else ''} × {passes} passes of {micro_batch}; "
        f"{settings.batch_size / seconds:.1f} faces/s; {peak_memory(device) / 2**30:.1f} GB a process; "
        f"{left} updates to do, until {end:%Y-%m-%d %H:%M}"
    )
