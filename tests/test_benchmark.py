"""What notebook 10 measures, held against what is known."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
import torch

import ageflow
from ageflow import benchmark
from ageflow.benchmark import CODES, Case, measure, measure_here
from ageflow.flows.glow import GlowConfig

SMALL = GlowConfig(image_size=16, levels=2, steps=2, hidden=24)


@pytest.mark.parametrize("code", ["ageflow", "normflows"])
@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_each_code_is_a_flow_of_the_same_shape(code, coupling):
    """Else the comparison would be of different things: it must invert, and have as many weights to within its prior."""
    config = SMALL.model_copy(update={"coupling": coupling})
    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16) - 0.5
    flow = CODES[code](config, x)
    with torch.no_grad():
        torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=0, atol=1e-4)
    mine = sum(p.numel() for p in CODES["ageflow"](config, x).module.parameters())
    assert sum(p.numel() for p in flow.module.parameters()) == pytest.approx(mine, rel=0.1)
    flow.loss(x).backward()
    assert all(p.grad is not None for p in flow.module.parameters() if p.requires_grad)


def test_operations_are_those_of_the_convolutions_nothing_recomputed():
    """Two for each multiply-add: 3×3, 1×1, 3×3 of F and the invertible 1×1, at 8×8 and 4×4; a step is three passes."""
    of_a_step = ((18 * half * 24 + 24**2 + (2 * half) ** 2) * side**2 for half, side in ((6, 8), (12, 4)))
    forward = 2 * 2 * sum(of_a_step)  # two steps a level
    for memory in ("plain", "reversible"):
        glow = SMALL.model_copy(update={"memory": memory})
        found = measure_here(Case(glow=glow, batch=2, repeats=1, device="cpu", keep_freed=False, only_train=True))
        operations = found["gflops"] / found["train"] * 1e9  # a face
        assert operations == pytest.approx(3 * forward, rel=1e-3)


def test_a_case_that_is_killed_says_so():
    with ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(measure, Case(glow=SMALL, repeats=1_000_000, device="cpu"))
        while not (cases := [child for child in psutil.Process().children() if "ageflow.benchmark" in child.cmdline()]):
            assert not measuring.done()
            time.sleep(0.1)
        for process in cases:
            process.kill()
        assert "ended with -9" in measuring.result(60)["note"]


def test_stopped_in_a_later_round_the_speed_table_keeps_those_before(tmp_path, monkeypatch):
    settings = ageflow.settings("benchmarks", {"preset": "smoke", "runs_root": tmp_path, "rounds": 2, "device": "cpu"})
    measured = []

    def counted(case):
        measured.append(case)
        if measured.count(case) == 2:
            raise KeyboardInterrupt
        return {"train": float(len(measured))}

    monkeypatch.setattr(benchmark, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        benchmark.measured_table(settings, "speed")
    kept = pd.read_csv(ageflow.Workspace.of(settings).path("benchmarks", "speed.csv")).set_index("case")["train"]
    assert (kept["normflows"], kept["plain, fp32"], kept.notna().sum()) == (1, 2, len(measured) - 1)


def test_notebook_10_measures_and_keeps_its_tables(papermill, tmp_path: Path):
    out = tmp_path / "out.ipynb"
    wanted = {"preset": "smoke", "runs_root": tmp_path / "runs", "image_size": 32, "hidden": 128, "batch_size": 16}
    wanted |= {"many_steps": "[12]", "many_batches": "[]"}  # three cases, of eleven
    options = [word for name, value in wanted.items() for word in ("-p", name, str(value))]
    done = papermill("10_benchmarks.ipynb", str(out), *options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "demo" / "smoke" / "benchmarks"
    speed = pd.read_csv(folder / "speed.csv").set_index("case")
    assert {"normflows", "plain, fp32", "reversible, fp32", "plain, fp32, memory given back"} <= set(speed.index)
    assert (speed[["train", "encode", "decode", "of_peak"]] > 0).all(axis=None)
    assert (speed["peak"] > 0.1).all(), "a process with torch in it"
    kept = pd.read_csv(folder / "memory.csv").set_index(["mode", "steps", "batch"])["activations"][:, 12, 16]
    # 24 steps keep two activations of hidden 128 each: at least 16·128·(16² + 8²)·12·2·4 bytes = 63 MB.
    assert kept["plain"] > kept["reversible"] + 0.05
    outputs = [output for cell in nbformat.read(out, as_version=4).cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
