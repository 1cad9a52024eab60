"""Embedders: the other templates' crops, dlib's network, ArcFace by path."""

import importlib.util
from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from ageflow.data.align import EYES
from ageflow.evaluation.identity import (
    ARCFACE_EYES,
    DLIB_EYES,
    DlibResNet,
    EmbedderError,
    chips,
    load_embedder,
    refuse_alike,
)
from tests.evaluation.conftest import arcface_file

PACKAGE = Path(importlib.util.find_spec("face_recognition_models").origin).parent
WEIGHTS = PACKAGE / "models/dlib_face_recognition_resnet_model_v1.dat"


def _spot(side, x, y):
    """A bright Gaussian spot at (x, y), shares of the side, measured to the pixels' centres."""
    rows, columns = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    squared = (columns - x * side) ** 2 + (rows - y * side) ** 2
    return torch.exp(-squared / (2 * (side / 64) ** 2)).expand(3, -1, -1)


def _centre(chip):
    light = chip.astype(float).mean(axis=2)
    rows, columns = np.indices(light.shape) + 0.5
    return (light * columns).sum() / light.sum() / len(light), (light * rows).sum() / light.sum() / len(light)


@pytest.mark.parametrize("side", [32, 64, 256])
@pytest.mark.parametrize(("eyes", "size"), [(DLIB_EYES, 150), (ARCFACE_EYES, 112)])
def test_our_eyes_land_on_the_other_templates_eyes(side, eyes, size):
    cut = chips(torch.stack([_spot(side, *eye) for eye in EYES]), eyes, size)
    assert cut.shape == (2, size, size, 3)
    for chip, expected in zip(cut, eyes, strict=True):
        assert _centre(chip) == pytest.approx(expected, abs=0.25 / size)


def test_dlibs_template_is_the_one_dlib_uses():
    # dlib's mean face, which get_face_chip aligns to: the eyes' corners in its 5-point template, padding 0.25.
    right = np.array([(0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677)]).mean(axis=0)
    left = np.array([(0.1205750620789, 0.2137274526848), (0.3340850613712, 0.2290642403242)]).mean(axis=0)
    expected = (np.stack([left, right]) + 0.25) / 1.5
    assert np.allclose(DLIB_EYES, expected, atol=1e-4)


def test_chips_repeat_the_edge_outside_and_are_antialiased_inside():
    assert (chips(torch.full((1, 3, 32, 32), 200, dtype=torch.uint8), DLIB_EYES, 150) == 200).all()
    stripes = (torch.arange(256) % 2 * 255).to(torch.uint8).expand(1, 3, 256, 256)
    inner = chips(stripes, ARCFACE_EYES, 112)[0, 20:-20, 20:-20].astype(float)
    assert abs(inner.mean() - 127.5) < 3
    assert inner.std() < 10  # nearest or plain bilinear sampling keeps stripes of 60 and more
    with pytest.raises(ValueError, match="square colour faces"):
        chips(torch.zeros(1, 1, 32, 32), DLIB_EYES, 150)


def test_dlibs_network_in_torch_gives_dlibs_descriptors():
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.random((3, 3, 9, 9), dtype=np.float32))
    faces = torch.nn.functional.interpolate(smooth, (150, 150), mode="bicubic").clamp(0, 1)
    faces = [*(faces * 255).byte().permute(0, 2, 3, 1).numpy(), rng.integers(0, 256, (150, 150, 3), dtype=np.uint8)]
    faces = [np.ascontiguousarray(face) for face in faces]
    theirs = np.array(dlib.face_recognition_model_v1(str(WEIGHTS)).compute_face_descriptor(faces))
    ours = DlibResNet(WEIGHTS)(torch.from_numpy(np.stack(faces))).numpy()
    assert np.abs(theirs).max() > 0.1
    assert np.allclose(ours, theirs, atol=1e-5)


def test_another_file_is_not_taken_for_dlibs_network(tmp_path):
    cut = tmp_path / "cut.dat"
    cut.write_bytes(WEIGHTS.read_bytes()[:1_000_000])
    with pytest.raises(EmbedderError, match="expected dlib's"):
        DlibResNet(cut)


def test_dlib_embeds_alike_whatever_the_batch_and_the_type_and_verifies_by_distance():
    images = torch.randint(0, 256, (5, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    embedder = load_embedder("dlib", "cpu")
    descriptors = embedder.descriptors(images)
    assert descriptors.shape == (5, 128)
    assert not torch.allclose(descriptors.norm(dim=1), torch.ones(5), atol=0.05)  # 0.6 is no distance of unit vectors
    parts = [embedder.descriptors(images[:2]), embedder.descriptors(images[2:])]
    assert torch.allclose(torch.cat(parts), descriptors, atol=1e-5)
    units = descriptors / descriptors.norm(dim=1, keepdim=True)
    assert torch.allclose(embedder(images.float() / 255), units, atol=1e-6)
    assert embedder(images[:0]).shape == (0, 128)

    step = torch.zeros(128)
    step[3] = 1.0
    assert embedder.verified_pairs(descriptors, descriptors + 0.59 * step).diagonal().all()
    assert not embedder.verified_pairs(descriptors, descriptors - 0.61 * step).diagonal().any()
    others = torch.cat([descriptors + 0.59 * step, descriptors - 0.61 * step])
    pairs = embedder.verified_pairs(descriptors, others)
    assert torch.equal(pairs, (descriptors[:, None] - others[None]).norm(dim=-1) < 0.6)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_arcface_sees_rgb_scaled_to_one(tmp_path, batch):
    embedder = load_embedder(str(arcface_file(tmp_path / "arcface.onnx", batch)), "cpu")
    colours = torch.tensor([[255, 0, 0], [0, 0, 255], [255, 255, 255], [255, 127, 0], [0, 255, 0], [255, 0, 255]])
    images = colours.to(torch.uint8)[:, :, None, None].expand(-1, -1, 64, 64)
    expected = (colours - 127.5) / 127.5 + 1
    assert torch.allclose(embedder.descriptors(images), expected.float(), atol=1e-5)
    assert torch.allclose(embedder(images).norm(dim=1), torch.ones(6), atol=1e-5)
    assert embedder.name == "ArcFace (arcface.onnx)"


@pytest.mark.parametrize(
    "steps",
    [
        [("Sub", 127.5), ("Mul", 1 / 127.5)],  # MXNet's exports, the public ResNet-100
        [("Div", 255), ("Sub", [0.5, 0.5, 0.5]), ("Div", [0.5, 0.5, 0.5])],
        [("Add", -127.5), ("Div", [127.5, 127.5, 127.5])],
        [("Sub", 0.5), ("Mul", 2)],  # takes 0…1
        [("Sub", 127.5)],  # what follows is made for values this large
    ],
)
def test_an_arcface_that_scales_its_input_itself_is_fed_what_it_takes(tmp_path, steps):
    colours = torch.randint(0, 256, (6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = colours[:, :, None, None].expand(-1, -1, 64, 64)
    plain, scaling = (arcface_file(tmp_path / f"{len(by)}.onnx", steps=by) for by in ([], steps))
    expected, found = (load_embedder(str(path), "cpu").descriptors(images) for path in (plain, scaling))
    large = 127.5 if len(steps) == 1 else 1
    assert torch.allclose((found - 1) / large + 1, expected, atol=1e-4)


def test_an_embedder_that_does_not_tell_people_apart_is_refused(tmp_path):
    faces = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = str(arcface_file(tmp_path / "blind.onnx", added=99)), "dlib"
    blind, dlibs = (load_embedder(name, "cpu") for name in names)
    with pytest.raises(EmbedderError, match=r"ArcFace \(blind.onnx\): between 5 .* its cosine is 1.0000 on average"):
        refuse_alike(blind, blind(faces))
    refuse_alike(blind, blind(faces[:1]))
    refuse_alike(dlibs, torch.eye(3))


def test_arcface_verifies_by_cosine_whatever_the_length(tmp_path):
    embedder = load_embedder(str(arcface_file(tmp_path / "arcface.onnx")), "cpu")
    angles = torch.tensor([0.46, 0.44]).acos()
    others = torch.stack([angles.cos(), angles.sin(), torch.zeros(2)], dim=1)
    assert embedder.verified_pairs(7 * torch.eye(3)[:2], 3 * others).tolist() == [[True, False], [True, True]]


def test_arcface_errors_say_what_is_wrong(tmp_path):
    path = arcface_file(tmp_path / "large.onnx", side=224)
    with pytest.raises(EmbedderError, match=r"its input is .*an ArcFace model's is \[B, 3, 112, 112\]"):
        load_embedder(str(path))
    with pytest.raises(EmbedderError, match="no such file"):
        load_embedder(str(tmp_path / "missing.onnx"))


@pytest.mark.parametrize("location", [None, "weights.onnx.data", "a" * 150])
def test_fingerprints_name_the_weights_inside_the_file_and_beside_it(tmp_path, location):
    """torch 2.14 and later export the weights into a file beside, and two models' graphs are then the same bytes."""

    def fingerprint(name, added):
        (tmp_path / name).mkdir()
        outside = {} if location is None else {"location": location, "size_threshold": 0, "save_as_external_data": True}
        path = arcface_file(tmp_path / name / "model.onnx", added=added, **outside)
        assert location is None or (tmp_path / name / location).is_file()
        return load_embedder(str(path), "cpu").fingerprint, path.read_bytes()

    (one, graph), (same, _), (other, other_graph) = fingerprint("a", 1.0), fingerprint("b", 1.0), fingerprint("c", 2.0)
    assert one == same != other
    assert (graph == other_graph) == (location is not None)
