#!/usr/bin/env bash
# Guessed: SciPy, pymatreader and mat73 give the names of a struct like CACD's celebrity2000_meta.mat as one list of
#     strings. Seen: pymatreader does; mat73 gives a list of lists of one; SciPy an array, in which an empty name is
#     an empty array, and all of a struct of one row are bare scalars
# Versions: SciPy 1.17.1, pymatreader 1.3.2, mat73 0.65, hdf5storage 0.2.2 (which writes MATLAB 7.3 here)
# For a user: code written for one reader puts "['a.jpg']" or "[]" into file names by another, and iterates over the
#     letters of the only name of a small set
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check scipy==1.17.1 pymatreader==1.3.2 mat73==0.65 hdf5storage==0.2.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import hdf5storage
import mat73
import numpy as np
import pymatreader
import scipy.io


def struct(*names: str) -> dict:
    column = np.empty((len(names), 1), dtype=object)
    column[:, 0] = names
    return {"faces": {"name": column, "age": np.full((len(names), 1), 30.0)}}


scipy.io.savemat("v5.mat", struct("a.jpg", "bb.jpg", ""))
hdf5storage.savemat("v73.mat", struct("a.jpg", "bb.jpg"), format="7.3")
scipy.io.savemat("one.mat", struct("a.jpg"))
by_scipy = scipy.io.loadmat("v5.mat", simplify_cells=True)["faces"]["name"]
by_mat73 = mat73.loadmat("v73.mat")["faces"]["name"]
by_pymatreader = pymatreader.read_mat("v73.mat")["faces"]["name"]
alone = scipy.io.loadmat("one.mat", simplify_cells=True)["faces"]
print(f"SciPy {scipy.__version__}: {by_scipy!r}; of one row {alone['name']!r}, {alone['age']!r}")
print(f"mat73: {by_mat73!r}; pymatreader: {by_pymatreader!r}")
assert isinstance(by_scipy, np.ndarray)
assert by_scipy[:2].tolist() == ["a.jpg", "bb.jpg"]
assert isinstance(by_scipy[2], np.ndarray) and by_scipy[2].size == 0
assert alone["name"] == "a.jpg" and np.ndim(alone["age"]) == 0
assert by_mat73 == [["a.jpg"], ["bb.jpg"]]
assert by_pymatreader == ["a.jpg", "bb.jpg"]
PYTHON
