"""Which runs are asked for, all of it checked before anything runs; and carrying them out.

What a notebook was made from, and what it made, stands in ``runs/<dataset>/<run>/notebooks/<notebook>/manifest.json``.
"""

import itertools
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TextIO

import nbformat
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from traitlets import Float

from ageflow.config import BASELINES, STEPS, ParameterError, Settings, nearest
from ageflow.names import made_of
from ageflow.parameters import settings
from ageflow.run import ARTEFACTS, MANIFEST, PROCESS_ENVIRONMENT, Manifest, Workspace, digest, files_state
from ageflow.work import WorkersLostError, in_any_order

_TRAINED = ("faces", "glow", "latents", "prototypes", "ictm", "classifiers")
# The notebooks in order, and the artefacts that each reads.
READS: dict[str, tuple[str, ...]] = {
    "01_prepare_data": (),
    "02_train_glow": ("faces",),
    "03_prototypes": ("faces", "glow"),
    "04_train_ictm": ("faces", "glow", "latents", "prototypes"),
    "05_train_classifiers": ("faces",),
    "11_baselines": ("faces",),  # and C, which it trains where notebook 04 has not
    "06_ablations": (*_TRAINED, *(f"baselines/{name}" for name in BASELINES)),
    "07_tables": ("glow", "ictm", "classifiers", "evaluation"),
    "08_figures": (*_TRAINED, "no_ictm", "evaluation"),
}
NOTEBOOKS = tuple(name for name in READS if name != "11_baselines")  # that one runs where it is asked for
# Parameters that name a file, a folder or another run, and the words that do not.
NAMES = ("init_from", "age_classifier_from", "embedder", "external")
WORDS = ("pretrained", "nothing", "dlib")
# What is read of another run: the folders that have a manifest; the files of one without, and where they may lie.
_FACES = (("faces",), "faces.parquet", ("", "faces/"))
_WEIGHTS = ((".", "glow", "ictm", "classifiers", "decoded_age"), "checkpoint-*.safetensors", ("", "*/", "*/*/"))
# Of a kernel, on a machine that is busy with other trainings.
_SECONDS_TO_START = _SECONDS_TO_HEAR = 300
_SECONDS_TO_STOP = 240.0  # SIGTERM comes after half of them, SIGKILL at the end: a training saves meanwhile


# -- which runs are asked for ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """One run, the same wherever it is carried out.

    Arguments:
        given: the parameters of each notebook, in order; files and folders are named from the root.
        folder: where the notebooks lie.
        force: run also what has not changed.
        varied: the varied values that set it apart, as text: ``"scale=1.4, akd_weight=2"``.
    """

    given: Mapping[str, Mapping[str, Any]]
    folder: Path
    force: bool = False
    varied: str = ""

    def settings(self, notebook: str) -> Settings:
        """The settings that a notebook will see."""
        return settings(step_of(notebook), self.given[notebook])

    @cached_property
    def workspace(self) -> Workspace:
        """The folders of the run."""
        return Workspace.of(self.settings(next(iter(self.given))))

    @property
    def name(self) -> str:
        """The run with its data set, ``"morph/paper-seed1"``."""
        return f"{self.workspace.dataset}/{self.workspace.run}"

    @property
    def log(self) -> Path:
        """The file that it prints into when it is one of several."""
        return self.workspace.path("notebooks", "batch.log")


def step_of(notebook: str) -> str:
    """The key of a notebook's settings in `ageflow.config.STEPS`."""
    return notebook[3:]


def made_by(notebook: str, chosen: Settings) -> list[str]:
    """The artefacts that a notebook leaves behind, without a network that its settings do not ask for."""
    if notebook == "11_baselines":
        return ["decoded_age", *(f"baselines/{name}" for name in chosen.methods)]
    made = [name for name, artefact in ARTEFACTS.items() if artefact.notebook == notebook]
    missing = {"decoded_age"} if getattr(chosen, "age_classifier", "") == "latent" else set()
    missing |= {"no_ictm"} - {*getattr(chosen, "methods", ["no_ictm"])}
    return [name for name in made if name not in missing]


def given_to(notebook: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a notebook is given: its own before those of all; those it does not take are left out."""
    given: dict[str, Any] = {}
    for name, value in sorted(parameters.items(), key=lambda item: "." in item[0]):
        reach, _, bare = name.rpartition(".")
        if reach in ("", notebook, notebook[:2], step_of(notebook)) and bare in STEPS[step_of(notebook)].model_fields:
            given[bare] = value
    return given


def plan_run(
    parameters: Mapping[str, Any], notebooks: Sequence[str] = NOTEBOOKS, folder: Path | None = None, **more: Any
) -> Plan:
    """One run.

    Arguments:
        parameters: by name; ``"train_glow.iterations"`` or ``"02.iterations"`` reaches one notebook only,
            ``"iterations"`` every one that takes it. Paths are meant from the working directory.
        notebooks: which, in order.
        folder: where they lie; None: the project's ``notebooks/``.
        more: ``force`` and ``varied``, see `Plan`.

    Raises:
        ParameterError: a parameter that none of the notebooks takes, or a value that cannot be used.
        FileNotFoundError: a notebook is not there.
    """
    folder = (folder or Path(__file__).parents[2] / "notebooks").expanduser().resolve()
    if missing := [name for name in notebooks if not (folder / f"{name}.ipynb").is_file()]:
        raise FileNotFoundError(f"{folder} holds no {missing[0]}.ipynb: name the notebooks' folder")
    known = {(step, field) for step in map(step_of, notebooks) for field in STEPS[step].model_fields}
    for name in parameters:
        if not any(given_to(notebook, {name: None}) for notebook in notebooks):
            reach, _, bare = name.rpartition(".")  # without the notebook's name, it would be advised for all of them
            near = {f"{step}.{field}" if reach else field for step, field in known if not reach or field == bare}
            what = f"no notebook of this batch takes a parameter {name!r}"
            raise ParameterError(what + nearest(name, near or {f"{reach}.{field}" for _, field in known}))
    if "external" in parameters and {"06_ablations", "08_figures"} <= {*notebooks}:
        both = "notebook 06 judges on the faces of external, notebook 08 draws Figure A.1 of it"
        raise ParameterError(f"{both}: pass ablations.external or figures.external, or both")
    given = {notebook: _from_the_root(notebook, given_to(notebook, parameters)) for notebook in notebooks}
    plan = Plan(given, folder, **more)
    _check_sides(plan)
    return plan


def _check_sides(plan: Plan) -> None:
    """Refuse a side of the faces that GLOW cannot halve, or leaves too odd for T, before they are prepared and it is trained."""
    chosen = {notebook[:2]: plan.settings(notebook) for notebook in plan.given}
    if not {"01", "02"} <= {*chosen}:
        return
    side, levels, t = chosen["01"].image_size, chosen["02"].levels, chosen.get("04")
    own_levels = chosen["02"].init_from in (None, "pretrained")  # weights of a public code bring theirs
    twice = own_levels and t is not None and t.network == "ictm" and t.latent in ("all", "top")
    if side % 2 ** (levels + twice):
        what = f"image_size = {side} is halved {levels} times by levels = {levels}{', and once more by T' if twice else ''}"
        raise ParameterError(f"{what}: pass a multiple of {2 ** (levels + twice)}, or fewer levels")


def _check_attributes(plan: Plan) -> None:
    """Refuse attributes for the averages that no face has, before GLOW is trained."""
    table = plan.workspace.path("faces", "faces.parquet")
    if "03_prototypes" in plan.given and table.is_file():
        import pandas as pd  # slow to import

        wanted, faces = plan.settings("03_prototypes").attributes or [], pd.read_parquet(table)
        if unknown := [name for name in wanted if name not in faces or faces[name].isna().all()]:
            rest = [name for name in wanted if name not in unknown]
            what = f"prototypes.attributes = {wanted}: the faces have no {', '.join(unknown)}"
            raise ParameterError(f'{what}. Leave that out: -p prototypes.attributes "{rest}"')


def _from_the_root(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with every path from the root; the name of another run stays one."""
    chosen = settings(step_of(notebook), given)
    rooted = {"runs_root": str(chosen.runs_root)}
    for name in given:
        value = getattr(chosen, name)
        place = Path(value).expanduser().resolve() if name in NAMES and value not in (None, *WORDS) else None
        if isinstance(value, Path):
            rooted[name] = str(value)
        elif place and place.exists() and place != (chosen.runs_root / value).resolve():
            rooted[name] = str(place)
    return given | rooted


def plan_runs(
    parameters: Mapping[str, Any], varied: Mapping[str, Sequence[Any]], data_roots: Mapping[str, str], **more: Any
) -> list[Plan]:
    """A run for every combination of values.

    A run is called as it would be alone (its `run`, or else the preset's name), then ``-seed<N>`` where seeds vary, then
    ``-<name>=<value>`` for every other value; what a folder's name should not hold becomes ``-``.

    Arguments:
        parameters: what the runs share, see `plan_run`.
        varied: values by parameter, ``dataset`` and ``seed`` among them.
        data_roots: folders of raw data sets by name.
        more: see `plan_run`.

    Returns:
        The runs, those of one data set together.

    Raises:
        ParameterError: two runs of one name, or as `plan_run`.
        FileNotFoundError: as `plan_run`.
    """
    plans = []
    for values in itertools.product(*varied.values()):
        own = dict(zip(varied, values, strict=True))
        given = {**parameters, **own}
        given |= {"prepare_data.data_root": data_roots[own["dataset"]]} if own["dataset"] in data_roots else {}
        apart = [f"{name}={_safe(value)}" for name, value in own.items() if name not in ("dataset", "seed")]
        parts = [f"seed{own['seed']}", *apart] if "seed" in own else apart
        if parts:
            alone = settings("tables", {name: given.get(name) for name in ("dataset", "preset", "run")}).run
            given["run"] = "-".join([alone, *parts])
        plans.append(plan_run(given, **more, varied=", ".join(apart)))
    names = [plan.name for plan in plans]
    if twice := [name for name in names if names.count(name) > 1]:
        what = f"{names.count(twice[0])} runs would be called {twice[0]}: leave out the duplicate value"
        raise ParameterError(f"{what}, or start this command twice with another --run")
    return plans


def _safe(value: Any) -> str:
    """A value as a part of a folder's name; the values of a list are joined by ``+``."""
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text)


# -- one run ---------------------------------------------------------------------------------------------------------


class NotebookFailedError(RuntimeError):
    """A notebook stopped; the message names it, the cell, the exception and where the executed copy lies."""


def run_notebooks(plan: Plan, log: TextIO | None = None) -> dict[str, float | None]:
    """Run the notebooks of a plan in order, then write the report.

    Arguments:
        plan: what to run.
        log: where it and its notebooks print to; None: standard output and standard error.

    Returns:
        Minutes by notebook; None for one that was skipped because nothing it depends on has changed.

    Raises:
        ParameterError: a file, folder or run that a notebook is to read is not there, and nothing has run; or the faces
            lack what notebook 03 asks for, and GLOW is not trained.
        NotebookFailedError: a notebook stopped. Those before it are kept, and a second call continues from there.
    """
    for notebook in plan.given:  # a later one would miss its files only when its turn has come
        _outside(plan.settings(notebook))
    copies = plan.workspace.folder("notebooks")
    taken: dict[str, float | None] = dict.fromkeys(plan.given)
    print(f"run {plan.workspace.root}", file=log, flush=True)
    for number, notebook in enumerate(plan.given, 1):
        copy, record = copies / f"{notebook}.ipynb", copies / notebook
        title = f"[{number}/{len(plan.given)}] {notebook}"
        now, before = _depends_on(plan, notebook), Manifest.read(record)
        reason = "asked for" if plan.force else "not run yet"
        if not plan.force and before and copy.is_file():
            gone = [file for file in before.details.get("made", ()) if not plan.workspace.path(file).exists()]
            changed = before.changes(now.inputs, now.settings)
            reason = f"changed since: {changed}" if changed else ", ".join(f"{file} is gone" for file in gone[:1])
        print(f"{title}: {reason or 'unchanged, skipped'}", file=log, flush=True)
        if reason:
            if notebook == "02_train_glow":
                _check_attributes(plan)
            (record / MANIFEST).unlink(missing_ok=True)  # what it made is about to change
            started = time.monotonic()
            execute(plan.folder / copy.name, copy, plan.given[notebook], log)
            taken[notebook] = minutes = round((time.monotonic() - started) / 60, 3)
            made = made_by(notebook, plan.settings(notebook))
            files = [f"{name}/{file.name}" for name in made for file in plan.workspace.path(name).glob("[!.]*.*")]
            details = {"minutes": minutes, "finished": datetime.now().isoformat(timespec="seconds"), "made": files}
            Manifest(now.inputs | _states(plan.workspace, made), now.settings, details=details).write(record)
            print(f"{title}: done in {minutes:.1f} minutes", file=log, flush=True)
    print(f"report {_write_report(plan)}\nThe age slider: `make lab`, notebook 09_age_slider", file=log, flush=True)
    return taken


def _depends_on(plan: Plan, notebook: str) -> Manifest:
    """Everything that a notebook's result depends on, and the result; of its source, no outputs, cell ids or metadata."""
    chosen, cells = plan.settings(notebook), nbformat.read(plan.folder / f"{notebook}.ipynb", as_version=4).cells
    inputs = {"notebook": digest([(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells])}
    inputs |= _states(plan.workspace, [*READS[notebook], *made_by(notebook, chosen)]) | _outside(chosen)
    return Manifest(inputs, chosen.model_dump(mode="json", exclude={"progress", "runs_root", "cache"}))


def _states(workspace: Workspace, artefacts: Sequence[str]) -> dict[str, str]:
    # The raw data, too, as they were when the faces were made: changed since, notebook 01 runs and says so each time.
    raw = workspace.manifest("faces").inputs if "faces" in artefacts and workspace.has("faces") else {}
    return raw | {name: workspace.manifest(name).fingerprint if workspace.has(name) else "absent" for name in artefacts}


def _outside(chosen: Settings) -> dict[str, str]:
    """The state of the files, folders and other runs that a notebook reads, by the parameter or the own method's name.

    Raises:
        ParameterError: one is not there. Of a batch on a cluster only the machine that runs it need have them.
    """
    states = {name: files_state(made_of(name)) for name in getattr(chosen, "methods", ()) if ":" in name}
    for name in ("data_root", "genders", "inception", *NAMES):
        value = getattr(chosen, name, None)
        if value in (None, *WORDS):
            continue
        place = next((place for place in (Path(value).expanduser(), chosen.runs_root / value) if place.exists()), None)
        about = f"{chosen.step} reads it ({type(chosen).model_fields[name].description})"
        if place is None:
            raise ParameterError(f"{name} = {str(value)!r}: it is not there, and {about}")
        if name in ("data_root", "genders"):  # as the manifest of the faces has them
            from ageflow.data.files import raw_state  # slow to import

            states[name] = digest(place.read_bytes()) if name == "genders" else raw_state(place, chosen.runs_root)
            continue
        # Of another run the faces, or the weights.
        parts, sought, folders = _FACES if name == "external" else _WEIGHTS
        made = [found.fingerprint for found in (Manifest.read(place / part) for part in parts) if found]
        # Notebook 08 draws pictures of any folder, too.
        unnamed = name in NAMES and place.is_dir() and not made and chosen.step != "figures"
        if unnamed and not any(any(place.glob(f"{folder}{sought}")) for folder in folders):
            raise ParameterError(f"{name} = {str(value)!r}: {place} holds no {sought}, and {about}")
        states[name] = digest(made) if made else files_state(place, without=chosen.runs_root)
    return states


def _write_report(plan: Plan) -> Path:
    """Write ``report/index.html`` where a notebook has finished since; returns its path."""
    path = plan.workspace.path("report", "index.html")
    records = {name: plan.workspace.path("notebooks", name) for name in READS}
    records = {name: record for name, record in records.items() if name in NOTEBOOKS or record.is_dir()}
    ended = [(record / MANIFEST).stat().st_mtime_ns for record in records.values() if (record / MANIFEST).is_file()]
    if not path.is_file() or path.stat().st_mtime_ns < max(ended):
        from ageflow.report import page  # slow to import, and a batch that skips everything does without

        executed = []
        for name, record in records.items():
            about = (Manifest.read(record) or Manifest()).details
            finished = datetime.fromisoformat(about["finished"]) if about else None
            executed.append(page.Executed(name, about.get("minutes"), finished))
        page.write_page(plan.workspace, plan.settings(next(iter(plan.given))).preset, executed)
    return path


# -- one notebook ----------------------------------------------------------------------------------------------------


def execute(source: Path, copy: Path, parameters: Mapping[str, Any], log: TextIO | None = None) -> None:
    """Run one notebook through papermill; its prints and progress bars are passed on as they come.

    Arguments:
        source: the notebook.
        copy: where the executed copy goes; that of a failure goes beside it, as ``<name>.stopped.ipynb``.
        parameters: what papermill injects.
        log: where it prints to; None: standard output and standard error.

    Raises:
        NotebookFailedError: it stopped.
    """
    import papermill  # slow to import, and a batch that skips everything does without

    stopped = copy.with_suffix(".stopped.ipynb")
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of parameters that the cell leaves out
    kernel = {"kernel_name": "python3", "kernel_manager_class": _OwnKernel, "start_timeout": _SECONDS_TO_START}
    kernel |= {"iopub_timeout": _SECONDS_TO_HEAR}  # for what a cell prints; by default four seconds
    # Or it prints how it is shut down, as an error.
    kernel |= {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"]}
    output = {"stdout_file": _Lines(log or sys.stdout), "stderr_file": _Lines(log or sys.stderr)}
    try:
        papermill.execute_notebook(source, stopped, dict(parameters), progress_bar=False, **kernel, **output)
    except (papermill.PapermillExecutionError, RuntimeError, TimeoutError) as error:
        where = f"its kernel failed ({' '.join(str(error).split())}): too little memory, or a very busy machine"
        if isinstance(error, papermill.PapermillExecutionError):
            first, *_ = error.source.strip().splitlines() or [""]
            where = f"cell In [{error.exec_count}] ({first!r}): {error.ename}: {error.evalue}"
        raise NotebookFailedError(f"{source.name} stopped: {where}\nThe executed copy: {stopped}") from None
    stopped.replace(copy)


class _OwnKernel(AsyncKernelManager):
    """``python3`` means this interpreter, whatever a user has installed under that name."""

    shutdown_wait_time = Float(_SECONDS_TO_STOP)

    @property
    def kernel_spec(self) -> KernelSpec:
        # dask's nanny sets MKL_NUM_THREADS to 1 where it is unset, and torch would compute on one thread.
        threads = {"MKL_NUM_THREADS": os.environ["OMP_NUM_THREADS"]} if "OMP_NUM_THREADS" in os.environ else {}
        environment = PROCESS_ENVIRONMENT | dict(os.environ) | threads
        return KernelSpec(argv=make_ipkernel_cmd(), display_name="Python 3", language="python", env=environment)


class _Lines:
    """Passes text on; off a terminal, each redraw of a progress bar becomes a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.flush = stream, stream.flush

    def write(self, text: str) -> None:
        self.stream.write(text if self.stream.isatty() else re.sub(r"[\r\n]+", "\n", text))


# -- many runs -------------------------------------------------------------------------------------------------------


def run_many(plans: Sequence[Plan], workers: int = 1, scheduler: str | None = None) -> dict[str, str]:
    """Run every plan to its end or its failure, which stops no other; prints how each ends, and sums them up in a table.

    Arguments:
        plans: the runs; with a `scheduler` their folders must be the same on every machine.
        workers: processes on this machine, a run at a time each; 1 runs them here, one after the other.
        scheduler: ``tcp://host:port`` of a running dask scheduler, whose workers run them.

    Returns:
        What stopped each run that failed, by its name.

    Raises:
        ParameterError: there is no scheduler at that address; nothing has run.
        WorkersLostError: the scheduler was lost.
    """
    workers = min(workers, len(plans))
    # A local worker has its share of the machine; one of a cluster has what it was started with.
    threads = max(1, (os.cpu_count() or 1) // workers) if workers > 1 and scheduler is None else None
    where = f"on {scheduler}" if scheduler else f"{workers} at a time"
    print(f"{len(plans)} runs, {where}; each prints into its own log:")
    print(*(f"  {plan.name}: {plan.log}" for plan in plans), sep="\n", flush=True)
    failures: dict[str, str] = {}
    ended = in_any_order(partial(_run, threads=threads), plans, workers, scheduler)
    for done, (number, result) in enumerate(ended, 1):
        how, failure = ("failed", str(result)) if isinstance(result, WorkersLostError) else result
        print(f"[{done}/{len(plans)}] {plans[number].name}: {how}", flush=True)
        failures |= {plans[number].name: failure} if failure else {}
    _write_summary(plans, failures)
    return failures


def _run(plan: Plan, threads: int | None) -> tuple[str, str]:
    """Run one plan, printing into its log: how it ended, and what stopped it."""
    if threads is not None:  # a process of our own
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    plan.log.parent.mkdir(parents=True, exist_ok=True)
    with plan.log.open("a", encoding="utf-8") as log:
        print(f"--- {datetime.now().isoformat(sep=' ', timespec='seconds')}", file=log, flush=True)
        try:
            minutes = [spent for spent in run_notebooks(plan, log).values() if spent is not None]
        except Exception as error:
            traceback.print_exc(file=log)
            return "failed", f"{type(error).__name__}: {error}"
    return f"done in {sum(minutes):.1f} minutes" if minutes else "unchanged, skipped", ""


def _write_summary(plans: Sequence[Plan], failures: Mapping[str, str]) -> None:
    """Gather what the finished runs measured into one table in ``runs/summary``, and print where it is."""
    from ageflow.report.summary import summarise

    # An evaluation that these runs did not come to may be of older weights than theirs.
    finished = [plan for plan in plans if plan.name not in failures and {*NOTEBOOKS[5:]} & {*plan.given}]
    failed = [f"Failed, so not in here: {name}" for name in failures]
    runs = [(plan.workspace, plan.varied) for plan in finished]
    files = summarise(runs, plans[0].workspace.runs_root / "summary", failed)
    print("summary", *(files or ["none: no run has come to notebook 06, which evaluates"]), flush=True)
