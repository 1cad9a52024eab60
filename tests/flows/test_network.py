"""The coupling network's own backward pass, held against autograd's of the same five calls."""

import pytest
import torch
import torch.nn.functional as F

from ageflow.flows.network import CouplingNetwork

# (inputs, outputs): both sides narrow, one of them, none; see `_NARROW`
CHANNELS = [(6, 6), (2, 7), (6, 12), (12, 6), (12, 24)]


def network_with(inputs, outputs, dtype=torch.float64, **values) -> CouplingNetwork:
    torch.manual_seed(0)
    network = CouplingNetwork(inputs, outputs, 10, **values).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return network


def by_autograd(network: CouplingNetwork, x: torch.Tensor, floor: float) -> torch.Tensor:
    h = F.relu(F.conv2d(x, network.first.weight, network.first.bias, padding=1))
    h = F.conv2d(h, network.middle.weight, network.middle.bias).clamp(min=floor)
    return F.conv2d(h, network.last.weight, network.last.bias, padding=1)


@pytest.mark.parametrize("floor", [0.0, -1.0])
@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_values_and_gradients_are_those_of_autograd(inputs, outputs, floor):
    network = network_with(inputs, outputs, floor=floor)
    x = torch.randn(3, inputs, 5, 4, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(3, outputs, 5, 4, dtype=torch.float64)
    variables = [x, *network.parameters()]
    found, expected = network(x), by_autograd(network, x, floor)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad(y, variables, seed) for y in (found, expected))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("inputs", "outputs"), CHANNELS)
def test_bf16_rounds_inside_alone(inputs, outputs):
    exact, rounded = (network_with(inputs, outputs, torch.float32, precision=p) for p in ("fp32", "bf16"))
    x = torch.randn(8, inputs, 8, 8)
    y, wanted = rounded(x), exact(x)
    assert y.dtype == torch.float32
    assert 1e-4 < (y - wanted).norm() / wanted.norm() < 2e-2
    for network, result in ((rounded, y), (exact, wanted)):
        result.square().mean().backward()
        assert all(p.grad.dtype == torch.float32 for p in network.parameters())
    for (name, mine), theirs in zip(rounded.named_parameters(), exact.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() < 3e-2 * theirs.grad.norm(), name


@pytest.mark.parametrize("fixed", ["first", "middle", "last"])
def test_with_one_convolution_fixed_the_others_get_their_gradients(fixed):
    network = network_with(6, 6)
    getattr(network, fixed).requires_grad_(False)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    network(x).square().sum().backward()
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    expected = torch.autograd.grad(by_autograd(network, x, 0.0).square().sum(), list(learning.values()))
    for (name, parameter), gradient in zip(learning.items(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-10, msg=name)


def test_frozen_it_passes_gradients_to_its_input_alone():
    network = network_with(6, 6).requires_grad_(False)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    network(x).sum().backward()
    (expected,) = torch.autograd.grad(by_autograd(network, x, 0.0).sum(), x)
    torch.testing.assert_close(x.grad, expected)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_gradient_of_a_gradient_is_an_error_not_a_zero():
    network = network_with(6, 6)
    x = torch.randn(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
