"""Shards do not depend on who makes them, nor on how often he was killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from distributed import LocalCluster

import ageflow
from ageflow.config import ParameterError, PrepareData
from ageflow.data.faces import Faces
from ageflow.data.prepare import prepare
from ageflow.data.shards import make_shard
from ageflow.data.source import source_folder
from ageflow.run import Workspace
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def raw(demo_faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own with 96 drawn faces, whose points are to be searched for."""
    folder = tmp_path_factory.mktemp("raw")
    table = Faces.open(demo_faces_folder).table
    for file in table["file"]:
        target = folder / file
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source_folder(demo_faces_folder) / file, target)
    table[["file", "identity", "age", "gender"]].to_csv(folder / "faces.csv", index=False)
    (folder / next(iter(table["file"]))).unlink()
    return folder


@pytest.fixture(scope="module")
def settings(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> PrepareData:
    return ageflow.settings(
        "prepare_data",
        {
            "dataset": "folder",
            "preset": "smoke",
            "data_root": raw,
            "runs_root": tmp_path_factory.mktemp("runs"),
            "shard_size": 12,
            "workers": 1,
            "progress": False,
        },
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(settings: PrepareData) -> dict[str, bytes]:
    """What one process makes when nobody disturbs it."""
    return bytes_of(prepare(settings).folder)


def another(settings: PrepareData, runs_root: Path, **more) -> PrepareData:
    return settings.model_copy(update={"runs_root": runs_root, **more})


def test_three_workers_make_the_same_bytes(settings, whole, tmp_path: Path):
    assert sum(name.endswith(".npy") for name in whole) == 8
    assert bytes_of(prepare(another(settings, tmp_path, workers=3)).folder) == whole


def test_a_worker_for_each_processor_makes_the_same_bytes(settings, whole, tmp_path: Path):
    """The default: a local cluster, here of as many workers as there are processors."""
    assert PrepareData.model_fields["workers"].default == 0
    assert bytes_of(prepare(another(settings, tmp_path, workers=0)).folder) == whole


def test_the_workers_of_a_scheduler_make_the_same_bytes(settings, whole, tmp_path: Path):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        faces = prepare(another(settings, tmp_path, scheduler=cluster.scheduler_address))
    assert bytes_of(faces.folder) == whole


def test_with_other_rows_than_before_it_goes_on_with_the_shards_that_are_still_right(
    settings, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stopped, and the labels mended meanwhile: no face keeps its old label, and none is lost or there twice."""
    mended = tmp_path / "mended"
    shutil.copytree(raw, mended)
    made = []

    def stopped(shard, done):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(shard.number)
        return make_shard(shard, done)

    def remembered(shard, done):
        made.append(shard.number)
        return make_shard(shard, done)

    wanted = another(settings, tmp_path / "runs", data_root=mended)
    with monkeypatch.context() as patch:
        patch.setattr("ageflow.data.prepare.make_shard", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(wanted)
    table = pd.read_csv(mended / "faces.csv", dtype=str)
    table.loc[30, "age"] = str(float(table.loc[30, "age"]) - 20)
    table = table.drop(index=17)
    table.to_csv(mended / "faces.csv", index=False)
    with monkeypatch.context() as patch:
        patch.setattr("ageflow.data.prepare.make_shard", remembered)
        faces = prepare(wanted)
    assert made[:3] == [0, 1, 2]
    assert made[3:] == list(range(1, 8)), "the first twelve rows are what they were"
    assert bytes_of(faces.folder) == bytes_of(prepare(another(wanted, tmp_path / "at once")).folder)


def test_the_devices_of_a_scheduler_s_workers_are_not_asked_of_this_machine(
    settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ageflow.workers._CONNECT_SECONDS", 1)
    with pytest.raises(ParameterError, match="no dask scheduler answers"):
        prepare(another(settings, tmp_path, scheduler="tcp://127.0.0.1:9", device="cuda:7"))


def test_a_scheduler_that_is_not_there_is_named(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ageflow.workers._CONNECT_SECONDS", 2)
    with pytest.raises(ParameterError, match=r"tcp://127.0.0.1:9.*no dask scheduler answers"):
        prepare(another(settings, tmp_path, scheduler="tcp://127.0.0.1:9"))


def delays() -> Iterator[float]:
    """Seconds between a process's first sign of life and its end."""
    stream = random.Random(0)
    while True:
        yield stream.uniform(0, 0.6)


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_again_and_again_it_ends_with_the_same_bytes(settings, whole, tmp_path: Path, workers):
    wanted = another(settings, tmp_path, workers=workers)
    folder = Workspace.of(wanted).path("faces")
    command = [sys.executable, "-m", "tests.data.prepare_worker", wanted.model_dump_json()]
    killed = 0
    for delay in delays():
        before = len(list(folder.glob("shard-*.json"))) if folder.is_dir() else 0
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE)
        while process.poll() is None and killed < (4 if workers == 1 else 2):
            if len(list(folder.glob("shard-*.json"))) > before or (folder / "faces.parquet").is_file():
                time.sleep(delay)
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        _, said = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()[-2000:]
        killed += 1
    assert killed >= 1
    assert bytes_of(folder) == whole
