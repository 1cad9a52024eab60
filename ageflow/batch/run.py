"""Run a plan: skip what has not changed, keep the executed copies, write the report."""

import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TextIO

from ageflow.batch.execute import execute
from ageflow.batch.history import History, Inputs, notebook_state
from ageflow.batch.outside import read_outside
from ageflow.batch.plan import CHAPTERS, Chapter, Plan
from ageflow.config import ParameterError, Settings
from ageflow.run import ARTEFACTS, Workspace, files_state

# Changing these changes nothing in what a notebook makes.
_IRRELEVANT = {"progress", "runs_root", "cache"}
_NAMES = tuple(chapter.notebook for chapter in CHAPTERS)


def run_notebooks(plan: Plan, log: TextIO | None = None) -> dict[str, float | None]:
    """Run the notebooks of a plan in order, then write the report.

    Arguments:
        plan: what to run.
        log: where it and its notebooks print to; None: standard output and standard error.

    Returns:
        Minutes by notebook; None for one that was skipped because nothing it depends on has changed.

    Raises:
        ParameterError: a parameter that no notebook takes, or a value that cannot be used; nothing has run.
        NotebookFailedError: a notebook stopped. Those before it are kept, and a second call goes on from there.
    """
    plan.check()
    _check_files(plan)
    folder, workspace = plan.folder, plan.workspace
    copies = workspace.folder("notebooks")
    history = History(copies / "state.json")
    taken: dict[str, float | None] = {}
    print(f"run {workspace.root}", file=log, flush=True)
    for position, chapter in enumerate(plan.chapters, 1):
        source = folder / f"{chapter.notebook}.ipynb"
        copy = copies / source.name
        chosen = plan.settings_of(chapter)
        inputs, makes = _inputs(chapter, source, chosen, workspace), chapter.makes_with(chosen)
        complete = copy.is_file() and all(workspace.has(name) for name in makes)
        made = _states(makes, workspace)
        reason = "asked for" if plan.force else history.why(chapter.notebook, inputs, complete=complete, made=made)
        title = f"[{position}/{len(plan.chapters)}] {chapter.notebook}"
        if reason is None:
            print(f"{title}: unchanged, skipped", file=log, flush=True)
            taken[chapter.notebook] = None
            continue
        print(f"{title}: {reason}", file=log, flush=True)
        history.forget(chapter.notebook)
        started = time.monotonic()
        execute(source, copy, plan.parameters_of(chapter), log)
        minutes = (time.monotonic() - started) / 60
        made = _states(makes, workspace)
        history.remember(chapter.notebook, inputs, minutes=minutes, finished=datetime.now(), made=made)
        taken[chapter.notebook] = minutes
        print(f"{title}: done in {minutes:.1f} minutes", file=log, flush=True)
    path = _write_report(plan, history)
    print(f"report {path}\nThe age slider: `make lab`, notebook 09_age_slider", file=log, flush=True)
    return taken


def _check_files(plan: Plan) -> None:
    """The files that a later notebook reads are there: it would tell only when its turn has come.

    Here and not in the settings: of a batch on a cluster only the machine that runs it need have them.
    """
    for chapter in plan.chapters:
        chosen = plan.settings_of(chapter)
        for name in ("genders", "embedder", "inception"):
            file = getattr(chosen, name, None)
            if file not in (None, "dlib") and not Path(file).expanduser().is_file():
                raise ParameterError(
                    f"{name} = {str(file)!r}: there is no such file, and {chapter.notebook} reads it "
                    f"({type(chosen).model_fields[name].description})"
                )


def _states(artefacts: Iterable[str], workspace: Workspace) -> dict[str, str]:
    """State of each artefact's folder, by name."""
    return {name: files_state(workspace.path(ARTEFACTS[name].folder)) for name in artefacts}


def _inputs(chapter: Chapter, source: Path, chosen: Settings, workspace: Workspace) -> Inputs:
    parameters = {name: value for name, value in chosen.model_dump(mode="json").items() if name not in _IRRELEVANT}
    states = {name: files_state(workspace.path(ARTEFACTS[name].folder)) for name in chapter.reads}
    for name, places in read_outside(chosen).items():
        # Runs may lie in the folder of the raw data, and every run changes them.
        states[name] = " ".join(files_state(place, without=chosen.runs_root) for place in places)
    return Inputs(notebook=notebook_state(source), parameters=parameters, folders=states)


def _write_report(plan: Plan, history: History) -> Path:
    """Write ``report/index.html`` unless what it shows is as it was; returns its path."""
    workspace = plan.workspace
    path = workspace.path("report", "index.html")
    shown = {name: workspace.path(name) for name in ("tables", "figures", "faces", "glow", "evaluation")}
    shown |= {name: Path(__file__).parents[1] / "report" / name for name in ("page.py", "page.html")}
    inputs = Inputs(
        notebook="",
        parameters={name: str(history.finished(name)) for name in _NAMES},
        folders={name: files_state(path) for name, path in shown.items()},
    )
    if plan.force or history.why("report", inputs, complete=path.is_file()):
        from ageflow.report import page  # slow to import, and a batch that skips everything does without

        executed = [page.Executed(name, history.minutes(name), history.finished(name)) for name in _NAMES]
        started = time.monotonic()
        page.write_page(workspace, plan.settings_of(plan.chapters[0]).preset, executed)
        history.remember("report", inputs, minutes=(time.monotonic() - started) / 60, finished=datetime.now())
    return path
