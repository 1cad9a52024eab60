"""Watch a training in a notebook: its curve and its newest pictures, drawn anew while it runs.

What is drawn is read from ``metrics.jsonl`` and ``samples/``, which the training writes wherever it runs: in the
kernel or in processes of its own.
"""

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ageflow.progress import front_end
from ageflow.training.metrics import read_metrics

__all__ = ["draw", "live"]

_SECONDS = 4.0
_SCREEN, _SHARP = 96, 2


@contextlib.contextmanager
def live(folder: Path, show: bool = True) -> Iterator[None]:
    """While the block lasts, show the training of `folder` below the cell, where a person's front end draws pictures.

    Elsewhere (a terminal, papermill, the processes of torchrun) nothing is shown: the bar tells there.

    Arguments:
        folder: a training's; or one that holds several, of which the newest is shown.
        show: False shows nothing.
    """
    if not show or not front_end():
        yield
        return
    from IPython.display import Pretty, display

    # Here and not on the thread, which no cell has asked for anything.
    handle = display(Pretty("the curve follows with the first updates"), display_id=True)
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(folder, handle, stop), name=f"live view of {folder.name}", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(folder: Path, handle: Any, stop: threading.Event) -> None:
    from IPython.display import Image

    drawn = None
    while True:
        ended = stop.wait(_SECONDS if drawn else 0.5)
        # A picture that cannot be drawn (a file that is just being written) must not hurt the training.
        with contextlib.suppress(Exception):
            training = _newest(folder)
            state = _state(training) if training else None
            if state is not None and state != drawn and (picture := draw(training)) is not None:
                handle.update(Image(picture[0], width=picture[1], format="png"))
                drawn = state
        if ended:
            return


def _newest(folder: Path) -> Path | None:
    files = [folder / "metrics.jsonl", *folder.glob("*/metrics.jsonl")]
    there = [(file.stat().st_mtime_ns, file.parent) for file in files if file.is_file()]
    return max(there)[1] if there else None


def _pictures(folder: Path) -> list[Path]:
    return sorted((folder / "samples").glob("*.png"), key=lambda path: path.name[-12:])


def _state(folder: Path) -> tuple[Any, ...]:
    return folder, (folder / "metrics.jsonl").stat().st_size, _pictures(folder)[-1:]


def draw(folder: Path) -> tuple[bytes, int] | None:
    """Losses over iterations, and the newest picture of ``samples/`` beside them: a PNG and its width on the screen.

    None while there is no line of metrics.
    """
    from matplotlib.figure import Figure  # only where somebody looks: every process of a training imports this module
    from matplotlib.image import imread
    from matplotlib.ticker import MaxNLocator

    metrics = read_metrics(folder)
    losses = [name for name in metrics if name.endswith("/loss")]
    if not losses or metrics.empty:
        return None
    held_out = [name for name in metrics if name.startswith("test/")]
    pictures = _pictures(folder)
    figure = Figure(figsize=(10.0 if pictures else 5.0, 3.2), dpi=_SCREEN * _SHARP, layout="constrained")
    axes = figure.subplots(1, 2 if pictures else 1, squeeze=False, width_ratios=(1, 1) if pictures else None)[0]
    for name in losses + held_out:
        known = metrics[["iteration", name]].dropna()
        axes[0].plot(
            known["iteration"], known[name], label=name.removesuffix("/loss"), marker="o" if name in held_out else ""
        )
    axes[0].set(xlabel="iteration", ylabel="loss", title=f"{folder.name}, iteration {int(metrics['iteration'].max())}")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(fontsize=8)
    axes[0].grid(alpha=0.3)
    if pictures:
        axes[1].imshow(imread(pictures[-1]), interpolation="nearest")
        axes[1].set(xticks=[], yticks=[], title=pictures[-1].stem)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue(), round(figure.get_figwidth() * _SCREEN)
