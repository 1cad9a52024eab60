"""Eqs. 6-11 on numbers that can be worked out by hand."""

import math

import pytest
import torch

from ageflow.translation import losses
from ageflow.translation.discriminator import Discriminator
from ageflow.translation.prototypes import Prototypes, as_weights


def test_distillation_is_the_l1_distance():
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert losses.distillation(a, b).tolist() == pytest.approx([1.5, 0.5])
    assert losses.distillation(a, b, "sum").tolist() == pytest.approx([3.0, 1.0])


def test_adversarial_and_discriminator_are_least_squares_with_halves():
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert float(losses.adversarial(fake)) == pytest.approx(0.5 * (1 + 1) / 2)
    assert float(losses.discriminator(real, fake)) == pytest.approx(0.5 * 0.5 + 0.5 * 2)


def test_age_is_cross_entropy_and_its_focus_spares_the_faces_that_are_there():
    logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 0.0, 0.0]], requires_grad=True)
    target = torch.tensor([0, 1, 2])
    assert torch.equal(losses.age(logits, target), torch.nn.functional.cross_entropy(logits, target))
    p = logits.detach().softmax(1)[range(3), target]
    expected = ((1 - p) ** 2 * -p.log()).mean()
    assert float(losses.age(logits, target, 2.0)) == pytest.approx(float(expected), rel=1e-5)
    for_each = losses.age(logits, target, torch.tensor([0.0, 2.0, 0.0]))
    assert float(for_each) == pytest.approx(float(((1 - p) ** torch.tensor([0, 2, 0]) * -p.log()).mean()), rel=1e-5)
    plain, focused = (torch.autograd.grad(losses.age(logits, target, focus), logits)[0].norm(dim=1) for focus in (0, 2))
    assert focused[0] < 0.02 * plain[0], "A is sure of it (0.965) already"
    assert focused[2] > 0.9 * plain[2], "A does not see it yet (0.107)"


def test_consistency_is_the_gaussian_negative_log_likelihood():
    z, mu = torch.randn(4, 7), torch.randn(4, 7)
    log_sigma = torch.randn(4, 7) + 1
    floor = losses.consistency(z, mu, log_sigma, least_log_sigma=-60.0)
    expected = -torch.distributions.Normal(mu, log_sigma.exp()).log_prob(z).mean()
    assert float(floor) == pytest.approx(float(expected), rel=1e-5)
    zeros = torch.zeros(2, 3)
    assert float(losses.consistency(zeros, zeros, zeros, "literal")) == pytest.approx(0.5 * math.log(2 * math.pi))


def test_consistency_gains_nothing_without_end():
    z = torch.randn(2, 5)
    tight = losses.consistency(z, z, torch.full((2, 5), -50.0))
    assert float(tight) == pytest.approx(0.5 * math.log(2 * math.pi) - 3, abs=0.01)


def test_discriminator_layers_are_spectrally_normalised():
    torch.manual_seed(0)
    critic = Discriminator(20, 4)
    for layer in (critic.body[0], critic.body[2]):
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(50)
    for _ in range(30):
        critic(torch.randn(2, 20))
    critic.eval()
    for layer in (critic.body[0], critic.body[2]):
        assert float(torch.linalg.matrix_norm(layer.weight, 2)) == pytest.approx(1, abs=0.02)
    assert critic.body[1].negative_slope == 0.2
    assert (critic.body[0].out_features, critic.real.out_features, critic.age.out_features) == (512, 1, 4)


def prototypes() -> Prototypes:
    means = torch.arange(4 * 3 * 2, dtype=torch.float32).view(4, 3, 2)
    return Prototypes(means, ("gender",), [("female",), ("male",)], None, "x")


def test_direction_is_target_average_minus_source_average_of_the_same_attributes():
    p = prototypes()
    combination = p.combination_of({"gender": ["male", "female", None]}, 3)
    assert combination.tolist() == [1, 0, 2]
    direction = p.direction(torch.tensor([0, 1, 2]), torch.tensor([3, 0, 1]), combination)
    expected = torch.stack(
        [p.means[3, 1] - p.means[0, 1], p.means[0, 0] - p.means[1, 0], p.means[1, 2] - p.means[2, 2]]
    )
    torch.testing.assert_close(direction, expected)


def test_direction_to_the_own_group_is_zero_and_between_groups_is_between():
    p = prototypes()
    any_ = torch.tensor([p.any])
    assert p.direction(torch.tensor([2]), torch.tensor([2]), any_).abs().max() == 0
    half = p.direction(torch.tensor([0]), torch.tensor([[0.0, 0.5, 0.5, 0.0]]), any_)
    whole = [p.direction(torch.tensor([0]), torch.tensor([t]), any_) for t in (1, 2)]
    torch.testing.assert_close(half, (whole[0] + whole[1]) / 2)


def test_a_batch_of_no_faces_is_no_error():
    none = torch.zeros(0, dtype=torch.int64)
    combination = prototypes().combination_of({"gender": []}, 0)
    assert combination.dtype == torch.int64
    assert prototypes().direction(none, none, combination).shape == (0, 2)


def test_attributes_that_are_missing_are_named():
    with pytest.raises(ValueError, match=r"\['gender'\] are needed"):
        prototypes().combination_of({"race": ["W"]}, 1)
    assert as_weights(torch.tensor([[0.25, 0.75]]), 2).tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("value", ["Male", "F", " female", 1])
def test_a_misspelt_gender_is_an_error_and_no_unknown_one(value):
    with pytest.raises(ValueError, match=rf"attributes\['gender'\] = {value!r}: expected female, male, or None"):
        prototypes().combination_of({"gender": ["male", value]}, 2)


def test_missing_attributes_are_unknown_one_string_is_of_all_and_a_new_value_is_told():
    p = prototypes()
    assert p.combination_of({"gender": [None, float("nan"), ""]}, 3).tolist() == [p.any] * 3
    assert p.combination_of({"gender": "male"}, 3).tolist() == [1, 1, 1]
    races = Prototypes(p.means, ("race",), [("black",), ("white",)], None, "x")
    with pytest.warns(
        UserWarning, match=r"attributes\['race'\] = 'asian' is of no training face \(these are black, white"
    ):
        assert races.combination_of({"race": ["asian", "white"]}, 2).tolist() == [races.any, 1]
    assert races.combination_of({"race": ["White", " BLACK"]}, 2).tolist() == [1, 0], "spelt otherwise"
    assert p.combination_of({"gender": None}, 2).tolist() == [p.any] * 2
    women = Prototypes(p.means, ("gender",), [("female",)], None, "x")
    with pytest.warns(UserWarning, match=r"'male' is of no training face \(these are female\)"):
        assert women.combination_of({"gender": ["male"]}, 1).tolist() == [women.any]
