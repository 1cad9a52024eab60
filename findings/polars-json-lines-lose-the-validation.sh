#!/usr/bin/env bash
# Guessed: Polars reads a training's JSON lines with all keys, null where a line has none, or refuses. Seen: a key that
#     comes first on line 1,000, as a validation does, is no column: it has looked at 100 lines, and leaves out of the
#     others what it did not see there. The rows are all there, and no word is said; read and scan alike. pandas and
#     pyarrow have it, and DuckDB, which looks at 20,480 lines, refuses
# Versions: Polars 2.1.0, DuckDB 2.0.1, pandas 3.1.1, pyarrow 26.0.1
# For a user: a table of trainings has no validation loss, or only for those that validate early:
#     infer_schema_length=None
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check polars==2.1.0 duckdb==2.0.1 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.json

RARE = (50, 1_000, 30_000)


def log(every: int) -> None:
    with Path("log.jsonl").open("w") as file:
        for step in range(1, 40_001):
            valid = {"valid": 2 / step} if step % every == 0 else {}
            file.write(json.dumps({"step": step, "loss": 1 / step} | valid) + "\n")


readers = {
    "Polars read": lambda: pl.read_ndjson("log.jsonl"),
    "Polars scan": lambda: pl.scan_ndjson("log.jsonl").collect(),
    "Polars, all lines": lambda: pl.read_ndjson("log.jsonl", infer_schema_length=None),
    "pandas": lambda: pd.read_json("log.jsonl", lines=True),
    "pyarrow": lambda: pyarrow.json.read_json("log.jsonl").to_pandas(),
    "DuckDB": lambda: duckdb.sql("select * from read_json_auto('log.jsonl')").df(),
}
seen = {name: [] for name in readers}
for every in RARE:
    log(every)
    for name, read in readers.items():
        try:
            table = read()
        except duckdb.Error:
            seen[name].append("refused")
            continue
        assert len(table) == 40_000
        seen[name].append("there" if "valid" in table.columns else "not there")
print(f"Polars {pl.__version__}, DuckDB {duckdb.__version__}: is a key there that is on each Nth line, N = {RARE}?")
for name, found in seen.items():
    print(f"{name:18} {found}")
assert seen == {name: ["there"] * 3 for name in readers} | {
    "Polars read": ["there", "not there", "not there"],
    "Polars scan": ["there", "not there", "not there"],
    "DuckDB": ["there", "there", "refused"],
}
PYTHON
