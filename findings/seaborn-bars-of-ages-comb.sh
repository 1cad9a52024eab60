#!/usr/bin/env bash
# Guessed: histplot of 5,000 whole ages from 17 to 76 has no comb: neighbouring bars differ by 1.3 times at most.
#     Seen: by 2 times and more: bars are 1.6 years wide, so that some hold one age and the next two. At 50,000 they
#     are 0.8 years wide and some are empty
# Versions: seaborn 0.13.2, NumPy 2.4.6, matplotlib 3.11.2
# For a user: the peaks at every third age in a data set's figure are the drawing's, not the people's: pass
#     discrete=True or binwidth=1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check seaborn==0.13.2 matplotlib==3.11.2 numpy==2.4.6 pandas==3.1.1
venv/bin/python - <<'PYTHON'
import matplotlib
import numpy as np
import seaborn

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def bars(faces: int, **how: object) -> tuple[float, float]:
    """Width of a bar in years, and the largest ratio of two neighbours where the ages are frequent."""
    ages = np.random.default_rng(0).normal(33, 11, 2 * faces).round().astype(int)
    ages = ages[(ages > 16) & (ages < 77)][:faces]
    figure, axes = plt.subplots()
    seaborn.histplot(ages, ax=axes, **how)
    places = np.array([bar.get_x() + bar.get_width() / 2 for bar in axes.patches])
    heights = np.array([bar.get_height() for bar in axes.patches])[(places > 22) & (places < 44)]
    plt.close(figure)
    ratios = np.maximum(heights[1:], 1) / np.maximum(heights[:-1], 1)
    return float(axes.patches[0].get_width()), float(np.maximum(ratios, 1 / ratios).max())


print(f"seaborn {seaborn.__version__}")
seen = {faces: bars(faces) for faces in (5_000, 50_000)}
for faces, (width, ratio) in seen.items():
    print(f"{faces} faces: bars of {width:.2f} years, neighbours up to {ratio:.1f} times apart")
whole = bars(5_000, discrete=True)
print(f"discrete=True: bars of {whole[0]:.2f} years, neighbours up to {whole[1]:.1f} times apart")
assert 1 < seen[5_000][0] < 2 and seen[5_000][1] > 1.6
assert seen[50_000][0] < 1 and seen[50_000][1] > 100
assert whole[1] < 1.5
PYTHON
