"""T inverts exactly, starts as the identity, and takes any age between two groups."""

import pytest
import torch

import ageflow
from ageflow.flows.transform import ShapeError
from ageflow.translation.ictm import ICTM, ConvolutionalTranslator, ICTMConfig, VisibleLatent

SHAPES = [(6, 8, 8), (12, 4, 4), (48, 2, 2)]
D = 3 * 16 * 16


def shaken(latent="all", kind=ICTM, dtype=torch.float64, condition="target"):
    torch.manual_seed(0)
    translator = kind(ICTMConfig(latent=latent, couplings=5, width=32, condition=condition), SHAPES, groups=4).to(dtype)
    with torch.no_grad():
        for parameter in translator.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return translator


@pytest.mark.parametrize("condition", ["target", "source_aware"])
@pytest.mark.parametrize("latent", ["all", "top", [0, 2]])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 1.7])
def test_inverse_undoes_forward_exactly_at_every_strength(latent, strength, condition):
    """What came out is all that the way back takes: neither the target nor the source."""
    translator, target = shaken(latent, condition=condition), torch.tensor([0, 3, 1])
    z, source = torch.randn(3, D, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64).softmax(1)
    moved = translator(z, target, strength, source)
    assert ((moved[0] - z).abs().max() > 0.01) == (strength > 0)
    assert bool((moved[0] == z).all()) == (strength == 0)
    told = torch.nn.functional.one_hot(target, 4).double() - (source if condition == "source_aware" else 0)
    sent = (z, *translator.prior(told).chunk(2, dim=1))
    for back, expected in zip(translator.inverse(*moved, strength), sent, strict=True):
        torch.testing.assert_close(back, expected, rtol=0, atol=1e-12)
    if strength not in (0.0, 1.0):
        assert (translator.inverse(*moved)[0] - z).abs().max() > 1e-3, "the strength is part of the way back"


def test_t_is_volume_preserving():
    """Additive couplings and permutations: |det| of (z, μ, log σ) → (z', μ', log σ') is 1."""
    torch.manual_seed(0)
    level = ICTM(ICTMConfig(couplings=4, width=8), [(2, 2, 2)], groups=4).double().levels[0]
    with torch.no_grad():
        for parameter in level.parameters():
            parameter += 0.1 * torch.randn_like(parameter)

    def flat(v):
        return torch.cat([part.flatten() for part in level(*v.view(3, 1, 2, 2, 2).unbind(0))])

    matrix = torch.autograd.functional.jacobian(flat, torch.randn(3 * 2 * 2 * 2, dtype=torch.float64))
    assert torch.linalg.slogdet(matrix)[1].abs() < 1e-9


def test_levels_that_t_does_not_see_pass_unchanged():
    z = torch.randn(2, D, dtype=torch.float64)
    z_t, mu, _ = shaken("top")(z, torch.tensor([0, 3]))
    assert torch.equal(z_t[:, : D - 192], z[:, : D - 192])
    assert not torch.equal(z_t[:, D - 192 :], z[:, D - 192 :])
    assert mu.shape == (2, 192)


@pytest.mark.parametrize("kind", [ICTM, ConvolutionalTranslator])
def test_the_start_is_the_identity_and_every_parameter_learns(kind):
    translator = kind(ICTMConfig(couplings=4, width=8), SHAPES)
    z, target = torch.randn(16, D), torch.arange(16) % 4
    assert torch.equal(translator(z, target)[0], z)
    moved = shaken(kind=kind, dtype=torch.float32)
    sum(part.square().sum() for part in moved(z, target)).backward()
    assert [name for name, p in moved.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("kind", [ICTM, ConvolutionalTranslator])
def test_a_t_that_knows_the_source_begins_as_the_soft_source_step(kind):
    translator = kind(ICTMConfig(couplings=4, width=8, condition="source_aware"), SHAPES)
    z, means, source = torch.randn(2, D), torch.randn(4, D), torch.rand(2, 4).softmax(1)
    translator.start_from(means, scale=1.4)
    target = torch.nn.functional.one_hot(torch.tensor([3, 0]), 4).float()
    torch.testing.assert_close(translator(z, target, 1.0, source)[0], z + 1.4 * (target - source) @ means)
    torch.testing.assert_close(translator(z, source, 1.0, source)[0], z)
    with pytest.raises(ValueError, match="age groups = None"):
        translator(z, target)


def test_weights_between_groups_are_an_age_between():
    translator = shaken()
    z = torch.randn(1, D, dtype=torch.float64)
    assert torch.equal(translator(z, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))[0], translator(z, torch.tensor([1]))[0])
    steps = [translator(z, torch.tensor([[0.0, 1 - w, w, 0.0]]))[0] for w in (0.0, 0.25, 0.5, 0.75, 1.0)]
    distances = [(step - steps[0]).norm().item() for step in steps]
    assert distances == sorted(distances)
    assert distances[1] > 0


@pytest.mark.parametrize("target", [torch.tensor([0, 4]), torch.tensor([0, -1]), torch.full((2, 4), 0.5)])
def test_a_target_that_is_no_age_is_named(target):
    with pytest.raises(ValueError, match=r"int \[B\] from 0 to 3, or weights \[B, 4\] that sum to 1; .*age_to_weights"):
        shaken()(torch.randn(2, D, dtype=torch.float64), target)


def test_a_latent_choice_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"latent = \[0, 3\].*0 … 2"):
        VisibleLatent([0, 3], SHAPES)


def test_a_level_that_t_cannot_halve_is_named():
    shapes = ageflow.Glow(ageflow.GlowConfig(image_size=24, levels=3, steps=1, hidden=2)).latent_shapes
    with pytest.raises(ShapeError, match=r"halves every level .*\(48, 3, 3\)\]: pass latent = \[0, 1\]"):
        ICTM(ICTMConfig(couplings=2, width=4), shapes)
    translator = ICTM(ICTMConfig(couplings=2, width=4, latent=[0, 1]), shapes)
    assert translator(torch.randn(2, 3 * 24 * 24), torch.tensor([0, 3]))[0].shape == (2, 3 * 24 * 24)
