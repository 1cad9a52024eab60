"""Plots: Figure 1 (top), the latents in the plane, and training curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ageflow.data.records import AGE_GROUPS
from ageflow.report.picture import Picture
from ageflow.training.metrics import read_metrics
from ageflow.translation.latents import Latents

__all__ = ["Plane", "draw_scatter", "latent_scatter", "project_latents", "training_curves"]

# Ordered groups take steps of one scale, attributes take hues; both keep apart in grey and for the colour-blind.
_GROUP_COLOURS = ("#fcbf6b", "#ee7b51", "#b5367a", "#3b0f70")
_HUES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
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
    most = min(_MOST_FACES, max(20, _MOST_NUMBERS // latents.array.shape[1]))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(latents.table))[:most])
    table = latents.table.iloc[chosen].reset_index(drop=True)
    training = (table["split"] == "train").to_numpy()
    values = np.asarray(latents.array[chosen])
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
        second = by_attribute[:, 0] if by_attribute is not None else by_age[:, -1]
        sign = np.sign(np.corrcoef(by_age[:, 0], groups)[0, 1]) or 1.0  # old to the right
        plane.supervised = np.stack([sign * by_age[:, 0], second], axis=1)
    return plane


def latent_scatter(plane: Plane, attributes: Sequence[str] = ("gender",)) -> Picture:
    """Figure 1, top: faces in the latent space, coloured by age group and by each attribute.

    Above, the plane of the principal components; below, that of the discriminants. Test faces, which took no part in
    fitting either, are filled; training faces are faint.
    """
    picture = Picture(4.2 * (1 + len(attributes)), 7.2)
    draw_scatter(picture, plane, attributes)
    return picture


def draw_scatter(figure: FigureBase, plane: Plane, attributes: Sequence[str]) -> None:
    """Draw `latent_scatter` into a figure or a part of one."""
    attributes = [name for name in attributes if name in plane.table and plane.table[name].notna().any()]
    grid = figure.subplots(2, 1 + len(attributes), squeeze=False)
    share = " and ".join(f"{s:.1%}" for s in plane.explained)
    second = plane.attribute or "age group, second"
    for row, (points, title, labels) in enumerate(
        [
            (plane.principal, f"principal components ({share} of the variance)", ("first", "second")),
            (plane.supervised, "discriminants of the training faces", ("age group", second)),
        ]
    ):
        for column, name in enumerate(["group", *attributes]):
            axes = grid[row, column]
            _scatter(axes, points, plane.table, name)
            axes.set_title(f"by {'age group' if name == 'group' else name}\n{title}", fontsize=8)
            axes.set_xlabel(labels[0], fontsize=8)
            axes.set_ylabel(labels[1], fontsize=8)
    if not plane.fitted:
        grid[1, 0].text(0.5, 0.5, "too few faces to fit", transform=grid[1, 0].transAxes, ha="center")


def training_curves(folder: Path, leave_out: Sequence[str] = ("seconds", "skipped"), columns: int = 4) -> Picture:
    """Every number of a training against the iteration, with its running mean.

    Arguments:
        folder: the training's folder, with its ``metrics.jsonl``.
        leave_out: numbers not to draw.
        columns: panels in a row.
    """
    metrics = read_metrics(folder)
    names = [name for name in metrics.columns if name not in {"iteration", *leave_out}]
    rows = max(1, -(-len(names) // columns))
    columns = max(1, min(columns, len(names)))
    picture = Picture(3.2 * columns, 2.3 * rows + 0.3)
    grid = picture.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        line = metrics[["iteration", name]].dropna()
        smooth = line[name].rolling(max(1, len(line) // 25), min_periods=1).mean()
        dense = len(line) > 30
        axes.plot(line["iteration"], line[name], color=_HUES[1], alpha=0.3 if dense else 1, marker="" if dense else ".")
        if dense:
            axes.plot(line["iteration"], smooth, color=_HUES[1])
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    if not names:
        grid[0].text(0.5, 0.5, "no metrics yet", ha="center")
    picture.suptitle(f"{folder.name}, against iterations", fontsize=9)
    return picture


def _discriminants(scores: np.ndarray, labels: np.ndarray, training: np.ndarray) -> np.ndarray | None:
    """Linear discriminants fitted on the training rows; None where they have but one label or too few rows."""
    if len(set(labels[training])) < 2 or training.sum() <= len(set(labels[training])):
        return None
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    return model.fit(scores[training], labels[training]).transform(scores)


def _scatter(axes: Axes, points: np.ndarray, table: pd.DataFrame, name: str) -> None:
    if name == "group":
        kinds = list(enumerate(AGE_GROUPS))
        colours = _GROUP_COLOURS
    else:
        kinds = [(value, str(value)) for value in sorted(table[name].dropna().unique())]
        colours = tuple(_HUES[place % len(_HUES)] for place in range(len(kinds)))
    held_out = (table["split"] == "test").to_numpy()
    for (value, label), colour in zip(kinds, colours, strict=True):
        mine = (table[name] == value).to_numpy()
        for rows, alpha, size in ((mine & ~held_out, 0.25, 7), (mine & held_out, 0.9, 14)):
            axes.scatter(*points[rows].T, s=size, color=colour, alpha=alpha, linewidths=0)
        axes.scatter([], [], s=20, color=colour, label=label)
    axes.legend(fontsize=7, loc="upper right", framealpha=0.8, edgecolor="none")
    axes.tick_params(labelsize=7)
