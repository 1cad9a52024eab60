"""``python -m ageflow.train``: one training, as notebooks 02, 04, 05 and 11 run it; what torchrun starts.

python -m ageflow.train train_glow -p dataset morph -p gpus 4
torchrun --nproc-per-node 4 -m ageflow.train train_glow -p dataset morph
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ageflow.config import STEPS, Training, validated
from ageflow.parameters import as_typed, describe_parameters
from ageflow.parameters import settings as settings_of
from ageflow.run import write_atomically

_STEPS = ("train_glow", "train_ictm", "train_classifiers", "baselines")
_OF_TORCHRUN = "TORCHELASTIC_RUN_ID"  # in the environment of a process that torchrun has started
# torch is imported only when the parameters are known to be right: --help and a misspelt name do not wait for it.


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for an error that it names, or 130 where Ctrl-C stopped it."""
    parser = argparse.ArgumentParser(prog="python -m ageflow.train", description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=_STEPS, help="what to train")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--parameters", dest="listed", action="store_true", help="only list what the step takes")
    # How `ageflow.training.distributed.launched` starts it, by torchrun:
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.report is not None and given.report.is_file():
        return 0  # one of several processes has met an error that starting them again would not mend
    try:
        if given.settings:
            settings = validated(STEPS[given.step], given.settings)
        else:
            settings = settings_of(given.step, {name: as_typed(name, text) for name, text in given.parameters})
        if given.listed:
            print(describe_parameters(settings))
        else:
            _train(settings)
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_clear(error):
            traceback.print_exception(error)
        elif given.report is None:
            print(error, file=sys.stderr)
        else:
            write_atomically(given.report, f"{type(error).__name__}: {error}".encode())
        if _OF_TORCHRUN in os.environ:
            sys.stdout.flush()
            os._exit(1)  # an orderly end would wait for the other processes, who wait for this one
        return 1
    return 0


def _train(settings: Training) -> None:
    from ageflow.baselines.train import train_baselines
    from ageflow.training import classifier, distributed, glow, ictm

    trainings = (glow.train_glow, ictm.train_translator, classifier.train_classifiers, train_baselines)
    training = dict(zip(_STEPS, trainings, strict=True))[settings.step]
    if _OF_TORCHRUN not in os.environ:
        training(settings)
        return
    restart = settings.restart and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"  # or a process has died since
    with distributed.join(settings.device) as device:
        training(settings.model_copy(update={"device": device, "restart": restart}))


def _is_clear(error: Exception) -> bool:
    """Whether the data, the values, the disk or the memory are wrong, and would be again after a restart."""
    if type(error).__module__.startswith("ageflow.") or isinstance(error, (OSError, MemoryError)):
        return True  # each of our own errors says what to do
    import torch

    return isinstance(error, torch.OutOfMemoryError)


if __name__ == "__main__":
    sys.exit(main())
