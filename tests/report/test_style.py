"""The look of the figures: told apart by everybody, readable in print."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from ageflow.report.style import GROUP_COLOURS, HUES, LINES

# What somebody sees who lacks a kind of cone: matrices on linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def seen(colour, cones):
    """The colour in CIELAB as it is seen with these cones."""
    coded = np.array(to_rgb(colour))
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SEEN[cones]) @ linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("cones", SEEN)
@pytest.mark.parametrize(
    "colours",
    [GROUP_COLOURS, HUES[:4], tuple(line.color for line in LINES.values())],
    ids=["age groups", "attributes", "methods"],
)
def test_colours_differ_for_the_colour_blind(colours, cones):
    nearest = min(deltaE_ciede2000(seen(a, cones), seen(b, cones)) for a, b in combinations(colours, 2))
    assert nearest > 10  # some 2 are just told apart side by side


def test_methods_differ_without_any_colour():
    for look in ("linestyle", "marker"):
        assert len({getattr(line, look) for line in LINES.values()}) == 4


def test_age_groups_darken_with_age():
    lightness = [seen(colour, "all cones")[0] for colour in GROUP_COLOURS]
    assert (np.diff(lightness) < -10).all()
