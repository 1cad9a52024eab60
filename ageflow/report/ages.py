"""The figure that the paper lacks: how old the methods' faces are judged, against the age they were made for."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ageflow.data.records import AGE_GROUPS, GROUP_EDGES
from ageflow.report.estimates import estimate
from ageflow.report.picture import Picture
from ageflow.report.style import COLUMN, LINES, NORMAL, SMALL
from ageflow.translation.methods import METHODS

AGES_FILE = "continuous.parquet"  # in the run's evaluation folder; 06_ablations.ipynb writes it
_COLUMNS = ("method", "identity", "target_age", "predicted_age")
_RESAMPLES = 500
_MARGIN = 2.0  # years left of the first target age and right of the last


def read_ages(file: Path) -> pd.DataFrame:
    """The judged ages of faces made for continuous target ages.

    Arguments:
        file: one row a face and target age, columns method (a key of `METHODS`), identity, target_age and
            predicted_age (years), and more.

    Raises:
        ValueError: a column is missing, a method is unknown, an age is not finite, or there is no row.
    """
    table = pd.read_parquet(file)
    missing = [name for name in _COLUMNS if name not in table]
    if missing or table.empty:
        what = f"lacks {', '.join(missing)}" if missing else "has no rows"
        raise ValueError(f"{file} {what}: run 06_ablations.ipynb again")
    unknown = sorted(set(table["method"]) - set(METHODS))
    if unknown:
        raise ValueError(f"{file} is of methods {unknown}: the methods are {', '.join(METHODS)}")
    if not np.isfinite(table[["target_age", "predicted_age"]].to_numpy(float)).all():
        raise ValueError(f"{file} holds ages that are no numbers: run 06_ablations.ipynb again")
    return table


def age_curves(table: pd.DataFrame, resamples: int = _RESAMPLES) -> pd.DataFrame:
    """The mean predicted age of each method at each target age, with its 95 % bootstrap interval over identities.

    Arguments:
        table: see `read_ages`.
        resamples: of the bootstrap.

    Returns:
        Columns method, target_age, value, low and high (years; NaN where there is one identity), faces, identities;
        methods in the order of `METHODS`, ages rising.
    """
    rows = []
    for method in METHODS:
        of_method = table[table["method"] == method]
        for target, own in of_method.groupby("target_age"):
            told = estimate(own.rename(columns={"predicted_age": "value"}), resamples)
            numbers = {name: getattr(told, name) for name in ("value", "low", "high", "faces", "identities")}
            rows.append({"method": method, "target_age": float(target), **numbers})
    return pd.DataFrame(rows)


def draw_ages(curves: pd.DataFrame) -> Picture:
    """Predicted age against target age, a line and a band a method.

    Dashed: where the predicted age would be the target. Dotted: where the age groups meet.

    Arguments:
        curves: see `age_curves`.
    """
    picture = Picture(COLUMN, 3.1)
    axes = picture.subplots()
    across = (curves["target_age"].min() - _MARGIN, curves["target_age"].max() + _MARGIN)
    seen = curves[["value", "low", "high"]].to_numpy()
    up = (min(across[0], np.nanmin(seen) - _MARGIN), max(across[1], np.nanmax(seen) + _MARGIN))
    axes.set(xlim=across, ylim=up)
    _draw_groups(axes, across)
    axes.plot(across, across, color="0.35", linestyle=(0, (4, 3)), linewidth=0.9, label="predicted = target", zorder=1)
    for method, own in curves.groupby("method", sort=False):
        look = LINES[method]
        axes.fill_between(own["target_age"], own["low"], own["high"], color=look.color, alpha=0.2, linewidth=0)
        axes.plot(
            *(own["target_age"], own["value"], look.marker),
            **{"color": look.color, "linestyle": look.linestyle, "linewidth": 1.4, "markersize": 3.5},
            **{"markeredgecolor": "white", "markeredgewidth": 0.4, "label": METHODS[method]},
        )
    axes.set_xlabel("target age, years", fontsize=NORMAL)
    axes.set_ylabel("predicted age, years", fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    order = [*range(1, len(labels)), 0]  # the methods, then the line that none of them is
    picture.legend(
        *([handles[place] for place in order], [labels[place] for place in order]),
        **{"loc": "outside lower center", "ncols": 2, "fontsize": SMALL, "frameon": False, "handlelength": 3.2},
    )
    return picture


def _draw_groups(axes: Axes, across: tuple[float, float]) -> None:
    """Mark where the age groups meet, their names above."""
    edges = np.clip([across[0], *(edge + 0.5 for edge in GROUP_EDGES), across[1]], *across)
    for edge in edges[1:-1]:
        axes.axvline(edge, color="0.6", linewidth=0.7, linestyle=":", zorder=0)
    for name, start, end in zip(AGE_GROUPS, edges, edges[1:], strict=False):
        if end - start < (across[1] - across[0]) / 10:  # no room for its name, or not in the plot at all
            continue
        axes.text((start + end) / 2, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", fontsize=SMALL)
