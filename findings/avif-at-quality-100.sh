#!/usr/bin/env bash
# Guessed: AVIF of quality 100 is at most 2 levels off, WebP of quality 100 at most 5. Seen: both are off by tens of
#     levels at coloured edges: they halve the colours' resolution at any quality. AVIF with subsampling 4:4:4 is
#     within a few
# Versions: Pillow 12.3.0
# For a user: a data set of 64-pixel faces "without loss" at quality 100 has its colours at 32 pixels; WebP has
#     lossless=True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pillow==12.3.0 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'PYTHON'
import io

import numpy as np
import PIL
from PIL import Image
from scipy.ndimage import gaussian_filter

noise = gaussian_filter(np.random.default_rng(0).normal(size=(256, 256, 3)), (2, 2, 0))
picture = (128 + 40 * noise / noise.std()).clip(0, 255).astype(np.uint8)  # as smooth as a face, in three colours


def off(kind: str, **how: object) -> float:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **how)
    return float(np.abs(np.asarray(Image.open(file).convert("RGB")).astype(float) - picture).max())


avif, full, webp, lossless = off("AVIF", quality=100), off("AVIF", quality=100, subsampling="4:4:4"), off(
    "WEBP", quality=100
), off("WEBP", lossless=True)
print(f"Pillow {PIL.__version__}: AVIF {avif:.0f} levels off at most, with 4:4:4 {full:.0f}; WebP {webp:.0f}, lossless {lossless:.0f}")
assert avif > 8 and webp > 8
assert full <= 5 and lossless == 0
PYTHON
