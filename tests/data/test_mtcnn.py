"""The cascade gives what facenet-pytorch's gives, on pictures of one and of several faces."""

from pathlib import Path

import facenet_pytorch
import numpy as np
import pytest
from PIL import Image

from ageflow.data.faces import Faces
from ageflow.data.mtcnn import MTCNN
from ageflow.data.source import source_folder

SIDE, SMALLEST = 320, 40


@pytest.fixture(scope="module")
def pictures(demo_faces_folder: Path) -> np.ndarray:
    """Sixteen pictures of one drawn face, four of four faces, and a grey one: uint8 [21, SIDE, SIDE, 3]."""
    root = source_folder(demo_faces_folder)
    files = Faces.open(demo_faces_folder).table.drop_duplicates("identity")["file"].head(16)
    faces = [Image.open(root / file).convert("RGB") for file in files]
    canvases = [face.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for face in faces]
    for start in range(0, 16, 4):
        canvas = Image.new("RGB", (SIDE, SIDE))
        for place, face in enumerate(faces[start : start + 4]):
            canvas.paste(face.resize((SIDE // 2, SIDE // 2)), (place % 2 * SIDE // 2, place // 2 * SIDE // 2))
        canvases.append(canvas)
    canvases.append(Image.new("RGB", (SIDE, SIDE), "grey"))
    return np.stack([np.asarray(canvas) for canvas in canvases])


@pytest.fixture(scope="module")
def found(pictures: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return MTCNN(min_face_size=SMALLEST).detect(pictures)


def test_boxes_and_points_are_facenet_pytorchs(pictures, found):
    """The same faces; nine of ten to a thousandth of their side. A rounding may let another candidate win in the rest."""
    theirs = facenet_pytorch.MTCNN(min_face_size=SMALLEST)
    off_boxes, off_points = [], []
    for picture, (boxes, points) in zip(pictures, found, strict=True):
        their_boxes, _, their_points = theirs.detect(Image.fromarray(picture), landmarks=True)
        assert len(boxes) == (0 if their_boxes is None else len(their_boxes))
        for box, five in zip(boxes, points, strict=True):
            side = (box[2:] - box[:2]).max()
            off = np.abs(their_boxes.astype(float) - box).max(axis=1) / side
            off_boxes.append(off.min())
            off_points.append(np.abs(their_points[off.argmin()].astype(float) - five).max() / side)
    assert np.quantile(off_boxes, 0.9) < 1e-3
    assert np.quantile(off_points, 0.9) < 1e-3
    assert max(off_boxes) < 0.06
    assert max(off_points) < 0.02


def test_every_face_is_found_and_none_where_there_is_none(found):
    counts = [len(boxes) for boxes, _ in found]
    assert counts[:16] == [1] * 16
    assert min(counts[16:20]) >= 4
    assert counts[20] == 0


def test_the_largest_face_comes_first(pictures):
    picture = pictures[16].copy()
    picture[: SIDE // 2, : SIDE // 2] = 0
    picture[: SIDE // 3, : SIDE // 3] = np.asarray(Image.fromarray(pictures[0]).resize((SIDE // 3, SIDE // 3)))
    ((boxes, _),) = MTCNN(min_face_size=SMALLEST).detect(picture[None])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    assert len(areas) == 4
    assert (np.diff(areas) <= 0).all()


def test_points_of_upright_faces_do_not_change_when_they_are_mirrored(pictures, found):
    """Both views are averaged, so the answer to the mirror image is the mirror image of the answer."""
    detector = MTCNN(min_face_size=SMALLEST)
    box = found[0][0][0].round().astype(int)
    face = Image.fromarray(pictures[0]).crop(tuple(box)).resize((detector.closest,) * 2)
    pixels = np.asarray(face)[None]
    points, sure = detector.points(pixels)
    mirrored, _ = detector.points(pixels[:, :, ::-1].copy())
    assert sure.all()
    back = mirrored[0, [1, 0, 2, 4, 3]] * (-1, 1) + (detector.closest, 0)
    np.testing.assert_allclose(points[0], back, atol=1e-3)
