"""Notebook 11's training and what it leaves: resume, seeds, processes, settings; the method that is loaded."""

from functools import partial

import pytest
import torch

import ageflow
from ageflow.baselines import train as training
from ageflow.baselines.method import load_baseline
from ageflow.baselines.train import own_settings, train_baselines
from ageflow.checkpoint import latest
from ageflow.config import BASELINES
from ageflow.data.faces import Faces
from ageflow.run import Workspace
from ageflow.training.metrics import read_metrics
from tests.tiny import copy_of, settings_of

BY_NAME = pytest.mark.parametrize("name", BASELINES)


@pytest.fixture
def faces(trained: Workspace) -> Faces:
    return Faces.open(trained.path("faces"))


def weights_of(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in latest(folder).tensors("").items() if not name.startswith("counts.")}


@BY_NAME
def test_a_killed_training_continues_to_the_same_weights(name: str, trained, tmp_path, monkeypatch):
    settings = {"methods": [name], "iterations": 4, "checkpoint_every": 2, "batch_size": 3}
    folders = [copy_of(trained.runs_root, tmp_path / place) for place in ("whole", "parts")]
    whole, parts = (settings_of("baselines", folder, **settings, restart=True) for folder in folders)
    train_baselines(whole)
    loss = training.BaselineTask.loss

    def killed(task, key, part):
        if part.number == 2 and key == "D":
            raise KeyboardInterrupt
        return loss(task, key, part)

    monkeypatch.setattr(training.BaselineTask, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_baselines(parts)
    monkeypatch.undo()
    train_baselines(parts.model_copy(update={"restart": False}))
    one, other = (weights_of(folder / "demo/tiny/baselines" / name) for folder in folders)
    assert one.keys() == other.keys()
    assert [each for each in one if not torch.equal(one[each], other[each])] == []
    numbers = read_metrics(folders[1] / "demo/tiny/baselines" / name).dropna(subset="G/loss")["iteration"].tolist()
    assert numbers == [1, 2, 3, 4]


def test_the_seed_decides(trained, tmp_path):
    found = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        root = copy_of(trained.runs_root, tmp_path / place)
        settings = settings_of("baselines", root, methods=["caae"], iterations=1, seed=seed, restart=True)
        found.append(weights_of(train_baselines(settings)["caae"])["model.baseline.critic.score.1.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_two_processes_train_as_one_does(trained, tmp_path):
    """Of the method with the most networks, which has no statistics of batches."""
    found = []
    for place, gpus in (("one", 1), ("two", 2)):
        root = copy_of(trained.runs_root, tmp_path / place)
        values = {
            "methods": ["dual_acgan"],
            "iterations": 2,
            "batch_size": 5,
            "gpus": gpus,
            "restart": True,
            "log_every": 1,
        }
        folder = train_baselines(settings_of("baselines", root, **values))["dual_acgan"]
        found.append(read_metrics(folder).filter(regex="^[GD]/").dropna(how="all"))
    # Of the same weights, losses and gradients are the same; in bf16, where the processor has it, to two digits.
    one, two = (numbers.iloc[0] for numbers in found)
    assert len(one) > 8
    assert two.to_numpy() == pytest.approx(one.to_numpy(), rel=0.02)
    # Adam's first step is as long as the learning rate, however small the gradient, whose sign may be chance.
    assert found[1].iloc[1].to_numpy() == pytest.approx(found[0].iloc[1].to_numpy(), rel=0.2)


@BY_NAME
def test_it_is_loaded_and_translates_like_any_method(name: str, trained, faces):
    method = load_baseline(name, trained, "cpu")
    young = [row for row, group in enumerate(faces.groups) if group == 0][:2]
    about = {"source": torch.tensor([0, 0]), "attributes": {"gender": faces.table["gender"].tolist()[:2]}}
    translate = partial(method.translate, faces.images(young), **about)
    older = translate(torch.tensor([1, 3]))
    assert older.shape == (2, 3, 32, 32)
    assert (older >= -1e-5).all()
    assert (older <= 1 + 1e-5).all()
    floats = method.translate(faces.images(young).float() / 255, torch.tensor([1, 3]), **about)
    torch.testing.assert_close(older, floats, atol=1e-5, rtol=0)
    assert method.at(1.0) is method
    with pytest.raises(ValueError, match=r"strength"):
        method.at(0.5)
    for needed in method.needs:
        with pytest.raises(ValueError, match=f"pass {needed}"):
            method.translate(faces.images(young), 3, **about | {needed: None})
    with pytest.raises(ValueError, match=r"images of \(2, 3, 16, 16\)"):
        method.translate(faces.images(young)[:, :, ::2, ::2], 3, **about)
    if method.continuous:
        assert translate(ageflow.age_to_weights(40)[None]).isfinite().all()
    else:
        with pytest.raises(ValueError, match="between age groups"):
            translate(ageflow.age_to_weights(40)[None])


def test_pag_ages_the_youngest_and_refuses_the_rest(trained, faces):
    method = load_baseline("pag", trained, "cpu")
    assert method.pairs == {(0, 1), (0, 2), (0, 3)}
    with pytest.raises(ValueError, match=r"from age group 2 to 3: PAG-GAN was made for 0 to 1"):
        method.translate(faces.images([0, 1]), 3, source=torch.tensor([0, 2]))


def test_an_attribute_that_it_was_not_trained_with_is_refused(trained, faces):
    method = load_baseline("a3gan", trained, "cpu")
    with pytest.raises(ValueError, match=r"gender = \['female', 'other'\].* one of female, male"):
        method.translate(faces.images([0, 1]), 3, attributes={"gender": ["female", "other"]})


def test_dual_acgan_leaves_a_face_of_the_target_group_as_it_is(trained, faces):
    images, group = faces.images([0, 1]), torch.tensor([1, 1])
    same = load_baseline("dual_acgan", trained, "cpu").translate(images, group, source=group)
    torch.testing.assert_close(same, images / 255, atol=1e-5, rtol=0)


def test_what_settings_leave_open_is_the_methods_own(tmp_path):
    paper = ageflow.settings("baselines", {"dataset": "morph", "iterations": "{'caae': 7}", "runs_root": tmp_path})
    caae, ipcgan = (own_settings(paper, name) for name in ("caae", "ipcgan"))
    assert (caae.iterations, caae.batch_size, caae.learning_rate, caae.width) == (7, 100, 2e-4, 1.0)
    assert (ipcgan.iterations, ipcgan.batch_size, ipcgan.weights["adversarial"]) == (200_000, 32, 75)
    wrong = ageflow.settings("baselines", {"methods": "ipcgan", "weights": {"idendity": 2}, "runs_root": tmp_path})
    with pytest.raises(ageflow.ParameterError, match="ipcgan has no loss 'idendity': did you mean 'identity'"):
        own_settings(wrong, "ipcgan")
    with pytest.raises(ageflow.ParameterError, match="did you mean 'wglca'"):
        ageflow.settings("baselines", {"methods": ["wgla"]})


def test_notebook_11_is_named_where_a_baseline_is_missing(tmp_path):
    with pytest.raises(ageflow.MissingArtefactError, match=r"needs a trained CAAE.*run 11_baselines\.ipynb first"):
        load_baseline("caae", Workspace(tmp_path, "demo", "tiny"), "cpu")
