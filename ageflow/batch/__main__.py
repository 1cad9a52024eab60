"""The command line of the batch."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ageflow import batch
from ageflow.batch.execute import NotebookFailedError
from ageflow.batch.many import run_sweep, write_summary
from ageflow.batch.plan import CHAPTERS, Chapter, Plan
from ageflow.batch.run import run_notebooks
from ageflow.batch.sweep import Sweep, check_dataset
from ageflow.config import DATASETS, STEPS, ParameterError, literal
from ageflow.work import WorkersLostError


def _chapters(text: str) -> tuple[Chapter, ...]:
    """The notebooks named by ``"01-08"`` or ``"02,04-06"``, in order."""
    wanted: set[int] = set()
    known = {int(chapter.number) for chapter in CHAPTERS}
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        try:
            numbers = set(range(int(first), int(last or first) + 1))
        except ValueError:
            numbers = set()
        if not numbers or numbers - known:
            raise argparse.ArgumentTypeError(f"{part!r}: expected numbers from 01 to 08, such as 01-08 or 02,04-06")
        wanted |= numbers
    return tuple(chapter for chapter in CHAPTERS if int(chapter.number) in wanted)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of processes, 1 or more")
    return int(text)


def _data_roots(given: Sequence[str]) -> tuple[Path | None, dict[str, Path]]:
    """``["/data"]`` → that path for all; ``["morph=/data/morph", "cacd=/data/cacd"]`` → one a data set."""
    named = [text.partition("=") for text in given]
    # A folder may well be called as its data set is.
    if len(given) == 1 and (named[0][0] not in DATASETS or Path(given[0]).is_dir()):
        return Path(given[0]), {}
    roots: dict[str, Path] = {}
    for name, equals, folder in named:
        if not equals or not folder:
            raise ParameterError(
                f"--data-root {name}: expected one folder, or DATASET=FOLDER for each, morph=/data/morph"
            )
        check_dataset(name, f"--data-root {name}={folder}")
        if name in roots:
            raise ParameterError(f"--data-root names {name} twice: expected one folder a data set. Leave one out")
        roots[name] = Path(folder)
    return None, roots


def _varied(given: Sequence[Sequence[str]]) -> dict[str, list[Any]]:
    varied: dict[str, list[Any]] = {}
    for name, *values in given:
        if not values:
            raise ParameterError(f"--vary {name}: expected its name and its values, --vary {name} VALUE VALUE")
        if name in varied:
            raise ParameterError(f"--vary {name} stands twice: give all its values at once, --vary {name} VALUE VALUE")
        varied[name] = [literal(value) for value in values]
    return varied


def _value(name: str, text: str) -> Any:
    """What -p means; a name stays as it was written: 2024_06_01 is a number to Python."""
    fields = [step.model_fields.get(name.rpartition(".")[2]) for step in STEPS.values()]
    return text if any(field is not None and field.annotation is str for field in fields) else literal(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ageflow.batch",
        description=f"{batch.__doc__.splitlines()[0]} Several data sets, seeds or varied values make a run of each.",
    )
    parser.add_argument("--dataset", nargs="+", default=["demo"], metavar="NAME", help=f"of {', '.join(DATASETS)}")
    parser.add_argument("--seed", nargs="+", type=int, default=[], help="seeds of all notebooks, a run for each")
    parser.add_argument(
        "--vary",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter, named as for -p, and its values, a run for each; may be repeated",
    )
    parser.add_argument("--preset", help="smoke, demo or paper; left out: demo for the demo set, else paper")
    parser.add_argument("--run", help="name of the run; left out: the preset's name; --seed and --vary add to it")
    parser.add_argument(
        "--data-root",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folder of the raw data set, or DATASET=FOLDER for each; the demo set needs none",
    )
    parser.add_argument("--runs-root", type=Path, help="folder of all runs; left out: the project's runs/")
    parser.add_argument("--notebooks", type=_chapters, default=CHAPTERS, help="which: 01-08, or 02,04-06")
    parser.add_argument("--notebooks-folder", type=Path, help="where they lie; left out: the project's notebooks/")
    parser.add_argument("--force", action="store_true", help="run also what has not changed")
    parser.add_argument("--workers", type=_count, default=1, help="several runs: how many at a time, a process each")
    parser.add_argument("--scheduler", help="tcp://host:port of a dask scheduler, whose workers do the runs")
    parser.add_argument("--summary", type=Path, help="several runs: the summary's folder; left out: runs/summary")
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of every notebook that takes it, or of one: -p train_glow.iterations 800",
    )
    return parser


def _sweep(given: argparse.Namespace) -> Sweep:
    for dataset in given.dataset:
        check_dataset(dataset, f"--dataset {dataset}")
    data_root, data_roots = _data_roots(given.data_root)
    base = Plan(
        preset=given.preset,
        run=given.run,
        parameters={name: _value(name, value) for name, value in given.parameters},
        data_root=data_root,
        runs_root=given.runs_root,
        chapters=given.notebooks,
        notebooks=given.notebooks_folder,
        force=given.force,
    )
    return Sweep(base, given.dataset, given.seed, _varied(given.vary), data_roots)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0; 1 for a notebook or a run that failed; 2 for wrong parameters; 130 where it was stopped, by Ctrl-C or SIGTERM.
    """
    given = _parser().parse_args(arguments)
    # SIGTERM (Slurm's, at the end of a job) as Ctrl-C, which a notebook is told of and saves.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(given)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(given: argparse.Namespace) -> int:
    """What the command line asks for; the exit code."""
    try:
        members = _sweep(given).members()
        if len(members) == 1 and given.scheduler is None:
            run_notebooks(members[0].plan)
            return 0
        outcomes = run_sweep(members, given.workers, given.scheduler)
        write_summary(outcomes, given.summary)
    except (ParameterError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except (NotebookFailedError, WorkersLostError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if failed:
        print(f"{len(failed)} of {len(outcomes)} runs failed; the same command tries them again:", file=sys.stderr)
    for outcome in failed:
        told = (outcome.failure or "").replace("\n", "\n  ")
        print(f"{outcome.member.name}: {told}\n  What it printed: {outcome.member.log}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
