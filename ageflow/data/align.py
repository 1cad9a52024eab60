"""Faces brought to one template: MTCNN's five points, then a similarity transform that puts the eyes in place.

The transform turns too, which facenet-pytorch's own crop does not. MTCNN's last network saw few turned faces, so it
looks at each face a second and third time, turned upright by what it found before. The eyes come to lie at (0.36, 0.465) and
(0.64, 0.465) of the side, as in the paper's Fig. 2; what lies outside the picture is black.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from ageflow.data.mtcnn import MTCNN

EYES = ((0.36, 0.465), (0.64, 0.465))  # of the side: the eye on the left of the picture, the one on the right
DETECTION_BATCH = 8  # pictures searched at a time; more no longer fit a processor's cache and take longer
_CROP = (1.25, 0.97, 2.5)  # what O-Net looks at again: left of and above the eyes' middle, side; in eye distances
_LOOKS = 2
_MIN_EYE_DISTANCE = 2.0  # pixels; below, the two points say nothing about size and turn


@dataclass(frozen=True)
class Detection:
    """A face in a picture.

    Arguments:
        points: [5, 2] pixels (x, y): left eye, right eye, nose, left and right corner of the mouth, as seen.
        found: how many faces the picture holds; `points` belong to the one that is largest and nearest the centre.
    """

    points: np.ndarray
    found: int


@dataclass(frozen=True)
class Aligned:
    """An aligned face.

    Arguments:
        image: uint8 [S, S, 3], RGB.
        landmarks: [5, 2], the five points in pixels of `image`.
        found: how many faces the picture holds.
    """

    image: np.ndarray
    landmarks: np.ndarray
    found: int


class Aligner:
    """Finds faces and aligns them.

    Arguments:
        image_size: side S of the aligned faces, pixels.
        device: where MTCNN runs.
        detection_size: pictures are searched at this size of their longer side, pixels.

    Example:
        >>> aligner = Aligner(image_size=64)
        >>> aligner.align([Image.new("RGB", (300, 200))])
        ['MTCNN finds no face']
    """

    def __init__(self, image_size: int = 256, device: str | torch.device = "cpu", detection_size: int = 320) -> None:
        self.image_size = image_size
        self.detection_size = detection_size
        self._device = torch.device(device)

    def align(self, images: Sequence[Image.Image], points: Sequence[np.ndarray] | None = None) -> list[Aligned | str]:
        """Align one face of each picture.

        Arguments:
            images: RGB pictures, any sizes.
            points: five points [5, 2] of each, where they are known; otherwise they are searched for.

        Returns:
            For each picture the aligned face, or the reason why there is none.
        """
        if points is None:
            found = self._search(images, upright=True)
        else:
            found = [Detection(np.asarray(five, dtype=np.float64), 1) for five in points]
        return [
            face if isinstance(face, str) else self.warp(image, face) for image, face in zip(images, found, strict=True)
        ]

    def detect(self, images: Sequence[Image.Image]) -> list[Detection | str]:
        """The face of each picture as MTCNN finds it, or the reason why there is none."""
        return self._search(images, upright=False)

    def locate(self, images: Sequence[Image.Image]) -> list[Detection | str]:
        """The same with the points that `align` uses: found again in the face turned upright."""
        return self._search(images, upright=True)

    def align_all(self, image: Image.Image) -> list[Aligned]:
        """Every face of one picture, aligned, from left to right; none where MTCNN finds none.

        Arguments:
            image: RGB, any size.
        """
        canvas, size = _canvas(image, self.detection_size)
        ((_, points),) = self._detector.detect(np.stack([np.asarray(canvas)]))
        seen: list[Detection | str] = [Detection(five.astype(np.float64), len(points)) for five in points]
        for _ in range(_LOOKS if seen else 0):
            seen = self._look_again([canvas] * len(seen), seen)
        faces = [Detection(face.points * image.size / size, face.found) for face in seen if not isinstance(face, str)]
        faces.sort(key=lambda face: face.points[:, 0].mean())
        aligned = [self.warp(image, face) for face in faces]
        return [face for face in aligned if isinstance(face, Aligned)]

    def _search(self, images: Sequence[Image.Image], upright: bool) -> list[Detection | str]:
        found: list[Detection | str] = []
        for start in range(0, len(images), DETECTION_BATCH):
            batch = images[start : start + DETECTION_BATCH]
            canvases, sizes = zip(*(_canvas(image, self.detection_size) for image in batch), strict=True)
            seen = self._detector.detect(np.stack([np.asarray(canvas) for canvas in canvases]))
            faces = [_choose(boxes, points, size) for (boxes, points), size in zip(seen, sizes, strict=True)]
            for _ in range(_LOOKS if upright else 0):
                faces = self._look_again(canvases, faces)
            found += [
                face if isinstance(face, str) else Detection(face.points * image.size / size, face.found)
                for face, image, size in zip(faces, batch, sizes, strict=True)
            ]
        return found

    def _look_again(self, canvases: Sequence[Image.Image], faces: list[Detection | str]) -> list[Detection | str]:
        """The faces with their points found anew by O-Net, in the face turned upright."""
        faces = list(faces)
        side = self._detector.closest
        left, above, width = _CROP
        places, turns, crops = [], [], []
        for place, face in enumerate(faces):
            if isinstance(face, str) or _eye_distance(face.points) < _MIN_EYE_DISTANCE:
                continue
            eyes = [complex(*eye) for eye in face.points[:2]]
            across = eyes[1] - eyes[0]
            a, b = across * width / side, (eyes[0] + eyes[1]) / 2 - across * complex(left, above)
            places.append(place), turns.append((a, b)), crops.append(_resample(canvases[place], a, b, side))
        if not crops:
            return faces
        points, sure = self._detector.points(np.stack(crops))
        for place, (a, b), five, certain in zip(places, turns, points.astype(np.float64), sure, strict=True):
            if certain:  # else the first look was better: a face in profile is more than the crop
                seen = (five[:, 0] + 1j * five[:, 1]) * a + b
                faces[place] = Detection(np.stack([seen.real, seen.imag], axis=1), faces[place].found)
        return faces

    def warp(self, image: Image.Image, detection: Detection) -> Aligned | str:
        """Put the eyes of a found face onto the template."""
        eyes = detection.points[:2]
        if not np.isfinite(detection.points).all() or _eye_distance(detection.points) < _MIN_EYE_DISTANCE:
            return f"the eyes, at {eyes.round(1).tolist()}, are too close to tell the face's size"
        # A similarity of the plane is z ↦ a·z + b in complex numbers; two pairs of points give a and b.
        side = self.image_size
        template = [complex(x * side, y * side) for x, y in EYES]
        source = [complex(*eye) for eye in eyes]
        a = (source[1] - source[0]) / (template[1] - template[0])
        b = source[0] - a * template[0]
        to_template = [(complex(*point) - b) / a for point in detection.points]
        landmarks = np.array([(point.real, point.imag) for point in to_template], dtype=np.float32)
        return Aligned(_resample(image, a, b, side), landmarks, detection.found)

    @cached_property
    def _detector(self) -> MTCNN:
        return MTCNN(min_face_size=self.detection_size // 8, device=self._device)


def _canvas(image: Image.Image, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in the corner of a black square, its longer side as long as that, and its size there."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (side, side))  # MTCNN wants pictures of one size in a batch
    canvas.paste(image.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR))
    return canvas, size


def _choose(boxes: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> Detection | str:
    """Of several faces the one that is largest and nearest the centre of a picture of that size."""
    if len(boxes) == 0:
        return "MTCNN finds no face"
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    half = np.array(size) / 2
    off_centre = np.linalg.norm(((boxes[:, 2:] + boxes[:, :2]) / 2 - half) / max(half), axis=1)
    best = int(np.argmax(sides.prod(axis=1) / (1 + off_centre) ** 4))
    return Detection(points[best].astype(np.float64), len(boxes))


def _eye_distance(points: np.ndarray) -> float:
    return float(np.hypot(*(points[1] - points[0])))


def _resample(image: Image.Image, a: complex, b: complex, side: int) -> np.ndarray:
    """The picture under template z ↦ source a·z + b, averaged over each target pixel where it shrinks."""
    # Affine transforms look at 4×4 source pixels however much they shrink, which aliases: so shrink big pictures by
    # whole factors first, and transform to a finer grid that is then averaged.
    if (factor := int(abs(a) // 4)) >= 2:
        image = image.reduce(factor)
        a, b = a / factor, b / factor
    fine = max(1, math.ceil(abs(a) - 1e-6))
    step = a / fine
    coefficients = (step.real, -step.imag, b.real, step.imag, step.real, b.imag)
    size = (side * fine, side * fine)
    # Where several samples are averaged, bilinear ones give the same picture in a third of the time.
    kind = Image.Resampling.BICUBIC if fine == 1 else Image.Resampling.BILINEAR
    warped = image.transform(size, Image.Transform.AFFINE, coefficients, kind)
    return np.array(warped if fine == 1 else warped.reduce(fine), dtype=np.uint8)
