"""One look for every figure: a column's width, the sizes of text, colours that the colour-blind tell apart."""

from dataclasses import dataclass
from typing import Any

from ageflow.translation.methods import METHODS

COLUMN = 3.3  # inches, of a page of two columns
SMALL = 7  # points: the least that is read in print
NORMAL = 8

INPUT = "#d62728"  # the paper's red frame around a face that goes in
# Ordered groups take steps of one scale, attributes take hues (Okabe and Ito's).
GROUP_COLOURS = ("#fcbf6b", "#ee7b51", "#b5367a", "#3b0f70")
HUES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class Line:
    """How the line of a method looks: three ways to tell it from the others, of which one is enough."""

    color: str
    linestyle: Any
    marker: str


LINES: dict[str, Line] = dict(
    zip(
        METHODS,
        (
            Line("#e69f00", (0, (6, 1.5)), "s"),
            Line("#009e73", (0, (5, 1.5, 1, 1.5)), "^"),
            Line("#cc79a7", (0, (1, 1)), "D"),
            Line("#0072b2", "-", "o"),
        ),
        strict=True,
    )
)

# What Matplotlib needs to know while it writes a file.
OUTPUT = {
    "pdf.fonttype": 42,  # TrueType: text stays text, and journals take it; the default, Type 3, they refuse
    "pdf.use14corefonts": False,
    "svg.fonttype": "none",
}
