"""Shards do not depend on who makes them, nor on how often the process was killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from distributed import LocalCluster

import ageflow
from ageflow.config import PrepareData
from ageflow.data.faces import Faces
from ageflow.data.prepare import make_shard, prepare, source_folder
from ageflow.run import Workspace
from tests.conftest import ROOT
from tests.data.test_prepare import bytes_of

PROGRAM = (
    "import sys; from ageflow.config import PrepareData; from ageflow.data.prepare import prepare\n"
    "if __name__ == '__main__': prepare(PrepareData.model_validate_json(sys.argv[1]))"
)


@pytest.fixture(scope="module")
def raw(demo_faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own with 64 drawn faces, whose points are to be searched for; the first is missing."""
    folder = tmp_path_factory.mktemp("raw")
    table = Faces.open(demo_faces_folder).table.head(64)
    for file in table["file"][1:]:
        target = folder / file
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source_folder(demo_faces_folder) / file, target)
    table[["file", "identity", "age", "gender"]].to_csv(folder / "faces.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def settings(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> PrepareData:
    few = {"preset": "smoke", "shard_size": 8, "workers": 1, "progress": False}
    places = {"dataset": "folder", "data_root": raw, "runs_root": tmp_path_factory.mktemp("runs")}
    return ageflow.settings("prepare_data", few | places)


@pytest.fixture(scope="module")
def whole(settings: PrepareData) -> dict[str, bytes]:
    """What one process makes when nobody disturbs it."""
    return bytes_of(prepare(settings).folder)


def another(settings: PrepareData, runs_root: Path, **more) -> PrepareData:
    return settings.model_copy(update={"runs_root": runs_root, **more})


def test_the_workers_of_a_scheduler_make_the_same_bytes(settings, whole, tmp_path: Path):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        faces = prepare(another(settings, tmp_path, scheduler=cluster.scheduler_address))
    assert bytes_of(faces.folder) == whole


def test_with_other_rows_than_before_it_continues_with_the_shards_that_are_still_right(
    settings, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Stopped, and labels and pictures mended meanwhile: no face keeps its old label, and none is lost or duplicate."""
    mended = tmp_path / "mended"
    shutil.copytree(raw, mended)
    made, stop_after = [], 3

    def noted(shard):
        if len(made) == stop_after:
            raise KeyboardInterrupt
        made.append(shard.number)
        return make_shard(shard)

    wanted = another(settings, tmp_path / "runs", data_root=mended)
    monkeypatch.setattr("ageflow.data.prepare.make_shard", noted)
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted)
    assert made == [0, 1, 2]
    table = pd.read_csv(mended / "faces.csv", dtype=str)
    table.loc[30, "age"] = str(float(table.loc[30, "age"]) - 20)
    table = table.drop(index=21)
    shutil.copyfile(mended / table["file"][10], mended / table["file"][9])
    table.to_csv(mended / "faces.csv", index=False)
    stop_after = None
    faces = prepare(wanted)
    assert made[3:] == list(range(1, 8)), "the first eight rows are what they were"
    assert bytes_of(faces.folder) == bytes_of(prepare(another(wanted, tmp_path / "at once")).folder)


@pytest.mark.parametrize(("workers", "kills"), [(1, 2), (2, 1)])
def test_killed_again_and_again_it_ends_with_the_same_bytes(settings, whole, tmp_path: Path, workers, kills):
    wanted = another(settings, tmp_path, workers=workers)
    folder = Workspace.of(wanted).path("faces")
    command = [sys.executable, "-c", PROGRAM, wanted.model_dump_json()]
    delays = random.Random(0)
    killed = 0
    while True:
        before = len(list(folder.rglob("*.json")))
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE)
        while process.poll() is None and killed < kills:
            if len(list(folder.rglob("*.json"))) > before:
                time.sleep(delays.uniform(0, 0.3))
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        _, said = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()[-2000:]
        killed += 1
    assert killed >= 1
    assert bytes_of(folder) == whole
