"""Notebook 02 through papermill with two processes: what it shows, and that nothing stays when it is stopped."""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.training import processes
from tests.training.processes import end_all, finish, left_behind, lines, ranks, start, wait_until, with_faces

_SLOW_TO_SAVE = """
import sys

if any("ipykernel" in word for word in sys.orig_argv):
    import time

    from ageflow.training.state import State

    save = State.save

    def slow(*given):
        time.sleep(8)
        save(*given)

    State.save = slow
"""


def papermill(root: Path, iterations: int) -> list[str]:
    given = {"preset": "smoke", "run": "tiny", "runs_root": root, "gpus": 2, "iterations": iterations}
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    return [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "notebooks/02_train_glow.ipynb"),
        str(root / "o.ipynb"),
        *words,
    ]


@pytest.fixture
def root(tmp_path: Path):
    yield tmp_path
    end_all(tmp_path)


def test_papermill_trains_with_two_processes_and_shows_how_far_it_is(root):
    folder = with_faces(root, "tiny").path("glow")
    process = start(papermill(root, 12), root)
    assert wait_until(lambda: len(ranks(root)) == 2)
    said = finish(process)
    assert process.returncode == 0, said
    cells = json.loads((root / "o.ipynb").read_text())["cells"]
    shown = "".join(str(output.get("text")) for cell in cells for output in cell.get("outputs", []))
    assert "2 processes × 1 passes of 8" in shown
    assert "12/12" in shown
    assert json.loads((folder / "done.json").read_text())["iterations"] == 12
    assert left_behind(root) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_that_is_stopped_has_its_training_save(root, tmp_path_factory, monkeypatch, number):
    """Signalled alone, as by `kill`: the update in work is on the disk, and the same command goes on from there.

    With SIGTERM its checkpoint takes as long as a large one does.
    """
    if number == signal.SIGTERM:
        slow = tmp_path_factory.mktemp("slow")
        (slow / "sitecustomize.py").write_text(_SLOW_TO_SAVE)
        monkeypatch.setitem(processes.ENVIRONMENT, "PYTHONPATH", os.pathsep.join([str(slow), str(ROOT)]))
    folder = with_faces(root, "tiny").path("glow")
    given = ["--preset", "smoke", "--run", "tiny", "--runs-root", str(root), "--notebooks", "02"]
    endless = ["-p", "iterations", "100000", "-p", "checkpoint_every", "100000", "-p", "preview_every", "100000"]
    process = start([sys.executable, "-m", "ageflow.batch", *given, *endless], root)
    assert wait_until(lambda: len(lines(folder)) > 8), finish(process, 5)
    process.send_signal(number)
    said = finish(process)
    assert process.returncode == 130, said
    assert "stopped; the same command goes on from here" in said
    assert wait_until(lambda: not left_behind(root), seconds=60), [p.cmdline() for p in left_behind(root)]
    saved = max(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.safetensors"))
    assert saved == json.loads(lines(folder)[-1])["iteration"], "the update in work was not saved"
    assert not list(root.rglob("*.running.ipynb"))


@pytest.mark.parametrize("how", ["papermill is interrupted", "the kernel is killed"])
def test_when_it_is_stopped_no_process_is_left(root, how):
    """Ctrl-C of papermill, and SIGKILL of the kernel: the two trainings save and end, and so does all else."""
    folder = with_faces(root, "tiny").path("glow")
    process = start(papermill(root, 100_000), root)
    assert wait_until(lambda: len(lines(folder)) > 8), finish(process, 5)
    if how == "papermill is interrupted":
        process.send_signal(signal.SIGINT)
    else:
        kernel = [child for child in psutil.Process(process.pid).children() if "ipykernel" in " ".join(child.cmdline())]
        kernel[0].kill()
    said = finish(process)
    assert process.returncode != 0, said
    assert wait_until(lambda: not left_behind(root), seconds=60), [p.cmdline() for p in left_behind(root)]
    saved = max(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.safetensors"))
    assert saved == json.loads(lines(folder)[-1])["iteration"], "the update in work was not saved"
