"""Faces land on the template, however they were turned, moved and scaled."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ageflow.data.align import EYES, Aligner, Detection
from ageflow.data.faces import Faces
from ageflow.data.source import source_folder

SIDE = 64


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(image_size=SIDE)


@pytest.fixture(scope="module")
def pictures(demo_faces_folder: Path) -> list[Image.Image]:
    """Drawn faces before alignment, 256×256."""
    faces = Faces.open(demo_faces_folder)
    files = [source_folder(demo_faces_folder) / file for file in faces.table["file"]]
    return [Image.open(file).convert("RGB") for file in files]


def moved(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """The picture on a larger black canvas, turned by up to ±30°, scaled and shifted."""
    turned = picture.rotate(random.uniform(-30, 30), Image.Resampling.BICUBIC, expand=True)
    side = round(turned.width * random.uniform(0.8, 2.0))
    turned = turned.resize((side, side), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (round(side * 1.3), round(side * 1.2)))
    canvas.paste(turned, tuple(int(random.integers(0, extra)) for extra in (0.3 * side, 0.2 * side)))
    return canvas


def eyes_in(aligner: Aligner, images: list[np.ndarray]) -> np.ndarray:
    """Eyes found anew in aligned faces, of the side [n, 2, 2]; a margin lets MTCNN see the whole head."""
    side = len(images[0])
    canvases = [Image.new("RGB", (side * 3 // 2,) * 2) for _ in images]
    for canvas, image in zip(canvases, images, strict=True):
        canvas.paste(Image.fromarray(image), (side // 4, side // 4))
    found = aligner.detect(canvases)
    assert not [reason for reason in found if isinstance(reason, str)]
    return (np.stack([face.points[:2] for face in found]) - side // 4) / side


def test_eyes_of_turned_shifted_and_scaled_faces_lie_on_the_template(pictures):
    """Judged by a second detection in the aligned face, not by the first one's points."""
    aligner = Aligner(image_size=256)
    random = np.random.default_rng(0)
    aligned = aligner.align([moved(picture, random) for picture in pictures])
    found = [face for face in aligned if not isinstance(face, str)]
    assert len(found) >= 0.99 * len(pictures)
    off = np.linalg.norm(eyes_in(aligner, [face.image for face in found]) - EYES, axis=2).max(axis=1)
    assert np.mean(off < 0.03) >= 0.99, off.round(3)


def test_landmarks_are_given_in_the_aligned_face(aligner, pictures):
    for face in aligner.align(pictures[:4]):
        np.testing.assert_allclose(face.landmarks[:2] / SIDE, EYES, atol=1e-4)
        nose, *mouth = face.landmarks[2:]
        assert all(corner[1] > nose[1] > face.landmarks[:2, 1].max() for corner in mouth)


def test_a_similarity_puts_a_drawn_point_where_the_formula_says(aligner):
    """Two dots at the eyes of a picture that is turned by a right angle come to lie on the template's eyes."""
    picture = np.zeros((400, 300, 3), np.uint8)
    left, right = (150, 250), (150, 150)  # x, y: the face lies on its side
    for x, y in (left, right):
        picture[y - 6 : y + 6, x - 6 : x + 6] = 255
    points = np.array([left, right, (190, 200), (230, 230), (230, 170)], dtype=float)
    face = aligner.warp(Image.fromarray(picture), Detection(points, 1))
    rows, columns = np.nonzero(face.image[..., 0] > 128)
    for x, y in EYES:
        near = np.abs(columns - x * SIDE) < 6
        assert abs(columns[near].mean() + 0.5 - x * SIDE) < 0.3
        assert abs(rows[near].mean() + 0.5 - y * SIDE) < 0.3


def test_shrinking_averages(aligner):
    """A fine chequerboard becomes even grey; picking single pixels would leave a pattern."""
    board = (np.indices((1600, 1600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    eyes = np.array(EYES) * 1530 + 11
    points = np.concatenate([eyes, [[800, 900], [600, 1200], [1000, 1200]]])
    face = aligner.warp(Image.fromarray(np.stack([board] * 3, axis=-1)), Detection(points, 1))
    inner = face.image[8:-8, 8:-8].astype(float)
    assert abs(inner.mean() - 127.5) < 2
    assert inner.std() < 2


def test_what_lies_outside_the_picture_is_black(aligner):
    white = Image.new("RGB", (100, 100), "white")
    points = np.array([(5, 50), (60, 50), (30, 70), (10, 90), (55, 90)], dtype=float)
    face = aligner.warp(white, Detection(points, 1))
    assert (face.image[:, :10] == 0).all()
    assert (face.image[20:40, 30:50] == 255).all()


def test_the_answers_do_not_depend_on_the_company(aligner, pictures):
    together = aligner.align(pictures[:5])
    for picture, face in zip(pictures[:2], together[:2], strict=True):
        (alone,) = aligner.align([picture])
        assert np.abs(alone.landmarks - face.landmarks).max() < 0.05


def test_of_several_faces_the_large_one_in_the_middle_is_taken(aligner, pictures):
    large, small = pictures[0], pictures[1].resize((96, 96))
    canvas = Image.new("RGB", (500, 400))
    canvas.paste(large, (120, 70))
    canvas.paste(small, (400, 300))
    (found,) = aligner.detect([canvas])
    (alone,) = aligner.detect([large])
    assert found.found == 2
    assert np.abs(found.points - (120, 70) - alone.points).max() < 8


def test_nothing_found_is_a_reason_not_a_crash(aligner):
    assert aligner.align([Image.new("RGB", (90, 40), "grey")]) == ["MTCNN finds no face"]
    assert aligner.align([]) == []
    same = np.full((5, 2), 10.0)
    assert "too close" in aligner.warp(Image.new("RGB", (20, 20)), Detection(same, 1))
