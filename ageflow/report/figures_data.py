"""What a person looks at after preparing a data set (notebook 01)."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ageflow.data.align import EYES
from ageflow.data.faces import Faces
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.prepare import rejections, source_folder
from ageflow.data.records import AGE_GROUPS, GROUP_EDGES, NO_GROUP
from ageflow.report.picture import Picture, bare, show_face
from ageflow.report.style import GROUP_COLOURS, SMALL

_SIDE = 1.05  # inches of one face


def age_histogram(faces: Faces) -> Picture:
    """Faces per year of age, coloured by age group; the test half is the darker foot of each bar."""
    table = faces.table
    if not faces.ages_known:
        return _note("The ages of this data set are not known.")
    years = np.arange(int(table["age"].min()), int(table["age"].max()) + 2)
    picture = Picture(8.4, 2.6)
    axes = picture.subplots()
    for group, (name, colour) in enumerate(zip(AGE_GROUPS, GROUP_COLOURS, strict=True)):
        ages = [table.loc[(table["group"] == group) & (table["split"] == half), "age"] for half in ("test", "train")]
        label = f"{name}: {len(ages[1]):,} train, {len(ages[0]):,} test"
        counts = np.histogram(np.concatenate(ages), years)[0]
        axes.bar(years[:-1], counts, width=0.9, color=colour, alpha=0.55, label=label)
        axes.bar(years[:-1], np.histogram(ages[0], years)[0], width=0.9, color=colour)
    for edge in GROUP_EDGES:
        axes.axvline(edge + 0.5, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="age, years", ylabel="faces")
    axes.legend(fontsize=SMALL, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return picture


def group_sheet(faces: Faces, columns: int = 10, seed: int = 0) -> Picture:
    """A row of faces for each age group, drawn at random, with age and gender; one row where no ages are known."""
    random = np.random.default_rng(seed)
    groups = faces.table["group"].to_numpy()
    names = dict(enumerate(AGE_GROUPS)) if faces.ages_known else {NO_GROUP: "age unknown"}
    picture = Picture(columns * _SIDE, len(names) * (_SIDE + 0.2))
    grid = picture.subplots(len(names), columns, squeeze=False)
    for (group, name), row in zip(names.items(), grid, strict=True):
        members = np.flatnonzero(groups == group)
        chosen = np.sort(random.permutation(members)[:columns])
        _fill(row, faces, chosen)
        row[0].set_ylabel(f"{name}  ({len(members):,})", fontsize=SMALL + 1)
    return picture


def identity_sheet(faces: Faces, rows: int = 4, pairs: int = 3) -> Picture:
    """Identities at their several ages, side by side: those whose ages span the most groups, from young to old."""
    table = faces.table
    span = table.groupby("identity").agg(count=("age", "size"), groups=("group", "nunique"), years=("age", np.ptp))
    wanted = span[span["count"] > 1].sort_values(["groups", "count", "years"], ascending=False).index[: rows * pairs]
    widest = int(min(span["count"].max(), 4))
    if len(wanted) == 0:
        return _note("No identity has faces at several ages in this data set.")
    rows = -(-len(wanted) // pairs)
    picture = Picture(pairs * (widest * _SIDE + 0.25), rows * (_SIDE + 0.25))
    blocks = picture.subfigures(rows, pairs, squeeze=False).ravel()
    for place, block in enumerate(blocks):
        cells = block.subplots(1, widest, squeeze=False)[0]
        chosen = np.array([], dtype=int)
        if place < len(wanted):
            own = table.index[table["identity"] == wanted[place]]
            chosen = table.loc[own].sort_values("age").index.to_numpy()
            chosen = chosen[np.linspace(0, len(chosen) - 1, min(widest, len(chosen))).round().astype(int)]
            cells[0].set_ylabel(str(wanted[place])[:18], fontsize=SMALL)
        _fill(cells, faces, chosen)
    return picture


def template_sheet(faces: Faces, columns: int = 8, seed: int = 0) -> Picture:
    """Aligned faces with the five points found (dots) and the template's eyes (crosses)."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(faces))[:columns])
    picture = Picture(columns * _SIDE, _SIDE + 0.2)
    row = picture.subplots(1, columns, squeeze=False)[0]
    _fill(row, faces, chosen)
    side = faces.image_size
    for axes, face in zip(row, chosen, strict=False):
        points = np.reshape(faces.table["landmarks"].iloc[face], (5, 2)) - 0.5  # pixel centres have whole numbers
        axes.scatter(*points.T, s=6, color="#ffdd00", linewidths=0)
        axes.scatter(*(np.array(EYES) * side - 0.5).T, s=40, marker="+", color="#00e5ff", linewidths=0.8)
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
    return picture


def rejected_sheet(folder: Path, count: int = 10, columns: int = 5) -> Picture:
    """Pictures that were turned away, with the reasons; a spread over the reasons rather than the first few.

    Arguments:
        folder: what `prepare` made.
        count: at most so many.
    """
    rejected = rejections(folder)
    if rejected.empty:
        return _note("Nothing was turned away.")
    kinds = rejected["reason"].str.replace(r"\d+", "", regex=True)
    turn = rejected.groupby(kinds).cumcount()  # one of each reason first, then a second of each …
    chosen = rejected.loc[turn.sort_values(kind="stable").index[:count]]
    rows = -(-len(chosen) // columns)
    picture = Picture(columns * 1.7, rows * 2.1)
    for axes in picture.subplots(rows, columns, squeeze=False).ravel()[len(chosen) :]:
        axes.set_axis_off()
    for axes, (_, line) in zip(picture.axes, chosen.iterrows(), strict=False):
        _show_source(axes, source_folder(folder), line["file"])
        place = f"row {line['row']}" if pd.notna(line["row"]) else ""
        where = ", ".join(filter(None, (place, _label(line["file"]))))
        axes.set_xlabel(textwrap.fill(f"{where}: {line['reason']}", 28), fontsize=SMALL)
    return picture


def _fill(row: np.ndarray, faces: Faces, chosen: np.ndarray) -> None:
    """Draw the chosen faces into a row of axes, captioned; empty the rest."""
    images = faces.images(chosen) if len(chosen) else []
    for axes, image, face in zip(row, images, chosen, strict=False):
        show_face(axes, image)
        known = faces.table.iloc[face]
        age = [f"{known['age']:g}"] if pd.notna(known["age"]) else []
        caption = ", ".join([*age, *(str(known[name]) for name in faces.attributes if pd.notna(known[name]))])
        axes.set_xlabel(caption, fontsize=SMALL, labelpad=2)
    for axes in row[len(chosen) :]:
        bare(axes)


def _label(name: str) -> str:
    """A file's name to be read: short, and with nothing in it that Matplotlib would set as a formula."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name).replace("$", r"\$")
    return name if len(name) <= 90 else f"{name[:60]} … {name[-25:]}"


def _show_source(axes: Axes, root: Path, file: str) -> None:
    bare(axes)
    try:
        # A link that was turned away because it leads out of the data folder is not followed here either.
        if not (root / file).resolve().is_relative_to(root):
            raise ValueError(file)
        image = open_image(read_picture(root, file))
    except (OSError, RuntimeError, ValueError):  # a loop of links is a RuntimeError before Python 3.13
        axes.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=SMALL + 1, color="0.5")
        return
    image.thumbnail((320, 320))
    axes.imshow(np.asarray(image))


def _note(text: str) -> Picture:
    picture = Picture(5.0, 0.5)
    picture.text(0.5, 0.5, text, ha="center", va="center", fontsize=SMALL + 2)
    return picture
