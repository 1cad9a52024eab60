"""Progress as plain text bars: they read the same in a terminal, in JupyterLab and in a saved notebook.

The widget bar of ``tqdm.auto`` sticks at 0 % in notebooks that papermill executed.
"""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.std import tqdm


class _Bar(tqdm):
    """In a log, and in what papermill executes, every redraw is a line that stays: the longer it goes on, the fewer."""

    def display(self, *args: Any, **kwargs: Any) -> bool | None:
        begun = hasattr(self, "start_t")  # not yet at the first, which the constructor draws
        if begun and not sys.stderr.isatty() and not front_end():
            self.mininterval = max(self.mininterval, (self._time() - self.start_t) / 100)
            self.maxinterval = max(self.maxinterval, 2 * self.mininterval)
        return super().display(*args, **kwargs)


def progress_bar(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    title: str = "",
    show: bool = True,
) -> "tqdm[Any]":
    """A text bar over `iterable`, or one to `update` by hand up to `total`.

    Arguments:
        iterable: what to go through; None for a bar that is updated by hand.
        total: number of units; taken from `iterable` where it has a length.
        initial: units done already (a resumed call).
        unit: what is counted, in the singular.
        title: stands before the bar.
        show: False draws nothing.
    """
    # Into a log, a line every few seconds is enough; on a terminal, it should move.
    interval = 0.5 if sys.stderr.isatty() else 5.0
    return _Bar(
        iterable,
        total=total,
        initial=initial,
        unit=unit,
        desc=title or None,
        disable=not show,
        mininterval=interval,
        maxinterval=60.0,
        smoothing=0.1,
        dynamic_ncols=False,
        ncols=110,
    )


def front_end() -> bool:
    """Whether a person's notebook front end (JupyterLab, Notebook, VS Code) runs this cell, and draws what changes.

    Not under papermill and in other kernels without a person: their requests allow no questions on the input line.
    """
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    asked = kernel.get_parent("shell") if kernel is not None else {}
    return bool(asked.get("content", {}).get("allow_stdin"))
