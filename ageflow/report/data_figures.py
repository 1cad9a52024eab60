"""What a person looks at after preparing a data set (notebook 01)."""

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ageflow.data.align import EYES
from ageflow.data.faces import Faces
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.prepare import rejections, source_folder
from ageflow.data.records import AGE_GROUPS, GROUP_EDGES, NO_GROUP
from ageflow.report.drawing import GROUP_COLOURS, SMALL, Figure, message, tidy
from ageflow.report.grids import SIDE, Cell, face_grid, in_rows


def age_histogram(faces: Faces) -> Figure:
    """Faces per year of age, coloured by age group; the test half is the darker foot of each bar."""
    import seaborn  # here: it imports pyplot, and takes two seconds

    if not faces.ages_known:
        return message("The ages of this data set are not known.")
    counts = pd.crosstab(faces.table["group"], faces.table["split"]).reindex(range(len(AGE_GROUPS)), fill_value=0)
    names = [
        f"{AGE_GROUPS[n]}: {row.get('train', 0):,} train, {row.get('test', 0):,} test" for n, row in counts.iterrows()
    ]
    table = faces.table.assign(of=faces.table["group"].map(dict(enumerate(names))))
    figure = Figure(8.4, 2.6)
    axes = figure.subplots()
    for part, alpha in ((table, 0.55), (table[table["split"] == "test"], 1.0)):
        look = {"hue": "of", "hue_order": names, "palette": GROUP_COLOURS, "alpha": alpha, "linewidth": 0}
        seaborn.histplot(
            part, x="age", discrete=True, multiple="stack", shrink=0.9, ax=axes, legend=part is table, **look
        )
    for edge in GROUP_EDGES:
        axes.axvline(edge + 0.5, color="0.6", linewidth=0.8, linestyle=":")
    seaborn.move_legend(axes, "upper right", title=None, frameon=False, fontsize=SMALL)
    tidy(axes, "age, years", "faces")
    return figure


def group_sheet(faces: Faces, columns: int = 10, seed: int = 0) -> Figure:
    """A row of faces for each age group, drawn at random, with age and gender; one row where no ages are known."""
    random = np.random.default_rng(seed)
    groups = faces.table["group"].to_numpy()
    names = dict(enumerate(AGE_GROUPS)) if faces.ages_known else {NO_GROUP: "age unknown"}
    members = {name: np.flatnonzero(groups == group) for group, name in names.items()}
    rows = [_cells(faces, np.sort(random.permutation(own)[:columns])) for own in members.values()]
    return face_grid(rows, labels=[f"{name}  ({len(own):,})" for name, own in members.items()], side=SIDE)


def identity_sheet(faces: Faces, rows: int = 4, pairs: int = 3) -> Figure:
    """Identities at their several ages, side by side: those whose ages span the most groups, from young to old."""
    table = faces.table
    span = table.groupby("identity").agg(count=("age", "size"), groups=("group", "nunique"), years=("age", np.ptp))
    wanted = span[span["count"] > 1].sort_values(["groups", "count", "years"], ascending=False).head(rows * pairs)
    if wanted.empty:
        return message("No identity has faces at several ages in this data set.")
    widest = min(wanted["count"].max(), 4)
    cells: list[Cell | None] = []
    for identity in wanted.index:
        own = table[table["identity"] == identity].sort_values("age").index.to_numpy()
        own = own[np.linspace(0, len(own) - 1, min(widest, len(own))).round().astype(int)]
        first, *others = _cells(faces, own)
        named = replace(first, caption=f"{first.caption}\n{str(identity)[:18]}")
        cells += [named, *others] + [None] * (widest - len(own) + 1)
    return face_grid(in_rows(cells, pairs * (widest + 1)), side=SIDE)


def template_sheet(faces: Faces, columns: int = 8, seed: int = 0) -> Figure:
    """Aligned faces with the five points found (dots) and the template's eyes (crosses)."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(faces))[:columns])
    figure = face_grid([_cells(faces, chosen)], side=SIDE)
    side = faces.image_size
    for axes, face in zip(figure.axes, chosen, strict=True):
        points = np.reshape(faces.table["landmarks"].iloc[face], (5, 2)) - 0.5  # pixel centres have whole numbers
        axes.scatter(*points.T, s=6, color="#ffdd00", linewidths=0)
        axes.scatter(*(np.array(EYES) * side - 0.5).T, s=40, marker="+", color="#00e5ff", linewidths=0.8)
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
    return figure


def rejected_sheet(folder: Path, count: int = 10, columns: int = 5) -> Figure:
    """Pictures that were turned away, with the reasons; a spread over the reasons rather than the first few.

    Arguments:
        folder: what `prepare` made.
        count: at most so many.
    """
    rejected = rejections(folder)
    if rejected.empty:
        return message("Nothing was turned away.")
    kinds = rejected["reason"].str.replace(r"\d+", "", regex=True)
    turn = rejected.groupby(kinds).cumcount()  # one of each reason first, then a second of each …
    chosen = rejected.loc[turn.sort_values(kind="stable").index[:count]]
    cells = []
    for line in chosen.itertuples():
        name = "".join(letter if letter.isprintable() else "?" for letter in line.file)
        name = name if len(name) <= 90 else f"{name[:60]} … {name[-25:]}"
        row = "" if pd.isna(line.row) else f"row {line.row}, "
        cells.append(Cell(_source(source_folder(folder), line.file), textwrap.fill(f"{row}{name}: {line.reason}", 28)))
    return face_grid(in_rows(cells, columns), side=1.7)


def _cells(faces: Faces, chosen: np.ndarray) -> list[Cell]:
    """Faces with what is known of each under them."""
    known = faces.table.iloc[chosen][["age", *faces.attributes]]
    captions = [
        ", ".join(f"{value:g}" if name == "age" else str(value) for name, value in row.dropna().items())
        for _, row in known.iterrows()
    ]
    return [Cell(face, caption) for face, caption in zip(faces.images(chosen), captions, strict=True)]


def _source(root: Path, file: str) -> torch.Tensor:
    """A picture of the raw data set, [3,H,W], grey where it cannot be shown."""
    image = Image.new("RGB", (64, 64), "#dddddd")
    try:
        # A link that was turned away because it leads out of the data folder is not followed here either.
        if (root / file).resolve().is_relative_to(root):
            image = open_image(read_picture(root, file))
    except (OSError, RuntimeError, ValueError):  # a loop of links is a RuntimeError before Python 3.13
        pass
    image.thumbnail((320, 320))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
