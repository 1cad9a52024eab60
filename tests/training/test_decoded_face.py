"""Parts of an aligned face: what a classifier of decoded faces is shown of them, and how far two faces differ there."""

import pytest
import torch
from skimage.metrics import structural_similarity

from ageflow.data.align import EYES
from ageflow.training.decoded_face import (
    features_distance,
    in_colours_of,
    in_surroundings_of,
    structure_distance,
    surroundings_distance,
    with_mouth_of,
)


def test_in_the_source_s_colours_c_sees_places_but_no_tint_brightness_or_contrast():
    torch.manual_seed(0)
    source = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    own = source.float() / 255
    torch.testing.assert_close(in_colours_of(source, own * 0.4 + torch.tensor([0.5, 0.1, -0.2]).view(3, 1, 1)), own)
    spot = own.clone().requires_grad_()
    in_colours_of(own, spot)[:, :, 2, 2].sum().backward()
    assert (spot.grad[:, :, 2, 2] > 0.5).all()
    shift = spot.grad.sum((2, 3))
    torch.testing.assert_close(shift, torch.zeros_like(shift), atol=1e-5, rtol=0)
    flat = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    in_colours_of(flat.detach(), flat).sum().backward()
    assert flat.grad.isfinite().all(), "a picture of one colour has no deviation"


def share_of(show, size):
    """How much of each pixel `show` leaves to the translated face, [size, size]; the rest is the source's."""
    torch.manual_seed(0)
    source = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    images = torch.rand(2, 3, size, size, requires_grad=True)
    shown = show(source, images)
    shown.sum().backward()
    share = images.grad[0, 0]
    torch.testing.assert_close(shown, share * images + (1 - share) * source / 255)
    return share


@pytest.mark.parametrize("size", [32, 64, 256])
def test_in_the_source_s_surroundings_c_sees_the_face_and_nothing_beyond_it(size):
    share = share_of(in_surroundings_of, size)

    def at(x, y):  # of the side, as `EYES` and the template's mouth and chin lie
        return float(share[int(y * size), int(x * size)])

    assert min(at(0.36, 0.465), at(0.64, 0.465), at(0.5, 0.6), at(0.4, 0.74), at(0.6, 0.74)) > 0.95, "the face"
    edges = torch.cat([share[0], share[-1], share[:, 0], share[:, -1]])
    assert edges.max() < 0.15
    assert max(at(0.1, 0.1), at(0.9, 0.9)) < 1e-3, "hair and background"
    torch.testing.assert_close(share, share.flip(1))


@pytest.mark.parametrize("size", [32, 64, 256])
def test_with_the_source_s_mouth_c_sees_all_else_of_the_face(size):
    share = share_of(with_mouth_of, size)
    x, y = (torch.tensor([0.368, 0.634, 0.5, 0.5]) * size).int(), (torch.tensor([0.758, 0.758, 0.77, 0.8]) * size).int()
    assert share[y, x].max() < 0.2, "corners and lips, where MTCNN finds them in aligned faces"
    x, y = (
        (torch.tensor([0.36, 0.64, 0.5, 0.3, 0.7]) * size).int(),
        (torch.tensor([0.465, 0.465, 0.6, 0.6, 0.6]) * size).int(),
    )
    assert share[y, x].min() > 0.95, "eyes, nose and cheeks"
    torch.testing.assert_close(share, share.flip(1))


def test_the_structure_is_ssim_without_its_luminance():
    """scikit-image's, whose luminance is 1 with a K1 so large; inside a frame, as it mirrors what is at the edge."""
    torch.manual_seed(0)
    x, y = torch.full((2, 1, 3, 64, 64), 0.5)
    x[:, :, 5:-5, 5:-5] = torch.rand(54, 54)
    y[:, :, 5:-5, 5:-5] = 0.6 * x[:, :, 5:-5, 5:-5] + 0.4 * torch.rand(54, 54)
    how = {"data_range": 1.0, "win_size": 7, "K1": 1e4, "use_sample_covariance": False, "full": True}
    similarity = torch.from_numpy(structural_similarity(x[0, 0].numpy(), y[0, 0].numpy(), **how)[1])
    share = torch.zeros_like(x).requires_grad_()
    in_surroundings_of(x, share).sum().backward()  # the oval
    oval = share.grad[0, 0]
    expected = ((1 - similarity) * oval).sum() / oval.sum()
    torch.testing.assert_close(structure_distance(x, y)[0], expected.float(), rtol=1e-4, atol=1e-5)
    assert 0.05 < expected < 0.9


def test_lighter_skin_is_no_other_structure_and_a_blurred_or_a_missing_mouth_is():
    torch.manual_seed(0)
    faces = torch.rand(2, 3, 64, 64) * 0.8
    torch.testing.assert_close(structure_distance(faces + 0.1, faces), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(features_distance(faces + 0.1, faces), torch.full((2,), 0.1))
    blurred = torch.nn.functional.avg_pool2d(faces, 3, stride=1, padding=1)
    assert (structure_distance(blurred, faces) > 0.2).all()
    eyes = [torch.full_like(faces, 0.4).where(shown, faces) for shown in _around(*EYES)]
    for without in (with_mouth_of(torch.full_like(faces, 0.4), faces), *eyes):
        assert (features_distance(without, faces) > 0.02).all()
        assert (structure_distance(without, faces) > 0.02).all()
    elsewhere = faces.clone()
    elsewhere[..., :4, :4] = 0
    assert features_distance(elsewhere, faces).max() < 1e-5
    assert (surroundings_distance(elsewhere, faces) > 1e-3).all()
    torch.testing.assert_close(surroundings_distance(faces + 0.1, faces), torch.full((2,), 0.1))
    for within in (blurred, without):
        inside = in_surroundings_of(faces, within)
        assert (surroundings_distance(inside, faces) < 0.02).all()
    assert structure_distance(elsewhere, faces).max() < 1e-3, "the oval alone counts"


def _around(*places, size=64, reach=5):
    """A square of each place, given in shares of the side, bool [size, size]."""
    across = torch.arange(size)
    for x, y in places:
        yield ((across - y * size).abs() < reach)[:, None] & ((across - x * size).abs() < reach)


def test_a_plain_face_has_a_finite_gradient():
    face = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    (structure_distance(face, torch.rand(1, 3, 64, 64)) + features_distance(face, face.detach())).sum().backward()
    assert face.grad.isfinite().all()
