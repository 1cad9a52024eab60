"""Start the processes that train together, show what they say, and stop them all with the caller."""

import codecs
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from ageflow.config import ParameterError, Training
from ageflow.folders import sole_writer
from ageflow.storage import checkpoints, device_of
from ageflow.training.checkpoint import set_aside
from ageflow.training.distributed import check_index

__all__ = ["TrainingFailedError", "launched"]

# What processes that were told to stop may take for saving; then they are killed.
_SECONDS_TO_SAVE = 120
# What the others may take to notice that one of them has failed; then they are stopped.
_SECONDS_TO_FOLLOW = 30
_SECONDS_BETWEEN_LOOKS = 1


class TrainingFailedError(RuntimeError):
    """The processes that trained together ended without a result; the message is theirs."""


def launched(settings: Training, folder: Path, *more: Path) -> bool:
    """Whether the training was done by processes of its own: by torchrun, where more than one was asked for.

    Their lines appear on stderr as they come. They live in a process group of their own and end with this process,
    however it ends: told to stop, they save first.

    Arguments:
        settings: `gpus`, `nodes`, `rendezvous` and `max_restarts`; the rest is what they train with.
        folder: the training's.
        more: what else it trains, and begins anew where `restart` says so.

    Raises:
        ParameterError: more GPUs than there are, or a training that is to begin anew from itself.
        FolderInUseError: to begin anew, while another process trains in the folder.
        TrainingFailedError: they failed, after `max_restarts`; what was saved is whole.
    """
    if settings.gpus * settings.nodes == 1 or dist.is_initialized():
        return False
    device = device_of(settings.device)
    check_index(settings.device, settings.gpus * settings.nodes)
    if device.type == "cuda" and settings.gpus > torch.cuda.device_count():
        raise ParameterError(f"gpus = {settings.gpus}: this machine has {torch.cuda.device_count()}")
    aside: dict[Path, Path | None] = {}
    if settings.restart:
        _refuse_own_weights(settings, folder, *more)
        with contextlib.ExitStack() as stack:
            for each in (folder, *more):
                for place in (each, *(child for child in each.glob("*") if checkpoints(child))):
                    stack.enter_context(sole_writer(place))
            aside = {each: set_aside(each) for each in (folder, *more)}  # once, not each time that torchrun starts them
        settings = settings.model_copy(update={"restart": False})
    with _ending_in_order(), tempfile.TemporaryDirectory(prefix="ageflow-") as scratch:
        chosen, report = Path(scratch) / "settings.json", Path(scratch) / "error.json"
        chosen.write_text(settings.model_dump_json())
        code, said = _run(_command(settings, chosen, report), _environment(settings), report)
        if report.is_file():
            error = json.loads(report.read_text())
            _put_back(aside, folder)
            raise TrainingFailedError(f"{error['type']}: {error['message']}")
    if code:
        _put_back(aside, folder)
        raise TrainingFailedError(
            f"the {settings.gpus * settings.nodes} processes ended with code {code}; run again, it goes on from the last "
            f"checkpoint in {folder}. Their last lines:\n{said}"
        )
    return True


def _refuse_own_weights(settings: Training, *folders: Path) -> None:
    """A training that begins anew is set aside before its processes look for the weights that they begin from."""
    if settings.init_from in (None, "pretrained"):
        return
    named = Path(settings.init_from).expanduser()
    places = {named.absolute(), settings.runs_root.absolute() / named}
    for folder in (each.absolute() for each in folders if each.exists()):
        if any(place == folder or place in folder.parents or folder in place.parents for place in places):
            raise ParameterError(
                f"init_from = {settings.init_from!r} is the training that restart = True begins anew, and {settings.gpus} "
                f"processes would look for it where it no longer is: write its weights to a file first (python -m "
                f"ageflow.training.release {folder} FILE.safetensors) and name that, or pass gpus = 1"
            )


def _put_back(aside: dict[Path, Path | None], folder: Path) -> None:
    """What was set aside for a training of `folder` that did not even begin (a mistyped `init_from`, say)."""
    if folder.exists():
        return
    for each, kept in aside.items():
        if kept is not None:
            set_aside(each)  # what was trained for it meanwhile
            kept.rename(each)


class _Told(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C would, and after it does what it would have done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def told(number: int, frame: object) -> None:
        raise _Told

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    except _Told:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise TrainingFailedError("told to stop by SIGTERM; run again, it goes on from where it was") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _command(settings: Training, chosen: Path, report: Path) -> list[str]:
    """torchrun's."""
    together = ["--standalone"]
    if settings.nodes > 1:
        together = [f"--nnodes={settings.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={settings.rendezvous}"]
        together.append(f"--rdzv-id={settings.dataset}-{settings.run}-{settings.step}")
    start = [sys.executable, "-m", "torch.distributed.run", *together, f"--nproc-per-node={settings.gpus}"]
    start += [f"--max-restarts={settings.max_restarts}", "--monitor-interval=0.2", "-m", "ageflow.train"]
    return [*start, settings.step, "--settings", str(chosen), "--report", str(report), "--until-stdin-closes"]


def _environment(settings: Training) -> dict[str, str]:
    """This process's, with its processors divided, and a store of its own for every attempt (see `join`)."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ours = {"OMP_NUM_THREADS": str(max(1, processors // settings.gpus)), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    # Slurm tells torchrun to stop, too, which kills its processes after 30 seconds if nobody says otherwise.
    ours["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(_SECONDS_TO_SAVE)
    return ours | os.environ


def _run(command: list[str], environment: dict[str, str], report: Path) -> tuple[int, str]:
    """Run it to its end, passing on what it prints; its exit code and its last lines.

    Where one process reports an error, the others may wait for it in vain: they are stopped then.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,  # closed when this process ends, however it ends: they stop then
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this process only, which tells them
    )
    threading.Thread(target=_stop_where_reported, args=(process, report), daemon=True).start()
    said = ""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    try:
        while chunk := os.read(process.stdout.fileno(), 65536):
            text = decode(chunk)
            sys.stderr.write(text)
            sys.stderr.flush()
            said = (said + text)[-6000:]
        return process.wait(), _lines(said)
    except BaseException:
        _stop(process)
        raise


def _stop_where_reported(process: subprocess.Popen, report: Path) -> None:
    while process.poll() is None:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        if report.is_file():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_FOLLOW)
            if process.poll() is None and report.is_file():  # else torchrun has started them again
                process.terminate()  # torchrun, which ends its processes, at last by SIGKILL
                return


def _stop(process: subprocess.Popen) -> None:
    """Tell all processes to save and end; kill those that do not."""
    process.stdin.close()
    process.stdin = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_SECONDS_TO_SAVE)
    # torchrun gives each process a session of its own: killed alone, it would leave them on their GPUs.
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(said: str) -> str:
    """The last twenty lines, without the redraws of progress bars."""
    return "\n".join([line for line in re.split(r"[\r\n]+", said) if line.strip()][-20:])
