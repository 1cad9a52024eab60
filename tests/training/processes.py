"""Trainings in processes of their own, on the tiny faces: started, killed, looked at."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch

import ageflow
from ageflow.checkpoint import latest
from ageflow.config import Settings
from ageflow.run import Workspace
from ageflow.train import main
from ageflow.training.task import MicroBatch, Task
from tests.conftest import ROOT
from tests.tiny import write_faces

# One thread each: the machine may be busy, and threads that wait for each other then wait long.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
MARK = "AGEFLOW_TEST_FOLDER"  # every process that a test starts, and those that these start, carry it


def workspace(runs_root: Path, run: str) -> Workspace:
    """A run's folders."""
    return Workspace(runs_root, "demo", run)


def with_faces(runs_root: Path, run: str) -> Workspace:
    """A new run that has the tiny faces."""
    write_faces(workspace(runs_root, run).path("faces"))
    return workspace(runs_root, run)


def interrupted_at(number: int, task: type[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a task stop in the middle of an update, counted from 0, as Ctrl-C does between two checkpoints."""
    loss = task.loss

    def stopping(self: Task, part: MicroBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if part.number == number:
            raise KeyboardInterrupt
        return loss(self, part)

    monkeypatch.setattr(task, "loss", stopping)


@contextlib.contextmanager
def disk_of(size: str, place: Path) -> Iterator[Path]:
    """A file system of so many bytes (``64k``, ``3m``) at `place`; the test is skipped where none can be mounted."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def command(step: str, runs_root: Path, run: str, **values: object) -> list[str]:
    """``python -m ageflow.train``, as a person would call it."""
    given = {"preset": "smoke", "runs_root": runs_root, "run": run, **values}
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    return [sys.executable, "-m", "ageflow.train", step, *words]


def start(arguments: Sequence[str], mark: Path, **options: object) -> subprocess.Popen[str]:
    """Start it, its lines kept."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    return subprocess.Popen(arguments, env=ENVIRONMENT | {MARK: str(mark)}, **(pipes | options))


def finish(process: subprocess.Popen[str], seconds: float = 600) -> str:
    """Wait for its end; what it said."""
    try:
        return process.communicate(timeout=seconds)[0] or ""
    finally:
        process.kill()


def trained(step: str, runs_root: Path, run: str, **values: object) -> str:
    """Train to the end by the command line, called in this process (another takes ten seconds to start); what it said.

    Two processes and more are started by torchrun, as they always are.
    """
    said = io.StringIO()
    threads, before = torch.get_num_threads(), os.environ.copy()
    os.environ |= ENVIRONMENT | {MARK: str(runs_root)}
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(command(step, runs_root, run, **values)[3:])
    finally:
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ |= before
    assert code == 0, said.getvalue()
    return said.getvalue()


def left_behind(mark: Path) -> list[psutil.Process]:
    """The processes alive that carry the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # ended meanwhile, or not ours
            continue
    return found


def ranks(mark: Path) -> dict[int, psutil.Process]:
    """The training processes that torchrun has started, by their rank."""
    found = {}
    for process in left_behind(mark):
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            environment = process.environ()
            if "TORCHELASTIC_RUN_ID" in environment and "RANK" in environment:
                found[int(environment["RANK"])] = process
    return found


def wait_until(true: Callable[[], object], seconds: float = 400, every: float = 0.02) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def end_all(mark: Path) -> None:
    """Kill what a failed test left."""
    for process in left_behind(mark):
        process.send_signal(signal.SIGKILL)


def lines(folder: Path) -> list[str]:
    """The lines of ``metrics.jsonl``, none while there is no file."""
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that the newest checkpoint holds: weights, averages, optimisers, counts."""
    return latest(folder).tensors("")


def different(first: Path, second: Path) -> list[str]:
    """The tensors of two trainings that are not the same to the last bit."""
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def distance(first: Path, second: Path) -> float:
    """Norm of the weights' difference over their norm, over all weights together.

    Together, as a bias that starts at zero and has hardly moved has no digits of its own to compare.
    """
    one, other = (latest(folder).tensors("model.") for folder in (first, second))
    difference = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return (difference / sum(float(tensor.double().square().sum()) for tensor in one.values())) ** 0.5


def settings_of(step: str, runs_root: Path, run: str = "whole", **values: object) -> Settings:
    """The settings that `command` trains with."""
    return ageflow.settings(step, {"preset": "smoke", "runs_root": runs_root, "run": run, "progress": False, **values})
