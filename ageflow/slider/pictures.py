"""Faces as pictures: enlarged, side by side, subtracted, moving."""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

SHOWN = 256  # pixels; smaller faces are enlarged to it
DIFFERENCE_GAIN = 2


def enlarged(image: Tensor, side: int = SHOWN) -> Image.Image:
    """A face, uint8 [3, S, S], as a picture at least `side` pixels wide."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return picture if picture.width >= side else picture.resize((side, side), Image.Resampling.BICUBIC)


def png(picture: Image.Image | Tensor) -> bytes:
    """A picture, or a face uint8 [3, S, S] enlarged, as the content of a PNG file."""
    held = io.BytesIO()
    # A slider waits for this: level 1 takes a third of the time of the default, for a tenth more bytes.
    (enlarged(picture) if isinstance(picture, Tensor) else picture).save(held, "PNG", compress_level=1)
    return held.getvalue()


def difference(before: Tensor, after: Tensor) -> Tensor:
    """What changed between two faces uint8 [3, S, S], `DIFFERENCE_GAIN` times, about a middle grey."""
    change = after.to(torch.int16) - before.to(torch.int16)
    return (128 + DIFFERENCE_GAIN * change).clamp(0, 255).to(torch.uint8)


def side_by_side(images: Sequence[Tensor], side: int, gap: int = 4) -> Image.Image:
    """Faces uint8 [3, S, S] in one row, `gap` white pixels between them."""
    faces = [enlarged(image, side) for image in images]
    row = Image.new("RGB", (sum(face.width + gap for face in faces) - gap, faces[0].height), "white")
    left = 0
    for face in faces:
        row.paste(face, (left, 0))
        left += face.width + gap
    return row


def gif(images: Sequence[Tensor], milliseconds: int = 80) -> bytes:
    """Faces uint8 [3, S, S] one after another and back, for ever, as the content of a GIF file."""
    # Each frame gets its 256 colours once; left to Pillow, the frames on the way back would get theirs again.
    forth = [
        enlarged(image).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG) for image in images
    ]
    first, *rest = [*forth, *forth[-2:0:-1]]
    held = io.BytesIO()
    first.save(held, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return held.getvalue()
