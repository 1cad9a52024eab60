"""Faces brought to one template: MTCNN's five points, then a similarity transform that puts the eyes in place.

The transform rotates too, which facenet-pytorch's own crop does not. O-Net, MTCNN's last network, was trained on few
rotated faces. So it sees each face a second and a third time, upright by the points found before, and mirrored as well:
its errors to the left in the one are errors to the right in the other. The eyes come to lie at (0.36, 0.465) and
(0.64, 0.465) of the side, as in the paper's Fig. 2; what lies outside the picture is black.

MTCNN reads a face that fills its picture from a part of it, and in one that lies on its side or is upside down it sees
an upright face about the mouth. O-Net's looks give such away: they are unsure, or the two differ. Where they do, the
picture is searched again with a black margin, each way up, and the look that is surest counts.

The networks run on one thread, because their last bits may depend on the number of threads; more processors are for
more processes. The bits do depend on the pictures in a batch: whoever wants the same bits again takes the same batches.
"""

import cmath
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

EYES = ((0.36, 0.465), (0.64, 0.465))  # of the side: the eye on the left of the picture, the one on the right
DETECTION_BATCH = 8  # pictures searched at a time; more no longer fit a processor's cache and take longer
_LOOKS = 2  # of O-Net at the upright face
_ONET_SIDE = 48  # pixels
_CROP = (1.25, 0.97, 2.5)  # what O-Net looks at again: left of and above the eyes' middle, side; in eye distances
_MIRRORED = [1, 0, 2, 4, 3]  # which of the five points each is in a mirror
_MIN_EYE_DISTANCE = 2.0  # pixels; below, the two points say nothing about size and rotation
_QUARTERS = (0, 2, 1, 3)  # turns at which a picture in doubt is searched again, in this order
# Below, a first look is in doubt. Measured on drawn faces: of 518 upright ones 0.6 % are, of 1,280 wrong looks all.
_CERTAIN = 0.955
_SAME = 0.05  # of the eyes' distance: points of two looks that are no further apart are of one face
_MOST_OUTSIDE = 0.5  # of an aligned face: more black than face teaches nothing
# A face, from chin to hairline, is found where it spans 1/12 of its picture's longer side. Measured on drawn faces: of 24
# all are at 1/12, 23 at 1/14, none at 1/21. MTCNN's `min_face_size`, an eighth, is no limit: half of it is found, too.
SMALLEST_FACE = 12
_Picture = tuple[Image.Image, tuple[int, int]]  # in the corner of a black canvas, and its size there


class Aligned(NamedTuple):
    """An aligned face.

    Arguments:
        image: uint8 [S, S, 3], RGB.
        landmarks: [5, 2] pixels (x, y) of `image`: left eye, right eye, nose, left and right corner of the mouth, as
            seen in the picture.
        found: how many faces the picture holds.
        outside: the share of `image` that lies outside the picture and is black, 0 to 0.5.
        similarity: complex a and b: the point z = x + iy of `image` lies at a·z + b in the picture, pixels both.
    """

    image: np.ndarray
    landmarks: np.ndarray
    found: int
    outside: float
    similarity: tuple[complex, complex]

    @property
    def roll(self) -> float:
        """By how much the face is turned clockwise in the picture, degrees in (−180, 180]."""
        return math.degrees(cmath.phase(self.similarity[0]))


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

    def align_all(self, image: Image.Image) -> list[Aligned | str]:
        """Every face of one RGB picture, from left to right: aligned, or why not. Empty where MTCNN finds none."""
        (faces,) = self.locate([image])
        return [self.warp(image, face, len(faces)) for face in sorted(faces, key=lambda five: five[:, 0].mean())]

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
                pictures = [_canvas(image, self.detection_size) for image in batch]
                looks = self._look(pictures)
                for quarters in _QUARTERS:
                    doubtful = [place for place, (_, certainty) in enumerate(looks) if certainty < _CERTAIN]
                    if not doubtful:
                        break
                    again = self._look([pictures[place] for place in doubtful], quarters)
                    for place, look in zip(doubtful, again, strict=True):
                        looks[place] = _surer(looks[place], look)
                scales = [np.divide(image.size, size) for image, (_, size) in zip(batch, pictures, strict=True)]
                found += [five * scale for (five, _), scale in zip(looks, scales, strict=True)]
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
        source = np.ascontiguousarray(points, dtype=np.float64).view(complex)[:, 0]
        a = (source[1] - source[0]) / (template[1] - template[0])
        b = source[0] - a * template[0]
        if (outside := _outside(image.size, a, b, self.image_size)) > _MOST_OUTSIDE:
            what = f"{outside:.0%} of the aligned face would lie outside its picture, {_MOST_OUTSIDE:.0%} at most may"
            return f"{what}: take a picture that shows the whole head"
        landmarks = ((source - b) / a)[:, None].view(float).astype(np.float32)
        similarity = complex(a), complex(b)
        return Aligned(_resample(image, a, b, self.image_size), landmarks, found, outside, similarity)

    @cached_property
    def _mtcnn(self) -> Any:
        from facenet_pytorch import MTCNN  # takes seconds to import

        detector = MTCNN(min_face_size=self.detection_size // 8, keep_all=True, device=self._device).eval()
        # Its convolutions have few channels, and are vectorised only with these last in memory.
        return detector.to(memory_format=torch.channels_last)

    def _look(self, pictures: Sequence[_Picture], quarters: int | None = None) -> list[tuple[np.ndarray, float]]:
        """Each picture's faces, [n, 5, 2] pixels of its canvas, and how certain the first is, at most 1; of none, −∞.

        Arguments:
            quarters: by how many quarters the pictures are turned for it, with a margin around; None: they are not.
        """
        found, canvases = self._detect(pictures, quarters), [canvas for canvas, _ in pictures]
        seen = [five for five, _ in found]
        for _ in range(_LOOKS):
            seen, trust = self._look_again(canvases, seen)
        first = [float(p[0] * own[0]) if len(own) else -math.inf for (_, p), own in zip(found, trust, strict=True)]
        return list(zip(seen, first, strict=True))

    def _detect(self, pictures: Sequence[_Picture], quarters: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Every face as MTCNN finds it: points [n, 5, 2] and probabilities [n]; those large and near the centre first."""
        side, margin, shown = self.detection_size, self.detection_size // 4, [canvas for canvas, _ in pictures]
        if quarters is not None:
            shown = [ImageOps.expand(canvas, margin).rotate(90 * quarters) for canvas in shown]
        # Colour by colour in memory, where it averages the pictures fastest.
        pixels = torch.from_numpy(np.stack([np.asarray(canvas).transpose(2, 0, 1) for canvas in shown]))
        try:
            boxes, probabilities, points = self._mtcnn.detect(pixels.permute(0, 2, 3, 1), landmarks=True)
        except IndexError:  # facenet-pytorch fails at a candidate that lies outside its picture altogether
            if len(pictures) > 1:
                return [self._detect([one], quarters)[0] for one in pictures]
            boxes, probabilities, points = [None], [None], [None]
        found = []
        for own, p, five, (_, size) in zip(boxes, probabilities, points, pictures, strict=True):
            if own is None:
                found.append((np.empty((0, 5, 2)), np.empty(0)))
                continue
            corners, five = own.astype(np.float64).reshape(-1, 2, 2), five.astype(np.float64)
            if quarters is not None:
                corners, five = (_turned_back(some, side, margin, quarters) for some in (corners, five))
            order = _order(corners, size)
            found.append((five[order], p[order].astype(np.float64)))
        return found

    @torch.inference_mode()
    def _look_again(self, canvases: Sequence[Image.Image], found: list[np.ndarray]) -> tuple[list[np.ndarray], ...]:
        """The points of each picture found anew by O-Net in every face made upright, and how far to trust each face.

        Where it is not sure of a face they stay: a face in profile is more than the crop shows. The trust, [n] and at
        most 1, is its lower probability less twice what the mirrored answers differ by, in sides of the crop.
        """
        points = np.concatenate(found).view(complex)[..., 0]  # x + iy
        if not len(points):
            return found, [np.empty(0) for _ in found]
        left, above, width = _CROP
        across = points[:, 1] - points[:, 0]
        a = across * width / _ONET_SIDE
        b = (points[:, 0] + points[:, 1]) / 2 - across * complex(left, above)
        owners = [canvas for canvas, several in zip(canvases, found, strict=True) for _ in several]
        crops = np.stack([_resample(*face, _ONET_SIDE) for face in zip(owners, a, b, strict=True)])
        pixels = (torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2) - 127.5) / 128
        _, places, probabilities = self._mtcnn.onet(torch.cat([pixels, pixels.flip(3)]))
        x, y = places.cpu().double().numpy().reshape(2, -1, 2, 5).transpose(2, 0, 1, 3)  # [2, n, 5] each
        straight, mirrored = x[0] + 1j * y[0], 1 - x[1][:, _MIRRORED] + 1j * y[1][:, _MIRRORED]
        seen = (x[0] + 1 - x[1][:, _MIRRORED] + 1j * (y[0] + y[1][:, _MIRRORED])) / 2 * _ONET_SIDE
        lower = probabilities[:, 1].view(2, -1).amin(dim=0).cpu().numpy()
        again = np.where((lower > self._mtcnn.thresholds[2])[:, None], seen * a[:, None] + b[:, None], points)
        trust = lower - 2 * np.abs(straight - mirrored).mean(axis=1)
        ends = np.cumsum([len(several) for several in found])[:-1]
        return np.split(again[..., None].view(float), ends), np.split(trust, ends)


def _canvas(image: Image.Image, side: int) -> _Picture:
    """The picture in the corner of a black square, its longer side as long as that, and its size there."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (side, side))  # MTCNN wants pictures of one size in a batch
    canvas.paste(image.resize(size, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR))
    return canvas, size


def _turned_back(points: np.ndarray, side: int, margin: int, quarters: int) -> np.ndarray:
    """Points [n, k, 2] of a canvas with a margin that is turned anticlockwise, as points of the canvas itself."""
    half = (side / 2 + margin) * (1 + 1j)
    z = (np.ascontiguousarray(points).view(complex) - half) * 1j**quarters + half - margin * (1 + 1j)
    return z.view(float)


def _order(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The order of a picture's faces by two opposite corners [n, 2, 2] of each: large and near its centre first."""
    sides, centres, half = np.abs(corners[:, 1] - corners[:, 0]), corners.mean(axis=1), np.divide(size, 2)
    off_centre = np.linalg.norm((centres - half) / max(half), axis=1)
    return np.argsort(-sides.prod(axis=1) / (1 + off_centre) ** 4, kind="stable")


def _surer(old: tuple[np.ndarray, float], new: tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
    """The look that is more certain; where both see one face, the old points stay, for they need no new ones."""
    if new[1] <= old[1]:
        return old
    if len(old[0]):
        apart, (left, right) = np.abs(new[0][0] - old[0][0]).max(), new[0][0][:2]
        if apart < _SAME * np.hypot(*(right - left)):
            return old[0], new[1]
    return new


def _outside(size: tuple[int, int], a: complex, b: complex, side: int) -> float:
    """The share of a template of that side, under z ↦ a·z + b, that lies outside a picture of that size."""
    x = (np.arange(64) + 0.5) / 64 * side
    z = a * (x + 1j * x[:, None]) + b
    return float(np.mean((z.real < 0) | (z.real > size[0]) | (z.imag < 0) | (z.imag > size[1])))


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
    # Where several samples are averaged, bilinear ones give the same picture in a third of the time.
    kind = Image.Resampling.BICUBIC if fine == 1 else Image.Resampling.BILINEAR
    warped = image.transform((side * fine, side * fine), Image.Transform.AFFINE, coefficients, kind)
    return np.array(warped if fine == 1 else warped.reduce(fine), dtype=np.uint8)
