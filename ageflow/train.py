"""``python -m ageflow.train``: one training, as notebooks 02, 04, 05 and 06 run it; what torchrun starts.

python -m ageflow.train train_glow -p dataset morph -p gpus 4
torchrun --nproc-per-node 4 -m ageflow.train train_glow -p dataset morph
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

import ageflow
from ageflow.config import STEPS, ParameterError, Training, literal
from ageflow.memory import no_garbage_collection
from ageflow.workspace import MissingArtefactError

# torch is imported only when the parameters are known to be right: --help and a misspelt name do not wait for it.

__all__ = ["main"]

_SECONDS_TO_TELL = 3  # an error that another process met
TRAININGS = ("train_glow", "train_ictm", "ablations", "train_classifiers")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for an error that it names, or 130 where Ctrl-C stopped it."""
    parser = argparse.ArgumentParser(prog="python -m ageflow.train", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=TRAININGS, help="what to train; ablations: the network without ICTM")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument(
        "--parameters", dest="listed", action="store_true", help="only list what the step takes, with its values"
    )
    parser.add_argument("--settings", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.until_stdin_closes:
        _stop_with_the_caller()
    if given.report is not None and os.environ.get("LOCAL_RANK") == "0":
        given.report.unlink(missing_ok=True)  # an earlier attempt's, after which torchrun started this one
    try:
        settings = _settings(given)
        if given.listed:
            print(_described(settings))
            return 0
        _train(settings)
    except KeyboardInterrupt:
        if given.report is not None:
            raise
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        return _failed(error, given.report)
    return 0


def _failed(error: Exception, report: Path | None) -> int:
    """Tell what went wrong; the exit code. One of several processes ends here and now."""
    code = 1
    if not _is_clear(error) and report is not None and _of_several() and _comes(report):
        code = 0  # it lost one that has told what was wrong; a failure here would have that tried again
    elif not _is_clear(error):
        if not _of_several():
            raise error
        traceback.print_exception(error)
    elif report is None:
        print(error, file=sys.stderr)
    else:
        from ageflow.storage import write_atomically

        # The caller raises it; a failure here would only be tried again.
        write_atomically(report, json.dumps({"type": type(error).__name__, "message": str(error)}).encode())
        code = 0
    if _of_several():  # an orderly end would wait for the others, who wait for this one
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    return code


def _comes(report: Path) -> bool:
    """Whether another process of this machine tells what was wrong, within a few seconds."""
    deadline = time.monotonic() + _SECONDS_TO_TELL
    while not report.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    return report.is_file()


def _of_several() -> bool:
    """Whether this process still belongs to a group that trains together."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def _settings(given: argparse.Namespace) -> Training:
    if given.settings:
        return STEPS[given.step].checked(json.loads(given.settings.read_text()))
    texts = {name for name, field in STEPS[given.step].model_fields.items() if field.annotation is str}
    # What is a name stays as it was written: 2024_06_01 is a number to Python.
    values = {name: value if name in texts else literal(value) for name, value in given.parameters}
    return ageflow.settings(given.step, values)


def _described(settings: Training) -> str:
    """A line a parameter: its name, its value (the preset's, or what -p says) and what it is."""
    fields = type(settings).model_fields
    values = {name: str(getattr(settings, name)) for name in fields}
    names, widest = (max(map(len, texts)) for texts in (values, values.values()))
    return "\n".join(f"{name:{names}}  {values[name]:{widest}}  {field.description}" for name, field in fields.items())


def _train(settings: Training) -> None:
    with no_garbage_collection():
        from ageflow.training.classifier import train_classifiers
        from ageflow.training.distributed import join
        from ageflow.training.glow import train_glow
        from ageflow.training.ictm import train_translator

    trainings: dict[str, Callable[[Training], object]] = {
        "train_glow": train_glow,
        "train_ictm": train_translator,
        "ablations": partial(train_translator, kind="no_ictm"),
        "train_classifiers": train_classifiers,
    }
    training = trainings[settings.step]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):  # it was begun anew before a process died
            settings = settings.model_copy(update={"restart": False})
        with join(settings.device) as device:
            training(settings.model_copy(update={"device": device}))
    else:
        training(settings)


def _is_clear(error: Exception) -> bool:
    """Whether the data, the values, the disk or the memory are wrong, and would be again after a restart."""
    if isinstance(error, (ParameterError, MissingArtefactError, OSError)):
        return True
    import torch

    from ageflow.flows.transform import ShapeError
    from ageflow.folders import FolderInUseError
    from ageflow.storage import CheckpointError
    from ageflow.training.launch import TrainingFailedError
    from ageflow.training.loop import TrainingDivergedError

    of_ours = (ShapeError, CheckpointError, FolderInUseError, TrainingDivergedError, TrainingFailedError)
    return isinstance(error, (*of_ours, MemoryError, torch.OutOfMemoryError))


def _stop_with_the_caller() -> None:
    """SIGTERM to this process, which then saves, when the process that reads its lines has gone or closes its stdin."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):  # nobody reads them any more, and writing would fail
            os.dup2(nowhere, stream)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(0)
    )  # where no training is under way that could be saved
    # It may go between two looks at stdin, and a bar that cannot be written must not end what can be saved.
    sys.stdout, sys.stderr = _WhileRead(sys.stdout), _WhileRead(sys.stderr)
    threading.Thread(target=wait, daemon=True).start()


class _WhileRead:
    """A stream that takes no harm where nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(BrokenPipeError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


if __name__ == "__main__":
    sys.exit(main())
