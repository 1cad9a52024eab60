"""Many runs by one command, all parts real: dask workers, papermill, faces, trainings and judges, at smoke size.

Two short notebooks do what 01 to 05 and what 06 do, so that a run is two kernels.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from distributed import LocalCluster

from ageflow.batch.__main__ import main
from ageflow.batch.plan import Plan
from ageflow.batch.sweep import Sweep
from ageflow.config import ParameterError
from ageflow.data.faces import Faces
from ageflow.data.prepare import source_folder
from ageflow.run import Workspace
from tests.batch.test_batch import MAKE, write_notebook
from tests.conftest import ROOT

SHARED = """\
shared = {"dataset": dataset, "preset": preset, "run": run, "runs_root": runs_root, "seed": seed, "progress": False}
"""
TRAIN = f"""\
from ageflow.data.prepare import prepare
from ageflow.training.classifier import train_classifiers
from ageflow.training.glow import train_glow
from ageflow.training.ictm import train_translator
from ageflow.translation.latents import encode_faces
from ageflow.translation.prototypes import compute_prototypes
prepare(settings)
{SHARED}
train_glow(ageflow.settings("train_glow", shared | {{"iterations": 2}}))
averages = ageflow.settings("prototypes", shared)
compute_prototypes(averages, encode_faces(averages))
train_translator(ageflow.settings("train_ictm", shared | {{"iterations": 2}}))
train_classifiers(ageflow.settings("train_classifiers", shared | {{"iterations": 1}}))
"""
JUDGE = f"""\
from ageflow.evaluation.evaluate import evaluate_all
from ageflow.training.ictm import train_translator
{SHARED}
print("seed", seed)
train_translator(ageflow.settings("ablations", shared | {{"iterations": 1}}), "no_ictm")
evaluate_all(settings)
"""
RUNS = [f"{dataset}/smoke-seed{seed}" for dataset in ("folder", "utkface") for seed in (0, 1)]
_FACES = 64  # of each set
BROKEN = "fgnet/smoke-seed0"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a dask cluster of two worker processes."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(**options, memory_limit=0) as cluster:
        yield cluster.scheduler_address


@dataclass(frozen=True)
class Called:
    """A finished command line."""

    arguments: list[str]
    runs_root: Path
    done: subprocess.CompletedProcess[str]


def call(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ageflow.batch", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def raw_sets(folder: Path, faces: Path) -> list[str]:
    """The drawn faces again as two data sets of files, and the raw folder of a third without any: ``--data-root``."""
    table, source = Faces.open(faces).table.head(_FACES), source_folder(faces)
    own, utkface, fgnet = (folder / name for name in ("own", "utkface", "fgnet"))
    for part in (own, utkface / "UTKFace", fgnet):
        part.mkdir(parents=True)
    lines = ["file,identity,age,gender"]
    for number, face in enumerate(table.itertuples()):
        ending = Path(face.file).suffix
        shutil.copy(source / face.file, own / f"{number}{ending}")
        lines.append(f"{number}{ending},{face.identity},{face.age:.0f},{face.gender}")
        gender = ("male", "female").index(face.gender)
        # Any picture opens under any ending.
        shutil.copy(
            source / face.file, utkface / "UTKFace" / f"{face.age:.0f}_{gender}_0_2017011617452{number:04d}.jpg"
        )
    (own / "faces.csv").write_text("\n".join(lines))
    return [f"folder={own}", f"utkface={utkface}", f"fgnet={fgnet}"]


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory, demo_faces_folder: Path, scheduler: str) -> Called:
    """Two data sets with two seeds, then a third set that is broken with one of them."""
    folder = tmp_path_factory.mktemp("many")
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    write_notebook(notebooks, "01_prepare_data", TRAIN, "data_root = None  # raw files\nworkers = None  # processes\n")
    extra = "evaluation_faces = None  # faces\nmethods = None  # methods\ndata_root = None  # raw files\n"
    write_notebook(notebooks, "06_ablations", JUDGE, extra)
    # Left by a run whose state was damaged: that run cannot begin, whatever its faces.
    broken = Workspace(folder / "runs", "fgnet", "smoke-seed0").folder("notebooks") / "state.json"
    broken.write_text("{")
    arguments = ["--dataset", "folder", "utkface", "fgnet", "--seed", "0", "1", "--preset", "smoke"]
    arguments += ["--data-root", *raw_sets(folder, demo_faces_folder), "--runs-root", str(folder / "runs")]
    arguments += ["--notebooks", "01,06", "--notebooks-folder", str(notebooks), "--scheduler", scheduler]
    arguments += ["-p", "methods", "['glow', 'ageflow']", "-p", "prepare_data.workers", "1"]
    return Called(arguments, folder / "runs", call(*arguments))


def test_every_run_but_the_broken_ones_finishes_and_prints_into_its_own_log(called: Called):
    for name in RUNS:
        dataset, run = name.split("/")
        workspace = Workspace(called.runs_root, dataset, run)
        assert workspace.has("evaluation"), called.done.stdout + called.done.stderr
        assert re.search(rf"\] {name}: done in [\d.]+ minutes", called.done.stdout)
        log = workspace.path("notebooks", "batch.log")
        assert f"{name}: {log}" in called.done.stdout
        told = log.read_text()
        assert f"seed {name[-1]}\n" in told
        assert "06_ablations: done in" in told
        assert workspace.path("report", "index.html").is_file()
    weights = [called.runs_root / "folder" / f"smoke-seed{seed}" / "evaluation" / "ageflow.parquet" for seed in (0, 1)]
    assert not pd.read_parquet(weights[0]).equals(pd.read_parquet(weights[1])), "the seed reaches the notebooks"


def test_a_run_that_fails_is_listed_with_its_executed_copy_and_stops_no_other(called: Called):
    assert called.done.returncode == 1
    told = called.done.stderr
    assert "2 of 6 runs failed" in told
    assert f"{BROKEN}: ParameterError" in told
    assert "state.json is damaged" in told
    failed = called.runs_root / "fgnet" / "smoke-seed1" / "notebooks" / "01_prepare_data.failed.ipynb"
    assert failed.is_file()
    assert "fgnet/smoke-seed1: 01_prepare_data.ipynb stopped in cell In [4]" in told
    assert f"The executed copy with the whole traceback: {failed}" in told
    assert f"What it printed: {failed.with_name('batch.log')}" in told


def test_one_table_has_mean_spread_and_number_of_seeds(called: Called):
    folder = called.runs_root / "summary"
    numbers = pd.read_csv(folder / "summary.csv")
    assert set(numbers["dataset"]) == {"folder", "utkface"}
    assert {"age_accuracy", "cosine", "gender"} <= set(numbers["metric"])
    cosines = numbers[(numbers["metric"] == "cosine") & (numbers["method"] == "AgeFlow")]
    assert set(cosines["group"]) == {"30-", "31-40", "41-50", "51+", "mean"}
    for row in cosines.itertuples():
        found = []
        for run in row.runs.split():
            judged = pd.read_parquet(called.runs_root / run / "evaluation" / "ageflow.parquet")
            means = judged.astype({"cosine": float}).groupby("target")["cosine"].mean()
            group = ["30-", "31-40", "41-50", "51+", "mean"].index(row.group)
            found.append(means.mean() if row.group == "mean" else means[group])
        assert row.seeds == len(found) == 2
        assert row.mean == pytest.approx(sum(found) / 2)
        assert row.standard_deviation == pytest.approx(abs(found[0] - found[1]) / 2**0.5)
        assert row.standard_deviation > 0
    markdown, page = (folder / "summary.md").read_text(), (folder / "summary.html").read_text()
    assert re.search(
        r"\| Cosine similarity \| utkface \| its own test faces \|  \| AgeFlow \| [\d.]+ ± [\d.]+ \(2\) \|", markdown
    )
    for text in (markdown, page):
        assert f"Failed, so not in here: {BROKEN}" in text
        assert "± " in text


def test_a_second_call_skips_what_is_finished(called: Called):
    again = call(*called.arguments, "--summary", str(called.runs_root / "again"))
    assert again.stdout.count("unchanged, skipped") == len(RUNS), again.stdout + again.stderr
    first, second = (pd.read_csv(called.runs_root / name / "summary.csv") for name in ("summary", "again"))
    pd.testing.assert_frame_equal(first, second)
    log = called.runs_root / "folder" / "smoke-seed0" / "notebooks" / "batch.log"
    assert "done in" in log.read_text(), "what the first call printed stays"


def test_local_processes_and_this_process_do_it_alike(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_notebook(tmp_path, "02_train_glow")
    arguments = ["--preset", "smoke", "--notebooks", "02", "--notebooks-folder", str(tmp_path)]
    arguments += ["--seed", "0", "1", "--vary", "hidden", "8"]
    for workers in ("1", "2"):
        assert main([*arguments, "--runs-root", str(tmp_path / workers), "--workers", workers]) == 0
        told = capsys.readouterr().out
        assert f"2 runs, {workers} at a time" in told
        assert "made by" not in told, "what a notebook prints goes into its log"
        for seed in (0, 1):
            log = tmp_path / workers / "demo" / f"smoke-seed{seed}-hidden=8" / "notebooks" / "batch.log"
            assert "made by" in log.read_text()
            assert f"{log}" in told
    assert "no summary" in told


def test_relative_paths_mean_on_the_workers_what_they_mean_here(tmp_path: Path, scheduler: str):
    notebooks, here = tmp_path / "notebooks", tmp_path / "here"
    notebooks.mkdir()
    here.mkdir()
    (here / "glow.safetensors").write_text("weights")
    code = "from pathlib import Path\nprint('found', Path(settings.init_from).read_text())\n"
    code += MAKE.format(names=["glow/done.json"])
    write_notebook(notebooks, "02_train_glow", code, extra="init_from = None  # weights\n")
    arguments = ["--preset", "smoke", "--notebooks", "02", "--notebooks-folder", "../notebooks", "--seed", "0", "1"]
    arguments += ["-p", "runs_root", "out", "-p", "train_glow.init_from", "glow.safetensors", "--scheduler", scheduler]
    done = call(*arguments, cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    for seed in (0, 1):
        run = Workspace(here / "out", "demo", f"smoke-seed{seed}")
        assert run.has("glow")
        assert "found weights" in run.path("notebooks", "batch.log").read_text()


def test_a_run_that_kills_its_workers_ends_no_other(tmp_path: Path, capsys: pytest.CaptureFixture):
    kill = "import os, signal\nif seed == 1:\n    os.kill(os.getppid(), signal.SIGKILL)\n"
    write_notebook(tmp_path, "02_train_glow", kill + MAKE.format(names=["glow/done.json"]))
    arguments = ["--preset", "smoke", "--notebooks", "02", "--notebooks-folder", str(tmp_path), "--seed", "0", "1"]
    assert main([*arguments, "--runs-root", str(tmp_path / "runs"), "--workers", "2"]) == 1
    told = capsys.readouterr()
    assert "demo/smoke-seed0: done in" in told.out
    assert "1 of 2 runs failed" in told.err
    assert "demo/smoke-seed1: task 1 of 2 killed 3 workers" in told.err


def names(*datasets: str, base: Plan | None = None, **more: object) -> list[str]:
    return [member.name for member in Sweep(base or Plan(preset="smoke"), datasets, **more).members()]


def test_runs_are_called_by_what_sets_them_apart():
    assert names("demo") == ["demo/smoke"]
    assert names("demo", "fgnet", base=Plan()) == ["demo/demo", "fgnet/paper"]
    assert names("demo", seeds=[0, 12]) == ["demo/smoke-seed0", "demo/smoke-seed12"]
    varied = {"train_ictm.latent": ["all", [0, 1]], "embedder": ["/a b/arc.onnx"]}
    assert names("demo", seeds=[3], varied=varied, base=Plan(run="wide")) == [
        "demo/wide-seed3-train_ictm.latent=all-embedder=-a-b-arc.onnx",
        "demo/wide-seed3-train_ictm.latent=0+1-embedder=-a-b-arc.onnx",
    ]


def test_every_notebook_is_given_the_seed_the_value_and_its_own_folder(tmp_path: Path):
    roots = {"morph": tmp_path / "morph", "cacd": tmp_path / "cacd"}
    sweep = Sweep(Plan(parameters={"bits": 4}), ["morph", "cacd"], [5], {"methods": [["glow"]]}, roots)
    for member, dataset in zip(sweep.members(), roots, strict=True):
        chosen = {chapter.number: member.plan.settings_of(chapter) for chapter in member.plan.chapters}
        assert all(settings.seed == 5 for settings in chosen.values())
        assert chosen["01"].data_root == roots[dataset]
        assert (chosen["02"].bits, chosen["06"].methods) == (4, ["glow"])
    shared = Sweep(Plan(data_root=tmp_path), ["demo", "morph"]).members()
    assert [member.plan.data_root for member in shared] == [None, tmp_path]
    assert Sweep(Plan(data_root=tmp_path), ["demo"]).members()[0].plan.data_root == tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dataset", "demo", "mroph"], r"--dataset mroph: .*expected one of demo, morph.*Did you mean 'morph'"),
        (["--seed", "0", "1", "0"], "--seed names 0 twice: .*Leave one out"),
        (["--dataset", "fgnet", "fgnet"], "--dataset names fgnet twice"),
        (["--vary", "scale", "1", "1"], "2 runs would be called demo/smoke-scale=1: .*Leave out"),
        (["--vary", "scale", "1", "2", "-p", "scale", "3"], "scale is given by -p and varied by --vary"),
        (["--vary", "scale"], "--vary scale: expected its name and its values"),
        (["--vary", "run", "a", "b"], "--vary run: .*use --run"),
        (["--vary", "scael", "1", "2"], "'scael': did you mean 'scale'"),
        (["--seed", "0", "1", "-p", "seed", "3"], "-p seed 3 and --seed 0 1: expected one of them"),
        (["--seed", "0", "-1"], "seed = -1: .*greater than or equal to 0"),
        (["--seed", "0", "1", "-p", "run", "x"], "2 runs would be called demo/x"),
        (["--vary", "embedder", "x" * 300], "has 3.. characters, and at most 200"),
        (["--dataset", "morph", "cacd", "--data-root", "morph=/x"], "no folder for cacd: add cacd=FOLDER"),
        (["--dataset", "morph", "--data-root", "cacd=/x"], "--data-root cacd=…: .*Add cacd to --dataset"),
        (["--dataset", "morph", "--data-root", "/x", "/y"], "--data-root /x: expected one folder, or DATASET=FOLDER"),
        (["--seed", "0", "1", "--notebooks-folder", "nowhere"], "nowhere holds no 01_prepare_data.ipynb"),
        (["--seed", "0", "1", "--scheduler", "tcp://127.0.0.1:9"], "'tcp://127.0.0.1:9': no dask scheduler answers"),
    ],
)
def test_a_wrong_command_names_the_value_and_what_to_do(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ageflow.workers._CONNECT_SECONDS", 2)
    assert main(["--preset", "smoke", "--runs-root", str(tmp_path / "runs"), *arguments]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists(), "nothing has run"


def test_a_folder_may_be_called_as_its_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    write_notebook(notebooks, "02_train_glow", "print('raw', settings.data_root)", "data_root = None  # raw files\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", "morph", "--preset", "smoke", "--notebooks", "02", "--notebooks-folder", str(notebooks)]
    arguments += ["--runs-root", str(tmp_path / "runs"), "--data-root", "morph"]
    assert main(arguments) == 2
    assert "--data-root morph: expected one folder, or DATASET=FOLDER" in capsys.readouterr().err
    (tmp_path / "morph").mkdir()
    assert main(arguments) == 0
    assert f"raw {tmp_path / 'morph'}\n" in capsys.readouterr().out


def test_a_sweep_of_a_folder_that_is_given_twice_says_so(tmp_path: Path):
    with pytest.raises(ParameterError, match="2 runs would be called"):
        Sweep(Plan(), ["demo"], varied={"embedder": ["a b", "a?b"]}).members()
