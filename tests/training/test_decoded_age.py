"""A through the decoder, on drawn faces whose brightness is their age: what T learns from it, and what it is kept as."""

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.checkpoint import CheckpointError, ConfigChangedError, fingerprint, latest, load_state, release
from ageflow.data.faces import Faces
from ageflow.flows.glow import load_glow
from ageflow.report.results import origins
from ageflow.run import Workspace
from ageflow.training.classifier import load_classifier
from ageflow.training.decoded_age import DecodedAge, train_age_classifier
from ageflow.training.decoded_face import features_distance, structure_distance, surroundings_distance
from ageflow.training.ictm import TranslatorTask, train_translator
from ageflow.training.judges import ClassifierTask, train_classifiers
from ageflow.training.loop import train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import pieces
from ageflow.translation.latents import Latents
from ageflow.translation.losses import attributes
from ageflow.translation.methods import load_method
from ageflow.translation.prototypes import Prototypes
from tests.tiny import BRIGHTNESS, encoded_run, parameters

# Nothing but A moves T.
ONLY_A = {"akd_weight": 0.0, "adversarial_weight": 0.0, "consistency_weight": 0.0}
UPDATES = 120  # of C: by then it tells the four brightnesses and the two tints


def settings_of(step: str, runs_root, **values):
    return ageflow.settings(step, parameters(runs_root, **values))


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory):
    """The drawn faces with GLOW, latents and averages, and the ICTM that learned from A alone."""
    root = tmp_path_factory.mktemp("decoded")
    encoded_run(root, iterations=40)
    train_translator(ictm(root))
    return root


def ictm(runs_root, step: str = "train_ictm", **values):
    rare = {"preview_every": 100, "checkpoint_every": 100, "iterations": 80}
    given = {"age_classifier": "decoded", "age_classifier_iterations": UPDATES, **ONLY_A, **rare, **values}
    return settings_of(step, runs_root, **given)


@pytest.fixture(scope="module")
def faces(runs_root):
    return Faces.open(Workspace.of(ictm(runs_root)).path("faces"))


def classifier_folder(runs_root):
    return Workspace.of(ictm(runs_root)).path("decoded_age")


def test_it_is_the_classifier_of_the_decoded_face_and_passes_gradients_to_the_latent_alone(runs_root, faces):
    glow = load_glow(Workspace.of(ictm(runs_root)).path("glow"))
    classifier = load_classifier(classifier_folder(runs_root))
    age = DecodedAge(glow, classifier)
    images = faces.images(slice(0, 6))
    z = glow.encode(images).requires_grad_()
    logits = age(z)
    seen = classifier(images)
    torch.testing.assert_close(
        torch.cat([logits, *age.told(age.decode(z))[1].values()], dim=1), seen, atol=1e-3, rtol=1e-3
    )
    assert (logits.shape, seen.shape) == ((6, 4), (6, 6)), "four groups, two genders"
    logits[:, 3].sum().backward()
    step = z.grad / z.grad.flatten(1).norm(dim=1, keepdim=True)
    with torch.no_grad():
        risen = age(z + 0.01 * step)[:, 3] - logits[:, 3]
    expected = 0.01 * z.grad.norm(dim=1)
    torch.testing.assert_close(risen, expected, rtol=0.2, atol=1e-3)
    assert all(parameter.grad is None for parameter in age.parameters())


def test_t_moves_the_decoded_face_to_the_age_that_a_sees(runs_root, faces):
    """Brightness is the age: moved to the youngest group a face comes out brighter than moved to the oldest."""
    method = load_method("ageflow", run="tiny", runs_root=runs_root)
    held_out = faces.select(split="test")
    images = held_out.images(slice(0, 24))
    means = [float(method.translate(images, torch.full((24,), group)).mean()) for group in range(4)]
    assert means[0] - means[3] > 0.25 * (BRIGHTNESS[0] - BRIGHTNESS[3])
    assert np.all(np.diff(means) < 0), "darker with every group"


@pytest.mark.parametrize("shown", ["source_colours", "source_surroundings", "source_mouth"])
def test_t_s_loss_is_of_its_faces_as_shown_beside_their_own_sources(runs_root, faces, shown):
    settings = ictm(runs_root, **{shown: True})
    with pytest.raises(ValueError, match=f"{shown} = True needs the faces"):
        task_of(runs_root, None, settings)
    task = task_of(runs_root, faces, settings)
    assert task.config[shown]
    translator = task.modules["translator"]
    load_state(translator, Workspace.of(settings).path("ictm"), "translator")  # one that moves faces
    piece = pieces(3, size=8, micro_batch=8)[0]
    torch.manual_seed(0)
    told = task.translator_loss(piece)[1]["age"]

    def expected(*source):
        torch.manual_seed(0)
        target = torch.randint(4, (8,))
        z_t = translator(task.batch(piece)[0], target)[0]
        images = task.decoded_age.decode(z_t)
        return torch.nn.functional.cross_entropy(
            task.decoded_age.told(images, piece, *source, target=target)[0], target
        )

    torch.testing.assert_close(told, expected(faces.images(task.chosen(piece))))
    least = 0.01 if shown == "source_mouth" else 0.1  # of a drawn face's age little is in its mouth
    assert abs(told - expected()) > least, "as it is a face pleases C more or less"
    assert abs(told - expected(faces.images(task.chosen(piece)).flip(0))) > least, "each face has its own source"


def test_the_source_s_mouth_is_shown_for_the_target_groups_that_ask_for_it(runs_root, faces):
    task = task_of(runs_root, faces, ictm(runs_root, source_mouth=[False, True, True, False]))
    told = task.decoded_age.told
    rows = task.rows["test"][:8]
    source = faces.images(rows).flip(0)  # mouths of other people, so that they can be seen
    images = task.decoded_age.decode(task.latents.batch(rows))
    for group in range(4):
        target = torch.full((8,), group)
        shown, plain = told(images, None, source, target)[0], told(images)[0]
        if group in (1, 2):
            every = task_of(runs_root, faces, ictm(runs_root, source_mouth=True)).decoded_age
            torch.testing.assert_close(shown, every.told(images, None, source)[0])
            assert (shown - plain).abs().max() > 1e-3
        else:
            torch.testing.assert_close(shown, plain)
    of_each = torch.arange(8) % 4
    alone = torch.stack([told(images, None, source, torch.full((8,), int(g)))[0][i] for i, g in enumerate(of_each)])
    torch.testing.assert_close(told(images, None, source, of_each)[0], alone, rtol=1e-4, atol=1e-5)

    with pytest.raises(ValueError, match="pass target"):
        told(images, None, source)


def test_all_of_it_goes_to_the_device_that_t_is_trained_on(runs_root, faces, monkeypatch):
    moved = []

    def to(module, device):
        moved.append(torch.device(device))
        return torch.nn.Module.to(module, device)

    monkeypatch.setattr(DecodedAge, "to", to)
    task = task_of(runs_root, faces, ictm(runs_root, source_mouth=[False, True, True, False]))
    assert moved == [task.device]
    there = task.decoded_age.to("meta")
    assert {tensor.device.type for tensor in (*there.parameters(), *there.buffers(), there.mouths)} == {"meta"}


def test_it_sees_no_value_that_a_saved_face_cannot_have(runs_root, faces):
    task = task_of(runs_root, faces, ictm(runs_root))
    far = 30 * task.latents.batch(task.rows["test"][:6])
    images = task.glow.decode(far)
    assert (images < 0).any()
    assert (images > 1).any()
    torch.testing.assert_close(task.decoded_age(far), task.decoded_age.classifier(images.clamp(0, 1))[:, :4])


def task_of(runs_root, faces, settings) -> TranslatorTask:
    workspace = Workspace.of(settings)
    of = Faces.open(workspace.path("faces"))
    latents, prototypes = Latents.open(workspace.path("latents"), of), Prototypes.load(workspace.path("prototypes"))
    where = workspace.path("glow"), "ictm", classifier_folder(runs_root)
    return TranslatorTask(settings, latents, prototypes, *where, faces)


def test_it_tells_the_attributes_of_held_out_faces_too(runs_root):
    assert read_metrics(classifier_folder(runs_root))["test/gender_accuracy"].dropna().iloc[-1] > 0.9


@pytest.mark.parametrize("asked", [0, 1])
def test_t_makes_the_decoded_face_keep_the_attributes_it_is_asked_to(runs_root, faces, tmp_path, asked):
    """Asked for one gender of all it gives that one: the attribute loss alone moves what is a face's gender.

    Asked for the other of each, T must tell the two apart: on one thread it then drew all faces beyond [0, 1], where
    there is no gradient, and stayed there.
    """
    settings = ictm(runs_root, age_weight=0.0, attribute_weight=1.0, iterations=40)
    task = task_of(runs_root, faces, settings)
    gender = task.values["gender"]
    assert gender.tolist() == [["female", "male"].index(value) for value in task.latents.table["gender"]]
    task.values["gender"] = torch.full_like(gender, asked)
    train(task, settings, tmp_path)
    z = task.latents.batch(task.rows["test"])
    with torch.no_grad():
        moved = task.modules["translator"](z, torch.ones(len(z), dtype=torch.int64))[0]
        before, after = (
            task.decoded_age.told(task.decoded_age.decode(latents))[1]["gender"].argmax(1) for latents in (z, moved)
        )
    own = gender[task.rows["test"]]
    assert (before == own).float().mean() > 0.9
    assert 0.2 < (own == asked).float().mean() < 0.8
    assert (after == asked).float().mean() > 0.9


def test_each_face_is_asked_for_the_structure_and_the_mouth_of_its_own_teacher(runs_root, faces):
    weights = {"structure_weight": 2.0, "features_weight": 10.0, "surroundings_weight": 5.0}
    task = task_of(runs_root, faces, ictm(runs_root, **weights))
    assert {name: task.config[name] for name in weights} == weights
    without = task_of(runs_root, faces, ictm(runs_root))
    assert {without.config[name] for name in weights} == {None}, "a run of before these were there is the same training"
    translator = task.modules["translator"]
    load_state(translator, Workspace.of(ictm(runs_root)).path("ictm"), "translator")
    load_state(without.modules["translator"], Workspace.of(ictm(runs_root)).path("ictm"), "translator")
    piece = pieces(3, size=8, micro_batch=8)[0]
    torch.manual_seed(0)
    loss, told = task.translator_loss(piece)
    torch.manual_seed(0)
    plain, parts = without.translator_loss(piece)
    assert "structure" not in parts
    torch.manual_seed(0)
    target = torch.randint(4, (8,))
    z, source, combination = task.batch(piece)
    moved = task.decoded_age.decode(translator(z, target)[0])
    teacher = z + task.settings.scale * task.prototypes.direction(source, target, combination)
    assert (target == source).any()
    like = task.decoded_age.decode(teacher)
    torch.testing.assert_close(told["structure"], structure_distance(moved, like).mean())
    torch.testing.assert_close(told["features"], features_distance(moved, like).mean())
    torch.testing.assert_close(told["surroundings"], surroundings_distance(moved, like).mean())
    asked = 2 * told["structure"] + 10 * told["features"] + 5 * told["surroundings"]
    torch.testing.assert_close(loss, plain + asked)


def test_asked_for_it_t_keeps_its_teacher_s_face(runs_root, faces, tmp_path):
    """C alone makes T leave its structure, features and surroundings; with the three losses T leaves them less.

    At a rate of 1e-3 L1 losses that weigh more than L_acl have T swing about its teacher.
    """
    left = []
    for weight in (0.0, 3.0):
        weights = {"structure_weight": weight, "features_weight": 3 * weight, "surroundings_weight": 3 * weight}
        settings = ictm(runs_root, iterations=40, learning_rate=2e-4, **weights)
        task = task_of(runs_root, faces, settings)
        train(task, settings, tmp_path / f"{weight}")
        rows = task.rows["test"][:24]
        z, target = task.latents.batch(rows), torch.arange(24) % 4
        with torch.no_grad():
            moved = task.decoded_age.decode(task.modules["translator"](z, target)[0])
            direction = task.prototypes.direction(task.groups[rows], target, task.combinations[rows])
            like = task.decoded_age.decode(z + settings.scale * direction)
        distances = (structure_distance, features_distance, surroundings_distance)
        left.append(torch.stack([distance(moved, like).mean() for distance in distances]))
    without, asked = left
    assert (asked < 0.7 * without).all(), left


def test_each_face_is_asked_to_keep_its_own_attributes(runs_root, faces):
    """The loss is of the chosen faces' own values, face by face: of other faces' values it is another."""
    task = task_of(runs_root, faces, ictm(runs_root, attribute_weight=1.0))
    piece = pieces(3, size=8, micro_batch=8)[0]
    torch.manual_seed(0)
    told = task.translator_loss(piece)[1]["attributes"]

    def expected(gender):
        torch.manual_seed(0)
        target = torch.randint(4, (8,))
        z_t = task.modules["translator"](task.batch(piece)[0], target)[0]
        return attributes(task.decoded_age.told(task.decoded_age.decode(z_t), piece)[1], {"gender": gender})

    own = torch.tensor([["female", "male"].index(faces.table["gender"][row]) for row in task.chosen(piece)])
    assert 0 < own.sum() < len(own)
    torch.testing.assert_close(told, expected(own))
    for row in range(len(own)):
        other = own.clone()
        other[row] = 1 - other[row]
        assert abs(told - expected(other)) > 1e-3


def test_where_faces_have_no_attributes_t_learns_without_them(runs_root, faces, tmp_path):
    """A set without genders, in a preset that asks to keep them."""
    judge = settings_of("train_classifiers", runs_root, iterations=1)
    train(ClassifierTask(judge, faces, "age"), judge, tmp_path / "classifier")
    settings = ictm(runs_root, attribute_weight=1.0, iterations=1)
    workspace = Workspace.of(settings)
    latents, prototypes = Latents.open(workspace.path("latents"), faces), Prototypes.load(workspace.path("prototypes"))
    glow = workspace.path("glow")
    task = TranslatorTask(settings, latents, prototypes, glow, age_classifier=tmp_path / "classifier")
    metrics = read_metrics(train(task, settings, tmp_path / "translator"))
    assert "T/age" in metrics
    assert "T/attributes" not in metrics


def test_a_face_whose_attribute_is_not_known_asks_nothing():
    logits = {"gender": torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 0.0]])}
    of_two = attributes(logits, {"gender": torch.tensor([0, -1, 1])})
    apart = [
        attributes({"gender": logits["gender"][[row]]}, {"gender": torch.tensor([value])})
        for row, value in ((0, 0), (2, 1))
    ]
    torch.testing.assert_close(of_two, sum(apart) / 3)


def test_a_batch_that_is_cut_up_has_the_same_loss(runs_root, faces):
    settings = ictm(runs_root, attribute_weight=1.0)
    task = task_of(runs_root, faces, settings)

    def loss(micro_batch: int) -> float:
        total = 0.0
        for piece in pieces(3, settings.batch_size, micro_batch):
            torch.manual_seed(5)
            total += float(task.translator_loss(piece)[0].detach()) * piece.share
        return total

    assert loss(settings.batch_size) == pytest.approx(loss(5), rel=1e-5)


def test_a_run_keeps_it_apart_from_the_judge_and_the_ablation_learns_from_the_same(runs_root):
    workspace = Workspace.of(ictm(runs_root))
    kept = fingerprint(classifier_folder(runs_root))
    assert latest(workspace.path("ictm")).config["decoded_age"] == kept
    no_ictm = train_translator(ictm(runs_root, "ablations", iterations=2, restart=True), "no_ictm")
    assert latest(no_ictm).config["decoded_age"] == kept == fingerprint(classifier_folder(runs_root))
    judge = train_classifiers(settings_of("train_classifiers", runs_root, iterations=1))["age"]
    theirs, ours = (load_classifier(folder).network.conv1.weight for folder in (judge, classifier_folder(runs_root)))
    assert (theirs - ours).abs().max() > 0.01, "the judge began from other weights"


def test_with_other_values_it_is_kept_unless_told_to_begin_anew(runs_root, faces):
    before = fingerprint(classifier_folder(runs_root))
    other = ictm(runs_root, age_classifier_iterations=2, seed=4)
    to_04 = r"seed: .*pass restart=True to train_ictm, .*-p train_ictm\.restart True"
    for kind in ("ictm", "no_ictm"):  # notebook 06's restart leaves it as it is
        with pytest.raises(ConfigChangedError, match=to_04):
            train_translator(other, kind)
    assert fingerprint(classifier_folder(runs_root)) == before
    train_age_classifier(other, faces, anew=True)
    assert fingerprint(classifier_folder(runs_root)) != before
    aside = classifier_folder(runs_root).with_name("decoded_age.1")
    assert fingerprint(aside) == before, "the one before lies beside it"


def test_from_nothing_it_does_not_begin_from_the_weights_of_the_preset_s_judges(runs_root, faces):
    """The demo's judges begin from weights, which C shares nothing with."""
    given = {"preset": "demo", "run": "nothing", "age_classifier_from": "nothing", "age_classifier_iterations": 1}
    assert ageflow.settings("train_classifiers", {"preset": "demo"}).init_from is not None
    settings = settings_of("train_ictm", runs_root, **given)
    Workspace.of(settings).folder()
    folder = train_age_classifier(settings, faces)
    assert latest(folder).config.get("init_from") is None


def test_it_begins_from_weights_and_takes_their_architecture(runs_root, faces, tmp_path):
    """Trained elsewhere as resnet14, released in half precision: one update of 1e-3 takes no weight further."""
    judge = settings_of("train_classifiers", runs_root, iterations=10, architecture="resnet14")
    task = ClassifierTask(judge, faces, "age", faces.attributes, also=faces.attributes)
    assert sum(weight.numel() for weight in task.modules.parameters()) < 3e6
    file = release(train(task, judge, tmp_path / "elsewhere"), tmp_path / "classifier.safetensors", half=True)
    assert file.stat().st_size < 6e6
    settings = ictm(runs_root, age_classifier_from=str(file), age_classifier_iterations=1, run="begun")
    Workspace.of(settings).folder()
    folder = train_age_classifier(settings, faces)
    before, after = (load_classifier(of) for of in (tmp_path / "elsewhere", folder))
    theirs, ours = (dict(classifier.named_parameters()) for classifier in (before, after))
    assert theirs.keys() == ours.keys()
    assert max((theirs[name] - ours[name]).abs().max() for name in ours) < 2e-3
    assert after.also == before.also == {"gender": ("female", "male")}
    assert "from " + str(file) in " ".join(origins(Workspace.of(settings)))


def test_it_learns_at_a_rate_of_its_own(runs_root, faces):
    """A first update of Adam moves a weight by the rate: here by the judge's 1e-3, and by one that is named."""
    source, moved = classifier_folder(runs_root), []
    for rate in (None, 1e-5):
        begun = {"age_classifier_from": str(source), "age_classifier_iterations": 1, "ema": 0.0}
        settings = ictm(runs_root, **begun, age_classifier_learning_rate=rate, run=f"rate-{rate}")
        Workspace.of(settings).folder()
        theirs, ours = (
            dict(load_classifier(of).named_parameters()) for of in (source, train_age_classifier(settings, faces))
        )
        moved.append(max(float((theirs[name] - ours[name]).abs().max()) for name in ours))
    assert moved[1] < 2e-5 < 2e-4 < moved[0]
    assert ageflow.settings("train_ictm", {"age_classifier_from": "nothing"}).age_classifier_learning_rate == 1e-3


def test_without_updates_it_is_the_weights_that_it_begins_from(runs_root, faces, tmp_path):
    source = classifier_folder(runs_root)
    settings = ictm(runs_root, age_classifier_from=str(source), age_classifier_iterations=0, run="kept")
    Workspace.of(settings).folder()
    for _ in range(2):  # made, then found
        folder = train_age_classifier(settings, faces)
        expected, kept = (load_classifier(of).state_dict() for of in (source, folder))
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
    assert origins(Workspace.of(settings)) == [f"A behind the decoder loaded from {source}"]
    told = [read_metrics(of)["test/accuracy"].dropna().iloc[-1] for of in (source, folder)]
    assert told[0] == told[1]
    judge = settings_of("train_classifiers", runs_root, iterations=1)
    of_age = train(ClassifierTask(judge, faces, "age"), judge, tmp_path / "age")
    settings = ictm(runs_root, age_classifier_from=str(of_age), age_classifier_iterations=0, run="untold")
    Workspace.of(settings).folder()
    untold = load_classifier(train_age_classifier(settings, faces))
    assert untold.also == {}, "it does not learn the genders, and cannot tell them"
    with pytest.raises(ageflow.config.ParameterError, match=r"^age_classifier_iterations = 0 .*name some"):
        ictm(runs_root, age_classifier_iterations=0)


def test_an_attribute_that_the_weights_do_not_tell_is_learned_anew(runs_root, faces, tmp_path):
    """Weights that tell age alone, and faces with genders: the ages' logits are theirs, the genders' are new."""
    judge = settings_of("train_classifiers", runs_root, iterations=1)
    file = release(train(ClassifierTask(judge, faces, "age"), judge, tmp_path / "age"), tmp_path / "age.safetensors")
    begun = judge.model_copy(update={"init_from": str(file)})
    classifier = ClassifierTask(begun, faces, "age", also=["gender"]).modules["classifier"].eval()
    new = ClassifierTask(judge, faces, "age", also=["gender"]).modules["classifier"]
    images = faces.images(slice(0, 6))
    torch.testing.assert_close(classifier.apart(classifier(images))[0], load_classifier(tmp_path / "age")(images))
    assert torch.equal(classifier.network.fc.weight[4:], new.network.fc.weight[4:])
    both = ClassifierTask(begun, faces, "age", also=["gender"])
    file = release(train(both, begun, tmp_path / "both"), tmp_path / "both.safetensors")
    alone = ClassifierTask(judge.model_copy(update={"init_from": str(file)}), faces, "age").modules["classifier"].eval()
    assert alone.network.fc.out_features == 4, "an attribute that is not asked for is left out"
    with pytest.raises(CheckpointError, match=r"architecture = 'resnet14', not 'resnet18'"):
        ClassifierTask(judge.model_copy(update={"init_from": str(file), "architecture": "resnet18"}), faces, "age")
    both = load_classifier(tmp_path / "both")
    torch.testing.assert_close(alone(images), both.apart(both(images))[0])


def test_without_it_a_training_is_what_it_was_before(runs_root, faces):
    """The config of D's own head names nothing of it: a run from before it was there goes on."""
    workspace = Workspace.of(ictm(runs_root))
    latents, prototypes = Latents.open(workspace.path("latents"), faces), Prototypes.load(workspace.path("prototypes"))
    task = TranslatorTask(settings_of("train_ictm", runs_root), latents, prototypes, workspace.path("glow"))
    assert not {name for name in task.config if "age_classifier" in name or "decoded" in name}


def test_genders_weigh_alike_in_every_group_however_many_there_are(runs_root, faces):
    """Three in four of the youngest are women: they weigh a third as much, and the groups weigh alike."""
    women, men = ((faces.table["gender"] == gender) & (faces.groups == 0) for gender in ("female", "male"))
    table = pd.concat([faces.table[~men]] * 6 + [faces.table[men]] * 2)
    uneven = Faces(faces.folder, table)
    assert women.sum() == men.sum(), "as they are drawn"
    for regardless_of in (["gender"], []):
        task = ClassifierTask(settings_of("train_classifiers", runs_root), uneven, "age", regardless_of)
        cells = uneven.table.assign(weight=task.weights.numpy())[uneven.table["split"] == "train"]
        of_groups = cells.groupby("group")["weight"].sum()
        np.testing.assert_allclose(of_groups, len(cells) / 4, rtol=1e-5)
        young = cells[cells["group"] == 0].groupby("gender")["weight"].sum()
        assert young["female"] / young["male"] == pytest.approx(1 if regardless_of else 3, rel=1e-5)
        assert not task.weights.numpy()[uneven.table["split"] == "test"].any()


def test_updates_of_a_classifier_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(
        ageflow.config.ParameterError, match=r"age_classifier_iterations = 7 .*pass age_classifier = decoded"
    ):
        settings_of("train_ictm", tmp_path, age_classifier_iterations=7)
    with pytest.raises(
        ageflow.config.ParameterError, match=r"age_classifier_from = 'pretrained' .*leave age_classifier_from out"
    ):
        settings_of("train_ictm", tmp_path, age_classifier_from="pretrained")
    with pytest.raises(ageflow.config.ParameterError, match=r"attribute_weight = 0.5 .*pass age_classifier = decoded"):
        settings_of("train_ictm", tmp_path, attribute_weight=0.5)


def test_what_the_demo_asks_of_it_gives_way_to_what_is_named():
    """The demo takes the classifier that ships as it is; whoever names another way does not have to undo that."""
    demo = ageflow.settings("train_ictm", {"dataset": "demo"})
    assert (demo.age_classifier, demo.age_classifier_from, demo.age_classifier_iterations) == (
        "decoded",
        "pretrained",
        0,
    )
    latent = ageflow.settings("ablations", {"dataset": "demo", "age_classifier": "latent"})
    assert (latent.age_classifier_from, latent.age_classifier_iterations, latent.attribute_weight) == (None, None, 0)
    new = ageflow.settings("train_ictm", {"dataset": "demo", "age_classifier_from": "nothing"})
    assert (new.age_classifier_from, new.age_classifier_iterations) == (None, None), "trained as long as the judge"
