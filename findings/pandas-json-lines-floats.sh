#!/usr/bin/env bash
# Guessed: read_json(lines=True) gives back every float64 that json.dumps wrote. Seen: 8 % of numbers in [0, 1) come
#     back exactly, off by up to 8e-12 of their size; read_csv gives back all
# Versions: pandas 3.1.1, NumPy 2.4.6
# For a user: two trainings cannot be compared bit for bit by their JSON lines read so; json.loads a line, or
#     precise_float=True, can
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pandas==3.1.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import io
import json

import numpy as np
import pandas as pd

losses = np.random.default_rng(0).random(100_000)
lines = "\n".join(json.dumps({"loss": loss}) for loss in losses.tolist())
plain = pd.read_json(io.StringIO(lines), lines=True)["loss"].to_numpy()
precise = pd.read_json(io.StringIO(lines), lines=True, precise_float=True)["loss"].to_numpy()
csv = pd.read_csv(io.StringIO("loss\n" + "\n".join(map(repr, losses.tolist()))))["loss"].to_numpy()
shares = [float((read == losses).mean()) for read in (plain, precise, csv)]
off = float(np.abs(plain / losses - 1).max())
print(f"pandas {pd.__version__}: exact of 100,000 losses: read_json {shares[0]:.1%}, at most {off:.1e} off;")
print(f"with precise_float {shares[1]:.1%}; read_csv {shares[2]:.1%}")
assert shares[0] < 0.2
assert 1e-13 < off < 1e-10
assert shares[1:] == [1.0, 1.0]
PYTHON
