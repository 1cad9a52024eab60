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
from ageflow.training.ictm import train_translator
from ageflow.workspace import Workspace
from tests.tiny import parameters

FILES = ["ageflow", "continuous", "cycle", "glow", "real"]


@pytest.fixture
def copy(runs_root, tmp_path):
    """Copies of the tiny run, to change: of links, as a file is replaced and never written into."""

    def make(name):
        shutil.copytree(runs_root, tmp_path / name, copy_function=os.link)
        return tmp_path / name

    return make


def settings_of(run, **more):
    sizes = {"evaluation_faces": 8, "evaluation_batch": 5, "cycle_faces": 4, "continuous_faces": 4}
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


def stop_amid_ageflow(run, looks):
    """Judge GLOW and two of the five batches of AgeFlow."""
    evaluate(settings_of(run), "glow")
    looks["at"] = looks["times"] + 2
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings_of(run), "ageflow")
    looks["at"] = None
    (kept,) = (folder_of(run) / "parts/ageflow").iterdir()
    assert len(read_judged(kept).rows) == 10


def test_parts_of_other_weights_are_never_taken(copy, looks):
    run = copy("run")
    stop_amid_ageflow(run, looks)
    train_translator(ageflow.settings("train_ictm", parameters(run, iterations=9)))
    fresh = run.with_name("fresh")
    shutil.copytree(run, fresh, copy_function=os.link, ignore=shutil.ignore_patterns("evaluation"))
    for each in (run, fresh):
        evaluate(settings_of(each), "ageflow")
    assert_same(run, fresh, ["ageflow"])


def test_parts_in_batches_of_another_size_are_not_taken(copy, looks):
    run, fresh = copy("run"), copy("fresh")
    stop_amid_ageflow(run, looks)
    before = looks["times"]
    for each in (run, fresh):
        evaluate(settings_of(each, evaluation_batch=8), "ageflow")
    assert_same(run, fresh, ["ageflow"])
    assert looks["times"] - before == 3 + 1 + 3, "24 in batches of 8, and the fresh run's eight real faces"


def test_a_damaged_part_is_judged_again(copy, looks):
    run, fresh = copy("run"), copy("fresh")
    stop_amid_ageflow(run, looks)
    (kept,) = (folder_of(run) / "parts/ageflow").iterdir()
    kept.write_bytes(kept.read_bytes()[:-20])
    for each in (run, fresh):
        evaluate(settings_of(each), "ageflow")
    assert_same(run, fresh, ["ageflow"])


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
