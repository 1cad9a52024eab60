"""Devices by name, and the memory of this process."""

import ctypes
import functools
import gc
import os
import sys
from pathlib import Path

import torch

from ageflow.config import ParameterError

_PROC = Path("/proc/self")  # Linux
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h

# PyTorch lets a GPU's convolutions round to TF32's ten bits unless told otherwise. A 1×1 convolution and its inverse then
# do not undo each other, and `reversible` finds other gradients than `plain`. Set for the whole process, as a backward
# pass runs outside of any block.
torch.backends.cudnn.allow_tf32 = False


def device_of(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first accelerator there is that has float64, or the CPU.

    Raises:
        ParameterError: no device's name, or one that is not here; or Apple's GPUs (``mps``), which have no float64,
            in which ActNorm's first values and the boxes of faces are computed.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator if accelerator and accelerator.type != "mps" else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ParameterError(f"device = {name!r}: expected auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda":
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= available:
            raise ParameterError(
                f"device = {name!r}: this machine has {available} CUDA devices; auto takes what there is"
            )
    if device.type == "mps":
        raise ParameterError(f"device = {name!r}: it has no float64, which this needs; name cpu, cuda or auto")
    return device


def devices_of(name: str) -> list[torch.device]:
    """Every device that a name may mean, for work in pieces: all GPUs where it names no one of them; errors as `device_of`."""
    device = device_of(name)
    if device.type == "cuda" and device.index is None:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [device]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks for the next ones; returns whether it does from now on.

    glibc maps every block over 32 MB afresh and unmaps it when freed, so each activation of a wide convolution is
    paid for again, page by page: a fifth of a training step on a CPU (notebook 10). Elsewhere than on Linux
    with glibc nothing changes. GPUs have torch's own caching allocator.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_TOP_PAD, 64 * 2**20)])


def peak_memory(device: torch.device | str = "cpu") -> int:
    """Bytes at the peak since `reset_peak_memory`: on CUDA torch's counter, on the CPU the resident set."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def reset_peak_memory(device: torch.device | str = "cpu") -> int:
    """Start a new peak; returns the bytes in use now."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if _PROC.is_dir():  # elsewhere (macOS) no new peak can be started
        (_PROC / "clear_refs").write_text("5")  # proc(5): resets the high-water mark
    return _status("VmRSS")


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes; where there is none, the largest resident set since the process started."""
    if not _PROC.is_dir():
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lines = (_PROC / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
