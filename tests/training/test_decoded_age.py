"""A through the decoder, on drawn faces whose brightness is their age: what T learns from it, and what it is kept as."""

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.checkpoint import CheckpointError, ConfigChangedError, fingerprint, latest, load_state, release
from ageflow.config import ParameterError
from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS
from ageflow.device import reduced_precision
from ageflow.run import Workspace
from ageflow.training.classifier import ClassifierTask, augmented, train_classifiers
from ageflow.training.ictm import TranslatorTask, train_age_classifier, train_translator, train_without_ictm
from ageflow.training.loop import train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import MicroBatch, micro_batches
from ageflow.translation import losses
from ageflow.translation.calibration import condition_of, expected_age
from ageflow.translation.classifier import load_classifier
from ageflow.translation.prototypes import compute_prototypes, encode_faces
from tests.tiny import BRIGHTNESS, copy_of, settings_of

# Nothing but A moves T.
ONLY_A = {"akd_weight": 0.0, "adversarial_weight": 0.0, "consistency_weight": 0.0}
UPDATES = 120  # of C: by then it predicts the four brightnesses and the two tints
RARE = {"preview_every": 100, "checkpoint_every": 100}


def ictm(runs_root, **values):
    given = {"age_classifier": "decoded", "age_classifier_iterations": UPDATES, "iterations": 40, "batch_size": 8}
    return settings_of("train_ictm", runs_root, **given | ONLY_A | RARE | values)


def judge(runs_root, **values):
    return settings_of("train_classifiers", runs_root, **{"iterations": 1, **RARE} | values)


def folder_of(runs_root, part="decoded_age"):
    return Workspace(runs_root, "demo", "tiny").path(part)


@pytest.fixture(scope="module")
def runs_root(encoded, tmp_path_factory):
    """The tiny run with an ICTM that learned from A alone."""
    root = copy_of(encoded, tmp_path_factory.mktemp("decoded"))
    train_translator(ictm(root, learning_rate=2e-3))
    return root


@pytest.fixture(scope="module")
def faces(runs_root):
    return Faces.open(folder_of(runs_root, "faces"))


def task_of(runs_root, moves=False, **values) -> TranslatorTask:
    """A task with the run's C, and with its T where it is to move faces."""
    task = TranslatorTask(ictm(runs_root, **values), folder_of(runs_root))
    if moves:
        load_state(task.modules["translator"], folder_of(runs_root, "ictm"), "translator")
    return task


def loss_of(task, part):
    """L_T and its parts on a micro-batch, and its faces' latents, groups, targets and T's latents."""
    torch.manual_seed(0)
    loss, parts = task.translator_loss(part)
    torch.manual_seed(0)
    target = torch.randint(4, (part.size,))
    z, source, combination = task.batch(part)
    return loss, parts, (z, source, combination, target, task.modules["translator"](z, target)[0])


def test_it_is_the_classifier_of_the_decoded_face_and_passes_gradients_to_the_latent_alone(runs_root, faces):
    age = task_of(runs_root).decoded_age
    images = faces.images(slice(0, 6))
    z = age.glow.encode(images).requires_grad_()
    logits = age(z)
    torch.testing.assert_close(logits, age.classifier.split_logits(age.classifier(images))[0], atol=1e-3, rtol=1e-3)
    logits[:, 3].sum().backward()
    step = z.grad / z.grad.flatten(1).norm(dim=1, keepdim=True)
    with torch.no_grad():
        risen = age(z + 0.01 * step)[:, 3] - logits[:, 3]
    torch.testing.assert_close(risen, 0.01 * z.grad.norm(dim=1), rtol=0.2, atol=1e-3)
    assert all(parameter.grad is None for parameter in age.parameters())


def test_t_moves_the_decoded_face_to_the_age_that_a_sees(runs_root, faces):
    """C predicts the genders of held-out faces, too. Brightness is the age: moved to the youngest group a face comes out brighter than moved to the oldest."""
    assert read_metrics(folder_of(runs_root))["test/gender_accuracy"].dropna().iloc[-1] > 0.9
    method = ageflow.load_method("ageflow", run="tiny", runs_root=runs_root)
    images = faces.select(split="test").images(slice(0, 24))
    means = [float(method.translate(images, group).mean()) for group in range(4)]
    assert means[0] - means[3] > 0.25 * (BRIGHTNESS[0] - BRIGHTNESS[3])
    assert np.all(np.diff(means) < 0), "darker with every group"


def test_it_sees_no_value_that_a_saved_face_cannot_have(runs_root):
    task = task_of(runs_root)
    far = 30 * task.latents.batch(task.split_rows["test"][:6])
    images = task.glow.decode(far)
    assert images.min() < 0 < 1 < images.max()
    torch.testing.assert_close(task.decoded_age(far), task.decoded_age.classifier(images.clamp(0, 1))[:, :4])


@pytest.mark.parametrize("asked", [0, 1])
def test_t_makes_the_decoded_face_keep_the_attributes_it_is_asked_to(runs_root, tmp_path, asked):
    """Asked for one gender of all it gives that one: the attribute loss alone moves what is a face's gender."""
    task = task_of(runs_root, age_weight=0.0, attribute_weight=1.0, learning_rate=2e-3, iterations=30)
    gender = task.values["gender"]
    assert gender.tolist() == [["female", "male"].index(value) for value in task.latents.table["gender"]]
    task.values["gender"] = torch.full_like(gender, asked)
    train(task, task.settings, tmp_path)
    rows = task.split_rows["test"]
    z = task.latents.batch(rows)
    with torch.no_grad():
        moved = task.modules["translator"](z, torch.ones(len(z), dtype=torch.int64))[0]
        c = task.decoded_age.classifier
        logits = [c.split_logits(c(task.decoded_age.decode(latents)))[1]["gender"] for latents in (z, moved)]
    before, after = (each.argmax(1) for each in logits)
    assert (before == gender[rows]).float().mean() > 0.9
    assert 0.2 < (gender[rows] == asked).float().mean() < 0.8
    assert (after == asked).float().mean() > 0.9


def test_each_face_is_held_to_its_own_attributes(runs_root, faces):
    part = micro_batches(3, size=8, micro_batch=8)[0]
    task = task_of(runs_root, moves=True, attribute_weight=0.5)
    loss, parts, (*_, z_t) = loss_of(task, part)
    plain, without, _ = loss_of(task_of(runs_root, moves=True), part)
    assert "attributes" not in without
    torch.testing.assert_close(loss, plain + 0.5 * parts["attributes"])
    torch.manual_seed(0)
    torch.randint(4, (8,))
    images = augmented(task.decoded_age.decode(z_t), part, 0.5)
    with reduced_precision(task.device):
        logits = task.decoded_age.classifier(images).float()
    logits = task.decoded_age.classifier.split_logits(logits)[1]
    own = torch.tensor([["female", "male"].index(faces.table["gender"][row]) for row in task.batch_rows(part)])
    assert 0 < own.sum() < len(own)
    torch.testing.assert_close(parts["attributes"], losses.attributes(logits, {"gender": own}))
    assert parts["attributes"] != losses.attributes(logits, {"gender": 1 - own})


AWARE = {"condition": "source_aware", "prior_start": "averages", "akd_weight": 20.0, "cycle_weight": 5.0}


@pytest.mark.parametrize("latent", ["all", [0]])
def test_a_t_that_knows_the_source_begins_as_its_teacher_and_learns_the_way_back(runs_root, tmp_path, latent):
    """The teacher goes as far as C says, in the levels that T sees: nearer to the age than a whole step, or none."""
    task = task_of(runs_root, **AWARE, latent=latent, iterations=60, learning_rate=2e-3)
    part = MicroBatch(0, 0, 64, 64)
    task.start()
    z, _, combination = task.batch(part)
    target = torch.arange(64) % 4
    told = task._told(task.batch_rows(part), target)
    w = condition_of(torch.eye(4)[target], told["source"])
    step = task.visible.only(task.settings.scale * w @ task.prototypes.smoothed)
    teacher = task._teacher(z, told["source"], target, combination, told["length"])
    ages = [expected_age(task.decoded_age(latents).softmax(1), PAPER_GROUPS) for latents in (teacher, z, z + step)]
    off, *others = ((age - torch.tensor(PAPER_GROUPS.aims)[target]).abs().mean() for age in ages)
    assert off < (0.7 if latent == "all" else 1.0) * min(others)
    torch.testing.assert_close(task.modules["translator"](z, target, **told)[0], teacher, rtol=1e-4, atol=1e-5)
    train(task, task.settings, tmp_path)
    cycle = read_metrics(tmp_path)["T/cycle"]
    assert cycle.iloc[-5:].mean() < 0.9 * cycle.iloc[5:15].mean()


def test_other_averages_than_it_was_trained_with_are_refused_where_t_is_told_of_them(runs_root, tmp_path):
    root = copy_of(runs_root, tmp_path)
    train_translator(ictm(root, **AWARE, iterations=1, restart=True, age_classifier_iterations=2))
    assert "prototypes" in ageflow.load_method("ageflow", run="tiny", runs_root=root).weights
    averages = settings_of("prototypes", root, min_cell=10_000)
    compute_prototypes(averages, encode_faces(averages))
    with pytest.raises(CheckpointError, match="was trained with other prototypes: train with restart=True"):
        ageflow.load_method("ageflow", run="tiny", runs_root=root)


def test_a_run_keeps_it_apart_from_the_judge_and_the_ablation_learns_from_the_same(runs_root, tmp_path):
    root = copy_of(runs_root, tmp_path)
    as_it_is = {"age_classifier_from": str(folder_of(runs_root)), "age_classifier_iterations": 0}
    train_translator(ictm(root, iterations=2, restart=True, **as_it_is))
    kept = fingerprint(folder_of(root))
    assert latest(folder_of(root, "ictm")).inputs["decoded_age"] == kept
    no_ictm = train_without_ictm(Workspace(root, "demo", "tiny"))
    assert latest(no_ictm).inputs["decoded_age"] == kept == fingerprint(folder_of(root))
    folders = (train_classifiers(judge(root))["age"], folder_of(root))
    theirs, ours = (load_classifier(folder).network.conv1.weight for folder in folders)
    assert (theirs - ours).abs().max() > 0.01, "the judge began from other weights"


def test_what_t_has_learned_from_is_not_trained_further_and_only_with_t_anew(runs_root, tmp_path):
    root = copy_of(runs_root, tmp_path)
    before = fingerprint(folder_of(root))
    with pytest.raises(ConfigChangedError, match=rf"has {UPDATES} updates: pass that number, name another run"):
        train_translator(ictm(root, age_classifier_iterations=UPDATES + 2, learning_rate=2e-3))
    with pytest.raises(ConfigChangedError, match=r"seed: .*pass restart=True .*-p train_ictm\.restart True"):
        train_translator(ictm(root, seed=4))
    assert fingerprint(folder_of(root)) == before
    train_translator(ictm(root, iterations=41, learning_rate=2e-3))
    assert latest(folder_of(root, "ictm")).iteration == 41, "T continues"
    train_translator(ictm(root, iterations=1, age_classifier_iterations=2, seed=4, restart=True))
    assert latest(folder_of(root, "ictm")).inputs["decoded_age"] == fingerprint(folder_of(root)) != before
    assert fingerprint(folder_of(root, "decoded_age.1")) == before, "the one before lies beside it"


def test_from_nothing_it_does_not_begin_from_the_weights_of_the_preset_s_judges(runs_root, tmp_path, faces):
    """The demo's judges begin from weights, which C shares nothing with."""
    given = {"preset": "demo", "batch_size": 16, "age_classifier": "decoded"}
    given |= {"age_classifier_from": "nothing", "age_classifier_iterations": 1}
    assert ageflow.settings("train_classifiers", {"preset": "demo"}).init_from is not None
    folder = train_age_classifier(settings_of("train_ictm", tmp_path, **given), faces)
    assert latest(folder).settings["init_from"] is None


def test_it_begins_from_weights_and_takes_their_architecture(runs_root, faces, tmp_path):
    """Released in half precision, in a preset of another architecture: one update of 1e-4 takes no weight further."""
    file = release(folder_of(runs_root), tmp_path / "classifier.safetensors", half=True)
    given = {"age_classifier_from": str(file), "age_classifier_iterations": 1, "preset": "paper"}
    assert ageflow.settings("train_classifiers", {"preset": "paper"}).architecture == "resnet101"
    folder = train_age_classifier(ictm(tmp_path, **given), faces)
    before, after = (load_classifier(of) for of in (folder_of(runs_root), folder))
    theirs, ours = (dict(classifier.named_parameters()) for classifier in (before, after))
    assert theirs.keys() == ours.keys()
    assert 0 < max((theirs[name] - ours[name]).abs().max() for name in ours) < 2e-3
    assert after.also == before.also == {"gender": ("female", "male")}
    assert latest(folder).settings["init_from"] == str(file)


def test_without_updates_it_is_the_weights_that_it_begins_from(runs_root, faces, tmp_path):
    source = folder_of(runs_root)
    settings = ictm(tmp_path, age_classifier_from=str(source), age_classifier_iterations=0)
    for _ in range(2):  # made, then found
        folder = train_age_classifier(settings, faces)
        expected, kept = (load_classifier(of).state_dict() for of in (source, folder))
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
    with pytest.raises(ParameterError, match=r"^age_classifier_iterations = 0 .*name some"):
        ictm(tmp_path, age_classifier_iterations=0)


@pytest.fixture(scope="module")
def age_alone(runs_root, faces, tmp_path_factory):
    """The folder of a classifier that predicts age alone."""
    settings = judge(runs_root)
    return train(ClassifierTask(settings, faces, "age"), settings, tmp_path_factory.mktemp("age") / "age")


def test_what_the_weights_do_not_predict_t_learns_without(runs_root, faces, age_alone, tmp_path):
    """Kept as they are they cannot predict genders; so it is where a set has none, in a preset that asks to keep them."""
    settings = ictm(tmp_path, age_classifier_from=str(age_alone), age_classifier_iterations=0)
    assert load_classifier(train_age_classifier(settings, faces)).also == {}
    settings = ictm(runs_root, attribute_weight=1.0, iterations=1)
    metrics = read_metrics(train(TranslatorTask(settings, age_alone), settings, tmp_path / "translator"))
    assert "T/age" in metrics
    assert "T/attributes" not in metrics


def test_an_attribute_that_the_weights_do_not_predict_is_learned_anew(runs_root, faces, age_alone, tmp_path):
    """Weights that predict age alone, and faces with genders: the ages' logits are theirs, the genders' are new."""
    begun = judge(runs_root, init_from=str(release(age_alone, tmp_path / "age.safetensors")))
    both = ClassifierTask(begun, faces, "age", also=["gender"])
    classifier = both.modules["classifier"].eval()
    new = ClassifierTask(judge(runs_root), faces, "age", also=["gender"]).modules["classifier"]
    images = faces.images(slice(0, 6))
    torch.testing.assert_close(classifier.split_logits(classifier(images))[0], load_classifier(age_alone)(images))
    assert torch.equal(classifier.network.fc.weight[4:], new.network.fc.weight[4:])


def test_genders_weigh_alike_in_every_group_however_many_there_are(runs_root, faces):
    """Three in four of the youngest are women: they weigh a third as much, and the groups weigh alike."""
    women, men = ((faces.table["gender"] == gender) & (faces.groups == 0) for gender in ("female", "male"))
    uneven = Faces(faces.folder, pd.concat([faces.table[~men]] * 6 + [faces.table[men]] * 2))
    assert women.sum() == men.sum(), "as they are drawn"
    for balance in (["gender"], []):
        weights = ClassifierTask(judge(runs_root), uneven, "age", balance=balance).weights.numpy()
        cells = uneven.table.assign(weight=weights)[uneven.table["split"] == "train"]
        np.testing.assert_allclose(cells.groupby("group")["weight"].sum(), len(cells) / 4, rtol=1e-5)
        young = cells[cells["group"] == 0].groupby("gender")["weight"].sum()
        assert young["female"] / young["male"] == pytest.approx(1 if balance else 3, rel=1e-5)
        assert not weights[uneven.table["split"] == "test"].any()
