#!/usr/bin/env bash
# Guessed: safetensors' save_file for NumPy keeps the values of an array that is transposed or in Fortran's order, or
#     refuses it as the one for torch does. Seen: 0.8.0 writes the memory as it lies under the new shape: the file
#     loads, shape and type are right, and the values are in other places; 0.7.0 kept them
# Versions: safetensors 0.8.0 and 0.7.0, scikit-learn 1.9.1, NumPy 2.4.6
# For a user: faces turned from height x width x colour to colour first, and the components of a PCA by scikit-learn,
#     are saved as noise, which no check of shapes finds: np.ascontiguousarray before saving
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 safetensors==0.8.0
cat > seen.py <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA

random = np.random.default_rng(0)
face = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
pca = PCA(20, svd_solver="full").fit(random.normal(size=(100, 50)))
arrays = {
    "as it is": face,
    "colour first": face.transpose(2, 0, 1),  # a view of the same memory
    "Fortran's order": np.asfortranarray(random.normal(size=(40, 30))),
    "PCA's components": pca.components_,
}
save_file(arrays, "arrays.safetensors")
loaded = load_file("arrays.safetensors")
kept = {name: bool((loaded[name] == array).all()) for name, array in arrays.items()}
print(f"safetensors {safetensors.__version__}: values kept", kept)
assert all(loaded[name].shape == array.shape and loaded[name].dtype == array.dtype for name, array in arrays.items())
assert kept == {name: name == "as it is" or sys.argv[1] == "kept" for name in arrays}, kept
PYTHON
venv/bin/python seen.py scrambled
venv/bin/pip install --quiet --no-compile --disable-pip-version-check safetensors==0.7.0
venv/bin/python seen.py kept
