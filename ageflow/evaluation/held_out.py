"""Which faces a run is judged on."""

import warnings

import numpy as np
import pandas as pd

from ageflow.config import Ablations, ParameterError
from ageflow.data.faces import Faces
from ageflow.evaluation.judged import NotJudgedError
from ageflow.run import Workspace


def held_out_faces(settings: Ablations) -> tuple[Faces, np.ndarray]:
    """The faces to judge on: the test split, and which of it.

    Returns:
        The test split of the run, or that of the run that ``external`` names, less the people that the run was trained
        on; and the rows [M] int64 to judge: all, or a seeded choice of ``evaluation_faces`` of them that is spread
        evenly over the age groups.

    Raises:
        NotJudgedError: there are no such faces.
        ParameterError: ``external`` names no prepared run, or one of another size.
    """
    own = Faces.open(Workspace.of(settings).require("faces"))
    faces = (own if settings.external is None else _external(settings, own)).select(split="test")
    if not len(faces):
        raise NotJudgedError(
            f"{faces.folder} has no test faces: it has one identity, or its own partition has no "
            "test half. Prepare it with more people, or name another set with external"
        )
    if settings.external is not None:
        every, seen, faces = faces, len(faces), faces.unseen_by(own)
        if not len(faces):
            raise NotJudgedError(
                f"external = {settings.external!r}: its {seen} test faces are all of people that this run was trained "
                f"on{_by_name(every)}: name another set"
            )
        if len(faces) < seen:
            warnings.warn(
                f"external = {settings.external!r}: {seen - len(faces):,} of its {seen:,} test faces are of people that "
                f"this run was trained on{_by_name(every)}, and are left out",
                stacklevel=2,
            )
    return faces, spread_evenly(faces.groups, settings.evaluation_faces, settings.seed)


def _by_name(faces: Faces) -> str:
    """Numbers that two folders of one's own give to people may mean others in each."""
    own = (faces.table["source"] == "folder").any()
    return " (by their names: where those mean others in this folder, prepare it with other names)" if own else ""


def _external(settings: Ablations, own: Faces) -> Faces:
    faces = Faces.find(settings.external, settings.runs_root)
    if faces is None:
        raise ParameterError(
            f"external = {settings.external!r} is no prepared run in {settings.runs_root} (dataset/run), nor the folder "
            "of one: 01_prepare_data.ipynb makes one"
        )
    if faces.image_size != own.image_size:
        raise ParameterError(
            f"external = {settings.external!r} has faces of {faces.image_size} pixels, and this run's have "
            f"{own.image_size}: prepare it with image_size = {own.image_size}"
        )
    return faces


def spread_evenly(groups: np.ndarray, wanted: int | None, seed: int) -> np.ndarray:
    """Which of some faces, of those groups [N], to take: all, or `wanted` by seed, the groups taking turns; sorted."""
    if wanted is None or wanted >= len(groups):
        return np.arange(len(groups))
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    # Take turns between the groups: the k-th face of each before the (k+1)-th of any.
    turn = pd.Series(shuffled).groupby(groups[shuffled]).cumcount().to_numpy()
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:wanted]])
