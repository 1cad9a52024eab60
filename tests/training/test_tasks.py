"""GLOW and the translators, trained on real faces at smoke size."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ageflow
from ageflow.checkpoint import CheckpointError, ConfigChangedError, latest
from ageflow.config import ParameterError
from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.flows.glow import load_glow
from ageflow.run import MissingArtefactError, Workspace
from ageflow.training.glow import GlowTask, describe_glow, train_glow
from ageflow.training.ictm import TranslatorTask, round_trip, train_translator
from ageflow.training.loop import train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import Piece
from ageflow.translation import latents as latents_module
from ageflow.translation.latents import Latents, encode_faces
from ageflow.translation.methods import METHODS, load_method
from ageflow.translation.prototypes import Prototypes, compute_prototypes, direction_lengths
from tests.training.processes import disk_of, interrupted_at, settings_of, with_faces

STRONG = {"iterations": 120, "akd_weight": 20.0, "learning_rate": 3e-3, "preview_every": 120}


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory, demo_faces_folder):
    """A folder of runs in which each run of these tests finds the prepared faces."""
    root = tmp_path_factory.mktemp("runs")
    for run in ("whole", "parts"):
        (root / "demo" / run).mkdir(parents=True)
        (root / "demo" / run / "faces").symlink_to(demo_faces_folder)
    return root


@pytest.fixture(scope="module")
def trained(runs_root):
    """A run with GLOW, latents, averages and both translators, strongly drawn to their teacher."""
    glow = train_glow(settings_of("train_glow", runs_root, iterations=40))
    settings = settings_of("prototypes", runs_root)
    compute_prototypes(settings, encode_faces(settings))
    train_translator(settings_of("train_ictm", runs_root, **STRONG))
    train_translator(settings_of("train_ictm", runs_root, **STRONG), "no_ictm")
    return glow


class _Reads(TorchDispatchMode):
    """Counts how often the host reads a value that the device computed, and so waits for it."""

    asking = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count = getattr(self, "count", 0) + (function in self.asking)
        return function(*args, **(kwargs or {}))


def test_a_step_does_not_wait_for_the_device(trained, runs_root, tmp_path):
    """More iterations between two logged ones make no more reads: none of them belongs to a step."""
    settings, ictm = settings_of("train_glow", runs_root), settings_of("train_ictm", runs_root)
    workspace = Workspace.of(settings)
    faces = Faces.open(workspace.require("faces"))
    latents = Latents.open(workspace.require("latents"), faces)
    prototypes = Prototypes.load(workspace.require("prototypes"))
    makers = {
        "glow": lambda: GlowTask(settings, faces),
        "ictm": lambda: TranslatorTask(ictm, latents, prototypes, workspace.require("glow")),
    }
    for name, make in makers.items():
        reads = {}
        for iterations in (3, 6):
            task = make()
            rare = dict.fromkeys(("log_every", "preview_every", "checkpoint_every"), 100) | {"iterations": iterations}
            with _Reads() as counter:
                train(task, task.settings.model_copy(update=rare), tmp_path / f"{name}-{iterations}")
            reads[iterations] = counter.count
        assert reads[3] == reads[6] > 0, name


def test_a_loss_weighs_a_face_by_the_group_it_is_to_reach(trained, runs_root):
    """Over one batch: what is asked of one target group at a time adds up to what is asked of all."""
    workspace = Workspace.of(settings_of("train_ictm", runs_root))
    latents = Latents.open(workspace.require("latents"), Faces.open(workspace.require("faces")))
    prototypes = Prototypes.load(workspace.require("prototypes"))

    def losses(**values) -> tuple[float, dict[str, torch.Tensor]]:
        settings = settings_of("train_ictm", runs_root, **values)
        torch.manual_seed(0)
        with torch.no_grad():
            task = TranslatorTask(settings, latents, prototypes, workspace.require("glow"))
            loss, parts = task.translator_loss(Piece(0, 0, 64, 64))
        return float(loss), parts

    one_at_a_time = [[20.0 if group == target else 0.0 for group in range(4)] for target in range(4)]
    none, every = losses(akd_weight=0.0)[0], losses(akd_weight=20.0)[0]
    each = [losses(akd_weight=weights)[0] - none for weights in one_at_a_time]
    assert min(each) > 0.1 * (every - none)
    assert sum(each) == pytest.approx(every - none, rel=1e-3)
    ages = [float(losses(age_focus=focus)[1]["age"]) for focus in (0.0, [0, 2, 2, 0], 2.0)]
    assert ages[0] > ages[1] > ages[2]


def test_what_an_update_left_that_was_broken_off_is_not_kept(trained, runs_root):
    """As where memory runs out before D's turn; within an update every pass waits for its own."""
    settings = settings_of("train_ictm", runs_root)
    workspace = Workspace.of(settings)
    latents = Latents.open(workspace.require("latents"), Faces.open(workspace.require("faces")))
    task = TranslatorTask(
        settings, latents, Prototypes.load(workspace.require("prototypes")), workspace.require("glow")
    )
    for number in (0, 1):
        passes = [Piece(number, start, start + 4, 8) for start in (0, 4)]
        with torch.no_grad():
            for piece in passes:
                task.translator_loss(piece)
    assert list(task._translated) == passes
    with torch.no_grad():
        assert all(torch.isfinite(task.discriminator_loss(piece)[0]) for piece in passes)
    assert not task._translated


@pytest.mark.parametrize("value", [[30, 2], -1, [1, 2, 3, -4], "many", True, float("nan")])
def test_a_weight_is_one_number_or_one_for_each_target_group(value):
    with pytest.raises(ParameterError, match=r"akd_weight = .*at least 0, or a list of 4: .*31-40"):
        ageflow.settings("train_ictm", {"akd_weight": value})


def test_glow_learns_real_faces(trained, runs_root):
    bits = read_metrics(trained)["test/bits_per_dim"].dropna()
    assert bits.iloc[-1] < bits.iloc[0] - 0.2
    settings = settings_of("train_glow", runs_root)
    faces = Faces.open(Workspace.of(settings).require("faces"))
    row = describe_glow(load_glow(trained), faces, settings).iloc[0]
    assert row["equal_8_bit"] == 1
    assert row["largest_error"] < 1e-3
    assert 1 < row["bits_per_dim"] < 5
    assert (trained / "samples" / "samples-00000040.png").is_file()


def test_a_stopped_glow_goes_on_to_the_same_weights(runs_root, monkeypatch):
    whole = train_glow(settings_of("train_glow", runs_root, "parts", iterations=12))
    expected = latest(whole).tensors("")
    whole.rename(whole.with_name("glow-whole"))
    # Stopped inside iteration 9, after the checkpoint of iteration 5, as a kill would.
    interrupted_at(8, GlowTask, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train_glow(settings_of("train_glow", runs_root, "parts", iterations=12))
    monkeypatch.undo()
    found = latest(train_glow(settings_of("train_glow", runs_root, "parts", iterations=12))).tensors("")
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_latents_are_encoded_once_and_decode_to_the_faces(trained, runs_root):
    settings = settings_of("prototypes", runs_root)
    faces = Faces.open(Workspace.of(settings).require("faces"))
    written = Workspace.of(settings).path("latents", "latents.npy").stat().st_mtime_ns
    latents = encode_faces(settings)
    assert Workspace.of(settings).path("latents", "latents.npy").stat().st_mtime_ns == written
    assert latents.array.shape == (len(faces), 3 * 32 * 32)
    back = load_glow(trained).decode(latents.batch([0, 5]))
    assert torch.equal(ageflow.to_uint8(back), faces.images([0, 5]))


def test_latents_that_the_disk_has_no_room_for_are_not_begun(trained, runs_root, tmp_path):
    """Checked against a disk of 64 kB; at 256x256 those of CACD take 128 GB, and hours."""
    shutil.copytree(runs_root / "demo" / "whole", tmp_path / "demo" / "whole", symlinks=True)
    settings = settings_of("prototypes", tmp_path)
    folder = Workspace.of(settings).path("latents")
    shutil.rmtree(folder)
    with (
        disk_of("64k", folder),
        pytest.raises(OSError, match=r"latents of 96 faces take 0\.0 GB, .*latents has 0\.0 GB free: make room"),
    ):
        encode_faces(settings)
    assert len(encode_faces(settings).array) == 96


def test_several_processes_encode_what_one_that_was_stopped_left(trained, runs_root, tmp_path, monkeypatch):
    """On a local dask cluster, as on GPUs; what the first one did stays, and nothing is done twice."""
    shutil.copytree(runs_root / "demo" / "whole", tmp_path / "demo" / "whole", symlinks=True)
    settings = settings_of("prototypes", tmp_path, encode_batch=8, workers=1)
    folder = Workspace.of(settings).path("latents")
    expected = np.load(folder / "latents.npy")
    shutil.rmtree(folder)
    note = latents_module._note

    def stopped(folder, state):
        note(folder, state)
        if state["done"] == [[0, 16]]:
            raise KeyboardInterrupt

    monkeypatch.setattr(latents_module, "_note", stopped)
    with pytest.raises(KeyboardInterrupt):
        encode_faces(settings)
    monkeypatch.undo()
    half = np.load(folder / "latents.partial.npy", mmap_mode="r+")
    assert np.abs(half[:16] - expected[:16]).max() < 1e-5
    assert not half[16:].any()
    half[3] = 7  # to tell whether it is encoded again
    half.flush()
    monkeypatch.setattr(latents_module, "_FACES_OF_A_TASK", 10)  # 16, two batches
    latents = encode_faces(settings.model_copy(update={"workers": 2}))
    assert (latents.array[3] == 7).all()
    others = np.arange(len(expected)) != 3
    assert np.abs(latents.array[others] - expected[others]).max() < 1e-5
    assert sorted(path.name for path in folder.iterdir()) == ["latents.json", "latents.npy"]


def test_averages_are_those_of_the_training_faces(trained, runs_root):
    settings = settings_of("prototypes", runs_root, min_cell=1)
    latents = Latents.open(Workspace.of(settings).path("latents"), Faces.open(Workspace.of(settings).require("faces")))
    prototypes = compute_prototypes(settings, latents)
    for group in range(4):
        rows = latents.rows(split="train", group=group, gender="female")
        cell = prototypes.cells[(prototypes.cells.group == AGE_GROUPS[group]) & (prototypes.cells.gender == "female")]
        assert cell["count"].item() == len(rows)
        torch.testing.assert_close(prototypes.means[group, 0], latents.batch(rows).double().mean(0).float())
    high = compute_prototypes(settings.model_copy(update={"min_cell": 10_000}), latents)
    assert set(high.cells.query("gender != 'any'")["average_of"]) == {"group"}
    assert torch.equal(high.means[2, 0], high.means[2, high.any])
    unsaid = compute_prototypes(settings.model_copy(update={"attributes": None}), latents)
    assert (unsaid.attributes, unsaid.combinations) == (("gender",), prototypes.combinations)
    table = latents.table.assign(gender=None)
    nobody_s = compute_prototypes(settings.model_copy(update={"attributes": None}), replace(latents, table=table))
    assert nobody_s.attributes == ()
    compute_prototypes(settings_of("prototypes", runs_root), latents)
    lengths = direction_lengths(prototypes)
    assert len(lengths) == 3 * 3, "three steps for each of female, male and any"
    first = (prototypes.means[1, 0] - prototypes.means[0, 0]).norm().item()
    counts = prototypes.cells.query("gender == 'female'")["count"].to_numpy()[:2]
    assert lengths["length"][0] == pytest.approx(first)
    assert lengths["by_chance"][0] == pytest.approx((3072 / counts[0] + 3072 / counts[1]) ** 0.5)


@pytest.mark.parametrize("latent", ["all", "top", [0]])
def test_a_translator_is_held_to_its_teacher_in_the_levels_that_it_sees(trained, runs_root, latent):
    """One that does in them what its teacher does has nothing left to learn, whatever lies in the others."""
    settings = settings_of("train_ictm", runs_root, latent=latent)
    workspace = Workspace.of(settings)
    latents = Latents.open(workspace.path("latents"), Faces.open(workspace.path("faces")))
    prototypes = Prototypes.load(workspace.path("prototypes"))
    task = TranslatorTask(settings, latents, prototypes, workspace.path("glow"), kind="no_ictm")
    piece = Piece(0, 0, 8, 8)
    _, source, combination = task.batch(piece)
    visible = task.modules["translator"].visible

    def told(moved):
        task.modules["translator"].forward = moved
        torch.manual_seed(0)
        return task.translator_loss(piece)[1]

    def taught(z, target):
        teacher = z + settings.scale * prototypes.direction(source, target, combination)
        return visible.put(z, visible.take(teacher)).requires_grad_()

    learned = told(taught)
    assert learned["distillation"].item() == task._left(learned)["distillation_left"].item() == 0
    untouched = told(lambda z, target: z.clone().requires_grad_())
    torch.manual_seed(0)
    direction = settings.scale * prototypes.direction(source, torch.randint(4, (8,)), combination)
    torch.testing.assert_close(untouched["distillation"], visible.flat(direction).abs().mean())


@pytest.mark.parametrize("kind", ["ictm", "no_ictm"])
def test_a_translator_learns_to_please_the_age_classifier(trained, runs_root, kind):
    metrics = read_metrics(Workspace.of(settings_of("train_ictm", runs_root)).path(kind)).dropna(subset="T/loss")
    assert metrics["T/distillation_left"].iloc[0] == pytest.approx(1), "it starts as the identity"
    start, end = metrics.iloc[:5].mean(), metrics.iloc[-10:].mean()
    assert end["T/age"] < start["T/age"] - 0.1
    assert end["D/age"] < start["D/age"] - 0.3
    if kind == "ictm":
        assert end["T/consistency"] < start["T/consistency"] - 0.2


def test_t_inverts_after_training(trained, runs_root):
    method = load_method("ageflow", run="whole", runs_root=runs_root)
    faces = Faces.open(Workspace.of(settings_of("train_ictm", runs_root)).require("faces"))
    errors = round_trip(method, faces)
    assert errors["latent_error"].max() < 1e-4
    assert errors["pixel_error"].max() == 0


def test_latents_of_another_glow_stop_the_training_before_it_begins(trained, runs_root, tmp_path):
    root = tmp_path / "demo" / "whole"
    shutil.copytree(runs_root / "demo" / "whole", root, symlinks=True)
    train_glow(settings_of("train_glow", tmp_path, iterations=41))
    with pytest.raises(CheckpointError, match=r"latents are of GLOW .* run 03_prototypes\.ipynb again"):
        train_translator(settings_of("train_ictm", tmp_path, restart=True))
    assert (root / "ictm" / "done.json").is_file(), "what was trained is left where it is"


def test_a_glow_goes_on_whatever_memory_its_gradients_take(trained, runs_root, tmp_path):
    """On a smaller GPU, say; the samples' temperature is nothing that it learns from either."""
    shutil.copytree(runs_root / "demo" / "whole", tmp_path / "demo" / "whole", symlinks=True)
    folder = train_glow(settings_of("train_glow", tmp_path, iterations=41, memory="reversible", temperature=0.5))
    assert latest(folder).iteration == 41
    assert latest(folder).config["glow"]["memory"] == "reversible"
    with pytest.raises(ConfigChangedError, match=r"precision: 'fp32' → 'bf16'"):
        train_glow(settings_of("train_glow", tmp_path, iterations=42, precision="bf16"))


def test_averages_that_fall_back_elsewhere_are_another_teacher(trained, runs_root, tmp_path):
    """`min_cell` changes what a small cell's average is of, and so what T learned from, and no count."""
    shutil.copytree(runs_root / "demo" / "whole", tmp_path / "demo" / "whole", symlinks=True)
    averages = settings_of("prototypes", tmp_path, min_cell=8)
    assert (compute_prototypes(averages, encode_faces(averages)).cells["average_of"] != "cell").any()
    with pytest.raises(ConfigChangedError, match="averages_of"):
        train_translator(settings_of("train_ictm", tmp_path, **STRONG))


def test_averages_that_fall_back_in_some_groups_only_are_named(trained, runs_root, tmp_path, recwarn):
    """A direction from one of them to another holds a change of gender beside that of age."""
    shutil.copytree(runs_root / "demo" / "whole", tmp_path / "demo" / "whole", symlinks=True)
    settings = settings_of("prototypes", tmp_path, min_cell=8)
    latents = encode_faces(settings)
    recwarn.clear()
    cells = compute_prototypes(settings, latents).cells
    (said,) = [str(warning.message) for warning in recwarn]
    expected = []
    for gender in ("female", "male"):
        small = cells[(cells["average_of"] != "cell") & (cells["gender"] == gender)]
        named = ", ".join(f"{group} ({count})" for group, count in zip(small["group"], small["count"], strict=True))
        expected += [f"{gender} in {named}"] if 0 < len(small) < 4 else []
    assert said.startswith(f"fewer than min_cell = 8 training faces: {'; '.join(expected)}. Averages of")
    recwarn.clear()
    for everywhere in (1, 10_000):
        compute_prototypes(settings.model_copy(update={"min_cell": everywhere}), latents)
    assert not list(recwarn)


def a_copy(runs_root, name: str) -> Workspace:
    """The trained run's faces, GLOW, latents and averages again, to spoil."""
    whole, copy = Workspace(runs_root, "demo", "whole"), Workspace(runs_root, "demo", name)
    for part in ("faces", "glow", "latents", "prototypes"):
        shutil.copytree(whole.path(part), copy.path(part))
    return copy


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_latents_and_averages_are_named_and_made_again(trained, runs_root, damage):
    copy = a_copy(runs_root, f"damaged-{damage}")
    averages = settings_of("prototypes", runs_root, run=copy.run)
    expected = Latents.open(copy.path("latents"), Faces.open(copy.path("faces"))).array[:].copy()
    array = copy.path("latents", "latents.npy")
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:2000])
    else:
        array.unlink()
    with pytest.raises(CheckpointError, match=r"latents\.npy is damaged: run 03_prototypes"):
        train_translator(settings_of("train_ictm", runs_root, run=copy.run))
    np.testing.assert_array_equal(encode_faces(averages).array, expected)

    file = copy.path("prototypes", "prototypes.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"prototypes\.safetensors cannot be read .*run 03_prototypes"):
        train_translator(settings_of("train_ictm", runs_root, run=copy.run))


def test_other_faces_with_the_same_labels_are_another_training(trained, runs_root):
    """The pictures change places under the labels: T and the averages learned from other faces."""
    copy = a_copy(runs_root, "others")
    train_translator(settings_of("train_ictm", runs_root, run=copy.run, iterations=2))
    file = copy.path("faces", "faces.parquet")
    table = pd.read_parquet(file)
    table["row"] = table["row"].to_numpy()[::-1]
    table.to_parquet(file)
    averages = settings_of("prototypes", runs_root, run=copy.run)
    latents = encode_faces(averages)
    with pytest.raises(CheckpointError, match="averages are of other faces than its latents"):
        train_translator(settings_of("train_ictm", runs_root, run=copy.run, iterations=2))
    compute_prototypes(averages, latents)
    with pytest.raises(ConfigChangedError, match="it learned from other faces than the run has now"):
        train_translator(settings_of("train_ictm", runs_root, run=copy.run, iterations=2))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_ages_images(trained, runs_root, name, monkeypatch):
    method = load_method(name, run="whole", runs_root=runs_root)
    faces = Faces.open(Workspace.of(settings_of("train_ictm", runs_root)).require("faces"))
    images, source = faces.images([0, 1, 2]), torch.from_numpy(faces.groups[:3])
    attributes = faces.table.iloc[:3]
    target = (source + 2) % 4
    aged = method.translate(images, target, source=source, attributes=attributes)
    assert aged.shape == (3, 3, 32, 32)
    assert (aged - images / 255).abs().mean() > 0.005, "the method does nothing"
    weights = torch.nn.functional.one_hot(target, 4).float()
    same = method.translate(images, weights, source=source, attributes=attributes)
    torch.testing.assert_close(same, aged)
    everyone = method.translate(images, torch.tensor([2, 2, 2]), source=source, attributes=attributes)
    for one_for_all in (2, torch.tensor([2]), ageflow.age_to_weights(45.5)[None]):
        torch.testing.assert_close(method.translate(images, one_for_all, source, attributes), everyone)
    with pytest.raises(ValueError, match="target has 2 entries for 3 faces"):
        method.translate(images, torch.tensor([1, 2]), source=source, attributes=attributes)
    if name == "glow+attribute":
        with pytest.raises(ValueError, match=r"attributes\['gender'\] has 1 entries for 3 faces"):
            method.translate(images, target, source=source, attributes={"gender": ["female"]})
        with pytest.raises(ValueError, match=r"attributes\['gender'\] = 'Male': expected female, male, or None"):
            method.translate(images, target, source=source, attributes={"gender": ["female", None, "Male"]})
    for years in ([25, 30, 60], [25.0, 30.0, 60.0]):
        with pytest.raises(ValueError, match=r"in years ageflow\.age_to_weights"):
            method.translate(images, torch.tensor(years), source=source, attributes=attributes)
    with pytest.raises(ValueError, match=r"target = '51\+': expected age groups, from 0 for 30- to 3 for 51\+"):
        method.translate(images, "51+", source=source, attributes=attributes)
    with pytest.raises(ValueError, match=r"in \[0, 1\], and these reach from \d+ to 2\d\d: divide"):
        method.translate(images.float(), target, source=source, attributes=attributes)
    with pytest.raises(ValueError, match=r"many of these values lie below 0: add 1"):
        method.translate(images / 127.5 - 1, target, source=source, attributes=attributes)
    assert torch.equal(ageflow.to_uint8(method.at(0).translate(images, target, source, attributes)), images)
    torch.testing.assert_close(method.at(1).translate(images, target, source, attributes), aged, rtol=0, atol=0)
    half = method.at(0.5).translate(images, target, source, attributes)
    assert 0 < (half - images / 255).abs().mean() < (aged - images / 255).abs().mean()
    if method.invertible:
        z = method.glow.encode(images)
        torch.testing.assert_close(method.at(0.5).round_trip(z, target, source, attributes), z, rtol=0, atol=1e-4)
    for strength in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"strength = {strength}: expected a number of 0 or more"):
            method.at(strength)
    as_float = method.translate(images / 255, target, source=source, attributes=attributes)
    torch.testing.assert_close(as_float, aged)
    encoded = []
    each = torch.tensor([0, 0, 1, 1, 1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(
            method.glow, "encode", lambda faces, of=method.glow.encode: encoded.append(len(faces)) or of(faces)
        )
        repeated = method.translate(images[each], target[each], source[each], attributes.iloc[each.numpy()])
    assert encoded == [3], "a face is encoded once for all its targets"
    torch.testing.assert_close(repeated, aged[each])
    if name.startswith("glow"):
        with pytest.raises(ValueError, match="pass source"):
            method.translate(images, target)
        unchanged = method.translate(images, source, source=source, attributes=attributes)
        assert torch.equal(ageflow.to_uint8(unchanged), images), "its own group is where a face already is"


def test_of_a_set_without_test_faces_the_others_are_described(tmp_path):
    faces = with_faces(tmp_path, "tiny").path("faces")
    table = pd.read_parquet(faces / "faces.parquet")
    table.assign(split="train").to_parquet(faces / "faces.parquet")
    settings = settings_of("train_glow", tmp_path, "tiny", iterations=2)
    told = describe_glow(load_glow(train_glow(settings)), Faces.open(faces), settings, count=4).iloc[0]
    assert (told["faces"], told["split"]) == (4, "train")


def test_a_step_before_its_turn_names_the_notebook(runs_root):
    with pytest.raises(MissingArtefactError, match=r"run 01_prepare_data\.ipynb first"):
        encode_faces(settings_of("prototypes", runs_root, "empty"))
    with pytest.raises(ValueError, match="the methods are glow, glow\\+attribute, no_ictm, ageflow"):
        load_method("stylegan", run="whole", runs_root=runs_root)
