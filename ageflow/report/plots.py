"""Plots: ages, Figure 1 (top), training curves, predicted ages, the identity–age trade-off, GLOW's diagnosis.

Seaborn is imported where something is drawn: it brings pyplot, and takes two seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS, AgeGroups
from ageflow.flows.glow import GlowReport
from ageflow.report import drawing
from ageflow.report.drawing import COLUMN, HUES, NORMAL, SMALL, Figure, group_colours, message, tidy
from ageflow.report.statistics import Bootstrap
from ageflow.training.metrics import read_metrics
from ageflow.translation.methods import METHODS
from ageflow.translation.prototypes import Latents

_JUDGES = {"age_accuracy": "the run's classifier", "second_accuracy": "the second judge"}


def age_histogram(faces: Faces) -> Figure:
    """Faces per year of age, coloured by age group; the test half is the darker foot of each bar."""
    import seaborn

    if not faces.ages_known:
        return message("The ages of this data set are not known.")
    labels = faces.age_groups.labels
    table = faces.table.assign(**{"age group": faces.table["group"].map(dict(enumerate(labels)))})
    figure = Figure(8.4, 2.6)
    axes = figure.subplots()
    bars = {"x": "age", "discrete": True, "multiple": "stack", "shrink": 0.9, "linewidth": 0, "ax": axes}
    colours = {"hue": "age group", "hue_order": labels, "palette": group_colours(len(labels))}
    for part, alpha in ((table, 0.55), (table[table["split"] == "test"], 1.0)):
        seaborn.histplot(part, **bars, **colours, alpha=alpha, legend=part is table)
    tidy(axes, "age, years", "faces")
    return figure


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
        age_groups: the faces'.
    """

    table: pd.DataFrame
    principal: np.ndarray
    explained: np.ndarray
    supervised: np.ndarray | None
    attribute: str | None
    age_groups: AgeGroups = PAPER_GROUPS


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

    most = min(2000, max(20, 250_000_000 // latents.dimensions))  # faces, and numbers: 1 GB
    chosen = np.sort(np.random.default_rng(seed).permutation(len(latents.table))[:most])
    table = latents.table.iloc[chosen].reset_index(drop=True)
    training, values = (table["split"] == "train").to_numpy(), latents.batch(chosen).numpy()
    components = int(min(50, max(2, training.sum() // 10)))
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(values[training])
    scores, groups = pca.transform(values), table["group"].to_numpy()
    by_age = _discriminants(scores, groups, training)
    by_attribute = supervised = None
    if attribute in table:
        labelled = training & table[attribute].notna().to_numpy()
        by_attribute = _discriminants(scores, table[attribute].astype(str).to_numpy(), labelled)
    if by_age is not None:
        second = by_age[:, :2] if by_attribute is None else by_attribute  # of two groups there is one discriminant only
        sign = np.sign(np.corrcoef(by_age[:, 0], groups)[0, 1]) or 1.0  # old to the right
        supervised = np.stack([sign * by_age[:, 0], second[:, -1]], axis=1)
    named = attribute if by_attribute is not None else None
    return Plane(table, scores[:, :2], pca.explained_variance_ratio_[:2], supervised, named, latents.age_groups)


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

    ages = plane.age_groups.labels
    table = plane.table.assign(**{"age group": plane.table["group"].map(dict(enumerate(ages)))})
    names = ["age group", *(name for name in attributes if name in table and table[name].notna().any())]
    first, second = (f" ({share:.1%})" for share in plane.explained)
    planes = [(plane.principal, "principal components", f"first{first}", f"second{second}")]
    if plane.supervised is not None:
        up = f"of {plane.attribute or 'age group, second'}"
        planes.append((plane.supervised, "discriminants", "of age group", up))
    figure = Figure(COLUMN, 1.75 * len(names) + 0.25)
    for part, name in zip(np.atleast_1d(figure.subfigures(len(names), 1)), names, strict=True):
        kinds = list(ages) if name == "age group" else sorted(table[name].dropna().unique())
        colours = dict(zip(kinds, group_colours(len(ages)) if name == "age group" else HUES * len(kinds), strict=False))
        panels = part.subplots(1, len(planes), squeeze=False)[0]
        for axes, (points, title, across, up) in zip(panels, planes, strict=True):
            for split, alpha, size in (("train", 0.3, 3), ("test", 0.9, 7)):
                own = table.assign(x=points[:, 0], y=points[:, 1])[table["split"] == split]
                look = {"hue": name, "palette": colours, "s": size, "alpha": alpha, "linewidth": 0}
                seaborn.scatterplot(own, x="x", y="y", ax=axes, **look, legend=False)
            tidy(axes, across if name == names[-1] else "", up)
            axes.set_title(title if name == names[0] else "", fontsize=NORMAL, pad=3)
            axes.locator_params(nbins=4)
        for kind in kinds:
            panels[0].scatter([], [], s=14, color=colours[kind], label=kind)
        drawing.outside_legend(part, "upper", ncols=min(len(kinds), 4), handletextpad=0.1, columnspacing=1.0)
    return figure


def training_curves(folder: Path, columns: int = 4, side: float = 3.2) -> Figure:
    """Every number of a training against the iteration, a panel each, with its running mean where there are many.

    Arguments:
        folder: the training's folder, with its ``metrics.jsonl``.
        columns: panels in a row.
        side: width of a panel, inches.
    """
    metrics = read_metrics(folder).drop(columns=["seconds", "skipped"], errors="ignore")
    if metrics.empty:
        return message(f"{folder.name}: no metrics yet")
    metrics = metrics.set_index("iteration")
    rows, columns = -(-len(metrics.columns) // columns), min(columns, len(metrics.columns))
    figure = Figure(side * columns, 0.72 * side * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(metrics.columns) :]:
        axes.set_axis_off()
    for axes, name in zip(grid, metrics, strict=False):
        line = metrics[name].dropna()
        dense = len(line) > 30
        axes.plot(line, color=HUES[1], alpha=0.3 if dense else 1, marker="" if dense else "o", markersize=3)
        if dense:
            axes.plot(line.rolling(len(line) // 25, min_periods=1).mean(), color=HUES[1])
        tidy(axes)
        narrow = len(name) > 13 * side  # letters of 7 points that fit over a panel
        axes.set_title(name.replace("/", "/\n", 1) if narrow else name, fontsize=SMALL, pad=3)
        axes.locator_params(axis="x", nbins=max(2, int(2 * side)), integer=True)
    figure.suptitle(f"{folder.name}, against iterations", fontsize=NORMAL)
    return figure


def age_curves(rows: pd.DataFrame, resamples: int = 500, titles: Mapping[str, str] = METHODS) -> pd.DataFrame:
    """The mean predicted age of each method at each target age, with its 95 % bootstrap interval over identities.

    Arguments:
        rows: judged faces at continuous targets: columns method, identity, target_age and predicted_age (years).
        resamples: of the bootstrap.
        titles: of the methods, by name.

    Returns:
        Columns method (its title), target_age, value, low and high (years; NaN where there is one identity), faces,
        identities; methods in the order of `titles`, ages rising.
    """
    found = []
    for method, name in titles.items():
        for target, own in rows[rows["method"] == method].groupby("target_age"):
            mean = Bootstrap(resamples).mean(own.rename(columns={"predicted_age": "value"}))
            found.append({"method": name, "target_age": target} | asdict(mean))
    return pd.DataFrame(found)


def age_plot(curves: pd.DataFrame, age_groups: AgeGroups = PAPER_GROUPS) -> Figure:
    """Predicted age against target age, a line and a band a method.

    Dashed: where the predicted age would be the target. Dotted: where the age groups meet.

    Arguments:
        curves: see `age_curves`.
        age_groups: the run's.
    """
    figure = Figure(COLUMN, 3.1)
    axes = figure.subplots()
    axes.axline((40, 40), slope=1, color="0.35", linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)
    _method_lines(curves, axes, "target_age", "value")
    for method, own in curves.groupby("method", sort=False):
        colour = drawing.method_look(curves["method"])["palette"][method]
        axes.fill_between(own["target_age"], own["low"], own["high"], color=colour, alpha=0.2, linewidth=0)
    for edge in age_groups.bounds:
        axes.axvline(edge + 0.5, color="0.6", linewidth=0.7, linestyle=":", zorder=0)
    tidy(axes, "target age, years (dashed: predicted = target)", "predicted age, years")
    drawing.outside_legend(figure, ncols=2, handlelength=3.2)
    return figure


def trade_off_plot(
    curves: pd.DataFrame, titles: Mapping[str, str] = METHODS, points: pd.DataFrame | None = None
) -> Figure:
    """The identity–age trade-off: centred cosine against age accuracy, a line a method, a point a strength.

    Further right more ages are reached, further up more of the person is kept; large: the method as it is. Above by the
    run's classifier, below by the second judge.

    Arguments:
        curves: of `ageflow.evaluation.evaluate.strength_curves`.
        titles: of the methods, by name.
        points: more panels below, against the age accuracy: method (its title), age_accuracy (%), and a column a panel,
            named by what it is; NaN where a method has none.
    """
    curves = curves.assign(method=curves["method"].map(titles))
    looks = drawing.method_look(curves["method"])
    as_it_is = curves[np.isclose(curves["strength"], 1)]
    panels = [(judge, "cosine_centred", as_it_is) for judge in _JUDGES]
    panels += [("age_accuracy", name, points) for name in ([] if points is None else points.columns[2:])]
    figure = Figure(COLUMN, 1.0 + 1.8 * len(panels) + 0.1 * max(0, curves["method"].nunique() - 6))
    grid = figure.subplots(len(panels), 1)
    grid[1].sharey(grid[0])
    for axes, (judge, up, large) in zip(grid, panels, strict=True):
        if large is as_it_is:
            _method_lines(curves, axes, judge, up)
        for name, own in large.groupby("method"):
            look = {"marker": looks["markers"][name], "color": looks["palette"][name]}
            axes.scatter(own[judge], own[up], s=45, edgecolor="black", zorder=3, **look)
        tidy(axes, f"age accuracy by {_JUDGES[judge]}, %", up.replace("cosine_centred", "centred cosine"))
    drawing.outside_legend(figure, ncols=2, handlelength=3.2)
    return figure


def _method_lines(table: pd.DataFrame, axes: Axes, x: str, y: str) -> None:
    import seaborn

    look = drawing.method_look(table["method"]) | {"hue": "method", "style": "method"}
    seaborn.lineplot(table, x=x, y=y, ax=axes, sort=False, estimator=None, linewidth=1.4, markersize=4, **look)


def glow_diagnosis(report: GlowReport) -> Figure:
    """Latents by level; condition numbers, log-determinants and round-trip errors by flow step.

    A flow that fits has latents of mean 0 and standard deviation 1. A 1×1 convolution whose condition number runs
    away takes the round trip with it.
    """
    round_trip = f"error of the round trip, by flow step (the whole flow: {report.round_trip:.1e})"
    panels = [
        (report.levels.set_index("level"), ["mean", "standard_deviation"], "latents, by level", False),
        (report.steps, ["condition"], "condition number of the 1×1 convolution, by flow step", True),
        (report.steps, ["log_det"], "log-determinant, nats a dimension, by flow step", False),
        (report.steps, ["round_trip"], round_trip, True),
    ]
    figure = Figure(11, 5.6)
    for axes, (table, columns, title, log) in zip(figure.subplots(2, 2).ravel(), panels, strict=True):
        table[columns].plot(ax=axes, title=title, logy=log, marker="o", grid=True, legend=len(columns) > 1)
    return figure
