"""Work in many processes: a local cluster of dask.distributed, or one that is running already on many machines.

What is computed must not depend on where. So a task carries all that it needs, and writes its own files.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from ageflow.config import ParameterError

if TYPE_CHECKING:
    from distributed import Client


_CONNECT_SECONDS = 15
_DEATHS = 2  # of workers by one task; the third ends the call


class WorkersLostError(RuntimeError):
    """A task ended its workers, or the scheduler went away; the message says what to do."""


Task = TypeVar("Task")
Result = TypeVar("Result")


def in_any_order(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int = 0,
    scheduler: str | None = None,
    killed: Callable[[Task, WorkersLostError], Result] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Call `function` once for each task, in this process or in others.

    Local workers are started by ``spawn``: a script that calls this needs ``if __name__ == "__main__":``; a notebook
    does not.

    Arguments:
        function: importable by its name wherever it runs; so that nothing depends on the number of workers, it must
            look at nothing but its task.
        tasks: what it is called with.
        workers: processes on this machine; 0 and 1 call it here, one task after the other.
        scheduler: ``tcp://host:port`` of a running dask scheduler, whose workers do it; then `workers` says nothing.
        killed: makes the result of a task whose workers died three times from the task and the error; None: the
            error is raised, and the tasks not begun are given up.

    Yields:
        (number of the task, result), as they are finished. A task whose worker dies is given to another.

    Raises:
        ParameterError: there is no scheduler at that address.
        WorkersLostError: a task's workers died three times and there is no `killed`, or the scheduler was lost.
        Exception: what `function` raised; the tasks not begun are given up.
    """
    if not tasks:
        return
    if scheduler is None and workers <= 1:
        for number, task in enumerate(tasks):
            yield number, function(task)
        return

    from distributed import KilledWorker, as_completed

    with ExitStack() as stack:
        client = _connect(stack, min(workers, len(tasks)), scheduler)
        # Not `pure`: a function of the same task is to be called again in the next call.
        futures = {client.submit(function, task, pure=False): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(list(futures)):
                number = futures[future]
                try:
                    result = future.result()
                except KilledWorker as error:
                    told = WorkersLostError(
                        f"task {number} of {len(tasks)} killed {_DEATHS + 1} workers, one after the other; most often "
                        "they run out of memory. Use fewer workers, and run this again: it goes on with what is not "
                        "there yet"
                    )
                    if killed is None:
                        raise told from error
                    result = killed(tasks[number], told)
                yield number, result
                future.release()  # or the workers would keep every result
        except CancelledError as error:
            raise WorkersLostError(
                f"the scheduler {scheduler or 'of the local cluster'} was lost. Run this again when it is back: "
                "it goes on with what is not there yet"
            ) from error
        finally:
            client.cancel(list(futures), force=True)


def _connect(stack: ExitStack, workers: int, scheduler: str | None) -> "Client":
    import dask
    from distributed import Client, LocalCluster

    if scheduler is None:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": _DEATHS}))
        # One thread each: tasks that need more start their own. No dashboard: its port may be taken, and it needs
        # packages of its own. No limit of memory but the machine's: dask's would end a worker at its share.
        options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "processes": True}
        cluster = LocalCluster(**options, dashboard_address=None, memory_limit=0, silence_logs=logging.ERROR)
        return stack.enter_context(Client(stack.enter_context(cluster)))
    try:
        client = stack.enter_context(Client(scheduler, timeout=_CONNECT_SECONDS))
    except (OSError, ValueError, TypeError) as error:
        raise ParameterError(
            f"scheduler = {scheduler!r}: no dask scheduler answers there ({error}). Start one with `dask scheduler`, "
            "and give the address that it prints, tcp://host:port"
        ) from None
    if not client.nthreads():
        warnings.warn(f"{scheduler} has no workers yet: the work waits until one joins", stacklevel=3)
    return client
