"""The judges: what they learn, what they are asked, and that none who is half trained passes for finished."""

import numpy as np
import pandas as pd
import pytest
import torch

from ageflow.checkpoint import CheckpointError, ConfigChangedError
from ageflow.data.faces import Faces
from ageflow.run import MANIFEST, files_state
from ageflow.training.classifier import ClassifierTask, held_out_accuracy, labelled, train_classifiers
from ageflow.training.metrics import read_metrics
from ageflow.translation.classifier import load_classifier
from tests.training.processes import interrupted_at, settings_of, with_faces


def judge(runs_root, run="judged", **values):
    quick = {"iterations": 1, "preview_every": 100, "checkpoint_every": 100}
    return settings_of("train_classifiers", runs_root, run, **quick | values)


def test_judges_learn_and_their_accuracy_is_that_of_the_saved_ones(tmp_path):
    workspace = with_faces(tmp_path, "judged")
    folders = train_classifiers(judge(tmp_path, iterations=25, ema=0.9))
    assert set(folders) == {"age", "gender"}
    seen = read_metrics(folders["gender"])["gender/accuracy"].dropna()
    assert len(seen) == 25
    assert seen.iloc[-10:].mean() > max(0.7, seen.iloc[:5].mean())

    faces = Faces.open(workspace.path("faces"))
    held_out = faces.table[faces.table["split"] == "test"]
    gender = load_classifier(folders["gender"])
    assert gender.labels == ("female", "male")
    guesses = gender(faces.images(held_out.index.to_numpy())).argmax(1)
    right = np.array(gender.labels)[guesses] == held_out["gender"].to_numpy()
    measured = held_out_accuracy(folders).loc["gender"]  # the last preview, of all held-out faces
    assert measured["accuracy"] == pytest.approx(right.mean())
    by_gender = [right[held_out["gender"] == value].mean() for value in gender.labels]
    assert measured["balanced_accuracy"] == pytest.approx(np.mean(by_gender))

    images = faces.images(slice(0, 4))
    torch.testing.assert_close(gender(images), gender(images / 255))


def test_a_label_that_no_training_face_has_is_not_asked_of_a_judge(tmp_path):
    file = with_faces(tmp_path, "judged").path("faces", "faces.parquet")
    table = pd.read_parquet(file)
    table["race"] = np.where(table["split"] == "test", "rare", np.where(table.index % 3 == 0, "one", "other"))
    table.to_parquet(file)
    labels, numbers = labelled(Faces.open(file.parent), "race")
    assert labels == ("one", "other")
    assert (numbers.numpy() == -1).tolist() == (table["split"] == "test").tolist()
    assert load_classifier(train_classifiers(judge(tmp_path))["race"]).labels == ("one", "other")
    table.loc[table["split"] == "train", "race"] = "one"
    table.to_parquet(file)
    trained = train_classifiers(judge(tmp_path, restart=True))
    assert set(trained) == {"age", "gender"}, "one value is nothing to tell apart"


def test_judges_pass_for_finished_while_and_only_while_all_are(tmp_path, monkeypatch):
    workspace = with_faces(tmp_path, "judged")
    trained = train_classifiers(judge(tmp_path, iterations=2))
    folder = workspace.path("classifiers")
    before = files_state(folder)
    for again in ({"iterations": 2}, {"iterations": 1}):  # they have what is asked for
        assert train_classifiers(judge(tmp_path, **again)) == trained
        assert files_state(folder) == before
    with pytest.raises(CheckpointError):
        train_classifiers(judge(tmp_path, init_from="typo/run", restart=True))
    with pytest.raises(ConfigChangedError, match="learning_rate: "):
        train_classifiers(judge(tmp_path, iterations=3, learning_rate=7e-4))
    assert files_state(folder) == before, "where values are refused, nothing that is there is touched"

    manifest = folder / MANIFEST
    whole = manifest.read_text()
    manifest.unlink()
    train_classifiers(judge(tmp_path, iterations=2))
    assert manifest.read_text() == whole
    interrupted_at(3, ClassifierTask, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_classifiers(judge(tmp_path, iterations=9))
    assert not workspace.has("classifiers")
