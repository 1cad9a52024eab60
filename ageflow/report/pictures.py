"""Pictures made of faces: contact sheets, Figure 1 (bottom), Figures 4, 6 and A.2."""

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
from ageflow.evaluation.judging import ATTRIBUTES
from ageflow.flows.glow import Glow
from ageflow.report.picture import Picture, show_face
from ageflow.translation.methods import METHODS
from ageflow.translation.prototypes import Prototypes

__all__ = [
    "choose_faces",
    "contact_sheet",
    "draw_prototypes",
    "glow_samples",
    "prototype_grid",
    "translation_grid",
    "variant_grid",
]

_SIDE = 1.05  # inches of one face
_INPUT = "#d62728"  # the paper's red box


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
            axes.set_xlabel(captions[place], fontsize=7, labelpad=2)
    _tight(picture, title)
    return picture


def glow_samples(glow: Glow, count: int = 32, temperature: float = 0.7, seed: int = 0) -> Picture:
    """Figure A.2: faces drawn from GLOW at a temperature (1: its own distribution; less: nearer its mean)."""
    parts, batch = [], 16
    with torch.inference_mode():
        for start in range(0, count, batch):
            parts.append(glow.sample(min(batch, count - start), temperature, seed=seed + start))
    return contact_sheet(torch.cat(parts), title=f"Faces drawn from GLOW, temperature {temperature:g}")


def prototype_grid(prototypes: Prototypes, glow: Glow) -> Picture:
    """Figure 1, bottom: the faces of the average latents; rows attributes, columns age groups, with counts.

    A cell of too few faces shows what it fell back to, and says so.
    """
    groups, rows, _ = prototypes.means.shape
    picture = Picture(groups * (_SIDE + 0.35) + 0.9, rows * (_SIDE + 0.5) + 0.3)
    draw_prototypes(picture, prototypes, glow)
    _tight(picture, "")
    return picture


@torch.inference_mode()
def draw_prototypes(figure: FigureBase, prototypes: Prototypes, glow: Glow) -> None:
    """Draw `prototype_grid` into a figure or a part of one."""
    device = next(glow.parameters()).device
    groups, rows, _ = prototypes.means.shape
    grid = figure.subplots(rows, groups, squeeze=False)
    names = [*(", ".join(combination) for combination in prototypes.combinations), "all faces"]
    for group in range(groups):
        faces = glow.decode(prototypes.means[group].to(device)).cpu()
        own = prototypes.cells[prototypes.cells["group"] == AGE_GROUPS[group]]
        for row, cell in enumerate(own.to_dict("records")):
            axes = grid[row, group]
            show_face(axes, faces[row])
            of = "" if cell["average_of"] == "cell" else f"\naverage of its {cell['average_of']}"
            axes.set_xlabel(f"{cell['count']} faces{of}", fontsize=7, labelpad=2)
            if row == 0:
                axes.set_title(AGE_GROUPS[group], fontsize=9)
            if group == 0:
                axes.set_ylabel(names[row], fontsize=9)


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
    """Figure 4: each face in a red box in its own group's column, and its translations in the other three.

    Arguments:
        method: the method.
        faces: prepared faces.
        chosen: which of them, a row each.
    """
    made = _all_groups(method, faces, chosen)
    rows, columns = made.shape[:2]
    picture = Picture(columns * _SIDE + 0.6, rows * _SIDE + 0.3)
    grid = picture.subplots(rows, columns, squeeze=False)
    for row, face in enumerate(chosen):
        for group in range(columns):
            _cell(grid[row, group], faces, face, group, made[row, group])
            if row == 0:
                grid[row, group].set_title(AGE_GROUPS[group], fontsize=9)
        grid[row, 0].set_ylabel(_age(faces, face), fontsize=8)
    _tight(picture, "")
    return picture


def variant_grid(methods: Mapping[str, Method], faces: Faces, chosen: np.ndarray) -> Picture:
    """Figure 6: a row a variant; for each face, its four age groups side by side, the input in a red box.

    Arguments:
        methods: by their names in the settings, in the order of the rows.
        faces: prepared faces.
        chosen: which of them, a block of four columns each.
    """
    groups, blocks = len(AGE_GROUPS), len(chosen)
    widths = ([1.0] * groups + [0.12]) * blocks
    picture = Picture(sum(widths[:-1]) * 0.85 + 0.7, len(methods) * 0.85 + 0.3)
    grid = picture.subplots(len(methods), len(widths) - 1, squeeze=False, width_ratios=widths[:-1])
    for row, (name, method) in enumerate(methods.items()):
        made = _all_groups(method, faces, chosen)
        for block, face in enumerate(chosen):
            for group in range(groups):
                axes = grid[row, block * (groups + 1) + group]
                _cell(axes, faces, face, group, made[block, group])
                if row == 0:
                    axes.set_title(AGE_GROUPS[group], fontsize=8)
            if block:
                grid[row, block * (groups + 1) - 1].set_axis_off()
        grid[row, 0].set_ylabel(textwrap.fill(METHODS.get(name, name), 10), fontsize=8)
    _tight(picture, "")
    return picture


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
    show_face(axes, image, box=_INPUT if faces.groups[face] == group else None)


def _age(faces: Faces, face: int) -> str:
    age = faces.table["age"].iloc[face]
    return "" if pd.isna(age) else f"age {age:.0f}"


def _tight(picture: Picture, title: str) -> None:
    picture.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    if title:
        picture.suptitle(title, fontsize=9)
