#!/usr/bin/env bash
# Guessed: a JPEG that was opened and painted over is saved as JPEG XL as it then is, and quality= decides its size.
#     Seen: the file on disk is packed once more as it was: the paint and a thumbnail's size are gone, and quality 30
#     gives the bytes of quality 90; a warning speaks of reconstruction, not of the edit. lossless_jpeg=False helps
# Versions: pillow-jxl-plugin 1.3.8, Pillow 12.3.0
# For a user: blacked-out eyes are open again in the archive, and faces shrunk to 64 pixels are whole photographs:
#     save picture.copy(), or with lossless_jpeg=False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pillow-jxl-plugin==1.3.8 pillow==12.3.0 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pillow_jxl
from PIL import Image, ImageDraw

warnings.simplefilter("ignore")  # that it uses JPEG reconstruction
y, x = np.mgrid[:256, :256]
face = Image.fromarray(np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), (x + y) / 2], -1).astype(np.uint8))
face.save("face.jpg", quality=95)


def painted() -> Image.Image:
    picture = Image.open("face.jpg")
    ImageDraw.Draw(picture).rectangle((60, 60, 200, 110), fill=0)
    return picture


def eyes(picture: Image.Image, **options: object) -> float:
    """Their mean level in the picture after saving: 0 where they are black."""
    picture.save("face.jxl", **options)
    return float(np.asarray(Image.open("face.jxl").convert("RGB"))[65:105, 65:195].mean())


small = Image.open("face.jpg")
small.thumbnail((64, 64))
small.save("small.jxl")
size = Image.open("small.jxl").size
sizes = []
for quality in (30, 90):
    painted().save("face.jxl", quality=quality)
    sizes.append(Path("face.jxl").stat().st_size)
levels = [eyes(painted()), eyes(painted(), lossless=True), eyes(painted(), lossless_jpeg=False), eyes(painted().copy())]
print(f"pillow-jxl-plugin {version('pillow-jxl-plugin')}: mean level of the blackened eyes after saving {levels[0]:.0f},")
print(f"    lossless {levels[1]:.0f}, with lossless_jpeg=False {levels[2]:.1f}, of a copy {levels[3]:.1f}")
print(f"    a thumbnail of 64x64 is {size[0]}x{size[1]}; qualities 30 and 90 give {sizes[0]} and {sizes[1]} bytes")
assert min(levels[:2]) > 50 and max(levels[2:]) < 3
assert size == (256, 256)
assert sizes[0] == sizes[1]
PYTHON
