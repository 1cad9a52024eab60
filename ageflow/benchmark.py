"""Notebook 10: how fast and how lean GLOW is here, beside normflows at the same shapes.

Each case is measured in a process of its own, ``python -m ageflow.benchmark '{json}'``.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ageflow.config import Benchmarks, validated
from ageflow.device import device_of, keep_freed_memory, peak_memory, reset_peak_memory
from ageflow.flows.glow import Glow, GlowConfig
from ageflow.run import Workspace, write_atomically
from ageflow.work import progress_bar

_MODES = ("plain", "checkpoint", "reversible")
# What names a row of each table.
_KEYS = {"speed": ["case"], "memory": ["mode", "steps", "batch"], "large": ["batch"]}
_MEASURED = ("train", "encode", "decode", "gflops", "of_peak", "peak", "activations")
_WARM_UP = 2  # calls that are not timed


# -- the flows that are measured, each behind the same three calls ---------------------------------------------------


class Flow(NamedTuple):
    """A flow to be timed.

    Arguments:
        module: its parameters.
        log_prob: x [B, 3, S, S] in [-0.5, 0.5] → nats [B].
        encode: x → latents, whatever form they have.
        decode: what `encode` gave → x.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]

    def loss(self, x: Tensor) -> Tensor:
        """Negative log-likelihood in nats a dimension, a scalar."""
        return -self.log_prob(x).mean() / x[0].numel()


def _ageflow(config: GlowConfig, x: Tensor) -> Flow:
    """This project's `Glow`."""
    glow = Glow(config).to(x.device)
    glow.initialize(x)
    return Flow(glow, glow.log_prob, lambda x: glow(x)[0], lambda z: glow.inverse(z)[0])


def _normflows(config: GlowConfig, x: Tensor) -> Flow:
    """normflows' multi-scale flow of its GlowBlocks, built as in its documentation's GLOW example."""
    import normflows as nf

    levels, side, channels = config.levels, config.image_size, config.channels
    bases, flows = [], []
    for i in range(levels):  # theirs count from the deepest
        steps = config.steps_per_level[levels - 1 - i]
        wide = channels * 2 ** (levels + 1 - i)
        blocks = [nf.flows.GlowBlock(wide, config.hidden, scale=config.coupling == "affine") for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        shape = (wide, side // 2**levels) if i == 0 else (wide // 2, side // 2 ** (levels - i))
        bases.append(nf.distributions.DiagGaussian((shape[0], shape[1], shape[1]), trainable=False))
    flow = nf.MultiscaleFlow(bases, flows, [nf.flows.Merge() for _ in range(levels - 1)], class_cond=False).to(x.device)
    with torch.no_grad():
        flow.log_prob(x, None)  # sets its ActNorms
    encode, decode = flow.inverse_and_log_det, flow.forward_and_log_det
    return Flow(flow, lambda x: flow.log_prob(x, None), lambda x: encode(x)[0], lambda z: decode(z)[0])


CODES: dict[str, Callable[[GlowConfig, Tensor], Flow]] = {"ageflow": _ageflow, "normflows": _normflows}


# -- one case --------------------------------------------------------------------------------------------------------


class Case(BaseModel, frozen=True):
    """What to measure.

    ``keep_freed`` is how this project trains on a CPU (`ageflow.device.keep_freed_memory`); normflows leaves the C library
    as it is.
    """

    code: str = "ageflow"
    glow: GlowConfig
    batch: int = 16
    keep_freed: bool = True
    device: str = "auto"
    repeats: int = 3
    only_train: bool = False


def measure(case: Case) -> dict[str, Any]:
    """Measure a case in a fresh process, so that no other's memory or cached kernels count.

    Not in one forked from a process that has imported torch, which would start seconds sooner: the libraries' pages
    that it has not touched again do not count as resident then, some 320 MB.

    Returns:
        As `measure_here`; or ``note``, how the process failed.
    """
    command = [sys.executable, "-m", "ageflow.benchmark", case.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    failed = {"note": f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"}
    return failed if done.returncode else json.loads(done.stdout.splitlines()[-1])


def measure_here(case: Case) -> dict[str, float]:
    """Measure a case in this process, which should have done nothing else yet.

    Returns:
        ``train``, ``encode``, ``decode``: faces per second, each the median of `repeats`; ``gflops``: 10⁹ operations per
        second of a training step, three times those of the forward pass's convolutions, nothing recomputed; ``peak``: GB at the peak of
        training (CUDA: torch's counter; CPU: resident memory); ``activations``: of these, what is above parameters,
        gradients and Adam's moments.
    """
    device = device_of(case.device)
    if case.keep_freed and device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    x = torch.rand(case.batch, 3, case.glow.image_size, case.glow.image_size, device=device) - 0.5
    flow = CODES[case.code](case.glow, x)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        flow.loss(x)
    operations = 3 * counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    weights = list(flow.module.train().parameters())
    optimizer = torch.optim.Adam(weights, lr=1e-6, fused=case.code == "ageflow")

    def step() -> None:
        optimizer.zero_grad()
        flow.loss(x).backward()
        optimizer.step()

    size = sum(weight.nbytes for weight in weights)
    before = reset_peak_memory(device) - size
    seconds = median(_times(step, case.repeats, device))
    peak = peak_memory(device)
    activations = peak - 4 * size - max(0, before)  # without weights, gradients, two moments
    found = {"train": case.batch / seconds, "gflops": operations / seconds / 1e9}
    found |= {"peak": peak / 1e9, "activations": activations / 1e9}
    if not case.only_train:
        flow.module.eval()
        with torch.no_grad():
            z = flow.encode(x)
            for name, call in (("encode", lambda: flow.encode(x)), ("decode", lambda: flow.decode(z))):
                found[name] = case.batch / median(_times(call, case.repeats, device))
    return found


def gemm_peak(device: str = "auto", side: int = 2048, repeats: int = 5) -> dict[str, float]:
    """10⁹ operations per second of a square matrix product by precision: what this machine can reach."""
    found, on = {}, device_of(device)
    for name, dtype in _precisions(on).items():
        a, b = (torch.randn(side, side, device=on).to(dtype) for _ in range(2))
        found[name] = 2 * side**3 / min(_times(partial(torch.mm, a, b, out=torch.empty_like(a)), repeats, on)) / 1e9
    return found


def _precisions(device: torch.device) -> dict[str, torch.dtype]:
    """fp32, and bf16 but on a CPU that only emulates it, which would need minutes for a training step."""
    bf16 = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if bf16 else {})


def _times(run: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each call after a warm-up; on an accelerator until it has finished."""
    seconds = []
    for _ in range(_WARM_UP + repeats):
        began = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return seconds[_WARM_UP:]


# -- the tables of notebook 10 ---------------------------------------------------------------------------------------


def machine(settings: Benchmarks) -> dict[str, Any]:
    """What the figures are measured on, with its own peak of a matrix product."""
    device = device_of(settings.device)
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "".join(models[:1])
    peaks = {f"peak_{dtype}": round(value, 1) for dtype, value in gemm_peak(settings.device).items()}
    return {"device": f"{device.type}: {name}", "cores": os.cpu_count(), "torch": torch.__version__} | peaks


def measured_table(settings: Benchmarks, name: str) -> pd.DataFrame:
    """Measure every case of a table, each in a process of its own, and keep ``<name>.csv`` after every round.

    Arguments:
        settings: sizes; the speed table is measured in `rounds`, whose medians count.
        name: ``speed``: every code and mode at the same shapes. ``memory``: a training step in the three modes,
            against the ``steps`` a level and against the ``batch``. ``large``: the paper's GLOW, 256×256, 6 levels of
            32 steps, hidden 512, reversible: a training step of 1 and of 4 faces.

    Returns:
        One row a case: ``train``, ``encode`` and ``decode`` in faces per second, ``peak`` and ``activations`` in GB,
        ``gflops`` of the training step and ``of_peak``, its share of the matrix product's peak in the same precision,
        measured between the rounds. ``note`` says why a case failed.
    """
    cases, keys = _cases(settings, name), _KEYS[name]
    table = pd.DataFrame(columns=[*keys, *_MEASURED])
    rounds = settings.rounds if name == "speed" else 1
    rows: list[dict[str, Any]] = []
    with progress_bar(total=len(cases) * rounds, unit="case", title=name, show=settings.progress) as bar:
        for _ in range(rounds if cases else 0):
            peaks = gemm_peak(settings.device)
            for key, case in cases.items():
                found = measure(case)
                found["of_peak"] = found.get("gflops", float("nan")) / peaks[case.glow.precision]
                rows.append(dict(zip(keys, key, strict=True)) | found)
                bar.update()
            found = pd.DataFrame(rows, columns=[*keys, *_MEASURED, "note"]).groupby(keys, sort=False, as_index=False)
            table = found.agg(dict.fromkeys(_MEASURED, "median") | {"note": "first"}).dropna(axis=1, how="all")
            path = Workspace.of(settings).path("benchmarks", f"{name}.csv")
            write_atomically(path, table.to_csv(index=False).encode())
    return table


def _cases(settings: Benchmarks, name: str) -> dict[tuple, Case]:
    """The cases of a table by their keys, each of the settings' shape and batch where it names no other."""
    usual = settings.model_dump(include={"image_size", "levels", "steps", "hidden", "seed"})
    timed = {"repeats": settings.repeats} if name == "speed" else {"repeats": 1, "only_train": True}

    def case(batch: int = settings.batch_size, code: str = "ageflow", keep_freed: bool = True, **shape: Any) -> Case:
        glow = validated(GlowConfig, usual | shape)
        return Case(code=code, glow=glow, batch=batch, keep_freed=keep_freed, device=settings.device, **timed)

    if name == "speed":
        cases = {("normflows",): case(code="normflows", keep_freed=False)}
        for memory, precision in itertools.product(_MODES, _precisions(device_of(settings.device))):
            cases[f"{memory}, {precision}",] = case(memory=memory, precision=precision)
        return cases | {("plain, fp32, memory given back",): case(keep_freed=False)}
    if name == "memory":
        points = [(steps, settings.batch_size) for steps in settings.many_steps]
        points += [(settings.steps, batch) for batch in settings.many_batches]
        return {
            (mode, steps, batch): case(batch, memory=mode, steps=steps)
            for mode in _MODES
            for steps, batch in dict.fromkeys(points)
        }
    paper = {"image_size": 256, "levels": 6, "steps": 32, "hidden": 512, "memory": "reversible"}
    return {(batch,): case(batch, **paper) for batch in (1, 4) if settings.large}


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Faces per second of each of this project's cases over normflows' in the same table."""
    table = table.set_index("case")[["train", "encode", "decode"]]
    return (table.drop("normflows") / table.loc["normflows"]).round(2).reset_index()


def memory_plot(table: pd.DataFrame) -> Any:
    """Activations of a training step against the steps a level, a line each mode, a panel each batch: seaborn's grid."""
    import seaborn

    return seaborn.relplot(
        table, x="steps", y="activations", hue="mode", col="batch", kind="line", marker="o", height=3
    )


if __name__ == "__main__":
    print(json.dumps(measure_here(Case.model_validate_json(sys.argv[1]))))
