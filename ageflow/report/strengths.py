"""The figure of what a method gives up of the person for an age: each moving faces less and more of the way."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ageflow.report.picture import Picture
from ageflow.report.style import COLUMN, LINES, NORMAL, SMALL
from ageflow.translation.methods import METHODS

STRENGTH_FILE = "strength.parquet"  # in the run's evaluation folder; 06_ablations.ipynb writes it
_JUDGES = {"age_accuracy": "the run's classifier", "second_accuracy": "the second judge"}


def draw_strengths(curves: pd.DataFrame) -> Picture:
    """The centred cosine against the age accuracy, a line a method, a point a strength; large: the method as it is.

    Further right more ages are reached, further up more of the person is kept. Above by the run's classifier, below by
    the second judge.

    Arguments:
        curves: of `ageflow.evaluation.scores.strength_curves`.
    """
    picture = Picture(COLUMN, 4.6)
    panels = picture.subplots(2, 1, sharey=True)
    for axes, (column, judge) in zip(panels, _JUDGES.items(), strict=True):
        _draw(axes, curves, column)
        axes.set_xlabel(f"age accuracy by {judge}, %", fontsize=NORMAL)
        axes.set_ylabel("centred cosine", fontsize=NORMAL)
        axes.tick_params(labelsize=SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(
        *(handles, labels),
        **{"loc": "outside lower center", "ncols": 2, "fontsize": SMALL, "frameon": False, "handlelength": 3.2},
    )
    return picture


def _draw(axes: Axes, curves: pd.DataFrame, column: str) -> None:
    for method, own in curves.groupby("method", sort=False):
        look, line = LINES[method], own[[column, "cosine_centred"]].to_numpy()
        axes.plot(
            *(*line.T, look.marker),
            **{"color": look.color, "linestyle": look.linestyle, "linewidth": 1.4, "markersize": 3},
            **{"markeredgecolor": "white", "markeredgewidth": 0.4, "label": METHODS[method]},
        )
        as_it_is = line[np.isclose(own["strength"], 1)]
        axes.plot(*as_it_is.T, look.marker, color=look.color, markersize=6.5, markeredgecolor="black", linestyle="")
