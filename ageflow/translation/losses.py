"""The losses of ICTM and D, Eqs. 6 to 11."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ageflow.data.align import EYES

# Parts of an aligned face, in eye distances: how far the centre is below the eyes, half the width and height, and over
# which share of these the part fades out.
_OVAL = (0.27, 1.1, 1.43, 0.06)
_MOUTH = (1.1, 0.68, 0.38, 0.15)  # MTCNN finds its corners 1.05 below the eyes, 0.48 apart
_EYES = (-0.1, 0.95, 0.36, 0.15)  # with the brows and what is between them
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_STEADY = 0.03**2  # SSIM's c₂ for values in [0, 1]


def distillation(z_t: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """L_akd, Eq. 6: the L1 distance between z'_t and z_s + s·(z̄_{t,α} − z̄_{s,α}).

    The printed equation subtracts z̄_{t,α} from itself; the second is meant to be the source group's. The paper
    does not say whether the dimensions are summed or averaged: `reduction`.

    Arguments:
        z_t, teacher: [B, D].
        reduction: ``mean`` or ``sum`` over D.

    Returns:
        Of each face, [B]: their mean is L_akd.
    """
    distance = (z_t - teacher).abs()
    return distance.mean(1) if reduction == "mean" else distance.sum(1)


def adversarial(fake: Tensor) -> Tensor:
    """L_al, Eq. 7: ½ E[(D(z'_t) − 1)²]; `fake` is D(z'_t) [B]."""
    return 0.5 * (fake - 1).square().mean()


def discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """The first two terms of L_D, Eq. 11: ½ E[(D(z_t) − 1)²] + ½ E[D(z'_t)²]."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def age(logits: Tensor, groups: Tensor) -> Tensor:
    """L_acl, Eq. 8 (A on z'_t, and the target groups), and A's term of Eq. 11 (on real latents, and their own groups).

    Cross-entropy of logits [B, groups] and groups, int64 [B].
    """
    return F.cross_entropy(logits, groups)


def attributes(logits: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of the moved face's attributes and the face's own, summed over the attributes (ours).

    Arguments:
        logits: of each attribute, [B, values].
        values: int64 [B] of each; −1 where it is not known: the face counts 0 there.
    """
    parts = [F.cross_entropy(logits[name], value, reduction="none", ignore_index=-1) for name, value in values.items()]
    return sum(part.mean() for part in parts)


def consistency(
    z_s: Tensor, mu_s: Tensor, log_sigma_s: Tensor, reading: str = "source", least_log_sigma: float = -3.0
) -> Tensor:
    """L_cl, Eq. 9, nats a dimension (the mean: a sum would drown the other losses at λ = 0.01).

    ``source``: −log N(z_s; μ'_s, σ'_s²), the distribution of the source age that T puts out must explain the face.
    ``literal``: −log N(·; 0, 1) of the three outputs (μ'_s, log σ'_s, z_s), as the equation is printed.

    `least_log_sigma` bounds the gain: T sees z_s, so it could copy it into μ'_s and let σ'_s fall without end.
    """
    if reading == "literal":
        return sum((0.5 * (x.square() + math.log(2 * math.pi))).mean() for x in (mu_s, log_sigma_s, z_s)) / 3
    log_sigma_s = F.softplus(log_sigma_s - least_log_sigma) + least_log_sigma
    squares = ((z_s - mu_s) * (-log_sigma_s).exp()).square()
    return (0.5 * (squares + math.log(2 * math.pi)) + log_sigma_s).mean()


def structure(images: Tensor, like: Tensor, window: int = 7) -> Tensor:
    """1 − SSIM without its luminance, averaged over the oval in which an aligned face lies (ours).

    (2·cov + c) / (var + var' + c) of grey values in every window, c = 0.03²: contrast and structure (Wang et al., *Image
    quality assessment: from error visibility to structural similarity*, 2004, Eq. 13, whose c₃ is c₂/2). Skin may become
    lighter or darker; edges stay.

    Arguments:
        images, like: faces [B, 3, S, S], float in [0, 1].
        window: side of the windows, odd.

    Returns:
        A scalar: 0 where the structure is that of `like`, 1 where the two have nothing in common, up to 2 where light and
        dark are exchanged.
    """
    weights = torch.tensor(_GREY, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    x, y = ((faces.to(images) * weights).sum(1, keepdim=True) for faces in (images, like))

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, stride=1, padding=window // 2, count_include_pad=False)

    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x * mean_x + mean(y * y) - mean_y * mean_y
    similarity = (2 * (mean(x * y) - mean_x * mean_y) + _STEADY) / (variances + _STEADY)
    return _mean_in(1 - similarity[:, 0], _ellipse(images.shape[-1], *_OVAL))


def features(images: Tensor, like: Tensor) -> Tensor:
    """The L1 distance of two faces' eyes, brows and mouths (ours): faces [B, 3, S, S], float in [0, 1]; a scalar."""
    size = images.shape[-1]
    share = torch.maximum(_ellipse(size, *_EYES), _ellipse(size, *_MOUTH))
    return _mean_in((images - like.to(images)).abs().mean(1), share)


def surroundings(images: Tensor, like: Tensor) -> Tensor:
    """The same of their hair and background, all that lies beyond the oval of `structure` (ours)."""
    return _mean_in((images - like.to(images)).abs().mean(1), 1 - _ellipse(images.shape[-1], *_OVAL))


def _mean_in(values: Tensor, share: Tensor) -> Tensor:
    """The mean of values [B, S, S] in a part of an aligned face, [S, S]."""
    share = share.to(values)
    return (values * share).sum() / (share.sum() * len(values))


def _ellipse(size: int, below: float, width: float, height: float, edge: float) -> Tensor:
    """1 inside a part of an aligned face, 0 outside, [size, size]; the numbers as those of `_OVAL`."""
    (left, eyes), (right, _) = EYES
    distance = right - left
    across = (torch.arange(size) + 0.5) / size
    x = (across - (left + right) / 2) / (width * distance)
    y = (across - (eyes + below * distance)) / (height * distance)
    return torch.sigmoid((1 - torch.hypot(y[:, None], x[None])) / edge)
