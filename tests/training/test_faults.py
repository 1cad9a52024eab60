"""Trainings that are killed, told to stop or run out of room, and the same command again."""

import contextlib
import json
import random
import signal
import time
from pathlib import Path

import pytest

from ageflow.checkpoint import checkpoints, read_checkpoint
from tests.training.processes import (
    command,
    different,
    disk_of,
    end_all,
    finish,
    left_behind,
    lines,
    ranks,
    start,
    trained,
    wait_until,
    with_faces,
    workspace,
)

VALUES = {"iterations": 60, "checkpoint_every": 7, "preview_every": 20, "log_every": 1, "flip": True, "warmup": 30}
# How often in `make test`, and how often with `-m benchmark`.
_MANY = (pytest.mark.benchmark, pytest.mark.timeout(3600))
KILLS = [3, pytest.param(20, marks=_MANY)]
RANKS_KILLED = [1, pytest.param(5, marks=_MANY)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a training that nothing happened to makes: its folder, and the seconds it took."""
    root = tmp_path_factory.mktemp("undisturbed")
    with_faces(root, "whole")
    began = time.monotonic()
    process = start(command("train_glow", root, "whole", **VALUES), root)
    said = finish(process)
    assert process.returncode == 0, said
    return workspace(root, "whole").path("glow"), time.monotonic() - began


@pytest.fixture
def root(tmp_path: Path):
    yield tmp_path
    end_all(tmp_path)


def same(folder: Path, whole: Path) -> None:
    """Weights, averages, optimisers and metrics are those of the undisturbed training, to the last bit."""
    assert different(folder, whole) == []
    assert lines(folder) == lines(whole), "metrics.jsonl has a gap, or a line twice"
    assert not list(folder.glob(".checkpoint*")), "a half-written file was left"


@pytest.mark.parametrize("times", KILLS)
def test_killed_at_a_random_moment_it_ends_with_the_same_weights(undisturbed, root, times):
    """SIGKILL anywhere from the start of Python to the last checkpoint, then the same command."""
    whole, seconds = undisturbed
    moments, seen = random.Random(times), set()
    for number in range(times):
        run = f"killed{number}"
        folder = with_faces(root, run).path("glow")
        process = start(command("train_glow", root, run, **VALUES), root)
        if number % 4:  # most of them while it trains: starting takes longer than training
            at = moments.randrange(60)
            assert wait_until(lambda folder=folder, at=at: len(lines(folder)) > at), finish(process, 5)
            time.sleep(moments.uniform(0, 0.1))  # a line is just written: anywhere in the next update
        else:
            time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.add(len(lines(folder)))
        trained("train_glow", root, run, **VALUES)
        same(folder, whole)
        print(f"{number + 1} of {times} kills, with {sorted(seen)} lines of metrics written")


@pytest.mark.parametrize("times", RANKS_KILLED)
def test_a_killed_process_of_two_is_started_again_and_both_end_the_same(root, times):
    """SIGKILL of one rank: torchrun starts both again, from the last checkpoint, in the same call."""
    values = VALUES | {"gpus": 2, "iterations": 120}
    with_faces(root, "whole")
    trained("train_glow", root, "whole", **values)
    whole, moments = workspace(root, "whole").path("glow"), random.Random(times)
    for number in range(times):
        run = f"killed{number}"
        folder = with_faces(root, run).path("glow")
        process = start(command("train_glow", root, run, **values), root)
        at = moments.randrange(8, 90)
        assert wait_until(lambda folder=folder, at=at: len(lines(folder)) >= at), finish(process, 5)
        ranks(root)[number % 2].send_signal(signal.SIGKILL)
        reached = len(lines(folder))
        said = finish(process)
        assert process.returncode == 0, said
        assert reached < 120, "it was killed after its end"
        same(folder, whole)
        assert left_behind(root) == []
        print(f"{number + 1} of {times}: killed after {reached} lines, {said.count('Connection refused')} refused")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("gpus", [1, 2])
def test_told_to_stop_it_saves_first(undisturbed, root, gpus, number):
    """The last checkpoint is of the last line of metrics; what is left of the training is what it would have been."""
    folder = with_faces(root, "stopped").path("glow")
    rare = VALUES | {"checkpoint_every": 10_000, "iterations": 2000, "gpus": gpus, "preview_every": 10_000}
    process = start(command("train_glow", root, "stopped", **rare), root)
    assert wait_until(lambda: len(lines(folder)) >= 12), finish(process, 5)
    process.send_signal(number)
    said = finish(process)
    assert process.returncode != 0, said
    assert left_behind(root) == []
    reached = json.loads(lines(folder)[-1])["iteration"]
    assert [iteration for iteration, _ in checkpoints(folder)] == [reached]
    assert not (folder / "done.json").exists()
    if gpus == 1:
        trained("train_glow", root, "stopped", **VALUES | {"iterations": max(60, reached)})
        if reached <= 60:
            assert different(folder, undisturbed[0]) == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """Of 3 MB."""
    with disk_of("3m", tmp_path / "disk") as place:
        yield place


def fill(file: Path) -> None:
    """Write until there is no room."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass


def test_on_a_full_disk_it_says_so_and_the_last_checkpoint_is_whole(undisturbed, root, small_disk):
    """Room for the faces and a checkpoint; then a file of somebody else's takes what was left."""
    folder = with_faces(small_disk, "full").path("glow")
    trained("train_glow", small_disk, "full", **VALUES | {"iterations": 14, "preview_every": 1000})
    before = checkpoints(folder)
    other = small_disk / "somebody's"
    fill(other)
    process = start(command("train_glow", small_disk, "full", **VALUES | {"preview_every": 1000}), root)
    said = finish(process)
    assert process.returncode == 1
    assert "No space left" in said
    assert "Traceback" not in said
    assert checkpoints(folder) == before
    assert read_checkpoint(before[-1][1]).iteration == 14
    other.unlink()
    trained("train_glow", small_disk, "full", **VALUES)
    assert different(folder, undisturbed[0]) == []
