#!/usr/bin/env bash
# Guessed: sewar's uqi is Wang and Bovik's index, within 0.01 of the formula over windows of 8x8. Seen: a photograph
#     with noise has 0.94 instead of 0.59, blurred 0.94 instead of 0.50; made brighter by 20 levels 0.89 instead of
#     0.91: it ranks them the other way round. It puts means where the formula has sums, so that brightness decides
# Versions: sewar 0.4.10, scikit-image 0.26.0 (its photograph), SciPy 1.17.1
# For a user: "UQI 0.94" beside a restored or aged face is no quality, and cannot be set beside other people's: compute
#     it by the formula, which is ten lines
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check sewar==0.4.10 scikit-image==0.26.0 scipy==1.17.1 numpy==2.4.6 pillow==12.3.0
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from scipy.ndimage import gaussian_filter
from sewar.full_ref import uqi
from skimage import data


def windows(channel: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(channel.astype(float), (8, 8)).reshape(-1, 64)


def by_formula(one: np.ndarray, other: np.ndarray) -> float:
    """Wang & Bovik (2002): 4 cov(x, y) mean(x) mean(y) / ((var x + var y) (mean(x)^2 + mean(y)^2)), averaged."""
    found = []
    for channel in range(3):
        x, y = windows(one[..., channel]), windows(other[..., channel])
        mean_x, mean_y = x.mean(1), y.mean(1)
        together = (x * y).mean(1) - mean_x * mean_y
        below = (x.var(1) + y.var(1)) * (mean_x**2 + mean_y**2)
        found.append(np.mean((4 * together * mean_x * mean_y)[below > 0] / below[below > 0]))
    return float(np.mean(found))


face = data.astronaut()[20:220, 130:330]
noise = np.random.default_rng(0).normal(0, 10, face.shape)
changed = {
    "noise": np.clip(face + noise, 0, 255).round().astype(np.uint8),
    "blur": gaussian_filter(face.astype(float), (3, 3, 0)).round().astype(np.uint8),
    "brighter": np.clip(face.astype(int) + 20, 0, 255).astype(np.uint8),
}
seen = {name: (float(uqi(face, picture)), by_formula(face, picture)) for name, picture in changed.items()}
print(f"sewar {version('sewar')}: UQI by sewar and by the formula")
print(", ".join(f"{name} {by_sewar:.3f} {formula:.3f}" for name, (by_sewar, formula) in seen.items()))
assert seen["noise"][0] > 0.9 and seen["noise"][1] < 0.65
assert seen["blur"][0] > 0.9 and seen["blur"][1] < 0.55
assert seen["brighter"][0] < min(seen["noise"][0], seen["blur"][0])
assert seen["brighter"][1] > max(seen["noise"][1], seen["blur"][1])
PYTHON
