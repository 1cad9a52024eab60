"""Evaluation of a whole run: which faces, what is kept, when it is judged again, and that it continues where it stopped."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import ageflow
from ageflow.config import METHODS as NAMES
from ageflow.config import ParameterError
from ageflow.data.faces import TABLE_FILE, Faces, shard_file
from ageflow.evaluation.evaluate import GATHERED, Evaluation, write_judged
from ageflow.evaluation.protocol import NotJudgedError, held_out_faces
from ageflow.run import Manifest, MissingArtefactError, Workspace
from ageflow.translation.methods import METHODS
from tests.evaluation.conftest import arcface_file, folder_of, read, settings_of, written
from tests.tiny import parameters, write_faces

# -- what is judged and kept -----------------------------------------------------------------------------------------


def test_all_methods_are_judged_once_and_not_twice(evaluated):
    run, summary = evaluated
    assert summary.index.tolist() == ["real faces", *NAMES]
    rows = read(run, "ageflow").rows
    assert summary.loc["ageflow", "cosine"] == pytest.approx(rows["cosine"].mean(), abs=1e-4)
    landed = 100 * (rows["predicted"] == rows["target"]).mean()
    assert summary.loc["ageflow", "age_accuracy"] == pytest.approx(landed, abs=1e-4)
    before = written(run)
    assert max(before, key=before.get) == "manifest.json"
    assert set(before) == {"manifest.json", *(f"{name}.parquet" for name in ("real", *NAMES, *GATHERED))}
    pd.testing.assert_frame_equal(Evaluation(settings_of(run)).judge_all(), summary)
    assert written(run) == before


def test_an_evaluation_says_where_it_comes_from(evaluated):
    about = read(evaluated[0], "glow+attribute").about
    names = {"dataset": "demo", "run": "tiny", "preset": "smoke", "embedder": "dlib", "faces": 8, "identities": 5}
    assert {name: about[name] for name in names} == names
    expected = {"faces", "glow", "prototypes", "scale", "classifiers/age", "classifiers/gender", "embedder", "features"}
    assert expected <= set(about["fingerprints"])


def test_only_held_out_faces_are_judged(evaluated):
    run, _ = evaluated
    table = pd.read_parquet(Workspace.of(settings_of(run)).path("faces/faces.parquet"))
    held_out = set(table.loc[table["split"] == "test", "face"])
    assert set(held_out_faces(settings_of(run, evaluation_faces=10_000)).table["face"]) == held_out
    chosen = held_out_faces(settings_of(run))
    assert np.bincount(chosen.groups).tolist() == [2, 2, 2, 2]
    for name in NAMES:
        rows = read(run, name).rows
        assert set(rows["face"]) == set(chosen.table["face"]) < held_out
        assert len(rows) == 3 * 8


def test_what_the_paper_lacks_is_measured_for_every_method_and_kept(evaluated):
    run, _ = evaluated
    before = written(run)
    found = Evaluation(settings_of(run)).beyond()
    assert written(run) == before
    ages, cycles = read(run, "continuous").rows, read(run, "cycle").rows
    assert set(ages["method"]) == set(NAMES)
    assert len(ages) == len(NAMES) * 4 * 11
    assert not ages.duplicated(["method", "face", "target_age"]).any()
    assert len(cycles) == len(NAMES) * 4 * 3
    own = cycles[cycles["method"] == "ageflow"]
    assert found.loc["AgeFlow", "inverse_error"] == pytest.approx(own["inverse_error"].mean())
    assert found.loc["AgeFlow", "cycle_error"] == pytest.approx(own["cycle_error"].mean())
    assert np.isnan(found.loc["AgeFlow w/o ICTM", "inverse_error"])
    kid = [row["kid"] for row in read(run, "ageflow").about["kid"]]
    assert found.loc["AgeFlow", "kid_face_api"] == pytest.approx(np.mean(kid))
    assert np.isfinite(found.loc["faces as they are", "kid_face_api"])


def test_every_method_is_judged_at_other_strengths_too(evaluated):
    run, _ = evaluated
    rows = read(run, "strength").rows
    assert rows.groupby(["method", "strength"]).size().tolist() == [4 * 3] * len(NAMES) * 2
    for name in NAMES:
        own, whole = rows[rows["method"] == name], read(run, name).rows
        as_it_is = own[own["strength"] == 1].drop(columns="strength")
        of_these = whole[whole["face"].isin(as_it_is["face"])]
        assert len(of_these) < len(whole)
        pd.testing.assert_frame_equal(as_it_is.reset_index(drop=True), of_these.reset_index(drop=True))
    found = Evaluation(settings_of(run)).strengths()
    assert found.index.tolist() == [(METHODS[name], strength) for name in METHODS for strength in (0.5, 1.0)]
    own = rows[(rows["method"] == "ageflow") & (rows["strength"] == 0.5)]
    by_target = own.groupby("target")["cosine_centred"].mean().mean()
    assert found.loc[("AgeFlow", 0.5), "cosine_centred"] == pytest.approx(by_target, abs=1e-3)


# -- what is judged again, and what not ------------------------------------------------------------------------------


def mark(run, name, **values):
    """Change numbers of judged rows, so that rows which are judged again are told from those that are kept."""
    judged = read(run, name)
    write_judged(folder_of(run), name, judged.rows.assign(**values), judged.about)


def marked(run, name, **values):
    ((column, value),) = values.items()
    rows = read(run, name).rows
    return rows, rows[column] == value


def test_a_method_is_judged_again_when_its_network_changes_and_no_other_method_is(judged):
    from ageflow.training.ictm import train_translator

    marks = {"cycle": {"cycle_error": -1.0}, "continuous": {"second_age": -1.0}, "strength": {"second_age": -1.0}}
    for name, value in marks.items():
        mark(judged, name, **value)
    before = written(judged)
    train_translator(ageflow.settings("train_ictm", parameters(judged, iterations=9)))
    Evaluation(settings_of(judged)).judge_all()
    after = written(judged)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"ageflow.parquet", *(f"{name}.parquet" for name in GATHERED), "manifest.json"}
    for name, value in marks.items():
        rows, kept = marked(judged, name, **value)
        assert kept.equals(rows["method"] != "ageflow")


def test_strengths_that_are_there_are_not_judged_again_and_the_centre_is_that_of_all_the_faces(judged):
    def strengths(*asked):
        Evaluation(settings_of(judged, methods=["ageflow"], strengths=list(asked))).judge_all()
        return marked(judged, "strength", second_age=123.0)

    mark(judged, "strength", second_age=123.0)
    rows, kept = strengths(0.5, 0.9999)
    assert sorted(rows["strength"].unique()) == [0.5, 0.9999, 1.0]
    assert kept.equals(rows["strength"] != 0.9999), "0.9999 alone is judged"
    # Nearly the method as it is, and centred on the mean of all eight, too; that of the four moves it by 0.05.
    cosines = rows.groupby("strength")["cosine_centred"].mean()
    assert cosines[0.9999] == pytest.approx(cosines[1.0], abs=0.01)
    before = written(judged)
    strengths(1.0, 0.9999, 0.5)
    assert written(judged) == before, "at 1 it is judged anyway"
    assert strengths()[0]["strength"].unique().tolist() == [1.0]


def test_everything_is_judged_again_with_other_faces_or_another_judge(judged, tmp_path):
    Evaluation(settings_of(judged, evaluation_faces=4)).judged("ageflow")
    assert len(read(judged, "ageflow").rows) == 12
    assert read(judged, "ageflow").about["faces"] == read(judged, "real").about["faces"] == 4
    embedder = str(arcface_file(tmp_path / "arcface.onnx", added=-0.6))  # the faces are of one brightness nearly
    Evaluation(settings_of(judged, evaluation_faces=4, embedder=embedder)).judged("ageflow")
    abouts = [read(judged, name).about for name in ("ageflow", "real")]
    assert [about["embedder"] for about in abouts] == ["ArcFace (arcface.onnx)"] * 2
    assert read(judged, "glow").about["embedder"] == "dlib"


def test_a_damaged_file_is_named_with_its_notebook_and_judged_anew(judged):
    rows, file = read(judged, "glow").rows, folder_of(judged) / "glow.parquet"
    file.unlink()  # it is a link
    file.write_bytes(b"PAR1, and no end")
    with pytest.raises(MissingArtefactError, match=r"glow.parquet is missing or damaged .*run 06_ablations.ipynb"):
        read(judged, "glow")
    pd.testing.assert_frame_equal(Evaluation(settings_of(judged)).judged("glow").rows, rows)


# -- stopped, and continued ------------------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch):
    """How often faces were looked at; a number in ``at`` stops the evaluation there."""
    counted = {"times": 0, "at": None}
    images = Faces.images

    def counting(self, index):
        if counted["times"] == counted["at"]:
            raise KeyboardInterrupt
        counted["times"] += 1
        return images(self, index)

    monkeypatch.setattr(Faces, "images", counting)
    return counted


KILLED = """
import os, signal
from pathlib import Path
from ageflow.data.faces import Faces
from ageflow.evaluation.evaluate import Evaluation
from tests.evaluation.conftest import settings_of
images, looks = Faces.images, []
def counting(self, index):
    looks.append(index)
    if len(looks) > {looks}:
        os.kill(os.getpid(), signal.SIGKILL)
    return images(self, index)
Faces.images = counting
Evaluation(settings_of(Path("{run}"))).judged("glow")
"""


def test_killed_and_stopped_again_and_again_it_comes_to_the_same_files_and_judges_nothing_twice(run, evaluated, looks):
    methods = ["glow", "ageflow"]
    # In batches of 5: the real faces; of each method its 24, its 12 there and back (looked at twice), its 4 at eleven
    # ages, its 12 at another strength.
    needed, stops = 2 + 2 * (5 + 2 * 3 + 9 + 3), 0
    looks["times"] = 5  # by the process that is killed: the real faces, and three batches of the method
    killed = subprocess.run([sys.executable, "-c", KILLED.format(looks=5, run=run)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list((folder_of(run) / "glow.parts").glob("*.json"))) == 3
    while stops < needed:
        looks["at"] = looks["times"] + 11
        try:
            summary = Evaluation(settings_of(run, methods=methods)).judge_all()
            break
        except KeyboardInterrupt:
            stops += 1
            assert not (folder_of(run) / "manifest.json").exists()
    assert stops >= 3
    # A stop may fall between the two looks there and back.
    assert needed <= looks["times"] <= needed + stops
    pd.testing.assert_frame_equal(summary, evaluated[1].loc[["real faces", *methods]])
    assert set(written(run)) == {"manifest.json", *(f"{name}.parquet" for name in ("real", *methods, *GATHERED))}
    for name in ("real", *methods, *GATHERED):
        resumed, whole = read(run, name), read(evaluated[0], name)
        rows = whole.rows[whole.rows["method"].isin(methods)].reset_index(drop=True) if name in GATHERED else whole.rows
        pd.testing.assert_frame_equal(resumed.rows, rows, check_exact=True)
        if name not in GATHERED:
            assert resumed.about | {"evaluated": ""} == whole.about | {"evaluated": ""}


# -- the test faces of another run -----------------------------------------------------------------------------------


def own(run):
    return run / "demo/tiny/faces"


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
    settings = settings_of(run, evaluation_faces=None, external="morph/other")
    with pytest.warns(UserWarning, match="left out are 56 of 72 test faces of external = .* this run was trained on"):
        rows = Evaluation(settings).judged("glow").rows
    assert set(rows["identity"]) == {"person00", "person05", "person10", "person15"}
    assert len(rows) == 4 * 4 * 3
    about = read(run, "real").about
    assert (about["external"], about["identities"]) == ("morph/other", 4)
    assert about["fingerprints"]["faces"] == other.fingerprint


def test_a_name_counts_within_its_own_set(run):
    mine = {"seed": "0", "data_root": "a"}
    for source, named_by, theirs, left in (
        ("tiny", "identity", {}, 24),
        ("demo", "identity", {"seed": "0"}, 24),
        ("demo", "identity", {"seed": "3"}, 120),
        ("folder", "identity", {"data_root": "b"}, 24),
        ("folder", "file", {"data_root": "a"}, 24),
        ("folder", "file", {"data_root": "b"}, 120),  # nobody is named: 1.jpg of two folders are two people
    ):
        table = Faces.open(own(run)).table.assign(source=source, identity=lambda table: table[named_by])  # noqa: B023
        for name, prepared in {"theirs": theirs, "mine": mine}.items():
            Manifest(settings=prepared).write(run / name)
        assert len(Faces(run / "theirs", table).unseen_by(Faces(run / "mine", table))) == left, (source, theirs)


def test_other_faces_that_cannot_be_judged_are_refused_by_name(run):
    with pytest.raises(ParameterError, match=r"external = 'morph/nobody': expected a prepared run .*01_prepare_data"):
        held_out_faces(settings_of(run, external="morph/nobody"))
    other_faces(run, split=lambda table: np.where(table["identity"] == "person01", "test", "train"))
    with pytest.raises(NotJudgedError, match=r"faces has 4 test faces, none of them of people new to this run"):
        held_out_faces(settings_of(run, external="morph/other"))
    folder = other_faces(run).folder
    np.save(shard_file(folder, 0), np.load(shard_file(folder, 0))[:, ::2, ::2])
    with pytest.raises(ParameterError, match=r"external = 'morph/other': .* with this run's image_size = 32"):
        held_out_faces(settings_of(run, external="morph/other"))


# -- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "notebook"), [("ictm", "04_train_ictm"), ("classifiers", "05_train_classifiers")])
def test_without_an_earlier_step_the_error_names_its_notebook_before_anything_is_judged(run, part, notebook):
    shutil.rmtree(run / "demo/tiny" / part)
    with pytest.raises(MissingArtefactError, match=notebook):
        Evaluation(settings_of(run)).judge_all()
    assert not folder_of(run).exists() or not list(folder_of(run).iterdir())
