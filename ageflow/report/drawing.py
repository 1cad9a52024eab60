"""Figures without pyplot's global state, faces in them, and one look for all: width, text, colours."""

import base64
import io
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import matplotlib.figure
import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from torch import Tensor

from ageflow.flows.glow import to_uint8
from ageflow.run import write_atomically
from ageflow.translation.methods import METHODS

COLUMN, PAGE = 3.3, 6.9  # inches, of a page of two columns
SMALL, NORMAL = 7, 8  # points: the least that is read in print, and titles
INPUT = "#d62728"  # the paper's red frame around a face that goes in
# Ordered groups take steps of one scale, attributes take hues (Okabe and Ito's).
GROUP_COLOURS = ("#fcbf6b", "#ee7b51", "#b5367a", "#3b0f70")
HUES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Three ways to tell a method's line from the others, of which one is enough, as seaborn's lineplot takes them: those of
# the ablation's six, then of as many others as the baselines and one more, then again.
_COLOURS = ("#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#0072b2")
_COLOURS += ("#000000", "#7f7f7f", "#8c564b", "#9467bd", "#bcbd22", "#17becf", "#e377c2", "#1b5e20")
_DASHES = ((6, 1.5), (5, 1.5, 1, 1.5), (3, 1), (3, 1, 1, 1, 1, 1), (1, 1), "")
_DASHES += 2 * ("", (4, 1), (1, 2), (6, 1, 1, 1))
_LOOKS = {"palette": _COLOURS, "dashes": _DASHES, "markers": "s^vPDoXp*<>h8d"}

_SCREEN, _COLUMN_SCREEN = 96, 160  # CSS pixels an inch; more for a figure for one column, whose text is small
_SHARP = 2  # pixels a CSS pixel
# In a PDF text stays text, in TrueType: Type 3, the default, is what journals refuse.
_OUTPUT = {"pdf.fonttype": 42, "pdf.use14corefonts": False}


def group_colours(count: int) -> list[str]:
    """A colour for each of `count` age groups, from young to old."""
    scale = LinearSegmentedColormap.from_list("groups", GROUP_COLOURS, count)
    return [to_hex(scale(group)) for group in range(count)]


class Figure(matplotlib.figure.Figure):
    """A Matplotlib figure that shows itself sharply in a notebook and saves itself whole.

    Arguments:
        width, height: inches.
    """

    def __init__(self, width: float, height: float) -> None:
        screen = _COLUMN_SCREEN if width <= COLUMN else _SCREEN
        super().__init__(figsize=(width, height), dpi=screen * _SHARP, layout="constrained")
        self.get_layout_engine().set(w_pad=0.02, h_pad=0.02)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = (round(inches * self.dpi / _SHARP) for inches in self.get_size_inches())
        return self._render("png"), {"width": width, "height": height}

    def save(self, file: Path) -> None:
        """Write a ``.png`` or ``.pdf``, in one piece or not at all."""
        write_atomically(file, self._render(file.suffix[1:]))

    def _render(self, kind: str) -> bytes:
        layout = self.get_layout_engine()
        if self.stale:  # changed since it was drawn
            self._rendered: dict[str, bytes] = {}
            layout.execute(self)
        if kind not in self._rendered:
            content = io.BytesIO()
            self.set_layout_engine(None)  # with one, Matplotlib draws twice
            with rc_context(_OUTPUT):
                self.savefig(content, format=kind)
            self.set_layout_engine(layout)
            self._rendered[kind] = content.getvalue()
            self.stale = False  # savefig leaves it True
        return self._rendered[kind]


def method_look(titles: Iterable[str] = ()) -> dict[str, dict[str, object]]:
    """How each method's line looks: the ablation's, then the others of `titles` by their order."""
    named = dict.fromkeys([*METHODS.values(), *titles])
    return {kind: dict(zip(named, cycle(looks))) for kind, looks in _LOOKS.items()}


def picture_address(content: bytes, kind: str) -> str:
    """A picture file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def message(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(5.0, 0.5)
    figure.set_layout_engine("none")  # there are no axes to lay out
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=NORMAL)
    return figure


def tidy(axes: Axes, across: str = "", up: str = "") -> None:
    """Label the axes, in small letters, and take the frame away above and on the right."""
    axes.set_xlabel(across, fontsize=SMALL)
    axes.set_ylabel(up, fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def outside_legend(figure: matplotlib.figure.FigureBase, place: str = "lower", **more: object) -> None:
    """Take the legends out of the axes, and put the first, which stands for all, beside them."""
    handles = figure.axes[0].get_legend_handles_labels()
    for legend in filter(None, [axes.get_legend() for axes in figure.axes]):
        legend.remove()
    figure.legend(*handles, loc=f"outside {place} center", fontsize=SMALL, frameon=False, **more)


def bare(axes: Axes) -> None:
    """Take ticks and frame away, keep the labels."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_face(axes: Axes, face: Tensor | np.ndarray, box: str | None = None) -> None:
    """Draw one face [3,S,S] (uint8, or float in [0,1]), in a box of a colour where one is named."""
    axes.imshow(to_uint8(torch.as_tensor(face)).permute(1, 2, 0).cpu().numpy(), interpolation="lanczos")
    bare(axes)
    if box:
        axes.spines[:].set(visible=True, color=box, linewidth=2)
