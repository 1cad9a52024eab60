"""Runs with other age groups than the paper's: two and seven of them, through every step after the faces are prepared."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.checkpoint import PRETRAINED, CheckpointError, latest, read_weights
from ageflow.config import ParameterError
from ageflow.data.faces import Faces
from ageflow.data.prepare import prepare
from ageflow.data.records import PAPER_GROUPS, AgeGroups
from ageflow.evaluation.evaluate import Evaluation
from ageflow.evaluation.methods import load_method
from ageflow.report.figures import FIGURES, RunFigures
from ageflow.report.page import write_page
from ageflow.report.summary import summarise
from ageflow.report.tables import make_tables
from ageflow.run import Workspace
from ageflow.slider import AgeSlider
from ageflow.training.classifier import _regrouped
from ageflow.training.ictm import train_translator
from ageflow.translation.methods import METHODS
from tests.conftest import ROOT
from tests.evaluation.conftest import settings_of as evaluation_settings
from tests.tiny import parameters, tiny_run

SEVEN = AgeGroups((12, 19, 29, 39, 49, 59))


@pytest.fixture(scope="module", params=[AgeGroups((40,)), SEVEN], ids=["two", "seven"])
def run(request, tmp_path_factory):
    """A folder of runs with the tiny run in some groups, judged; and the groups."""
    runs_root = tiny_run(tmp_path_factory.mktemp("groups"), request.param)
    Evaluation(evaluation_settings(runs_root)).judge_all()
    return runs_root, request.param


def test_the_papers_groups_have_the_papers_numbers():
    assert PAPER_GROUPS.labels == ("30-", "31-40", "41-50", "51+")
    assert PAPER_GROUPS.centres == (25.0, 35.5, 45.5, 57.0)
    assert PAPER_GROUPS.aims == (26.0, 36.5, 46.5, 55.0)
    assert PAPER_GROUPS.stops == tuple(range(20, 71, 5))


@pytest.mark.parametrize("bounds", [(1,), (40,), (1, 2), (2, 6, 9, 14, 19, 29, 39, 49, 69), SEVEN.bounds])
def test_every_age_has_the_group_that_its_label_says(bounds):
    groups = AgeGroups(bounds)
    assert groups.of(bounds).tolist() == [*range(len(bounds))]
    assert groups.of(np.array(bounds) + 1).tolist() == [*range(1, len(groups))]
    assert AgeGroups.of_labels(groups.labels) == groups
    assert (groups.of(groups.centres) == range(len(groups))).all()
    assert (np.diff(groups.aims) > 0).all()
    assert groups.stops[0] <= groups.centres[0] < groups.centres[-1] <= groups.stops[-1]


@pytest.mark.parametrize(
    ("groups", "words"),
    {
        "[50, 40]": "rising years, such as .40, 50.",
        "[30, 30]": "rising years",
        "[]": "at least 1 item",
        str([*range(10, 20)]): "at most 9 items",
        "[-3, 30]": "groups = -3: .*greater than or equal to 1",
        "[30, 130]": "groups = 130: .*less than 120",
        "[29.5]": "groups = 29.5: .*valid integer",
        "young": "groups = 'young': .*valid integer",
    }.items(),
)
def test_groups_that_are_none_are_refused(groups, words):
    with pytest.raises(ParameterError, match=words):
        ageflow.settings("prepare_data", {"groups": groups})


def test_prepared_faces_keep_their_groups(smoke_workspace: Workspace):
    given = {"preset": "smoke", "runs_root": smoke_workspace.runs_root, "groups": "[12, 40]"}
    with pytest.raises(ParameterError, match=r"groups: \[30, 40, 50\] → \[12, 40\]\. Name another run"):
        prepare(ageflow.settings("prepare_data", given))


def test_averages_networks_methods_and_judges_have_the_groups(run):
    runs_root, groups = run
    faces = Faces.open(runs_root / "demo/tiny/faces")
    assert faces.age_groups == faces.select(split="test").age_groups == groups
    for name in METHODS:
        method = load_method(name, "demo", "tiny", runs_root, "cpu")
        assert method.age_groups == groups
        made = method.translate(faces.images([0]), len(groups) - 1, torch.tensor([0]), {"gender": ["female"]})
        assert made.isfinite().all()
    assert latest(runs_root / "demo/tiny/classifiers/age").networks["classifier"]["labels"] == [*groups.labels]


def test_tables_figures_and_summary_have_the_groups(run, tmp_path):
    runs_root, groups = run
    given = parameters(runs_root)
    tables = make_tables(ageflow.settings("tables", given))
    for table, first in zip(tables, (0, 1, 0, 1, 0, 0), strict=True):
        assert [column for column in table.text.columns if column != "mean"] == [*groups.labels[first:]]
        assert not table.numbers["source"].str.startswith("paper").any()
        assert any("The paper's rows are left out" in note for note in table.notes) == (table.number <= 4)
    assert tables[1].title.endswith(f"when faces of {groups.labels[0]} are aged")
    drawn, workspace = RunFigures(ageflow.settings("figures", given)), Workspace(runs_root, "demo", "tiny")
    figures = {name: getattr(drawn, name)() for name in FIGURES}
    titles = [axes.get_title() for axes in figures["figure_4"].axes[: len(groups)]]
    assert titles == [*groups.labels]
    assert [name for name, figure in figures.items() if isinstance(figure, str)] == ["figure_5", "figure_a1"]
    assert f"when faces of {groups.labels[0]} are aged" in write_page(workspace, "smoke", []).read_text()
    summarise([(workspace, "")], tmp_path)
    assert {*groups.labels, "mean"} == {*pd.read_csv(tmp_path / "summary.csv")["group"]}


def test_the_sliders_range_and_strip_follow_the_groups(run):
    runs_root, groups = run
    slider = AgeSlider(ageflow.settings("age_slider", parameters(runs_root)))
    assert slider.wait()
    assert not slider.problem
    of, (youngest, *_, oldest) = slider.controls, groups.stops
    assert (of.age.min, of.age.max, of.age.value) == (youngest, oldest, min(60, oldest))
    assert [place.children[1].value for place in of.groups.children] == [*groups.labels]
    with pytest.raises(ParameterError, match=f"age = {oldest + 1:g}: expected {youngest:g} to {oldest:g} years"):
        slider.explorer.check_ages([oldest + 1])


def test_weights_of_other_groups_are_refused_or_brought_to_these(run, encoded):
    runs_root, groups = run
    begin = {"init_from": str(runs_root / "demo/tiny"), "iterations": 2, "restart": True}
    with pytest.raises(CheckpointError, match=r"groups = .*, not 4, bounds = "):
        train_translator(ageflow.settings("train_ictm", parameters(encoded) | begin))
    weights = read_weights(PRETRAINED / "judge.safetensors")
    with pytest.raises(CheckpointError, match=r"age groups 30-, .* apart, and the run has .*from = nothing"):
        _regrouped(weights, groups, 0)
    seen = [-((37 - np.array(of.centres)) ** 2) / 50 for of in (PAPER_GROUPS, groups)]  # an age of 37, by either
    weights.state["network.fc.bias"][:4] = torch.from_numpy(seen[0])
    with pytest.warns(UserWarning, match="brought to these"):
        found = _regrouped(weights, groups, 8)
    assert found.config["labels"] == [*groups.labels]
    assert found.state["network.fc.bias"][: len(groups)].numpy() == pytest.approx(seen[1], rel=1e-4, abs=1e-3)


@pytest.mark.benchmark  # the same in this process, above, takes a third of the time
def test_the_notebooks_run_from_one_to_eight_with_seven_groups(tmp_path):
    bounds = [24, 30, 36, 42, 48, 54]  # each has some of the preset's 96 faces
    command = [sys.executable, "-m", "ageflow.batch", "--preset", "smoke", "--runs-root", str(tmp_path)]
    command += ["-p", "groups", str(bounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run, labels = tmp_path / "demo/smoke", AgeGroups(tuple(bounds)).labels
    assert {*Faces.open(run / "faces").groups} == {*range(7)}
    assert all(f"| {label} |" in (run / "faces/data.md").read_text() for label in labels)
    assert [*labels, "mean"] == [*pd.read_csv(run / "tables/table5.csv")["group"].unique()]
    assert (run / "report/index.html").is_file()
