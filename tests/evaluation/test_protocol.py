"""The measures, face by face, with judges and methods whose verdicts are known; cycles with the tiny run's methods."""

import dataclasses
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

import ageflow
from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS
from ageflow.evaluation import protocol
from ageflow.evaluation.identity import DlibEmbedder
from ageflow.evaluation.judges import Judges, SecondAgeJudge
from ageflow.evaluation.protocol import cycle_errors, in_batches, spread_evenly
from ageflow.evaluation.scores import (
    age_scores,
    attribute_scores,
    identity_scores,
    in_groups,
    judged_attributes,
    monotonicity,
    vectors,
)
from ageflow.flows.glow import to_uint8
from ageflow.translation.methods import METHODS
from tests.evaluation.conftest import take
from tests.tiny import BRIGHTNESS


class ByBrightness(nn.Module):
    """Recognises the age group of a tiny face by its mean brightness."""

    age_groups = PAPER_GROUPS

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(BRIGHTNESS))

    def forward(self, images):
        return -(images.float().mean(dim=(1, 2, 3))[:, None] / 255 - self.levels).abs()


class ByTint(nn.Module):
    """Recognises the gender of a tiny face by the red of its left half."""

    labels = ("female", "male")

    def forward(self, images):
        x = images.float()
        red = x[:, 0, :, :16].mean(dim=(1, 2)) - x[:, 1, :, :16].mean(dim=(1, 2))
        return torch.stack([red, -red], dim=1)


class Painter(ageflow.Method):
    """A method that paints faces by a function of the faces, their targets and their own groups; keeps what it was asked."""

    name, age_groups = "m", PAPER_GROUPS

    def __init__(self, paint):
        self.paint, self.asked = paint, []

    def translate(self, images, target, source=None, attributes=None):
        self.asked.append((source.tolist(), attributes["gender"]))
        return self.paint(images.float() / 255, target, source)


LEVELS = torch.tensor(BRIGHTNESS)[:, None, None, None]


def unchanged(x, target, source):
    return x


def repainted(x, target, source):
    """The target's brightness: the perfect method."""
    return x + LEVELS[target] - LEVELS[source]


def repainted_as_men(x, target, source):
    x = repainted(x, target, source)
    x[:, 0, :, :16] -= 0.3
    return x


def of_the_age(x, weights, source):
    return torch.einsum("bg,gchw->bchw", weights, LEVELS).expand(x.shape)


@pytest.fixture(scope="module")
def judges():
    second = SecondAgeJudge("cpu")
    return Judges(ByBrightness(), {"gender": ByTint()}, DlibEmbedder("cpu"), second, second)


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Batches that nothing was judged of yet."""
    return lambda size=10: in_batches(tmp_path_factory.mktemp("parts"), {}, size, progress=False)


@pytest.fixture(scope="module")
def real(faces, judges, batches):
    return protocol.judge_faces(faces, judges, batches(7))


@pytest.fixture(scope="module")
def judged(faces, judges, real, batches):
    """The rows of a painter."""

    @cache
    def judge(paint):
        method = Painter(paint)
        return method, protocol.judge_method(method, faces, judges, real, batches())

    return judge


def test_a_method_that_does_nothing_has_no_age_accuracy_and_cosine_1(faces, judged):
    same = judged(unchanged)[1]
    assert len(same) == 3 * len(faces) == 24
    assert (same["source"] != same["target"]).all()
    assert (same.groupby("face")["target"].nunique() == 3).all(), "every face goes into the three other groups"
    assert (same["source"] == same["face"].map(dict(zip(faces.table["face"], faces.groups, strict=True)))).all()
    assert age_scores(same)["value"].mean() == 0
    assert attribute_scores(same, "gender")["value"].mean() == 100
    assert identity_scores(same)["value"].to_numpy() == pytest.approx(np.ones(24), abs=1e-4)
    assert same["cosine_centred"].to_numpy() == pytest.approx(np.ones(24), abs=1e-3)
    assert same["verified"].all()


def test_a_perfect_method_has_age_accuracy_100_and_is_given_source_and_attributes(judged):
    method, rows = judged(repainted)
    assert age_scores(rows)["value"].mean() == 100
    assert rows["cosine"].max() < 0.99999
    assert rows["cosine_centred"].mean() < rows["cosine"].mean()
    assert [group for source, _ in method.asked for group in source] == rows["source"].tolist()
    assert [gender for _, genders in method.asked for gender in genders] == rows["gender"].tolist()


def test_centred_cosines_and_verification_are_the_embedders_own(faces, judges, real, judged):
    rows = judged(repainted)[1]
    source, target = (torch.tensor([rows[name].iloc[0]]) for name in ("source", "target"))
    made = repainted(faces.images([0]) / 255, target, source)
    before, after = vectors(real["descriptor"]), judges.embedder.descriptors(to_uint8(made))[0]
    centre = normalize(before, dim=1).mean(0)
    centred = [normalize(vector, dim=0) - centre for vector in (before[0], after)]
    expected = float(torch.cosine_similarity(*centred, dim=0))
    assert rows["cosine_centred"].iloc[0] == pytest.approx(expected, abs=1e-4)
    assert rows["verified"].iloc[0] == ((before[0] - after).norm() < 0.6)


def test_a_method_that_makes_women_men_preserves_the_gender_of_men_only(judged):
    rows = judged(repainted_as_men)[1]
    scores = attribute_scores(rows, "gender")
    assert len(scores) == 6  # two faces of 30-, into three groups
    assert (scores["value"] == np.where(rows.loc[scores.index, "gender"] == "female", 0.0, 100.0)).all()
    assert scores["value"].mean() == 50
    assert judged_attributes(rows) == ["gender"]
    with pytest.raises(KeyError, match="'race' was not judged"):
        attribute_scores(rows, "race")


def test_what_is_no_face_stops_the_evaluation(judged):
    for paint, said in {
        lambda x, target, source: x * torch.nan: "10 of 10 faces not finite, first face0000",
        lambda x, target, source: x * 255: r"torch.float32 \(10, 3, 32, 32\), .* to 2..: expected a float tensor",
        lambda x, target, source: x * 2 - 1: r"torch.float32 \(10, 3, 32, 32\), -",
        lambda x, target, source: x[:0, :, :8]: r"torch.float32 \(0, 3, 8, 32\): expected a float tensor \(10, 3, 32",
        lambda x, target, source: x.numpy(): "ndarray: expected a float tensor",
    }.items():
        with pytest.raises((FloatingPointError, ValueError), match=f"method 'm', translating, made {said}"):
            judged(paint)


def test_a_choice_of_faces_is_judged_on_its_own_and_a_label_the_classifier_does_not_know_is_not_held_against_it(
    faces, judges, real, batches
):
    women_only = ByTint()
    women_only.labels = ("female", "other")
    asking = dataclasses.replace(judges, attributes={"gender": women_only})
    rows = protocol.judge_method(Painter(unchanged), take(faces, [2, 0, 4]), asking, real, batches())
    assert rows["face"].unique().tolist() == ["face0002", "face0000", faces.table["face"].iloc[4]]
    assert rows["cosine"].to_numpy() == pytest.approx(np.ones(9), abs=1e-4)
    men = rows["gender"] == "male"
    assert men.sum() == 3
    assert (rows["gender_predicted"].isna() == men).all()
    scores = attribute_scores(rows, "gender")
    assert rows.loc[scores.index, "gender"].tolist() == ["female"] * 3
    assert scores["value"].mean() == 100


def test_real_faces_are_judged_in_their_own_group_and_compared_in_all_pairs(faces, real):
    assert (real["source"] == faces.groups).all()
    assert age_scores(real)["value"].mean() == 100
    assert (real["gender_predicted"] == real["gender"]).all()
    descriptors = vectors(real["descriptor"])
    unit = normalize(descriptors, dim=1)
    centred = normalize(unit - unit.mean(0), dim=1)
    pairs = {"cosine": unit @ unit.T, "cosine_centred": centred @ centred.T}
    pairs["verified"] = torch.cdist(descriptors.double(), descriptors.double()) < 0.6
    for name, pair in pairs.items():
        for i, person in enumerate(faces.identities):
            same = (faces.identities == person) & (np.arange(len(faces)) != i)
            other = faces.identities != person
            assert (same.sum(), other.sum()) == (3, 4)
            assert real[f"{name}_same"].iloc[i] == pytest.approx(pair[i].double().numpy()[same].mean(), abs=1e-5)
            assert real[f"{name}_other"].iloc[i] == pytest.approx(pair[i].double().numpy()[other].mean(), abs=1e-5)


def test_a_person_with_one_face_has_no_second_and_two_faces_have_no_centre(faces, judges, batches):
    two = take(faces, [0, 4])
    real = protocol.judge_faces(two, judges, batches())
    assert real["cosine_same"].isna().all()
    assert real["cosine_other"].notna().all()
    rows = protocol.judge_method(Painter(unchanged), two, judges, real, batches())
    assert rows["cosine_centred"].isna().all()
    assert rows["cosine"].notna().all()


def test_the_expected_age_lies_between_the_groups_centres(faces, judges, real):
    logits, features = judges.age(faces.images(slice(None))), judges.second.features(faces.images(slice(None)))
    expected = (logits.softmax(1) @ torch.tensor([25.0, 35.5, 45.5, 57.0])).detach().numpy()
    assert real["predicted_age"].to_numpy() == pytest.approx(expected, abs=1e-3)
    assert real["second_age"].to_numpy() == pytest.approx(judges.second.ages(features).numpy(), abs=0.05)
    assert np.stack(real["feature"]) == pytest.approx(features.numpy(), abs=1e-3)


def test_ages_of_a_method_that_ages_are_monotone(faces, judges, batches):
    rows = protocol.predicted_ages(Painter(of_the_age), take(faces, range(3)), judges, batches(7))
    assert list(rows.columns[:6]) == ["method", "face", "identity", "source", "target_age", "predicted_age"]
    assert rows.groupby("face", sort=False)["target_age"].apply(tuple).tolist() == [tuple(range(20, 71, 5))] * 3
    scored = monotonicity(in_groups(rows, PAPER_GROUPS))
    assert scored["rho"].tolist() == [1.0] * 3
    assert scored["monotone"].all()


def test_a_choice_of_faces_is_spread_over_the_groups_and_seeded(tmp_path):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(4), (40, 20, 10, 5)))
    many = Faces(tmp_path, pd.DataFrame({"group": groups, "face": np.arange(75)}))
    chosen = spread_evenly(many, 8, seed=0)
    assert np.bincount(chosen.groups).tolist() == [2, 2, 2, 2]
    assert chosen.table.equals(spread_evenly(many, 8, seed=0).table)
    assert not chosen.table.equals(spread_evenly(many, 8, seed=1).table)
    assert spread_evenly(many, 10_000, seed=0).table.equals(many.table)


# -- cycles ----------------------------------------------------------------------------------------------------------


def method_of(runs_root, name):
    return ageflow.load_method(name, dataset="demo", run="tiny", runs_root=runs_root, device="cpu")


@pytest.mark.parametrize("name", METHODS)
def test_the_inverse_brings_every_face_back_where_there_is_one(runs_root, faces, batches, name):
    rows = cycle_errors(method_of(runs_root, name), faces, batches(5))
    assert len(rows) == 3 * 8
    assert (rows["source"] != rows["target"]).all()
    assert rows[["cycle_error", "cycle_equal"]].notna().all(axis=None)
    if name == "no_ictm":
        assert rows[["inverse_error", "inverse_equal"]].isna().all(axis=None)
    else:
        assert rows["inverse_error"].max() < 1e-4
        assert rows["inverse_equal"].min() > 99.9
        assert (rows["cycle_error"] > rows["inverse_error"]).all()  # 8 bits were saved in between


def test_the_re_translation_goes_to_the_faces_own_group(runs_root, faces, batches):
    method = method_of(runs_root, "glow")
    row = cycle_errors(method, take(faces, [3]), batches()).iloc[0]
    images, own, target = faces.images([3]), torch.tensor([int(faces.groups[3])]), torch.tensor([int(row["target"])])
    back = method.translate(to_uint8(method.translate(images, target, source=own)), own, source=target)
    assert row["cycle_error"] == pytest.approx(float((back - images / 255).abs().mean()), abs=1e-6)
    assert row["cycle_equal"] == pytest.approx(100 * float((to_uint8(back) == images).double().mean()))


# -- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made_from", "size", "damaged", "again"),
    [
        ("a", 5, False, list(range(10, 23))),  # kept where nothing has changed
        ("b", 5, False, list(range(23))),
        ("a", 8, False, list(range(23))),
        ("a", 5, True, [0, 1, 2, 3, 4, *range(10, 23)]),
    ],
)
def test_other_weights_another_size_and_damaged_batches_are_judged_again(tmp_path, made_from, size, damaged, again):
    judged, stop_at = [], 10

    def judge(some):
        if some.start == stop_at:
            raise KeyboardInterrupt
        judged.extend(range(some.start, some.stop))
        return pd.DataFrame({"face": range(some.start, some.stop)})

    with pytest.raises(KeyboardInterrupt):
        in_batches(tmp_path, {"glow": "a"}, 5, progress=False)(judge, 23)
    if damaged:
        first = tmp_path / "00000.json"
        first.write_bytes(first.read_bytes()[:-20])
    judged, stop_at = [], None
    rows = in_batches(tmp_path, {"glow": made_from}, size, progress=False)(judge, 23)
    assert rows["face"].tolist() == list(range(23))
    assert judged == again
