"""Parameters as they come: from a notebook, from papermill's -p, from the batch's."""

import pytest
from papermill.cli import _resolve_type as from_papermill

import ageflow
from ageflow.config import STEPS, ParameterError, literal
from ageflow.train import TRAININGS, main


@pytest.mark.parametrize("passed", [from_papermill, literal])
@pytest.mark.parametrize(
    ("step", "name", "text", "value"),
    [
        ("prototypes", "attributes", "['gender', 'race']", ["gender", "race"]),
        ("prototypes", "attributes", "gender,race", ["gender", "race"]),
        ("prototypes", "attributes", "gender", ["gender"]),
        ("prototypes", "attributes", "[]", []),
        ("train_glow", "steps", "[4, 8, 16, 16]", [4, 8, 16, 16]),
        ("train_glow", "steps", "8", 8),
        ("train_ictm", "latent", "[1, 2]", [1, 2]),
        ("train_ictm", "latent", "top", "top"),
        ("train_ictm", "akd_weight", "[30, 2, 2, 30]", [30, 2, 2, 30]),
        ("train_ictm", "akd_weight", "20", 20),
        ("train_ictm", "source_mouth", "[False, True, True, False]", [False, True, True, False]),
        ("train_ictm", "source_mouth", "[True, True, True, True]", True),
        ("train_ictm", "source_mouth", "false", False),
        ("ablations", "methods", "glow,ageflow", ["glow", "ageflow"]),
        ("ablations", "methods", '["ageflow"]', ["ageflow"]),
        ("figures", "temperatures", "0.7", [0.7]),
        ("benchmarks", "many_steps", "(2, 4)", [2, 4]),
        ("tables", "run", "2024", "2024"),
    ],
)
def test_what_a_command_line_passes_is_taken_as_it_was_meant(passed, step, name, text, value):
    assert getattr(ageflow.settings(step, {name: passed(text)}), name) == value


@pytest.mark.parametrize("name", ["2024", "2024_06_01", "1.10", "1e5"])
def test_a_run_on_the_command_line_is_called_as_it_was_written(name, capsys):
    assert main(["train_glow", "--parameters", "-p", "run", name]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert line.split()[1] == name


@pytest.mark.parametrize("step", TRAININGS)
def test_the_command_line_lists_every_parameter_of_a_training_with_its_value(step, capsys):
    assert main([step, "--parameters", "-p", "seed", "41"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    fields = STEPS[step].model_fields
    assert list(lines) == list(fields)
    for name, line in lines.items():
        assert line.endswith(fields[name].description)
        assert str(getattr(ageflow.settings(step, {"seed": 41}), name)) in line


@pytest.mark.parametrize(
    ("step", "name", "text", "told"),
    [
        ("train_glow", "steps", "[4, many]", r"steps = '\[4, many\]'"),
        ("ablations", "methods", "glow,ageflw", "methods = 'ageflw'.*the methods to judge"),
        ("ablations", "methods", "[]", r"methods = \[\].*at least 1 item"),
        ("ablations", "methods", "glow,glow", "'glow' stands there twice"),
        ("prototypes", "attributes", "['gender', 'gender']", "attributes.*'gender' stands there twice"),
        ("train_ictm", "latent", "[1, 1]", "1 stands there twice"),
        ("train_ictm", "source_mouth", "[True, False]", "source_mouth.*a list of 4 of them"),
        ("tables", "run", "True", "run = True"),
        ("tables", "run", "1.10", "1.1 came as a number.*begin a name with a letter"),
    ],
)
def test_what_it_cannot_mean_is_told(step, name, text, told):
    with pytest.raises(ParameterError, match=told):
        ageflow.settings(step, {name: from_papermill(text)})


def test_celeba_is_the_papers_pre_training_and_the_other_sets_go_on_from_it():
    """3.1: a million iterations on CelebA, then 50,000 on each set."""
    assert ageflow.settings("train_glow", {"dataset": "celeba"}).iterations == 1_000_000
    assert ageflow.settings("train_glow", {"dataset": "morph"}).iterations == 50_000
    assert ageflow.settings("train_glow", {"dataset": "celeba", "preset": "smoke"}).iterations == 10
    assert ageflow.settings("train_glow", {"dataset": "celeba", "iterations": 7}).iterations == 7


@pytest.mark.parametrize("step", ["train_ictm", "ablations"])
def test_naming_the_presets_own_weights_changes_nothing(step):
    assert ageflow.settings(step, {"age_classifier_from": "pretrained"}) == ageflow.settings(step, {})
    assert ageflow.settings(step, {"age_classifier_from": "nothing"}).age_classifier_iterations is None


def test_a_folder_of_one_s_own_needs_no_genders():
    assert ageflow.settings("prototypes", {"dataset": "folder"}).attributes is None
    assert ageflow.settings("prototypes", {"dataset": "folder", "attributes": "race"}).attributes == ["race"]
