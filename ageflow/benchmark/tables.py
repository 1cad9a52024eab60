"""The tables and plots of notebook 10."""

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes

from ageflow.benchmark.measure import Case, MeasurementError, gemm_peak, measure
from ageflow.config import Benchmarks, validated
from ageflow.device import device_of
from ageflow.flows.glow import GlowConfig
from ageflow.report.drawing import Figure
from ageflow.run import Workspace, write_atomically
from ageflow.work import progress_bar

_MODES = ("plain", "checkpoint", "reversible")
_COLOURS = {"plain": "#d55e00", "checkpoint": "#009e73", "reversible": "#0072b2"}
_LONGEST_STEP = 60.0  # seconds that a training step in bf16 may be expected to take
_MEASURED = ("train", "encode", "decode", "gflops", "peak", "activations")


def machine(settings: Benchmarks) -> dict[str, Any]:
    """What the figures were measured on, with its own peak of a matrix product, 10⁹ operations a second."""
    device = device_of(settings.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": f"{device.type}: {name}",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        **{f"peak_{dtype}": round(value, 1) for dtype, value in gemm_peak(settings.device).items()},
    }


def speed_table(settings: Benchmarks) -> pd.DataFrame:
    """Every code and mode at the same shapes, each in a process of its own.

    Returns:
        One row a case: ``train``, ``encode`` and ``decode`` in faces per second, ``peak`` and ``activations`` in GB,
        ``gflops`` of the training step, and ``of_peak``, its share of the matrix product's peak in the same precision,
        measured between the rounds. Medians over the rounds, kept after each. A case that fails has its reason in
        ``note``, and so has one in bf16 that is left out, as the processor only emulates bf16 and would take a minute
        or more for a step.
    """
    cases = dict(_speed_cases(settings))
    found: list[dict[str, Any]] = []
    with progress_bar(total=len(cases) * settings.rounds, unit="case", title="speed", show=settings.progress) as bar:
        for _ in range(settings.rounds):
            peaks = gemm_peak(settings.device)
            for name, case in cases.items():
                result = _too_slow(case, found, peaks) or _measured(case)
                result["of_peak"] = result.get("gflops", float("nan")) / peaks[case.glow.precision]
                found.append({"case": name} | result)
                bar.update()
            # After every round: stopped in a later one, it has measured something all the same.
            table = _keep(settings, "speed", _summary(pd.DataFrame(found), ["case"]))
    return table


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Faces per second of each of this project's cases over the best public code of the same table."""
    table = table.set_index("case")[["train", "encode", "decode"]]
    public = table.index.str.startswith(("normflows", "rosinality"))
    return (table[~public] / table[public].max()).round(2).reset_index()


def memory_tables(settings: Benchmarks) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Memory of a training step against ``steps`` a level and against ``batch``, in the three modes.

    Returns:
        Of each ``mode``, ``steps`` or ``batch``, ``activations`` and ``peak`` (GB), ``train`` (faces per second).
    """
    points = {
        "steps": [(steps, settings.batch_size) for steps in settings.many_steps],
        "batch": [(settings.steps, batch) for batch in settings.many_batches],
    }
    # The two tables meet in a case, which is measured once.
    cases = dict.fromkeys((mode, *point) for mode in _MODES for point in [*points["steps"], *points["batch"]])
    with progress_bar(total=len(cases), unit="case", title="memory", show=settings.progress) as bar:
        for mode, steps, batch in cases:
            glow = _glow(settings, memory=mode, steps=steps)
            case = Case(glow=glow, batch=batch, device=settings.device, repeats=1, what=("train",))
            cases[mode, steps, batch] = {"mode": mode, "steps": steps, "batch": batch} | _measured(case)
            bar.update()
    tables = []
    for what, along in points.items():
        table = pd.DataFrame([cases[mode, *point] for mode in _MODES for point in along])
        tables.append(_keep(settings, f"memory_by_{what}", _summary(table, ["mode", what])))
    return tables[0], tables[1]


def large_table(settings: Benchmarks) -> pd.DataFrame:
    """The paper's GLOW, 256×256, 6 levels of 32 steps, hidden 512, reversible: a training step of 1 and of 4 faces."""
    rows = []
    for batch in (1, 4) if settings.large else ():
        glow = GlowConfig(image_size=256, levels=6, steps=32, hidden=512, memory="reversible", seed=settings.seed)
        case = Case(glow=glow, batch=batch, device=settings.device, repeats=1, what=("train",))
        rows.append({"batch": batch} | _measured(case))
    if not rows:
        return pd.DataFrame(columns=["batch", "train", "peak"])
    return _keep(settings, "large", _summary(pd.DataFrame(rows), ["batch"]))


def memory_plot(by_steps: pd.DataFrame, by_batch: pd.DataFrame) -> Figure:
    """Activations of a training step against steps a level and against the batch, one line a mode."""
    picture = Figure(9, 3.4)
    for axes, table, column, label in zip(
        picture.subplots(1, 2),
        (by_steps, by_batch),
        ("steps", "batch"),
        ("flow steps a level, K", "batch"),
        strict=True,
    ):
        for mode, rows in table.groupby("mode", sort=False):
            axes.plot(rows[column], rows["activations"], "o-", color=_COLOURS[mode], label=mode)
        _label(axes, label, sorted(table[column].unique()))
    picture.axes[0].legend(frameon=False)
    return picture


def _label(axes: Axes, label: str, values: list[int]) -> None:
    axes.set(xlabel=label, ylabel="activations, GB", xticks=values)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)


def _speed_cases(settings: Benchmarks) -> Iterable[tuple[str, Case]]:
    common = {"batch": settings.batch_size, "device": settings.device, "repeats": settings.repeats}
    plain = _glow(settings)
    yield "normflows", Case(code="normflows", glow=plain, keep_freed=False, **common)
    if settings.rosinality is not None:
        yield "rosinality", Case(code="rosinality", glow=plain, keep_freed=False, peer=settings.rosinality, **common)
    for memory in _MODES:
        for precision in ("fp32", "bf16"):
            glow = plain.model_copy(update={"memory": memory, "precision": precision})
            yield f"{memory}, {precision}", Case(glow=glow, **common)
    yield "plain, fp32, contiguous", Case(glow=plain, layout="contiguous", **common)
    yield "plain, fp32, memory given back", Case(glow=plain, keep_freed=False, **common)
    if settings.compile:
        yield "plain, fp32, torch.compile", Case(glow=plain, compile=True, **common)


def _glow(settings: Benchmarks, **values: Any) -> GlowConfig:
    shape = {name: getattr(settings, name) for name in ("image_size", "levels", "steps", "hidden", "seed")}
    return validated(GlowConfig, shape | values)


def _measured(case: Case) -> dict[str, Any]:
    try:
        return measure(case)
    except MeasurementError as error:
        return {"note": str(error).splitlines()[-1]}


def _too_slow(case: Case, found: list[dict[str, Any]], peaks: dict[str, float]) -> dict[str, Any] | None:
    """Why a case in bf16 is not measured, by what plain training in fp32 took before it; None if it is."""
    speeds = [row["train"] for row in found if row["case"] == "plain, fp32" and "train" in row]
    if case.glow.precision == "fp32" or not speeds:
        return None
    seconds = case.batch / speeds[-1] * peaks["fp32"] / peaks["bf16"]
    if seconds < _LONGEST_STEP:
        return None
    return {
        "note": f"not measured: a matrix product reaches {peaks['bf16']:.1f} GFLOP/s in bf16 here and "
        f"{peaks['fp32']:.1f} in fp32, so a training step would take about {seconds:.0f} seconds"
    }


def _summary(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Medians over repeated rows, bytes as GB."""
    columns = [name for name in (*_MEASURED, "of_peak") if name in table]
    summary = table.groupby(by, sort=False)[columns].median()
    for name in ("peak", "activations"):
        if name in summary:
            summary[name] /= 1e9
    if "note" in table:
        summary["note"] = table.groupby(by, sort=False)["note"].first()
    return summary.reset_index()


def _keep(settings: Benchmarks, name: str, table: pd.DataFrame) -> pd.DataFrame:
    folder = Workspace.of(settings).folder("benchmarks")
    write_atomically(folder / f"{name}.csv", table.to_csv(index=False).encode())
    write_atomically(folder / "machine.json", json.dumps(machine(settings), indent=1).encode())
    return table


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
