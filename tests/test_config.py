"""Parameters as they come: from a notebook, from papermill's -p, from the batch's."""

import pytest
from papermill.cli import _resolve_type as from_papermill

import ageflow
from ageflow.config import DATASETS, STEPS, ParameterError, TrainGlow, literal
from ageflow.parameters import DATASET_VALUES, PRESETS
from ageflow.train import main


@pytest.mark.parametrize("passed", [from_papermill, literal])
@pytest.mark.parametrize(
    ("step", "name", "text", "value"),
    [
        ("prototypes", "attributes", "['gender', 'race']", ["gender", "race"]),
        ("prototypes", "attributes", "gender,race", ["gender", "race"]),
        ("train_glow", "steps", "[4, 8, 16, 16]", [4, 8, 16, 16]),
        ("train_ictm", "latent", "top", "top"),
        ("ablations", "methods", "glow,ageflow", ["glow", "ageflow"]),
        ("figures", "temperatures", "0.7", [0.7]),
    ],
)
def test_what_a_command_line_passes_is_taken_as_it_was_meant(passed, step, name, text, value):
    assert getattr(ageflow.settings(step, {name: passed(text)}), name) == value


@pytest.mark.parametrize("name", ["2024", "2024_06_01", "007", "1.10", "1e5"])
def test_a_run_on_the_command_line_is_called_as_it_was_written(name, capsys):
    assert main(["train_glow", "--parameters", "-p", "run", name]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert line.split()[1] == name


@pytest.mark.parametrize(
    ("step", "name", "text", "message"),
    [
        ("train_glow", "steps", "[4, many]", r"steps = '\[4, many\]'"),
        ("ablations", "methods", "glow,ageflw", "methods = 'ageflw'.*the methods to judge"),
        ("ablations", "methods", "[]", r"methods = \[\].*at least 1 item"),
        ("train_ictm", "latent", "[1, 1]", "duplicate value 1"),
        ("train_ictm", "consistency", "sources", "consistency = 'sources': .*did you mean 'source'"),
        ("tables", "run", "1.10", "1.1 came as a number.*papermill's -r in place of -p"),
        ("tables", "run", "2024_06_01", "20240601 came as a number, and how it was written is lost"),
        ("tables", "run", "007", "7 came as a number"),
    ],
)
def test_what_it_cannot_mean_is_refused(step, name, text, message):
    with pytest.raises(ParameterError, match=message):
        ageflow.settings(step, {name: from_papermill(text)})


def test_naming_the_presets_own_weights_changes_nothing():
    assert ageflow.settings("train_ictm", {"age_classifier_from": "pretrained"}) == ageflow.settings("train_ictm", {})
    assert ageflow.settings("train_ictm", {"age_classifier_from": "nothing"}).age_classifier_iterations is None


def test_what_is_for_a_classifier_of_decoded_faces_is_refused_without_one():
    with pytest.raises(ParameterError, match=r"attribute_weight = 2\.0 is for .* pass age_classifier = decoded"):
        ageflow.settings("train_ictm", {"age_classifier": "latent", "attribute_weight": 2})
    with pytest.raises(ParameterError, match=r"cycle_weight = 1\.0 takes .* pass condition = source_aware"):
        ageflow.settings("train_ictm", {"condition": "target", "cycle_weight": 1})
    chosen = ageflow.settings("train_ictm", {"age_classifier": "latent"})
    assert (chosen.attribute_weight, chosen.condition) == (0, "target"), "the preset's are not meant"


def test_every_value_of_the_presets_is_a_parameter():
    """A misspelt name in presets.toml would be passed over, as a preset holds values for several steps."""
    steps = {"training": TrainGlow, **STEPS}
    for preset, parts in PRESETS.items():
        for step, values in parts.items():
            assert values.keys() <= steps[step].model_fields.keys(), f"{preset}.{step}"
    known = {name for step in STEPS.values() for name in step.model_fields}
    for dataset, values in DATASET_VALUES.items():
        assert dataset in DATASETS
        assert {name for name in values if name not in PRESETS} <= known
