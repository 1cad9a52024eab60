"""Devices by name, what goes there and how exactly it is computed, and the memory of this process (on Linux with glibc)."""

import contextlib
import ctypes
import functools
import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import Tensor

from ageflow.config import ParameterError


def device_of(name: str) -> torch.device:
    """The device of a name: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` is the first GPU, or the CPU where there is none.

    Raises:
        ParameterError: another name, or a GPU that is not here.
    """
    available = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ParameterError(f"device = {name!r}: expected auto, cpu, cuda or cuda:1")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= available:
        raise ParameterError(f"device = {name!r}: this machine has {available} CUDA devices; auto takes what there is")
    return device


def devices_of(name: str) -> list[torch.device]:
    """Every device that a name may mean, for work in pieces: all GPUs where it names no one of them; errors as `device_of`."""
    device = device_of(name)
    if device.type == "cuda" and device.index is None:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [device]


@contextlib.contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """While the block lasts, fp32 products and convolutions are computed in fp32, whatever this session rounds them to.

    A GPU's convolutions round to TF32's ten bits by default, and `torch.set_float32_matmul_precision` rounds on either
    device: an invertible convolution and its inverse then do not undo each other. Everything else may be rounded so.
    """
    of_gpu = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    of_cpu = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv
    operations = of_gpu if device.type == "cuda" else of_cpu
    rounded = [(each, each.fp32_precision) for each in operations if each.fp32_precision not in ("ieee", "none")]
    try:
        for operation, _ in rounded:
            operation.fp32_precision = "ieee"
        yield
    finally:
        for operation, before in rounded:
            operation.fp32_precision = before


def fast_precision(device: torch.device) -> Literal["bf16", "fp32"]:
    """What networks that need not be exact compute fastest in: ``bf16`` where the device multiplies it by itself."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"


def reduced_precision(device: torch.device) -> torch.autocast:
    """While the block lasts, networks compute in `fast_precision`: for what learns and judges nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_precision(device) == "bf16")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`: a GPU copies it from pinned memory when it comes to that, and the host goes on."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


@functools.cache
def constant(values: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor (of numbers, or rows of them) that is made on a device once, as the host waits for the device each time."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep freed blocks for the next ones.

    glibc maps every block over 32 MB afresh and unmaps it when freed, so each activation of a wide convolution is
    paid for again, page by page: a fifth of a training step on a CPU (notebook 10). GPUs have torch's own allocator.
    """
    # M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD of glibc's malloc.h
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20)):
        ctypes.CDLL(None).mallopt(option, value)


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that this process may still take, with what torch keeps for the next tensors."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def peak_memory(device: torch.device | str = "cpu") -> int:
    """Bytes at the peak since `reset_peak_memory`: on CUDA torch's counter, on the CPU the resident set."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])


def reset_peak_memory(device: torch.device | str = "cpu") -> int:
    """Start a new peak; returns the bytes in use now."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the high-water mark
    return psutil.Process().memory_info().rss
