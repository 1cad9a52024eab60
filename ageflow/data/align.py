"""Faces brought to one template: MTCNN's five points, then a similarity transform that puts the eyes in place.

The transform turns too, which facenet-pytorch's own crop does not. The eyes come to lie at (0.36, 0.465) and
(0.64, 0.465) of the side, as in the paper's Fig. 2; what lies outside the picture is black.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image

__all__ = ["EYES", "Aligned", "Aligner", "Detection"]

EYES = ((0.36, 0.465), (0.64, 0.465))  # of the side: the eye on the left of the picture, the one on the right
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
            found: list[Detection | str] = self.detect(images)
        else:
            found = [Detection(np.asarray(five, dtype=np.float64), 1) for five in points]
        return [
            face if isinstance(face, str) else self.warp(image, face) for image, face in zip(images, found, strict=True)
        ]

    def detect(self, images: Sequence[Image.Image]) -> list[Detection | str]:
        """The face of each picture, or the reason why there is none. All pictures are searched at once."""
        if not images:
            return []
        side = self.detection_size
        canvases, scales = [], []
        for image in images:
            scale = side / max(image.size)
            size = [max(1, round(length * scale)) for length in image.size]
            canvas = Image.new("RGB", (side, side))  # MTCNN wants pictures of one size in a batch
            canvas.paste(image.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR))
            canvases.append(canvas)
            scales.append((size[0] / image.width, size[1] / image.height))
        with torch.inference_mode():
            boxes, _, points = self._detector.detect(canvases, landmarks=True)
        return [self._choose(boxes[index], points[index], image, scales[index]) for index, image in enumerate(images)]

    def warp(self, image: Image.Image, detection: Detection) -> Aligned | str:
        """Put the eyes of a found face onto the template."""
        eyes = detection.points[:2]
        if not np.isfinite(detection.points).all() or np.hypot(*(eyes[1] - eyes[0])) < _MIN_EYE_DISTANCE:
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
    def _detector(self) -> torch.nn.Module:
        from facenet_pytorch import MTCNN  # takes seconds to import, and known points need none of it

        return MTCNN(device=self._device, min_face_size=self.detection_size // 8)

    def _choose(
        self, boxes: np.ndarray | None, points: np.ndarray, image: Image.Image, scale: tuple[float, float]
    ) -> Detection | str:
        """Of several faces the one that is largest and nearest the picture's centre."""
        if boxes is None or len(boxes) == 0:
            return "MTCNN finds no face"
        boxes = np.asarray(boxes, dtype=np.float64) / np.tile(scale, 2)
        sides = boxes[:, 2:] - boxes[:, :2]
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2
        half = np.array(image.size) / 2
        off_centre = np.linalg.norm((centres - half) / max(half), axis=1)
        best = int(np.argmax(sides.prod(axis=1) / (1 + off_centre) ** 4))
        return Detection(np.asarray(points[best], dtype=np.float64) / scale, len(boxes))


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
    warped = image.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.array(warped if fine == 1 else warped.reduce(fine), dtype=np.uint8)
