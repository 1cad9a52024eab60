"""Faces as pictures: enlarged, subtracted, moving, and side by side in a figure."""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ageflow.data.records import AGE_GROUPS
from ageflow.report.drawing import Figure, show_face
from ageflow.slider.explorer import Explorer, View
from ageflow.translation.ages import GROUP_CENTRES
from ageflow.translation.methods import METHODS

SHOWN = 256  # pixels; smaller faces are enlarged to it
DIFFERENCE_GAIN = 2


def enlarged(image: Tensor, side: int = SHOWN) -> Image.Image:
    """A face, uint8 [3, S, S], as a picture at least `side` pixels wide."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return picture if picture.width >= side else picture.resize((side, side), Image.Resampling.BICUBIC)


def png(image: Tensor, side: int = SHOWN) -> bytes:
    """A face uint8 [3, S, S], enlarged, as the content of a PNG file."""
    content = io.BytesIO()
    # A slider waits for this: level 1 takes a third of the time of the default, for a tenth more bytes.
    enlarged(image, side).save(content, "PNG", compress_level=1)
    return content.getvalue()


def gif(images: Sequence[Tensor], milliseconds: int = 80) -> bytes:
    """Faces uint8 [3, S, S] one after another and back, for ever, as the content of a GIF file."""
    # Each frame gets its 256 colours once; left to Pillow, the frames on the way back would get theirs again.
    forth = [
        enlarged(image).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG) for image in images
    ]
    first, *rest = [*forth, *forth[-2:0:-1]]
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return content.getvalue()


def difference(before: Tensor, after: Tensor) -> Tensor:
    """What changed between two faces uint8 [3, S, S], `DIFFERENCE_GAIN` times, about a middle grey."""
    change = after.to(torch.int16) - before.to(torch.int16)
    return (128 + DIFFERENCE_GAIN * change).clamp(0, 255).to(torch.uint8)


def static_figure(explorer: Explorer, view: View, readings: str = "") -> Figure:
    """Before, after and difference above the strip of all groups; `readings` is the line under them."""
    before, after, strip = view.portrait.image, explorer.at_age(view), explorer.at_ages(view, GROUP_CENTRES)
    figure = Figure(8.0, 5.6)
    figure.suptitle(f"{METHODS[view.method]}: {view.portrait.about}", fontsize=11)
    figure.supxlabel(readings, fontsize=9)
    change = f"difference × {DIFFERENCE_GAIN}"
    upper = [(before, "before"), (after, f"at {view.age:.1f} years"), (difference(before, after), change)]
    lower = [(before, "before"), *zip(strip, AGE_GROUPS, strict=True)]
    for part, faces in zip(figure.subfigures(2, 1, height_ratios=(3, 2)), (upper, lower), strict=True):
        for axes, (image, title) in zip(part.subplots(1, len(faces)), faces, strict=True):
            show_face(axes, image)
            axes.set_title(title, fontsize=10)
    return figure
