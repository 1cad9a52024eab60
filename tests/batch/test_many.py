"""Many runs by one command: dask workers, papermill, trainings and judges are real, the faces tiny.

Two short notebooks do what 01 to 05 and what 06 do, so that a run is two kernels.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from distributed import LocalCluster

from ageflow.batch.__main__ import main
from ageflow.run import Workspace
from tests.batch.small import MAKE, write_notebook
from tests.conftest import ROOT

TRAIN = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from ageflow.training.glow import train_glow
from ageflow.training.ictm import train_translator
from ageflow.training.classifier import train_classifiers
from ageflow.translation.prototypes import compute_prototypes, encode_faces
from tests.tiny import write_faces
assert list(settings.data_root.iterdir()), "no pictures"
write_faces(ageflow.Workspace.of(settings).path("faces"))
shared = dict(dataset=dataset, preset=preset, run=run, runs_root=runs_root, seed=seed, progress=False)
train_glow(ageflow.settings("train_glow", dict(shared, iterations=2)))
averages = ageflow.settings("prototypes", shared)
compute_prototypes(averages, encode_faces(averages))
train_translator(ageflow.settings("train_ictm", dict(shared, iterations=2)))
train_classifiers(ageflow.settings("train_classifiers", dict(shared, iterations=1)))
"""
JUDGE = """\
from ageflow.evaluation.evaluate import Evaluation
print("seed", seed)
Evaluation(settings).judge_all()
"""
RUNS = ("folder/smoke-seed0", "folder/smoke-seed1")
BROKEN, WITHOUT_PICTURES = "fgnet/smoke-seed0", "fgnet/smoke-seed1"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a dask cluster of two worker processes."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(**options, memory_limit=0) as cluster:
        yield cluster.scheduler_address


class Called(NamedTuple):
    """A finished command line."""

    arguments: list[str]
    runs_root: Path
    done: subprocess.CompletedProcess[str]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ageflow.batch", "--preset", "smoke", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Called:
    """A data set with two seeds, and another that is broken with one of them and has no pictures."""
    folder = tmp_path_factory.mktemp("many")
    notebooks, runs_root = folder / "notebooks", folder / "runs"
    write_notebook(notebooks, "01_prepare_data", TRAIN, "data_root = None  # raw files\n")
    write_notebook(notebooks, "06_ablations", JUDGE, "evaluation_faces = None  # faces\nmethods = None  # methods\n")
    # Left by a run whose record was damaged: that run cannot begin, whatever its faces.
    record = Workspace(runs_root, *BROKEN.split("/")).folder("notebooks", "01_prepare_data") / "manifest.json"
    record.write_text("{")
    arguments = ["--dataset", "folder", "fgnet", "--seed", "0", "1", "--runs-root", str(runs_root)]
    (folder / "pictures" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    arguments += ["--data-root", f"folder={folder / 'pictures'}", f"fgnet={folder / 'empty'}", "--scheduler", scheduler]
    arguments += ["--notebooks", "01,06", "--notebooks-folder", str(notebooks)]
    arguments += ["-p", "methods", "['glow', 'ageflow']", "-p", "evaluation_faces", "8"]
    return Called(arguments, runs_root, call(*arguments))


def test_every_run_but_the_broken_ones_finishes_and_prints_into_its_own_log(called: Called):
    for name in RUNS:
        workspace = Workspace(called.runs_root, *name.split("/"))
        assert workspace.has("evaluation"), called.done.stdout + called.done.stderr
        assert re.search(rf"\] {name}: done in [\d.]+ minutes", called.done.stdout)
        log = workspace.path("notebooks", "batch.log")
        assert f"{name}: {log}" in called.done.stdout
        assert f"seed {name[-1]}\n" in log.read_text()
        assert "06_ablations: done in" in log.read_text()
        assert workspace.path("report", "index.html").is_file()


def test_a_run_that_fails_is_listed_with_its_executed_copy_and_stops_no_other(called: Called):
    assert called.done.returncode == 1
    assert "2 of 4 runs failed" in called.done.stderr
    assert re.search(rf"{BROKEN}: ParameterError: .*manifest\.json is damaged", called.done.stderr)
    failed = called.runs_root / WITHOUT_PICTURES / "notebooks" / "01_prepare_data.stopped.ipynb"
    assert failed.is_file()
    stopped = "NotebookFailedError: 01_prepare_data.ipynb stopped: cell In [4]"
    for said in (f"{WITHOUT_PICTURES}: {stopped}", f"The executed copy: {failed}", str(failed.with_name("batch.log"))):
        assert said in called.done.stderr


def test_one_table_has_mean_spread_and_number_of_seeds(called: Called):
    folder = called.runs_root / "summary"
    numbers = pd.read_csv(folder / "summary.csv")
    assert set(numbers["dataset"]) == {"folder"}
    assert {"age_accuracy", "cosine", "gender"} <= set(numbers["metric"])
    (row,) = numbers.query("metric == 'cosine' and method == 'AgeFlow' and group == 'mean'").itertuples()
    assert row.runs.split() == [*RUNS]
    judged = [pd.read_parquet(called.runs_root / run / "evaluation" / "ageflow.parquet") for run in RUNS]
    found = [rows.astype({"cosine": float}).groupby("target")["cosine"].mean().mean() for rows in judged]
    assert row.mean == pytest.approx(sum(found) / 2)
    assert row.standard_deviation == pytest.approx(abs(found[0] - found[1]) / 2**0.5)
    assert row.standard_deviation > 0
    for suffix in ("md", "html"):
        text = (folder / f"summary.{suffix}").read_text()
        assert f"Failed, so not in here: {BROKEN}" in text
        assert "± " in text


def test_a_second_call_skips_what_is_finished(called: Called):
    summary = called.runs_root / "summary" / "summary.csv"
    first = summary.read_bytes()
    again = call(*called.arguments)
    assert again.stdout.count("unchanged, skipped") == len(RUNS), again.stdout + again.stderr
    assert summary.read_bytes() == first
    log = called.runs_root / RUNS[0] / "notebooks" / "batch.log"
    assert "done in" in log.read_text(), "what the first call printed stays"


@pytest.mark.parametrize("workers", [1, 2])
def test_local_processes_and_this_process_do_it_alike(workers: int, tmp_path: Path, capsys, monkeypatch):
    threads = "import os\nprint('threads', os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])\n"
    write_notebook(tmp_path, "02_train_glow", threads + MAKE.format(names=["glow"]))
    arguments = f"--preset smoke --notebooks 02 --workers {workers} --seed 0 1 --vary hidden 8".split()
    arguments += ["--runs-root", str(tmp_path), "--notebooks-folder", str(tmp_path)]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"2 runs, {workers} at a time" in printed
    assert "made by" not in printed, "what a notebook prints goes into its log"
    assert "summary none: no run has come to notebook 06" in printed
    for seed in (0, 1):
        log = tmp_path / "demo" / f"smoke-seed{seed}-hidden=8" / "notebooks" / "batch.log"
        assert str(log) in printed
        assert "made by" in log.read_text()
        openmp, mkl = re.search(r"threads (\d+) (\d+)", log.read_text()).groups()
        assert openmp == mkl


def test_on_a_nannys_worker_torch_has_the_threads_that_the_worker_was_given(tmp_path: Path, monkeypatch):
    threads = "import torch\nprint('threads', torch.get_num_threads())\n"
    write_notebook(tmp_path, "02_train_glow", threads + MAKE.format(names=["glow"]))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    arguments = f"--preset smoke --notebooks 02 --runs-root {tmp_path} --notebooks-folder {tmp_path}".split()
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(**options, memory_limit=0) as cluster:
        seen = cluster.get_client().run(lambda: (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]))
        assert [*seen.values()] == [("2", "1")], "what the nanny does"
        assert main([*arguments, "--seed", "0", "1", "--scheduler", cluster.scheduler_address]) == 0
    assert "threads 2" in (tmp_path / "demo" / "smoke-seed0" / "notebooks" / "batch.log").read_text()


def test_a_run_that_kills_its_workers_ends_no_other(tmp_path: Path, capsys: pytest.CaptureFixture):
    kill = "import os, signal\nif seed == 1:\n    os.kill(os.getppid(), signal.SIGKILL)\n"
    write_notebook(tmp_path, "02_train_glow", kill)
    arguments = ["--preset", "smoke", "--notebooks", "02", "--notebooks-folder", str(tmp_path), "--seed", "0", "1"]
    assert main([*arguments, "--runs-root", str(tmp_path / "runs"), "--workers", "2"]) == 1
    printed = capsys.readouterr()
    assert "demo/smoke-seed0: done in" in printed.out
    assert "1 of 2 runs failed" in printed.err
    assert "demo/smoke-seed1: task 2 of 2 killed 3 workers" in printed.err
