"""Plots: Figure 1 (top), the latents in the plane, and training curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from ageflow.data.records import AGE_GROUPS
from ageflow.report.picture import Picture
from ageflow.report.style import COLUMN, GROUP_COLOURS, HUES, NORMAL, SMALL
from ageflow.training.metrics import read_metrics
from ageflow.translation.latents import Latents

_MOST_NUMBERS = 250_000_000  # of latents in memory at once: 1 GB
_MOST_FACES = 2000
_COMPONENTS = 50


class Plane:
    """Latents projected to planes.

    Attributes:
        table: the faces shown, one row each.
        principal: [N,2], the first two principal components of the training faces.
        explained: their shares of the variance.
        supervised: [N,2], discriminants fitted on the training faces: across age groups, and across `attribute`
            (where there is none: the second one across age groups).
        attribute: what the second discriminant separates; None for the age groups.
        fitted: whether `supervised` could be fitted; with too few faces it is zero.
    """

    def __init__(self, table: pd.DataFrame, principal: np.ndarray, explained: np.ndarray) -> None:
        self.table, self.principal, self.explained = table, principal, explained
        self.supervised = np.zeros_like(principal)
        self.attribute: str | None = None
        self.fitted = False


def project_latents(latents: Latents, attribute: str | None = "gender", seed: int = 0) -> Plane:
    """Project latents to two planes: principal components, and linear discriminants.

    Both are fitted on training faces. The discriminants are taken from the first principal components (at most 50,
    and at most a tenth of the faces), as they would fit noise in all dimensions of a latent.

    Arguments:
        latents: encoded faces.
        attribute: a column of their table to separate in the second plane; None for none.
        seed: of the choice of faces where there are more than fit into memory.
    """
    from sklearn.decomposition import PCA  # here: it takes two seconds to import

    most = min(_MOST_FACES, max(20, _MOST_NUMBERS // latents.dimensions))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(latents.table))[:most])
    table = latents.table.iloc[chosen].reset_index(drop=True)
    training = (table["split"] == "train").to_numpy()
    values = latents.batch(chosen).numpy()
    components = int(min(_COMPONENTS, max(2, training.sum() // 10)))
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(values[training])
    scores = pca.transform(values)
    plane = Plane(table, scores[:, :2], pca.explained_variance_ratio_[:2])
    groups = table["group"].to_numpy()
    by_age = _discriminants(scores, groups, training)
    plane.fitted = by_age is not None
    if by_age is not None:
        by_attribute = None
        if attribute is not None and attribute in table:
            known = table[attribute].notna().to_numpy()
            by_attribute = _discriminants(scores, table[attribute].astype(str).to_numpy(), training & known)
        plane.attribute = attribute if by_attribute is not None else None
        # Of two groups there is one discriminant only.
        second = by_attribute[:, 0] if by_attribute is not None else by_age[:, min(1, by_age.shape[1] - 1)]
        sign = np.sign(np.corrcoef(by_age[:, 0], groups)[0, 1]) or 1.0  # old to the right
        plane.supervised = np.stack([sign * by_age[:, 0], second], axis=1)
    return plane


def latent_scatter(plane: Plane, attributes: Sequence[str] = ("gender",)) -> Picture:
    """Figure 1, top: faces in the latent space, coloured by age group and by each attribute.

    On the left, the plane of the principal components; on the right, that of the discriminants. Test faces, which took
    no part in fitting either, are filled; training faces are faint.
    """
    attributes = _told(plane, attributes)
    picture = Picture(COLUMN, scatter_height(attributes))
    draw_scatter(picture, plane, attributes)
    return picture


def scatter_height(attributes: Sequence[str]) -> float:
    """Inches that `draw_scatter` needs at the width of a column."""
    return 1.75 * (1 + len(attributes)) + 0.25


def draw_scatter(figure: FigureBase, plane: Plane, attributes: Sequence[str]) -> None:
    """Draw `latent_scatter` into a figure or a part of one."""
    names = ["group", *_told(plane, attributes)]
    first, second = (f" ({share:.1%})" for share in plane.explained)
    planes = (
        (plane.principal, "principal components", f"first{first}", f"second{second}"),
        (plane.supervised, "discriminants", "of age group", f"of {plane.attribute or 'age group, second'}"),
    )
    for row, (name, part) in enumerate(zip(names, np.atleast_1d(figure.subfigures(len(names), 1)), strict=True)):
        for axes, (points, title, across, up) in zip(part.subplots(1, 2), planes, strict=True):
            kinds = _scatter(axes, points, plane.table, name)
            axes.set_title(title if row == 0 else "", fontsize=NORMAL, pad=3)
            axes.set_xlabel(across if row == len(names) - 1 else "", fontsize=SMALL)
            axes.set_ylabel(up, fontsize=SMALL, labelpad=1)
        part.legend(
            handles=kinds,
            **{"loc": "outside upper center", "ncols": min(len(kinds), 4), "fontsize": SMALL, "frameon": False},
            **{"handletextpad": 0.1, "columnspacing": 1.0, "borderpad": 0.1},
        )
        if not plane.fitted:
            axes.text(0.5, 0.5, "too few faces to fit", transform=axes.transAxes, ha="center", fontsize=SMALL)


def training_curves(
    folder: Path, leave_out: Sequence[str] = ("seconds", "skipped"), columns: int = 4, side: float = 3.2
) -> Picture:
    """Every number of a training against the iteration, with its running mean.

    Arguments:
        folder: the training's folder, with its ``metrics.jsonl``.
        leave_out: numbers not to draw.
        columns: panels in a row.
        side: width of a panel, inches.
    """
    metrics = read_metrics(folder)
    names = [name for name in metrics.columns if name not in {"iteration", *leave_out}]
    rows = max(1, -(-len(names) // columns))
    columns = max(1, min(columns, len(names)))
    picture = Picture(side * columns, 0.72 * side * rows + 0.3)
    grid = picture.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        line = metrics[["iteration", name]].dropna()
        smooth = line[name].rolling(max(1, len(line) // 25), min_periods=1).mean()
        dense = len(line) > 30
        axes.plot(line["iteration"], line[name], color=HUES[1], alpha=0.3 if dense else 1, marker="" if dense else ".")
        if dense:
            axes.plot(line["iteration"], smooth, color=HUES[1])
        narrow = len(name) > 13 * side  # letters of 7 points that fit over a panel
        axes.set_title(name.replace("/", "/\n", 1) if narrow else name, fontsize=SMALL, pad=3)
        axes.tick_params(labelsize=SMALL)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(2 * side)), integer=True))
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    if not names:
        grid[0].text(0.5, 0.5, "no metrics yet", ha="center")
    picture.suptitle(f"{folder.name}, against iterations", fontsize=NORMAL)
    return picture


def _discriminants(scores: np.ndarray, labels: np.ndarray, training: np.ndarray) -> np.ndarray | None:
    """Linear discriminants fitted on the training rows; None where they have but one label or too few rows."""
    if len(set(labels[training])) < 2 or training.sum() <= len(set(labels[training])):
        return None
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    return model.fit(scores[training], labels[training]).transform(scores)


def _told(plane: Plane, attributes: Sequence[str]) -> list[str]:
    """Those of the attributes that are known of some face."""
    return [name for name in attributes if name in plane.table and plane.table[name].notna().any()]


def _scatter(axes: Axes, points: np.ndarray, table: pd.DataFrame, name: str) -> list[Artist]:
    """Draw the points in the colours of a column of the table; what a legend shows of each of its values."""
    if name == "group":
        kinds = list(enumerate(AGE_GROUPS))
        colours = GROUP_COLOURS
    else:
        kinds = [(value, str(value)) for value in sorted(table[name].dropna().unique())]
        colours = tuple(HUES[place % len(HUES)] for place in range(len(kinds)))
    held_out = (table["split"] == "test").to_numpy()
    shown = []
    for (value, label), colour in zip(kinds, colours, strict=True):
        mine = (table[name] == value).to_numpy()
        for rows, alpha, size in ((mine & ~held_out, 0.3, 3), (mine & held_out, 0.9, 7)):
            axes.scatter(*points[rows].T, s=size, color=colour, alpha=alpha, linewidths=0)
        shown.append(axes.scatter([], [], s=14, color=colour, label=label))
    axes.tick_params(labelsize=SMALL, length=2, pad=1.5)
    axes.locator_params(nbins=4)
    axes.spines[["top", "right"]].set_visible(False)
    return shown
