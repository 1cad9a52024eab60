"""Figures made of faces: sheets, Figure 1 (bottom), Figures 4, 6, A.1 and A.2, and what to look at in a data set."""

import contextlib
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ageflow.data.align import EYES
from ageflow.data.faces import Faces
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.prepare import rejections, source_folder
from ageflow.data.records import NO_GROUP
from ageflow.evaluation.protocol import translate
from ageflow.flows.glow import Glow
from ageflow.report.drawing import COLUMN, INPUT, NORMAL, PAGE, SMALL, Figure, bare, message, show_face
from ageflow.translation.methods import METHODS, LatentMethod, Method
from ageflow.translation.prototypes import Prototypes

SIDE = 1.05  # inches of one face on a sheet
_MARGIN = 0.22  # inches, for the labels beside and above a grid
_LINE = 0.125  # inches, of a caption
_GAP = 0.12  # sides, of a row without cells


@dataclass(frozen=True)
class Cell:
    """A face of a grid: [3,S,S], what stands under it, and whether it is framed as the input."""

    face: Tensor | np.ndarray
    caption: str = ""
    framed: bool = False


def face_grid(
    rows: Sequence[Sequence[Cell | None]],
    titles: Sequence[str] = (),
    labels: Sequence[str] = (),
    side: float | None = None,
    title: str = "",
) -> Figure:
    """Faces in rows.

    Arguments:
        rows: None leaves a place empty; a row without cells is a gap.
        titles: over the columns.
        labels: beside the rows.
        side: of a face, inches; None: as fits a page's column, or with more titles than that has room for, the page.
        title: stands above all.
    """
    columns = max(map(len, rows))
    width = columns * side if side else COLUMN if len(titles) <= 6 else PAGE
    side = side or (width - _MARGIN) / columns
    lines = [max((cell.caption.count("\n") + bool(cell.caption) for cell in row if cell), default=0) for row in rows]
    heights = [(side if row else _GAP * side) + _LINE * more for row, more in zip(rows, lines, strict=True)]
    figure = Figure(width, sum(heights) + _MARGIN * (bool(titles) + bool(title)) + 0.06)
    figure.get_layout_engine().set(wspace=0.01, hspace=0.01)
    figure.suptitle(title, fontsize=NORMAL)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes in grid.ravel():
        bare(axes)
    for axes, name in zip(grid[0], titles, strict=False):
        axes.set_title(name, fontsize=NORMAL, pad=3)
    for row_axes, row, label in itertools.zip_longest(grid, rows, labels, fillvalue=""):
        row_axes[0].set_ylabel(label, fontsize=SMALL)
        for axes, cell in zip(row_axes, row, strict=False):
            if cell:
                show_face(axes, cell.face, box=INPUT if cell.framed else None)
                axes.set_xlabel(cell.caption, fontsize=SMALL, labelpad=2, parse_math=False)
    return figure


def sheet(cells: Sequence[Cell | None], columns: int = 8, side: float = SIDE, title: str = "") -> Figure:
    """Faces side by side, in rows of so many."""
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return face_grid(rows, side=side, title=title)


def glow_samples(glow: Glow, count: int = 32, temperature: float = 0.7, seed: int = 0) -> Figure:
    """Faces drawn from GLOW at a temperature (1: its own distribution; less: nearer its mean)."""
    cells = [Cell(face) for face in glow.sample(count, temperature, seed)]
    return sheet(cells, title=f"Faces drawn from GLOW, temperature {temperature:g}")


@torch.inference_mode()
def prototype_grid(prototypes: Prototypes, glow: Glow) -> Figure:
    """Figure 1, bottom: the faces of the average latents; rows attributes, columns age groups, with counts.

    A cell of too few faces shows what it fell back to, and says so.
    """
    device = next(glow.parameters()).device
    faces = torch.cat([glow.decode(means.to(device)).cpu() for means in prototypes.means])  # group after group
    captions = map(_counted, prototypes.cells["count"], prototypes.cells["average_of"])
    cells, rows = list(map(Cell, faces, captions)), prototypes.means.shape[1]
    labels = ["\n".join(combination) for combination in prototypes.combinations]
    return face_grid([cells[row::rows] for row in range(rows)], prototypes.age_groups.labels, [*labels, "all faces"])


def _counted(count: int, average_of: str) -> str:
    """What stands under an average: of how many faces it is, or should be, in lines that a column has room for."""
    faces = f"{count:,} {'face' if count == 1 else 'faces'}"
    return faces if average_of == "cell" else f"{faces}:\n" + textwrap.fill(f"average of its {average_of}", 13)


def choose_faces(faces: Faces, count: int, seed: int = 0) -> np.ndarray:
    """Positions of `count` faces that show much: age groups and attributes in turn, no person twice while others are left.

    Returns:
        int64, as many as there are, at most `count`.
    """
    order = faces.table.assign(_group=faces.groups).sample(frac=1, random_state=seed)
    order["_again"] = order.groupby("identity").cumcount()
    kinds = ["_group", *faces.attributes]
    order["_turn"] = order.sort_values("_again", kind="stable").groupby(kinds, dropna=False).cumcount()
    order["_of_group"] = order.sort_values(["_again", "_turn"], kind="stable").groupby("_group").cumcount()
    order = order.sort_values(["_of_group", "_group"], kind="stable")
    taken = pd.concat([order.drop_duplicates("identity"), order[order.duplicated("identity")]])
    return taken.index.to_numpy()[:count].astype(np.int64)


def translation_grid(method: LatentMethod, faces: Faces, chosen: np.ndarray) -> Figure:
    """Figure 4: each face in a red frame in its own group's column, and its translations in the others.

    Arguments:
        method: the method.
        faces: prepared faces.
        chosen: which of them, a row each.
    """
    rows = [_in_all_groups(method, faces, face) for face in chosen]
    return face_grid(rows, faces.age_groups.labels, age_labels(faces.table["age"].iloc[chosen]))


def variant_grid(methods: Mapping[str, LatentMethod], faces: Faces, chosen: np.ndarray) -> Figure:
    """Figure 6: for each face a block with a row a variant, in the age groups, the input in a red frame.

    Arguments:
        methods: by their names in the settings, in the order of the rows.
        faces: prepared faces.
        chosen: which of them, a block each.
    """
    names = [textwrap.fill(METHODS.get(name, name), 10) for name in methods]
    blocks = [[*(_in_all_groups(method, faces, face) for method in methods.values()), []] for face in chosen]
    rows = [row for block in blocks for row in block][:-1]
    return face_grid(rows, faces.age_groups.labels, ([*names, ""] * len(chosen))[:-1])


def method_grid(methods: Mapping[str, Method], faces: Faces, chosen: np.ndarray) -> Figure:
    """Figure 5: the same faces by every method: a row a method, and side by side the faces in the age groups.

    Arguments:
        methods: by what stands beside their rows.
        faces: prepared faces.
        chosen: which of them; the input is in a red frame. What a method cannot do is left empty.
    """
    rows = [[[*_in_all_groups(method, faces, face), None] for face in chosen] for method in methods.values()]
    rows = [list(itertools.chain(*blocks))[:-1] for blocks in rows]
    titles = [*faces.age_groups.labels, ""] * len(chosen)
    figure = face_grid(rows, titles[:-1], [textwrap.fill(name, 14) for name in methods], side=0.55)
    for axes in figure.axes:  # rows are too low for names that stand upright
        axes.yaxis.label.set(rotation=0, ha="right", va="center")
    return figure


def method_sheet(methods: Mapping[str, LatentMethod], faces: Faces, chosen: np.ndarray) -> Figure:
    """Many faces, a row each: the input, and every method's age groups; to look for what no number shows.

    Arguments:
        methods: by their names in the settings.
        faces: prepared faces.
        chosen: which of them, a row each.
    """
    images, of_groups = faces.images(chosen), faces.age_groups.labels
    groups = range(len(of_groups))
    columns = [images.float() / 255]
    for method, group in itertools.product(methods.values(), groups):
        columns.append(translate(method, faces, chosen, torch.full((len(chosen),), group)).cpu().clamp(0, 1))
    side, count = images.shape[-1] + 2, len(columns)
    tiles = torch.nn.functional.pad(torch.stack(columns, 1), (0, 2, 0, 2), value=1.0)  # white between them
    whole = tiles.permute(2, 0, 3, 1, 4).reshape(3, len(chosen) * side, count * side)
    figure = Figure(0.45 * count, 0.45 * len(chosen) + 0.4)
    axes = figure.subplots()
    show_face(axes, whole)
    room = 6 * len(groups)  # letters
    names = [textwrap.fill(METHODS.get(name, name), room) if group == 1 else "" for name in methods for group in groups]
    labels = ["input", *(f"{name}\n{of_groups[place % len(groups)]}" for place, name in enumerate(names))]
    axes.set_xticks((np.arange(count) + 0.5) * side, labels, fontsize=SMALL)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    return figure


def foreign_grid(method: LatentMethod, images: Tensor, labels: Sequence[str]) -> Figure:
    """Figure A.1: faces of another set, of whose ages the model is told nothing: each in all the groups.

    Arguments:
        method: one that needs no source group: ``ageflow`` or ``no_ictm``.
        images: uint8 [B, 3, S, S], a row each; in a red frame in the first column.
        labels: what stands beside each.
    """
    groups = torch.arange(len(method.age_groups))
    aged = [method.translate(image.expand(len(groups), -1, -1, -1), groups).cpu() for image in images]
    rows = [[Cell(image, framed=True), *map(Cell, made)] for image, made in zip(images, aged, strict=True)]
    return face_grid(rows, ["input", *method.age_groups.labels], labels)


def temperature_grid(glow: Glow, temperatures: Sequence[float], count: int = 6, seed: int = 0) -> Figure:
    """Figure A.2: faces drawn from GLOW; a row a temperature, a column the same noise times each temperature.

    Arguments:
        glow: the flow.
        temperatures: standard deviations of the latents; 1: GLOW's own distribution; less: nearer its mean.
        count: columns.
        seed: of the noise.
    """
    rows = [[Cell(face) for face in glow.sample(count, temperature, seed=seed).cpu()] for temperature in temperatures]
    figure = face_grid(rows, labels=[f"{temperature:g}" for temperature in temperatures])
    figure.supylabel("temperature", fontsize=SMALL)
    return figure


def age_labels(ages: pd.Series) -> list[str]:
    """Ages as labels, in completed years: 30.9 is of the group 30-."""
    return ["" if pd.isna(age) else f"age {int(age)}" for age in ages]


def _in_all_groups(method: Method, faces: Faces, face: int) -> list[Cell | None]:
    """A face in every group that the method can do; where that is its own group, as it is, in a frame."""
    own, groups = int(faces.groups[face]), np.arange(len(faces.age_groups))
    others = np.delete(groups, own)
    others = others[method.can(faces, np.full(len(others), face), others)]
    cells = {own: Cell(faces.images([face])[0], framed=True)}
    if len(others):
        made = translate(method, faces, np.full(len(others), face), torch.from_numpy(others)).cpu()
        cells |= zip(others, map(Cell, made), strict=True)
    return [cells.get(group) for group in groups]


# -- what a person looks at after preparing a data set (notebook 01) ------------------------------------------------


def group_sheet(faces: Faces, columns: int = 10, seed: int = 0) -> Figure:
    """A row of faces for each age group, drawn at random, with age and gender; one row where no ages are known."""
    names = dict(enumerate(faces.age_groups.labels)) if faces.ages_known else {NO_GROUP: "age unknown"}
    groups, rows, labels = faces.table["group"], [], []
    for group, name in names.items():
        drawn = faces.table[groups == group].sample(frac=1, random_state=seed)
        rows.append(_known(faces, drawn.index[:columns]))
        labels.append(f"{name}  ({len(drawn):,})")
    return face_grid(rows, labels=labels, side=SIDE)


def identity_sheet(faces: Faces, rows: int = 4, pairs: int = 3) -> Figure:
    """Identities at their several ages, from young to old: those whose ages span the most groups."""
    table = faces.table.sort_values("age")
    span = table.groupby("identity").agg(count=("age", "size"), groups=("group", "nunique"))
    wanted = span[span["count"] > 1].sort_values(["groups", "count"], ascending=False).head(rows * pairs)
    if wanted.empty:
        return message("No identity has faces at several ages in this data set.")
    widest, cells = min(wanted["count"].max(), 4), []
    for identity in wanted.index:
        own = table.index[table["identity"] == identity]
        own = own[np.linspace(0, len(own) - 1, min(widest, len(own))).round().astype(int)]
        cells += [*_known(faces, own), *[None] * (widest + 1 - len(own))]
    return sheet(cells, pairs * (widest + 1))


def template_sheet(faces: Faces, columns: int = 8, seed: int = 0) -> Figure:
    """Aligned faces with the five points found (dots) and the template's eyes (crosses)."""
    chosen = faces.table.sample(min(columns, len(faces)), random_state=seed)
    figure, side = sheet(_known(faces, chosen.index), columns), faces.image_size
    for axes, landmarks in zip(figure.axes, chosen["landmarks"], strict=False):
        points = np.reshape(landmarks, (5, 2)) - 0.5  # pixel centres have whole numbers
        axes.scatter(*points.T, s=6, color="#ffdd00", linewidths=0)
        axes.scatter(*(np.array(EYES) * side - 0.5).T, s=40, marker="+", color="#00e5ff", linewidths=0.8)
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
    return figure


def rejected_sheet(folder: Path, count: int = 10, columns: int = 5) -> Figure:
    """Pictures that were turned away, with the reasons; a spread over the reasons rather than the first few.

    Arguments:
        folder: what `prepare` made.
        count: at most so many.
        columns: in a row.
    """
    rejected = rejections(folder)
    if rejected.empty:
        return message("Nothing was turned away.")
    root = source_folder(folder)
    turn = rejected.groupby(rejected["reason"].str.replace(r"\d+", "", regex=True)).cumcount()
    cells = []
    for line in rejected.loc[turn.sort_values(kind="stable").index[:count]].itertuples():  # one of each reason first
        image = Image.new("RGB", (64, 64), "#dddddd")
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # grey where it cannot be shown
            # A link that was turned away because it leads out of the data folder is not followed here either.
            if (root / line.file).resolve().is_relative_to(root):
                image = open_image(read_picture(root, line.file))
        image.thumbnail((320, 320))
        name = "".join(letter if letter.isprintable() else "?" for letter in line.file)[-90:]
        row = "" if pd.isna(line.row) else f"row {line.row}, "
        cells.append(Cell(np.array(image).transpose(2, 0, 1), textwrap.fill(f"{row}{name}: {line.reason}", 28)))
    return sheet(cells, columns, side=1.7)


def _known(faces: Faces, chosen: pd.Index) -> list[Cell]:
    """Faces with what is known of each under them."""
    known = faces.table.loc[chosen, ["age", *faces.attributes]]
    known = known.assign(age=known["age"].map("{:g}".format, na_action="ignore"))
    return list(map(Cell, faces.images(chosen.to_numpy()), [", ".join(row.dropna()) for _, row in known.iterrows()]))
