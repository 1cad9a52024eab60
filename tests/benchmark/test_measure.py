"""What notebook 10 measures, held against what is known."""

import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ageflow
from ageflow.benchmark import measure as measuring
from ageflow.benchmark import tables
from ageflow.benchmark.measure import Case, MeasurementError, gemm_peak, measure
from ageflow.benchmark.peers import CODES, multiply_adds
from ageflow.benchmark.tables import _too_slow, ratios
from ageflow.flows.glow import GlowConfig

SMALL = GlowConfig(image_size=16, levels=2, steps=[2, 3], hidden=24)


@pytest.mark.parametrize("values", [{}, {"coupling": "affine"}, {"prior": "learned"}, {"levels": 3, "steps": 1}])
def test_multiply_adds_are_those_that_torch_counts(values):
    config = GlowConfig(**(SMALL.model_dump() | values))
    glow = ageflow.Glow(config)
    x = torch.rand(2, 3, 16, 16) - 0.5
    glow.initialize(x)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        glow(x)
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert convolutions == 2 * 2 * multiply_adds(config)


@pytest.mark.parametrize("code", ["ageflow", "normflows"])
@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_each_code_is_a_flow_of_the_same_shape(code, coupling):
    """Else the comparison would be of different things: it must invert, and have as many weights to within its prior."""
    config = SMALL.model_copy(update={"steps": 2, "coupling": coupling})
    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16) - 0.5
    flow = CODES[code](config, x)
    with torch.no_grad():
        torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=0, atol=1e-4)
    mine = sum(p.numel() for p in CODES["ageflow"](config, x).module.parameters())
    assert sum(p.numel() for p in flow.module.parameters()) == pytest.approx(mine, rel=0.1)
    flow.loss(x).backward()
    assert all(p.grad is not None for p in flow.module.parameters() if p.requires_grad)


def test_a_case_is_measured_in_its_own_process():
    found = measure(Case(glow=SMALL, batch=2, repeats=1, device="cpu"))
    assert all(found[name] > 0 for name in ("train", "encode", "decode", "gflops"))
    assert found["peak"] > 100e6, "a process with torch in it"
    assert found["gflops"] == pytest.approx(6 * multiply_adds(SMALL) * found["train"] / 1e9)


def test_plain_keeps_more_than_reversible():
    glow = GlowConfig(image_size=32, levels=2, steps=12, hidden=128)
    kept = {
        memory: measure(
            Case(glow=glow.model_copy(update={"memory": memory}), repeats=1, device="cpu", what=("train",))
        )["activations"]
        for memory in ("plain", "reversible")
    }
    # 24 steps keep two activations of hidden 128 each: at least 16·128·(16² + 8²)·12·2·4 bytes = 63 MB.
    assert kept["plain"] > kept["reversible"] + 50e6


def test_a_case_that_fails_says_why():
    with pytest.raises(MeasurementError, match=r"glow-pytorch: pass its folder"):
        measure(Case(code="rosinality", glow=SMALL, repeats=1))


def test_a_process_that_is_killed_is_an_error():
    with ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(measure, Case(glow=SMALL, repeats=1_000_000, device="cpu"))
        while not (cases := measuring_processes()):
            assert not measuring.done()
            time.sleep(0.1)
        for process in cases:
            process.kill()
        with pytest.raises(MeasurementError, match=r"ended with -9"):
            measuring.result(60)


def measuring_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "ageflow.benchmark" in child.cmdline()]


def test_the_peak_grows_with_neither_size_nor_luck():
    small, large = gemm_peak("cpu", side=256, repeats=5), gemm_peak("cpu", side=512, repeats=5)
    assert 0.3 < small["fp32"] / large["fp32"] < 3


def test_ratios_are_over_the_best_public_code():
    table = pd.DataFrame(
        {
            "case": ["normflows", "rosinality", "plain, fp32"],
            "train": [2.0, 4.0, 8.0],
            "encode": [5.0, 4.0, 10.0],
            "decode": [1.0, 1.0, 3.0],
        }
    )
    assert ratios(table).to_dict("records") == [{"case": "plain, fp32", "train": 2.0, "encode": 2.0, "decode": 3.0}]


@pytest.mark.parametrize(("train", "bf16", "left_out"), [(3.7, 1.3, True), (3.7, 412.0, False), (370.0, 1.3, False)])
def test_bf16_is_left_out_only_where_a_step_would_take_minutes(train, bf16, left_out):
    """3.7 faces a second in fp32 and a product 82 times as slow in bf16 are six minutes for a step of 16 faces."""
    found = [{"case": "normflows", "train": 2.1}, {"case": "plain, fp32", "train": train}]
    peaks = {"fp32": 107.0, "bf16": bf16}
    glow = SMALL.model_copy(update={"precision": "bf16"})
    reason = _too_slow(Case(glow=glow, batch=16), found, peaks)
    assert (reason is not None) == left_out
    if reason is not None:
        assert "1.3 GFLOP/s in bf16" in reason["note"]
        assert "356 seconds" in reason["note"]
    assert _too_slow(Case(glow=SMALL, batch=16), found, peaks) is None, "fp32 is always measured"


def test_the_peak_in_fp32_is_of_the_large_product_however_busy_the_machine(monkeypatch):
    """A slow moment must not make the small product, which only tells whether bf16 is emulated, the peak."""
    monkeypatch.setattr(measuring, "_LONGEST_PRODUCT", 0.0)
    sizes = []
    monkeypatch.setattr(
        torch, "mm", lambda a, b, out, mm=torch.mm: (sizes.append((a.dtype, len(a))), mm(a, b, out=out))
    )
    gemm_peak("cpu", side=256, repeats=1)
    assert set(sizes) == {(torch.float32, 256), (torch.bfloat16, 32)}


def test_stopped_in_a_later_round_the_speed_table_keeps_those_before(tmp_path, monkeypatch):
    settings = ageflow.settings("benchmarks", {"preset": "smoke", "runs_root": tmp_path, "rounds": 2, "device": "cpu"})
    measured = []

    def counted(case):
        measured.append(case)
        if measured.count(case) == 2:
            raise KeyboardInterrupt
        return {"train": float(len(measured))}

    monkeypatch.setattr(tables, "_measured", counted)
    with pytest.raises(KeyboardInterrupt):
        tables.speed_table(settings)
    kept = pd.read_csv(ageflow.Workspace.of(settings).path("benchmarks", "speed.csv")).set_index("case")["train"]
    assert kept["normflows"] == 1
    assert kept["plain, fp32"] == 2
    assert kept.notna().sum() == len(measured) - 1
