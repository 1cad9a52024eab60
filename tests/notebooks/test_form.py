"""The form every notebook keeps: one documented parameters cell, calls instead of code, short texts, no outputs."""

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
MARKDOWN_CHARACTERS, CODE_LINES = 1_500, 25
FORBIDDEN = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.While, ast.Try)


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_there_is_a_notebook_for_every_step_in_order():
    assert [path.stem for path in NOTEBOOKS][: len(STEPS)] == [f"{n:02d}_{step}" for n, step in enumerate(STEPS, 1)]


@BY_NAME
def test_valid_and_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.get("id") for cell in notebook.cells)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells(path, "code"))


@BY_NAME
def test_its_texts_begin_with_title_and_purpose_and_stay_short(path: Path):
    assert nbformat.read(path, as_version=4).cells[0].cell_type == "markdown"
    texts = [cell.source for cell in cells(path, "markdown")]
    title, *rest = filter(str.strip, texts[0].splitlines())
    assert title.startswith("# ")
    assert rest, "a title alone does not say what the notebook is for"
    assert max(map(len, texts)) <= MARKDOWN_CHARACTERS


@BY_NAME
def test_every_parameter_is_a_setting_that_papermill_describes(path: Path):
    """One cell, first of the code; the second validates it."""
    first, second, *_ = cells(path, "code")
    assert [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])] == [first]
    assert f'ageflow.settings("{path.stem[3:]}", globals())' in second.source
    names = []
    for line in filter(str.strip, first.source.splitlines()):
        match = re.fullmatch(r"(\w+) = (.+?)  # (\S.*)", line)
        assert match, f"{line!r}: expected name = value  # what it is"
        ast.literal_eval(match[2])
        names.append(match[1])
    expected = [name for name in COMMON if name != "data_root" or path.stem == "01_prepare_data"]
    assert names[: len(expected)] == expected
    assert len(set(names)) == len(names)
    assert set(names) <= set(STEPS[path.stem[3:]].model_fields)
    described = papermill_library.inspect_notebook(str(path))
    assert list(described) == names
    for name, parameter in described.items():
        assert len(parameter["help"].split()) >= 2, f"--help-notebook does not describe {name}"


@BY_NAME
def test_cells_tell_and_call_and_define_nothing(path: Path):
    for cell in cells(path, "code"):
        found = [type(node).__name__ for node in ast.walk(ast.parse(cell.source)) if isinstance(node, FORBIDDEN)]
        assert not found, f"{found} in {cell.source!r}: code belongs into the library"
        assert "matplotlib" not in cell.source
        assert len(cell.source.splitlines()) <= CODE_LINES
