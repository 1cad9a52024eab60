"""Every baseline's networks and losses: shapes, what each loss reaches, and that it can learn eight faces."""

import pytest
import torch

from ageflow.baselines.base import baseline_class
from ageflow.baselines.blocks import haar, inverse_haar, lsgan, one_hot
from ageflow.baselines.pag import PyramidD
from ageflow.baselines.train import total_loss
from ageflow.config import BASELINES
from ageflow.training.task import MicroBatch
from tests.baselines.conftest import losses_of

BY_NAME = pytest.mark.parametrize("name", BASELINES)
GENDER = {"gender": ["female", "male"]}


@BY_NAME
@pytest.mark.parametrize("side", [64, 256])
def test_it_generates_faces_of_the_size_it_gets_for_every_group(name: str, side: int):
    torch.manual_seed(0)
    stages = [[64, side // 2], [64, side // 4], [128, side // 8], [256, side // 16]]
    model = baseline_class(name)(side, 5, GENDER, 0.06, stages).eval()
    assert baseline_class(name)(**model.shape).state_dict().keys() == model.state_dict().keys()
    x, own = torch.rand(1, 3, side, side) * 2 - 1, one_hot(torch.tensor([0]), 5)
    for group in range(1, 5):
        with torch.no_grad():
            y = model.generate(x, one_hot(torch.tensor([group]), 5), own, one_hot(torch.tensor([1]), 2))
        assert y.shape == x.shape
        assert y.isfinite().all()
        assert y.abs().max() <= 1 + 1e-5


def test_haar_is_orthonormal_and_comes_back():
    x = torch.randn(2, 3, 16, 12)
    torch.testing.assert_close(inverse_haar(haar(x)), x)
    assert float(haar(x).square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-5)
    bands = haar(torch.tensor([[[[1.0, 2], [3, 5]]]])).flatten().tolist()
    assert bands == pytest.approx([5.5, -2.5, -1.5, 0.5]), "LL, LH, HL, HH of a b / c d"


def test_pags_scores_are_four_small_maps_one_above_the_other_at_the_papers_size():
    stages = [[64, 112], [64, 56], [128, 28], [256, 14]]
    scores = PyramidD(stages, 0.02)([torch.rand(2, channels, side, side) for channels, side in stages])
    assert scores.shape == (2, 1, 12, 3)


def test_lsgan_is_half_the_mean_square():
    assert float(lsgan(torch.tensor([0.0, 3.0]), 1)) == 1.25


@BY_NAME
def test_each_loss_reaches_the_networks_that_it_trains_and_no_others(name: str, task_of):
    task = task_of(name)
    parameters = {each: parameter for each, parameter in task.model.named_parameters()}
    for key, losses in losses_of(task).items():
        own = {id(parameter) for parameter in task.model.objectives()[key][0].parameters()}
        for loss_name, loss in losses.items():
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
            reached = {each for each, gradient in zip(parameters, found, strict=True) if gradient is not None}
            assert any(found[list(parameters).index(each)].abs().max() > 0 for each in reached), (key, loss_name)
            assert {id(parameters[each]) for each in reached} <= own, f"{key}/{loss_name} reaches another network"
    assert all(parameter.requires_grad for parameter in parameters.values()), "no network stays fixed"
    assert not any(p.requires_grad or p.grad is not None for p in task.c.parameters()), "C is never trained"


@BY_NAME
def test_all_parameters_learn_and_a_weight_of_zero_removes_its_loss(name: str, task_of):
    task = task_of(name)
    every = losses_of(task)
    for key, losses in every.items():
        network = task.model.objectives()[key][0]
        loss, weights = total_loss(losses, {}), list(network.parameters())
        found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
        assert all(gradient is not None for gradient in found), key
    losses = every["G"]
    assert set(losses) == set(task.model.recipe.weights), "a loss for every weight"
    weights = dict.fromkeys(losses, 1.0)
    for left_out, loss in losses.items():
        without = total_loss(losses, weights | {left_out: 0.0})
        assert float(without) == pytest.approx(float(total_loss(losses, weights) - loss), rel=1e-4, abs=1e-5)
        broken = losses | {left_out: loss * float("nan")}
        assert total_loss(broken, weights | {left_out: 0.0}).isfinite()


@BY_NAME
def test_one_face_is_a_batch(name: str, task_of):
    task = task_of(name)
    task.modules.train()
    for objective in task.objectives:
        loss, values = objective.loss(MicroBatch(0, 0, 1, 1))
        loss.backward()
        assert loss.isfinite(), values
    assert task._batches == {}, "the faces of an update are let go of"


@BY_NAME
def test_it_learns_eight_faces(name: str, task_of):
    """On the faces and targets of one batch, its generator alone brings the loss that makes or keeps the face to half."""
    task = task_of(name, width=0.25)
    kept = {"ipcgan": "identity", "glca": "age", "wglca": "age", "dual_acgan": "cycle"}.get(name, "pixel")
    generator, losses = task.model.objectives()["G"]
    optimizer = torch.optim.Adam(generator.parameters(), 3e-3)
    torch.manual_seed(0)
    task.modules.train()
    batch, first = task.batch(MicroBatch(0, 0, 8, 8)), None
    for _ in range(300):
        optimizer.zero_grad()
        loss = losses(batch)[kept]
        loss.backward()
        optimizer.step()
        first = first or float(loss)
        if float(loss) < 0.5 * first:
            break
    assert float(loss) < 0.5 * first
