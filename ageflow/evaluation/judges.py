"""The judges of a run: an age classifier, a classifier per attribute, an embedder, and a second age judge (3.3)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ageflow.config import Ablations
from ageflow.evaluation.identity import Embedder, load_embedder
from ageflow.evaluation.realism import InceptionFeatures
from ageflow.evaluation.second_judge import SecondAgeJudge
from ageflow.run import Manifest
from ageflow.training.classifier import Classifier, load_classifier
from ageflow.translation.ages import GROUP_CENTRES

# Columns of the faces' table that a method may ask for.
ATTRIBUTES = ("gender", "race")


def classifier_names(folder: Path) -> list[str]:
    """The classifiers that a finished notebook 05 left in its folder: ``age`` and the attributes'."""
    return list(Manifest.read(folder).details["classifiers"])


@dataclass(frozen=True)
class Judges:
    """The judges of a run.

    Arguments:
        age: classifier whose labels are the four age groups.
        attributes: a classifier per attribute, by name.
        embedder: recognises identities.
        second: the age judge that the run did not train.
        features: the network whose features KID is of: InceptionV3, or the second age judge.
    """

    age: Classifier
    attributes: dict[str, Classifier]
    embedder: Embedder
    second: SecondAgeJudge
    features: SecondAgeJudge | InceptionFeatures

    @classmethod
    def load(cls, folder: Path, settings: Ablations) -> "Judges":
        """The classifiers that notebook 05 left in `folder`, and the other judges of notebook 06's settings."""
        device = settings.device
        embedder, second = load_embedder(settings.embedder, device), SecondAgeJudge(device)
        classifiers = {name: load_classifier(folder / name, device) for name in classifier_names(folder)}
        features = second if settings.inception is None else InceptionFeatures(settings.inception, device)
        return cls(classifiers.pop("age"), classifiers, embedder, second, features)

    @torch.inference_mode()
    def ages(self, images: Tensor) -> pd.DataFrame:
        """The ages of faces uint8 [B,3,S,S].

        Returns:
            One row a face: predicted (group number); predicted_age (years: the groups' centres, weighted by their
            probabilities); second_age (the second judge's years); and its features [512].
        """
        logits = self.age(images.to(next(self.age.parameters()).device)).float().cpu()
        features = self.second.features(images)
        return pd.DataFrame(
            {
                "predicted": logits.argmax(dim=1).numpy(),
                "predicted_age": (logits.softmax(dim=1) @ torch.tensor(GROUP_CENTRES)).numpy(),
                "second_age": self.second.ages(features).numpy(),
                "feature": list(features.numpy()),
            }
        )

    @torch.inference_mode()
    def labels(self, images: Tensor) -> pd.DataFrame:
        """Everything that the judges say of faces uint8 [B,3,S,S] one by one.

        Returns:
            `ages`, with the features that KID is of; and <attribute>_predicted.
        """
        found = self.ages(images)
        if self.features is not self.second:
            found["feature"] = list(self.features(images).numpy())
        for name, classifier in self.attributes.items():
            answers = classifier(images.to(next(self.age.parameters()).device)).argmax(dim=1).cpu().numpy()
            found[f"{name}_predicted"] = np.array(classifier.labels, dtype=object)[answers]
        return found
