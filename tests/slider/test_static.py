"""Notebook 09 where no front end draws widgets: the same as figures."""

import base64
import io
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

from tests.conftest import Run
from tests.slider.conftest import astronaut


def outputs_of(path: Path) -> list[dict]:
    """What the cells of an executed notebook show, one bundle an output."""
    cells = nbformat.read(path, as_version=4).cells
    return [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]


def drawn(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def test_papermill_and_an_exported_page_show_the_models_and_the_figure(papermill, smoke_run: Run, tmp_path: Path):
    photo, out = tmp_path / "me.png", tmp_path / "out.ipynb"
    astronaut().save(photo)
    given = {"preset": "smoke", "runs_root": smoke_run.workspace.runs_root, "method": "glow", "photo": photo}
    parameters = (word for name, value in given.items() for word in ("-p", name, str(value)))
    done = papermill("09_age_slider.ipynb", str(out), *parameters)
    assert done.returncode == 0, done.stderr
    models, slider, figure = outputs_of(out)
    assert "<table" in models["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in slider
    assert "your picture" in slider["text/plain"]
    assert drawn(base64.b64decode(figure["image/png"])).std() > 10
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level", "WARN", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert figure["image/png"].replace("\n", "") in out.with_suffix(".html").read_text().replace("\n", "")
