"""Trainings that are killed, told to stop or run out of room, and the same command again."""

import contextlib
import json
import random
import signal
import time
from pathlib import Path

import pytest

from ageflow.checkpoint import read_checkpoint
from ageflow.run import Manifest
from ageflow.train import main
from tests.training.line import saved
from tests.training.processes import (
    command,
    different,
    disk_of,
    finish,
    left_behind,
    lines,
    ranks,
    start,
    trained,
    wait_until,
    with_faces,
)

VALUES = {"iterations": 60, "checkpoint_every": 7, "preview_every": 20, "log_every": 1, "flip": True, "warmup": 30}
# How often in `make test`, and how often with `-m benchmark`.
_MANY = (pytest.mark.benchmark, pytest.mark.timeout(3600))
KILLS = [2, pytest.param(20, marks=_MANY)]
RANKS_KILLED = [1, pytest.param(5, marks=_MANY)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The folder of a training that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed")
    folder = with_faces(root, "whole").path("glow")
    trained("train_glow", root, "whole", **VALUES)
    return folder


def same(folder: Path, whole: Path) -> None:
    """Weights, averages, optimisers and metrics are those of the undisturbed training, to the last bit."""
    assert different(folder, whole) == []
    assert lines(folder) == lines(whole), "metrics.jsonl has a gap, or a line twice"
    assert not list(folder.glob(".checkpoint*")), "a half-written file was left"


@pytest.mark.parametrize("times", KILLS)
def test_killed_at_a_random_moment_it_ends_with_the_same_weights(undisturbed, root, times):
    """SIGKILL anywhere from the start of Python to the last checkpoint, then the same command."""
    moments, reached = random.Random(times), set()
    for number in range(times):
        folder = with_faces(root, f"killed{number}").path("glow")
        process = start(command("train_glow", root, f"killed{number}", **VALUES), root)
        if number % 4:  # most of them while it trains: starting takes longer than training
            at = moments.randrange(60)
            assert wait_until(lambda folder=folder, at=at: len(lines(folder)) > at), finish(process, 5)
            time.sleep(moments.uniform(0, 0.1))  # a line was just written: anywhere in the next update
        else:
            time.sleep(moments.uniform(0, 10))
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached.add(len(lines(folder)))
        trained("train_glow", root, f"killed{number}", **VALUES)
        same(folder, undisturbed)
        print(f"{number + 1} of {times} kills, with {sorted(reached)} lines of metrics written")


@pytest.mark.parametrize("times", RANKS_KILLED)
def test_a_killed_process_of_two_is_started_again_and_both_end_the_same(root, times):
    """SIGKILL of one rank: torchrun starts both again, from the last checkpoint, in the same call.

    The training was begun anew in the call, and is not so once more: what was there is the one that nothing happened to.
    """
    moments, folder = random.Random(times), with_faces(root, "killed").path("glow")
    trained("train_glow", root, "killed", gpus=2, **VALUES)
    for number in range(times):
        process = start(command("train_glow", root, "killed", gpus=2, restart=True, **VALUES), root)
        aside, at = folder.with_name(f"glow.{number + 1}"), moments.randrange(8, 40)
        assert wait_until(lambda aside=aside, at=at: aside.is_dir() and len(lines(folder)) >= at), finish(process, 5)
        ranks(root)[number % 2].send_signal(signal.SIGKILL)
        reached = len(lines(folder))
        printed = finish(process)
        assert process.returncode == 0, printed
        assert reached < 60, "it was killed after its end"
        same(folder, folder.with_name("glow.1"))
        assert not folder.with_name(f"glow.{number + 2}").exists()
        assert left_behind(root) == []


@pytest.mark.parametrize(("gpus", "number"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM)])
def test_told_to_stop_it_saves_first(undisturbed, root, gpus, number):
    """The last checkpoint is of the last line of metrics; what is left of the training is what it would have been."""
    folder = with_faces(root, "stopped").path("glow")
    rare = VALUES | {"checkpoint_every": 10_000, "iterations": 2000, "gpus": gpus, "preview_every": 10_000}
    process = start(command("train_glow", root, "stopped", **rare), root)
    assert wait_until(lambda: len(lines(folder)) >= 12), finish(process, 5)
    process.send_signal(number)
    printed = finish(process)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM), printed
    assert ("stopped; the same command continues from here" in printed) == (number == signal.SIGINT)
    assert left_behind(root) == []
    reached = json.loads(lines(folder)[-1])["iteration"]
    assert saved(folder) == [reached]
    assert Manifest.read(folder) is None
    if gpus == 1:
        trained("train_glow", root, "stopped", **VALUES | {"iterations": max(60, reached)})
        if reached <= 60:
            assert different(folder, undisturbed) == []


def test_on_a_full_disk_it_says_so_and_the_last_checkpoint_is_whole(undisturbed, root, capsys):
    """Room for the faces and a checkpoint; then a file of somebody else's takes what was left."""
    with disk_of("3m", root / "disk") as small_disk:
        folder = with_faces(small_disk, "full").path("glow")
        trained("train_glow", small_disk, "full", **VALUES | {"iterations": 14, "preview_every": 1000})
        before = saved(folder)
        other = small_disk / "somebody's"
        with contextlib.suppress(OSError), other.open("wb", buffering=0) as stream:
            while stream.write(bytes(4096)):  # until there is no room
                pass
        assert main(command("train_glow", small_disk, "full", **VALUES | {"preview_every": 1000})[3:]) == 1
        printed = capsys.readouterr().err
        assert "No space left" in printed
        assert "Traceback" not in printed
        assert saved(folder) == before
        assert read_checkpoint(folder / "checkpoint-00000014.safetensors").iteration == 14
        other.unlink()
        trained("train_glow", small_disk, "full", **VALUES)
        assert different(folder, undisturbed) == []
