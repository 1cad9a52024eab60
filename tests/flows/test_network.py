"""The coupling network: three convolutions, ones or zeros beyond the edge of the last, rounded inside alone."""

import pytest
import torch
import torch.nn.functional as F

from ageflow.flows.network import CouplingNetwork


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
