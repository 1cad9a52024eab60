"""Cycle error, continuous targets and KID: on the tiny run's real methods, and on cases whose answer is known."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.data.faces import Faces
from ageflow.evaluation.continuous import STOPS, monotonicity, predicted_ages
from ageflow.evaluation.cycle import cycle_errors
from ageflow.evaluation.evaluate import evaluate_all, evaluate_beyond, evaluate_strengths
from ageflow.evaluation.identity import DlibEmbedder
from ageflow.evaluation.judged import read_judged, write_judged
from ageflow.evaluation.judging import Judges
from ageflow.evaluation.realism import InceptionFeatures, kernel_distance, kid_by_group
from ageflow.evaluation.second_judge import SecondAgeJudge
from ageflow.flows.glow import to_uint8
from ageflow.run import Workspace
from ageflow.translation.methods import METHODS
from tests.evaluation.test_judging import ByBrightness
from tests.tiny import BRIGHTNESS, parameters


@pytest.fixture(scope="module")
def faces(runs_root):
    return Faces.open(runs_root / "demo/tiny/faces").select(split="test")


def method_of(runs_root, name):
    return ageflow.load_method(name, dataset="demo", run="tiny", runs_root=runs_root, device="cpu")


@pytest.mark.parametrize("name", ["ageflow", "glow", "glow+attribute"])
def test_the_inverse_brings_every_face_back(runs_root, faces, name):
    rows = cycle_errors(method_of(runs_root, name), name, faces, np.arange(8), batch=5, progress=False)
    assert len(rows) == 3 * 8
    assert (rows["source"] != rows["target"]).all()
    assert rows["inverse_error"].max() < 1e-4
    assert rows["inverse_equal"].min() > 99.9
    assert (rows["condition_error"] > rows["inverse_error"]).all()  # 8 bits were saved in between


def test_without_an_inverse_there_is_no_number_for_it(runs_root, faces):
    rows = cycle_errors(method_of(runs_root, "no_ictm"), "no_ictm", faces, np.arange(4), progress=False)
    assert rows[["inverse_error", "inverse_equal"]].isna().all(axis=None)
    assert rows[["condition_error", "condition_equal"]].notna().all(axis=None)


@pytest.mark.parametrize("way", ["inverse", "condition"])
def test_a_face_that_comes_back_not_finite_is_an_error_and_no_smaller_number(runs_root, faces, way, monkeypatch):
    method = method_of(runs_root, "ageflow")
    own = torch.from_numpy(faces.groups[np.arange(2)])
    whole = {"inverse": method.glow.decode, "condition": method.translate}[way]

    def broken(x, *others, **more):
        images = whole(x, *others, **more)
        back = way == "inverse" or more["source"].tolist() != own.repeat_interleave(3).tolist()
        return torch.where(torch.arange(len(images))[:, None, None, None] == 1, torch.nan, images) if back else images

    monkeypatch.setattr(
        method.glow if way == "inverse" else method, "decode" if way == "inverse" else "translate", broken
    )
    with pytest.raises(FloatingPointError, match=f"1 of 6 faces came back .* by the {way}"):
        cycle_errors(method, "ageflow", faces, np.arange(2), progress=False)


def test_the_way_back_by_the_condition_goes_to_the_faces_own_group(runs_root, faces):
    method, rows = method_of(runs_root, "glow"), np.array([3])
    told = cycle_errors(method, "glow", faces, rows, progress=False)
    images, own, target = faces.images(rows), torch.tensor([int(faces.groups[3])]), int(told["target"].iloc[0])
    there = to_uint8(method.translate(images, torch.tensor([target]), source=own))
    back = method.translate(there, own, source=torch.tensor([target]))
    assert told["condition_error"].iloc[0] == pytest.approx(float((back - images / 255).abs().mean()), abs=1e-6)
    assert told["condition_equal"].iloc[0] == pytest.approx(100 * float((to_uint8(back) == images).double().mean()))


class PaintAge:
    """Gives a face the brightness of the age asked for, or always the same."""

    def __init__(self, still=False):
        self.still = still

    def translate(self, images, target, source=None, attributes=None):
        level = target @ torch.tensor(BRIGHTNESS)
        return (torch.full_like(level, 0.5) if self.still else level)[:, None, None, None].expand(images.shape)


@pytest.fixture(scope="module")
def judges():
    return Judges(ByBrightness(), {}, DlibEmbedder("cpu"), SecondAgeJudge("cpu"))


def test_ages_of_a_method_that_ages_are_monotone(faces, judges):
    rows = predicted_ages(PaintAge(), "m", faces, np.arange(5), judges, batch=7, progress=False)
    assert list(rows.columns[:6]) == ["method", "face", "identity", "source", "target_age", "predicted_age"]
    assert rows.groupby("face", sort=False)["target_age"].apply(tuple).tolist() == [STOPS] * 5
    assert tuple(range(20, 71, 5)) == STOPS
    told = monotonicity(rows)
    assert len(told) == 5
    assert told["rho"].tolist() == [1.0] * 5
    assert told["monotone"].all()


def test_a_method_that_does_not_age_is_not_monotone(faces, judges):
    rows = predicted_ages(PaintAge(still=True), "m", faces, np.arange(3), judges, progress=False)
    assert monotonicity(rows)["rho"].tolist() == [0.0] * 3
    assert not monotonicity(rows)["monotone"].any()


@pytest.mark.parametrize("column", ["predicted_age", "second_age"])
def test_rounding_is_no_age(column):
    """The same picture in other batches: last bits differ, in the order of the ages asked for."""
    rows = pd.DataFrame({"method": "m", "face": "f", "identity": "i", "source": 0, "target_age": STOPS})
    rows[column] = 41.7 + 1e-6 * np.arange(len(rows))
    assert monotonicity(rows, column)["rho"].tolist() == [0.0]


def test_stops_beyond_the_outer_groups_count_once():
    # One swap among the eight different stops: 1 − 6·2/(8·63).
    ages = {age: age for age in STOPS} | {35.0: 40.0, 40.0: 35.0}
    rows = pd.DataFrame({"method": "m", "face": "f", "identity": "i", "source": 0, "target_age": STOPS})
    rows["predicted_age"] = rows["target_age"].map(ages)
    assert monotonicity(rows)["rho"].iloc[0] == pytest.approx(1 - 12 / (8 * 63), abs=1e-5)
    falling = monotonicity(rows.assign(predicted_age=-rows["target_age"]))
    assert falling["rho"].iloc[0] == pytest.approx(-1)


def test_kid_is_the_unbiased_distance_of_its_definition():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(40, 6, generator=generator).double() + shift for shift in (0.0, 0.5))
    x, y = first.numpy(), second.numpy()
    xx, yy, xy = (((a @ b.T) / 6 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    off = ~np.eye(40, dtype=bool)
    expected = xx[off].mean() + yy[off].mean() - 2 * xy.mean()
    kid, spread = kernel_distance(first, second)
    assert kid == pytest.approx(expected, rel=1e-9)
    assert spread == pytest.approx(0, abs=1e-9)  # all of both, in every subset


def test_kid_by_group_compares_with_real_faces_of_the_target_group():
    generator = torch.Generator().manual_seed(0)
    groups = np.repeat(np.arange(4), 50)
    real = torch.randn(200, 8, generator=generator) + torch.from_numpy(groups)[:, None]
    targets = np.repeat([1, 3], 50)
    made = torch.randn(100, 8, generator=generator) + 1.0  # all look like group 1
    told = kid_by_group(made, targets, real, groups).set_index("target")
    assert abs(told.loc[1, "kid"]) < 1
    assert told.loc[3, "kid"] > 100
    assert told.loc[3, "faces"] == 50
    assert told.loc[[0, 2], "kid"].isna().all()


def test_inception_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="weights-inception-2015-12-05"):
        InceptionFeatures(tmp_path / "no.pth")


def test_what_the_paper_lacks_is_measured_for_every_method_and_kept(runs_root, tmp_path):
    shutil.copytree(runs_root, tmp_path / "runs", copy_function=os.link)
    given = parameters(tmp_path / "runs", evaluation_faces=8, cycle_faces=4, continuous_faces=4, strength_faces=4)
    settings = ageflow.settings("ablations", given)
    evaluate_all(settings)
    folder = Workspace.of(settings).path("evaluation")
    ages = read_judged(folder / "continuous.parquet").rows
    assert set(ages["method"]) == set(settings.methods)
    assert len(ages) == 4 * 4 * len(STOPS)
    assert not ages.duplicated(["method", "face", "target_age"]).any()
    cycles = read_judged(folder / "cycle.parquet").rows
    assert len(cycles) == 4 * 4 * 3
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    told = evaluate_beyond(settings)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    own = cycles[cycles["method"] == "ageflow"]
    assert told.loc["AgeFlow", "inverse_error"] == pytest.approx(own["inverse_error"].mean())
    assert np.isnan(told.loc["AgeFlow w/o ICTM", "inverse_error"])
    kid = read_judged(folder / "ageflow.parquet").about["kid"]
    assert told.loc["AgeFlow", "kid_face_api"] == pytest.approx(np.mean([row["kid"] for row in kid]))
    assert np.isfinite(told.loc["faces as they are", "kid_face_api"])


def test_every_method_is_judged_at_other_strengths_too(runs_root, tmp_path):
    """At 1 as it is judged anyway; nearer to 0 nearer to the face; and what is kept is not judged again."""
    shutil.copytree(runs_root, tmp_path / "runs", copy_function=os.link)
    sizes = {"evaluation_faces": 8, "cycle_faces": 4, "continuous_faces": 4, "strength_faces": 4}
    settings = ageflow.settings("ablations", parameters(tmp_path / "runs", strengths=[2.0, 0.9999], **sizes))
    evaluate_all(settings)
    folder = Workspace.of(settings).path("evaluation")
    rows = read_judged(folder / "strength.parquet").rows
    assert rows.groupby(["method", "strength"]).size().tolist() == [4 * 3] * 4 * 3
    assert rows["strength"].unique().tolist() == [0.9999, 1.0, 2.0]
    for name in settings.methods:
        own = rows[rows["method"] == name]
        whole = read_judged(folder / f"{name}.parquet").rows
        as_it_is = own[own["strength"] == 1].drop(columns="strength")
        of_these = whole[whole["face"].isin(as_it_is["face"])]
        assert len(of_these) < len(whole)
        pd.testing.assert_frame_equal(as_it_is.reset_index(drop=True), of_these.reset_index(drop=True))
        # Centred on the mean of all eight, as at 1; that of the four moves these cosines by 0.05.
        nearly = own[own["strength"] == 0.9999]
        assert nearly["cosine_centred"].mean() == pytest.approx(as_it_is["cosine_centred"].mean(), abs=0.01)
    told = evaluate_strengths(settings)
    assert told.index.tolist() == [(METHODS[name], strength) for name in METHODS for strength in (0.9999, 1.0, 2.0)]
    own = rows[(rows["method"] == "ageflow") & (rows["strength"] == 2)]
    by_target = own.groupby("target")["cosine_centred"].mean().mean()
    assert told.loc[("AgeFlow", 2.0), "cosine_centred"] == pytest.approx(by_target, abs=1e-3)
    written = (folder / "strength.parquet").stat().st_mtime_ns
    evaluate_all(settings)
    assert (folder / "strength.parquet").stat().st_mtime_ns == written
    evaluate_all(settings.model_copy(update={"strengths": [0.5]}))
    assert read_judged(folder / "strength.parquet").rows["strength"].unique().tolist() == [0.5, 1.0]
    written = (folder / "strength.parquet").stat().st_mtime_ns
    evaluate_all(settings.model_copy(update={"strengths": [1.0, 0.5]}))
    assert (folder / "strength.parquet").stat().st_mtime_ns == written, "at 1 it is judged anyway"
    kept = read_judged(folder / "strength.parquet")
    marked = kept.rows.assign(second_age=kept.rows["second_age"].where(kept.rows["strength"] == 1, 123.0))
    write_judged(folder / "strength.parquet", marked, kept.about)
    evaluate_all(settings.model_copy(update={"strengths": [0.25, 0.5]}))
    rows = read_judged(folder / "strength.parquet").rows
    assert rows["strength"].unique().tolist() == [0.25, 0.5, 1.0]
    assert (rows["second_age"] == 123).equals(rows["strength"] == 0.5), "0.25 alone is judged"
    evaluate_all(settings.model_copy(update={"strengths": []}))
    assert read_judged(folder / "strength.parquet").rows["strength"].unique().tolist() == [1.0]
