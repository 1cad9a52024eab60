#!/usr/bin/env bash
# Guessed: execute_notebook(parameters={"size": (64, 64)}) gives the notebook (64, 64), or a list. Seen: the text
#     '(64, 64)', of length 8; in a list of pairs, each pair becomes a text, while lists stay lists; bytes become
#     "b'...'". Nothing is said
# Versions: papermill 2.7.0, ipykernel 7.4.0
# For a user: a notebook that goes through age groups or sizes goes through brackets, digits and commas, and the text
#     stands in the record of the run: pass lists
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check papermill==2.7.0 ipykernel==7.4.0 nbformat==5.11.1
export JUPYTER_DATA_DIR="$work/jupyter" IPYTHONDIR="$work/ipython" PYTHONWARNINGS=ignore
venv/bin/python -m ipykernel install --sys-prefix --name papers > /dev/null 2>&1
venv/bin/python - 2> warnings <<'PYTHON' || { cat warnings; exit 1; }
import nbformat
import papermill
from nbformat.v4 import new_code_cell, new_notebook

NAMES = ("size", "groups", "lists", "raw")
kernel = {"name": "papers", "language": "python", "display_name": "papers"}
defaults = new_code_cell("\n".join(f"{name} = None" for name in NAMES), metadata={"tags": ["parameters"]})
cells = [defaults, new_code_cell(f"print([{', '.join(NAMES)}])")]
nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), "asks.ipynb")
given = {"size": (64, 64), "groups": [(0, 30), (31, 40)], "lists": [[0, 30], [31, 40]], "raw": b"ab"}
done = papermill.execute_notebook("asks.ipynb", "done.ipynb", parameters=given, progress_bar=False)
arrived = done.cells[-1].outputs[0]["text"].strip()
print(f"papermill {papermill.__version__}: given   {list(given.values())}")
print(f"                 arrived {arrived}")
assert arrived == repr(["(64, 64)", ["(0, 30)", "(31, 40)"], [[0, 30], [31, 40]], "b'ab'"])
PYTHON
