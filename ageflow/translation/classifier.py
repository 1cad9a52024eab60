"""Classifiers of aligned faces, ages and attributes: the judges of notebook 05 (3.3), and C, whose gradient T learns from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ageflow.checkpoint import load_state, newest
from ageflow.data.records import AgeGroups
from ageflow.device import device_of

# ImageNet's, which torchvision's networks expect where a user starts them from its weights.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """A torchvision network on aligned faces.

    Arguments:
        architecture: ``resnet18``, ``resnet50`` or ``resnet101`` (the paper's); ``resnet14`` is resnet18 without its
            last stage, which sees 2×2 positions of a face of 64×64 and holds three in four of the weights.
        labels: what the logits stand for, in order.
        image_size: side of the faces; below 64 the pooling after the first layer is left out.
        also: further attributes that the same network predicts, and their labels; their logits follow, in the names'
            order.
    """

    def __init__(
        self,
        architecture: str,
        labels: Sequence[str],
        image_size: int,
        also: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        from torchvision.models import get_model  # slow to import

        super().__init__()
        self.architecture, self.image_size, self.labels = architecture, image_size, tuple(labels)
        self.also = {name: tuple(values) for name, values in sorted(also.items())}
        self.sizes = [len(self.labels), *map(len, self.also.values())]
        whole = "resnet18" if architecture == "resnet14" else architecture
        self.network = get_model(whole, weights=None, num_classes=sum(self.sizes))
        if architecture == "resnet14":
            self.network.layer4 = nn.Identity()
            self.network.fc = nn.Linear(self.network.fc.in_features // 2, sum(self.sizes))
        if image_size < 64:  # four halvings are enough
            self.network.maxpool = nn.Identity()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)

    @property
    def age_groups(self) -> AgeGroups:
        """Those that a classifier of ages tells apart."""
        return AgeGroups.of_labels(self.labels)

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments that build it again."""
        shape = {"architecture": self.architecture, "labels": list(self.labels), "image_size": self.image_size}
        return shape | {"also": {name: list(values) for name, values in self.also.items()}}

    def forward(self, images: Tensor) -> Tensor:
        """Faces, uint8 or float in [0, 1], [B, 3, S, S] → logits [B, labels] (and those of `also` after them)."""
        x = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images.to(self.mean.dtype)
        x = ((x - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        return self.network(x)

    def split_logits(self, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of `forward` → those of `labels`, and those of each attribute of `also`."""
        first, *others = logits.split(self.sizes, dim=1)
        return first, dict(zip(self.also, others, strict=True))


def load_classifier(folder: Path, device: str = "auto") -> Classifier:
    """A trained classifier, with its averaged weights, fixed.

    Raises:
        CheckpointError: the folder holds none.
    """
    classifier = Classifier(**newest(folder, "classifier").networks["classifier"])
    load_state(classifier, folder, "classifier")
    return classifier.to(device_of(device)).eval().requires_grad_(False)
