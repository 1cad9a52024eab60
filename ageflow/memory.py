"""Memory of this process: its peak, keeping what is freed at hand, and pausing the garbage collector.

Imports torch only where it asks for a device's memory, as it is used before torch is imported.
"""

import contextlib
import ctypes
import functools
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


_PROC = Path("/proc/self")  # Linux
# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks for the next ones; says whether it does from now on.

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


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Without the garbage collector while a large package is imported, which makes objects and throws none away.

    The collector looks through all of them again and again meanwhile: ``import torch, torch._dynamo`` (the first
    optimiser imports the latter) took 6.0 s of a CPU with it, and 4.7 s after ``import gc; gc.disable()``.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def peak_memory(device: "torch.device | str" = "cpu") -> int:
    """Bytes at the peak since `reset_peak_memory`: on CUDA torch's counter, on the CPU the resident set."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") if _PROC.is_dir() else _peak_of_process()


def reset_peak_memory(device: "torch.device | str" = "cpu") -> int:
    """Start a new peak; returns the bytes in use now."""
    import torch

    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if with_trim is not None:
        with_trim(0)
    if not _PROC.is_dir():  # macOS: no new peak can be started
        return _peak_of_process()
    (_PROC / "clear_refs").write_text("5")  # proc(5): resets the high-water mark
    return _status("VmRSS")


def _peak_of_process() -> int:
    """The largest resident set since the process started, in bytes: what systems without /proc tell."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in (_PROC / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
