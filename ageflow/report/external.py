"""Faces of another set than the run's (Figure A.1): those of a prepared run, or a folder of anybody's pictures."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ageflow.config import ParameterError
from ageflow.data.align import DETECTION_BATCH, Aligner
from ageflow.data.faces import Faces
from ageflow.data.files import is_picture, list_files
from ageflow.data.pictures import open_image, read_picture
from ageflow.report.grids import age_labels


@dataclass(frozen=True)
class ExternalFaces:
    """Faces that a run's model has never seen.

    Arguments:
        images: uint8 [N, 3, S, S], aligned as the run's faces are.
        labels: what is known of each, short: its age, or nothing.
        about: where they come from, a sentence.
        left_out: files that gave no face, and why.
    """

    images: Tensor
    labels: list[str]
    about: str
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
    size = (own.image_size,) * 2
    images = interpolate(unseen.images(chosen).float(), size, mode="bilinear", antialias=True).round().byte()
    about = f"{len(chosen)} of the {len(unseen):,} faces of {external} whose people the model was not trained on."
    if faces.image_size != own.image_size:
        about += f" Prepared at {faces.image_size} pixels, resized to the model's {own.image_size}."
    return ExternalFaces(images, age_labels(unseen.table["age"].iloc[chosen]), about)


def _of_folder(external: str, folder: Path, side: int, count: int) -> ExternalFaces:
    listing = list_files(folder)
    left_out, found, read = dict(listing.refused), [], 0
    names = list(filter(is_picture, listing.files))
    aligner = Aligner(side)
    while read < len(names) and len(found) < count:
        images = {}
        for name in names[read : read + DETECTION_BATCH]:
            try:
                images[name] = open_image(read_picture(folder, name))
            except ValueError as error:
                left_out[name] = str(error)
        read = min(read + DETECTION_BATCH, len(names))
        for name, face in zip(images, aligner.align(list(images.values())) if images else (), strict=True):
            if isinstance(face, str):
                left_out[name] = face
            else:
                found.append(torch.from_numpy(face.image).permute(2, 0, 1))
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]) or "it holds no pictures"
        raise ParameterError(f"external = {external!r}: no face is found in {folder} ({why})")
    faces = torch.stack(found[:count])
    about = f"{len(faces)} faces from {external}, {read:,} of its {len(names):,} pictures read."
    return ExternalFaces(faces, [""] * len(faces), about, left_out)
