"""A folder of pictures that another tool made, as a method: what it is to make, and what it made."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ageflow.config import Ablations, ParameterError
from ageflow.data.faces import Faces
from ageflow.data.pictures import open_image, read_picture
from ageflow.evaluation.protocol import held_out_faces, other_groups
from ageflow.run import atomic_file, files_state, write_atomically
from ageflow.translation.methods import Attributes, Method
from ageflow.work import progress_bar

_TABLE, _INPUTS = "faces.csv", "faces"


def picture_name(face: object, target: int) -> str:
    """The file of a face at a target group: ``12_3.png``."""
    return f"{face}_{target}.png"


def export(settings: Ablations, out: Path) -> pd.DataFrame:
    """Write the faces that notebook 06 judges with these settings, for another tool to translate.

    Into `out` go ``faces/<face>.png`` and ``faces.csv``.

    Returns:
        What ``faces.csv`` has, a row a picture to make: face, input (its file), source and target (groups, from 0),
        target_ages (the target's label), the attributes, and output, the name under which the picture is judged.

    Raises:
        NotJudgedError, ParameterError: as `held_out_faces`.
    """
    faces = held_out_faces(settings)
    names = [f"{_INPUTS}/{face}.png" for face in faces.table["face"]]
    for row in progress_bar(range(len(faces)), unit="face", title="writing", show=settings.progress):
        with atomic_file(out / names[row]) as file:
            Image.fromarray(faces.images([row])[0].permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    rows, targets = other_groups(faces)
    table = faces.table[["face", *faces.attributes]].iloc[rows].reset_index(drop=True)
    table = table.assign(input=np.array(names)[rows], source=faces.groups[rows], target=targets)
    table["target_ages"] = table["target"].map(dict(enumerate(faces.age_groups.labels)))
    table["output"] = list(map(picture_name, table["face"], table["target"]))
    write_atomically(out / _TABLE, table.to_csv(index=False).encode())
    return table


class FolderMethod(Method):
    """Pictures ``<face>_<target>.png`` of test faces, as large as these, made by another tool.

    Arguments:
        name: ``folder:/path``.
    """

    live = False

    def __init__(self, name: str) -> None:
        self.folder = Path(name.removeprefix("folder:"))
        self.title, self.weights = self.folder.name, {"pictures": files_state(self.folder)}
        self._problem = cache(self._find_problem)

    def can(self, faces: Faces, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
        names, side = map(picture_name, faces.table["face"].iloc[rows], targets), faces.image_size
        return np.array([not self._problem(name, side) for name in names], bool)

    def problems(self, faces: Faces) -> pd.DataFrame:
        """What is wrong with the folder: columns file and problem; missing, wrongly sized, unreadable or extra.

        Arguments:
            faces: those that are judged.
        """
        rows, targets = other_groups(faces)
        wanted = list(map(picture_name, faces.table["face"].iloc[rows], targets))
        found = {name: self._problem(name, faces.image_size) for name in wanted}
        others = {path.name for path in self.folder.iterdir()} - {*wanted, _TABLE, _INPUTS}
        found |= dict.fromkeys(sorted(others), "extra: no face judged here has a picture of that name")
        return pd.DataFrame([item for item in found.items() if item[1]], columns=["file", "problem"])

    def translate_faces(self, faces: Faces, rows: np.ndarray, target: Tensor, known: dict[str, Any]) -> Tensor:
        names = map(picture_name, faces.table["face"].iloc[rows], target.tolist())
        made = np.stack([self._picture(name, faces.image_size) for name in names])
        return torch.from_numpy(made).permute(0, 3, 1, 2).float() / 255

    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Attributes = None
    ) -> Tensor:
        raise ParameterError(f"{self.folder} has pictures of test faces, by their names: it translates no others")

    def _find_problem(self, name: str, side: int) -> str:
        try:
            self._picture(name, side)
        except ValueError as error:
            return str(error)
        return ""

    def _picture(self, name: str, side: int) -> np.ndarray:
        if not (self.folder / name).exists():
            raise ValueError("missing")
        image = open_image(read_picture(self.folder, name))
        if image.size != (side, side):
            raise ValueError(f"wrongly sized: {image.width}×{image.height}, expected {side}×{side} pixels")
        return np.array(image)
