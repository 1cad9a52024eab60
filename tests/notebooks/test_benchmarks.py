"""Notebook 10 at smoke size, by the real papermill."""

import json
from pathlib import Path

import nbformat
import pandas as pd


def test_it_measures_and_keeps_its_tables(papermill, tmp_path: Path):
    out = tmp_path / "out.ipynb"
    done = papermill(
        "10_benchmarks.ipynb", str(out), "-p", "preset", "smoke", "-p", "runs_root", str(tmp_path / "runs")
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "demo" / "smoke" / "benchmarks"
    speed = pd.read_csv(folder / "speed.csv").set_index("case")
    assert {"normflows", "plain, fp32", "reversible, bf16", "plain, fp32, contiguous"} <= set(speed.index)
    assert (speed[["train", "encode", "decode", "peak", "of_peak"]] > 0).all(axis=None)
    by_steps = pd.read_csv(folder / "memory_by_steps.csv")
    assert by_steps["mode"].unique().tolist() == ["plain", "checkpoint", "reversible"]
    assert by_steps["steps"].unique().tolist() == [2, 4]
    by_batch = pd.read_csv(folder / "memory_by_batch.csv")
    assert by_batch["batch"].tolist() == [4, 4, 4]
    both = by_steps[by_steps["steps"] == 2][["mode", "peak", "activations"]].reset_index(drop=True)
    assert by_batch[["mode", "peak", "activations"]].equals(both), "the case that both tables have is measured once"
    assert json.loads((folder / "machine.json").read_text())["cores"] >= 1
    pictures = [
        output
        for cell in nbformat.read(out, as_version=4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1
