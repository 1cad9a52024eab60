"""Two gloo processes train what one does, and a fault of one is a fault of both."""

import contextlib
import json
import re
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist

from ageflow import train as command_line
from ageflow.checkpoint import read_checkpoint
from ageflow.config import ParameterError
from ageflow.run import Manifest, Workspace
from ageflow.train import main
from ageflow.training import distributed
from ageflow.training import glow as glow_module
from ageflow.training.distributed import Processes, choose_micro_batch, join
from ageflow.training.glow import train_glow
from ageflow.training.metrics import read_metrics
from ageflow.translation.prototypes import compute_prototypes, encode_faces
from tests.training.line import Line, settings
from tests.training.processes import (
    command,
    distance,
    finish,
    left_behind,
    settings_of,
    start,
    trained,
    with_faces,
    workspace,
)

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def compare(one: Path, two: Path, columns: list[str], updates: int) -> None:
    """Every update's values are the same within 1e-4, and so are the weights after the last."""
    metrics = (read_metrics(folder).dropna(subset=columns).set_index("iteration") for folder in (one, two))
    first, second = (table[columns] for table in metrics)
    assert first.index.tolist() == second.index.tolist() == list(range(1, updates + 1))
    np.testing.assert_allclose(second, first, rtol=1e-4)
    assert np.ptp(first, axis=0).min() > 1e-3, "it trained"
    assert distance(one, two) < 1e-4


def test_two_processes_train_glow_as_one_does(root):
    """11 faces an update, by one pass of 11, and by two processes in passes of 2: unequal shares and numbers of passes.

    Each with its mirroring, noise, clipping and averages.
    """
    values = {"iterations": 20, "checkpoint_every": 20, "preview_every": 20, "flip": True, "batch_size": 11}
    folders = []
    for run, more in (("one", {"gpus": 1}), ("two", {"gpus": 2, "micro_batch": 2})):
        folders.append(with_faces(root, run).path("glow"))
        printed = trained("train_glow", root, run, **values, **more)
        assert f"processes: {more['gpus']}, faces in a pass: {more.get('micro_batch', 11)}" in printed
        assert "20/20" in printed
        assert f"tensorboard --logdir {folders[-1]}" in printed
        assert "strides" not in printed, "DistributedDataParallel copies gradients that lie otherwise than the weights"
    compare(*folders, ["glow/loss"], 20)
    assert left_behind(root) == []


@pytest.fixture
def encoded(root, demo_faces_folder):
    """Two runs with real faces, their latents and averages: ``one`` and ``two``."""
    source = workspace(root, "one")
    source.folder().joinpath("faces").symlink_to(demo_faces_folder)
    train_glow(settings_of("train_glow", root, "one", iterations=2))
    averages = settings_of("prototypes", root, "one")
    compute_prototypes(averages, encode_faces(averages))
    for name in ("faces", "glow", "latents", "prototypes"):
        (workspace(root, "two").folder() / name).symlink_to(source.path(name))
    return root


COLUMNS = ["T/loss", "D/loss", "T/distillation_left"]


def test_two_processes_train_the_translator_as_one_does(encoded):
    """Two objectives, T and D, whose weights are normalised by a power iteration an update, in however many passes."""
    values = {"age_classifier": "latent", "iterations": 12, "checkpoint_every": 12, "preview_every": 12}
    trained("train_ictm", encoded, "two", gpus=2, micro_batch=3, **values)
    trained("train_ictm", encoded, "one", **values)
    compare(*(workspace(encoded, run).path("ictm") for run in ("one", "two")), COLUMNS, 12)


def test_two_processes_train_the_translator_on_decoded_faces_as_one_does(encoded):
    """C is trained by the two, and one learns from what they left: its batch normalisation sees the faces of one pass.

    In passes of the same faces, as bf16 rounds others otherwise. After 3 updates: of its ten million ReLUs one now and
    then lies so near to zero that rounding decides, T's gradient then differs by 1e-4, and Adam makes much of its
    smallest entries. Each of the two searches a half of the teacher's lengths.
    """
    short = {"age_classifier": "decoded", "age_classifier_iterations": 30, "attribute_weight": 1.0}
    short |= {"iterations": 3, "checkpoint_every": 12}
    one, two = (workspace(encoded, run) for run in ("one", "two"))
    trained("train_ictm", encoded, "two", gpus=2, micro_batch=4, **short)
    one.path("decoded_age").symlink_to(two.path("decoded_age"))
    trained("train_ictm", encoded, "one", micro_batch=4, **short)
    for name in ("source", "lengths"):
        halves, whole = [*searched(two, "0-of-2", name), *searched(two, "1-of-2", name)], searched(one, "0-of-1", name)
        np.testing.assert_allclose(halves, whole, atol=1e-4)
        assert np.std(whole, axis=0).mean() > 0.05, "faces differ by more"
    compare(one.path("ictm"), two.path("ictm"), COLUMNS, 3)


def searched(run: Workspace, share: str, name: str) -> list:
    """What a process found of its share of the faces."""
    pieces = sorted(run.path("lengths", share).glob("*.json"))
    return [row for piece in pieces for row in json.loads(piece.read_text())["result"][name]]


@pytest.fixture
def among_several(monkeypatch, tmp_path):
    """This process is the only one that torchrun has started, for the second time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1", "RANK": "0", "LOCAL_RANK": "0"}
    given |= {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(command_line.os, "_exit", ended)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("error", [ValueError("a fault of the code"), MemoryError("too small")])
def test_one_that_fails_does_not_wait_for_the_others(root, among_several, monkeypatch, capsys, error):
    """Its group is whole when it ends, and nobody else ever comes to the sum at which an orderly end would wait."""

    def fail(settings):
        raise error

    monkeypatch.setattr(glow_module, "train_glow", fail)
    chosen, report = settings_of("train_glow", root, "tiny", device="cpu"), root / "error.txt"
    arguments = ["train_glow", "--settings", chosen.model_dump_json(), "--report", str(report)]
    with pytest.raises(SystemExit, match="1"):
        main(arguments)
    assert dist.is_initialized(), "not left in order"
    if isinstance(error, MemoryError):  # the machine's: named to the caller, and not tried again
        assert report.read_text() == "MemoryError: too small"
        assert main(arguments) == 0, "what torchrun starts again ends at once"
    else:
        assert "ValueError: a fault of the code" in capsys.readouterr().err
        assert not report.exists()


def test_a_loss_that_breaks_on_one_process_is_skipped_on_both(root):
    """Faults on the second process only; after twenty in a row both go back, to half the learning rate.

    The two begin anew from the weights that they set aside.
    """
    folder = with_faces(root, "faulty").path("glow")
    trained("train_glow", root, "faulty", iterations=2)
    broken = ",".join(map(str, (4, 9, *range(12, 32))))
    worker = str(Path(__file__).with_name("faulty_worker.py"))
    printed = finish(process := start([*TORCHRUN, worker, root, broken], root))
    assert process.returncode == 0, printed
    assert "back to iteration 10, at 0.5 of the learning rate" in printed
    assert Manifest.read(folder.with_name("glow.1")).details["iterations"] == 2
    assert Manifest.read(folder).details["skipped"] == 22
    skipped = read_metrics(folder).dropna(subset="skipped").set_index("iteration")["skipped"]
    assert skipped.index.tolist() == list(range(1, 51)), "no update is missing or there twice"
    assert (skipped[3], skipped[4], skipped[8], skipped[9], skipped[11]) == (0, 1, 1, 2, 22)
    assert int(read_checkpoint(folder / "checkpoint-00000050.safetensors").tensors("counts.")["setbacks"]) == 1
    assert (root / "weights-0.txt").read_text() == (root / "weights-1.txt").read_text()


def test_a_mistyped_value_is_named_by_several_processes_too_and_takes_nothing_away(root, capsys):
    folder = with_faces(root, "tiny").path("glow")
    trained("train_glow", root, "tiny", iterations=2)
    wrong = {"gpus": 2, "restart": True, "init_from": "demo/none", "max_restarts": 0}
    assert main(command("train_glow", root, "tiny", **wrong)[3:]) == 1
    assert "CheckpointError: init_from = 'demo/none': no file of that name" in capsys.readouterr().err
    assert Manifest.read(folder) is not None, "what is there stays where it is"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"levels": 6}, "image_size = 32 cannot be halved 6 times"),
        ({"steps": "[2]"}, r"steps = \[2\]: expected one positive number, or 2 of them"),
        ({"gpus": 2, "batch_size": 1}, "batch_size = 1 is less than a face for each of 2 processes"),
    ],
)
def test_values_that_cannot_be_are_named_in_a_line(root, capsys, wrong, message):
    with_faces(root, "tiny")
    assert main(command("train_glow", root, "tiny", **wrong)[3:]) == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed)
    assert "Traceback" not in printed
    assert printed.count("cannot be halved") <= 1


def test_what_one_process_reports_is_not_tried_again_for_the_others_who_lose_it(root):
    """The first cannot write its checkpoint; the second only finds that nobody answers."""

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    folder = with_faces(root, "tiny").path("glow")
    values = {"iterations": 100, "checkpoint_every": 5, "preview_every": 100, "gpus": 2}
    printed = finish(process := start(command("train_glow", root, "tiny", **values), root, preexec_fn=no_large_files))
    assert process.returncode == 1
    assert re.search(r"TrainingFailedError: OSError|^OSError: .*File too large", printed, re.MULTILINE)
    assert printed.count("faces in a pass") == 1, "tried once"
    assert not list(folder.glob(".checkpoint*")), "a half-written file was left"


_STUBBORN = """
import pathlib, signal, subprocess, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = "import signal, time; from ageflow.training.distributed import end_with_parent as end; end(signal.SIGKILL); "
worker += "print('started', flush=True); time.sleep(600)"
own = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, start_new_session=True)
own.stdout.readline()
pathlib.Path(sys.argv[1]).write_text(str(own.pid))
time.sleep(600)
"""


def test_no_process_outlives_those_that_do_not_stop(tmp_path, monkeypatch):
    """torchrun's have sessions of their own, and one that hangs would keep its GPU."""
    monkeypatch.setattr(distributed, "_SECONDS_TO_SAVE", -9.5)
    started, stopping = tmp_path / "process", distributed.Stopping()

    def stop_once_started() -> None:
        while not (started.is_file() and started.read_text()):
            time.sleep(0.1)
        stopping.signal = signal.SIGTERM

    threading.Thread(target=stop_once_started).start()
    command = [sys.executable, "-c", _STUBBORN, str(started)]
    assert distributed._run(command, tmp_path / "log", stopping) == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(started.read_text())).wait(20)


def test_one_gpu_is_not_named_for_several_processes(among_several, monkeypatch):
    monkeypatch.setattr(distributed, "device_of", torch.device)  # of a machine that has GPUs
    monkeypatch.setattr(distributed, "end_with_parent", lambda number: None)  # this process is not torchrun's
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = r"cuda:1' is one GPU, and 2 processes train.*CUDA_VISIBLE_DEVICES"
    with pytest.raises(ParameterError, match=message), join("cuda:1"):
        pass


# -- faces in a pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "chosen"), [(1e12, 16), (9e6, 4), (2e6, 1), (0, 1)])
def test_as_many_faces_as_fit_go_into_a_pass_and_the_weights_stay(monkeypatch, free, chosen):
    """A megabyte a face, of which 70 % of what is free may be taken."""
    monkeypatch.setattr(distributed, "_free_memory", lambda *given: free)
    monkeypatch.setattr(distributed, "reset_peak_memory", lambda device: 5e6)
    monkeypatch.setattr(distributed, "peak_memory", lambda device: 5e6 + 1e6 * seen[-1])
    seen, task = [], Line()
    loss = task.objectives[0].loss
    task.objectives[0].loss = lambda part: (seen.append(part.size), loss(part))[1]
    before = {name: tensor.clone() for name, tensor in task.modules.state_dict().items()}
    asked = settings(batch_size=16, micro_batch="auto")
    assert choose_micro_batch(task, asked, Processes(), torch.device("cpu")) == chosen
    assert all(torch.equal(before[name], tensor) for name, tensor in task.modules.state_dict().items())
