"""The losses of ICTM and D, Eqs. 6 to 11."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


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
