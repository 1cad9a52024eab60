#!/usr/bin/env bash
# Guessed: of 500 whitened components of 700 faces, the variance of new faces is 1 in the first and falls to 0.5 in
#     the last. Seen: it is 0.6 in the middle and rises again to 1.1 in the last: what is whitened is neither white
#     nor monotone
# Versions: scikit-learn 1.9.1
# For a user: distances in a whitened space weigh directions by how they were fitted; whiten no more components than
#     a tenth of the faces, and look at new ones
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import numpy as np
import sklearn
from sklearn.decomposition import PCA

random, faces, size = np.random.default_rng(0), 700, 1536
latents = random.normal(size=(2 * faces, size)) * np.arange(1, size + 1) ** -0.5
pca = PCA(500, whiten=True, svd_solver="full").fit(latents[:faces])
variances = pca.transform(latents[faces:]).var(axis=0)
first, middle, last = (float(variances[some].mean()) for some in (slice(5), slice(220, 280), slice(-50, None)))
print(f"scikit-learn {sklearn.__version__}: variance of new faces in the first components {first:.2f}, in the middle")
print(f"{middle:.2f}, in the last {last:.2f}; of those that it was fitted to 1")
assert 0.75 < first < 1.15
assert 0.5 < middle < 0.72
assert 0.95 < last < 1.3
PYTHON
