"""The command line of the batch."""

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ageflow import batch
from ageflow.batch.execute import NotebookFailedError
from ageflow.batch.plan import CHAPTERS, Chapter, Plan
from ageflow.batch.run import run_notebooks
from ageflow.config import ParameterError

__all__ = ["main"]


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


def _value(text: str) -> Any:
    """``"3"`` → 3, ``"[4, 8]"`` → a list, ``"None"`` → None; what is no Python literal stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for a notebook that failed, 2 for wrong parameters, 130 stopped."""
    parser = argparse.ArgumentParser(prog="python -m ageflow.batch", description=batch.__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="demo", help="demo, morph, cacd, fgnet, celeba, utkface or folder")
    parser.add_argument("--preset", help="smoke, demo or paper; left out: demo for the demo set, else paper")
    parser.add_argument("--run", help="name of the run; left out: the preset's name")
    parser.add_argument("--data-root", type=Path, help="folder of the raw data set; the demo set needs none")
    parser.add_argument("--runs-root", type=Path, help="folder of all runs; left out: the project's runs/")
    parser.add_argument("--notebooks", type=_chapters, default=CHAPTERS, help="which: 01-08, or 02,04-06")
    parser.add_argument("--notebooks-folder", type=Path, help="where they lie; left out: the project's notebooks/")
    parser.add_argument("--force", action="store_true", help="run also what has not changed")
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of every notebook that takes it, or of one: -p train_glow.iterations 800",
    )
    given = parser.parse_args(arguments)
    plan = Plan(
        dataset=given.dataset,
        preset=given.preset,
        run=given.run,
        parameters={name: _value(value) for name, value in given.parameters},
        data_root=given.data_root,
        runs_root=given.runs_root,
        chapters=given.notebooks,
        notebooks=given.notebooks_folder,
        force=given.force,
    )
    try:
        run_notebooks(plan)
    except (ParameterError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except NotebookFailedError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
