"""The command line of the batch."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ageflow import batch
from ageflow.batch.run import NOTEBOOKS, READS, NotebookFailedError, Plan, plan_runs, run_many, run_notebooks
from ageflow.config import DATASETS, STEPS, ParameterError, Settings
from ageflow.parameters import as_typed, describe_parameters, settings
from ageflow.work import WorkersLostError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0; 1 for a notebook or a run that failed, or a folder that cannot be written; 2 for wrong parameters; 130 where it was
    stopped, by Ctrl-C or SIGTERM.
    """
    given = _parser().parse_args(arguments)
    # SIGTERM (Slurm's, at the end of a job) as Ctrl-C, at which a notebook saves.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(given, _plans(given))
    except (ParameterError, OSError, NotebookFailedError, WorkersLostError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, (ParameterError, FileNotFoundError)) else 1
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130


def _run(given: argparse.Namespace, plans: Sequence[Plan]) -> int:
    if given.listed:
        print("\n\n".join(_described(plan, every=given.notebooks is None) for plan in plans))
        return 0
    if len(plans) == 1 and given.scheduler is None:
        run_notebooks(plans[0])
        return 0
    failures = run_many(plans, given.workers, given.scheduler)
    if failures:
        print(f"{len(failures)} of {len(plans)} runs failed; the same command tries them again:", file=sys.stderr)
    for plan in plans:
        if plan.name in failures:
            print(f"{plan.name}: {failures[plan.name]}\nWhat it printed: {plan.log}", file=sys.stderr)
    return 1 if failures else 0


def _plans(given: argparse.Namespace) -> list[Plan]:
    """The runs that the command line asks for, checked."""
    own = {"preset": given.preset, "run": given.run, "runs_root": given.runs_root}
    parameters = {name: value for name, value in own.items() if value is not None}
    parameters |= {name: as_typed(name, value) for name, value in given.parameters}
    varied = {"dataset": given.dataset or [parameters.pop("dataset", "demo")]}
    varied |= {"seed": given.seed} if given.seed else {}
    for name, *values in given.vary:
        typed = [as_typed(name, value) for value in values]
        if not values or name in varied or any(typed.count(value) > 1 for value in typed):
            raise ParameterError(f"--vary {name}: expected once, with different values: --vary {name} VALUE VALUE")
        varied[name] = typed
    if twice := varied.keys() & parameters.keys():
        raise ParameterError(f"{', '.join(twice)} is both given by -p and varied: expected one of them")
    notebooks = given.notebooks or NOTEBOOKS
    roots = _data_roots(given.data_root, varied["dataset"]) if given.data_root and NOTEBOOKS[0] in notebooks else {}
    return plan_runs(parameters, varied, roots, notebooks=notebooks, folder=given.notebooks_folder, force=given.force)


def _data_roots(given: Sequence[str], datasets: Sequence[str]) -> dict[str, str]:
    """Folders by data set: of ``["/data"]`` or ``["morph=/data/morph", "cacd=/data/cacd"]``."""
    roots = {name: folder for name, _, folder in (text.partition("=") for text in given) if folder and name in DATASETS}
    # The demo set draws its faces, so a folder for all sets is not meant for it; alone, it refuses one.
    wanted = {*datasets} - {"demo"}
    if len(given) == 1 and not roots:
        return dict.fromkeys(wanted or datasets, given[0])
    if len(roots) < len(given) or roots.keys() - {"demo"} != wanted:
        expected = f"expected one folder, or DATASET=FOLDER once for each data set asked for ({', '.join(datasets)})"
        raise ParameterError(f"--data-root {' '.join(given)}: {expected}")
    return roots


def _described(plan: Plan, every: bool) -> str:
    """The notebooks of a run with their parameters; `every`: the slider's and the benchmarks', too."""
    first = next(iter(plan.given.values()))
    shared = {name: first[name] for name in Settings.model_fields if name in first}
    names = {f"{number:02d}_{step}": step for number, step in enumerate(STEPS, 1)}
    chosen = {name: settings(step, plan.given.get(name, shared)) for name, step in names.items()}
    listed = [name for name in chosen if every or name in plan.given]
    return "\n\n".join(f"{name}\n{describe_parameters(chosen[name])}" for name in listed)


def _notebooks(text: str) -> list[str]:
    """The notebooks named by ``"01-08"`` or ``"02,04-06"``, in order: 11 comes before 06, which judges what it trains."""
    wanted: list[str] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found = [name for name in READS if first.zfill(2) <= name[:2] <= (last or first).zfill(2)]
        if not found:
            raise argparse.ArgumentTypeError(f"{part!r}: expected 01 to 08, or 11, such as 01-08 or 02,04-06")
        wanted += found
    return [name for name in READS if name in wanted]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ageflow.batch", description=batch.__doc__)
    add, many = parser.add_argument, {"nargs": "+", "default": []}
    pair = {"metavar": ("NAME", "VALUE"), "action": "append", "default": []}
    add("--dataset", **many, metavar="NAME", help=f"of {', '.join(DATASETS)}; left out: demo")
    add("--seed", **many, type=int, help="seeds of all notebooks, a run for each")
    add("--vary", **(many | pair), help="a parameter, named as for -p, and its values, a run for each; may be repeated")
    add("--preset", help="smoke, demo or paper; left out: demo for the demo set, else paper")
    add("--run", help="name of the run; left out: the preset's name; --seed and --vary add to it")
    add("--data-root", **many, metavar="FOLDER", help="folder of the raw data set, or DATASET=FOLDER for each")
    add("--runs-root", help="folder of all runs; left out: the project's runs/")
    add("--notebooks", type=_notebooks, help="which: 01-08, 02,04-06, or 01-05,11,06-08")
    add("--notebooks-folder", type=Path, help="where they lie; left out: the project's notebooks/")
    add("--force", action="store_true", help="run also what has not changed")
    add("--workers", type=int, default=1, help="several runs: how many at a time, a process each")
    add("--scheduler", help="tcp://host:port of a dask scheduler, whose workers do the runs")
    add("--parameters", dest="listed", action="store_true", help="only list what every notebook takes, with its values")
    add("-p", dest="parameters", nargs=2, **pair, help="a parameter of all, or of one: -p train_glow.hidden 64")
    return parser


if __name__ == "__main__":
    sys.exit(main())
