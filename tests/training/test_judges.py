"""The judges, trained on real faces at smoke size."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ageflow.checkpoint import CheckpointError
from ageflow.data.faces import Faces
from ageflow.run import Workspace, files_state
from ageflow.training import classifier as classifier_module
from ageflow.training.classifier import load_classifier
from ageflow.training.judges import ClassifierTask, held_out_accuracy, labelled, train_classifiers
from ageflow.training.metrics import read_metrics
from tests.training.processes import interrupted_at, settings_of, with_faces


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory, demo_faces_folder):
    """A folder of runs, one of which has the prepared faces."""
    root = tmp_path_factory.mktemp("runs")
    (root / "demo" / "whole").mkdir(parents=True)
    (root / "demo" / "whole" / "faces").symlink_to(demo_faces_folder)
    return root


def test_judges_learn_and_say_how_well(runs_root, monkeypatch):
    """They learn their 78 training faces, mirrored and shifted anew in every batch; what they say of the held-out
    ones is what the saved judge does. (How much 78 faces teach about 18 others is luck: 0.3 to 0.8, by iteration.)
    """
    folders = train_classifiers(settings_of("train_classifiers", runs_root, iterations=40, ema=0.9))
    assert set(folders) == {"age", "gender"}
    seen = read_metrics(folders["gender"])["gender/accuracy"].dropna()
    assert len(seen) == 40
    assert seen.iloc[-15:].mean() > max(0.7, seen.iloc[:5].mean())

    faces = Faces.open(runs_root / "demo" / "whole" / "faces")
    held_out = faces.table[(faces.table["split"] == "test") & faces.table["gender"].notna()]
    judge = load_classifier(folders["gender"])
    guesses = judge(faces.images(held_out.index.to_numpy())).argmax(1)
    right = np.array([judge.labels[guess] for guess in guesses.tolist()]) == held_out["gender"].to_numpy()
    said = held_out_accuracy(folders).loc["gender"]  # the last preview, of all held-out faces
    assert said["accuracy"] == pytest.approx(right.mean())
    by_gender = [right[held_out["gender"] == gender].mean() for gender in ("female", "male")]
    assert said["balanced_accuracy"] == pytest.approx(np.mean(by_gender))
    classifier = load_classifier(folders["gender"])
    assert classifier.labels == ("female", "male")
    monkeypatch.setattr(classifier_module, "_PREVIEW_FACES", 5)
    task = ClassifierTask(settings_of("train_classifiers", runs_root, iterations=40), faces, "gender")
    own = nn.ModuleDict({"classifier": judge})
    assert task.preview(own, runs_root, 40)["test/accuracy"] == pytest.approx(right.mean())
    some = right[:: -(-len(right) // 5)]
    assert task.preview(own, runs_root, 20)["test/accuracy"] == pytest.approx(some.mean()), "on the way, of some"
    images = Faces.open(runs_root / "demo" / "whole" / "faces").images(slice(0, 4))
    torch.testing.assert_close(classifier(images), classifier(images / 255))


def test_a_label_that_no_training_face_has_is_not_asked_of_a_judge(runs_root):
    with_faces(runs_root, "rare")
    file = runs_root / "demo" / "rare" / "faces" / "faces.parquet"
    table = pd.read_parquet(file)
    table["race"] = np.where(table["split"] == "test", "rare", np.where(table.index % 3 == 0, "one", "other"))
    table.to_parquet(file)
    labels, numbers = labelled(Faces.open(file.parent), "race")
    assert labels == ("one", "other")
    assert (numbers.numpy() == -1).tolist() == (table["split"] == "test").tolist()
    quick = {"run": "rare", "iterations": 1, "preview_every": 1, "checkpoint_every": 1}
    folders = train_classifiers(settings_of("train_classifiers", runs_root, **quick))
    assert load_classifier(folders["race"]).labels == ("one", "other")

    table.loc[table["split"] == "train", "race"] = "one"
    table.to_parquet(file)
    again = settings_of("train_classifiers", runs_root, **quick, restart=True)
    assert set(train_classifiers(again)) == {"age", "gender"}, "one value is nothing to tell apart"


def test_judges_that_are_half_trained_do_not_pass_for_finished(runs_root, monkeypatch):
    quick = {"run": "judges", "iterations": 2, "preview_every": 2, "checkpoint_every": 2}
    (runs_root / "demo" / "judges").mkdir()
    (runs_root / "demo" / "judges" / "faces").symlink_to(runs_root / "demo" / "whole" / "faces")
    train_classifiers(settings_of("train_classifiers", runs_root, **quick))
    workspace = Workspace(runs_root, "demo", "judges")
    train_classifiers(settings_of("train_classifiers", runs_root, **quick | {"iterations": 1}))
    assert workspace.has("classifiers"), "they have what was asked for"
    with pytest.raises(CheckpointError):
        train_classifiers(settings_of("train_classifiers", runs_root, **quick, init_from="typo/run", restart=True))
    assert workspace.has("classifiers"), "mistyped, nothing that is there is touched"
    interrupted_at(3, ClassifierTask, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_classifiers(settings_of("train_classifiers", runs_root, **quick | {"iterations": 9}))
    assert not workspace.has("classifiers")


def test_opening_the_judges_again_changes_nothing_of_them(demo_faces_folder, tmp_path):
    (tmp_path / "demo" / "judged").mkdir(parents=True)
    (tmp_path / "demo" / "judged" / "faces").symlink_to(demo_faces_folder)
    trained = train_classifiers(settings_of("train_classifiers", tmp_path, "judged", iterations=1))
    folder = trained["age"].parent
    before = files_state(folder)
    assert train_classifiers(settings_of("train_classifiers", tmp_path, "judged", iterations=1)) == trained
    assert files_state(folder) == before
    (folder / "done.json").write_text("[]")  # of faces that told less
    train_classifiers(settings_of("train_classifiers", tmp_path, "judged", iterations=1))
    assert json.loads((folder / "done.json").read_text()) == ["age", "gender"]
