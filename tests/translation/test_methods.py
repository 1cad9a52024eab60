"""Every method behind one call: it ages faces, takes targets in every form, and refuses what is no face and no age."""

import shutil
from dataclasses import replace

import pytest
import torch

import ageflow
from ageflow.checkpoint import CheckpointError
from ageflow.data.faces import Faces
from ageflow.evaluation.methods import load_method
from ageflow.run import MissingArtefactError, Workspace
from ageflow.training.glow import train_glow
from ageflow.translation.methods import METHODS
from tests.tiny import copy_of, settings_of


@pytest.fixture(scope="module", params=METHODS)
def method(translators, request):
    return load_method(request.param, run="tiny", runs_root=translators)


@pytest.fixture(scope="module")
def faces(translators):
    return Faces.open(Workspace(translators, "demo", "tiny").path("faces"))


@pytest.fixture(scope="module")
def given(faces):
    """Three faces' pixels, and what a method may need to know of them: source groups and attributes."""
    return faces.images([0, 1, 2]), {"source": torch.tensor(faces.groups[:3]), "attributes": faces.table.iloc[:3]}


def test_it_ages_images_to_groups_and_ages_of_every_form(method, given):
    images, known = given
    target = (known["source"] + 2) % 4
    aged = method.translate(images, target, **known)
    assert aged.shape == (3, 3, 32, 32)
    assert (aged - images / 255).abs().mean() > 0.005, "the method does nothing"
    weights = torch.nn.functional.one_hot(target, 4).float()
    torch.testing.assert_close(method.translate(images, weights, **known), aged)
    torch.testing.assert_close(method.translate(images / 255, target, **known), aged)
    everyone = method.translate(images, torch.tensor([2, 2, 2]), **known)
    for one_for_all in (2, torch.tensor([2]), ageflow.age_to_weights(45.5)[None]):
        torch.testing.assert_close(method.translate(images, one_for_all, **known), everyone)


def test_methods_that_share_what_is_known_search_a_batch_s_lengths_once_and_translate_alike(translators, given):
    images, known = given
    target = (known["source"] + 2) % 4
    first, second = (load_method("calibrated", run="tiny", runs_root=translators) for _ in "12")
    alone = [method.translate(images, target, **known) for method in (first, second)]
    shared = {}
    for method in (first, second):
        method.reader = replace(method.reader, known=shared)
    for method, expected in zip((first, second, first.at(1)), (*alone, alone[0]), strict=True):
        assert torch.equal(method.translate(images, target, **known), expected)
    assert len(shared) == 1
    first.translate(images, (target + 1) % 4, **known)
    assert len(shared) == 2


def test_at_another_strength_it_goes_part_of_the_way_and_as_exactly_back(method, given):
    images, known = given
    target = (known["source"] + 2) % 4
    aged = method.translate(images, target, **known)
    assert torch.equal(ageflow.to_uint8(method.at(0).translate(images, target, **known)), images)
    torch.testing.assert_close(method.at(1).translate(images, target, **known), aged, rtol=0, atol=0)
    half = method.at(0.5).translate(images, target, **known)
    assert 0 < (half - images / 255).abs().mean() < (aged - images / 255).abs().mean()
    z = method.glow.encode(images)
    if method.invertible:
        source = method.own_ages(images, known["source"])
        back = method.at(0.5).round_trip(z, target, source, known["attributes"])
        torch.testing.assert_close(back, z, rtol=0, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="AgeFlow w/o ICTM has no inverse"):
            method.round_trip(z, target, *known.values())
    for strength in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"strength = {strength}: expected a number of 0 or more"):
            method.at(strength)


def test_a_face_is_encoded_once_for_all_its_targets(method, given, monkeypatch):
    images, known = given
    each, encoded, encode = torch.tensor([0, 0, 1, 1, 1, 2]), [], method.glow.encode
    aged = method.translate(images, torch.tensor([3, 2, 0]), **known)
    monkeypatch.setattr(method.glow, "encode", lambda some: encoded.append(len(some)) or encode(some))
    known = {"source": known["source"][each], "attributes": known["attributes"].iloc[each.numpy()]}
    repeated = method.translate(images[each], torch.tensor([3, 2, 0])[each], **known)
    assert encoded == [3]
    torch.testing.assert_close(repeated, aged[each])


@pytest.mark.parametrize(
    "target", [torch.tensor([1, 2]), torch.tensor([25, 30, 60]), torch.tensor([25.0, 30.0, 60.0]), "51+", [[1, 0, 0]]]
)
def test_a_target_that_is_none_is_named(method, given, target):
    with pytest.raises(ValueError, match=r"(?s)^age groups = .* 3 faces: expected int .* from 0 to 3.*age_to_weights"):
        method.translate(given[0], target, **given[1])


def test_pictures_in_another_range_are_named(method, given):
    images, known = given
    with pytest.raises(ValueError, match=r"in \[0, 1\], not \d+ to 2\d\d: divide"):
        method.translate(images.float(), 1, **known)
    with pytest.raises(ValueError, match=r"many of these values lie below 0: add 1"):
        method.translate(images / 127.5 - 1, 1, **known)


def test_glow_needs_the_source_and_leaves_a_face_of_the_target_group_as_it_is(method, given):
    images, known = given
    if not method.needs:
        torch.testing.assert_close(method.translate(images, 1), method.translate(images, 1, **known))
        return
    with pytest.raises(ValueError, match="pass source"):
        method.translate(images, 1)
    assert torch.equal(ageflow.to_uint8(method.translate(images, known["source"], **known)), images)


def test_glow_with_attributes_needs_them_of_every_face(translators, given):
    method, (images, known) = load_method("glow+attribute", run="tiny", runs_root=translators), given
    for attributes, said in (
        (None, "pass attributes"),
        ({"gender": ["female"]}, r"attributes\['gender'\] has 1 entries for 3 faces"),
        ({"gender": ["female", None, "man"]}, r"attributes\['gender'\] = 'man': expected female, male, or None"),
    ):
        with pytest.raises(ValueError, match=said):
            method.translate(images, 1, known["source"], attributes)


def test_s_is_t_s_or_else_the_data_set_s_and_glow_needs_no_t(encoded, translators, tmp_path):
    def scale(runs_root, **given):
        return load_method("glow", run="tiny", runs_root=runs_root, **given).scale

    assert scale(encoded) == scale(translators) == ageflow.settings("train_ictm", {"dataset": "demo"}).scale == 2.5
    assert scale(encoded, scale=1.1) == 1.1
    runs_root = copy_of(translators, tmp_path)
    manifest = Workspace(runs_root, "demo", "tiny").path("ictm", "manifest.json")
    manifest.write_text(manifest.read_text().replace('"scale": 2.5', '"scale": 1.7'))
    assert scale(runs_root) == 1.7
    with pytest.raises(MissingArtefactError, match=r"run 04_train_ictm\.ipynb first"):
        load_method("ageflow", run="tiny", runs_root=encoded)
    shutil.rmtree(manifest.parents[1] / "prototypes")
    with pytest.raises(MissingArtefactError, match=r"run 03_prototypes\.ipynb first"):
        load_method("calibrated", run="tiny", runs_root=runs_root)


def test_a_name_that_is_no_method_is_named(translators):
    with pytest.raises(
        ValueError, match=r"methods are glow, glow\+attribute, soft_source, calibrated, no_ictm, ageflow"
    ):
        load_method("stylegan", run="tiny", runs_root=translators)


def test_parts_of_another_glow_are_refused(translators, tmp_path):
    runs_root = copy_of(translators, tmp_path)
    train_glow(settings_of("train_glow", runs_root, iterations=41))
    for name, said in (
        ("glow", "made from other glow: run 03_prototypes"),
        ("ageflow", "ictm is of another GLOW: run 03_prototypes"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_method(name, run="tiny", runs_root=runs_root)
