"""Notebook 10: how fast and how lean GLOW is here, beside normflows at the same shapes.

Each case is measured in a process of its own, ``python -m ageflow.benchmark '{json}'``.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ageflow.config import Benchmarks, validated
from ageflow.device import device_of, keep_freed_memory, peak_memory, reset_peak_memory
from ageflow.flows.glow import Glow, GlowConfig
from ageflow.run import Workspace, write_atomically
from ageflow.work import progress_bar

if TYPE_CHECKING:
    from seaborn import FacetGrid

_MODES = ("plain", "checkpoint", "reversible")
_MEASURED = ("train", "encode", "decode", "gflops", "of_peak", "peak", "activations")
_WARM_UP = 2  # calls that are not timed
_PATIENCE = 1200  # seconds for one case


# -- the flows that are measured, each behind the same three calls ---------------------------------------------------


class Flow(NamedTuple):
    """A flow to be timed.

    Arguments:
        module: its parameters.
        loss: x [B, 3, S, S] in [-0.5, 0.5] → nats a dimension, a scalar.
        encode: x → latents, whatever form they have.
        decode: what `encode` gave → x.
    """

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]


def _ageflow(config: GlowConfig, x: Tensor) -> Flow:
    """This project's `Glow`."""
    glow = Glow(config).to(x.device)
    glow.initialize(x)
    return Flow(
        glow, lambda x: -glow.log_prob(x).mean() / x[0].numel(), lambda x: glow(x)[0], lambda z: glow.inverse(z)[0]
    )


def _normflows(config: GlowConfig, x: Tensor) -> Flow:
    """normflows' multi-scale flow of its GlowBlocks, built as in its documentation's GLOW example."""
    import normflows as nf

    levels, side, channels = config.levels, config.image_size, config.channels
    bases, merges, flows = [], [], []
    for i in range(levels):  # theirs count from the deepest
        steps = config.steps_per_level[levels - 1 - i]
        wide = channels * 2 ** (levels + 1 - i)
        blocks = [nf.flows.GlowBlock(wide, config.hidden, scale=config.coupling == "affine") for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        shape = (wide, side // 2**levels) if i == 0 else (wide // 2, side // 2 ** (levels - i))
        if i > 0:
            merges.append(nf.flows.Merge())
        bases.append(nf.distributions.DiagGaussian((shape[0], shape[1], shape[1]), trainable=False))
    flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=False).to(x.device)
    with torch.no_grad():
        flow.log_prob(x, None)  # sets its ActNorms
    return Flow(
        flow,
        lambda x: -flow.log_prob(x, None).mean() / x[0].numel(),
        lambda x: flow.inverse_and_log_det(x)[0],
        lambda z: flow.forward_and_log_det(z)[0],
    )


CODES: dict[str, Callable[[GlowConfig, Tensor], Flow]] = {"ageflow": _ageflow, "normflows": _normflows}


# -- one case --------------------------------------------------------------------------------------------------------


class Case(BaseModel):
    """What to measure.

    ``keep_freed`` is how this project trains on a CPU (`ageflow.device.keep_freed_memory`); normflows leaves the C library
    as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: Literal["ageflow", "normflows"] = "ageflow"
    glow: GlowConfig
    batch: int = Field(16, ge=1)
    keep_freed: bool = True
    device: str = "auto"
    repeats: int = Field(3, ge=1)
    only_train: bool = False


def measure(case: Case) -> dict[str, Any]:
    """Measure a case in a fresh process, so that no other's memory or cached kernels count.

    Not in one forked from a process that has imported torch, which would start seconds sooner: the libraries' pages
    that it has not touched again do not count as resident then, some 320 MB.

    Returns:
        As `measure_here`; or ``note``, why there is nothing: the process failed, or took longer than twenty minutes.
    """
    command = [sys.executable, "-m", "ageflow.benchmark", case.model_dump_json()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return {"note": f"took longer than {_PATIENCE} seconds"}
    if done.returncode:
        return {"note": f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"}
    return json.loads(done.stdout.splitlines()[-1])


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
    found = {
        "train": case.batch / seconds,
        "gflops": operations / seconds / 1e9,
        "peak": peak / 1e9,
        "activations": (peak - 4 * size - max(0, before)) / 1e9,  # weights, gradients, two moments
    }
    if not case.only_train:
        flow.module.eval()
        with torch.no_grad():
            z = flow.encode(x)
            for name, call in (("encode", lambda: flow.encode(x)), ("decode", lambda: flow.decode(z))):
                found[name] = case.batch / median(_times(call, case.repeats, device))
    return found


def gemm_peak(device: str = "auto", side: int = 2048, repeats: int = 5) -> dict[str, float]:
    """10⁹ operations per second of a square matrix product, fp32 and bf16: what this machine can reach."""
    found, on = {}, device_of(device)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        size = side if name == "fp32" or _has_bf16(on) else side // 8  # where it is emulated, a large one takes minutes
        a, b = (torch.randn(size, size, device=on).to(dtype) for _ in range(2))
        product = torch.empty_like(a)
        seconds = _times(lambda a=a, b=b, out=product: torch.mm(a, b, out=out), repeats, on)
        found[name] = 2 * size**3 / min(seconds) / 1e9
    return found


def _has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16 itself; a CPU that only emulates it needs minutes for a training step."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
    """What the figures were measured on, with its own peak of a matrix product; kept in ``machine.json``."""
    device = device_of(settings.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    found = {
        "device": f"{device.type}: {name}",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        **{f"peak_{dtype}": round(value, 1) for dtype, value in gemm_peak(settings.device).items()},
    }
    folder = Workspace.of(settings).folder("benchmarks")
    write_atomically(folder / "machine.json", json.dumps(found, indent=1).encode())
    return found


def speed_table(settings: Benchmarks) -> pd.DataFrame:
    """Every code and mode at the same shapes; columns as `_table`, one row a ``case``."""
    cases = {"normflows": _case(settings, "normflows")}
    for memory in _MODES:
        for precision in ("fp32", "bf16") if _has_bf16(device_of(settings.device)) else ("fp32",):
            cases[f"{memory}, {precision}"] = _case(settings, memory=memory, precision=precision)
    cases["plain, fp32, memory given back"] = _case(settings).model_copy(update={"keep_freed": False})
    return _table(settings, "speed", ["case"], {(name,): case for name, case in cases.items()}, settings.rounds)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Faces per second of each of this project's cases over normflows' in the same table."""
    table = table.set_index("case")[["train", "encode", "decode"]]
    return (table.drop("normflows") / table.loc["normflows"]).round(2).reset_index()


def memory_table(settings: Benchmarks) -> pd.DataFrame:
    """Memory of a training step in the three modes, against the ``steps`` a level and against the ``batch``."""
    points = [(steps, settings.batch_size) for steps in settings.many_steps]
    points += [(settings.steps, batch) for batch in settings.many_batches]
    cases = {
        (mode, steps, batch): _case(settings, batch=batch, only_train=True, memory=mode, steps=steps)
        for mode in _MODES
        for steps, batch in dict.fromkeys(points)
    }
    return _table(settings, "memory", ["mode", "steps", "batch"], cases)


def memory_plot(table: pd.DataFrame) -> "FacetGrid":
    """Activations of a training step against the steps a level and against the batch, one line a mode."""
    import seaborn

    steps, batch = (table[name].mode()[0] for name in ("steps", "batch"))
    panels = {
        f"steps a level, batch {batch}": table[table["batch"] == batch].assign(value=table["steps"]),
        f"batch, {steps} steps a level": table[table["steps"] == steps].assign(value=table["batch"]),
    }
    grid = seaborn.relplot(
        pd.concat(panels, names=["against"]).reset_index("against"), x="value", y="activations", hue="mode",
        col="against", kind="line", marker="o", palette="colorblind", height=3.2, facet_kws={"sharex": False},
    )  # fmt: skip
    return grid.set_titles("{col_name}").set_axis_labels("", "activations, GB").set(ylim=(0, None))


def large_table(settings: Benchmarks) -> pd.DataFrame:
    """The paper's GLOW, 256×256, 6 levels of 32 steps, hidden 512, reversible: a training step of 1 and of 4 faces."""
    if not settings.large:
        return pd.DataFrame(columns=["batch", "train", "peak"])
    shape = {"image_size": 256, "levels": 6, "steps": 32, "hidden": 512, "memory": "reversible"}
    cases = {(batch,): _case(settings, batch=batch, only_train=True, **shape) for batch in (1, 4)}
    return _table(settings, "large", ["batch"], cases)


def _case(
    settings: Benchmarks, code: str = "ageflow", batch: int | None = None, only_train: bool = False, **shape: Any
) -> Case:
    """A case of the settings' shape and batch, or of another `shape` (fields of `GlowConfig`) and `batch`."""
    of_settings = {name: getattr(settings, name) for name in ("image_size", "levels", "steps", "hidden", "seed")}
    return Case(
        code=code,
        glow=validated(GlowConfig, of_settings | shape),
        batch=batch or settings.batch_size,
        keep_freed=code == "ageflow",
        device=settings.device,
        repeats=1 if only_train else settings.repeats,
        only_train=only_train,
    )


def _table(
    settings: Benchmarks, name: str, columns: list[str], cases: dict[tuple, Case], rounds: int = 1
) -> pd.DataFrame:
    """Measure cases, each in a process of its own, and keep the table after every round.

    Arguments:
        settings: where the table is kept.
        name: of its file.
        columns: what the keys of `cases` are called.
        cases: what to measure.
        rounds: how often; the medians count.

    Returns:
        One row a case: ``train``, ``encode`` and ``decode`` in faces per second, ``peak`` and ``activations`` in GB,
        ``gflops`` of the training step and ``of_peak``, its share of the matrix product's peak in the same precision,
        measured between the rounds. ``note`` says why a case failed.
    """
    rows: list[dict[str, Any]] = []
    with progress_bar(total=len(cases) * rounds, unit="case", title=name, show=settings.progress) as bar:
        for _ in range(rounds):
            peaks = gemm_peak(settings.device)
            for key, case in cases.items():
                found = measure(case)
                found["of_peak"] = found.get("gflops", float("nan")) / peaks[case.glow.precision]
                rows.append(dict(zip(columns, key, strict=True)) | found)
                bar.update()
            groups = pd.DataFrame(rows).groupby(columns, sort=False)
            table = groups.median(numeric_only=True).reindex(columns=_MEASURED)
            if any("note" in row for row in rows):
                table["note"] = groups["note"].first()
            table = table.dropna(axis=1, how="all").reset_index()
            path = Workspace.of(settings).folder("benchmarks") / f"{name}.csv"
            write_atomically(path, table.to_csv(index=False).encode())
    return table


def _processor() -> str:
    info = Path("/proc/cpuinfo")  # Linux, where `platform` does not name the model
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.is_file() else []
    return models[0] if models else platform.processor() or platform.machine()


if __name__ == "__main__":
    print(json.dumps(measure_here(Case.model_validate_json(sys.argv[1]))))
