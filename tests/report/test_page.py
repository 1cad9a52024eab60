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
from ageflow.run import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, "demo", "tried")


def test_page_shows_numbers_tables_figures_and_notebooks(workspace: Workspace):
    people = {"identity": ["a", "a", "b", "c"], "split": ["train", "train", "train", "test"]}
    pd.DataFrame(people).to_parquet(workspace.folder("faces") / "faces.parquet")
    lines = [{"iteration": 1, "loss": 5.0, "test/bits_per_dim": 4.25}, {"iteration": 2, "test/bits_per_dim": 3.518}]
    metrics = workspace.folder("glow") / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"iteration": 3, "loss": 3.0}]))
    judged = {"summary": {"ageflow": {"age_accuracy": 61.25, "cosine": 0.8714}}}
    (workspace.folder("evaluation") / "done.json").write_text(json.dumps(judged))
    for number in range(1, 5):
        table = f"### Table {number}: a title\n\n| | 30- |\n|---|---:|\n| A < B | **{number}1.5** |\n\n- a note\n"
        (workspace.folder("tables") / f"table{number}.md").write_text(table)
    pictures = ("training_glow", "figure_a2", "figure_strength", "figure_ages", "figure_4", "own_drawing")
    left_out = {"left_out": {"figure_a1": "no other set is named: pass -p external"}}
    (workspace.folder("figures") / "done.json").write_text(json.dumps(left_out))
    for shade, name in enumerate(pictures):
        picture = np.full((4, 4, 3), shade, np.uint8)
        Image.fromarray(picture).save(workspace.folder("figures") / f"{name}.png")
    output = nbformat.v4.new_output("stream", text="1200 faces")
    cells = [nbformat.v4.new_markdown_cell("# Prepare the faces"), nbformat.v4.new_code_cell("f()", outputs=[output])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), workspace.folder("notebooks") / "01_prepare_data.ipynb")

    executed = [Executed("01_prepare_data", 2.25, datetime(2026, 3, 4, 5, 6)), Executed("02_train_glow")]
    page = write_page(workspace, "demo", executed)

    text = page.read_text()
    for shown in ("tried", "preset demo", "4 March 2026, 05:06", "2.2 minutes in all", "faces of 3 identities"):
        assert shown in text
    for number in ("<dd>4</dd>", "<dd>1</dd>", "<dd>3.52</dd>", "<dd>61.2 %</dd>", "<dd>0.871</dd>"):
        assert number in text
    assert [number in text for number in ("11.5", "21.5", "31.5", "41.5")] == [True] * 4
    assert "A &lt; B" in text
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    expected = ["figure_4", "figure_ages", "figure_strength", "figure_a2", "own_drawing", "training_glow"]
    files = [workspace.path("figures", f"{name}.png").read_bytes() for name in expected]
    assert [base64.b64decode(picture) for picture in embedded] == files
    assert "Predicted age against continuous target age" in text
    assert "What each method gives up of the person for an age" in text
    figure_a1 = "Figure A.1. Faces of another set (red frames) in every age group, by AgeFlow"
    assert re.search(rf"Left out:</strong> {re.escape(figure_a1)}.*No other set is named: pass -p external\.", text)
    assert "Prepare the faces" in text
    link = re.search(r'href="(notebooks/01_prepare_data\.html)"', text)
    assert "1200 faces" in (page.parent / link[1]).read_text()
    assert "02_train_glow</a>" not in text
    assert "not run" in text


def test_page_names_the_set_whose_faces_were_judged(workspace: Workspace):
    judged = {"summary": {"ageflow": {"age_accuracy": 61.25, "cosine": 0.8714}}, "external": "demo/held"}
    (workspace.folder("evaluation") / "done.json").write_text(json.dumps(judged))
    text = write_page(workspace, "demo", [Executed("06_ablations")]).read_text()
    assert "age accuracy of AgeFlow, on the test faces of demo/held" in text
    assert "cosine similarity of face and aged face, on the test faces of demo/held" in text


def test_page_of_a_run_that_has_made_nothing_says_what_makes_it(workspace: Workspace):
    text = write_page(workspace, "smoke", [Executed("01_prepare_data")]).read_text()
    assert "notebook 07_tables makes them" in text
    assert "notebook 08_figures makes them" in text
    assert "<dd>" not in text


def test_page_counts_no_people_where_the_set_names_none(workspace: Workspace):
    faces = pd.DataFrame({"identity": ["a.jpg", "b.jpg", "c.jpg"], "split": ["train", "train", "test"]})
    faces.to_parquet(workspace.folder("faces") / "faces.parquet")
    text = write_page(workspace, "demo", [Executed("01_prepare_data")]).read_text()
    assert "faces no two known to be of one person" in text
    assert "identities" not in text.split("<h2")[0]
