"""Notebooks of the kit's form that do next to nothing, and plans for them."""

from pathlib import Path

import nbformat

from ageflow.batch.run import Plan, plan_run
from ageflow.run import ARTEFACTS

PARAMETERS = """\
dataset = "demo"  # data set
preset = None  # preset
run = None  # run
runs_root = None  # folder of all runs
seed = 0  # seed
"""
MAKE = """\
import sys
from ageflow.run import Manifest
print("made by", sys.executable)
for name in {names}:
    folder = ageflow.Workspace.of(settings).folder(name)
    (folder / "made.txt").touch()
    Manifest(fingerprint="as made").write(folder)
"""


def write_notebook(folder: Path, name: str, code: str | None = None, extra: str = "") -> None:
    """A notebook that writes the manifests of what it is to make, or runs `code`."""
    made = [folder for folder, artefact in ARTEFACTS.items() if artefact.notebook == name]
    cells = [
        nbformat.v4.new_markdown_cell(f"# {name}"),
        nbformat.v4.new_code_cell(PARAMETERS + extra, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f'import ageflow\nsettings = ageflow.settings("{name[3:]}", globals())'),
        nbformat.v4.new_code_cell(code or MAKE.format(names=made)),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


def small_plan(folder: Path, *notebooks: str, force: bool = False, **parameters: object) -> Plan:
    """A plan of the notebooks in `folder`, whose runs lie beside it."""
    given = {"preset": "smoke", "runs_root": folder.parent / "runs"} | parameters
    return plan_run(given, notebooks or ("02_train_glow", "05_train_classifiers"), folder, force=force)
