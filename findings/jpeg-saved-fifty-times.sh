#!/usr/bin/env bash
# Guessed: saved 50 times as JPEG of quality 90, a face is half as far again from the original as after once; moved
#     by a pixel each time, four times. Seen: unmoved it stops after a few times: 4 % more after 50. Moved along the
#     grid of 8 pixels, five times as far, and still growing
# Versions: Pillow 12.3.0
# For a user: re-saving does not add up while the grid of 8 pixels stays, so an album saved again and again at one
#     quality is not worn; a crop in between wears it
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pillow==12.3.0 numpy==2.4.6 scikit-image==0.26.0
venv/bin/python - <<'PYTHON'
import io

import numpy as np
import PIL
from PIL import Image
from skimage import data

face = data.astronaut()[0:256, 96:352]  # it comes with the package


def saved(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def off(pixels: np.ndarray) -> float:
    return float(np.abs(pixels.astype(float) - face).mean())


still = moved = face
unmoved, turns = [], []
for time in range(50):
    still = saved(still)
    moved = np.roll(saved(np.roll(moved, time % 8, axis=1)), -(time % 8), axis=1)
    unmoved.append(off(still))
    turns.append(off(moved))
print(f"Pillow {PIL.__version__}: mean error after 1, 5, 10, 50 times, in levels")
print("unmoved", [round(unmoved[k], 3) for k in (0, 4, 9, 49)], "moved", [round(turns[k], 3) for k in (0, 4, 9, 49)])
assert unmoved[49] / unmoved[0] < 1.1
assert turns[49] / unmoved[0] > 2.5
PYTHON
