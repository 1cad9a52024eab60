"""The whole flow: likelihood, round trip, encode and decode, and its errors."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import ageflow
from ageflow.flows.coupling import CouplingNetwork
from ageflow.flows.glow import Glow, GlowConfig
from ageflow.flows.transform import NotInitializedError, ShapeError
from ageflow.report.plots import glow_diagnosis
from ageflow.translation.ictm import ICTM, ICTMConfig

from .test_transforms import KINDS, jacobian_log_det, shake


def small(coupling="additive", prior="standard", **values) -> Glow:
    torch.manual_seed(0)
    config = {"image_size": 8, "levels": 2, "steps": 2, "hidden": 6, "coupling": coupling, "prior": prior} | values
    glow = Glow(GlowConfig(**config)).double()
    size = config["image_size"]
    glow.initialize(torch.rand(16, 3, size, size, dtype=torch.float64) - 0.5)
    return shake(glow)


def faces(count=3, size=8, seed=2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.mark.parametrize(("coupling", "prior"), KINDS)
def test_log_det_matches_jacobian_in_both_directions(coupling, prior):
    glow = small(coupling, prior, image_size=4, levels=2)
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64) - 0.5
    z, log_det = glow(x)
    torch.testing.assert_close(log_det, jacobian_log_det(glow, x), rtol=1e-9, atol=1e-9)
    back, inverse_log_det = glow.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(inverse_log_det, jacobian_log_det(glow.inverse, z.detach()), rtol=1e-8, atol=1e-8)


def test_bits_per_dim_counts_ln_2_and_the_bins():
    """A flow that is the identity has a bits-per-dimension that can be written down."""
    glow = Glow(GlowConfig(image_size=4, levels=1, steps=1, hidden=4, bits=5)).double()
    for module in glow.modules():
        if hasattr(module, "initialized"):
            module.initialized.fill_(True)
    images = faces(size=4)
    x = glow.dequantize(images, torch.Generator().manual_seed(7))
    assert x.min() >= -0.5
    assert x.max() < 0.5
    rotated = glow(x)[0]  # the 1x1 convolution is a rotation: |det| = 1 and the norm stays
    nats = 0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    torch.testing.assert_close(rotated.square().sum(1), x.square().flatten(1).sum(1))
    expected = nats / 48 / math.log(2) + 5
    torch.testing.assert_close(glow.bits_per_dim(images, torch.Generator().manual_seed(7)), expected)


def test_dequantize_keeps_the_top_bits_and_leaves_the_images_alone():
    glow = small(bits=5)
    images = faces()
    before = images.clone()
    x = glow.dequantize(images)
    assert torch.equal(images, before)
    assert torch.equal(((x + 0.5) * 32).floor().to(torch.uint8), images // 8)


def couple(glow, deviation):
    """Give the couplings' last convolutions, which begin at zero, something to move the state by."""
    for module in glow.modules():
        if isinstance(module, CouplingNetwork):
            torch.nn.init.normal_(module.last.weight, std=deviation)
    return glow


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_decode_gives_back_every_8_bit_value_and_in_bf16_nearly(precision, largest):
    torch.manual_seed(0)
    glow = Glow(GlowConfig(image_size=32, levels=3, steps=8, hidden=32, precision=precision))
    images = faces(8, 32)
    glow.initialize(images.float() / 255 - 0.5)
    with torch.inference_mode():
        before = glow.encode(images)
        z = couple(glow, 0.02).encode(images)
        assert (z - before).abs().max() > 0.1, "the couplings move it"
        back = glow.decode(z)
    assert (back - images / 255).abs().max() < largest
    if precision == "fp32":
        assert torch.equal(ageflow.to_uint8(back), images)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_batch_of_no_faces_is_no_error(gradient):
    glow, images = small(), faces()[:0]
    with torch.set_grad_enabled(gradient):
        z = glow.encode(images)
        assert z.shape == (0, glow.dimensions)
        assert glow.decode(z).shape == images.shape
        assert glow.bits_per_dim(images).shape == (0,)


def test_decode_is_differentiable_and_does_not_clamp():
    glow = small()
    z = (torch.randn(2, glow.dimensions, dtype=torch.float64) * 4).requires_grad_()
    images = glow.decode(z)
    assert images.max() > 1, "values out of range must come out as they are"
    images.sum().backward()
    assert (z.grad.abs() > 0).all()


def test_a_seed_decides_the_flow_and_its_samples():
    key = "levels.0.transforms.0.linear.lower"
    first, second, third = (small(seed=seed).state_dict()[key] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    glow = small()
    assert torch.equal(glow.sample(2, 0.7, seed=1), glow.sample(2, 0.7, seed=1))
    assert not torch.equal(glow.sample(2, 0.7, seed=1), glow.sample(2, 0.7, seed=2))


def test_faces_pass_in_pieces_of_what_memory_is_for(monkeypatch):
    """Without a gradient; whoever looks at many faces at once needs no more memory than training on a few."""
    glow = small().eval()
    images = torch.randint(256, (7, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = []
    glow.levels[0].transforms[0].coupling.network.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    with torch.no_grad():
        whole = glow.encode(images)
        monkeypatch.setattr("ageflow.flows.glow._AT_ONCE", 3 * 2 * glow.config.hidden * 4 * 4 * 8)  # of three faces
        z = glow.encode(images)
        back = glow.decode(z)
    glow.sample(4)
    assert seen == [7, 3, 3, 1, 3, 3, 1, 3, 1]
    torch.testing.assert_close(z, whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(back, images.double() / 255, rtol=0, atol=1e-10)
    assert len(glow.decode(z)) == 7
    assert seen[-1] == 7  # with a gradient the caller chooses


# What is done with a GLOW of 8×8, and the error it gives.
FAULTS = {
    "a size": (lambda glow: glow(torch.zeros(1, 3, 16, 16)), ShapeError, r"\[B, 3, 8, 8\], not \(1, 3, 16, 16\)"),
    "integers": (lambda glow: glow.encode(faces().long()), ShapeError, "uint8, or float"),
    "bytes as floats": (lambda glow: glow.encode(faces().float()), ValueError, "divide those"),
    "a latent": (lambda glow: glow.inverse(torch.zeros(1, 10)), ShapeError, r"\[B, 192\]"),
    "not a number": (lambda glow: glow.initialize(torch.full((1, 3, 8, 8), torch.nan)), ValueError, "not finite"),
    "too early": (lambda glow: Glow(glow.config).encode(faces()), NotInitializedError, "initialize"),
    "halves": (lambda _: GlowConfig(image_size=20, levels=3), ValidationError, "20 cannot be halved 3 times"),
    "levels": (lambda _: GlowConfig(image_size=16, levels=2, steps=[1, 2, 3]), ValidationError, "2 of them"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_errors_name_the_value_and_what_was_expected(name):
    act, error, words = FAULTS[name]
    with pytest.raises(error, match=words):
        act(small())


def test_the_papers_depth_gives_back_every_8_bit_value():
    """Its width does not matter to that, and is `test_exactness`'s."""
    torch.manual_seed(0)
    glow = Glow(GlowConfig(image_size=256, levels=6, steps=32, hidden=16))
    assert sum(len(level.transforms) for level in glow.levels) == 6 * 32
    images = torch.nn.functional.interpolate(faces(1, 16).float(), size=256, mode="bicubic").clamp(0, 255)
    images = images.round().to(torch.uint8)
    glow.initialize(images.float() / 255 - 0.5 + 0.01 * torch.randn(1, 3, 256, 256))
    couple(glow, 1e-3)
    with torch.inference_mode():
        back = glow.decode(glow.encode(images))
    assert torch.equal(ageflow.to_uint8(back), images)


def test_initialize_normalises_over_all_faces_and_feeds_the_coupling_networks_few_at_a_time():
    glow = Glow(GlowConfig(image_size=8, levels=2, steps=2, hidden=8)).double()
    at_a_time, moments = [], []
    for module in glow.modules():
        if isinstance(module, CouplingNetwork):
            torch.nn.init.normal_(module.last.weight, std=0.1)
            module.register_forward_pre_hook(lambda _, inputs: at_a_time.append(len(inputs[0])))
    x = torch.rand(30, 3, 8, 8, dtype=torch.float64) - 0.5
    z = glow.initialize(x)
    assert max(at_a_time) <= 8
    assert torch.allclose(z, glow(x)[0], atol=1e-10)
    state = x
    for level in glow.levels:
        state = glow.squeeze(state)[0]
        for step in level.transforms:
            moments.append(torch.std_mean(step.actnorm(state)[0], dim=(0, 2, 3), correction=0))
            state = step(state)[0]
        state = state.chunk(2, dim=1)[0]
    for deviation, mean in moments:
        assert torch.allclose(deviation, torch.ones_like(deviation), atol=1e-4)
        assert mean.abs().max() < 1e-10


def test_a_new_network_leaves_every_generator_as_it_was(monkeypatch):
    """`torch.manual_seed` seeds the GPUs' generators too, which nothing puts back."""
    monkeypatch.setattr(torch, "manual_seed", None)
    before = torch.get_rng_state()
    ICTM(ICTMConfig(couplings=1, width=4), Glow(GlowConfig(image_size=8, levels=2, steps=1, hidden=4)).latent_shapes, 4)
    assert torch.equal(torch.get_rng_state(), before)


def report_case():
    glow = small("affine", "learned", image_size=16, steps=3, hidden=8)
    x = torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5
    return glow, x


def test_the_report_agrees_with_the_flow_and_can_be_drawn():
    glow, x = report_case()
    report = glow.report(x)
    with torch.no_grad():
        z, log_det = glow(x)
    latents = glow.split_latent(z)
    assert report.levels["shape"].tolist() == glow.latent_shapes
    assert report.levels["mean"].tolist() == pytest.approx([float(part.mean()) for part in latents])
    assert report.levels["standard_deviation"].tolist() == pytest.approx([float(part.std()) for part in latents])
    assert report.levels["log_det"].sum() * glow.dimensions == pytest.approx(float(log_det.mean()))
    assert report.steps.groupby("level").size().tolist() == [3, 3]
    assert 0 < report.round_trip < 1e-12
    assert report.steps["round_trip"].max() < 1e-12
    axes = glow_diagnosis(report).axes
    assert len(axes) == 4
    assert all(len(a.lines) or a.containers for a in axes)


def test_the_report_shows_the_step_that_cannot_be_undone():
    glow, x = report_case()
    healthy, bad = glow.report(x), glow.levels[1].transforms[1].linear
    with torch.no_grad():
        bad.log_abs[0] = -25.0
    report = glow.report(x)
    worst = report.steps["condition"].idxmax()
    assert (report.steps["level"][worst], report.steps["step"][worst]) == (1, 1)
    expected = np.linalg.cond(bad.weight().detach().numpy())
    assert report.steps["condition"][worst] == pytest.approx(expected, rel=1e-3)
    assert report.round_trip > 1e3 * healthy.round_trip


def test_values_that_are_not_finite_are_reported():
    glow, x = report_case()
    with torch.no_grad():
        glow.levels[0].transforms[1].coupling.network.last.bias[0] = float("nan")
    assert glow.report(x).steps["largest"].isna().tolist() == [False, True, True, True, True, True]
