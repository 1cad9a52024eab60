"""Time and memory of one case, in a process of its own; `python -m ageflow.benchmark '{json}'`."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from ageflow.benchmark.peers import CODES, multiply_adds
from ageflow.device import device_of, keep_freed_memory, peak_memory, reset_peak_memory
from ageflow.flows.glow import GlowConfig

_LONGEST_PRODUCT = 1.0  # seconds that one matrix product may take
_WARM_UP = 2
_PATIENCE = 1200  # seconds for one case


class MeasurementError(RuntimeError):
    """The process of a case failed; the message ends with what it said."""


class Case(BaseModel):
    """What to measure.

    ``layout`` is that of the weights and activations. ``keep_freed`` is how this project trains on a CPU
    (`memory.keep_freed_memory`); the public codes leave the C library as it is. ``what`` lists train, encode, decode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: Literal["ageflow", "normflows", "rosinality"] = "ageflow"
    glow: GlowConfig
    batch: int = Field(16, ge=1)
    layout: Literal["channels_last", "contiguous"] = "channels_last"
    keep_freed: bool = True
    compile: bool = False
    device: str = "auto"
    repeats: int = Field(3, ge=1)
    what: tuple[Literal["train", "encode", "decode"], ...] = ("train", "encode", "decode")
    peer: Path | None = None


def measure(case: Case) -> dict[str, float]:
    """Measure a case in a fresh process, so that no other's memory or cached kernels count.

    Not in one forked from a process that has imported torch, which would start seconds sooner: the libraries' pages
    that it has not touched again do not count as resident then, some 320 MB.

    Returns:
        ``train``, ``encode``, ``decode``: faces per second, each the median of `repeats`; ``peak``: bytes at the peak
        of training (CUDA: torch's counter; CPU: resident memory); ``activations``: of these, what is above parameters,
        gradients and Adam's moments; ``gflops``: 10⁹ operations per second of a training step, two for each of the
        model's own multiply-adds.

    Raises:
        MeasurementError: the process failed, or took longer than twenty minutes.
    """
    command = [sys.executable, "-m", "ageflow.benchmark", case.model_dump_json()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{case!r} took longer than {_PATIENCE} seconds") from None
    if done.returncode:
        raise MeasurementError(f"{case!r} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def gemm_peak(device: str = "auto", side: int = 2048, repeats: int = 10) -> dict[str, float]:
    """10⁹ operations per second of a square matrix product, fp32 and bf16: what this machine can reach."""
    on = device_of(device)
    peaks = {}
    # A processor without bf16 takes minutes for what another does in milliseconds; a small product tells.
    for name, dtype, sizes in (("fp32", torch.float32, (side,)), ("bf16", torch.bfloat16, (side // 8, side))):
        for size in sizes:
            a, b = (torch.randn(size, size, device=on).to(dtype) for _ in range(2))
            product = torch.empty(size, size, device=on, dtype=dtype)
            seconds = min(_times(lambda a=a, b=b, product=product: torch.mm(a, b, out=product), repeats, on))
            peaks[name] = 2 * size**3 / seconds / 1e9
            if 2 * side**3 / peaks[name] / 1e9 > _LONGEST_PRODUCT:
                break
    return peaks


def measure_here(case: Case) -> dict[str, float]:
    """Measure a case in this process, which should have done nothing else yet; returns what `measure` does."""
    device = device_of(case.device)
    if case.keep_freed and device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    x = torch.rand(case.batch, 3, case.glow.image_size, case.glow.image_size, device=device) - 0.5
    flow = CODES[case.code](case.glow, x, case.peer)
    if case.layout == "contiguous":
        flow.module.to(memory_format=torch.contiguous_format)
    found: dict[str, float] = {"parameters": sum(p.numel() for p in flow.module.parameters())}
    if "train" in case.what:
        found |= _train(case, flow.module.train(), torch.compile(flow.loss) if case.compile else flow.loss, x, device)
    flow.module.eval()
    encode, decode = (torch.compile(f) if case.compile else f for f in (flow.encode, flow.decode))
    with torch.no_grad():
        if "encode" in case.what:
            found["encode"] = case.batch / median(_times(lambda: encode(x), case.repeats, device))
        if "decode" in case.what:
            z = flow.encode(x)
            found["decode"] = case.batch / median(_times(lambda: decode(z), case.repeats, device))
    return found


def _train(
    case: Case, module: torch.nn.Module, loss: Callable, x: torch.Tensor, device: torch.device
) -> dict[str, float]:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-6, fused=case.code == "ageflow")
    held = 4 * sum(parameter.nbytes for parameter in module.parameters())  # weights, gradients, two moments

    def step() -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    before = reset_peak_memory(device) - sum(parameter.nbytes for parameter in module.parameters())
    seconds = median(_times(step, case.repeats, device))
    peak = peak_memory(device)
    operations = 3 * 2 * multiply_adds(case.glow) * case.batch
    return {
        "train": case.batch / seconds,
        "peak": peak,
        "activations": peak - held - max(0, before),
        "gflops": operations / seconds / 1e9,
    }


def _times(run: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each call after a warm-up; on an accelerator until it has finished."""
    seconds = []
    for number in range(_WARM_UP + repeats):
        began = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - began)
    return seconds
