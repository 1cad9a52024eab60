"""Pictures made of faces: contact sheets, Figure 1 (bottom), Figures 4, 6, A.1 and A.2."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import FigureBase
from torch import Tensor

from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.flows.glow import Glow
from ageflow.report.picture import Picture, show_face
from ageflow.report.style import COLUMN, INPUT, NORMAL, SMALL
from ageflow.translation.methods import METHODS
from ageflow.translation.prototypes import Prototypes

_SIDE = 1.05  # inches of one face on a sheet
_MARGIN = 0.22  # inches, for the labels beside and above a grid


class Method(Protocol):
    """See `ageflow.translation.methods`."""

    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Any = None
    ) -> Tensor: ...


def contact_sheet(images: Tensor, captions: Sequence[str] | None = None, columns: int = 8, title: str = "") -> Picture:
    """Faces side by side.

    Arguments:
        images: [B,3,S,S], uint8 or float in [0,1].
        captions: a line under each face.
        columns: faces in a row.
        title: stands above.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    height = rows * (_SIDE + (0.2 if captions else 0.0)) + (0.4 if title else 0.0)
    picture = Picture(columns * _SIDE, height)
    grid = picture.subplots(rows, columns, squeeze=False).ravel()
    for place, axes in enumerate(grid):
        if place >= len(images):
            axes.set_axis_off()
            continue
        show_face(axes, images[place])
        if captions:
            axes.set_xlabel(captions[place], fontsize=SMALL, labelpad=2)
    _tight(picture, title)
    return picture


def glow_samples(glow: Glow, count: int = 32, temperature: float = 0.7, seed: int = 0) -> Picture:
    """Faces drawn from GLOW at a temperature (1: its own distribution; less: nearer its mean)."""
    faces = glow.sample(count, temperature, seed)
    return contact_sheet(faces, title=f"Faces drawn from GLOW, temperature {temperature:g}")


def prototype_grid(prototypes: Prototypes, glow: Glow) -> Picture:
    """Figure 1, bottom: the faces of the average latents; rows attributes, columns age groups, with counts.

    A cell of too few faces shows what it fell back to, and says so.
    """
    picture = Picture(COLUMN, prototype_height(prototypes))
    draw_prototypes(picture, prototypes, glow)
    _tight(picture)
    return picture


def prototype_height(prototypes: Prototypes) -> float:
    """Inches that `draw_prototypes` needs at the width of a column."""
    groups, rows, _ = prototypes.means.shape
    lines = max(len(_counted(cell).splitlines()) for cell in prototypes.cells.to_dict("records"))
    return rows * ((COLUMN - _MARGIN) / groups + 0.04 + 0.125 * lines) + _MARGIN


def _counted(cell: Mapping[str, Any]) -> str:
    """What stands under an average: of how many faces it is, or should be, in lines that a column has room for."""
    faces = f"{cell['count']:,} {'face' if cell['count'] == 1 else 'faces'}"
    if cell["average_of"] == "cell":
        return faces
    return f"{faces}:\n{textwrap.fill('average of its ' + cell['average_of'], 13)}"


@torch.inference_mode()
def draw_prototypes(figure: FigureBase, prototypes: Prototypes, glow: Glow) -> None:
    """Draw `prototype_grid` into a figure or a part of one."""
    device = next(glow.parameters()).device
    groups, rows, _ = prototypes.means.shape
    grid = figure.subplots(rows, groups, squeeze=False)
    names = [*("\n".join(combination) for combination in prototypes.combinations), "all faces"]
    for group in range(groups):
        faces = glow.decode(prototypes.means[group].to(device)).cpu()
        own = prototypes.cells[prototypes.cells["group"] == AGE_GROUPS[group]]
        for row, cell in enumerate(own.to_dict("records")):
            axes = grid[row, group]
            show_face(axes, faces[row])
            axes.set_xlabel(_counted(cell), fontsize=SMALL, labelpad=2)
            if row == 0:
                axes.set_title(AGE_GROUPS[group], fontsize=NORMAL, pad=3)
            if group == 0:
                axes.set_ylabel(names[row], fontsize=SMALL)


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


def translation_grid(method: Method, faces: Faces, chosen: np.ndarray) -> Picture:
    """Figure 4: each face in a red frame in its own group's column, and its translations in the other three.

    Arguments:
        method: the method.
        faces: prepared faces.
        chosen: which of them, a row each.
    """
    made = _all_groups(method, faces, chosen)
    picture, grid = _column([1.0] * len(made), made.shape[1], AGE_GROUPS)
    for row, face in enumerate(chosen):
        for group, axes in enumerate(grid[row]):
            _cell(axes, faces, face, group, made[row, group])
        grid[row, 0].set_ylabel(_age(faces, face), fontsize=SMALL)
    return picture


def variant_grid(methods: Mapping[str, Method], faces: Faces, chosen: np.ndarray) -> Picture:
    """Figure 6: for each face a block with a row a variant, in the four age groups, the input in a red frame.

    Arguments:
        methods: by their names in the settings, in the order of the rows.
        faces: prepared faces.
        chosen: which of them, a block each.
    """
    block = [1.0] * len(methods)
    picture, grid = _column(([*block, 0.12] * len(chosen))[:-1], len(AGE_GROUPS), AGE_GROUPS)
    for row, (name, method) in enumerate(methods.items()):
        for place, (face, made) in enumerate(zip(chosen, _all_groups(method, faces, chosen), strict=True)):
            cells = grid[place * (len(methods) + 1) + row]
            for group, axes in enumerate(cells):
                _cell(axes, faces, face, group, made[group])
            cells[0].set_ylabel(textwrap.fill(METHODS.get(name, name), 10), fontsize=SMALL)
    for axes in grid[len(methods) :: len(methods) + 1].ravel():
        axes.set_axis_off()
    return picture


def foreign_grid(method: Method, images: Tensor, labels: Sequence[str]) -> Picture:
    """Figure A.1: faces of another set, of whose ages the model is told nothing: each in all the groups.

    Arguments:
        method: one that needs no source group: ``ageflow`` or ``no_ictm``.
        images: uint8 [B, 3, S, S], a row each; in a red frame in the first column.
        labels: what stands beside each.
    """
    groups = torch.arange(len(AGE_GROUPS))
    picture, grid = _column([1.0] * len(images), len(groups) + 1, ["input", *AGE_GROUPS])
    for row, image, label in zip(grid, images, labels, strict=True):
        aged = method.translate(image.expand(len(groups), -1, -1, -1), groups).cpu()
        show_face(row[0], image, box=INPUT)
        row[0].set_ylabel(label, fontsize=SMALL)
        for axes, face in zip(row[1:], aged, strict=True):
            show_face(axes, face)
    return picture


def temperature_grid(glow: Glow, temperatures: Sequence[float], count: int = 6, seed: int = 0) -> Picture:
    """Figure A.2: faces drawn from GLOW; a row a temperature, a column the same noise times each temperature.

    Arguments:
        glow: the flow.
        temperatures: standard deviations of the latents; 1: GLOW's own distribution; less: nearer its mean.
        count: columns.
        seed: of the noise.
    """
    picture, grid = _column([1.0] * len(temperatures), count)
    for row, temperature in zip(grid, temperatures, strict=True):
        for axes, face in zip(row, glow.sample(count, temperature, seed=seed).cpu(), strict=True):
            show_face(axes, face)
        row[0].set_ylabel(f"{temperature:g}", fontsize=SMALL, rotation=0, ha="right", va="center", labelpad=3)
    picture.supylabel("temperature", fontsize=SMALL)
    return picture


def _column(heights: Sequence[float], columns: int, titles: Sequence[str] = ()) -> tuple[Picture, np.ndarray]:
    """A grid of square cells, as wide as a page's column: rows of these heights in cells, titles over the first."""
    side = (COLUMN - _MARGIN) / columns
    picture = Picture(COLUMN, side * sum(heights) + (_MARGIN if titles else 0.06))
    grid = picture.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for axes, title in zip(grid[0], titles, strict=False):
        axes.set_title(title, fontsize=NORMAL, pad=3)
    _tight(picture)
    return picture, grid


def _all_groups(method: Method, faces: Faces, chosen: np.ndarray) -> Tensor:
    """Each face in every group, [rows, groups, 3, S, S]; where that is its own group, as it is."""
    made = []
    for face in chosen:
        own = int(faces.groups[face])
        image = faces.images(np.array([face]))
        targets = torch.tensor([group for group in range(len(AGE_GROUPS)) if group != own])
        aged = method.translate(
            image.expand(len(targets), -1, -1, -1),
            targets,
            source=torch.full_like(targets, own),
            attributes={
                name: [faces.table[name].iloc[face]] * len(targets) for name in ATTRIBUTES if name in faces.table
            },
        )
        row = list(aged.detach().cpu())
        row.insert(own, image[0].float() / 255)
        made.append(torch.stack(row))
    return torch.stack(made)


def _cell(axes: Any, faces: Faces, face: int, group: int, image: Tensor) -> None:
    show_face(axes, image, box=INPUT if faces.groups[face] == group else None)


def _age(faces: Faces, face: int) -> str:
    age = faces.table["age"].iloc[face]
    return "" if pd.isna(age) else f"age {int(age)}"  # completed years: 30.9 is of the group 30-


def _tight(picture: Picture, title: str = "") -> None:
    picture.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    if title:
        picture.suptitle(title, fontsize=NORMAL)
