"""Faces of another set than the run's (Figure A.1): those of a prepared run, or a folder of anybody's pictures."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ageflow.config import ParameterError
from ageflow.data.align import DETECTION_BATCH, Aligner
from ageflow.data.faces import Faces
from ageflow.data.files import ENDINGS, list_files
from ageflow.data.pictures import open_image, read_picture


@dataclass(frozen=True)
class ExternalFaces:
    """Faces that a run's model has never seen.

    Arguments:
        images: uint8 [N, 3, S, S], aligned as the run's faces are.
        labels: what is known of each, short: its age, or nothing.
        told: where they come from, a sentence.
        left_out: files that gave no face, and why.
    """

    images: Tensor
    labels: list[str]
    told: str
    left_out: dict[str, str] = field(default_factory=dict)


def external_faces(external: str, own: Faces, runs_root: Path, count: int, seed: int = 0) -> ExternalFaces:
    """At most `count` faces of another set, as large as the run's own.

    Arguments:
        external: ``dataset/run`` of a prepared run, the folder of a run, or a folder of pictures, whose faces are
            searched for and aligned as in notebook 01.
        own: the run's faces; who is in their training half is not shown.
        runs_root: folder of all runs.
        count: faces wanted. Of a run they are drawn at random, test faces first; of a folder they are the first.
        seed: of the draw.

    Raises:
        ParameterError: nothing of that name is there, or no face in it can be shown; the message says why.
    """
    faces = Faces.find(external, runs_root)
    if faces is not None:
        return _of_run(external, faces, own, count, seed)
    folder = Path(external).expanduser().resolve()
    if not folder.is_dir():
        raise ParameterError(
            f"external = {external!r} is neither a prepared run in {runs_root} (dataset/run: 01_prepare_data.ipynb "
            f"makes one) nor a folder of pictures ({folder} is not there)"
        )
    return _of_folder(external, folder, own.image_size, count)


def _of_run(external: str, faces: Faces, own: Faces, count: int, seed: int) -> ExternalFaces:
    unseen = faces.unseen_by(own)
    if not len(unseen):
        raise ParameterError(
            f"external = {external!r}: everybody in it is in the training half of this run too; name another set"
        )
    order = unseen.table.sample(frac=1, random_state=seed).sort_values("split", kind="stable")  # "test" before "train"
    order = order.assign(_again=order.groupby("identity").cumcount()).sort_values("_again", kind="stable")
    chosen = order.index[:count].to_numpy()
    images = _resized(unseen.images(chosen), own.image_size)
    labels = ["" if pd.isna(age) else f"age {int(age)}" for age in unseen.table["age"].iloc[chosen]]
    told = f"{len(chosen)} of the {len(unseen):,} faces of {external} whose people the model was not trained on."
    if faces.image_size != own.image_size:
        told += f" Prepared at {faces.image_size} pixels, resized to the model's {own.image_size}."
    return ExternalFaces(images, labels, told)


def _of_folder(external: str, folder: Path, side: int, count: int) -> ExternalFaces:
    listing = list_files(folder)
    left_out = dict(listing.refused)
    names = [name for name in listing.files if Path(name).suffix.casefold() in ENDINGS]
    aligner, found, read = Aligner(side), [], 0
    for start in range(0, len(names), DETECTION_BATCH):
        if len(found) >= count:
            break
        pictures: dict[str, Image.Image] = {}
        for name in names[start : start + DETECTION_BATCH]:
            try:
                pictures[name] = open_image(read_picture(folder, name))
            except ValueError as error:
                left_out[name] = str(error)
        aligned = zip(pictures, aligner.align(list(pictures.values())), strict=True) if pictures else ()
        for name, face in aligned:
            if isinstance(face, str):
                left_out[name] = face
            else:
                found.append(torch.from_numpy(face.image).permute(2, 0, 1))
        read = min(start + DETECTION_BATCH, len(names))
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]) or "it holds no pictures"
        raise ParameterError(f"external = {external!r}: no face is found in {folder} ({why})")
    images = torch.stack(found[:count])
    told = f"{len(images)} faces from {external}, {read:,} of its {len(names):,} pictures read."
    return ExternalFaces(images, [""] * len(images), told, left_out)


def _resized(images: Tensor, side: int) -> Tensor:
    """Faces uint8 [B, 3, S, S] at another size; the template is a share of the side, so the eyes stay in place."""
    if images.shape[-1] == side:
        return images
    pictures = [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in images]
    small = [np.array(picture.resize((side, side), Image.Resampling.LANCZOS)) for picture in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)
