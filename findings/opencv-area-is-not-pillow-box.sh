#!/usr/bin/env bash
# Guessed: OpenCV's INTER_AREA and Pillow's BOX shrink 256 to 100 to within a level of one another, both being
#     averages over areas. Seen: they differ by 18 levels at most: Pillow counts a pixel whole or not at all,
#     OpenCV by the share that is covered. At a whole factor they agree
# Versions: opencv-python-headless 5.0.0.93, Pillow 12.3.0
# For a user: "area-averaged to 112" is two data sets by two libraries wherever the factor is no whole number:
#     shrink in two steps, or state the library
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check opencv-python-headless==5.0.0.93 pillow==12.3.0 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'PYTHON'
import cv2
import numpy as np
import PIL
from PIL import Image
from scipy.ndimage import gaussian_filter

picture = gaussian_filter(np.random.default_rng(0).normal(size=(256, 256)), 2)
picture = (128 + 50 * picture / picture.std()).clip(0, 255).astype(np.uint8)  # as smooth as a face


def exact(side: int) -> np.ndarray:
    """Each target pixel the mean of what it covers, borders by their share."""
    edges = np.arange(side + 1) * 256 / side
    cover = np.clip(np.minimum(edges[1:, None], np.arange(1, 257)) - np.maximum(edges[:-1, None], np.arange(256)), 0, 1)
    cover /= cover.sum(axis=1, keepdims=True)
    return cover @ picture @ cover.T


off = {}
for side in (128, 100):
    area = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(float)
    box = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX)).astype(float)
    off[side] = [float(np.abs(some - exact(side)).max()) for some in (area, box)]
    print(f"to {side}: INTER_AREA {off[side][0]:.1f} levels off exact at most, BOX {off[side][1]:.1f}")
print(f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}")
assert max(off[128]) <= 1.01
assert off[100][0] <= 1.01
assert off[100][1] > 4
PYTHON
