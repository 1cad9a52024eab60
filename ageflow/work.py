"""Work in pieces: on one process, many, or a dask cluster; with a progress bar; and resumed where it stopped.

What a piece computes must not depend on where: a task carries all that it needs, and writes its own files.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from tqdm.std import tqdm

from ageflow.config import ParameterError
from ageflow.run import write_atomically

_CONNECT_SECONDS = 15
_DEATHS = 2  # of workers by one task; the third is the last
_CONTINUES = "it continues with what is missing"

Task = TypeVar("Task")
Result = TypeVar("Result")


def progress_bar(iterable: Iterable | None = None, *, title: str = "", show: bool = True, **options: Any) -> tqdm:
    """A text bar over `iterable`, or one to `update` by hand up to `total`; `show=False` draws nothing.

    The other `options` (`total`, `initial`, `unit`) are tqdm's. Text, as the widget bar of ``tqdm.auto`` sticks at 0 %
    in notebooks that papermill executed. Where nobody watches (a log, papermill) every redraw is a line that stays, so
    there are few of them.
    """
    interval = 0.5 if sys.stderr.isatty() or front_end() else 10.0
    options |= {"mininterval": interval, "maxinterval": 60.0, "smoothing": 0.1, "ncols": 110}
    return tqdm(iterable, desc=title or None, disable=not show, **options)


def front_end() -> bool:
    """Whether a person's notebook front end (JupyterLab, VS Code) runs this cell; not under papermill."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin"))


class WorkersLostError(RuntimeError):
    """A task killed its workers, or the scheduler went away; the message says what to do."""


def resumable_map(
    function: Callable[[Task], dict[str, Any]],
    tasks: Sequence[Task],
    folder: Path,
    keys: Sequence[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    sizes: Sequence[int] | None = None,
    **bar: Any,
) -> list[dict[str, Any]]:
    """Call `function` once a task and keep each result as ``<folder>/<number>.json``; called again, only the rest is done.

    Larger results go into files of their own, which `function` writes before it returns. A kept piece counts only where
    its key is the same: put into the key all that the result depends on.

    Arguments:
        function: importable by name where other processes call it; returns JSON values.
        tasks: what it is called with.
        folder: holds the pieces; whoever has assembled them may delete it.
        keys: fingerprint of everything that a piece depends on, one a task.
        workers, scheduler: see `in_any_order`.
        sizes: units (faces) in each task, for the bar; None: one each.
        bar: title, unit and show of the `progress_bar`.

    Returns:
        The results, in the order of the tasks.
    """
    sizes = [1] * len(tasks) if sizes is None else sizes
    pieces = [_read_piece(folder / f"{number:05d}.json") for number in range(len(keys))]
    results = {n: piece["result"] for n, piece in enumerate(pieces) if piece.get("key") == keys[n]}
    missing = [number for number in range(len(tasks)) if number not in results]
    with progress_bar(total=sum(sizes), initial=sum(sizes[number] for number in results), **bar) as drawn:
        for place, result in in_any_order(function, [tasks[number] for number in missing], workers, scheduler):
            if isinstance(result, WorkersLostError):
                raise result
            number = missing[place]
            content = json.dumps({"key": keys[number], "result": result})
            write_atomically(folder / f"{number:05d}.json", content.encode())
            results[number] = result
            drawn.update(sizes[number])
    return [results[number] for number in range(len(tasks))]


def _read_piece(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # none yet, or damaged: it is made again
        return {}


def in_any_order(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int = 1, scheduler: str | None = None
) -> Iterator[tuple[int, "Result | WorkersLostError"]]:
    """Call `function` once for each task, in this process or in others.

    Local workers are started by ``spawn``: a script that calls this needs ``if __name__ == "__main__":``; a notebook
    does not.

    Arguments:
        function: importable by its name wherever it runs.
        tasks: what it is called with.
        workers: processes on this machine; 0 and 1 call it here, one task after the other.
        scheduler: ``tcp://host:port`` of a running dask scheduler, whose workers do it; then `workers` is ignored.

    Yields:
        (number of the task, result), as they finish. A task whose worker dies is given to another; when the third has
        died its result is a `WorkersLostError`.

    Raises:
        ParameterError: there is no scheduler at that address.
        WorkersLostError: the scheduler was lost.
        Exception: what `function` raised; the tasks not begun are given up.
    """
    if not tasks:
        return
    if scheduler is None and workers <= 1:
        yield from ((number, function(task)) for number, task in enumerate(tasks))
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
                    yield number, future.result()
                except KilledWorker:
                    died = f"task {number + 1} of {len(tasks)} killed {_DEATHS + 1} workers, one after the other"
                    why = "most often they run out of memory. Use fewer workers, and run this again"
                    yield number, WorkersLostError(f"{died}; {why}: {_CONTINUES}")
                future.release()  # or the workers would keep every result
        except CancelledError as error:
            where = scheduler or "of the local cluster"
            raise WorkersLostError(f"the scheduler {where} was lost. Run this again: {_CONTINUES}") from error
        finally:
            client.cancel(list(futures), force=True)


def _connect(stack: ExitStack, workers: int, scheduler: str | None) -> Any:
    """A dask client of that scheduler, or of a new cluster on this machine; closed with the stack."""
    from distributed import Client, LocalCluster

    if scheduler is None:
        # One thread each: tasks that need more start their own. No dashboard: its port may be taken, and it needs
        # packages of its own. No limit of memory but the machine's: dask's would end a worker at its share.
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
        options["scheduler_kwargs"] = {"allowed_failures": _DEATHS}
        return stack.enter_context(Client(stack.enter_context(LocalCluster(**options, silence_logs=logging.ERROR))))
    try:
        return stack.enter_context(Client(scheduler, timeout=_CONNECT_SECONDS))
    except (OSError, ValueError, TypeError) as error:
        what = f"scheduler = {scheduler!r}: no dask scheduler answers there ({error})"
        raise ParameterError(f"{what}. Start one with `dask scheduler`, and give the address that it prints") from None
