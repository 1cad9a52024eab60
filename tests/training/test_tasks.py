"""GLOW and the translators learn what they are to learn, and only from what belongs together."""

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ageflow.checkpoint import CheckpointError, ConfigChangedError, latest
from ageflow.data.faces import Faces
from ageflow.evaluation.methods import load_method
from ageflow.flows.glow import load_glow, to_uint8
from ageflow.run import MissingArtefactError, Workspace
from ageflow.training.glow import GlowTask, describe_glow, train_glow
from ageflow.training.ictm import TranslatorTask, train_translator, train_without_ictm
from ageflow.training.loop import train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import MicroBatch
from ageflow.translation.prototypes import compute_prototypes, encode_faces
from tests.tiny import STRONG, copy_of, settings_of
from tests.training.processes import different, interrupted_at


def workspace(runs_root):
    return Workspace(runs_root, "demo", "tiny")


@pytest.fixture
def copy(translators, tmp_path):
    """The trained run again, to spoil."""
    return copy_of(translators, tmp_path)


class _Reads(TorchDispatchMode):
    """Counts how often the host reads a value that the device computed, and so waits for it."""

    asking = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count = getattr(self, "count", 0) + (function in self.asking)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("step", ["train_glow", "train_ictm"])
def test_a_step_does_not_wait_for_the_device(encoded, tmp_path, step):
    """More iterations between two logged ones make no more reads: none of them belongs to a step."""
    faces, reads = Faces.open(workspace(encoded).require("faces")), {}
    for iterations in (2, 4):
        rare = dict.fromkeys(("log_every", "preview_every", "checkpoint_every"), 100)
        settings = settings_of(step, encoded, iterations=iterations, **rare)
        task = TranslatorTask(settings) if step == "train_ictm" else GlowTask(settings, faces)
        with _Reads() as counter:
            train(task, settings, tmp_path / str(iterations))
        reads[iterations] = counter.count
    assert reads[2] == reads[4] > 0


def test_glow_learns_faces_and_gives_them_back(encoded):
    folder = workspace(encoded).path("glow")
    bits = read_metrics(folder)["test/bits_per_dim"].dropna()
    assert bits.iloc[-1] < bits.iloc[0] - 0.2
    glow, faces = load_glow(folder), Faces.open(workspace(encoded).path("faces"))
    settings = settings_of("train_glow", encoded)
    row = describe_glow(glow, faces, settings)
    assert (row["equal_8_bit"][0], row["split"][0]) == (1, "test")
    assert row["largest_error"][0] < 1e-3
    assert 1 < row["bits_per_dim"][0] < 5
    train_only = Faces(faces.folder, faces.table.assign(split="train"))
    assert describe_glow(glow, train_only, settings, count=4).iloc[0][["faces", "split"]].tolist() == [4, "train"]
    assert (folder / "samples" / "samples-00000040.png").is_file()


def test_a_stopped_glow_continues_to_the_same_weights(copy, monkeypatch):
    """Stopped in the middle of an update, after a checkpoint: also where less memory is taken from then on."""
    whole = train_glow(settings_of("train_glow", copy, iterations=8, restart=True))
    whole.rename(whole.with_name("glow-whole"))
    with monkeypatch.context() as patch:
        interrupted_at(6, GlowTask, patch)
        with pytest.raises(KeyboardInterrupt):
            train_glow(settings_of("train_glow", copy, iterations=8))
    assert latest(whole).iteration == 5
    again = train_glow(settings_of("train_glow", copy, iterations=8, temperature=0.5))
    assert different(whole.with_name("glow-whole"), again) == []
    less = train_glow(settings_of("train_glow", copy, iterations=9, memory="reversible"))
    assert latest(less).settings["memory"] == "reversible"
    with pytest.raises(ConfigChangedError, match=r"precision: 'fp32' → 'bf16'"):
        train_glow(settings_of("train_glow", copy, iterations=10, precision="bf16"))


@pytest.mark.parametrize("latent", ["all", "top", [0]])
def test_a_translator_is_held_to_its_teacher_in_the_levels_that_it_sees(encoded, latent):
    """One that does in them what its teacher does has nothing left to learn, whatever lies in the others."""
    task = TranslatorTask(settings_of("train_ictm", encoded, latent=latent, network="no_ictm"))
    part = MicroBatch(0, 0, 8, 8)
    _, source, combination = task.batch(part)

    def loss_of(moved):
        task.modules["translator"].forward = lambda z, target: (moved(z, target).requires_grad_(),)
        torch.manual_seed(0)
        return task.objectives[0].reduce_metrics(task.translator_loss(part)[1])

    def teacher(z, target):
        return z + task.settings.scale * task.prototypes.direction(source, target, combination)

    learned = loss_of(lambda z, target: task.visible.put(z, task.visible.take(teacher(z, target))))
    assert learned["distillation"].item() == learned["distillation_left"].item() == 0
    untouched = loss_of(lambda z, target: z.clone())
    torch.manual_seed(0)
    direction = teacher(torch.zeros(()), torch.randint(4, (8,)))
    torch.testing.assert_close(untouched["distillation"], task.visible.flat(direction).abs().mean())
    assert untouched["distillation_left"] == 1


@pytest.mark.parametrize("kind", ["ictm", "no_ictm"])
def test_a_translator_learns_to_please_the_age_classifier(translators, kind):
    metrics = read_metrics(workspace(translators).path(kind)).dropna(subset="T/loss")
    assert metrics["T/distillation_left"].iloc[0] == pytest.approx(1), "it starts as the identity"
    start, end = metrics.iloc[:5].mean(), metrics.iloc[-10:].mean()
    assert end["T/age"] < start["T/age"] - 0.1
    assert end["D/age"] < start["D/age"] - 0.1
    if kind == "ictm":
        assert end["T/consistency"] < start["T/consistency"] - 0.2


def test_t_inverts_after_training(translators):
    method = load_method("ageflow", run="tiny", runs_root=translators)
    faces = Faces.open(workspace(translators).path("faces")).images(slice(16))
    z = method.glow.encode(faces)
    for target in range(4):
        back = method.round_trip(z, target, None, None)
        torch.testing.assert_close(back, z, rtol=0, atol=1e-4)
        assert torch.equal(to_uint8(method.glow.decode(back)), faces)


def test_averages_that_fall_back_elsewhere_are_another_teacher(copy):
    """`min_cell` changes what a small cell's average is of, and so what T learned from, and no count."""
    averages = settings_of("prototypes", copy, min_cell=10_000)
    assert (compute_prototypes(averages, encode_faces(averages)).cells["average_of"] != "cell").any()
    with pytest.raises(ConfigChangedError, match="other prototypes"):
        train_translator(settings_of("train_ictm", copy, **STRONG))


def test_other_faces_with_the_same_labels_are_another_training(copy):
    """The pictures change places under the labels: T and the averages learned from other faces."""
    file = workspace(copy).path("faces", "faces.parquet")
    table = pd.read_parquet(file)
    table.assign(row=table["row"].to_numpy()[::-1]).to_parquet(file)
    averages, settings = settings_of("prototypes", copy), settings_of("train_ictm", copy, **STRONG)
    with pytest.raises(CheckpointError, match=r"latents was made from other faces: run 03_prototypes\.ipynb again"):
        train_translator(settings)
    assert workspace(copy).has("ictm"), "what was trained is left where it is"
    latents = encode_faces(averages)
    with pytest.raises(CheckpointError, match="prototypes was made from other faces"):
        train_translator(settings)
    compute_prototypes(averages, latents)
    with pytest.raises(ConfigChangedError, match="other faces, prototypes"):
        train_translator(settings)


def test_a_step_before_its_turn_names_the_notebook(tmp_path):
    for step, function in (("prototypes", encode_faces), ("train_ictm", train_translator)):
        with pytest.raises(MissingArtefactError, match=r"run 01_prepare_data\.ipynb first"):
            function(settings_of(step, tmp_path))
    with pytest.raises(MissingArtefactError, match=r"run 04_train_ictm\.ipynb first"):
        train_without_ictm(workspace(tmp_path))


def test_the_network_without_ictm_is_trained_as_t_was_and_anew_when_t_is_another(copy):
    """All but the network's own shape and the loss that needs an inverse; C too (test_decoded_age)."""
    folders = {kind: workspace(copy).path(kind) for kind in ("ictm", "no_ictm")}
    ictm, no_ictm = (latest(folder) for folder in folders.values())
    assert no_ictm.inputs == ictm.inputs
    assert no_ictm.iteration == ictm.iteration
    differ = {name for name in ictm.settings if ictm.settings[name] != no_ictm.settings[name]}
    assert differ == {"network", "consistency_weight"}

    def train_t(**values):
        train_translator(settings_of("train_ictm", copy, restart=True, **STRONG | values))

    train_t(iterations=2)
    before = latest(train_without_ictm(workspace(copy), restart=True))
    train_t(iterations=2, consistency_weight=0.5, consistency="literal")
    assert latest(train_without_ictm(workspace(copy))).fingerprint == before.fingerprint, "it has no such loss"
    train_t(iterations=2, scale=1.6)
    with pytest.raises(ConfigChangedError, match=r"scale: 2\.5 → 1\.6\).*-p ablations\.restart True"):
        train_without_ictm(workspace(copy))
    again = latest(train_without_ictm(workspace(copy), width=8, restart=True))
    assert (again.iteration, again.settings["scale"], again.networks["translator"]["width"]) == (2, 1.6, 8)
    assert latest(folders["no_ictm"].with_name("no_ictm.2")).fingerprint == before.fingerprint
