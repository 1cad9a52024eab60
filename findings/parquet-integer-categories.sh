#!/usr/bin/env bash
# Guessed: a categorical of int8 age groups comes back from Parquet as one. Seen: it comes back as plain int8: order
#     and empty groups are lost; a categorical of strings comes back whole
# Versions: pandas 3.1.1, pyarrow 26.0.1
# For a user: after a reload, groupby and pivot tables drop an age group without faces, and columns no longer line
#     up; keep groups as strings, or set the categories again
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import numpy as np
import pandas as pd
import pyarrow

numbers, names = np.arange(4, dtype=np.int8), ["30-", "31-40", "41-50", "51+"]
kinds = {"number": pd.CategoricalDtype(numbers, ordered=True), "name": pd.CategoricalDtype(names, ordered=True)}
groups = [0, 1, 3]  # nobody is in group 2
table = pd.DataFrame({"number": numbers[groups], "name": np.array(names)[groups]}).astype(kinds)
table.to_parquet("faces.parquet")
read = pd.read_parquet("faces.parquet")
counts = [len(some.groupby("number", observed=False).size()) for some in (table, read)]
print(f"pandas {pd.__version__}, pyarrow {pyarrow.__version__}: number is {read['number'].dtype}, name {read['name'].dtype};")
print(f"age groups counted by number: {counts[0]} before, {counts[1]} after")
assert read["number"].dtype == np.int8
assert read["name"].dtype == kinds["name"]
assert counts == [4, 3]
PYTHON
