#!/usr/bin/env bash
# Guessed: a picture of PIL that was opened from a file, shrunk, painted over or pasted into, goes into a data set
#     (from_list, map) as it then is, without loss. Seen: the file goes in as it was, and no word is said; only what
#     makes a new picture (copy, crop, convert) is kept. Opened from bytes of JPEG, the edit goes in as JPEG again
# Versions: datasets 5.2.0, Pillow 12.3.0
# For a user: eyes that were blacked out are open again in what is published, and thumbnails are as large as the
#     photographs: hand over picture.copy(), and look at what is stored
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2 HF_HOME="$work/cache" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check datasets==5.2.0 pillow==12.3.0 numpy==2.4.6 pyarrow==26.0.1 pandas==3.1.1
venv/bin/python - <<'PYTHON'
import io
from pathlib import Path

import datasets
import numpy as np
import PIL
from datasets import Dataset
from PIL import Image, ImageDraw

EYES = (60, 60, 200, 110)
y, x = np.mgrid[:256, :256]
face = Image.fromarray(np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), (x + y) / 2], -1).astype(np.uint8))
face.save("face.png")
face.save("face.jpg", quality=95)


def paint(picture: Image.Image) -> Image.Image:
    ImageDraw.Draw(picture).rectangle(EYES, fill=0)
    return picture


def shrink(picture: Image.Image) -> Image.Image:
    picture.thumbnail((64, 64))
    return picture


def stored(picture: Image.Image) -> Image.Image:
    return Dataset.from_list([{"face": picture}])[0]["face"]


def off(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


print(f"datasets {datasets.__version__}, Pillow {PIL.__version__}")
for name in ("face.png", "face.jpg"):
    original, painted = Image.open(name), paint(Image.open(name))
    opened = Dataset.from_dict({"face": [name]}).cast_column("face", datasets.Image())
    mapped = opened.map(lambda row: {"face": paint(row["face"])})[0]["face"]
    small = stored(shrink(Image.open(name)))
    print(f"{name}: painted over, it is stored {off(stored(painted), painted)} levels off, by map {off(mapped, painted)};")
    print(f"    shrunk to 64x64, as {small.size[0]}x{small.size[1]}; a painted copy {off(stored(painted.copy()), painted)} levels off")
    assert off(stored(painted), original) == off(mapped, original) == 0 and off(painted, original) > 100
    assert small.size == (256, 256)
    assert off(stored(painted.copy()), painted) == 0
painted = paint(Image.open(io.BytesIO(Path("face.jpg").read_bytes())))
again = stored(painted)
print(f"opened from bytes: stored as {again.format}, {off(again, painted)} levels off")
assert again.format == "JPEG" and off(again, painted) > 10
PYTHON
