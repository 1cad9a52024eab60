"""What the classifier C reads in a face, as T and two steps of ours take it; and how far to go until it reads an age."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ageflow.data.records import AgeGroups
from ageflow.device import constant
from ageflow.flows.glow import Glow
from ageflow.run import digest
from ageflow.translation.classifier import Classifier
from ageflow.translation.prototypes import Prototypes

_LONGEST = 1.75
_HALVINGS = 2  # a decoded face each


class DecodedAge(nn.Module):
    """A(z) = C(G⁻¹(z)), fixed.

    Arguments:
        glow: a trained flow, fixed.
        classifier: C, an age classifier of its faces, fixed.
    """

    def __init__(self, glow: Glow, classifier: Classifier) -> None:
        super().__init__()
        self.glow, self.classifier = glow, classifier
        self.requires_grad_(False).eval()

    def forward(self, z: Tensor) -> Tensor:
        """Logits [B, groups] of latents z [B, D]; with a gradient for z where one is asked for."""
        return self.classifier.split_logits(self.classifier(self.decode(z)))[0]

    def decode(self, z: Tensor) -> Tensor:
        """The faces [B, 3, S, S] of latents z [B, D], as they would be saved: C has learned nothing outside [0, 1]."""
        return self.glow.decode(z).clamp(0, 1)


def of_groups(source: Tensor, groups: int) -> Tensor:
    """Weights over the age groups [B, groups] of weights over groups × combinations, or of those themselves."""
    return source.unflatten(1, (groups, -1)).sum(2)


def condition_of(target: Tensor, source: Tensor) -> Tensor:
    """What the source-aware T is told: the target, at the source's attributes, less the source.

    Arguments:
        target: weights over the age groups [B, groups].
        source: weights over groups × combinations [B, groups · K].

    Returns:
        w [B, groups · K]; its sum is 0, and with the average latents z̄ Σ w z̄ is the direction of Eq. 5.
    """
    own = source.unflatten(1, (target.shape[1], -1))
    return (target[:, :, None] * own.sum(1, keepdim=True) - own).flatten(1)


def expected_age(probabilities: Tensor, age_groups: AgeGroups) -> Tensor:
    """Years [B]: the groups' centres, weighted by their probabilities [B, groups]."""
    return probabilities @ constant(age_groups.centres, probabilities.device, probabilities.dtype)


@dataclass(frozen=True)
class Reader:
    """C, as T and two steps of ours read faces with it: their ages, their attributes, and how far to go.

    Arguments:
        decoded_age: C behind the decoder. Of an attribute that C does not predict, all values are as likely.
        prototypes: average latents, where C computes.
        scale: s of Eq. 5.
        visible: takes from a step [B, D] what a T moves of it; None: all.
        known: keeps the lengths of batches, where several methods of a run are asked for the same ones.
    """

    decoded_age: DecodedAge
    prototypes: Prototypes
    scale: float
    visible: Callable[[Tensor], Tensor] | None = None
    known: dict[str, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Faces, uint8 or float in [0, 1], [B, 3, S, S] → the probabilities [B, groups · K] of groups × combinations."""
        classifier, combinations = self.decoded_age.classifier, self.prototypes.combinations
        ages, others = classifier.split_logits(classifier(images))
        likely = ages.new_ones(len(ages), len(combinations) or 1)
        for place, name in enumerate(self.prototypes.attributes):
            if name in others:
                columns = tuple(classifier.also[name].index(values[place]) for values in combinations)
                likely = likely * others[name].softmax(1)[:, constant(columns, likely.device, torch.int64)]
        likely = likely / likely.sum(1, keepdim=True)
        return (ages.softmax(1)[:, :, None] * likely[:, None]).flatten(1)

    def step(self, source: Tensor, target: Tensor) -> Tensor:
        """s·(z̄_t − Σ_k q_k z̄_k), Eq. 5 with a soft source and smoothed averages, [B, D]; weights as of `condition_of`."""
        step = self.scale * condition_of(target, source) @ self.prototypes.smoothed
        return step if self.visible is None else self.visible(step)

    @torch.no_grad()
    def lengths(self, z: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """How many times `step` is to be taken so that C reads the age that is asked for: by bisection.

        Arguments:
            z: latents [B, D].
            source: what C reads in the faces as they are [B, groups · K].
            target: weights over the groups [B, groups].

        Returns:
            [B], from 0 to 1.75; 1.75 where no shorter step reaches the age.
        """
        step = self.step(source, target)
        if self.known is None:
            return self._search(z, step, source, target)
        # Of the whole batch: a face's last bits depend on the others in it.
        key = digest(b"".join(tensor.cpu().numpy().tobytes() for tensor in (z, step, source, target)))
        if key not in self.known:
            self.known[key] = self._search(z, step, source, target)
        return self.known[key]

    def _search(self, z: Tensor, step: Tensor, source: Tensor, target: Tensor) -> Tensor:
        age_groups = self.prototypes.age_groups
        aim = target @ constant(age_groups.aims, target.device, target.dtype)
        start = expected_age(of_groups(source, target.shape[1]), age_groups)
        low, high = torch.zeros_like(aim), torch.full_like(aim, _LONGEST)
        age_low, age_high = start, aim
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            age = expected_age(self.decoded_age(z + middle[:, None] * step).softmax(dim=1), age_groups)
            beyond = (age - aim) * (start - aim) <= 0
            low, age_low = torch.where(beyond, low, middle), torch.where(beyond, age_low, age)
            high, age_high = torch.where(beyond, middle, high), torch.where(beyond, age, age_high)
        gap = age_high - age_low
        share = torch.where(gap.abs() > 1e-3, (aim - age_low) / torch.where(gap.abs() > 1e-3, gap, 1.0), 0.0)
        return low + (high - low) * share.clamp(0, 1)
