#!/usr/bin/env bash
# Guessed: a data set's map is computed anew when the function that it is given has changed. Seen: not where the
#     function, or one that it calls, is imported from a module: a new run gives the old run's faces, filter the old
#     run's choice, and no word is said
# Versions: datasets 5.2.0
# For a user: another crop margin in crops.py changes nothing, and two margins "give the same result" in a table:
#     load_from_cache_file=False, or the margin as one of fn_kwargs
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
export HF_HOME="$work/cache" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 PYTHONDONTWRITEBYTECODE=1
printf 'width\n100\n200\n' > faces.csv
cat > run.py <<'PYTHON'
import json
import sys

import crops
import datasets
from crops import crop

faces = datasets.load_dataset("csv", data_files="faces.csv", split="train")
found = {
    "imported": faces.map(crops.crop)["wide"][:],
    "called": faces.map(lambda face: crop(face))["wide"][:],
    "filter": len(faces.filter(crops.keep)),
    "fn_kwargs": faces.map(crops.crop_by, fn_kwargs={"margin": crops.MARGIN})["wide"][:],
    "anew": faces.map(crops.crop, load_from_cache_file=False)["wide"][:],
}
print(f"datasets {datasets.__version__}, margin {crops.MARGIN}: {found}")
json.dump(found, open(sys.argv[1], "w"))
PYTHON
crops() {
  cat > crops.py <<PYTHON
MARGIN = $1


def crop_by(face, margin):
    return {"wide": face["width"] * margin}


def crop(face):
    return {"wide": face["width"] * $1}


def keep(face):
    return face["width"] * $1 < 300
PYTHON
}
crops 1 && venv/bin/python run.py first.json
crops 2 && venv/bin/python run.py second.json
venv/bin/python - <<'PYTHON'
import json

first, second = (json.load(open(name)) for name in ("first.json", "second.json"))
print("changed with the margin:", [name for name in first if first[name] != second[name]])
assert first["imported"] == [100, 200] and first["filter"] == 2
assert [name for name in first if first[name] != second[name]] == ["fn_kwargs", "anew"]
PYTHON
