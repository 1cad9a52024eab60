"""KID: how far the translated faces lie, as a crowd, from real faces of the group they were translated to.

The kernel inception distance (Bińkowski et al. 2018, "Demystifying MMD GANs") is an unbiased estimate of the squared
maximum mean discrepancy between two crowds in a network's features, 0 where they are drawn alike. It is computed by
torch-fidelity. What KID is published with, InceptionV3, is weights that torch-fidelity downloads: who has the file
names it (`inception`). Otherwise the features are the second age judge's, which are about faces, come with the kit,
and are the same in every run. **The two are different scales**: the metric's name says whose features it is of
(``kid_face_api`` or ``kid_inception``), and only the second can be compared with published numbers.
"""

from pathlib import Path

import torch
from torch import Tensor

from ageflow.data.records import AGE_GROUPS
from ageflow.device import device_of
from ageflow.run import digest


class InceptionFeatures:
    """InceptionV3's features, KID's own: uint8 [B,3,S,S] → [B,2048].

    Arguments:
        path: torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``.
        device: where it runs.

    Raises:
        FileNotFoundError: no such file.
        pickle.UnpicklingError: the file holds more than tensors.
    """

    kid = "kid_inception"

    def __init__(self, path: Path, device: str = "auto") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # slow to import

        if not path.is_file():
            file = "weights-inception-2015-12-05-6726825d.pth"
            raise FileNotFoundError(f"inception = {path}: no such file; download torch-fidelity's {file}")
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run whatever is pickled in it
        self.fingerprint = digest(path.read_bytes())
        self._device = device_of(device)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
        self._network = network.to(self._device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self._network(images.to(self._device))[0].float().cpu()


def kernel_distance(first: Tensor, second: Tensor, seed: int = 0) -> tuple[float, float]:
    """KID of two crowds' features [N,f] and [M,f].

    Returns:
        The mean and the standard deviation over 100 seeded draws of equally many of both: of 1000 (the paper's), or of
        all that the smaller crowd has; NaN where a crowd has fewer than two.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric  # slow too

    size = min(len(first), len(second), 1000)
    if size < 2:
        return float("nan"), float("nan")
    drawn = {"kid_subsets": 100, "kid_subset_size": size, "rng_seed": seed, "verbose": False}
    found = kid_features_to_metric(first.double(), second.double(), **drawn)
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def kid_by_group(features: Tensor, targets: Tensor, real: Tensor, groups: Tensor, seed: int = 0) -> list[dict]:
    """KID of translated faces against the real test faces of their target group.

    The people are the same on both sides as far as they have a photo of that group: what is measured is whether the
    crowd looks alike, and no one is compared with himself.

    Arguments:
        features: [rows,f] of translated faces; `targets` their groups.
        real: [M,f] of the real test faces; `groups` theirs.
        seed: of the draws.

    Returns:
        One row a group: target, kid, spread (standard deviation over the draws), faces.
    """
    rows = []
    for target in range(len(AGE_GROUPS)):
        made = features[targets == target]
        kid, spread = kernel_distance(made, real[groups == target], seed)
        rows.append({"target": target, "kid": kid, "spread": spread, "faces": len(made)})
    return rows
