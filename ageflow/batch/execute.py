"""One notebook through papermill, what it prints passed on as it comes."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from jupyter_client import KernelManager
from traitlets.config import Config

# Of a kernel, on a machine that is busy with other trainings.
_SECONDS_TO_START = 300
_SECONDS_TO_HEAR = 300
_SECONDS_TO_STOP = 240  # of which half pass before it is told by SIGTERM, and all before it is killed


class NotebookFailedError(RuntimeError):
    """A notebook stopped; the message names it, the cell, the exception and where the executed copy lies."""


def execute(source: Path, copy: Path, parameters: dict[str, Any], log: TextIO | None = None) -> None:
    """Run one notebook; its prints and progress bars are passed on as they come.

    Arguments:
        source: the notebook.
        copy: where the executed copy goes; that of a failure goes beside it, as ``<name>.failed.ipynb``.
        parameters: what papermill injects.
        log: where it prints to; None: standard output and standard error.

    Raises:
        NotebookFailedError: it stopped.
    """
    import papermill  # slow to import, and a batch that skips everything does without
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    running, failed = copy.with_suffix(".running.ipynb"), copy.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    try:
        # Which parameters a notebook takes is checked before it runs; those that its cell leaves out are told as unknown.
        logging.getLogger("papermill").setLevel(logging.ERROR)
        with _own_kernel():
            papermill.execute_notebook(
                source,
                running,
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                start_timeout=_SECONDS_TO_START,
                iopub_timeout=_SECONDS_TO_HEAR,  # for what a cell prints; by default four seconds
                stdout_file=_Lines(log or sys.stdout),
                stderr_file=_Lines(log or sys.stderr),
                config=_kernel_manager(),
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # or it tells how it is shut down, as an error
            )
    except PapermillExecutionError as error:
        running.replace(failed)
        lines = error.source.strip().splitlines() or [""]
        raise NotebookFailedError(
            f"{source.name} stopped in cell In [{error.exec_count}] ({lines[0]!r}): {error.ename}: {error.evalue}\n"
            f"The executed copy with the whole traceback: {failed}"
        ) from None
    except DeadKernelError as error:
        running.replace(failed)
        raise NotebookFailedError(
            f"{source.name}: its kernel died ({error}); often the machine ran out of memory.\nThe executed copy: {failed}"
        ) from None
    except CellTimeoutError as error:
        running.replace(failed)
        raise NotebookFailedError(
            f"{source.name}: its kernel said nothing more of a cell ({' '.join(str(error).split())}). The machine was too "
            f"busy, or the kernel hangs: run this again.\nThe executed copy: {failed}"
        ) from None
    except RuntimeError as error:
        running.unlink(missing_ok=True)
        if "Kernel" not in str(error):
            raise
        raise NotebookFailedError(
            f"{source.name}: its kernel did not start ({error}); a machine that is very busy needs longer: run this again"
        ) from None
    except BaseException:
        running.unlink(missing_ok=True)
        raise
    running.replace(copy)


def _kernel_manager() -> Config:
    """How kernels are talked to and ended.

    Encrypted where jupyter_client can: a kernel that must not warns at every start. Stopped, a kernel has the time that a
    training takes to save: it is interrupted at once, killed at last.
    """
    values: dict[str, object] = {"shutdown_wait_time": _SECONDS_TO_STOP}
    if "transport_encryption" in KernelManager.class_trait_names():
        values["transport_encryption"] = "auto"
    return Config(KernelManager=values)


@contextlib.contextmanager
def _own_kernel() -> Iterator[None]:
    """Let ``python3`` mean this interpreter, whatever a user has installed under that name."""
    path, name = os.environ.get("JUPYTER_PATH"), "JUPYTER_PATH"
    own = str(Path(sys.prefix) / "share" / "jupyter")
    os.environ[name] = own if path is None else os.pathsep.join([own, path])
    try:
        yield
    finally:
        if path is None:
            del os.environ[name]
        else:
            os.environ[name] = path


class _Lines:
    """Passes text on; off a terminal, each redraw of a progress bar becomes a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.redraw = stream.isatty()
        self.line_is_empty = True

    def write(self, text: str) -> None:
        if not self.redraw:
            head, *redraws = text.replace("\r\n", "\n").split("\r")
            parts = [head]
            for redraw in redraws:
                line_is_empty = parts[-1].endswith("\n") if parts[-1] else self.line_is_empty and not any(parts)
                parts.append(redraw if line_is_empty else "\n" + redraw)
            text = "".join(parts)
            self.line_is_empty = text.endswith("\n") if text else self.line_is_empty
        self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()
