"""A training that is refused leaves what is there as it is, and is refused before anything long has begun."""

import json

import pytest

from ageflow.checkpoint import CheckpointError, ConfigChangedError, fingerprint, latest
from ageflow.config import ParameterError
from ageflow.run import Workspace
from ageflow.training.ictm import train_translator
from ageflow.training.judges import train_classifiers
from tests.tiny import encoded_run
from tests.training.processes import settings_of

UPDATES = 3  # of the classifier of decoded faces


def of_decoded(runs_root, step: str = "train_ictm", **values):
    given = {"age_classifier": "decoded", "age_classifier_iterations": UPDATES, "iterations": 2, **values}
    return settings_of(step, runs_root, "tiny", **given)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """What comes before notebook 04."""
    root = tmp_path_factory.mktemp("refused")
    encoded_run(root, iterations=2)
    return root


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"latent": [7]}, r"latent = \[7\]: expected"), ({"init_from": "nowhere"}, "nowhere")],
)
def test_t_s_values_are_refused_before_its_classifier_of_decoded_faces_is_trained(encoded, wrong, said):
    settings = of_decoded(encoded, **wrong)
    before = sorted(path.name for path in Workspace.of(settings).path().iterdir() if path.is_dir())
    assert "decoded_age" not in before
    with pytest.raises((ParameterError, CheckpointError), match=said):
        train_translator(settings)
    assert sorted(path.name for path in Workspace.of(settings).path().iterdir() if path.is_dir()) == before


@pytest.fixture(scope="module")
def trained(encoded):
    """With a T that learned from its own classifier of decoded faces."""
    train_translator(of_decoded(encoded))
    return encoded


def test_a_classifier_that_t_has_learned_from_is_trained_no_further(trained):
    workspace = Workspace.of(of_decoded(trained))
    learned_from = fingerprint(workspace.path("decoded_age"))
    assert latest(workspace.path("ictm")).config["decoded_age"] == learned_from
    with pytest.raises(ConfigChangedError, match=rf"stays as it is: pass age_classifier_iterations = {UPDATES}, name"):
        train_translator(of_decoded(trained, age_classifier_iterations=UPDATES + 2))
    more = {"age_classifier_iterations": UPDATES + 2, "age_classifier_learning_rate": 7e-4}
    with pytest.raises(ConfigChangedError, match=r"learning_rate: .*restart=True to train_ictm"):
        train_translator(of_decoded(trained, **more))
    assert fingerprint(workspace.path("decoded_age")) == learned_from

    with pytest.warns(UserWarning, match=f"has {UPDATES} updates and stays as it is"):
        no_ictm = train_translator(
            of_decoded(trained, "ablations", age_classifier_iterations=UPDATES + 2), kind="no_ictm"
        )
    assert latest(no_ictm).config["decoded_age"] == learned_from == fingerprint(workspace.path("decoded_age"))
    train_translator(of_decoded(trained, iterations=3))  # and T goes on
    assert latest(workspace.path("ictm")).iteration == 3


def test_finished_judges_stay_finished_where_other_values_are_refused(encoded):
    settings = settings_of("train_classifiers", encoded, "tiny", iterations=1)
    train_classifiers(settings)
    done = Workspace.of(settings).path("classifiers", "done.json")
    before = json.loads(done.read_text())
    with pytest.raises(ConfigChangedError, match="learning_rate: "):
        train_classifiers(settings_of("train_classifiers", encoded, "tiny", iterations=2, learning_rate=7e-4))
    assert json.loads(done.read_text()) == before
    assert Workspace.of(settings).require("classifiers")
