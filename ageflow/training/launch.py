"""Start the processes that train together by torchrun, pass on what they print, and stop them with the caller."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from ageflow.config import ParameterError, Training
from ageflow.device import device_of, processors
from ageflow.training.distributed import check_index

# For saving, once processes were told to stop; then they are killed.
_SECONDS_TO_SAVE = 120


class TrainingFailedError(RuntimeError):
    """The processes that trained together ended without a result; the message is theirs."""


def launched(settings: Training, folder: Path) -> bool:
    """Train by torchrun where more than one process is asked for; returns whether that was done.

    What they print goes to ``processes.log`` in `folder`, and to stderr as it comes. They end with this process, however it
    ends: told to stop, they save first.

    Arguments:
        settings: `gpus`, `nodes`, `rendezvous` and `max_restarts`; the rest is what they train with.
        folder: the training's.

    Raises:
        ParameterError: more GPUs than there are.
        TrainingFailedError: they failed, after `max_restarts`; what was saved is whole.
    """
    if settings.gpus * settings.nodes == 1 or dist.is_initialized():
        return False
    check_index(settings.device, settings.gpus * settings.nodes)
    if device_of(settings.device).type == "cuda" and settings.gpus > torch.cuda.device_count():
        raise ParameterError(f"gpus = {settings.gpus}: this machine has {torch.cuda.device_count()}")
    with tempfile.TemporaryDirectory(prefix="ageflow-") as scratch:
        chosen, report, log = (Path(scratch) / name for name in ("settings.json", "error.json", "processes.log"))
        chosen.write_text(settings.model_dump_json())
        code = _run(_command(settings, chosen, report), _environment(settings), log)
        last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        if report.is_file():
            error = json.loads(report.read_text())
            raise TrainingFailedError(f"{error['type']}: {error['message']}")
    if code:
        raise TrainingFailedError(
            f"the {settings.gpus * settings.nodes} processes ended with code {code}; run again, it continues from the last "
            f"checkpoint in {folder}. Their last lines:\n{last_lines}"
        )
    return True


def _command(settings: Training, chosen: Path, report: Path) -> list[str]:
    where = ["--standalone"]
    if settings.nodes > 1:
        where = [f"--nnodes={settings.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={settings.rendezvous}"]
        where.append(f"--rdzv-id={settings.dataset}-{settings.run}-{settings.step}")
    run = [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={settings.gpus}"]
    run += [f"--max-restarts={settings.max_restarts}", "--monitor-interval=0.2", "-m", "ageflow.train", settings.step]
    return [*run, "--settings", str(chosen), "--report", str(report), "--parent", str(os.getpid())]


def _environment(settings: Training) -> dict[str, str]:
    """This process's, with its processors divided, and a store of its own for every attempt (see `join`)."""
    threads = str(max(1, processors() // settings.gpus))
    ours = {"OMP_NUM_THREADS": threads, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    # Slurm stops torchrun, too, which kills its processes after 30 seconds unless told otherwise.
    ours["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(_SECONDS_TO_SAVE)
    return ours | os.environ


def _run(command: list[str], environment: dict[str, str], log: Path) -> int:
    """Run it to its end, passing on what it prints; its exit code."""
    # A file, not a pipe: printing must not fail, and so end what can still be saved, when this process has gone.
    with log.open("wb") as output, log.open(errors="replace") as printed:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )  # fmt: skip
        before = signal.getsignal(signal.SIGTERM)
        try:
            if before is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
            while process.poll() is None:
                time.sleep(0.2)
                sys.stderr.write(printed.read())
            sys.stderr.write(printed.read())
            return process.returncode
        except BaseException:
            _stop(process)
            raise
        finally:
            if before is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen) -> None:
    """Tell all processes to save and end; kill those that do not."""
    process.terminate()  # torchrun passes it on
    try:
        process.wait(_SECONDS_TO_SAVE)
    except subprocess.TimeoutExpired:
        # torchrun gives each process a session of its own: killed alone, it would leave them on their GPUs.
        for child in (*psutil.Process(process.pid).children(recursive=True), process):
            child.kill()
        process.wait()
