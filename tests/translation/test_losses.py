"""Eqs. 6-11 on numbers that can be worked out by hand, and what of two faces the losses on decoded faces compare."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from ageflow.data.align import EYES
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


def share_of(loss, size):
    """How much each pixel counts in the L1 distance of two faces, [size, size]: 1 at most."""
    images = torch.zeros(1, 3, size, size, requires_grad=True)
    loss(images, torch.ones(1, 3, size, size)).backward()
    share = images.grad[0].sum(0).abs()
    torch.testing.assert_close(share, share.flip(1))
    return share / share.max()


def at(share, *places):
    """Its values at places in shares of the side, as `EYES` and the template's mouth and chin are given."""
    return [float(share[int(y * len(share)), int(x * len(share))]) for x, y in places]


@pytest.mark.parametrize("size", [32, 64, 256])
def test_the_parts_of_a_face_lie_where_faces_are_aligned_to(size):
    face = ((0.36, 0.465), (0.64, 0.465), (0.5, 0.6), (0.4, 0.74), (0.6, 0.74))
    beyond = share_of(losses.surroundings, size)
    assert max(at(beyond, *face)) < 0.05
    edges = torch.cat([beyond[0], beyond[-1], beyond[:, 0], beyond[:, -1]])
    assert edges.min() > 0.85
    assert min(at(beyond, (0.1, 0.1), (0.9, 0.9))) > 1 - 1e-3, "hair and background"
    features = share_of(losses.features, size)
    mouth = ((0.368, 0.758), (0.634, 0.758), (0.5, 0.77), (0.5, 0.8))  # corners and lips, where MTCNN finds them
    assert min(at(features, *mouth, *EYES)) > 0.8
    assert max(at(features, (0.5, 0.6), (0.3, 0.6), (0.7, 0.6))) < 0.05, "nose and cheeks"


def test_the_structure_is_ssim_without_its_luminance():
    """scikit-image's, whose luminance is 1 with a K1 so large; inside a frame, as it mirrors what is at the edge."""
    torch.manual_seed(0)
    x, y = torch.full((2, 1, 3, 64, 64), 0.5)
    x[:, :, 5:-5, 5:-5] = torch.rand(54, 54)
    y[:, :, 5:-5, 5:-5] = 0.6 * x[:, :, 5:-5, 5:-5] + 0.4 * torch.rand(54, 54)
    how = {"data_range": 1.0, "win_size": 7, "K1": 1e4, "use_sample_covariance": False, "full": True}
    similarity = torch.from_numpy(structural_similarity(x[0, 0].numpy(), y[0, 0].numpy(), **how)[1])
    oval = 1 - losses._ellipse(64, *losses._OVAL)
    torch.testing.assert_close(share_of(losses.surroundings, 64), oval / oval.max())
    expected = ((1 - similarity) * (1 - oval)).sum() / (1 - oval).sum()
    torch.testing.assert_close(losses.structure(x, y), expected.float(), rtol=1e-4, atol=1e-5)
    assert 0.05 < expected < 0.9


def test_lighter_skin_is_no_other_structure_and_a_blurred_or_a_missing_mouth_is():
    torch.manual_seed(0)
    faces = torch.rand(2, 3, 64, 64) * 0.8
    assert float(losses.structure(faces + 0.1, faces)) == pytest.approx(0, abs=1e-4)
    for loss in (losses.features, losses.surroundings):
        assert float(loss(faces + 0.1, faces)) == pytest.approx(0.1)
    blurred = torch.nn.functional.avg_pool2d(faces, 3, stride=1, padding=1)
    assert losses.structure(blurred, faces) > 0.2
    across = torch.arange(64)
    for x, y in (*EYES, (0.5, 0.78)):
        wiped = ((across - y * 64).abs() < 5)[:, None] & ((across - x * 64).abs() < (5 if y < 0.6 else 9))
        without = torch.full_like(faces, 0.4).where(wiped, faces)
        assert losses.features(without, faces) > 0.02
        assert losses.structure(without, faces) > 0.02
        assert losses.surroundings(without, faces) < 1e-3
    elsewhere = faces.clone()
    elsewhere[..., :4, :4] = 0
    assert losses.features(elsewhere, faces) < 1e-5
    assert losses.structure(elsewhere, faces) < 1e-3, "the oval alone counts"
    assert losses.surroundings(elsewhere, faces) > 1e-3


def test_each_face_is_compared_with_its_own_and_a_plain_one_has_a_finite_gradient():
    faces, others = torch.rand(2, 3, 3, 32, 32)
    for loss in (losses.structure, losses.features, losses.surroundings):
        each = [loss(faces[[row]], others[[row]]) for row in range(3)]
        torch.testing.assert_close(loss(faces, others), sum(each) / 3)
    face = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    (losses.structure(face, torch.rand(1, 3, 64, 64)) + losses.features(face, face.detach())).backward()
    assert face.grad.isfinite().all()
