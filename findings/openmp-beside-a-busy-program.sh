#!/usr/bin/env bash
# Guessed: a program with two OpenMP threads on two cores, one of which another program keeps busy, is at worst as slow as
#     with one thread. Seen: four to eight times as slow: each parallel loop ends when its last thread has done its part,
#     and the one that shares its core waits for a time slice, loop after loop
# Versions: scikit-learn 1.9.1 (which brings its own libgomp), NumPy 2.4.6
# For a user: beside one busy browser tab, fitting or training takes many times as long with all cores as with all but
#     one: set OMP_NUM_THREADS to the cores that are free
set -euo pipefail
work=$(mktemp -d)
busy=
trap 'kill $busy 2> /dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
cat > seen.py <<'PYTHON'
import os
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

random = np.random.default_rng(0)
latents = random.normal(size=(2000, 40))
ages = 40 + 10 * latents[:, 0] + random.normal(size=2000)
seconds = []
for _ in range(6):
    start = time.perf_counter()
    HistGradientBoostingRegressor(max_iter=60, early_stopping=False).fit(latents, ages)
    seconds.append(time.perf_counter() - start)
print(f"{np.median(seconds[1:]):.3f}")
PYTHON
cat > busy.py <<'PYTHON'
import os

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
while True:
    pass
PYTHON
timed() { OMP_NUM_THREADS=$1 venv/bin/python seen.py; }
quiet=$(timed 2)
venv/bin/python busy.py &
busy=$!
sleep 1
one=$(timed 1)
two=$(timed 2)
echo "a fit takes $quiet s with two threads and nothing beside it; beside a busy program $one s with one, $two s with two"
venv/bin/python -c "assert $two > 2 * $one and $one < 2 * $quiet, ($quiet, $one, $two)"
