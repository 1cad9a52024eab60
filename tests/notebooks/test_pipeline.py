"""All the notebooks at smoke size through papermill, once, and what each of them must leave behind."""

import re
import subprocess
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import ageflow
from ageflow.batch.run import NOTEBOOKS
from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS
from ageflow.evaluation.methods import load_method
from ageflow.flows.glow import load_glow, to_uint8
from ageflow.run import files_state
from ageflow.training.metrics import read_metrics
from ageflow.translation.classifier import load_classifier
from ageflow.translation.methods import METHODS
from ageflow.translation.prototypes import Latents, Prototypes
from tests.conftest import ROOT, Run


@pytest.fixture(scope="module")
def faces(smoke_run: Run) -> Faces:
    return Faces.open(smoke_run.workspace.path("faces"))


def test_01_faces_are_prepared_and_accounted_for(smoke_run: Run, faces: Faces):
    wanted = ageflow.settings("prepare_data", {"preset": "smoke"})
    folder = smoke_run.workspace.path("faces")
    assert faces.images(slice(None)).shape == (len(faces), 3, wanted.image_size, wanted.image_size)
    assert faces.images(slice(None)).float().std() > 20, "faces are not flat pictures"
    assert set(pd.read_csv(folder / "rejected.csv").columns) >= {"file", "row", "reason"}
    assert abs(len(faces) - wanted.faces) <= wanted.faces // 10
    assert {*faces.groups} == {0, 1, 2, 3}
    assert (folder / "data.md").read_text().strip()


def test_02_glow_learns_and_gives_faces_back(smoke_run: Run, faces: Faces):
    folder = smoke_run.workspace.path("glow")
    metrics = read_metrics(folder)
    assert metrics["iteration"].max() == 10
    held_out = metrics["test/bits_per_dim"].dropna()
    assert 0 < held_out.iloc[-1] < min(12, held_out.iloc[0] + 0.5)
    images, glow = faces.images([0, 1, 2]), load_glow(folder, "cpu")
    assert torch.equal(to_uint8(glow.decode(glow.encode(images))), images)


def test_03_prototypes_are_the_averages_of_the_latents(smoke_run: Run, faces: Faces):
    workspace = smoke_run.workspace
    latents = Latents.open(workspace.path("latents"), faces)
    glow = load_glow(workspace.path("glow"), "cpu")
    torch.testing.assert_close(
        latents.batch([4]), glow.encode(faces.images([4])), atol=3e-3, rtol=0
    )  # in half precision
    prototypes = Prototypes.load(workspace.path("prototypes"))
    assert prototypes.attributes == ("gender",)
    for group in range(len(PAPER_GROUPS)):
        mean = latents.batch(latents.rows(split="train", group=group)).mean(0)
        torch.testing.assert_close(prototypes.means[group, prototypes.any], mean, atol=1e-4, rtol=1e-4)


def test_04_ictm_is_trained_and_inverts(smoke_run: Run, faces: Faces):
    workspace = smoke_run.workspace
    assert read_metrics(workspace.path("ictm"))["iteration"].max() == 8
    method = load_method("ageflow", "demo", "smoke", workspace.runs_root, "cpu")
    images, target = faces.images([0, 1]), torch.tensor([0, 3])
    z, own = method.glow.encode(images), method.own_ages(images)
    assert float((method.move(z, target, own, None) - z).abs().max()) > 1e-4, "a trained translator is not the identity"
    torch.testing.assert_close(method.round_trip(z, target, own, None), z, atol=1e-4, rtol=1e-4)


def test_05_classifiers_judge_age_and_gender(smoke_run: Run, faces: Faces):
    folder = smoke_run.workspace.path("classifiers")
    for name, labels in (("age", PAPER_GROUPS.labels), ("gender", ("female", "male"))):
        classifier = load_classifier(folder / name, "cpu")
        assert classifier.labels == labels
        logits = classifier(faces.images([0, 1]))
        assert (logits.shape, logits.isfinite().all()) == ((2, len(labels)), True)
        assert read_metrics(folder / name)["iteration"].max() == 6


def test_06_every_method_is_judged_on_the_same_faces_in_the_other_groups(smoke_run: Run, faces: Faces):
    folder = smoke_run.workspace.path("evaluation")
    judged = {method: pd.read_parquet(folder / f"{method}.parquet") for method in METHODS}
    groups = faces.table.set_index("face")["group"]
    held_out = set(faces.select(split="test").table["face"])
    for rows in judged.values():
        assert set(rows["face"]) == set(judged["glow"]["face"]) <= held_out
        assert (rows["source"] == groups.loc[rows["face"]].to_numpy()).all()
        targets = rows.groupby("face")["target"].agg(set)
        assert all({*targets[face], groups[face]} == {0, 1, 2, 3} for face in targets.index)
        assert len(rows) == 3 * rows["face"].nunique()
        assert rows["cosine"].between(-1, 1).all()
    assert not np.allclose(judged["ageflow"]["cosine"], judged["no_ictm"]["cosine"])


def test_06_what_the_paper_lacks_is_measured_for_every_method_once(smoke_run: Run):
    folder = smoke_run.workspace.path("evaluation")
    cycles, ages = (pd.read_parquet(folder / f"{name}.parquet") for name in ("cycle", "continuous"))
    assert set(cycles["method"]) == set(ages["method"]) == set(METHODS)
    assert not cycles.duplicated(["method", "face", "target"]).any()
    assert not ages.duplicated(["method", "face", "target_age"]).any()
    inverse = cycles.groupby("method")["inverse_error"].max()
    assert inverse.drop("no_ictm").max() < 1e-3
    assert np.isnan(inverse["no_ictm"])
    assert ages["predicted_age"].between(20, 70).all()


def test_07_tables_hold_the_papers_numbers_and_this_runs(smoke_run: Run):
    folder = smoke_run.workspace.path("tables")
    rows = pd.read_parquet(smoke_run.workspace.path("evaluation", "ageflow.parquet"))
    for number in range(1, 7):
        table = pd.read_csv(folder / f"table{number}.csv")
        assert (table["run"].str.contains("smoke")).all(), "a number whose run cannot be named"
        assert table[table["source"].str.startswith("this run")]["value"].notna().any()
        assert (folder / f"table{number}.tex").stat().st_size > 500
        assert "trained again" not in (folder / f"table{number}.md").read_text(), "nothing was, since it was judged"
    table = pd.read_csv(folder / "table1.csv")
    paper = table[(table["source"] == "paper, MORPH, as published") & (table["method"] == "AgeFlow")]
    assert paper[paper["metric"] == "age_accuracy"]["value"].tolist() == [87.19, 91.85, 90.68, 90.71]
    ours = table[table["source"].str.startswith("this run") & (table["metric"] == "cosine")].set_index("group")["value"]
    means = rows.groupby("target")["cosine"].mean().tolist()
    assert ours[[*PAPER_GROUPS.labels]].tolist() == pytest.approx(means, abs=1e-3)


def test_08_figures_are_drawn(smoke_run: Run):
    drawn = (
        "figure_1_top",
        "figure_1_bottom",
        "figure_4",
        "figure_6",
        "figure_sheet",
        "figure_a2",
        "figure_ages",
        "figure_trade_off",
    )
    for name in (*drawn, "training_glow", "training_ictm"):
        picture = np.array(Image.open(smoke_run.workspace.path("figures", f"{name}.png")).convert("RGB"))
        assert min(picture.shape[:2]) >= 100, name
        assert picture.std() > 5, f"{name} is blank"


def test_the_report_holds_all_of_it(smoke_run: Run):
    page = smoke_run.workspace.path("report", "index.html")
    text = page.read_text()
    for shown in (*(f"Table {number}" for number in range(1, 5)), "Figure 1", "Figure 4", "Figure 6", "Figure A.2"):
        assert shown in text
    for notebook in NOTEBOOKS:
        assert f'href="notebooks/{notebook}.html"' in text
        assert (page.parent / "notebooks" / f"{notebook}.html").stat().st_size > 10_000


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_executed_copy_shows_something_and_warns_of_nothing(smoke_run: Run, notebook: str):
    copy = nbformat.read(smoke_run.workspace.path("notebooks", f"{notebook}.ipynb"), as_version=4)
    outputs = [output for cell in copy.cells for output in cell.get("outputs", [])]
    assert outputs
    assert "Warning" not in "".join(output.text for output in outputs if output.output_type == "stream")


def test_a_second_run_does_nothing_twice_and_ends_within_a_minute(smoke_run: Run):
    before = files_state(smoke_run.workspace.root)
    started = time.monotonic()
    again = subprocess.run(smoke_run.command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 60
    assert again.stdout.count("unchanged, skipped") == len(NOTEBOOKS)
    assert files_state(smoke_run.workspace.root) == before


def test_a_parameter_that_its_cell_leaves_out_is_known_and_a_misspelt_one_stops_it(papermill, tmp_path: Path):
    asked = ("-p", "data_root", "/data", "-p", "attribute_weight", "2", "-p", "datset", "demo", "-k", "python3")
    done = papermill("04_train_ictm.ipynb", str(tmp_path / "out.ipynb"), *asked)
    assert done.returncode != 0
    assert "ParameterError: unknown parameter 'datset': did you mean 'dataset'? (" in done.stderr


@pytest.mark.parametrize(("cwd", "prefix", "made"), [("notebooks", "", False), (".", "notebooks/", True)])
def test_one_notebook_works_as_it_stands_from_the_notebooks_folder_and_from_the_root(
    smoke_run: Run, papermill, tmp_path: Path, cwd: str, prefix: str, made: bool
):
    """Run first, it names the notebook to run before it."""
    out = tmp_path / "out.ipynb"
    runs_root = smoke_run.workspace.runs_root if made else tmp_path / "runs"
    manifest = smoke_run.workspace.path("ictm", "manifest.json")
    before = manifest.stat().st_mtime_ns
    asked = (f"{prefix}04_train_ictm.ipynb", str(out), "-p", "dataset", "demo", "-p", "preset", "smoke")
    done = papermill(*asked, cwd=ROOT / cwd, AGEFLOW_RUNS=str(runs_root))
    if made:
        assert done.returncode == 0, done.stderr
        assert manifest.stat().st_mtime_ns == before, "trained already: nothing to do"
        assert nbformat.read(out, as_version=4).cells[-1].outputs, "it ends with what it made"
    else:
        assert "MissingArtefactError" in done.stderr
        assert re.search(r"run (01_prepare_data|02_train_glow|03_prototypes)\.ipynb first", done.stderr)
