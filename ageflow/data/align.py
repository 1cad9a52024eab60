"""Faces brought to one template: MTCNN's five points, then a similarity transform that puts the eyes in place.

The transform rotates too, which facenet-pytorch's own crop does not. O-Net, MTCNN's last network, was trained on few
rotated faces. So it sees each face a second and a third time, upright by the points found before, and mirrored as well:
its errors to the left in the one are errors to the right in the other. The eyes come to lie at (0.36, 0.465) and
(0.64, 0.465) of the side, as in the paper's Fig. 2; what lies outside the picture is black.

The networks run on one thread, because their last bits may depend on the number of threads; more processors are for
more processes. The bits do depend on the pictures in a batch: whoever wants the same bits again takes the same batches.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

EYES = ((0.36, 0.465), (0.64, 0.465))  # of the side: the eye on the left of the picture, the one on the right
DETECTION_BATCH = 8  # pictures searched at a time; more no longer fit a processor's cache and take longer
_LOOKS = 2  # of O-Net at the upright face
_ONET_SIDE = 48  # pixels
_CROP = (1.25, 0.97, 2.5)  # what O-Net looks at again: left of and above the eyes' middle, side; in eye distances
_MIRRORED = [1, 0, 2, 4, 3]  # which of the five points each is in a mirror
_MIN_EYE_DISTANCE = 2.0  # pixels; below, the two points say nothing about size and rotation


class Aligned(NamedTuple):
    """An aligned face.

    Arguments:
        image: uint8 [S, S, 3], RGB.
        landmarks: [5, 2] pixels (x, y) of `image`: left eye, right eye, nose, left and right corner of the mouth, as
            seen in the picture.
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
        """Align one face of each picture: the one that is largest and nearest the centre.

        Arguments:
            images: RGB pictures, any sizes.
            points: five points [5, 2] of each, where they are known; otherwise they are searched for.

        Returns:
            For each picture the aligned face, or the reason why there is none.
        """
        found = self.locate(images) if points is None else [five[None] for five in points]
        return [
            self.warp(image, faces[0], len(faces)) if len(faces) else "MTCNN finds no face"
            for image, faces in zip(images, found, strict=True)
        ]

    def align_all(self, image: Image.Image) -> list[Aligned]:
        """Every face of one RGB picture, aligned, from left to right; none where MTCNN finds none."""
        (faces,) = self.locate([image])
        aligned = [self.warp(image, face, len(faces)) for face in sorted(faces, key=lambda five: five[:, 0].mean())]
        return [face for face in aligned if isinstance(face, Aligned)]

    def locate(self, images: Sequence[Image.Image]) -> list[np.ndarray]:
        """The five points of every face of each picture, [faces, 5, 2] pixels (x, y).

        The face that is largest and nearest the centre comes first.
        """
        found: list[np.ndarray] = []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for start in range(0, len(images), DETECTION_BATCH):
                batch = images[start : start + DETECTION_BATCH]
                canvases, sizes = zip(*(_canvas(image, self.detection_size) for image in batch), strict=True)
                seen = self._detect(canvases, sizes)
                for _ in range(_LOOKS):
                    seen = self._look_again(canvases, seen)
                found += [
                    five * np.divide(image.size, size) for five, image, size in zip(seen, batch, sizes, strict=True)
                ]
        finally:
            torch.set_num_threads(threads)
        return found

    def warp(self, image: Image.Image, points: np.ndarray, found: int = 1) -> Aligned | str:
        """Put the eyes of a face onto the template, or say why not.

        Arguments:
            image: RGB.
            points: [5, 2] pixels, as of `locate`.
            found: how many faces the picture holds.
        """
        eyes = points[:2]
        if not np.isfinite(points).all() or np.hypot(*(eyes[1] - eyes[0])) < _MIN_EYE_DISTANCE:
            return f"the eyes, at {eyes.round(1).tolist()}, are too close together to give the face's size"
        # A similarity of the plane is z ↦ a·z + b in complex numbers; two pairs of points give a and b.
        template = [complex(x, y) * self.image_size for x, y in EYES]
        source = _to_complex(points)
        a = (source[1] - source[0]) / (template[1] - template[0])
        b = source[0] - a * template[0]
        landmarks = _to_pairs((source - b) / a).astype(np.float32)
        return Aligned(_resample(image, a, b, self.image_size), landmarks, found)

    @cached_property
    def _mtcnn(self) -> Any:
        from facenet_pytorch import MTCNN  # takes seconds to import

        detector = MTCNN(min_face_size=self.detection_size // 8, keep_all=True, device=self._device).eval()
        # Its convolutions have few channels, and are vectorised only with these last in memory.
        return detector.to(memory_format=torch.channels_last)

    def _detect(self, canvases: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """The five points [n, 5, 2] of every face, as MTCNN finds them; those large and near the picture's centre first."""
        # Colour by colour in memory, where it averages the pictures fastest.
        pixels = torch.from_numpy(np.stack([np.asarray(canvas).transpose(2, 0, 1) for canvas in canvases]))
        try:
            boxes, _, points = self._mtcnn.detect(pixels.permute(0, 2, 3, 1), landmarks=True)
        except IndexError:  # facenet-pytorch fails at a candidate that lies outside its picture altogether
            if len(canvases) > 1:
                return [self._detect(*one)[0] for one in zip(zip(canvases), zip(sizes), strict=True)]
            boxes, points = [None], [None]
        return [
            np.empty((0, 5, 2)) if own is None else five.astype(np.float64)[_order(own.astype(np.float64), size)]
            for own, five, size in zip(boxes, points, sizes, strict=True)
        ]

    @torch.inference_mode()
    def _look_again(self, canvases: Sequence[Image.Image], found: list[np.ndarray]) -> list[np.ndarray]:
        """The points of each picture found anew by O-Net in every face made upright.

        Where it is not sure of a face they stay: a face in profile is more than the crop shows.
        """
        points = _to_complex(np.concatenate(found))
        if not len(points):
            return found
        left, above, width = _CROP
        across = points[:, 1] - points[:, 0]
        a = across * width / _ONET_SIDE
        b = (points[:, 0] + points[:, 1]) / 2 - across * complex(left, above)
        owners = [canvas for canvas, several in zip(canvases, found, strict=True) for _ in several]
        crops = np.stack([_resample(*face, _ONET_SIDE) for face in zip(owners, a, b, strict=True)])
        pixels = (torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2) - 127.5) / 128
        _, places, probabilities = self._mtcnn.onet(torch.cat([pixels, pixels.flip(3)]))
        x, y = places.cpu().double().numpy().reshape(2, -1, 2, 5).transpose(2, 0, 1, 3)  # [2, n, 5] each
        seen = (x[0] + 1 - x[1][:, _MIRRORED] + 1j * (y[0] + y[1][:, _MIRRORED])) / 2 * _ONET_SIDE
        sure = (probabilities[:, 1] > self._mtcnn.thresholds[2]).view(2, -1).all(dim=0).cpu().numpy()
        again = np.where(sure[:, None], seen * a[:, None] + b[:, None], points)
        return np.split(_to_pairs(again), np.cumsum([len(several) for several in found])[:-1])


def _canvas(image: Image.Image, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in the corner of a black square, its longer side as long as that, and its size there."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (side, side))  # MTCNN wants pictures of one size in a batch
    canvas.paste(image.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR))
    return canvas, size


def _order(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The order of a picture's faces: those that are large and near its centre first."""
    sides, centres, half = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2, np.divide(size, 2)
    off_centre = np.linalg.norm((centres - half) / max(half), axis=1)
    return np.argsort(-sides.prod(axis=1) / (1 + off_centre) ** 4, kind="stable")


def _to_complex(points: np.ndarray) -> np.ndarray:
    """Points [..., 2] as complex numbers x + iy [...]."""
    return points[..., 0] + 1j * points[..., 1]


def _to_pairs(points: np.ndarray) -> np.ndarray:
    """Complex numbers x + iy [...] as points [..., 2]."""
    return np.stack([points.real, points.imag], axis=-1)


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
