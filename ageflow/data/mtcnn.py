"""MTCNN's three networks over many pictures at once, and its last one over faces that were cut out.

The networks and their weights are facenet-pytorch's. So is the outcome, but that a rounding may let another candidate
win: then points differ by up to 2 % of the face's side (test_mtcnn.py holds the two together). What goes
before and between them is done here for all pictures together, because there facenet-pytorch spends most of its
time on a CPU: it resizes every candidate by a call of its own, and pools in a memory layout that cannot be vectorised.

The networks run on one thread, because their last bits may depend on the number of threads; more processors are for
more processes. The bits do depend on the pictures in a batch, so a caller who wants them again takes the same batches.

Every picture is summed up once (its integral image). The mean over any rectangle then takes four numbers, so the
pyramid and all the candidates are cut out by a few look-ups. The sums are whole numbers: they are exact.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_PYRAMID = 0.709  # each level's side, of the one before
_CELL, _STRIDE = 12, 2  # what P-Net looks at and how far it moves, pixels of its level
_APART = 2.0**20  # pixels between two groups of boxes that must not suppress each other
_MIRRORED = [1, 0, 2, 4, 3]  # which of the five points each is in a mirror
_CHUNK = 512  # candidates in one forward pass


class MTCNN:
    """The cascade of Zhang et al. (2016), P-Net, R-Net and O-Net.

    Arguments:
        min_face_size: smallest side of a face to search for, pixels.
        thresholds: least probability of a face after each of the three networks.
        device: where the networks run.
    """

    closest = 48  # pixels, the side of what O-Net looks at

    def __init__(
        self,
        min_face_size: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        device: str | torch.device = "cpu",
    ) -> None:
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet  # takes seconds to import

        self.min_face_size, self.thresholds, self.device = min_face_size, thresholds, torch.device(device)
        # Channels last: with these few channels, pooling and convolution are vectorised only so.
        self.pnet, self.rnet, self.onet = (
            network().to(self.device, memory_format=torch.channels_last).eval() for network in (PNet, RNet, ONet)
        )

    def points(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The five points of faces that are upright already, by O-Net alone.

        It sees each face and its mirror image, and the two answers are averaged: what it errs to the left in the one,
        it errs to the right in the other.

        Arguments:
            faces: uint8 [B, closest, closest, 3], RGB, about as much of the head as O-Net's own candidates show.

        Returns:
            The points [B, 5, 2] in pixels of `faces`, and whether O-Net is sure of a face, [B].
        """
        with _on_one_thread():
            pixels = torch.from_numpy(faces).to(self.device)
            both = torch.cat([pixels, pixels.flip(2)])
            _, places, probabilities = self.onet(_normalised(both, both.new_ones(both.shape[1:3])))
        straight, mirrored = _as_points(places).chunk(2)
        mirrored = mirrored[:, _MIRRORED] * mirrored.new_tensor((-1, 1)) + mirrored.new_tensor((1, 0))
        sure = (probabilities[:, 1] > self.thresholds[2]).view(2, -1).all(dim=0)
        return ((straight + mirrored) / 2 * self.closest).cpu().numpy(), sure.cpu().numpy()

    def detect(self, pictures: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """All faces of each picture, the largest first.

        Arguments:
            pictures: uint8 [B, H, W, 3], RGB.

        Returns:
            For each picture its boxes [n, 4] (left, top, right, bottom) and five points [n, 5, 2] (x, y), pixels.
        """
        height, width = pictures.shape[1:3]
        with _on_one_thread():
            sums = _integral(torch.from_numpy(pictures).to(self.device))
            boxes, owners = self._propose(sums, height, width)
            boxes, owners = self._refine(sums, boxes, owners)
            boxes, points, owners = self._locate(sums, boxes, owners)
        found = []
        for picture in range(len(pictures)):
            own = owners == picture
            sides = boxes[own, 2:] - boxes[own, :2]
            order = np.argsort(-sides.prod(axis=1), kind="stable")
            found.append((boxes[own][order], points[own][order]))
        return found

    def _propose(self, sums: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """P-Net over the pyramid: square candidate boxes [n, 4] and the picture of each, [n]."""
        scale = _CELL / self.min_face_size
        boxes, owners = [torch.zeros(0, 9, device=self.device)], [torch.zeros(0, dtype=torch.long, device=self.device)]
        while min(height, width) * scale >= _CELL:
            level = _shrunk(sums, int(height * scale + 1), int(width * scale + 1))
            shifts, probabilities = self.pnet(level)
            picture, y, x = (probabilities[:, 1] >= self.thresholds[0]).nonzero(as_tuple=True)
            cell = torch.stack([x, y], dim=1).float() * _STRIDE + 1
            corners = torch.cat([(cell / scale).floor(), ((cell + _CELL - 1) / scale).floor()], dim=1)
            score = probabilities[picture, 1, y, x]
            keep = _suppress(corners, score, picture, 0.5)
            found = torch.cat([corners, score[:, None], shifts[picture, :, y, x]], dim=1)
            boxes.append(found[keep]), owners.append(picture[keep])
            scale *= _PYRAMID
        candidates, owner = torch.cat(boxes), torch.cat(owners)
        keep = _suppress(candidates[:, :4], candidates[:, 4], owner, 0.7)
        candidates, owner = candidates[keep], owner[keep]
        sides = (candidates[:, 2:4] - candidates[:, :2]).repeat(1, 2)
        return _squared(candidates[:, :4] + candidates[:, 5:] * sides), owner

    def _refine(self, sums: Tensor, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """R-Net: those candidates that hold a face, moved onto it."""
        if len(boxes) == 0:
            return boxes, owners
        boxes, owners, cut = _cut(sums, boxes, owners, 24)
        shifts, probabilities = _in_chunks(self.rnet, cut)
        score = probabilities[:, 1]
        passed = score > self.thresholds[1]
        boxes, owners, shifts, score = boxes[passed], owners[passed], shifts[passed], score[passed]
        keep = _suppress(boxes, score, owners, 0.7)
        return _squared(_moved(boxes[keep], shifts[keep])), owners[keep]

    def _locate(self, sums: Tensor, boxes: Tensor, owners: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """O-Net: the faces' final boxes [n, 4], five points [n, 5, 2] and pictures [n]."""
        if len(boxes):
            boxes, owners, cut = _cut(sums, boxes, owners, self.closest)
        if len(boxes) == 0:
            return np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.int64)
        shifts, places, probabilities = _in_chunks(self.onet, cut)
        score = probabilities[:, 1]
        passed = score > self.thresholds[2]
        boxes, owners, shifts, score = boxes[passed], owners[passed], shifts[passed], score[passed]
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        points = _as_points(places[passed]) * sides[:, None] + boxes[:, None, :2] - 1
        boxes = _moved(boxes, shifts)
        boxes, points, owners, score = (part.cpu().numpy() for part in (boxes, points, owners, score))
        keep = [
            face for owner in np.unique(owners) for face in _distinct(boxes, score, np.flatnonzero(owners == owner))
        ]
        return boxes[keep], points[keep], owners[keep]


@contextmanager
def _on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def _as_points(places: Tensor) -> Tensor:
    """O-Net's ten numbers, x of all five points and then y, as [n, 5, 2]."""
    return places.reshape(-1, 2, 5).transpose(1, 2)


def _integral(pictures: Tensor) -> Tensor:
    """Sums over all the pixels above and left, int32 [B, H + 1, W + 1, 3], of uint8 [B, H, W, 3]."""
    batch, height, width, channels = pictures.shape
    sums = torch.zeros(batch, height + 1, width + 1, channels, dtype=torch.int32, device=pictures.device)
    inner = sums[:, 1:, 1:]
    torch.cumsum(pictures, dim=1, dtype=torch.int32, out=inner)
    torch.cumsum(inner.clone(), dim=2, dtype=torch.int32, out=inner)
    return sums


def _bins(start: Tensor, length: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First pixel and the one behind the last of `count` bins over each stretch, [n, count]: overlapping, as in
    adaptive average pooling."""
    bins = torch.arange(count, device=start.device)
    first = bins * length[:, None] // count
    end = -(-(bins + 1) * length[:, None] // count)
    return start[:, None] + first, start[:, None] + end


def _shrunk(sums: Tensor, height: int, width: int) -> Tensor:
    """The pictures at a smaller size, normalised for the networks: float [B, 3, height, width]."""
    zero = torch.zeros(1, dtype=torch.long, device=sums.device)
    (top, bottom), (left, right) = (
        (first[0], end[0])
        for first, end in (_bins(zero, zero + sums.shape[1] - 1, height), _bins(zero, zero + sums.shape[2] - 1, width))
    )
    rows = sums[:, bottom] - sums[:, top]
    total = rows[:, :, right] - rows[:, :, left]
    area = (bottom - top)[:, None] * (right - left)
    return _normalised(total, area)


def _cut(sums: Tensor, boxes: Tensor, owners: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The candidates cut out at one size, float [n, 3, side, side]; those that lie outside the picture are left out."""
    height, width = sums.shape[1] - 1, sums.shape[2] - 1
    whole = boxes.trunc().long()
    left, top = whole[:, 0].clamp(min=1) - 1, whole[:, 1].clamp(min=1) - 1
    right, bottom = whole[:, 2].clamp(max=width), whole[:, 3].clamp(max=height)
    inside = (bottom > top) & (right > left)
    boxes, owners = boxes[inside], owners[inside]
    left, top, right, bottom = left[inside], top[inside], right[inside], bottom[inside]
    (y0, y1), (x0, x1) = _bins(top, bottom - top, side), _bins(left, right - left, side)
    flat = sums.reshape(-1, 3)
    base = owners * (height + 1)
    high, low = ((base[:, None] + y) * (width + 1) for y in (y0, y1))
    corner = [flat.index_select(0, (y[:, :, None] + x[:, None, :]).reshape(-1)) for y in (high, low) for x in (x0, x1)]
    total = (corner[3] - corner[2] - corner[1] + corner[0]).reshape(-1, side, side, 3)
    area = (y1 - y0)[:, :, None] * (x1 - x0)[:, None, :]
    return boxes, owners, _normalised(total, area)


def _normalised(total: Tensor, area: Tensor) -> Tensor:
    """Sums [B, h, w, 3] over areas [(B,) h, w] as the networks want them: [B, 3, h, w], channels last in memory."""
    return ((total / area[..., None] - 127.5) * 0.0078125).permute(0, 3, 1, 2)


def _in_chunks(network: Callable[[Tensor], tuple[Tensor, ...]], cut: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.cat(part) for part in zip(*map(network, cut.split(_CHUNK)), strict=True))


def _suppress(boxes: Tensor, score: Tensor, owners: Tensor, overlap: float) -> Tensor:
    """The boxes that no better one of the same picture overlaps.

    The pictures are told apart by shifting their boxes; in double precision the shift loses no bit of a box, so that
    a picture's outcome does not depend on its place in the batch.
    """
    from torchvision.ops import nms  # here: it takes three seconds to import

    return nms(boxes.double() + owners[:, None] * _APART, score.double(), overlap)


def _distinct(boxes: np.ndarray, score: np.ndarray, own: np.ndarray, overlap: float = 0.7) -> list[int]:
    """Of a picture's boxes, the best first, those not mostly inside one another (the smaller one's share counts)."""
    boxes = boxes.astype(np.float64)
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    kept: list[int] = []
    for face in own[np.argsort(-score[own], kind="stable")]:
        low = np.maximum(boxes[kept, :2], boxes[face, :2])
        high = np.minimum(boxes[kept, 2:], boxes[face, 2:])
        common = np.maximum(high - low + 1, 0).prod(axis=1)
        if (common <= overlap * np.minimum(areas[kept], areas[face])).all():
            kept.append(int(face))
    return kept


def _squared(boxes: Tensor) -> Tensor:
    """Boxes made square about their centres, by the longer side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(dim=1, keepdim=True)
    corner = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat([corner, corner + longer], dim=1)


def _moved(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Boxes moved by a network's four corrections, in units of their sides."""
    return boxes + shifts * (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)
