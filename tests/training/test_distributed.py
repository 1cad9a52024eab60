"""Two gloo processes train what one does, and a fault of one is a fault of both."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from ageflow.checkpoint import read_checkpoint, release
from ageflow.config import ParameterError
from ageflow.train import main
from ageflow.training import distributed, launch, size
from ageflow.training.distributed import check_index
from ageflow.training.glow import train_glow
from ageflow.training.metrics import read_metrics
from ageflow.training.size import _no_memory
from ageflow.translation.latents import encode_faces
from ageflow.translation.prototypes import compute_prototypes
from tests.training.processes import (
    command,
    distance,
    end_all,
    finish,
    left_behind,
    settings_of,
    start,
    trained,
    with_faces,
    workspace,
)

_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def root(tmp_path: Path):
    yield tmp_path
    end_all(tmp_path)


def compare(one: Path, two: Path, columns: list[str], updates: int) -> None:
    """Every update's values, and the weights after the last, are the same within 1e-4."""
    compare_losses(one, two, columns, updates)
    assert distance(one, two) < 1e-4


def compare_losses(one: Path, two: Path, columns: list[str], updates: int) -> None:
    """Every update's values are the same within 1e-4."""
    first, second = (
        read_metrics(folder).dropna(subset=columns).set_index("iteration")[columns] for folder in (one, two)
    )
    assert first.index.tolist() == second.index.tolist() == list(range(1, updates + 1))
    np.testing.assert_allclose(second, first, rtol=1e-4)
    assert np.ptp(first, axis=0).min() > 1e-3, "it trained"


def test_two_processes_train_glow_as_one_does(root):
    """50 updates of 16 faces, by 1 × 16 and by 2 × 8, each with its mirroring, noise, clipping and averages."""
    values = {"iterations": 50, "checkpoint_every": 50, "preview_every": 50, "flip": True}
    for run, count in (("one", 1), ("two", 2)):
        with_faces(root, run)
        said = trained("train_glow", root, run, gpus=count, **values)
        assert f"{count} process" in said
        assert "strides" not in said, "DistributedDataParallel copies gradients that lie otherwise than the weights"
    compare(workspace(root, "one").path("glow"), workspace(root, "two").path("glow"), ["glow/loss"], 50)
    assert left_behind(root) == []


def test_batches_that_do_not_divide_train_alike_too(root):
    """11 faces over 2 processes in passes of 2: unequal shares and unequal numbers of passes."""
    values = {"iterations": 6, "batch_size": 11, "checkpoint_every": 6, "preview_every": 6}
    for run, more in (("one", {"micro_batch": 11}), ("two", {"gpus": 2, "micro_batch": 2})):
        with_faces(root, run)
        trained("train_glow", root, run, **values, **more)
    compare(workspace(root, "one").path("glow"), workspace(root, "two").path("glow"), ["glow/loss"], 6)


@pytest.mark.parametrize(("age_classifier", "updates"), [("latent", 12), ("decoded", 3)])
def test_two_processes_train_the_translator_as_one_does(root, demo_faces_folder, age_classifier, updates):
    """Two turns, T and D, whose weights are normalised by a power iteration an update, in however many passes.

    The classifier of decoded faces is trained by the two, and one learns from what they left: its batch
    normalisation sees the faces of one pass only. Through it the weights are compared after 3 updates only, the losses
    over all 12: of its ten million ReLUs one now and then lies so near to zero that rounding decides, T's gradient then differs by 1e-4, and Adam makes much of
    its smallest entries. On two cores with AVX-512, seeds 0 to 3, real faces: weights 1.5e-7 to 3e-4 apart after 5
    updates, 1.4e-4 to 1.2e-3 after 12, the losses to 1e-5; with the tiny faces, whose blocks of one colour are such
    ties, D's loss to 5e-4 after 12.
    """
    values = {"iterations": updates, "checkpoint_every": updates, "preview_every": updates}
    values |= {"age_classifier": age_classifier}
    if age_classifier == "decoded":
        values |= {"age_classifier_iterations": 40, "age_classifier_architecture": "resnet18", "attribute_weight": 1.0}
    source = workspace(root, "one")
    source.folder("faces").rmdir()
    source.path("faces").symlink_to(demo_faces_folder)
    quick = {"iterations": 2, "preview_every": 2, "checkpoint_every": 2}
    train_glow(settings_of("train_glow", root, "one", **quick))
    averages = settings_of("prototypes", root, "one")
    compute_prototypes(averages, encode_faces(averages))
    workspace(root, "two").root.mkdir()
    for name in ("faces", "glow", "latents", "prototypes"):
        workspace(root, "two").path(name).symlink_to(source.path(name))
    trained("train_ictm", root, "two", gpus=2, micro_batch=3, **values)
    if age_classifier == "decoded":
        workspace(root, "one").path("decoded_age").symlink_to(workspace(root, "two").path("decoded_age"))
    trained("train_ictm", root, "one", **values)
    one, two = (workspace(root, run).path("ictm") for run in ("one", "two"))
    columns = ["T/loss", "D/loss", "T/distillation_left"]
    compare(one, two, columns, updates)
    if age_classifier == "decoded":
        longer = values | {"iterations": 12}
        trained("train_ictm", root, "two", gpus=2, micro_batch=3, **longer)
        trained("train_ictm", root, "one", **longer)
        compare_losses(one, two, columns, 12)
        short = values | {"iterations": 2, "age_classifier_iterations": 2}
        trained("train_ictm", root, "two", gpus=2, micro_batch=3, restart=True, **short)
        assert workspace(root, "two").path("decoded_age.1").is_dir(), "begun anew too, once"
        assert not workspace(root, "two").path("decoded_age.2").exists()
        by_hand = start([*_TORCHRUN, *command("train_ictm", root, "two", restart=True, **short)[1:]], root)
        said = finish(by_hand)
        assert by_hand.returncode == 0, said
        assert workspace(root, "two").path("decoded_age.2").is_dir(), "and once more by the user's own torchrun"


def test_started_again_by_torchrun_a_training_is_not_begun_anew_once_more(root):
    """torchrun passes the same restart=True to the processes that it starts again after one has died."""
    with_faces(root, "again")
    train = command("train_glow", root, "again", iterations=4, checkpoint_every=2, restart=True)
    trained("train_glow", root, "again", iterations=2, checkpoint_every=2)
    folder = workspace(root, "again").path("glow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    of_torchrun = ["TORCHELASTIC_RUN_ID=none", "TORCHELASTIC_RESTART_COUNT=1", "RANK=0", "LOCAL_RANK=0", "WORLD_SIZE=1"]
    of_torchrun += ["LOCAL_WORLD_SIZE=1", "MASTER_ADDR=127.0.0.1", f"MASTER_PORT={port}"]
    said = finish(process := start(["env", *of_torchrun, *train], root))
    assert process.returncode == 0, said
    assert not folder.with_name("glow.1").exists()
    assert read_metrics(folder)["iteration"].dropna().unique().tolist() == [1, 2, 3, 4], "it went on from its second"


def test_a_loss_that_breaks_on_one_process_is_skipped_on_both(root):
    """Faults on the second process only; after twenty in a row both go back, to half the learning rate."""
    with_faces(root, "faulty")
    worker = [str(Path(__file__).with_name("faulty_worker.py")), str(root), "4,9"]
    said = finish(process := start([*_TORCHRUN, *worker], root))
    assert process.returncode == 0, said
    folder = workspace(root, "faulty").path("glow")
    metrics = read_metrics(folder).dropna(subset="skipped").set_index("iteration")["skipped"]
    assert (metrics[3], metrics[4], metrics[8], metrics[9], metrics[20]) == (0, 1, 1, 2, 2)
    assert json.loads((folder / "done.json").read_text())["skipped"] == 2
    assert weights_agree(root)


def test_after_twenty_in_a_row_both_processes_go_back_to_half_the_rate(root):
    with_faces(root, "faulty")
    row = ",".join(map(str, range(12, 32)))
    worker = [str(Path(__file__).with_name("faulty_worker.py")), str(root), row, "once"]
    said = finish(process := start([*_TORCHRUN, *worker], root))
    assert process.returncode == 0, said
    assert "back to iteration 10, at 0.5 of the learning rate" in said
    folder = workspace(root, "faulty").path("glow")
    assert json.loads((folder / "done.json").read_text())["skipped"] == 20
    numbers = read_metrics(folder).dropna(subset="glow/loss")["iteration"].tolist()
    assert numbers == list(range(1, 51)), "no update is missing or stands twice"
    last = read_checkpoint(folder / "checkpoint-00000050.safetensors")
    assert int(last.tensors("counts.")["setbacks"]) == 1
    assert weights_agree(root)


def weights_agree(root: Path) -> bool:
    """Whether both processes ended with the same weights, to the last bit."""
    first, second = (json.loads((root / f"weights-{rank}.json").read_text()) for rank in (0, 1))
    return first == second and bool(first["checksum"])


def test_more_processes_than_faces_are_refused(root, capsys):
    given = {"preset": "smoke", "runs_root": root, "batch_size": 1, "gpus": 2}
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    assert main(["train_glow", *words]) == 1
    assert "batch_size = 1 is less than a face for each of 2 processes" in capsys.readouterr().err


def test_a_mistyped_value_is_told_by_several_processes_too_and_takes_nothing_away(root, capsys):
    with_faces(root, "tiny")
    values = {"iterations": 2, "checkpoint_every": 2, "preview_every": 2}
    trained("train_glow", root, "tiny", **values)
    wrong = {"gpus": 2, "restart": True, "init_from": "demo/none", **values}
    assert main(command("train_glow", root, "tiny", **wrong)[3:]) == 1
    assert "init_from = 'demo/none': no file of that name" in capsys.readouterr().err
    assert (workspace(root, "tiny").path("glow") / "done.json").is_file(), "what is there stays where it is"


@pytest.mark.parametrize("name", ["demo/tiny", "demo/tiny/glow", "tiny/glow"])
def test_several_processes_refuse_to_begin_anew_from_what_they_set_aside(root, capsys, monkeypatch, name):
    with_faces(root, "tiny")
    monkeypatch.chdir(root / "demo")  # a path counts from here as well as from the runs
    trained("train_glow", root, "tiny", iterations=1)
    assert main(command("train_glow", root, "tiny", gpus=2, restart=True, init_from=name, iterations=1)[3:]) == 1
    told = capsys.readouterr().err
    assert f"init_from = {name!r} is the training that restart = True begins anew" in told
    weights = root / "own.safetensors"
    (advised,) = re.findall(r"python -m ageflow\.training\.release (\S+) FILE", told)
    release(Path(advised), weights)
    trained("train_glow", root, "tiny", gpus=2, restart=True, init_from=weights, iterations=1)
    assert (workspace(root, "tiny").path("glow") / "done.json").is_file()


@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"levels": 6}, "image_size = 32 cannot be halved 6 times"),
        ({"steps": "[2]"}, r"steps = \[2\]: expected one positive number, or 2 of them"),
    ],
)
def test_a_shape_that_cannot_be_is_told_in_a_line(root, capsys, gpus, wrong, told):
    with_faces(root, "tiny")
    assert main(command("train_glow", root, "tiny", gpus=gpus, **wrong)[3:]) == 1
    said = capsys.readouterr().err
    assert re.search(told, said)
    assert "Traceback" not in said
    assert said.count("cannot be halved") <= 1


def test_an_error_of_an_earlier_attempt_does_not_count(root, monkeypatch):
    """What torchrun starts again is this process, without its agent."""
    with_faces(root, "tiny")
    chosen, report = root / "settings.json", root / "error.json"
    report.write_text(json.dumps({"type": "OSError", "message": "Stale file handle"}))
    settings = settings_of("train_glow", root, "tiny", iterations=1, checkpoint_every=1, preview_every=1)
    chosen.write_text(settings.model_dump_json())
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["train_glow", "--settings", str(chosen), "--report", str(report)]) == 0
    assert not report.exists()
    assert (workspace(root, "tiny").path("glow") / "done.json").is_file()


def test_processes_that_wait_in_vain_for_one_that_failed_are_stopped(tmp_path, monkeypatch):
    """As those that NCCL holds in a sum to which one will never add: here one sleeps."""
    monkeypatch.setattr(launch, "_SECONDS_TO_FOLLOW", 1)
    report, script = (
        tmp_path / "error.json",
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)",
    )
    began = time.monotonic()
    code, _ = launch._run([sys.executable, "-c", script, str(report)], dict(os.environ), report)
    assert code == -signal.SIGTERM
    assert time.monotonic() - began < 60


def test_no_process_outlives_those_that_do_not_stop(tmp_path, monkeypatch):
    """torchrun's have sessions of their own, and one that hangs would keep its GPU."""
    monkeypatch.setattr(launch, "_SECONDS_TO_SAVE", 0.5)
    script = (
        "import pathlib, subprocess, sys, time; "
        "own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); "
        "pathlib.Path(sys.argv[1]).write_text(str(own.pid)); time.sleep(600)"
    )
    told = tmp_path / "process"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script, str(told)], start_new_session=True, **pipes)
    while not (told.is_file() and told.read_text()):
        time.sleep(0.1)
    worker = psutil.Process(int(told.read_text()))
    launch._stop(process)
    assert process.returncode == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.wait(20)
    assert not worker.is_running()


def test_processes_that_were_started_again_after_a_fault_are_left_to_train(tmp_path, monkeypatch):
    """The first of them takes the report of the attempt before away."""
    monkeypatch.setattr(launch, "_SECONDS_TO_FOLLOW", 3)
    monkeypatch.setattr(launch, "_SECONDS_BETWEEN_LOOKS", 0.1)
    report = tmp_path / "error.json"
    script = (
        "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); p.touch(); time.sleep(1); p.unlink(); time.sleep(5)"
    )
    assert launch._run([sys.executable, "-c", script, str(report)], dict(os.environ), report)[0] == 0


def test_what_one_process_tells_is_not_tried_again_for_the_others_who_lose_it(root):
    """The first cannot write its checkpoint; the second only finds that nobody answers."""

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    with_faces(root, "tiny")
    values = {"iterations": 100, "checkpoint_every": 5, "preview_every": 100, "gpus": 2}
    process = start(command("train_glow", root, "tiny", **values), root, preexec_fn=no_large_files)
    said = finish(process)
    assert process.returncode == 1
    assert "OSError" in said
    assert "File too large" in said
    assert said.count("faces an update =") == 1, "tried once"


@pytest.mark.parametrize("fault", ["ValueError('a fault of the code')", "MemoryError('too small')"])
def test_one_that_fails_does_not_wait_for_the_others(tmp_path, fault):
    """Its group is whole when it ends, and nobody else ever comes to the sum at which an orderly end would wait."""
    script = f"""
import torch.distributed as dist
from pathlib import Path
from ageflow import train
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
def fail(settings):
    raise {fault}
train._train = fail
dist.destroy_process_group = None  # calling it would be an error, and waiting on a GPU
train.main(["train_glow", "--settings", {str(tmp_path / "settings.json")!r}, "--report", {str(tmp_path / "error.json")!r}])
print("came back")
"""
    settings = settings_of("train_glow", tmp_path, "tiny")
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "came back" not in ended.stdout
    if fault.startswith("MemoryError"):  # the machine's: told to the caller, and not tried again
        assert ended.returncode == 0, ended.stderr
        assert json.loads((tmp_path / "error.json").read_text())["type"] == "MemoryError"
    else:
        assert ended.returncode == 1
        assert "ValueError: a fault of the code" in ended.stderr
        assert not (tmp_path / "error.json").exists()


def test_one_gpu_is_not_named_for_several_processes(root, monkeypatch):
    for module in (distributed, launch):
        monkeypatch.setattr(module, "device_of", torch.device)  # of a machine that has GPUs
    check_index("cuda:1", 1)
    check_index("cuda", 4)
    settings = settings_of("train_glow", root, "tiny", gpus=2, device="cuda:1")
    with pytest.raises(
        ParameterError, match=r"device = 'cuda:1' is one GPU, and 2 processes train.*CUDA_VISIBLE_DEVICES"
    ):
        launch.launched(settings, root / "glow")


def test_a_gpu_tells_in_several_ways_that_its_memory_is_too_small():
    full = [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("GET was unable to find an engine to execute this"),
    ]
    assert all(map(_no_memory, [*full, RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")]))
    assert not _no_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(("room", "chosen"), [(100, 16), (9, 4), (2, 1), (1, 1)])
def test_as_many_faces_are_tried_on_a_gpu_as_its_memory_takes(room, chosen, monkeypatch):
    """The memory stands in for a GPU's, of which there is none here: `room` faces fit."""
    seen = []

    def run(task, faces):
        seen.append(faces)
        if faces > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(size, "_pass", run)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *device: None)
    task = SimpleNamespace(modules=torch.nn.Linear(2, 2))
    assert size._tried(task, 16, torch.device("cuda")) == chosen
    assert seen[0] == 2, "of one face batch normalisation has a single value"
    room = 0
    with pytest.raises(MemoryError, match="one face does not fit"):
        size._tried(task, 16, torch.device("cuda"))
