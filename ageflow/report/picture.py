"""A Matplotlib figure that shows itself sharply in a notebook and saves itself whole."""

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from torch import Tensor

from ageflow.flows.glow import to_uint8
from ageflow.report.style import COLUMN, OUTPUT
from ageflow.run import write_atomically

_SCREEN = 96  # CSS pixels an inch
_COLUMN_SCREEN = 160  # of a figure for one column, whose text is small
_SHARP = 2  # pixels a CSS pixel


class Picture(Figure):
    """A figure without pyplot's global state: works without a display and in any thread.

    Arguments:
        width, height: inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self._screen = _COLUMN_SCREEN if width <= COLUMN else _SCREEN
        super().__init__(figsize=(width, height), dpi=self._screen * _SHARP, layout="constrained")

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = (round(inches * self._screen) for inches in self.get_size_inches())
        return self._render("png"), {"width": width, "height": height}

    def save(self, path: Path) -> list[Path]:
        """Write ``<path>.png`` and ``<path>.pdf``, each in one piece or not at all.

        In the PDF text is text, its TrueType fonts embedded, and lines are lines; only faces are pixels.
        """
        written = []
        for kind in ("png", "pdf"):
            target = path.with_name(f"{path.name}.{kind}")
            write_atomically(target, self._render(kind))
            written.append(target)
        return written

    def _render(self, kind: str) -> bytes:
        engine = self.get_layout_engine()
        if engine is not None:  # laid out once, whatever it is then written as
            engine.execute(self)
            self.set_layout_engine("none")
        content = io.BytesIO()
        # Not `savefig`, which draws everything once more beforehand, faces included.
        with rc_context(OUTPUT):
            if kind == "png":
                FigureCanvasAgg(self).print_png(content)
            else:
                FigureCanvasPdf(self).print_pdf(content)
        return content.getvalue()


def bare(axes: Axes) -> None:
    """Take ticks and frame away, keep the labels."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def show_face(axes: Axes, face: Tensor | np.ndarray, box: str | None = None) -> None:
    """Draw one face [3,S,S] (uint8, or float in [0,1]), in a box of a colour where one is named."""
    image = to_uint8(torch.as_tensor(face)).permute(1, 2, 0).cpu().numpy()
    axes.imshow(image, interpolation="lanczos")
    bare(axes)
    if box:
        for spine in axes.spines.values():
            spine.set(visible=True, color=box, linewidth=2)
