"""Evaluation of a whole run: what is judged, what is kept, and when it is judged again."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

import ageflow
from ageflow.config import ParameterError
from ageflow.data.faces import TABLE_FILE, Faces, shard_file
from ageflow.evaluation.evaluate import by_group, evaluate, evaluate_all, evaluate_real
from ageflow.evaluation.held_out import held_out_faces
from ageflow.evaluation.judged import NotJudgedError, read_judged
from ageflow.run import MissingArtefactError, Workspace
from tests.tiny import parameters, write_faces

METHODS = ["glow", "glow+attribute", "no_ictm", "ageflow"]


@pytest.fixture
def run(runs_root, tmp_path):
    """A copy of the tiny run, to change: of links, as a file is replaced and never written into."""
    shutil.copytree(runs_root, tmp_path / "runs", copy_function=os.link)
    return tmp_path / "runs"


def settings_of(run, **more):
    return ageflow.settings(
        "ablations", parameters(run, evaluation_faces=8, cycle_faces=4, continuous_faces=4, strength_faces=4) | more
    )


def written(settings):
    return {path.name: path.stat().st_mtime_ns for path in Workspace.of(settings).path("evaluation").iterdir()}


def test_all_methods_are_judged_once_and_not_twice(run):
    settings = settings_of(run)
    summary = evaluate_all(settings)
    assert summary.index.tolist() == ["real faces", *METHODS]
    rows = read_judged(Workspace.of(settings).path("evaluation/ageflow.parquet")).rows
    assert summary.loc["ageflow", "cosine"] == pytest.approx(rows["cosine"].mean(), abs=1e-4)
    assert summary.loc["ageflow", "age_accuracy"] == pytest.approx(
        100 * (rows["predicted"] == rows["target"]).mean(), abs=1e-4
    )
    before = written(settings)
    assert max(before, key=before.get) == "done.json"
    pd.testing.assert_frame_equal(evaluate_all(settings), summary)
    assert written(settings) == before


def test_a_method_is_judged_again_when_what_it_was_made_from_changes(run):
    settings = settings_of(run, methods=["glow", "ageflow"])
    evaluate_all(settings)
    before = written(settings)
    from ageflow.training.ictm import train_translator

    train_translator(ageflow.settings("train_ictm", parameters(run, iterations=9)))
    evaluate_all(settings)
    after = written(settings)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"ageflow.parquet", "cycle.parquet", "continuous.parquet", "strength.parquet", "done.json"}


def test_everything_is_judged_again_with_other_faces_chosen(run):
    evaluate_all(settings_of(run, methods=["ageflow"]))
    settings = settings_of(run, methods=["ageflow"], evaluation_faces=4)
    evaluate_all(settings)
    judged = read_judged(Workspace.of(settings).path("evaluation/ageflow.parquet"))
    assert judged.about["faces"] == 4
    assert len(judged.rows) == 12
    assert read_judged(Workspace.of(settings).path("evaluation/real.parquet")).about["faces"] == 4


def test_an_evaluation_says_where_it_comes_from(run):
    settings = settings_of(run)
    evaluate(settings, "glow+attribute")
    about = read_judged(Workspace.of(settings).path("evaluation/glow+attribute.parquet")).about
    assert (about["dataset"], about["run"], about["preset"], about["embedder"]) == ("demo", "tiny", "smoke", "dlib")
    made_from = about["fingerprints"]
    assert {"faces", "glow", "prototypes", "classifiers/age", "classifiers/gender", "embedder"} <= set(made_from)


def test_only_held_out_faces_are_judged(run):
    settings = settings_of(run, evaluation_faces=10_000)
    rows = evaluate(settings, "glow")
    table = pd.read_parquet(Workspace.of(settings).path("faces/faces.parquet"))
    assert set(rows["face"]) == set(table.loc[table["split"] == "test", "face"])


def test_a_choice_of_faces_is_spread_over_the_groups_and_seeded(runs_root):
    faces, chosen = held_out_faces(settings_of(runs_root, evaluation_faces=8))
    assert np.bincount(faces.groups[chosen]).tolist() == [2, 2, 2, 2]
    assert (held_out_faces(settings_of(runs_root, evaluation_faces=8))[1] == chosen).all()
    assert (held_out_faces(settings_of(runs_root, evaluation_faces=8, seed=1))[1] != chosen).any()
    assert len(held_out_faces(settings_of(runs_root, evaluation_faces=10_000))[1]) == len(faces)


def test_summary_by_group_is_the_groups_own(runs_root):
    real = evaluate_real(settings_of(runs_root, evaluation_faces=10_000))
    summary = by_group(real.rows)
    assert summary.index.tolist() == ["30-", "31-40", "41-50", "51+"]
    first = real.rows[real.rows["target"] == 0]
    assert summary.loc["30-", "faces"] == len(first) == 6
    assert summary.loc["30-", "age_accuracy"] == pytest.approx(100 * (first["predicted"] == 0).mean(), abs=1e-3)
    expected = 100 * (first["gender"] == first["gender_predicted"]).mean()
    assert summary.loc["30-", "gender"] == pytest.approx(expected, abs=1e-3)


def other_faces(run, **columns):
    """Another set's run, ``morph/other``: the tiny faces again, some columns changed."""
    folder = Workspace(run, "morph", "other").path("faces")
    write_faces(folder)
    table = pd.read_parquet(folder / TABLE_FILE)
    table.assign(**{name: of(table) for name, of in columns.items()}).to_parquet(folder / TABLE_FILE)
    return Faces.open(folder)


def test_on_another_run_s_faces_it_judges_its_test_faces_of_people_new_to_this_run(run):
    """Of the other's first 18 people, all of them test people, 14 are in this run's training half."""
    other = other_faces(run, split=lambda table: np.where(table["identity"] < "person18", "test", "train"))
    settings = settings_of(run, evaluation_faces=None, external="morph/other", methods=["glow"])
    with pytest.warns(UserWarning, match="56 of its 72 test faces are of people that this run was trained on"):
        rows = evaluate(settings, "glow")
    assert set(rows["identity"]) == {"person00", "person05", "person10", "person15"}
    assert len(rows) == 4 * 4 * 3
    real = read_judged(Workspace.of(settings).path("evaluation/real.parquet"))
    assert (real.about["external"], real.about["identities"]) == ("morph/other", 4)
    assert real.about["fingerprints"]["faces"] == other.select(split="test").unseen_by(Faces.open(own(run))).fingerprint


def test_a_name_counts_within_its_own_set_and_the_demo_s_within_its_seed(run):
    mine = Faces.open(own(run))
    assert len(other_faces(run, source=lambda _: "another").unseen_by(mine)) == len(mine)
    assert len(other_faces(run).unseen_by(mine)) == len(mine.select(split="test"))
    drawn = other_faces(run, source=lambda _: "demo")
    for seed, left in ((0, 24), (3, 120)):
        Manifest(settings={"seed": seed}).write(drawn.folder)
        first = Faces(run / "nowhere", drawn.table)
        first.folder.mkdir(exist_ok=True)
        Manifest(settings={"seed": 0}).write(first.folder)
        assert len(drawn.unseen_by(first)) == left


@pytest.mark.parametrize(("identity", "left"), [("file", {"/data/a": 24, "/data/b": 120}), ("person", {"/data/b": 24})])
def test_a_picture_of_a_folder_that_names_nobody_is_of_nobody_in_another_folder(run, identity, left):
    """Where names are given they count; where they are not, 1.jpg of two folders are two people."""
    mine = other_faces(run, source=lambda _: "folder")
    if identity == "file":
        mine.table["identity"] = mine.table["file"]
    for root, count in left.items():
        theirs = Faces(run / "another folder", mine.table)
        theirs.folder.mkdir(exist_ok=True)
        Manifest(settings={"data_root": root}).write(theirs.folder)
        Manifest(settings={"data_root": "/data/a"}).write(mine.folder)
        assert len(theirs.unseen_by(mine)) == count


def own(run):
    return run / "demo/tiny/faces"


def test_other_faces_that_cannot_be_judged_are_refused_by_name(run):
    with pytest.raises(ParameterError, match=r"external = 'morph/nobody' is no prepared run.*01_prepare_data"):
        evaluate(settings_of(run, external="morph/nobody"), "glow")
    other_faces(run, split=lambda table: np.where(table["identity"] == "person01", "test", "train"))
    with pytest.raises(NotJudgedError, match=r"external = 'morph/other': its 4 test faces are all of people"):
        evaluate(settings_of(run, external="morph/other"), "glow")
    folder = other_faces(run).folder
    np.save(shard_file(folder, 0), np.load(shard_file(folder, 0))[:, ::2, ::2])
    with pytest.raises(ParameterError, match=r"faces of 16 pixels, and this run's have 32.*image_size = 32"):
        evaluate(settings_of(run, external="morph/other"), "glow")


def test_without_test_faces_the_error_says_what_to_do(run):
    path = run / "demo/tiny/faces/faces.parquet"
    table = pd.read_parquet(path).assign(split="train")
    path.unlink()
    table.to_parquet(path)
    with pytest.raises(NotJudgedError, match="has no test faces: it has one identity"):
        evaluate_all(settings_of(run))


@pytest.mark.parametrize(("part", "notebook"), [("ictm", "04_train_ictm"), ("classifiers", "05_train_classifiers")])
def test_without_an_earlier_step_the_error_names_its_notebook(run, part, notebook):
    shutil.rmtree(run / "demo/tiny" / part)
    with pytest.raises(MissingArtefactError, match=notebook):
        evaluate_all(settings_of(run))
    assert not (run / "demo/tiny/evaluation/done.json").exists()


def test_a_stopped_evaluation_goes_on_with_the_methods_that_are_left(run):
    settings = settings_of(run, methods=["glow", "ageflow"])
    evaluate(settings, "glow")
    before = written(settings)
    evaluate_all(settings)
    after = written(settings)
    assert {name: after[name] for name in before} == before
    assert json.loads(Workspace.of(settings).path("evaluation/done.json").read_text())["methods"] == ["glow", "ageflow"]
