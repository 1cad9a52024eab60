"""An aligned face's parts, and how far a translated face is from another there (ours).

T is asked for an age by a classifier of decoded faces, and whatever pleases that, it does: mouths go, eyes blur, a
haze lies over the face, hair darkens before a lighter background. What T is to keep of its teacher's face
(`structure_distance`, `features_distance`, `surroundings_distance`), and what of a face the classifier is shown as it
was, is said here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ageflow.data.align import EYES

__all__ = [
    "features_distance",
    "in_colours_of",
    "in_surroundings_of",
    "structure_distance",
    "surroundings_distance",
    "with_mouth_of",
]

_LEAST_DEVIATION = 1e-3  # of a colour: a picture of one colour has none
# The oval of an aligned face, in eye distances: how far its centre is below the eyes, half its width and height, and
# over which share of these it ends.
_OVAL = (0.27, 1.1, 1.43, 0.06)
_MOUTH = (1.1, 0.68, 0.38, 0.15)  # the same of its mouth, whose corners MTCNN finds 1.05 below the eyes, 0.48 apart
_EYES = (-0.1, 0.95, 0.36, 0.15)  # and of the eyes with their brows and what is between them
_GREY = (0.299, 0.587, 0.114)  # of ITU-R BT.601
_STEADY = 0.03**2  # SSIM's c₂ for values in [0, 1]


def in_colours_of(source: Tensor, images: Tensor) -> Tensor:
    """`images` with the mean and the standard deviation that each colour has in `source`, face by face.

    What a translation makes of the whole picture's brightness, contrast and tint is gone; what it makes of places
    stays.

    Arguments:
        source: faces [B, 3, S, S], uint8 or float in [0, 1].
        images: the same faces translated, float in [0, 1], the same shape.

    Returns:
        Float, the same shape, with gradients for `images`.
    """
    source = _as_float(source, images.dtype)
    mean, deviation = source.mean((2, 3), keepdim=True), source.std((2, 3), keepdim=True)
    own = images.std((2, 3), keepdim=True).clamp_min(_LEAST_DEVIATION)
    return (images - images.mean((2, 3), keepdim=True)) / own * deviation + mean


def in_surroundings_of(source: Tensor, images: Tensor) -> Tensor:
    """`images` inside the oval in which an aligned face lies, `source` outside it, one fading into the other.

    Arguments:
        source: faces [B, 3, S, S], uint8 or float in [0, 1], aligned as `Aligner` aligns them.
        images: the same faces translated, float in [0, 1], the same shape.

    Returns:
        Float, the same shape, with gradients for `images` inside the oval.
    """
    share = _ellipse(images.shape[-1], *_OVAL).to(images)
    return share * images + (1 - share) * _as_float(source, images.dtype)


def with_mouth_of(source: Tensor, images: Tensor, which: Tensor | None = None) -> Tensor:
    """`images` with the mouth of `source`, one fading into the other.

    Arguments:
        source, images: as for `in_surroundings_of`.
        which: bool [B], the faces that get it, the others stay as they are; None: all.

    Returns:
        Float, the same shape, with gradients for `images` but for the mouth.
    """
    share = _ellipse(images.shape[-1], *_MOUTH).to(images)
    if which is not None:
        share = share * which[:, None, None, None]
    return (1 - share) * images + share * _as_float(source, images.dtype)


def structure_distance(images: Tensor, like: Tensor, window: int = 7) -> Tensor:
    """1 − SSIM without its luminance, averaged over the oval in which an aligned face lies.

    (2·cov + c) / (var + var' + c) of grey values in every window, c = 0.03²: contrast and structure (Wang et al., *Image
    quality assessment: from error visibility to structural similarity*, 2004, Eq. 13, whose c₃ is c₂/2). Skin may go
    lighter or darker; edges stay where they are and as they are.

    Arguments:
        images, like: faces [B, 3, S, S], float in [0, 1].
        window: side of the windows, odd.

    Returns:
        Of each face, [B]: 0 where its structure is that of `like`, 1 where the two have nothing in common, up to 2 where
        light and dark are exchanged.
    """
    weights = torch.tensor(_GREY, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    x, y = ((faces.to(images) * weights).sum(1, keepdim=True) for faces in (images, like))

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1, padding=window // 2, count_include_pad=False)

    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x * mean_x + mean(y * y) - mean_y * mean_y
    similarity = (2 * (mean(x * y) - mean_x * mean_y) + _STEADY) / (variances + _STEADY)
    return _averaged(1 - similarity[:, 0], _ellipse(images.shape[-1], *_OVAL))


def features_distance(images: Tensor, like: Tensor) -> Tensor:
    """The L1 distance of two faces' eyes, brows and mouths: faces [B, 3, S, S], float in [0, 1]; of each face, [B]."""
    size = images.shape[-1]
    share = torch.maximum(_ellipse(size, *_EYES), _ellipse(size, *_MOUTH))
    return _averaged((images - like.to(images)).abs().mean(1), share)


def surroundings_distance(images: Tensor, like: Tensor) -> Tensor:
    """The same of their hair and background, all that lies beyond the oval of `structure_distance`."""
    beyond = 1 - _ellipse(images.shape[-1], *_OVAL)
    return _averaged((images - like.to(images)).abs().mean(1), beyond)


def _averaged(values: Tensor, share: Tensor) -> Tensor:
    """The mean [B] of values [B, S, S] in a part of an aligned face, [S, S]."""
    share = share.to(values)
    return (values * share).sum((1, 2)) / share.sum()


def _ellipse(size: int, below: float, width: float, height: float, edge: float) -> Tensor:
    """1 inside a part of an aligned face, 0 outside, [size, size]; the numbers as those of `_OVAL`."""
    (left, eyes), (right, _) = EYES
    distance = right - left
    across = (torch.arange(size) + 0.5) / size
    x = (across - (left + right) / 2) / (width * distance)
    y = (across - (eyes + below * distance)) / (height * distance)
    return torch.sigmoid((1 - torch.hypot(y[:, None], x[None])) / edge)


def _as_float(images: Tensor, dtype: torch.dtype) -> Tensor:
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
