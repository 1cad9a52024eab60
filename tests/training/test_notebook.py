"""Notebook 02 through papermill and in a batch: when it is stopped, it saves, and nothing stays."""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.training import processes
from tests.training.line import saved
from tests.training.processes import finish, left_behind, lines, start, wait_until, with_faces

_SLOW_TO_SAVE = """
import sys

if any("ipykernel" in word for word in sys.orig_argv):
    import time

    from ageflow.training.task import State

    save = State.save

    def slow(*given):
        time.sleep(8)
        save(*given)

    State.save = slow
"""
NEVER = {"checkpoint_every": 100_000, "preview_every": 100_000}


def parameters(root: Path, **values: object) -> list[str]:
    given = {"preset": "smoke", "run": "tiny", "runs_root": root, **values}
    return [word for name, value in given.items() for word in ("-p", name, str(value))]


def papermill(root: Path, **values: object) -> list[str]:
    notebooks = [str(ROOT / "notebooks/02_train_glow.ipynb"), str(root / "o.ipynb")]
    return [sys.executable, "-m", "papermill", *notebooks, *parameters(root, gpus=2, **values)]


def stopped_in_order(root: Path, folder: Path) -> None:
    """No process is left, and the update in work was saved."""
    assert wait_until(lambda: not left_behind(root), seconds=60), [p.cmdline() for p in left_behind(root)]
    assert saved(folder) == [json.loads(lines(folder)[-1])["iteration"]]


@pytest.mark.parametrize(("number", "gpus"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_batch_that_is_stopped_has_its_training_save(root, tmp_path_factory, monkeypatch, number, gpus):
    """Signalled alone, as by `kill`: the update in work is on the disk, and the same command continues from there.

    With SIGTERM its checkpoint takes as long as a large one does.
    """
    if number == signal.SIGTERM:
        slow = tmp_path_factory.mktemp("slow")
        (slow / "sitecustomize.py").write_text(_SLOW_TO_SAVE)
        monkeypatch.setitem(processes.ENVIRONMENT, "PYTHONPATH", os.pathsep.join([str(slow), str(ROOT)]))
    folder = with_faces(root, "tiny").path("glow")
    given = ["--preset", "smoke", "--run", "tiny", "--runs-root", str(root), "--notebooks", "02"]
    endless = parameters(root, iterations=100_000, gpus=gpus, **NEVER)[6:]
    process = start([sys.executable, "-m", "ageflow.batch", *given, *endless], root)
    assert wait_until(lambda: len(lines(folder)) > 8), finish(process, 5)
    process.send_signal(number)
    printed = finish(process)
    assert process.returncode == 130, printed
    assert "stopped; the same command" in printed
    assert f"processes: {gpus}," in printed, "what they print passes through the kernel, papermill and the batch"
    stopped_in_order(root, folder)


def test_when_the_kernel_is_killed_its_trainings_save_and_end(root):
    folder = with_faces(root, "tiny").path("glow")
    process = start(papermill(root, iterations=100_000, **NEVER), root)
    assert wait_until(lambda: len(lines(folder)) > 8), finish(process, 5)
    (kernel,) = [child for child in psutil.Process(process.pid).children() if "ipykernel" in " ".join(child.cmdline())]
    kernel.kill()
    printed = finish(process)
    assert process.returncode != 0, printed
    stopped_in_order(root, folder)
