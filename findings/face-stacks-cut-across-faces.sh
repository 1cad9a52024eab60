#!/usr/bin/env bash
# Guessed: 20,000 faces of 64x64x3 bytes are cut by h5py (chunks=True) and by zarr into pieces of a few whole faces, so
#     that one face costs at most 1 MB to unpack. Seen: both cut across faces: one face lies in 192 chunks of 1,250
#     faces each (15 MB), in zarr in 48 of 5,000 faces (61 MB), 5,000 times its size; it takes 30 and 70 times as long
# Versions: h5py 3.16.0, zarr 3.1.6
# For a user: shuffled training unpacks as much as the whole set for every 16 faces (zarr: every 4), and a face that is
#     written alone repacks as much: pass chunks=(16, 64, 64, 3), or as many faces as are read at once
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check h5py==3.16.0 zarr==3.1.6 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import time

import h5py
import numpy as np
import zarr

SHAPE, FACE = (20_000, 64, 64, 3), 64 * 64 * 3
faces = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8) & 0xF0  # of 16 levels: it packs by half


def cost(chunks: tuple[int, ...]) -> tuple[int, int]:
    """How many chunks, and how many unpacked bytes, one face lies in."""
    count = int(np.prod([-(-side // chunk) for side, chunk in zip(SHAPE[1:], chunks[1:], strict=True)]))
    return count, count * int(np.prod(chunks))


def seconds(stack) -> float:
    begin, which = time.perf_counter(), (7, 19_001, 4_242, 12_345)
    for face in which:
        assert (stack[face] == faces[face]).all()
    return (time.perf_counter() - begin) / len(which)


with h5py.File("faces.h5", "w") as file:
    stacks = {
        "h5py": file.create_dataset("by itself", data=faces, chunks=True, compression="lzf"),
        "h5py, by 16 faces": file.create_dataset("by faces", data=faces, chunks=(16, *SHAPE[1:]), compression="lzf"),
        "zarr": zarr.create_array("itself.zarr", data=faces),
        "zarr, by 16 faces": zarr.create_array("faces.zarr", data=faces, chunks=(16, *SHAPE[1:])),
    }
    print(f"h5py {h5py.__version__}, zarr {zarr.__version__}: to read one face of {FACE:,} bytes")
    for name, stack in stacks.items():
        count, size = cost(stack.chunks)
        print(f"{name:18} chunks {stack.chunks!s:18} unpacks {count:3} of them, {size:10,} bytes: {seconds(stack) * 1e3:7.2f} ms")
    found = {name: (cost(stack.chunks), seconds(stack)) for name, stack in stacks.items()}
assert found["h5py"][0] == (192, 15_360_000) and found["zarr"][0] == (48, 61_440_000)
assert found["h5py"][1] > 5 * found["h5py, by 16 faces"][1]
assert found["zarr"][1] > 5 * found["zarr, by 16 faces"][1]
PYTHON
