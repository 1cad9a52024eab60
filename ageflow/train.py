"""``python -m ageflow.train``: one training, as notebooks 02, 04, 05 and 06 run it; what torchrun starts.

python -m ageflow.train train_glow -p dataset morph -p gpus 4
torchrun --nproc-per-node 4 -m ageflow.train train_glow -p dataset morph
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from ageflow.config import STEPS, ParameterError, Training
from ageflow.parameters import describe_parameters, from_command_line

# torch is imported only when the parameters are known to be right: --help and a misspelt name do not wait for it.


TRAININGS = ("train_glow", "train_ictm", "train_classifiers")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for an error that it names, or 130 where Ctrl-C stopped it."""
    parser = argparse.ArgumentParser(prog="python -m ageflow.train", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=TRAININGS, help="what to train")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument(
        "--parameters", dest="listed", action="store_true", help="only list what the step takes, with its values"
    )
    parser.add_argument("--settings", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.report is not None and given.report.is_file():
        return 0  # one of several processes has met an error that starting them again would not mend
    if given.parent is not None:
        _stop_with(given.parent)
    try:
        settings = (
            STEPS[given.step].checked(json.loads(given.settings.read_text()))
            if given.settings
            else from_command_line(given.step, given.parameters)
        )
        if given.listed:
            print(describe_parameters(settings))
            return 0
        _train(settings)
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_clear(error):
            raise
        if given.report is None:
            print(error, file=sys.stderr)
        else:
            from ageflow.run import write_atomically

            write_atomically(given.report, json.dumps({"type": type(error).__name__, "message": str(error)}).encode())
            os._exit(1)  # an orderly end would wait for the other processes, who wait for this one
        return 1
    return 0


def _train(settings: Training) -> None:
    from ageflow.training.distributed import join
    from ageflow.training.glow import train_glow
    from ageflow.training.ictm import train_translator
    from ageflow.training.judges import train_classifiers

    trainings: dict[str, Callable[[Training], object]] = {
        "train_glow": train_glow,
        "train_ictm": train_translator,
        "train_classifiers": train_classifiers,
    }
    training = trainings[settings.step]
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        training(settings)
        return
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):  # it was begun anew before a process died
        settings = settings.model_copy(update={"restart": False})
    with join(settings.device) as device:
        training(settings.model_copy(update={"device": device}))


def _is_clear(error: Exception) -> bool:
    """Whether the data, the values, the disk or the memory are wrong, and would be again after a restart."""
    import torch

    from ageflow.checkpoint import CheckpointError
    from ageflow.flows.transform import ShapeError
    from ageflow.run import FolderInUseError
    from ageflow.training.launch import TrainingFailedError
    from ageflow.training.loop import TrainingDivergedError

    ours = (ParameterError, ShapeError, CheckpointError, FolderInUseError, TrainingDivergedError, TrainingFailedError)
    return isinstance(error, (*ours, OSError, MemoryError, torch.OutOfMemoryError))


def _stop_with(parent: int) -> None:
    """SIGTERM to this process, which then saves, when the process that started the training has gone."""

    def watch() -> None:
        while psutil.pid_exists(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
