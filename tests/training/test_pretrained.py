"""The weights that ship with the kit: small, whole, of the demo's shape, and of networks that know faces."""

import numpy as np
import pytest
import torch

import ageflow
from ageflow.checkpoint import PRETRAINED, find_weights, read_weights
from ageflow.data.align import Aligner
from ageflow.data.prepare import prepare
from ageflow.data.records import PAPER_GROUPS
from ageflow.flows.glow import Glow, GlowConfig, to_uint8
from ageflow.training.glow import glow_config
from ageflow.translation.classifier import Classifier
from tests.slider.conftest import astronaut


@pytest.fixture(scope="module")
def glow() -> Glow:
    weights = read_weights(find_weights("pretrained", PRETRAINED, "glow"), "glow")
    glow = Glow(GlowConfig(**weights.config))
    glow.load_state_dict(weights.state)
    return glow.eval()


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """The astronaut, aligned: uint8 [1, 3, 64, 64]."""
    (aligned,) = Aligner(64).align_all(astronaut())
    return torch.from_numpy(np.ascontiguousarray(aligned.image)).permute(2, 0, 1)[None]


def test_they_are_small_and_of_the_demos_shape(glow: Glow):
    assert sum(file.stat().st_size for file in PRETRAINED.iterdir()) <= 20e6
    settings = ageflow.settings("train_glow", {"dataset": "demo"})
    assert settings.init_from == "pretrained"
    asked = glow_config(settings, 64)
    names = ("image_size", "levels", "steps_per_level", "hidden", "coupling", "prior", "bits")
    assert {name: getattr(glow.config, name) for name in names} == {name: getattr(asked, name) for name in names}


@torch.inference_mode()
def test_a_face_is_likelier_than_the_same_pixels_in_disorder(glow: Glow, face: torch.Tensor):
    """The astronaut is no face of the training set; blocks of it in another order are no face at all."""
    blocks = face.unfold(2, 16, 16).unfold(3, 16, 16).reshape(3, 16, 16, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    rows = blocks[:, order].reshape(3, 4, 4, 16, 16).permute(0, 1, 3, 2, 4).reshape(1, 3, 64, 64)
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    upright, disordered = (float(glow.bits_per_dim(images, noise=noise)) for images in (face, rows))
    assert upright < 2.6
    assert disordered > upright + 0.3


@torch.inference_mode()
def test_a_face_comes_back_every_value(glow: Glow, face: torch.Tensor):
    assert torch.equal(to_uint8(glow.decode(glow.encode(face))), face)


@pytest.mark.parametrize(("part", "least"), [("decoded_age", 0.6), ("classifiers/age", 0.65)])
@torch.inference_mode()
def test_the_classifiers_predict_ages_and_genders_of_people_they_never_saw(tmp_path, smoke_workspace, part, least):
    """The smoke preset's 96 faces, which lie in the cache by now, at 64×64."""
    parameters = {"preset": "smoke", "runs_root": tmp_path, "image_size": 64, "workers": 1, "progress": False}
    faces = prepare(ageflow.settings("prepare_data", parameters))
    weights = read_weights(find_weights("pretrained", PRETRAINED, part), "classifier")
    classifier = Classifier(**weights.config)
    classifier.load_state_dict(weights.state)
    ages, others = classifier.eval().split_logits(classifier(faces.images(slice(None))))
    assert (ages.argmax(1).numpy() == faces.groups).mean() > least, "of four"
    assert classifier.labels == PAPER_GROUPS.labels
    genders = np.array(classifier.also["gender"])[others["gender"].argmax(1)]
    assert (genders == faces.table["gender"]).mean() > 0.85


def test_t_learns_from_another_classifier_than_the_judges_begin_from():
    demo = {step: ageflow.settings(step, {"dataset": "demo"}) for step in ("train_ictm", "train_classifiers")}
    learned_from = find_weights(demo["train_ictm"].age_classifier_from, PRETRAINED, "decoded_age")
    begun_from = demo["train_classifiers"].init_from
    judges = {find_weights(begun_from, PRETRAINED, f"classifiers/{name}") for name in ("age", "gender", "race")}
    assert len(judges) == 1
    one, other = (read_weights(path, "classifier").state for path in (learned_from, *judges))
    name = "network.conv1.weight"
    assert not torch.allclose(one[name], other[name], atol=1e-2)
