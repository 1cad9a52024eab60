"""KID: how far the translated faces lie, as a crowd, from real faces of the group they were translated to.

The kernel inception distance (Bińkowski et al. 2018, "Demystifying MMD GANs") is an unbiased estimate of the squared
maximum mean discrepancy between two crowds in a network's features, 0 where they are drawn alike. It is computed by
torch-fidelity. What KID is published with, InceptionV3, is weights that torch-fidelity downloads: who has the file
names it (`inception`). Otherwise the features are the second age judge's, which are about faces, come with the kit,
and are of the same hands in every run. **The two are different scales**: the metric's name says whose features it is of
(``kid_face_api`` or ``kid_inception``), and only the second can be held against published numbers.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ageflow.data.records import AGE_GROUPS
from ageflow.device import device_of
from ageflow.evaluation.second_judge import SecondAgeJudge


class FaceFeatures:
    """The second age judge's features: uint8 [B,3,S,S] → [B,512]."""

    name = "kid_face_api"
    fingerprint = "face-api.js 1.7.15"

    def __init__(self, judge: SecondAgeJudge) -> None:
        self._judge = judge

    def __call__(self, images: Tensor) -> Tensor:
        return self._judge.features(images)


class InceptionFeatures:
    """InceptionV3's features, KID's own: uint8 [B,3,S,S] → [B,2048].

    Arguments:
        path: torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``.
        device: where it runs.

    Raises:
        FileNotFoundError: no such file.
        pickle.UnpicklingError: the file holds more than tensors.
    """

    name = "kid_inception"

    def __init__(self, path: Path, device: str = "auto") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # slow to import

        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"inception = {path}: no such file. Download torch-fidelity's weights-inception-2015-12-05-6726825d.pth"
            )
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run whatever is pickled in it
        with path.open("rb") as file:
            self.fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        self._device = device_of(device)
        self._network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).to(self._device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self._network(images.to(self._device))[0].float().cpu()


def load_features(
    inception: Path | None, second: SecondAgeJudge, device: str = "auto"
) -> FaceFeatures | InceptionFeatures:
    """The features that KID is of: InceptionV3's where its file is named, else the second age judge's."""
    return FaceFeatures(second) if inception is None else InceptionFeatures(inception, device)


def kernel_distance(first: Tensor, second: Tensor, subsets: int = 100, seed: int = 0) -> tuple[float, float]:
    """KID of two crowds' features.

    Arguments:
        first, second: [N,f] and [M,f].
        subsets: how many draws of equally many of both are averaged: of 1000 (the paper's), or of all that the
            smaller crowd has.
        seed: of the draws.

    Returns:
        The mean and the standard deviation over the subsets; NaN where a crowd has fewer than two.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric  # slow too

    size = min(len(first), len(second), 1000)
    if size < 2:
        return float("nan"), float("nan")
    found = kid_features_to_metric(
        first.double(), second.double(), kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def kid_by_group(
    features: Tensor, targets: np.ndarray, real: Tensor, groups: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """KID of translated faces against the real test faces of their target group.

    The people are the same on both sides as far as they have a photo of that group: what is measured is whether the
    crowd looks alike, and no one is compared with himself.

    Arguments:
        features: [rows,f] of translated faces; `targets` their groups.
        real: [M,f] of the real test faces; `groups` theirs.
        seed: of the subsets.

    Returns:
        One row a group: target, kid, spread (standard deviation over the subsets), faces.
    """
    rows = []
    for target in range(len(AGE_GROUPS)):
        made = features[torch.from_numpy(targets == target)]
        kid, spread = kernel_distance(made, real[torch.from_numpy(groups == target)], seed=seed)
        rows.append({"target": target, "kid": kid, "spread": spread, "faces": len(made)})
    return pd.DataFrame(rows)
