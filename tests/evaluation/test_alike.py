"""The ablation changes one thing: what else the two trainings differ in is said before the one, and below the tables."""

import os
import re
import shutil
import warnings
from dataclasses import replace

import pytest

import ageflow
from ageflow.checkpoint import latest, save_checkpoint
from ageflow.evaluation.evaluate import evaluate_all
from ageflow.report.results import Results
from ageflow.report.summary import Measured, summarise
from ageflow.report.tables import make_table
from ageflow.run import Workspace
from ageflow.training.alike import differences, tell
from ageflow.training.ictm import train_translator
from tests.tiny import parameters

OF_ICTM = {"scale": 1.6, "iterations": 9, "cooldown": 4, "akd_weight": [20, 1, 1, 20]}


@pytest.fixture
def run(runs_root, tmp_path):
    """A copy of the tiny run, to change: of links, as a file is replaced and never written into."""
    shutil.copytree(runs_root, tmp_path / "runs", copy_function=os.link)
    return tmp_path / "runs"


def ablations(run, **more):
    given = {
        "evaluation_faces": 8,
        "cycle_faces": 4,
        "continuous_faces": 4,
        "strength_faces": 4,
        "methods": ["no_ictm", "ageflow"],
    }
    return ageflow.settings("ablations", parameters(run, **given | more))


def train_ictm(run, **more):
    train_translator(ageflow.settings("train_ictm", parameters(run, restart=True, **more)))


def below(run, number):
    settings = ageflow.settings("tables", parameters(run))
    notes = make_table(number, Results.open(Workspace.of(settings)), settings).notes
    return [note for note in notes if "not trained alike" in note]


def test_values_that_only_ictm_was_given_are_named_with_what_to_pass_and_no_more_once_it_is_passed(run):
    train_ictm(run, **OF_ICTM)
    before = latest(Workspace.of(ablations(run)).path("no_ictm")).path.stat().st_mtime_ns
    with pytest.warns(UserWarning, match="not trained alike") as kept:
        train_translator(ablations(run), "no_ictm")
    assert latest(Workspace.of(ablations(run)).path("no_ictm")).path.stat().st_mtime_ns == before, "it was reused"
    told = str(kept.pop().message)
    assert (
        "ICTM is not all that sets them apart: scale 1.6 and 2.5; akd_weight [20.0, 1.0, 1.0, 20.0] and 1.0; " in told
    )
    assert "iterations 9 and 8; cooldown 4 and 0. To" in told
    passed = "-p scale 1.6 -p akd_weight '[20.0, 1.0, 1.0, 20.0]' -p iterations 9 -p cooldown 4 -p restart True"
    assert f"pass {passed} to 06_ablations.ipynb (in a batch each with ablations. before its name, " in told
    assert "ablations.scale; a bare scale or akd_weight reaches 04 and 06 alike)" in told

    evaluate_all(ablations(run))
    assert below(run, 3) == below(run, 4) == below(run, 5) == below(run, 6) == [told]
    assert below(run, 1) == []
    summary = summarise([Measured(Workspace.of(ablations(run)))])
    assert f"demo/tiny: {told}" in summary.notes

    as_told = {name: value.strip("'") for name, value in re.findall(r"-p (\w+) ('.+?'|\S+)", passed)}
    as_told |= {name: float(value) for name, value in as_told.items() if name == "scale"}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "AgeFlow and")
        train_translator(ablations(run, **as_told), "no_ictm")
    evaluate_all(ablations(run, **as_told))
    assert below(run, 3) == []


def test_before_the_network_without_ictm_is_trained_at_all_the_warning_needs_no_restart(run):
    shutil.rmtree(Workspace.of(ablations(run)).path("no_ictm"))
    with pytest.warns(UserWarning, match=r"scale 2.5 and 1.5. To .*pass -p scale 2.5 to 06_ablations.ipynb"):
        train_translator(ablations(run, scale=1.5), "no_ictm")


def test_its_own_width_and_the_loss_that_it_cannot_have_are_no_difference(run):
    train_ictm(run, width=24, consistency_weight=0.5, consistency="literal")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "AgeFlow and")
        train_translator(ablations(run), "no_ictm")
    evaluate_all(ablations(run))
    assert below(run, 3) == []


def test_a_table_says_nothing_of_weights_that_were_trained_after_it_was_judged(run):
    evaluate_all(ablations(run))
    train_ictm(run, scale=1.6)
    assert below(run, 3) == []


@pytest.fixture
def trained(runs_root):
    workspace = Workspace.of(ablations(runs_root))
    return [latest(workspace.path(kind)) for kind in ("ictm", "no_ictm")]


def differing(trained, ictm, no_ictm):
    """What is said where the configs have these values besides."""
    changed = [replace(one, config=one.config | more) for one, more in zip(trained, (ictm, no_ictm), strict=True)]
    found = differences(*changed)
    return tell(found) if found else ""


def test_a_classifier_of_decoded_faces_in_one_of_the_two_is_told_by_its_parameter(trained):
    used = {"decoded_age": "c1", "attribute_weight": 1.0, "source_colours": True}
    told = differing(trained, {}, used)
    assert "apart: age_classifier latent and decoded. To" in told
    assert "pass -p age_classifier latent -p restart True to" in told
    told = differing(trained, used, {})
    assert "age_classifier decoded and latent; " in told or "; age_classifier decoded and latent" in told
    assert "-p attribute_weight 1.0" in told
    assert differing(trained, used, used) == ""
    told = differing(trained, used, used | {"decoded_age": "c2"})
    assert "apart: A was another classifier of decoded faces. To" in told
    assert "run 04_train_ictm.ipynb again, with -p restart True, then pass -p restart True to 06" in told


def test_each_may_begin_from_weights_of_its_own(trained):
    assert differing(trained, {"init_from": "a.safetensors"}, {"init_from": "b.safetensors"}) == ""
    told = differing(trained, {}, {"init_from": "b.safetensors"})
    assert "init_from nothing and b.safetensors" in told
    assert "-p init_from nothing" in told


def test_averages_that_were_made_anew_between_the_two_are_told_once(trained):
    told = differing(
        trained, {"averages_of": [1], "prototypes": {}}, {"averages_of": [2], "prototypes": {"counts": [3]}}
    )
    assert told.count("they learned from other averages") == 1


def test_what_an_earlier_version_did_not_note_is_no_difference(trained, tmp_path):
    ictm, no_ictm = trained
    old = {name: value for name, value in ictm.config.items() if name not in ("age_focus", "averages_of", "warmup")}
    tensors = {name: value for name, value in ictm.tensors("").items() if name != "counts.cooled"}
    save_checkpoint(tmp_path, ictm.iteration, tensors, old)
    assert differences(latest(tmp_path), no_ictm) == []
