"""The contract of every transform, held against autograd's Jacobian in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ageflow.device import exact_products
from ageflow.flows.actnorm import ActNorm
from ageflow.flows.coupling import AdditiveCoupling, AffineCoupling, CouplingNetwork
from ageflow.flows.linear import InvertibleConv1x1
from ageflow.flows.prior import ConditionalWhitening, ConstantWhitening
from ageflow.flows.step import Chain, FlowStep
from ageflow.flows.transform import ShapeError, Squeeze, Transform

TRANSFORMS = {
    "squeeze": lambda: Squeeze(),
    "actnorm": lambda: ActNorm(4),
    "linear": lambda: InvertibleConv1x1(4),
    "additive": lambda: AdditiveCoupling(4, hidden=6),
    "affine": lambda: AffineCoupling(4, hidden=6),
    "conditional whitening": lambda: ConditionalWhitening(4),
    "constant whitening": lambda: ConstantWhitening(4),
    "additive, ones beyond the edge": lambda: AdditiveCoupling(4, hidden=6, edges="ones"),
    "conditional whitening, ones beyond the edge": lambda: ConditionalWhitening(4, edges="ones"),
    "constant whitening, a value a place": lambda: ConstantWhitening(4, side=4),
    "step, additive": lambda: FlowStep(4, hidden=6, coupling="additive"),
    "step, affine": lambda: FlowStep(4, hidden=6, coupling="affine"),
    "chain": lambda: Chain(FlowStep(4, hidden=6, coupling="affine"), Squeeze(), FlowStep(16, hidden=6)),
}
KINDS = [(coupling, prior) for coupling in ("additive", "affine") for prior in ("standard", "learned")]


def shake(module: nn.Module) -> nn.Module:
    """Move every parameter off its initial value, so that zero-initialised layers do something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
    return module


def make(name: str) -> tuple[Transform, torch.Tensor]:
    torch.manual_seed(0)
    transform = TRANSFORMS[name]().double()
    x = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    transform.initialize(x)
    return shake(transform), x


def jacobian_log_det(function, x: torch.Tensor) -> torch.Tensor:
    """ln |det| of `function` at each sample of `x`, from autograd's full Jacobian."""

    def one(sample):
        matrix = torch.autograd.functional.jacobian(lambda s: function(s[None])[0].flatten(), sample)
        return torch.linalg.slogdet(matrix.reshape(sample.numel(), sample.numel()))[1]

    return torch.stack([one(sample) for sample in x])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_log_det_matches_jacobian_in_both_directions_and_the_inverse_undoes(name):
    transform, x = make(name)
    before = x.clone()
    y, log_det = transform(x)
    assert log_det.shape == (3,)
    torch.testing.assert_close(log_det, jacobian_log_det(transform, x), rtol=1e-9, atol=1e-9)
    y = y.detach()
    kept = y.clone()
    back, inverse_log_det = transform.inverse(y)
    torch.testing.assert_close(inverse_log_det, jacobian_log_det(transform.inverse, y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-11)
    assert torch.equal(x, before), "the input is changed"
    assert torch.equal(y, kept), "the input is changed"
    if name != "squeeze":
        assert (y - x.reshape(y.shape)).abs().max() > 0.01, "the transform does nothing: the test shows nothing"


@pytest.mark.parametrize("name", TRANSFORMS)
def test_saved_and_loaded_gives_the_same_numbers_without_initialising_again(name):
    transform, x = make(name)
    other = TRANSFORMS[name]().double()
    other.load_state_dict(transform.state_dict())
    assert torch.equal(other(x)[0], transform(x)[0])
    other.initialize(x * 7 + 3)
    assert torch.equal(other(x)[0], transform(x)[0])


def test_step_folds_actnorm_and_convolution_exactly():
    step, x = make("step, affine")
    y, log_det = Chain(step.actnorm, step.linear, step.coupling)(x)
    torch.testing.assert_close(step(x)[0], y, rtol=0, atol=1e-12)
    torch.testing.assert_close(step(x)[1], log_det, rtol=0, atol=1e-12)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="5"):
        Squeeze()(torch.zeros(1, 3, 5, 4))
    with pytest.raises(ShapeError, match="even number of channels, not 3"):
        AdditiveCoupling(3, hidden=4)


def network_with(dtype=torch.float64, **values) -> CouplingNetwork:
    torch.manual_seed(0)
    network = CouplingNetwork(6, 12, 10, **values).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize(("edges", "beyond"), [("zeros", 0.0), ("ones", 1.0)])
def test_values_and_gradients_are_those_of_three_convolutions(edges, beyond):
    network = network_with(edges=edges)
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(3, 12, 5, 4, dtype=torch.float64)
    h = F.relu(F.conv2d(x, network.first.weight, network.first.bias, padding=1))
    h = F.pad(F.relu(F.conv2d(h, network.middle.weight, network.middle.bias)), (1, 1, 1, 1), value=beyond)
    found, expected = network(x), F.conv2d(h, network.last.weight, network.last.bias)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(y, [x, *network.parameters()], seed) for y in (found, expected))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("edges", ["zeros", "ones"])
def test_bf16_rounds_inside_alone(edges):
    exact, rounded = (network_with(torch.float32, edges=edges, precision=p) for p in ("fp32", "bf16"))
    x = torch.randn(8, 6, 8, 8)
    with torch.autocast("cpu"):  # the caller's own, which must change nothing
        with torch.no_grad():
            rounded(x)  # what was rounded without gradients must not be kept for a pass with them
        y, wanted = rounded(x), exact(x)
    assert y.dtype == torch.float32
    assert torch.equal(wanted, exact(x))
    assert 1e-4 < (y - wanted).norm() / wanted.norm() < 2e-2
    for result in (y, wanted):
        result.square().mean().backward()
    for (name, mine), theirs in zip(rounded.named_parameters(), exact.parameters(), strict=True):
        assert mine.grad.dtype == torch.float32
        assert (mine.grad - theirs.grad).norm() < 3e-2 * theirs.grad.norm(), name


def test_bf16_coupling_is_undone_exactly():
    torch.manual_seed(0)
    coupling, x = shake(AdditiveCoupling(8, hidden=16, precision="bf16")), torch.randn(4, 8, 8, 8)
    torch.testing.assert_close(coupling.inverse(coupling(x)[0])[0], x, rtol=0, atol=1e-6)


def test_weights_kept_while_encoding_follow_every_change():
    step, x = make("step, affine")
    step.eval()
    with torch.no_grad():
        first = step(x)[0]
        torch.testing.assert_close(step.inverse(first)[0], x, rtol=0, atol=1e-11)
        step.actnorm.log_scale += 0.1  # what an optimiser or load_state_dict does
        changed = step(x)[0]
        assert (changed - first).abs().max() > 0.01
        torch.testing.assert_close(step.inverse(changed)[0], x, rtol=0, atol=1e-11)
        single = step.float()(x.float())[0]
        torch.testing.assert_close(single, changed.float(), rtol=1e-4, atol=1e-4)
    step.train()
    step(x.float())[0].sum().backward()
    assert step.linear.lower.grad.abs().sum() > 0


def test_a_flow_made_under_inference_mode_encodes_and_follows_every_change():
    with torch.inference_mode():
        step, x = make("step, affine")
        step.eval()
        first = step(x)[0]
        step.actnorm.log_scale += 0.1  # such a weight counts no versions
        changed = step(x)[0]
        assert (changed - first).abs().max() > 0.01
        torch.testing.assert_close(step.inverse(changed)[0], x, rtol=0, atol=1e-11)


def test_a_latent_far_from_any_face_is_decoded_to_finite_values():
    """log σ there would be in the thousands: no finite value, and no gradient that leads back."""
    prior, y = make("conditional whitening")
    far = (2e4 * y).requires_grad_()
    x, log_det = prior.inverse(far)
    assert prior.parameters_of(far.chunk(2, dim=1)[0]).abs().max() > 1000
    torch.testing.assert_close(prior(x)[0], far, rtol=1e-9, atol=1e-3)
    torch.testing.assert_close(log_det, jacobian_log_det(prior.inverse, far.detach()), rtol=1e-9, atol=1e-9)
    single, single_log_det = prior.float().inverse(far.float())
    (single.sum() + single_log_det.sum()).backward()
    assert torch.isfinite(single).all()
    assert torch.isfinite(far.grad).all()


def test_a_gpu_computes_in_fp32_what_has_to_be_undone_and_the_rest_as_the_session_has_it():
    """Ten bits of what is multiplied are not enough for an inverse; no GPU is needed to see what is asked for."""
    operations = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [each.fp32_precision for each in operations]
    assert "tf32" in before, "networks that nothing undoes are not slowed down"
    with exact_products(torch.device("cuda")):
        assert {each.fp32_precision for each in operations} <= {"ieee", "none"}
    assert [each.fp32_precision for each in operations] == before


def test_a_session_that_rounds_its_products_does_not_break_the_inverse():
    step, x = make("step, additive")
    step, x = step.float().eval(), x.float()
    with torch.no_grad():
        expected = step.mix(x)[0]
        torch.set_float32_matmul_precision("medium")  # on a CPU with bf16, 1×1 convolutions round, too
        try:
            found, back = step.mix(x)[0], step.inverse(step(x)[0])[0]
        finally:
            torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, expected)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_squeeze_gives_channels_last_whatever_it_is_given(layout):
    """On a GPU torch's own gives the other layout, in which every step after it would be computed."""
    x = torch.randn(2, 12, 8, 8).contiguous(memory_format=layout)
    for given in (x, x.chunk(2, dim=1)[0]):
        y = Squeeze()(given)[0]
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(y, F.pixel_unshuffle(given, 2))
