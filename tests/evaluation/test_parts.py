"""An evaluation that is stopped, by Ctrl-C or by a kill, goes on where it was, to the same numbers."""

import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest

import ageflow
from ageflow.data.faces import Faces
from ageflow.evaluation.evaluate import evaluate, evaluate_all
from ageflow.evaluation.judged import read_judged
from ageflow.evaluation.parts import Parts, in_batches
from ageflow.run import Workspace
from tests.tiny import parameters

FILES = ["ageflow", "continuous", "cycle", "glow", "real", "strength"]


@pytest.fixture
def copy(runs_root, tmp_path):
    """Copies of the tiny run, to change: of links, as a file is replaced and never written into."""

    def make(name):
        shutil.copytree(runs_root, tmp_path / name, copy_function=os.link)
        return tmp_path / name

    return make


def settings_of(run, **more):
    sizes = {"evaluation_faces": 8, "evaluation_batch": 5, "cycle_faces": 4, "continuous_faces": 4, "strength_faces": 4}
    return ageflow.settings("ablations", parameters(run, methods=["glow", "ageflow"], **sizes | more))


def folder_of(run):
    return Workspace.of(settings_of(run)).path("evaluation")


@pytest.fixture
def looks(monkeypatch):
    """How often faces were looked at; a number in ``at`` stops the evaluation there."""
    counted = {"times": 0, "at": None}
    images = Faces.images

    def counting(self, index):
        if counted["times"] == counted["at"]:
            raise KeyboardInterrupt
        counted["times"] += 1
        return images(self, index)

    monkeypatch.setattr(Faces, "images", counting)
    return counted


def test_stopped_again_and_again_it_comes_to_the_same_files_and_judges_nothing_twice(copy, looks):
    whole, stopped = copy("whole"), copy("stopped")
    summary = evaluate_all(settings_of(whole))
    needed, stops = looks["times"], 0
    for _ in range(needed):
        looks["at"] = looks["times"] + 6
        try:
            resumed = evaluate_all(settings_of(stopped))
            break
        except KeyboardInterrupt:
            stops += 1
            assert not (folder_of(stopped) / "done.json").exists()
    assert stops >= needed // 6
    # There and back looks at a batch twice, and a stop may fall between the two.
    assert looks["times"] - needed <= needed + stops
    pd.testing.assert_frame_equal(resumed, summary)
    assert_same(stopped, whole, FILES)
    assert sorted(path.name for path in folder_of(stopped).iterdir()) == sorted(
        ["done.json", *(f"{name}.parquet" for name in FILES)]
    ), "no part is left"


def assert_same(one, other, names):
    """The rows to the last bit, and what is said of them but for the date."""
    for name in names:
        first, second = (read_judged(folder_of(run) / f"{name}.parquet") for run in (one, other))
        pd.testing.assert_frame_equal(first.rows, second.rows, check_exact=True)
        assert first.about | {"evaluated": ""} == second.about | {"evaluated": ""}


def test_parts_of_other_weights_of_another_batch_size_and_damaged_ones_are_judged_again(tmp_path):
    judged: list[int] = []
    stop_at = 10

    def judge(some: slice) -> pd.DataFrame:
        if some.start == stop_at:
            raise KeyboardInterrupt
        judged.extend(range(some.start, some.stop))
        return pd.DataFrame({"face": range(some.start, some.stop)})

    def judged_again(batch: int = 5, made_from: str = "a", damaged: bool = False) -> list[int]:
        nonlocal stop_at
        folder, stop_at = tmp_path / f"{batch}{made_from}{damaged}", 10
        with pytest.raises(KeyboardInterrupt):
            in_batches(judge, 23, 5, "faces", progress=False, parts=Parts(folder, {"glow": "a"}))
        (kept,) = folder.iterdir()
        assert len(read_judged(kept).rows) == 10
        if damaged:
            kept.write_bytes(kept.read_bytes()[:-20])
        stop_at = None
        judged.clear()
        rows = in_batches(judge, 23, batch, "faces", progress=False, parts=Parts(folder, {"glow": made_from}))
        assert rows["face"].tolist() == list(range(23))
        return judged.copy()

    assert judged_again() == list(range(10, 23)), "kept where nothing has changed"
    for more in ({"made_from": "b"}, {"batch": 8}, {"damaged": True}):
        assert judged_again(**more) == list(range(23)), more


def test_killed_it_goes_on_from_the_last_part(copy, looks):
    run, fresh = copy("run"), copy("fresh")
    program = f"""
import os, signal
from pathlib import Path
from ageflow.data.faces import Faces
from ageflow.evaluation import parts
from ageflow.evaluation.evaluate import evaluate
from tests.evaluation.test_parts import settings_of
parts._SECONDS = 0
images, looks = Faces.images, []
def counting(self, index):
    looks.append(index)
    if len(looks) == 2 + 4:  # the real faces, three batches of the method, and no more
        os.kill(os.getpid(), signal.SIGKILL)
    return images(self, index)
Faces.images = counting
evaluate(settings_of(Path({str(run)!r})), "ageflow")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = sorted(path.name for path in (folder_of(run) / "parts/ageflow").iterdir())
    assert kept == ["00000000.parquet", "00000005.parquet", "00000010.parquet"]
    evaluate(settings_of(run), "ageflow")
    assert looks["times"] == 2, "24 in batches of 5, three of which are there"
    evaluate(settings_of(fresh), "ageflow")
    assert_same(run, fresh, ["ageflow", "real"])
    assert not (folder_of(run) / "parts").exists()
