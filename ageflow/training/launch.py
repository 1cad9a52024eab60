"""How a training's processes start and stop: several by torchrun, all of them in order, once they have saved."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch
import torch.distributed as dist

from ageflow.config import ParameterError, Training
from ageflow.device import device_of, processors
from ageflow.training.distributed import check_index

# For saving, once processes were told to stop; then they are killed.
_SECONDS_TO_SAVE = 120


class Stopping:
    """While the block lasts, SIGTERM and SIGINT are noted, and come into force when the block has ended.

    A second SIGINT (Ctrl-C again, the stop button again) stops at once, and what was done since the last checkpoint
    is done again next time. Outside the main thread no signal arrives, and nothing is changed.

    Example:
        >>> with Stopping() as stopping:
        ...     stopping.signal
        0
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self.signal and self._before:
            signal.raise_signal(self.signal)


class TrainingFailedError(RuntimeError):
    """The processes that trained together ended without a result; the message is theirs."""


def launched(settings: Training, folder: Path) -> bool:
    """Train by torchrun where more than one process is asked for; returns whether that was done.

    What they print goes to stderr as it comes. They end with this process, however it ends: told to stop, they save first.

    Arguments:
        settings: `gpus`, `nodes`, `rendezvous` and `max_restarts`; the rest is what they train with.
        folder: the training's.

    Raises:
        ParameterError: more GPUs than there are.
        TrainingFailedError: they failed, after `max_restarts`; what was saved is whole.
    """
    count = settings.gpus * settings.nodes
    if count == 1 or dist.is_initialized():
        return False
    check_index(settings.device, count)
    if device_of(settings.device).type == "cuda" and settings.gpus > torch.cuda.device_count():
        raise ParameterError(f"gpus = {settings.gpus}: this machine has {torch.cuda.device_count()}")
    with Stopping() as stopping, tempfile.TemporaryDirectory(prefix="ageflow-") as scratch:
        chosen, report, log = (Path(scratch) / name for name in ("settings.json", "error.json", "processes.log"))
        chosen.write_text(settings.model_dump_json())
        code = _run(_command(settings, chosen, report), _environment(settings), log, stopping)
        if report.is_file():
            error = json.loads(report.read_text())
            raise TrainingFailedError(f"{error['type']}: {error['message']}")
        if code and not stopping.signal:
            last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise TrainingFailedError(
                f"the {count} processes ended with code {code}; run again, it continues from the last checkpoint in "
                f"{folder}. Their last lines:\n{last_lines}"
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


def _run(command: list[str], environment: dict[str, str], log: Path, stopping: Stopping) -> int:
    """Run it to its end, or until a signal comes, passing on what it prints; its exit code."""
    # A file, not a pipe: printing must not fail, and so end what can still be saved, when this process has gone.
    with log.open("wb") as output, log.open(errors="replace", newline="") as printed:
        options = {"stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
        process = subprocess.Popen(command, env=environment, **options)
        try:
            while process.poll() is None and not stopping.signal:
                time.sleep(0.2)
                sys.stderr.write(printed.read())
        finally:
            if process.poll() is None:
                _stop(process)
            sys.stderr.write(printed.read())
    return process.returncode


def _stop(process: subprocess.Popen) -> None:
    """Have torchrun's processes save and end; kill those that do not, or at once where this is interrupted too."""
    process.terminate()  # torchrun passes it on, and kills them when their time is over
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_SAVE + 10)
    finally:
        if process.poll() is None:
            # Each has a session of its own: torchrun killed alone would leave them on their GPUs.
            for child in (*psutil.Process(process.pid).children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait()
