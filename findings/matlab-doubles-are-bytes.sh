#!/usr/bin/env bash
# Guessed: ages that MATLAB holds as double are read by loadmat as float64. Seen: as uint8: MATLAB writes whole
#     doubles in the smallest integers that hold them, and SciPy keeps those, although its own whosmat says "double";
#     pymatreader the same. 23 - 41 is 238, and |23 - 50| is 229
# Versions: SciPy 1.17.1, pymatreader 1.3.2
# For a user: a set's age gaps and mean errors are wrong without a word wherever a difference is below zero, while
#     sums and means are right: mat_dtype=True, or astype(float) first
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check scipy==1.17.1 pymatreader==1.3.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import struct
from pathlib import Path

import numpy as np
import pymatreader
import scipy.io

CHAR, BYTES, SHORTS, INTS, COUNTS, ARRAY = 1, 2, 4, 5, 6, 14  # kinds of element in a MAT file of version 5
DOUBLE = 6  # MATLAB's class, whatever kind the numbers are stored as


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)


def doubles(name: str, values: list[int], kind: int, letter: str) -> bytes:
    """A column vector of doubles as MATLAB saves it: the numbers in `kind`."""
    of_class = element(COUNTS, struct.pack("<2I", DOUBLE, 0)) + element(INTS, struct.pack("<2i", len(values), 1))
    numbers = struct.pack(f"<{len(values)}{letter}", *values)
    return element(ARRAY, of_class + element(CHAR, name.encode()) + element(kind, numbers))


head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<2H", 0x0100, 0x4D49)
ages, years = doubles("age", [23, 41, 60], BYTES, "B"), doubles("year", [2004, 2013, 1999], SHORTS, "H")
Path("set.mat").write_bytes(head + ages + years)
table = scipy.io.loadmat("set.mat", squeeze_me=True)
print(f"SciPy {scipy.__version__}: whosmat says {[kind for _, _, kind in scipy.io.whosmat('set.mat')]},")
print(f"    loadmat gives {table['age'].dtype} and {table['year'].dtype}: age - 41 {table['age'] - 41}, |age - 50| {abs(table['age'] - 50)},")
print(f"    year - 2013 {table['year'] - 2013}")
assert [kind for _, _, kind in scipy.io.whosmat("set.mat")] == ["double", "double"]
assert table["age"].dtype == np.uint8 and table["year"].dtype == np.uint16
assert (table["age"] - table["age"][1]).tolist() == [238, 0, 19] and abs(table["age"] - 50).tolist() == [229, 247, 10]
assert pymatreader.read_mat("set.mat")["age"].dtype == np.uint8
assert scipy.io.loadmat("set.mat", mat_dtype=True)["age"].dtype == np.float64
PYTHON
