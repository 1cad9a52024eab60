"""The protocol, with judges and methods whose verdicts are known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.age import age_scores
from ageflow.evaluation.attributes import attribute_scores, judged_attributes
from ageflow.evaluation.identity import DlibEmbedder, identity_scores
from ageflow.evaluation.judging import Judges, judge_faces, judge_method
from ageflow.evaluation.realism import FaceFeatures
from ageflow.evaluation.second_judge import SecondAgeJudge
from ageflow.flows.glow import to_uint8
from tests.tiny import BRIGHTNESS


class ByBrightness(nn.Module):
    """Tells the age group of a tiny face from its mean brightness."""

    labels = AGE_GROUPS

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(BRIGHTNESS))

    def forward(self, images):
        return -(images.float().mean(dim=(1, 2, 3))[:, None] / 255 - self.levels).abs()


class ByTint(nn.Module):
    """Tells the gender of a tiny face from the red of its left half."""

    labels = ("female", "male")

    def forward(self, images):
        x = images.float()
        red = x[:, 0, :, :16].mean(dim=(1, 2)) - x[:, 1, :, :16].mean(dim=(1, 2))
        return torch.stack([red, -red], dim=1)


class Same:
    """Gives the faces back."""

    def translate(self, images, target, source=None, attributes=None):
        return images.float() / 255


class Repaint:
    """Gives a face its target's brightness: the perfect method. Keeps what it was asked."""

    def __init__(self, turn_into_men=False):
        self.turn_into_men = turn_into_men
        self.asked = []

    def translate(self, images, target, source=None, attributes=None):
        self.asked.append((source.tolist(), attributes["gender"]))
        levels = torch.tensor(BRIGHTNESS)
        painted = images.float() / 255 + (levels[target] - levels[source])[:, None, None, None]
        if self.turn_into_men:
            painted[:, 0, :, :16] -= 0.3
        return painted


class Broken:
    def translate(self, images, target, source=None, attributes=None):
        return torch.full(images.shape, float("nan"))


@pytest.fixture(scope="module")
def faces(runs_root):
    return Faces.open(runs_root / "demo/tiny/faces").select(split="test")


@pytest.fixture(scope="module")
def judges():
    return Judges(ByBrightness(), {"gender": ByTint()}, DlibEmbedder("cpu"), SecondAgeJudge("cpu"))


@pytest.fixture(scope="module")
def real(faces, judges):
    return judge_faces(faces, np.arange(len(faces)), judges, FaceFeatures(judges.second), batch=7, progress=False)


def judge(method, faces, judges, real, chosen=None):
    chosen = np.arange(len(faces)) if chosen is None else chosen
    judging = (judges, FaceFeatures(judges.second), real[1][chosen])
    return judge_method(method, "m", faces, chosen, *judging, batch=10, progress=False)[0]


def test_every_face_goes_into_the_three_other_groups(faces, judges, real):
    rows = judge(Same(), faces, judges, real)
    assert len(rows) == 3 * len(faces) == 72
    assert (rows["source"] != rows["target"]).all()
    assert (rows.groupby("face")["target"].nunique() == 3).all()
    own = dict(zip(faces.table["face"], faces.groups, strict=True))
    assert (rows["source"] == rows["face"].map(own)).all()


def test_a_method_that_does_nothing_has_no_age_accuracy_and_cosine_1(faces, judges, real):
    rows = judge(Same(), faces, judges, real)
    assert age_scores(rows)["value"].mean() == 0
    assert identity_scores(rows)["value"].to_numpy() == pytest.approx(np.ones(72), abs=1e-4)
    assert attribute_scores(rows, "gender")["value"].mean() == 100


def test_a_perfect_method_has_age_accuracy_100_and_is_given_source_and_attributes(faces, judges, real):
    method = Repaint()
    rows = judge(method, faces, judges, real)
    assert age_scores(rows)["value"].mean() == 100
    assert rows["cosine"].max() < 0.99999
    assert [group for source, _ in method.asked for group in source] == rows["source"].tolist()
    assert [gender for _, genders in method.asked for gender in genders] == rows["gender"].tolist()


def test_a_method_that_makes_women_men_preserves_the_gender_of_men_only(faces, judges, real):
    rows = judge(Repaint(turn_into_men=True), faces, judges, real)
    scores = attribute_scores(rows, "gender")
    assert len(scores) == 18  # six faces of 30-, into three groups
    women = rows.loc[scores.index, "gender"] == "female"
    assert 0 < women.mean() < 1
    assert (scores["value"] == np.where(women, 0.0, 100.0)).all()


def test_faces_that_are_not_finite_stop_the_evaluation(faces, judges, real):
    with pytest.raises(FloatingPointError, match=r"method 'm' made 10 of 10 faces.*face0000"):
        judge(Broken(), faces, judges, real)


def test_a_choice_of_faces_is_judged_on_its_own(faces, judges, real):
    chosen = np.array([2, 5, 11])
    rows = judge(Same(), faces, judges, real, chosen)
    assert rows["face"].unique().tolist() == faces.table["face"].iloc[chosen].tolist()
    assert rows["cosine"].to_numpy() == pytest.approx(np.ones(9), abs=1e-4)


def test_a_label_the_classifier_does_not_know_is_not_held_against_the_method(faces, judges, real):
    women_only = ByTint()
    women_only.labels = ("female", "other")
    rows = judge(Same(), faces, dataclasses.replace(judges, attributes={"gender": women_only}), real)
    men = rows["gender"] == "male"
    assert men.any()
    assert rows.loc[men, "gender_predicted"].isna().all()
    assert rows.loc[~men, "gender_predicted"].notna().all()
    scores = attribute_scores(rows, "gender")
    assert not rows.loc[scores.index, "gender"].eq("male").any()
    assert scores["value"].mean() == 100


def test_an_attribute_nobody_judged_is_an_error(faces, judges, real):
    rows = judge(Same(), faces, judges, real)
    assert judged_attributes(rows) == ["gender"]
    with pytest.raises(KeyError, match="'race' was not judged"):
        attribute_scores(rows, "race")


def test_cosines_between_real_faces_are_those_of_all_pairs(faces, real):
    rows, descriptors, _ = real
    embeddings = torch.nn.functional.normalize(descriptors, dim=1)
    pairs = (embeddings @ embeddings.T).double().numpy()
    names = faces.identities
    for i in range(len(faces)):
        same = (names == names[i]) & (np.arange(len(names)) != i)
        assert rows["cosine_same"].iloc[i] == pytest.approx(pairs[i][same].mean(), abs=1e-5)
        assert rows["cosine_other"].iloc[i] == pytest.approx(pairs[i][names != names[i]].mean(), abs=1e-5)


def test_a_person_with_one_face_has_no_second_to_compare_with(faces, judges):
    rows = judge_faces(faces, np.array([0, 4, 8]), judges, FaceFeatures(judges.second), progress=False)[0]
    assert rows["cosine_same"].isna().all()
    assert rows["cosine_other"].notna().all()


def test_real_faces_are_judged_in_their_own_group(faces, real):
    rows = real[0]
    assert (rows["source"] == faces.groups).all()
    assert age_scores(rows)["value"].mean() == 100
    assert (rows["gender_predicted"] == rows["gender"]).all()


def test_centred_cosines_and_verification_are_the_embedders_own(faces, judges, real):
    rows = judge(Repaint(), faces, judges, real)
    unit = torch.nn.functional.normalize(real[1], dim=1)
    face = rows["face"].iloc[0]
    number = faces.table["face"].tolist().index(face)
    after = judges.embedder.descriptors(
        to_uint8(
            Repaint().translate(
                faces.images([number]),
                torch.tensor([rows["target"].iloc[0]]),
                torch.tensor([rows["source"].iloc[0]]),
                {"gender": [""]},
            )
        )
    )[0]
    a, b = unit[number] - unit.mean(0), torch.nn.functional.normalize(after, dim=0) - unit.mean(0)
    assert rows["cosine_centred"].iloc[0] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-4)
    assert rows["cosine_centred"].mean() < rows["cosine"].mean()
    assert rows["verified"].iloc[0] == ((real[1][number] - after).norm() < 0.6)
    unmoved = judge(Same(), faces, judges, real)
    assert unmoved["verified"].all()
    assert unmoved["cosine_centred"].to_numpy() == pytest.approx(np.ones(72), abs=1e-3)


def test_verified_pairs_of_real_faces_are_counted_one_by_one(faces, real):
    rows, descriptors, _ = real
    near = (torch.cdist(descriptors.double(), descriptors.double()) < 0.6).numpy()
    names = faces.identities
    for i in range(len(faces)):
        same = (names == names[i]) & (np.arange(len(names)) != i)
        assert rows["verified_same"].iloc[i] == pytest.approx(near[i][same].mean())
        assert rows["verified_other"].iloc[i] == pytest.approx(near[i][names != names[i]].mean())


def test_the_expected_age_lies_between_the_groups_centres(faces, judges, real):
    rows = real[0]
    logits = judges.age(faces.images(slice(None)))
    expected = (logits.softmax(1) @ torch.tensor([25.0, 35.5, 45.5, 57.0])).detach().numpy()
    assert rows["predicted_age"].to_numpy() == pytest.approx(expected, abs=1e-3)
    assert rows["second_age"].to_numpy() == pytest.approx(judges.second(faces.images(slice(None))).numpy(), abs=0.05)
