#!/usr/bin/env bash
# Guessed: whole numbers that zarr saved are the same whole numbers when xarray opens them. Seen: from Zarr's format 2
#     they come as float32, and each 0 as NaN, since xarray takes the fill value, which zarr sets to 0, for "missing";
#     from format 3 they are whole. Scores of 0.0 are lost, too
# Versions: zarr 3.1.6, xarray 2026.9.0
# For a user: newborns drop out of every mean age, black pixels out of every mean face, and counts by group are
#     short: mask_and_scale=False, or format 3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check zarr==3.1.6 xarray==2026.9.0 numpy==2.4.6 pandas==3.1.1
venv/bin/python - <<'PYTHON'
import warnings

import numpy as np
import xarray
import zarr

warnings.simplefilter("ignore")  # of metadata that is not consolidated
columns = {"age": np.array([0, 1, 30, 59], np.uint8), "score": np.array([0.0, 0.5, 0.25, 1.0])}


def opened(form: int, **options: object) -> xarray.Dataset:
    group = zarr.open_group(f"table{form}.zarr", mode="w", zarr_format=form)
    for name, values in columns.items():
        if form == 2:  # where xarray looks for the names of dimensions
            group.create_array(name, data=values).attrs["_ARRAY_DIMENSIONS"] = ["face"]
        else:
            group.create_array(name, data=values, dimension_names=["face"])
    return xarray.open_zarr(f"table{form}.zarr", consolidated=False, **options).load()


tables = {"format 2": opened(2), "format 3": opened(3), "format 2, unmasked": opened(2, mask_and_scale=False)}
print(f"zarr {zarr.__version__}, xarray {xarray.__version__}; ages {columns['age']}, mean {columns['age'].mean()}")
for name, table in tables.items():
    print(f"{name:19} {table.age.dtype!s:8} {table.age.values}, mean {float(table.age.mean())}; scores {table.score.values}")
assert tables["format 2"].age.dtype == np.float32
assert np.isnan(tables["format 2"].age.values).tolist() == [True, False, False, False]
assert np.isnan(tables["format 2"].score.values).tolist() == [True, False, False, False]
assert float(tables["format 2"].age.mean()) == 30 and columns["age"].mean() == 22.5
for name in ("format 3", "format 2, unmasked"):
    assert tables[name].age.dtype == np.uint8 and (tables[name].age.values == columns["age"]).all()
PYTHON
