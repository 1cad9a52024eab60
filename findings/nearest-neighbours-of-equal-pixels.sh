#!/usr/bin/env bash
# Guessed: the distance of two equal rows of 12,288 numbers is below 1e-4 in float32 and below 1e-6 in float64.
#     Seen: float64 is no better: 1e-5 for latents and 1e-3 for averaged pixels, in either; only whole pixels give
#     0. It is the root of what remains of two squares of 1e7 that should cancel
# Versions: scikit-learn 1.9.1, SciPy 1.17.1
# For a user: duplicates are not found by "distance == 0", and converting to float64 does not help: compare with a
#     bound, or compare the bytes; SciPy's cdist gives 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import numpy as np
import sklearn
from scipy.spatial.distance import cdist
from sklearn.metrics import euclidean_distances

values = np.random.default_rng(0).normal(size=(40, 12_288))  # a 64x64 face's
print(f"scikit-learn {sklearn.__version__}: largest distance of a row to its own copy")
worst = {}
for name, rows in (("latents", values), ("pixels", (values * 30 + 128).clip(0, 255))):
    for dtype in (np.float32, np.float64):
        own = rows.astype(dtype)
        worst[name, dtype.__name__] = float(euclidean_distances(own, own.copy()).diagonal().max())
        exact = float(cdist(own[:5], own[:5].copy()).diagonal().max())
        print(f"{name} in {dtype.__name__}: {worst[name, dtype.__name__]:.1e} (cdist {exact})")
        assert exact == 0
assert worst["latents", "float32"] < 1e-4
assert 1e-6 < worst["latents", "float64"] < 1e-4
assert worst["pixels", "float64"] > 1e-5
PYTHON
