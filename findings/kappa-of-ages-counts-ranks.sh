#!/usr/bin/env bash
# Guessed: cohen_kappa_score(weights="quadratic") of ages weighs an error by its years squared. Seen: by how many of the
#     ages that occur lie between: 20 for 30 costs as much as 30 for 70 where there is nothing between, and two models'
#     kappas are equal where their squared errors are as 1 to 16; one face of a new age changes the weights of all
# Versions: scikit-learn 1.9.1
# For a user: the kappa of ages or of groups called by their middle year is none of years, and two test sets have two
#     scales: labels=range(0, 101) weighs by years, if every year is given
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
from sklearn.metrics import cohen_kappa_score


def by_years(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's weighted kappa with the squared difference in years as its weight."""
    return float(1 - np.mean((one - other) ** 2) / np.mean((one[:, None] - other[None]) ** 2))


true = np.repeat([20, 30, 70], 100)
near, far = true.copy(), true.copy()
near[:30], near[100:130] = 30, 20  # 60 errors of 10 years
far[100:130], far[200:230] = 70, 30  # 60 errors of 40 years
kappas = {}
for name, guess in (("60 errors of 10 years", near), ("60 errors of 40 years", far)):
    years = cohen_kappa_score(true, guess, weights="quadratic", labels=range(101))
    kappas[name] = (cohen_kappa_score(true, guess, weights="quadratic"), by_years(true, guess), years)
more, guessed = np.append(true, 45), np.append(far, 45)  # one more face, which is right
one_more = [cohen_kappa_score(more, guessed, weights="quadratic"), by_years(more, guessed)]
print(f"scikit-learn {sklearn.__version__}: kappa, kappa by years, kappa with every year as a label")
for name, values in kappas.items():
    print(f"{name}: {', '.join(f'{value:.3f}' for value in values)}")
print(f"the latter and one face of 45, told right: {one_more[0]:.3f}, {one_more[1]:.3f}")
near_kappa, far_kappa = kappas.values()
assert abs(near_kappa[0] - far_kappa[0]) < 1e-9
assert near_kappa[1] > 0.95 and far_kappa[1] < 0.8
assert all(abs(values[1] - values[2]) < 1e-9 for values in kappas.values())
assert abs(one_more[0] - far_kappa[0]) > 0.02 and abs(one_more[1] - far_kappa[1]) < 0.005
PYTHON
