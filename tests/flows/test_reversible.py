"""What the backward pass keeps must not change what it computes."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import ageflow
from tests.conftest import ROOT

from .test_transforms import KINDS, shake


def glow_with(memory, coupling, prior, precision="fp32", dtype=torch.float32, steps=3, hidden=12, size=16):
    torch.manual_seed(0)
    config = ageflow.GlowConfig(
        image_size=size, levels=2, steps=steps, hidden=hidden, coupling=coupling, prior=prior,
        memory=memory, precision=precision,
    )  # fmt: skip
    glow = ageflow.Glow(config).to(dtype)
    glow.initialize(torch.rand(16, 3, size, size, dtype=dtype) - 0.5)
    return shake(glow)


def gradients(glow, dtype, passes=1, autocast=False):
    for number in range(passes):
        x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(number)).to(dtype) - 0.5
        x.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = -glow.log_prob(x).mean()
        loss.backward()
    return {"x": x.grad, **{name: parameter.grad for name, parameter in glow.named_parameters()}}


def assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
@pytest.mark.parametrize(("coupling", "prior"), KINDS)
@pytest.mark.parametrize(("precision", "dtype", "tolerance"), [
    ("fp32", torch.float64, 1e-9), ("fp32", torch.float32, 1e-4), ("bf16", torch.float32, 2e-2),
])  # fmt: skip
def test_gradients_equal_plain(memory, coupling, prior, precision, dtype, tolerance):
    expected = gradients(glow_with("plain", coupling, prior, precision, dtype), dtype)
    assert_same(gradients(glow_with(memory, coupling, prior, precision, dtype), dtype), expected, tolerance)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
@pytest.mark.parametrize("fixed", ["", "0.transforms.1.actnorm", "levels.1.transforms.0.linear", "network.first"])
def test_parameters_that_are_fixed_get_no_gradient_and_the_others_theirs(memory, fixed):
    """A trained GLOW is fixed as a whole ("" is in every name), one that is fine-tuned in part."""

    def found(memory):
        glow = glow_with(memory, "affine", "learned", dtype=torch.float64)
        for name, parameter in glow.named_parameters():
            parameter.requires_grad_(fixed not in name)
        return gradients(glow, torch.float64)

    mine, expected = found(memory), found("plain")
    assert [name for name in mine if mine[name] is None] == [name for name in mine if fixed in name and name != "x"]
    for name, gradient in expected.items():
        if gradient is not None:
            assert (mine[name] - gradient).norm() <= 1e-9 * gradient.norm(), name


def test_a_gradient_of_a_gradient_is_right_or_an_error_and_no_zero():
    def second(memory: str) -> torch.Tensor:
        glow = glow_with(memory, "affine", "learned", dtype=torch.float64)
        x = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
        z, log_det = glow(x.requires_grad_())
        (gradient,) = torch.autograd.grad(z.square().sum() + log_det.sum(), x, create_graph=True)
        gradient.square().sum().backward()
        return x.grad

    expected = second("plain")
    assert (expected != 0).all()
    torch.testing.assert_close(second("checkpoint"), expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second("reversible")


@pytest.mark.parametrize("memory", ["plain", "checkpoint", "reversible"])
def test_the_callers_autocast_changes_nothing(memory):
    expected = gradients(glow_with(memory, "affine", "learned"), torch.float32)
    assert_same(gradients(glow_with(memory, "affine", "learned"), torch.float32, autocast=True), expected, 1e-6)


class _Kept:
    """Counts the bytes that autograd keeps for the backward pass."""

    def __enter__(self):
        self.bytes, self.seen = 0, set()
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def _keep(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen and not isinstance(tensor, torch.nn.Parameter):
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


def test_reversible_keeps_no_more_for_more_steps():
    kept = {}
    for memory in ("plain", "checkpoint", "reversible"):
        for steps in (2, 8):
            glow = glow_with(memory, "additive", "standard", steps=steps, hidden=32)
            with _Kept() as keeper:
                glow.log_prob(torch.rand(4, 3, 16, 16) - 0.5).mean()
            kept[memory, steps] = keeper.bytes
    assert kept["reversible", 8] < 1.05 * kept["reversible", 2]
    assert kept["plain", 8] > 3 * kept["plain", 2]
    assert kept["reversible", 8] < kept["checkpoint", 8] < kept["plain", 8]


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
@pytest.mark.parametrize(("coupling", "prior"), KINDS)
def test_decoding_has_the_same_gradients_and_keeps_each_steps_input(memory, coupling, prior):
    """As A that sees the decoded face needs them (`DecodedAge`): of the latents, the flow fixed."""
    gradient, kept = {}, {}
    for mode in ("plain", memory):
        glow = glow_with(mode, coupling, prior, dtype=torch.float64, steps=4, hidden=32).requires_grad_(False)
        z = glow.encode(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))).requires_grad_()
        with _Kept() as keeper:
            faces = glow.decode(z)
        (gradient[mode],) = torch.autograd.grad(faces.square().sum(), z)
        kept[mode] = keeper.bytes
    assert (gradient[memory] - gradient["plain"]).norm() <= 1e-9 * gradient["plain"].norm()
    assert kept[memory] < kept["plain"] / 3


def test_two_processes_reduce_to_the_gradient_of_one(tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.flows.ddp_worker"]
    command = [sys.executable, *command, str(tmp_path / "rank")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = gradients(glow_with("plain", "affine", "learned", dtype=torch.float64), torch.float64, passes=2)
    del expected["x"]
    found = sorted(tmp_path.glob("rank-*.safetensors"))
    assert len(found) == 4
    for file in found:
        assert_same(load_file(file), expected, 1e-9)
