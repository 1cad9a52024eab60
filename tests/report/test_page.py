"""The report's page shows what the run made, and nothing it has not."""

import base64
import json
import re
from datetime import datetime
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ageflow.report.page import Executed, write_page
from ageflow.run import Manifest, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, "demo", "tried")


def write_faces(workspace: Workspace, identities: list[str]) -> None:
    halves = ["train"] * (len(identities) - 1) + ["test"]
    pd.DataFrame({"identity": identities, "split": halves}).to_parquet(workspace.folder("faces") / "faces.parquet")
    Manifest().write(workspace.path("faces"))


def test_page_shows_verdict_faces_numbers_tables_figures_and_notebooks_in_this_order(workspace: Workspace):
    write_faces(workspace, ["a", "a", "b", "c"])
    lines = [{"iteration": 1, "loss": 5.0, "test/bits_per_dim": 4.25}, {"iteration": 2, "test/bits_per_dim": 3.518}]
    metrics = workspace.folder("glow") / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"iteration": 3, "loss": 3.0}]))
    for number in range(1, 5):
        cell = f"<table><td>A &lt; B</td><td>{number}1.5 [1.0, 2.0]</td></table>"
        (workspace.folder("tables") / f"table{number}.html").write_text(cell)
    tile = {"number": "0.871", "what": "centred cosine", "scale": "two people -0.1"}
    Manifest(details={"verdict": ["AgeFlow leads."], "tiles": [tile]}).write(workspace.path("tables"))
    shown = ("training_glow", "figure_a2", "figure_trade_off", "figure_ages", "figure_4")
    for shade, name in enumerate(shown):
        picture = np.full((4, 4, 3), shade, np.uint8)
        Image.fromarray(picture).save(workspace.folder("figures") / f"{name}.png")
    left_out = {"figure_a1": "no other set is named: pass -p external"}
    Manifest(details={"left_out": left_out}).write(workspace.path("figures"))
    output = nbformat.v4.new_output("stream", text="1200 faces")
    cells = [nbformat.v4.new_markdown_cell("# Prepare the faces"), nbformat.v4.new_code_cell("f()", outputs=[output])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), workspace.folder("notebooks") / "01_prepare_data.ipynb")

    executed = [Executed("01_prepare_data", 2.25, datetime(2026, 3, 4, 5, 6)), Executed("02_train_glow")]
    page = write_page(workspace, "demo", executed)

    text = page.read_text()
    for said in ("tried", "preset demo", "4 March 2026, 05:06", "2.2 minutes in all", "faces of 3 identities"):
        assert said in text
    for number in (
        "<dd>4</dd>",
        "1 of them held out",
        "<dd>3.52</dd>",
        "<dd>0.871</dd>",
        "<small>two people -0.1</small>",
    ):
        assert number in text
    assert all(f"{number}1.5 [1.0, 2.0]" in text for number in range(1, 5))
    assert "A &lt; B" in text
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    expected = ["figure_4", "figure_trade_off", "figure_ages", "figure_a2", "training_glow"]
    files = [workspace.path("figures", f"{name}.png").read_bytes() for name in expected]
    assert [base64.b64decode(picture) for picture in embedded] == files
    order = ["AgeFlow leads.", "Figure 4", "make lab", 'run = "tried"', "Table 1", "identity–age trade-off"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert re.search(r"Left out:</strong> Figure A\.1\..*No other set is named: pass -p external\.", text)
    assert "Prepare the faces" in text
    link = re.search(r'href="(notebooks/01_prepare_data\.html)"', text)
    assert "1200 faces" in (page.parent / link[1]).read_text()
    assert "02_train_glow</a>" not in text
    assert "not run" in text


def test_page_of_a_run_that_has_made_nothing_says_what_makes_it(workspace: Workspace):
    text = write_page(workspace, "smoke", [Executed("01_prepare_data")]).read_text()
    assert "notebook 07_tables makes them" in text
    assert "notebook 08_figures makes them" in text
    assert "<dd>" not in text
