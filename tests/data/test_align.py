"""Faces land on the template, however they were rotated, shifted and scaled."""

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from PIL import Image

from ageflow.data.align import EYES, SMALLEST_FACE, Aligner

SIDE = 64


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(image_size=SIDE)


def moved(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """The picture on a larger black canvas, rotated by up to ±30°, scaled and shifted."""
    rotated = picture.rotate(random.uniform(-30, 30), Image.Resampling.BICUBIC, expand=True)
    side = round(rotated.width * random.uniform(0.8, 2.0))
    rotated = rotated.resize((side, side), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (round(side * 1.3), round(side * 1.2)))
    canvas.paste(rotated, tuple(int(random.integers(0, extra)) for extra in (0.3 * side, 0.2 * side)))
    return canvas


def off_template(faces: list) -> np.ndarray:
    """How far facenet-pytorch by itself sees the eyes from where they should be, of the side; infinite for no face."""
    detector, off = MTCNN(min_face_size=40), []
    for face in faces:
        canvas = Image.new("RGB", (384, 384))
        if not isinstance(face, str):
            canvas.paste(Image.fromarray(face.image), (64, 64))  # so that it sees the whole head
        _, _, points = detector.detect(canvas, landmarks=True)
        eyes = np.full((2, 2), np.inf) if points is None else (points[0][:2].astype(float) - 64) / 256
        off.append(np.linalg.norm(eyes - EYES, axis=1).max())
    return np.array(off)


def test_eyes_of_rotated_shifted_and_scaled_faces_lie_on_the_template(pictures):
    random = np.random.default_rng(0)
    off = off_template(Aligner(image_size=256).align([moved(picture, random) for picture in pictures]))
    assert np.mean(off < 0.03) >= 0.99, off.round(3)


def test_a_similarity_puts_a_drawn_point_where_the_formula_says(aligner):
    """Two dots at the eyes of a picture that is rotated by a right angle come to lie on the template's eyes."""
    picture = np.zeros((400, 300, 3), np.uint8)
    left, right = (150, 250), (150, 150)  # x, y: the face lies on its side
    for x, y in (left, right):
        picture[y - 6 : y + 6, x - 6 : x + 6] = 255
    face = aligner.warp(Image.fromarray(picture), np.array([left, right, (190, 200), (230, 230), (230, 170)], float))
    rows, columns = np.nonzero(face.image[..., 0] > 128)
    for x, y in EYES:
        near = np.abs(columns - x * SIDE) < 6
        assert abs(columns[near].mean() + 0.5 - x * SIDE) < 0.3
        assert abs(rows[near].mean() + 0.5 - y * SIDE) < 0.3


def test_shrinking_averages(aligner):
    """A fine chequerboard becomes even grey; picking single pixels would leave a pattern."""
    board = (np.indices((1600, 1600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    points = np.concatenate([np.array(EYES) * 1530 + 11, [[800, 900], [600, 1200], [1000, 1200]]])
    face = aligner.warp(Image.fromarray(np.stack([board] * 3, axis=-1)), points)
    inner = face.image[8:-8, 8:-8].astype(float)
    assert abs(inner.mean() - 127.5) < 2
    assert inner.std() < 2


def test_what_lies_outside_the_picture_is_black(aligner):
    points = np.array([(5, 50), (40, 50), (22, 65), (10, 80), (35, 80)], dtype=float)
    face = aligner.warp(Image.new("RGB", (100, 100), "white"), points)
    assert (face.image[:, :10] == 0).all()
    assert (face.image[20:40, 30:50] == 255).all()


def test_points_do_not_depend_on_the_other_pictures_nor_on_the_number_of_threads(aligner, pictures):
    together = aligner.align(pictures[:5])
    (alone,) = aligner.align(pictures[:1])
    assert np.abs(alone.landmarks - together[0].landmarks).max() < 0.05
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    (again,) = aligner.align(pictures[:1])
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)
    assert np.array_equal(alone.landmarks, again.landmarks)


def test_a_mirrored_face_has_mirrored_points(aligner, pictures):
    """O-Net sees each face both ways, so its answers to the two are one."""
    mirrored = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in pictures[:8]]
    straight, back = (np.stack([five for (five,) in aligner.locate(some)]) for some in (pictures[:8], mirrored))
    assert np.abs(back[:, [1, 0, 2, 4, 3]] * (-1, 1) + (256, 0) - straight).mean() < 0.3, "1.8 by MTCNN alone"


def test_every_face_is_found_and_the_large_one_in_the_middle_comes_first(aligner, pictures):
    canvas = Image.new("RGB", (500, 400))
    canvas.paste(pictures[0], (120, 70))
    canvas.paste(pictures[1].resize((96, 96)), (400, 300))
    (several,), (alone, small) = aligner.locate([canvas]), aligner.align([pictures[0], pictures[1]])
    assert len(several) == 2
    (first,) = aligner.align([canvas])
    assert first.found == 2
    everyone = aligner.align_all(canvas)  # from left to right
    for face, own in zip([first, *everyone], [alone, alone, small], strict=True):
        assert np.abs(face.image.astype(float) - own.image)[16:48, 16:48].mean() < 12


def eyes_off(images: list[Image.Image], eyes: list[np.ndarray], aligner: Aligner) -> np.ndarray:
    """How far the first face's eyes are found from where they are, of their distance; infinite for no face."""
    found = aligner.locate(images)
    off = [np.abs(five[0, :2] - true).max() if len(five) else np.inf for five, true in zip(found, eyes, strict=True)]
    return np.array(off) / [np.linalg.norm(right - left) for left, right in eyes]


@pytest.fixture(scope="module")
def eyes(aligner, pictures) -> list[np.ndarray]:
    """Where they are in the pictures as drawn, whose heads have room on all sides."""
    return [five[0, :2] for five in aligner.locate(pictures[:12])]


def cropped(pictures, eyes, share: float) -> tuple[list[Image.Image], list[np.ndarray]]:
    """Crops of which the eyes' distance is this share of the side, and where the eyes are in them."""
    crops, inside = [], []
    for picture, (left, right) in zip(pictures, eyes, strict=False):
        side = (right - left)[0] / share
        corner = (left + right) / 2 - (side / 2, (0.22 + (0.525 - share) / 2) * side)
        crops.append(picture.transform((300, 300), Image.Transform.EXTENT, (*corner, *(corner + side))))
        inside.append((np.array([left, right]) - corner) * 300 / side)
    return crops, inside


@pytest.mark.parametrize("share", [0.35, 0.44, 0.525], ids="dlib's chip, padding {}".format)
def test_a_face_that_fills_its_picture_is_read_whole(aligner, pictures, eyes, share):
    """The eyes' distance is this share of the crop's side: 0.35 at dlib's padding of 0.25, 0.525 without any."""
    crops, inside = cropped(pictures, eyes, share)
    assert (eyes_off(crops, inside, aligner) < 0.15).all()
    black = [face if isinstance(face, str) else face.outside for face in aligner.align(crops)]
    outside = [isinstance(one, str) and "would lie outside its picture" in one for one in black]
    assert all(outside) if share > 0.4 else np.abs(np.array(black, float) - 0.38).max() < 0.1, black


@pytest.mark.parametrize("degrees", [90, 135, 180, 270])
@pytest.mark.parametrize("head", [0.1, 0.8])
def test_a_face_on_its_side_or_upside_down_is_turned(aligner, pictures, eyes, degrees, head):
    """A head of a tenth of the picture's side, or as it is drawn."""
    images, where = turned(pictures, eyes, degrees, head)
    assert (eyes_off(images, where, aligner) < 0.15).all()
    for face in aligner.align(images[:2]):
        assert abs((face.roll + degrees + 180) % 360 - 180) < 15


def turned(pictures, eyes, degrees: float, head: float) -> tuple[list[Image.Image], list[np.ndarray]]:
    """Pictures turned, with a head of this share of their side, and where the eyes are then."""
    side, turn = round(256 * 0.8 / head), np.exp(-1j * np.radians(degrees))
    images = [Image.new("RGB", (side, side), "grey") for _ in eyes]
    for image, picture in zip(images, pictures, strict=False):
        image.paste(picture, ((side - 256) // 2,) * 2)
    images = [image.rotate(degrees, Image.Resampling.BICUBIC, expand=head > 0.5) for image in images]
    where = []
    for image, own in zip(images, eyes, strict=True):
        from_middle = np.ascontiguousarray(own).view(complex) - 128 * (1 + 1j)
        where.append((from_middle * turn + complex(*image.size) / 2).view(float))
    return images, where


def test_a_face_mostly_outside_its_picture_is_refused_in_words(aligner, pictures):
    tight = pictures[0].crop((64, 60, 192, 188)).resize((900, 900))
    for said in (*aligner.align([tight]), *aligner.align_all(tight)):
        assert "% of the aligned face would lie outside its picture, 50% at most may" in said
    points = np.array([(0, 46.5), (28, 46.5), (14, 60), (5, 75), (23, 75)], float)  # 36 % of it is left of the picture
    face = aligner.warp(Image.new("RGB", (100, 100), "white"), points)
    assert face.outside == pytest.approx(0.36, abs=0.01)
    assert face.outside == pytest.approx((face.image == 0).mean(), abs=0.02)


def test_faces_are_found_down_to_the_promised_height_and_not_far_below(aligner, pictures):
    """`min_face_size` of MTCNN is no limit: of 40 pixels, it finds faces of 27 high, and none of 15."""

    def found(part: float) -> int:
        side, canvases = round(1280 * part / 0.76), []  # chin to hairline is 0.76 of a drawn picture, on average
        for picture in pictures[:8]:
            canvases.append(Image.new("RGB", (1280, 960)))
            canvases[-1].paste(picture.resize((side, side)), (560, 430))
        middle = np.array((560 + 0.5 * side, 430 + 0.52 * side))
        located = [five[0].mean(axis=0) for five in aligner.locate(canvases) if len(five)]
        return sum(np.abs(place - middle).max() < 0.2 * side for place in located)

    assert (found(1 / SMALLEST_FACE), found(1 / 21)) == (8, 0)


def test_nothing_found_is_a_reason_not_a_crash(aligner):
    assert aligner.align([Image.new("RGB", (90, 40), "grey")]) == ["MTCNN finds no face"]
    assert aligner.align([]) == []
    assert "too close" in aligner.warp(Image.new("RGB", (20, 20)), np.full((5, 2), 10.0))


def test_a_picture_on_which_facenet_pytorch_fails_has_no_face(pictures):
    """It does where a candidate lies outside its picture altogether; here P-Net moves them too far."""
    aligner = Aligner(image_size=SIDE)
    with torch.no_grad():
        aligner._mtcnn.pnet.conv4_2.weight *= 8
    with pytest.raises(IndexError):
        aligner._mtcnn.detect(pictures[:1], landmarks=True)
    assert aligner.align(pictures[:2]) == ["MTCNN finds no face"] * 2
