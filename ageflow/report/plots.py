"""Plots, by seaborn: Figure 1 (top), training curves, predicted ages, the identity–age trade-off, GLOW's diagnosis.

Seaborn is imported where something is drawn: it brings pyplot, and takes two seconds.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ageflow.data.records import AGE_GROUPS, GROUP_EDGES
from ageflow.flows.glow import GlowReport
from ageflow.report import drawing
from ageflow.report.drawing import COLUMN, HUES, NORMAL, SMALL, Figure, message, tidy
from ageflow.report.statistics import Bootstrap
from ageflow.training.metrics import read_metrics
from ageflow.translation.methods import METHODS
from ageflow.translation.prototypes import Latents

_MOST_NUMBERS = 250_000_000  # of latents in memory at once: 1 GB
_MOST_FACES = 2000
_COMPONENTS = 50
_NOT_DRAWN = ("seconds", "skipped")
_JUDGES = {"age_accuracy": "the run's classifier", "second_accuracy": "the second judge"}


@dataclass(frozen=True)
class Plane:
    """Latents projected to two planes.

    Attributes:
        table: the faces shown, one row each.
        principal: [N,2], the first two principal components of the training faces.
        explained: their shares of the variance.
        supervised: [N,2], discriminants fitted on the training faces: across age groups, and across `attribute`
            (where there is none: the second one across age groups). None: too few faces to fit.
        attribute: what the second discriminant separates; None for the age groups.
    """

    table: pd.DataFrame
    principal: np.ndarray
    explained: np.ndarray
    supervised: np.ndarray | None
    attribute: str | None


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
    chosen = np.sort(np.random.default_rng(seed).permutation(len(latents.table))[:most])
    table = latents.table.iloc[chosen].reset_index(drop=True)
    training, values = (table["split"] == "train").to_numpy(), latents.batch(chosen).numpy()
    components = int(min(_COMPONENTS, max(2, training.sum() // 10)))
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(values[training])
    scores, groups = pca.transform(values), table["group"].to_numpy()
    by_age, supervised = _discriminants(scores, groups, training), None
    by_attribute = None
    if attribute in table:
        known = table[attribute].notna().to_numpy()
        by_attribute = _discriminants(scores, table[attribute].astype(str).to_numpy(), training & known)
    if by_age is not None:
        # Of two groups there is one discriminant only.
        second = by_age[:, min(1, by_age.shape[1] - 1)] if by_attribute is None else by_attribute[:, 0]
        sign = np.sign(np.corrcoef(by_age[:, 0], groups)[0, 1]) or 1.0  # old to the right
        supervised = np.stack([sign * by_age[:, 0], second], axis=1)
    named = attribute if by_attribute is not None else None
    return Plane(table, scores[:, :2], pca.explained_variance_ratio_[:2], supervised, named)


def _discriminants(scores: np.ndarray, labels: np.ndarray, training: np.ndarray) -> np.ndarray | None:
    """Linear discriminants fitted on the training rows; None where they have but one label or too few rows."""
    if not 1 < len(set(labels[training])) < training.sum():
        return None
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    return model.fit(scores[training], labels[training]).transform(scores)


def latent_scatter(plane: Plane, attributes: Sequence[str] = ("gender",)) -> Figure:
    """Figure 1, top: faces in the latent space, coloured by age group and by each attribute.

    On the left, the plane of the principal components; on the right, that of the discriminants. Test faces, which took
    no part in fitting either, are filled; training faces are faint.
    """
    import seaborn

    table = plane.table.assign(**{"age group": plane.table["group"].map(dict(enumerate(AGE_GROUPS)))})
    names = ["age group", *(name for name in attributes if name in table and table[name].notna().any())]
    first, second = (f" ({share:.1%})" for share in plane.explained)
    planes = [(plane.principal, "principal components", f"first{first}", f"second{second}")]
    if plane.supervised is not None:
        planes.append(
            (plane.supervised, "discriminants", "of age group", f"of {plane.attribute or 'age group, second'}")
        )
    figure = Figure(COLUMN, 1.75 * len(names) + 0.25)
    for part, name in zip(np.atleast_1d(figure.subfigures(len(names), 1)), names, strict=True):
        kinds = list(AGE_GROUPS) if name == "age group" else sorted(table[name].dropna().unique())
        colours = dict(zip(kinds, drawing.GROUP_COLOURS if name == "age group" else HUES * len(kinds), strict=False))
        for axes, (points, title, across, up) in zip(
            part.subplots(1, len(planes), squeeze=False)[0], planes, strict=True
        ):
            for split, alpha, size in (("train", 0.3, 3), ("test", 0.9, 7)):
                own = (table["split"] == split).to_numpy()
                look = {"hue": table.loc[own, name].to_numpy(), "hue_order": kinds, "palette": colours}
                x, y = points[own].T
                seaborn.scatterplot(x=x, y=y, ax=axes, s=size, alpha=alpha, linewidth=0, legend=False, **look)
            last = name == names[-1]
            tidy(axes, across if last else "", up)
            axes.set_title(title if name == names[0] else "", fontsize=NORMAL, pad=3)
            axes.locator_params(nbins=4)
        for kind in kinds:
            axes.scatter([], [], s=14, color=colours[kind], label=kind)
        drawing.outside_legend(
            part, axes, "outside upper center", ncols=min(len(kinds), 4), handletextpad=0.1, columnspacing=1.0
        )
    return figure


def training_curves(folder: Path, columns: int = 4, side: float = 3.2) -> Figure:
    """Every number of a training against the iteration, a panel each, with its running mean where there are many.

    Arguments:
        folder: the training's folder, with its ``metrics.jsonl``.
        columns: panels in a row.
        side: width of a panel, inches.
    """
    import seaborn

    metrics = read_metrics(folder)
    names = [name for name in metrics.columns if name not in {"iteration", *_NOT_DRAWN}]
    if not names:
        return message(f"{folder.name}: no metrics yet")
    rows, columns = -(-len(names) // columns), min(columns, len(names))
    figure = Figure(side * columns, 0.72 * side * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        line = metrics[["iteration", name]].dropna()
        dense = len(line) > 30
        look = {"x": "iteration", "y": name, "ax": axes, "color": HUES[1], "errorbar": None}
        seaborn.lineplot(line, **look, alpha=0.3 if dense else 1, marker="" if dense else "o", markersize=3)
        if dense:
            smooth = line[name].rolling(len(line) // 25, min_periods=1).mean()
            seaborn.lineplot(line.assign(**{name: smooth}), **look)
        tidy(axes)
        narrow = len(name) > 13 * side  # letters of 7 points that fit over a panel
        axes.set_title(name.replace("/", "/\n", 1) if narrow else name, fontsize=SMALL, pad=3)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(2 * side)), integer=True))
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    figure.suptitle(f"{folder.name}, against iterations", fontsize=NORMAL)
    return figure


def age_curves(rows: pd.DataFrame, resamples: int = 500) -> pd.DataFrame:
    """The mean predicted age of each method at each target age, with its 95 % bootstrap interval over identities.

    Arguments:
        rows: judged faces at continuous targets: columns method, identity, target_age and predicted_age (years).
        resamples: of the bootstrap.

    Returns:
        Columns method (its name), target_age, value, low and high (years; NaN where there is one identity), faces,
        identities; methods in the order of `METHODS`, ages rising.
    """
    found = []
    for method, name in METHODS.items():
        for target, own in rows[rows["method"] == method].groupby("target_age"):
            mean = Bootstrap(resamples).mean(own.rename(columns={"predicted_age": "value"}))
            found.append({"method": name, "target_age": target} | asdict(mean))
    return pd.DataFrame(found)


def age_plot(curves: pd.DataFrame) -> Figure:
    """Predicted age against target age, a line and a band a method.

    Dashed: where the predicted age would be the target. Dotted: where the age groups meet.

    Arguments:
        curves: see `age_curves`.
    """
    import seaborn

    figure = Figure(COLUMN, 3.1)
    axes = figure.subplots()
    ends = curves["target_age"].min() - 2, curves["target_age"].max() + 2  # years left and right of the lines
    axes.axline((ends[0], ends[0]), slope=1, color="0.35", linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)
    look = {"hue": "method", "style": "method", "errorbar": None, "linewidth": 1.4, "markersize": 4}
    seaborn.lineplot(curves, x="target_age", y="value", ax=axes, **look, **drawing.METHOD_LOOK)
    for method, own in curves.groupby("method", sort=False):
        colour = drawing.METHOD_LOOK["palette"][method]
        axes.fill_between(own["target_age"], own["low"], own["high"], color=colour, alpha=0.2, linewidth=0)
    low, high = axes.get_ylim()
    axes.set(xlim=ends, ylim=(min(low, ends[0]), max(high, ends[1])))
    edges = np.clip([ends[0], *(edge + 0.5 for edge in GROUP_EDGES), ends[1]], *ends)
    for edge in edges[1:-1]:
        axes.axvline(edge, color="0.6", linewidth=0.7, linestyle=":", zorder=0)
    for name, start, end in zip(AGE_GROUPS, edges, edges[1:], strict=False):
        if end - start > (ends[1] - ends[0]) / 10:  # else there is no room for its name
            axes.text((start + end) / 2, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", fontsize=SMALL)
    tidy(axes, "target age, years (dashed: predicted = target)", "predicted age, years")
    _method_legend(figure, axes)
    return figure


def trade_off_plot(curves: pd.DataFrame) -> Figure:
    """The identity–age trade-off: centred cosine against age accuracy, a line a method, a point a strength.

    Further right more ages are reached, further up more of the person is kept; large: the method as it is. Above by the
    run's classifier, below by the second judge.

    Arguments:
        curves: of `ageflow.evaluation.evaluate.strength_curves`.
    """
    import seaborn

    curves = curves.assign(method=curves["method"].map(METHODS))
    as_it_is = curves[np.isclose(curves["strength"], 1)]
    figure = Figure(COLUMN, 4.6)
    for axes, (column, judge) in zip(figure.subplots(2, 1, sharey=True), _JUDGES.items(), strict=True):
        look = {"x": column, "y": "cosine_centred", "hue": "method", "style": "method", "ax": axes}
        seaborn.lineplot(curves, **look, **drawing.METHOD_LOOK, sort=False, estimator=None, linewidth=1.4, markersize=4)
        points = {name: drawing.METHOD_LOOK[name] for name in ("palette", "markers")}
        seaborn.scatterplot(as_it_is, **look, **points, s=45, edgecolor="black", legend=False, zorder=3)
        tidy(axes, f"age accuracy by {judge}, %", "centred cosine")
    figure.axes[1].get_legend().remove()
    _method_legend(figure, figure.axes[0])
    return figure


def _method_legend(figure: Figure, axes: Axes) -> None:
    axes.get_legend().remove()
    drawing.outside_legend(figure, axes, "outside lower center", ncols=2, handlelength=3.2)


def glow_diagnosis(report: GlowReport) -> Figure:
    """Latents by level; condition numbers, log-determinants and round-trip errors by flow step.

    A flow that fits has latents of mean 0 and standard deviation 1. A 1×1 convolution whose condition number runs
    away takes the round trip with it.
    """
    import seaborn

    figure = Figure(11, 5.6)
    latents, *others = figure.subplots(2, 2).ravel()
    levels, steps = report.levels, report.steps.assign(number=range(len(report.steps)))
    latents.errorbar(levels["level"], levels["mean"], levels["standard_deviation"], fmt="o", color=HUES[1], capsize=4)
    latents.set(title="latents: mean ± standard deviation", xlabel="level", xticks=levels["level"])
    for line in (-1, 0, 1):
        latents.axhline(line, color="grey", linewidth=0.6, linestyle=":")
    titles = {
        "condition": "condition number of the 1×1 convolution",
        "log_det": "log-determinant, nats a dimension",
        "round_trip": f"error of the round trip (the whole flow: {report.round_trip:.1e})",
    }
    for axes, colour, (column, title) in zip(others, (HUES[0], HUES[2], HUES[3]), titles.items(), strict=True):
        seaborn.lineplot(steps, x="number", y=column, marker="o", color=colour, ax=axes)
        axes.set(title=title, xlabel="flow step, the finest level first", ylabel="")
        axes.set_yscale("linear" if column == "log_det" else "log")
        for first in steps.index[steps["step"] == 0][1:]:
            axes.axvline(first - 0.5, color="grey", linewidth=0.6, linestyle=":")
    return figure
