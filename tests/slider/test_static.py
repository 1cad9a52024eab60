"""Notebook 09 where no front end draws widgets: the same as figures."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import ageflow
from tests.conftest import ROOT, Run
from tests.slider.conftest import astronaut


def data_of(path: Path) -> list[dict]:
    """What the cells of an executed notebook show, one bundle an output."""
    cells = nbformat.read(path, as_version=4).cells
    return [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]


def drawn(bundle: dict) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGB"))


@pytest.fixture
def asked(smoke_run: Run) -> list[str]:
    given = {"preset": "smoke", "runs_root": str(smoke_run.workspace.runs_root), "method": "glow"}
    return [word for name, value in given.items() for word in ("-p", name, value)]


def test_papermill_draws_the_figure_and_the_models(papermill, asked: list[str], tmp_path: Path):
    pictures = {}
    for age in ("30", "65"):
        out = tmp_path / f"{age}.ipynb"
        done = papermill("09_age_slider.ipynb", str(out), *asked, "-p", "age", age, "-p", "face", "1")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        models, slider, figure = data_of(out)
        assert "<table" in models["text/html"]
        assert "smoke" in models["text/html"]
        assert "application/vnd.jupyter.widget-view+json" in slider
        assert "test face 1" in slider["text/plain"]
        pictures[age] = drawn(figure)
        assert pictures[age].std() > 10
    assert not np.array_equal(pictures["30"], pictures["65"])


def test_an_exported_page_shows_the_figure(papermill, asked: list[str], tmp_path: Path):
    photo = tmp_path / "me.png"
    astronaut().save(photo)
    out = tmp_path / "out.ipynb"
    done = papermill("09_age_slider.ipynb", str(out), *asked, "-p", "photo", str(photo))
    assert done.returncode == 0, done.stderr
    _, slider, figure = data_of(out)
    assert "your picture" in slider["text/plain"]
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level", "WARN", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert figure["image/png"].replace("\n", "") in out.with_suffix(".html").read_text().replace("\n", "")


def test_a_plain_kernel_without_a_notebook_draws_it_too(smoke_run: Run):
    code = (
        "import ageflow\nfrom ageflow.slider import age_slider\n"
        f"chosen = {{'preset': 'smoke', 'runs_root': {str(smoke_run.workspace.runs_root)!r}}}\n"
        "slider = age_slider(ageflow.settings('age_slider', chosen))\n"
        "print(slider._repr_mimebundle_()['text/plain'], len(slider.figure()._repr_png_()[0]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"The age slider: test face 0, .* \d{5,}", done.stdout.strip())


def test_without_a_trained_run_it_says_which_notebook_to_run_and_does_not_fail(papermill, tmp_path: Path):
    out = tmp_path / "out.ipynb"
    done = papermill("09_age_slider.ipynb", str(out), "-p", "runs_root", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    told = str(data_of(out))
    assert "run 01_prepare_data.ipynb first" in told
    assert "Traceback" not in told
    assert ageflow.MissingArtefactError.__name__ not in told
