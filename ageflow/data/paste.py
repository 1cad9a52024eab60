"""An aligned face that was changed, put back into the photograph that it was cut from.

Pasted is the *change* (after less before), enlarged to the photograph's pixels, not the face. Both were tried on faces
of 64×64 in photographs with some 400 pixels to a face, and looked at. The face itself is a blurred patch, with hair
smeared and the photograph's grain gone. The change is smooth by nature, so hair, pores and grain stay as they were.
It fades towards a circle inside the square: up to the square's corners, it coloured the background.
"""

import math
from itertools import product

import numpy as np
from PIL import Image

# Of the square's half side: the circle outside of which nothing changes, and over what width inside it the change grows.
_RADIUS, _FEATHER = 0.96, 0.5
_BLOCK = 512  # pixels: the side of what is computed at a time, however large the photograph is


def paste_change(
    photo: Image.Image, similarity: tuple[complex, complex], before: np.ndarray, after: np.ndarray
) -> None:
    """Add what changed in an aligned face to the photograph, in place; outside the face's circle no value changes.

    Arguments:
        photo: RGB, upright, of the size that it had when the face was aligned.
        similarity: a and b of `Aligned`.
        before, after: uint8 [S, S, 3], the aligned face as it was and as it is to be.
    """
    a, b = similarity
    half, change = len(before) / 2, after.astype(np.float32) - before
    if (before == before[..., :1]).all():  # a grey photograph stays grey
        change[:] = change.mean(axis=-1, keepdims=True)
    fewer = max(1, int(1 / abs(a)))  # where the photograph is coarser than the face, the change is averaged
    channels = [Image.fromarray(np.ascontiguousarray(channel)).reduce(fewer) for channel in change.transpose(2, 0, 1)]
    centre, radius = a * half * (1 + 1j) + b, abs(a) * half
    edges = [
        range(max(0, math.floor(middle - radius)), min(length, math.ceil(middle + radius)))
        for middle, length in zip((centre.real, centre.imag), photo.size, strict=True)
    ]
    for left, top in product(*(edge[::_BLOCK] for edge in edges)):
        box = (left, top, min(left + _BLOCK, edges[0].stop), min(top + _BLOCK, edges[1].stop))
        x, y = np.arange(left, box[2]) + 0.5, np.arange(top, box[3]) + 0.5
        mask = ((_RADIUS - abs(x + 1j * y[:, None] - centre) / radius) / _FEATHER).clip(0, 1)
        mask *= mask * (3 - 2 * mask)  # without a kink at either end
        step, start = 1 / a / fewer, (complex(left, top) - b) / a / fewer
        affine = (step.real, -step.imag, start.real, step.imag, step.real, start.imag)
        arguments = ((len(x), len(y)), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        enlarged = np.stack([channel.transform(*arguments) for channel in channels], axis=-1)
        pixels = np.asarray(photo.crop(box)) + mask[..., None] * enlarged
        photo.paste(Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)), box)
