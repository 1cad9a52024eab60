"""Eqs. 6-11 on numbers that can be worked out by hand."""

import math

import pytest
import torch

from ageflow.translation import losses


def test_distillation_is_the_l1_distance():
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert losses.distillation(a, b).tolist() == pytest.approx([1.5, 0.5])
    assert losses.distillation(a, b, "sum").tolist() == pytest.approx([3.0, 1.0])


def test_adversarial_and_discriminator_are_least_squares_with_halves_and_age_is_cross_entropy():
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert float(losses.adversarial(fake)) == pytest.approx(0.5 * (1 + 1) / 2)
    assert float(losses.discriminator(real, fake)) == pytest.approx(0.5 * 0.5 + 0.5 * 2)
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    assert float(losses.age(logits, torch.tensor([0, 1]))) == pytest.approx((math.log(2) - math.log(0.75)) / 2)


def test_consistency_is_the_gaussian_negative_log_likelihood():
    z, mu = torch.randn(4, 7), torch.randn(4, 7)
    log_sigma = torch.randn(4, 7) + 1
    floor = losses.consistency(z, mu, log_sigma, least_log_sigma=-60.0)
    expected = -torch.distributions.Normal(mu, log_sigma.exp()).log_prob(z).mean()
    assert float(floor) == pytest.approx(float(expected), rel=1e-5)
    zeros = torch.zeros(2, 3)
    assert float(losses.consistency(zeros, zeros, zeros, "literal")) == pytest.approx(0.5 * math.log(2 * math.pi))
    tight = losses.consistency(z, z, torch.full((4, 7), -50.0))
    assert float(tight) == pytest.approx(0.5 * math.log(2 * math.pi) - 3, abs=0.01), "it gains nothing without end"


def test_a_face_whose_attribute_is_not_known_has_no_attribute_loss():
    logits = {"gender": torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0]])}
    of_two = losses.attributes(logits, {"gender": torch.tensor([0, -1, 1])})
    apart = [
        losses.attributes({"gender": logits["gender"][[row]]}, {"gender": torch.tensor([value])})
        for row, value in ((0, 0), (2, 1))
    ]
    torch.testing.assert_close(of_two, sum(apart) / 3)
