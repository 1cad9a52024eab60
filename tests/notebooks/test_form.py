"""The form every notebook keeps: one documented parameters cell, calls instead of code, no outputs."""

import ast
import re
from pathlib import Path

import nbformat
import papermill as papermill_library
import pytest

from ageflow.config import STEPS
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
COMMON = ("dataset", "preset", "run", "data_root", "runs_root", "seed")
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_is_a_notebook_for_every_step_in_order():
    assert [path.stem for path in NOTEBOOKS][: len(STEPS)] == [
        f"{number:02d}_{step}" for number, step in enumerate(STEPS, 1)
    ]


@BY_NAME
def test_valid_and_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.get("id") for cell in notebook.cells)
    for cell in code_cells(path):
        assert cell.outputs == []
        assert cell.execution_count is None


@BY_NAME
def test_begins_with_its_title_and_purpose(path: Path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    title, *rest = [line for line in first.source.splitlines() if line.strip()]
    assert title.startswith("# ")
    assert rest, "a title alone does not say what the notebook is for"


@BY_NAME
def test_every_parameter_is_a_described_setting_of_the_step(path: Path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    fields = STEPS[path.stem[3:]].model_fields
    names = []
    for line in filter(str.strip, tagged[0].source.splitlines()):
        match = re.fullmatch(r"(\w+) = (.+?)  # (\S.*)", line)
        assert match, f"{line!r}: expected name = value  # what it is"
        ast.literal_eval(match[2])
        names.append(match[1])
    assert tuple(names[: len(COMMON)]) == COMMON
    assert len(set(names)) == len(names)
    assert set(names) <= set(fields), f"not settings of this step: {set(names) - set(fields)}"


@BY_NAME
def test_papermill_describes_every_parameter(path: Path):
    described = papermill_library.inspect_notebook(str(path))
    tagged = next(cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", []))
    assert list(described) == re.findall(r"^(\w+) =", tagged.source, flags=re.MULTILINE)
    for name, parameter in described.items():
        assert len(parameter["help"].split()) >= 2, f"--help-notebook does not describe {name}"


def test_help_notebook_prints_every_parameter(papermill):
    done = papermill("--help-notebook", "04_train_ictm.ipynb")
    assert done.returncode == 0
    for name in papermill_parameters():
        assert re.search(rf"^\s+{name}:.*\S", done.stdout, flags=re.MULTILINE), name


def papermill_parameters() -> list[str]:
    return list(papermill_library.inspect_notebook(str(ROOT / "notebooks" / "04_train_ictm.ipynb")))


@BY_NAME
def test_cells_tell_and_call_and_define_nothing(path: Path):
    forbidden = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.While, ast.Try)
    for cell in code_cells(path):
        tree = ast.parse(cell.source)
        found = [type(node).__name__ for node in ast.walk(tree) if isinstance(node, forbidden)]
        assert not found, f"{found} in {cell.source!r}: code belongs into the library"
        assert "matplotlib" not in cell.source
        assert len(cell.source.splitlines()) <= 30


@BY_NAME
def test_parameters_are_validated_right_after_them(path: Path):
    cells = code_cells(path)
    assert "parameters" in cells[0].metadata.get("tags", [])
    assert f'ageflow.settings("{path.stem[3:]}", globals())' in cells[1].source
