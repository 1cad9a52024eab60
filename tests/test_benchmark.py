"""What notebook 10 measures, held against what is known."""

import json
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
from ageflow.benchmark import CODES, Case, gemm_peak, measure, measure_here, ratios
from ageflow.flows.glow import GlowConfig

SMALL = GlowConfig(image_size=16, levels=2, steps=2, hidden=24)


@pytest.mark.parametrize("code", ["ageflow", "normflows"])
@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_each_code_is_a_flow_of_the_same_shape(code, coupling):
    """Else the comparison would be of different things: it must invert, and have as many weights to within its prior."""
    config = SMALL.model_copy(update={"coupling": coupling})
    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16) - 0.5
    flow = CODES[code](config, x, None)
    with torch.no_grad():
        torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=0, atol=1e-4)
    mine = sum(p.numel() for p in CODES["ageflow"](config, x, None).module.parameters())
    assert sum(p.numel() for p in flow.module.parameters()) == pytest.approx(mine, rel=0.1)
    flow.loss(x).backward()
    assert all(p.grad is not None for p in flow.module.parameters() if p.requires_grad)


def test_operations_are_those_of_the_convolutions_nothing_recomputed():
    """Two for each multiply-add: 3×3, 1×1, 3×3 of F and the invertible 1×1, at 8×8 and 4×4; a step is three passes."""
    level = [
        2 * (9 * half * 24 + 24 * 24 + 9 * 24 * half + (2 * half) ** 2) * side**2 for half, side in ((6, 8), (12, 4))
    ]
    for memory in ("plain", "reversible"):
        glow = SMALL.model_copy(update={"memory": memory})
        found = measure_here(Case(glow=glow, batch=2, repeats=1, device="cpu", keep_freed=False, only_train=True))
        operations = found["gflops"] / found["train"] * 1e9  # a face
        assert operations == pytest.approx(3 * 2 * sum(level), rel=1e-3)


def test_a_case_that_fails_or_is_killed_says_why():
    assert "name the folder of a clone" in measure(Case(code="rosinality", glow=SMALL, repeats=1))["note"]
    with ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(measure, Case(glow=SMALL, repeats=1_000_000, device="cpu"))
        while not (cases := [child for child in psutil.Process().children() if "ageflow.benchmark" in child.cmdline()]):
            assert not measuring.done()
            time.sleep(0.1)
        for process in cases:
            process.kill()
        assert "ended with -9" in measuring.result(60)["note"]


def test_the_peak_in_fp32_is_of_the_large_product_however_busy_the_machine(monkeypatch):
    """A slow moment must not make the small product, which only shows whether bf16 is emulated, the peak."""
    monkeypatch.setattr(benchmark, "_LONGEST_PRODUCT", 0.0)
    calls = []

    def timed(a, b, out, mm=torch.mm):
        began = time.perf_counter()
        mm(a, b, out=out)
        calls.append((a.dtype, len(a), time.perf_counter() - began))

    monkeypatch.setattr(torch, "mm", timed)
    peak = gemm_peak("cpu", side=512, repeats=3)["fp32"]
    assert {call[:2] for call in calls} == {(torch.float32, 512), (torch.bfloat16, 64)}
    fastest = min(seconds for dtype, _, seconds in calls if dtype == torch.float32)
    assert peak == pytest.approx(2 * 512**3 / fastest / 1e9, rel=0.2)


def test_ratios_are_over_the_best_public_code():
    rows = [("normflows", 2.0, 5.0, 1.0), ("rosinality", 4.0, 4.0, 1.0), ("plain, fp32", 8.0, 10.0, 3.0)]
    table = pd.DataFrame(rows, columns=["case", "train", "encode", "decode"])
    assert ratios(table).to_dict("records") == [{"case": "plain, fp32", "train": 2.0, "encode": 2.0, "decode": 3.0}]


@pytest.mark.parametrize(("train", "bf16", "left_out"), [(3.7, 1.3, True), (3.7, 412.0, False), (370.0, 1.3, False)])
def test_bf16_is_left_out_only_where_a_step_would_take_minutes(train, bf16, left_out):
    """3.7 faces a second in fp32 and a product 82 times as slow in bf16 are six minutes for a step of 16 faces."""
    note = benchmark._too_slow(Case(glow=SMALL, batch=16), train, {"fp32": 107.0, "bf16": bf16})
    assert (note is not None) == left_out
    assert note is None or ("1.3 GFLOP/s in bf16" in note and "356 seconds" in note)


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
        benchmark.speed_table(settings)
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
    assert {"normflows", "plain, fp32", "reversible, bf16", "plain, fp32, memory given back"} <= set(speed.index)
    assert (speed[["train", "encode", "decode", "of_peak"]] > 0).all(axis=None)
    assert (speed["peak"] > 0.1).all(), "a process with torch in it"
    kept = pd.read_csv(folder / "memory.csv").set_index(["mode", "steps", "batch"])["activations"][:, 12, 16]
    # 24 steps keep two activations of hidden 128 each: at least 16·128·(16² + 8²)·12·2·4 bytes = 63 MB.
    assert kept["plain"] > kept["reversible"] + 0.05
    assert json.loads((folder / "machine.json").read_text())["cores"] >= 1
    outputs = [output for cell in nbformat.read(out, as_version=4).cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
