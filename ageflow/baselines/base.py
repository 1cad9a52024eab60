"""What every baseline is: networks, losses, the paper's numbers; and the faces of an update."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.baselines.blocks import feature_distance, stages_of
from ageflow.config import ParameterError
from ageflow.training.task import MicroBatch
from ageflow.translation.classifier import Classifier

Losses = dict[str, Tensor]  # scalars, without their weights


@dataclass(frozen=True)
class Recipe:
    """How a method's authors trained it; docs/method.md says which of these are the paper's.

    Arguments:
        iterations: optimiser updates of each objective.
        batch_size: faces in one.
        learning_rate: Adam's.
        weights: of the generator's losses; any other loss has 1.
    """

    iterations: int
    batch_size: int
    learning_rate: float
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Batch:
    """The faces of one micro-batch; images are in [−1, 1], [B, 3, S, S], age groups and attributes one-hot.

    Arguments:
        part: which rows of the update's batch they are.
        x, source, attributes: faces, their groups [B, groups] and attributes [B, A].
        y, target, y_attributes: real faces of other groups, one for each, and theirs.
        wrong: groups that are not `target`.
        real: draws real faces of the groups int [B].
        ages: C's logits [B, groups] of faces, which it augments first: single pixels must not please it.
        c: C, fixed.
        made: what the generator's losses leave to the discriminator's, detached.
    """

    part: MicroBatch
    x: Tensor
    source: Tensor
    attributes: Tensor
    y: Tensor
    target: Tensor
    y_attributes: Tensor
    wrong: Tensor
    real: Callable[[Tensor], Tensor]
    ages: Callable[[Tensor], Tensor]
    c: Classifier
    made: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def x_stages(self) -> list[Tensor]:
        """C's stages of `x`."""
        with torch.no_grad():
            return stages_of(self.c, self.x)

    def identity_loss(self, faces: Tensor) -> Tensor:
        """How far C's features are from those of `x`."""
        return feature_distance(stages_of(self.c, faces), self.x_stages)

    def age_loss(self, faces: Tensor) -> Tensor:
        """Cross-entropy of C's groups with the target's."""
        return F.cross_entropy(self.ages(faces), self.target)


class Baseline(nn.Module, ABC):
    """A published method: what turns a face into another age, and how it learns.

    A subclass in a file of its own, and its name in `ageflow.config.BASELINES`, are all that a new one takes. Its `build`
    makes at least a `generator` and a `critic`.

    Arguments:
        image_size: side of the faces.
        groups: number of age groups.
        attributes: labels of each attribute by name, those that the method is told.
        width: share of the paper's channels.
        stages: [channels, side] of C's stages (`stage_shapes`).

    Attributes:
        recipe: the paper's training.
        needs: what `generate` must be told beside the target: ``source``, ``attributes``.
        mixes: whether a target may be weights over several groups.
        pairs: the (source, target) groups that it was made for; None: all.
    """

    recipe: ClassVar[Recipe]
    needs: ClassVar[tuple[str, ...]] = ()
    mixes: ClassVar[bool] = True
    pairs: frozenset[tuple[int, int]] | None = None

    def __init__(
        self,
        image_size: int,
        groups: int,
        attributes: Mapping[str, Sequence[str]],
        width: float,
        stages: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        if image_size < 32 or image_size & (image_size - 1):
            what = f"faces of {image_size}×{image_size}: the published methods halve them down to 4×4"
            raise ParameterError(f"{what}; prepare faces with image_size = 32, 64, 128 or 256")
        self.image_size, self.groups, self.width, self.stages = image_size, groups, width, stages
        self.attributes = {name: list(labels) for name, labels in attributes.items()}
        self.build(sum(map(len, self.attributes.values())) if "attributes" in self.needs else 0)

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments that build it again."""
        return {name: getattr(self, name) for name in ("image_size", "groups", "attributes", "width", "stages")}

    @abstractmethod
    def build(self, attributes: int) -> None:
        """Make the networks; `attributes` numbers a face come with the age."""

    @abstractmethod
    def generate(self, x: Tensor, target: Tensor, source: Tensor | None, attributes: Tensor) -> Tensor:
        """Faces at another age.

        Arguments:
            x: faces in [−1, 1], [B, 3, S, S].
            target, source: weights over the age groups [B, groups]; `source` may be None where `needs` lacks it.
            attributes: one-hot [B, A].

        Returns:
            Faces in [−1, 1], the shape of `x`.
        """

    def objectives(self) -> dict[str, tuple[nn.Module, Callable[[Batch], Losses]]]:
        """In the order of their updates: what each trains, and its losses. The first is the generator's.

        The loop keeps all other networks fixed while it computes a loss (`ageflow.training.distributed.learning`).
        """
        return {"G": (self.generator, self.generator_losses), "D": (self.critic, self.critic_losses)}

    @abstractmethod
    def generator_losses(self, batch: Batch) -> Losses:
        """The generator's losses, one for each of the recipe's weights; `batch.made` has what D's need of them."""

    @abstractmethod
    def critic_losses(self, batch: Batch) -> Losses:
        """The discriminator's losses."""


def baseline_class(name: str) -> type[Baseline]:
    """The class of a name in `ageflow.config.BASELINES`: the one that its file defines."""
    module = importlib.import_module(f"ageflow.baselines.{name}")
    own = (value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__)
    return next(value for value in own if isinstance(value, type) and issubclass(value, Baseline))
