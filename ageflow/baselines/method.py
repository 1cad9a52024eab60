"""A trained baseline as a method: the same `translate` as AgeFlow's."""

import numpy as np
import torch
from torch import Tensor

from ageflow.baselines.base import Baseline, baseline_class
from ageflow.baselines.blocks import as_signed, one_hot
from ageflow.checkpoint import fingerprint, load_state, newest
from ageflow.config import BASELINES
from ageflow.data.records import AgeGroups
from ageflow.device import device_of
from ageflow.run import Workspace
from ageflow.training.classifier import numbered
from ageflow.translation.ages import as_weights
from ageflow.translation.methods import Attributes, Method


class BaselineMethod(Method):
    """A published method. It has one strength; what else it can do is its network's.

    A target between two groups is given to the network as weights in place of the label; PAG-GAN, with a network for each
    group, takes none. `pairs` are those that the network was made for; PAG-GAN takes the youngest group to older ones.

    Arguments:
        name: a key of `BASELINES`.
        model: the trained networks.
        weights: fingerprints of what it is made of.
        age_groups: those that it learned.
    """

    def __init__(self, name: str, model: Baseline, weights: dict[str, str], age_groups: AgeGroups) -> None:
        self.name, self.title, self.model, self.weights = name, BASELINES[name], model, weights
        self.age_groups = age_groups
        self.continuous, self.pairs = model.mixes, model.pairs
        self.needs = tuple(needed for needed in model.needs if needed != "attributes" or model.attributes)

    @torch.inference_mode()
    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Attributes = None
    ) -> Tensor:
        """As `Method.translate`.

        Raises:
            ValueError: `source` or `attributes` are needed and not given, or of a value that it was not trained with; faces
                of another size; a target between groups, or a pair of groups, that it cannot do.
        """
        for needed in self.needs:
            if {"source": source, "attributes": attributes}[needed] is None:
                raise ValueError(f"{self.title} needs the faces' own age groups or attributes: pass {needed}")
        model = self.model
        x = as_signed(torch.as_tensor(images)).to(next(model.parameters()).device)
        if x.shape[1:] != (3, model.image_size, model.image_size):
            expected = f"expected [B, 3, {model.image_size}, {model.image_size}], as it was trained with"
            raise ValueError(f"images of {tuple(x.shape)}: {self.title} {expected}")
        target = as_weights(target, model.groups, faces=len(x)).to(x)
        source = None if source is None else as_weights(source, model.groups, faces=len(x)).to(x)
        if not self.continuous and (target.max(1).values < 0.999).any():
            raise ValueError(f"a target between age groups: {self.title} has a network a group; pass groups, int [B]")
        if self.pairs is not None:
            asked = {*zip(source.argmax(1).tolist(), target.argmax(1).tolist(), strict=True)}
            if other := sorted(asked - self.pairs):
                known = ", ".join(f"{a} to {b}" for a, b in sorted(self.pairs))
                raise ValueError(f"from age group {other[0][0]} to {other[0][1]}: {self.title} was made for {known}")
        return (model.generate(x, target, source, self._labels(attributes, len(x)).to(x)) + 1) / 2

    def _labels(self, attributes: Attributes, count: int) -> Tensor:
        """One-hot [B, A] of the attributes that the network is told."""
        found = [torch.zeros(count, 0)]
        for name, labels in self.model.attributes.items() if "attributes" in self.needs else ():
            values = np.asarray(attributes.get(name, [None] * count), dtype=object)
            numbers = numbered(values, labels)
            if len(numbers) != count or (numbers < 0).any():
                what = f"{name} = {values.tolist()[:5]} for {count} faces"
                raise ValueError(f"{what}: {self.title} takes one of {', '.join(labels)} for each")
            found.append(one_hot(numbers, len(labels)))
        return torch.cat(found, 1)


def load_baseline(name: str, workspace: Workspace, device: str = "auto") -> BaselineMethod:
    """A trained baseline of a run.

    Raises:
        ValueError: no baseline of that name.
        MissingArtefactError: notebook 11 has not trained it in this run.
        CheckpointError: its checkpoints cannot be used.
    """
    kind = baseline_class(name)
    folder = workspace.require(f"baselines/{name}")
    shape = dict(newest(folder).networks["baseline"])
    age_groups = AgeGroups(tuple(shape.pop("bounds")))
    model = kind(**shape)
    load_state(model, folder, "baseline")  # the averaged weights
    model.to(device_of(device)).eval().requires_grad_(False)
    return BaselineMethod(name, model, {name: fingerprint(folder)}, age_groups)
