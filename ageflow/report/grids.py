"""Figures made of faces: contact sheets, Figure 1 (bottom), Figures 4, 6, A.1 and A.2."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.protocol import translate
from ageflow.flows.glow import Glow
from ageflow.report.drawing import COLUMN, INPUT, NORMAL, SMALL, Figure, bare, show_face
from ageflow.translation.methods import METHODS, LatentMethod
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
        side: of a face, inches; None: as fits a page's column.
        title: stands above all.
    """
    columns = max(map(len, rows))
    width = COLUMN if side is None else columns * side
    side = side or (COLUMN - _MARGIN) / columns
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


def contact_sheet(images: Tensor, columns: int = 8, title: str = "") -> Figure:
    """Faces [B,3,S,S], uint8 or float in [0,1], side by side."""
    return face_grid(in_rows([Cell(image) for image in images], columns), side=SIDE, title=title)


def in_rows(cells: Sequence[Cell | None], columns: int) -> list[Sequence[Cell | None]]:
    """Cells cut into rows."""
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def glow_samples(glow: Glow, count: int = 32, temperature: float = 0.7, seed: int = 0) -> Figure:
    """Faces drawn from GLOW at a temperature (1: its own distribution; less: nearer its mean)."""
    faces = glow.sample(count, temperature, seed)
    return contact_sheet(faces, title=f"Faces drawn from GLOW, temperature {temperature:g}")


@torch.inference_mode()
def prototype_grid(prototypes: Prototypes, glow: Glow) -> Figure:
    """Figure 1, bottom: the faces of the average latents; rows attributes, columns age groups, with counts.

    A cell of too few faces shows what it fell back to, and says so.
    """
    device = next(glow.parameters()).device
    faces = torch.stack([glow.decode(means.to(device)).cpu() for means in prototypes.means], dim=1)
    cells = prototypes.cells.assign(row=prototypes.cells.groupby("group").cumcount())
    rows = [
        [Cell(face, _counted(cell)) for face, cell in zip(faces[row], own.to_dict("records"), strict=True)]
        for row, own in cells.groupby("row")
    ]
    labels = ["\n".join(combination) for combination in prototypes.combinations]
    return face_grid(rows, AGE_GROUPS, [*labels, "all faces"])


def _counted(cell: Mapping[str, object]) -> str:
    """What stands under an average: of how many faces it is, or should be, in lines that a column has room for."""
    faces = f"{cell['count']:,} {'face' if cell['count'] == 1 else 'faces'}"
    if cell["average_of"] == "cell":
        return faces
    return f"{faces}:\n" + textwrap.fill(f"average of its {cell['average_of']}", 13)


def choose_faces(faces: Faces, count: int, seed: int = 0) -> np.ndarray:
    """Positions of `count` faces that show much: age groups and attributes in turn, no person twice while others are left.

    Returns:
        int64, as many as there are, at most `count`.
    """
    table = faces.table.assign(_group=faces.groups)
    order = table.sample(frac=1, random_state=seed)
    order = order.assign(_again=order.groupby("identity").cumcount())
    kinds = ["_group", *faces.attributes]
    order["_turn"] = order.sort_values("_again", kind="stable").groupby(kinds, dropna=False).cumcount()
    order["_of_group"] = order.sort_values(["_again", "_turn"], kind="stable").groupby("_group").cumcount()
    order = order.sort_values(["_of_group", "_group"], kind="stable")
    taken = pd.concat([order.drop_duplicates("identity"), order[order.duplicated("identity")]])
    return taken.index.to_numpy()[:count].astype(np.int64)


def translation_grid(method: LatentMethod, faces: Faces, chosen: np.ndarray) -> Figure:
    """Figure 4: each face in a red frame in its own group's column, and its translations in the other three.

    Arguments:
        method: the method.
        faces: prepared faces.
        chosen: which of them, a row each.
    """
    rows = [_in_all_groups(method, faces, face) for face in chosen]
    return face_grid(rows, AGE_GROUPS, age_labels(faces.table["age"].iloc[chosen]))


def variant_grid(methods: Mapping[str, LatentMethod], faces: Faces, chosen: np.ndarray) -> Figure:
    """Figure 6: for each face a block with a row a variant, in the four age groups, the input in a red frame.

    Arguments:
        methods: by their names in the settings, in the order of the rows.
        faces: prepared faces.
        chosen: which of them, a block each.
    """
    names = [textwrap.fill(METHODS.get(name, name), 10) for name in methods]
    blocks = [[*(_in_all_groups(method, faces, face) for method in methods.values()), []] for face in chosen]
    return face_grid([row for block in blocks for row in block][:-1], AGE_GROUPS, ([*names, ""] * len(chosen))[:-1])


def foreign_grid(method: LatentMethod, images: Tensor, labels: Sequence[str]) -> Figure:
    """Figure A.1: faces of another set, of whose ages the model is told nothing: each in all the groups.

    Arguments:
        method: one that needs no source group: ``ageflow`` or ``no_ictm``.
        images: uint8 [B, 3, S, S], a row each; in a red frame in the first column.
        labels: what stands beside each.
    """
    groups = torch.arange(len(AGE_GROUPS))
    aged = [method.translate(image.expand(len(groups), -1, -1, -1), groups).cpu() for image in images]
    rows = [[Cell(image, framed=True), *map(Cell, made)] for image, made in zip(images, aged, strict=True)]
    return face_grid(rows, ["input", *AGE_GROUPS], labels)


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


def _in_all_groups(method: LatentMethod, faces: Faces, face: int) -> list[Cell]:
    """A face in every group; where that is its own group, as it is, in a frame."""
    own = int(faces.groups[face])
    others = [group for group in range(len(AGE_GROUPS)) if group != own]
    made = list(translate(method, faces, np.full(len(others), face), torch.tensor(others)).cpu())
    made.insert(own, faces.images([face])[0])
    return [Cell(image, framed=group == own) for group, image in enumerate(made)]
