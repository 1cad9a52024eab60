"""Run many runs, here or on a cluster: one that fails does not stop the others.

What the finished ones measured becomes one table.
"""

import contextlib
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from ageflow.batch.execute import NotebookFailedError
from ageflow.batch.outside import absolute
from ageflow.batch.run import run_notebooks
from ageflow.batch.sweep import Member
from ageflow.work import WorkersLostError, in_any_order


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Arguments:
        member: the run.
        taken: minutes by notebook, None for one that was skipped; empty where it failed.
        failure: what stopped it and the executed copy that shows it; None where it finished.
    """

    member: Member
    taken: Mapping[str, float | None] = field(default_factory=dict)
    failure: str | None = None

    @property
    def text(self) -> str:
        """How it ended, in a few words."""
        if self.failure is not None:
            return "failed"
        minutes = [spent for spent in self.taken.values() if spent is not None]
        return f"done in {sum(minutes):.1f} minutes" if minutes else "unchanged, skipped"


@dataclass(frozen=True)
class _Task:
    """A run to be done, and how many processors it may use; None: what its process was told."""

    member: Member
    threads: int | None


def run_sweep(members: Sequence[Member], workers: int = 1, scheduler: str | None = None) -> list[Outcome]:
    """Run every member to its end or its failure; tells each as it ends.

    Arguments:
        members: the runs; with a `scheduler` their folders must be the same on every machine.
        workers: processes on this machine, a run at a time each; 1 runs them here, one after the other.
        scheduler: ``tcp://host:port`` of a running dask scheduler, whose workers run them.

    Returns:
        How each ended, in the order of `members`.

    Raises:
        ParameterError: there is no scheduler at that address; nothing has run.
        WorkersLostError: the scheduler was lost.
    """
    here = scheduler is None and min(workers, len(members)) > 1
    # dask gives a worker one processor, and a run can use its share of the machine.
    threads = max(1, (os.cpu_count() or 1) // min(workers, len(members))) if here else None
    where = f"on {scheduler}" if scheduler else f"{min(workers, len(members))} at a time"
    print(f"{len(members)} runs, {where}; each prints into its own log:", flush=True)
    for member in members:
        print(f"  {member.name}: {member.log}", flush=True)
    outcomes: dict[int, Outcome] = {}
    tasks = [_Task(_absolute(member), threads) for member in members]
    for number, outcome in in_any_order(_run, tasks, workers, scheduler, killed=_killed):
        outcomes[number] = replace(outcome, member=members[number])
        print(f"[{len(outcomes)}/{len(members)}] {members[number].name}: {outcome.text}", flush=True)
    return [outcomes[number] for number in range(len(members))]


def write_summary(outcomes: Sequence[Outcome], folder: Path | None = None) -> list[Path]:
    """Gather what the finished runs measured into one table, and say where it is.

    Arguments:
        outcomes: of `run_sweep`.
        folder: where the table goes; None: ``summary`` in the folder of all runs.

    Returns:
        The files; none where no run was to reach its evaluation, or none did.
    """
    from ageflow.report.summary import Measured, summarise  # slow to import, and a wrong parameter does without

    # An evaluation that these runs did not come to may be of older weights than theirs.
    evaluated = [o for o in outcomes if o.member.plan.chapters[-1].number >= "06"]
    finished = [Measured(o.member.workspace, o.member.settings) for o in evaluated if o.failure is None]
    failed = [f"Failed, so not in here: {o.member.name}" for o in evaluated if o.failure is not None]
    summary = summarise(finished, failed)
    if summary is None:
        print("no summary: no run has come to notebook 06, which evaluates", flush=True)
        return []
    paths = summary.write(folder or outcomes[0].member.workspace.runs_root / "summary")
    print("summary " + " ".join(map(str, paths)), flush=True)
    return paths


def _run(task: _Task) -> Outcome:
    """Run the notebooks of one member, printing into its log; never raises what a run can fail by."""
    member = task.member
    member.log.parent.mkdir(parents=True, exist_ok=True)
    with member.log.open("a", encoding="utf-8") as log, _threads(task.threads):
        print(f"--- {datetime.now().isoformat(sep=' ', timespec='seconds')}", file=log, flush=True)
        try:
            return Outcome(member, run_notebooks(member.plan, log))
        except NotebookFailedError as error:
            print(error, file=log)
            return Outcome(member, failure=str(error))
        except Exception as error:
            traceback.print_exc(file=log)
            return Outcome(member, failure=f"{type(error).__name__}: {error}")


def _killed(task: _Task, error: WorkersLostError) -> Outcome:
    return Outcome(task.member, failure=str(error))


def _absolute(member: Member) -> Member:
    """The same run wherever it is started: a worker may have another working directory or other defaults."""
    return replace(member, plan=absolute(member.plan))


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let the kernels that are started meanwhile use so many processors."""
    if number is None:
        yield
        return
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
