"""Weights to begin from: released, of another run, and what does not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ageflow
from ageflow.checkpoint import CheckpointError, ConfigChangedError, find_weights, fingerprint, latest, release
from ageflow.config import ParameterError
from ageflow.data.faces import Faces
from ageflow.flows.glow import GlowConfig, load_glow
from ageflow.report.results import origins
from ageflow.run import FolderInUseError, Workspace, sole_writer
from ageflow.training.glow import GlowTask, train_glow
from ageflow.training.ictm import train_translator
from ageflow.training.initial import read_released, warn_of_known_people
from ageflow.training.judges import ClassifierTask, train_classifiers
from ageflow.training.launch import TrainingFailedError
from ageflow.training.loop import train
from ageflow.training.release import main
from tests.tiny import tiny_run, write_faces
from tests.training.processes import settings_of

PARTS = {"glow": "glow", "ictm": "translator", "no_ictm": "translator", "classifiers/gender": "classifier"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The tiny run's, and a run beside it that has its faces, GLOW, latents and averages only."""
    root = tiny_run(tmp_path_factory.mktemp("runs"))
    new = Workspace(root, "demo", "new").folder()
    for name in ("faces", "latents", "prototypes"):
        (new / name).symlink_to(Workspace(root, "demo", "tiny").path(name))
    return root


def averages(folder: Path, module: str) -> dict[str, torch.Tensor]:
    """A checkpoint's averaged weights, read without the code under test."""
    with safe_open(latest(folder).path, framework="pt") as file:
        kept = {}
        for kind in ("model", "average"):
            prefix = f"{kind}.{module}."
            kept |= {key[len(prefix) :]: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    return kept


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("part", PARTS)
def test_released_weights_are_the_averages_to_the_last_bit(root, tmp_path, part):
    folder = Workspace(root, "demo", "tiny").path(part)
    expected = averages(folder, PARTS[part])
    file = release(folder, tmp_path / "w.safetensors", PARTS[part])
    weights = read_released(file)
    assert same(weights.state, expected)
    assert weights.module == PARTS[part]
    with safe_open(file, framework="pt") as opened:
        assert set(opened.keys()) == set(expected)
        assert json.loads(opened.metadata()["config"]) == weights.config
    half = read_released(release(folder, tmp_path / "h.safetensors", PARTS[part], half=True))
    assert (tmp_path / "h.safetensors").stat().st_size < 0.7 * file.stat().st_size
    assert not same(half.state, expected)
    for name, tensor in half.state.items():
        assert tensor.dtype == expected[name].dtype
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_in_eight_bits_a_weight_is_within_half_a_step_of_its_own(root, tmp_path, part):
    """Steps are 1/127 of the output's largest weight; what is no layer's weight is as in half precision."""
    folder = Workspace(root, "demo", "tiny").path(part)
    expected = averages(folder, PARTS[part])
    half = read_released(release(folder, tmp_path / "h.safetensors", PARTS[part], half=True)).state
    full, file = tmp_path / "w.safetensors", tmp_path / "q.safetensors"
    assert main([str(folder), str(file), "--int8", "--part", PARTS[part]]) == 0
    assert main([str(release(folder, full, PARTS[part])), str(tmp_path / "again.safetensors"), "--int8"]) == 0
    weights = read_released(file)
    again = read_released(tmp_path / "again.safetensors")
    assert again.config == weights.config
    assert same(again.state, weights.state), "of a file as of its training"
    with pytest.raises(CheckpointError, match=f"q.safetensors holds a {PARTS[part]}, not a "):
        release(file, full, next(name for name in PARTS.values() if name != PARTS[part]))
    assert weights.state.keys() == expected.keys()
    rounded = 0
    for name, tensor in weights.state.items():
        assert tensor.dtype == expected[name].dtype
        if torch.equal(tensor, half[name]):
            continue
        rounded += 1
        assert name.endswith("weight")
        rows, own = tensor.flatten(1), expected[name].flatten(1)
        step = own.abs().amax(1, keepdim=True) / 127
        assert bool(((rows - own).abs() <= 0.5001 * step).all())
        assert int(torch.unique(rows[0]).numel()) <= 255
    assert rounded >= 3, "as in half precision"
    with safe_open(file, framework="pt") as opened:
        stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert sum(tensor.dtype == torch.int8 for tensor in stored.values()) == rounded


@pytest.mark.parametrize("how", ["run", "run folder", "glow folder", "released file", "checkpoint"])
def test_glow_begins_from(root, tmp_path, how):
    """Whatever names the weights, they are those; and training on changes them at its own rate."""
    folder = Workspace(root, "demo", "tiny").path("glow")
    names = {
        "run": "demo/tiny",
        "run folder": folder.parent,
        "glow folder": folder,
        "checkpoint": latest(folder).path,
        "released file": tmp_path / "glow.safetensors",
    }
    if how == "released file":
        assert main([str(folder), str(names[how])]) == 0
    settings = settings_of("train_glow", root, "new", init_from=names[how], iterations=3, learning_rate=1e-4)
    task = GlowTask(settings, Faces.open(Workspace.of(settings).require("faces")))
    expected = averages(folder, "glow")
    task.start()
    assert same(task.glow.state_dict(), expected)
    trained = train_glow(settings.model_copy(update={"run": "new", "restart": True}))
    moved = averages(trained, "glow")
    assert not same(moved, expected)
    assert origins(Workspace.of(settings))[0] == f"GLOW 3 updates from {names[how]}", (
        "the report names what it began from"
    )
    far = [name for name in moved if not torch.allclose(moved[name].float(), expected[name].float(), rtol=0, atol=4e-4)]
    assert far == [], "3 updates of Adam's 1e-4 cannot take them there"


def test_nothing_begins_from_new_weights_where_the_preset_names_others():
    assert ageflow.settings("train_glow", {"dataset": "demo"}).init_from == "pretrained"
    values = {"dataset": "demo", "init_from": "nothing", "hidden": 256}
    assert ageflow.settings("train_glow", values).init_from is None


def test_what_was_trained_in_bf16_is_used_and_released_in_fp32(root, tmp_path):
    """Only there does every 8-bit value come back."""
    trained = train_glow(
        settings_of("train_glow", root, "new", iterations=2, restart=True, precision="bf16", memory="reversible")
    )
    assert latest(trained).config["glow"]["precision"] == "bf16"
    assert load_glow(trained).config.precision == "fp32"
    config = GlowConfig(**read_released(release(trained, tmp_path / "glow.safetensors")).config)
    assert (config.precision, config.memory) == ("fp32", "plain")


def test_a_released_glow_is_loaded_by_itself(root, tmp_path):
    folder = Workspace(root, "demo", "tiny").path("glow")
    file = release(folder, tmp_path / "glow.safetensors")
    glow, expected = ageflow.load_released(file, image_size=32), load_glow(folder, "cpu")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(glow.encode(x), expected.encode(x))
    assert (glow.config.bits, ageflow.load_released(file, 32, bits=8).config.bits) == (expected.config.bits, 8)
    with pytest.raises(CheckpointError, match="of faces of 32 pixels: image_size = 64"):
        ageflow.load_released(file, image_size=64)
    other = release(Workspace(root, "demo", "tiny").path("ictm"), tmp_path / "ictm.safetensors")
    with pytest.raises(CheckpointError, match="holds a translator, not a glow"):
        ageflow.load_released(other, image_size=32)


def test_a_translator_begins_from_another_with_its_critic(root, tmp_path):
    """From a run, T and D; from a released file, T, and D is new."""
    source = Workspace(root, "demo", "tiny")
    new = Workspace(root, "demo", "translated").folder()
    for name in ("faces", "glow", "latents", "prototypes"):
        (new / name).symlink_to(source.path(name))
    quick = {"iterations": 1, "learning_rate": 1e-9, "discriminator_learning_rate": 1e-9, "ema": 0}
    for kind, step in (("ictm", "train_ictm"), ("no_ictm", "ablations")):
        expected = {module: averages(source.path(kind), module) for module in ("translator", "discriminator")}
        file = release(source.path(kind), tmp_path / f"{kind}.safetensors", "translator")
        for named in ("demo/tiny", file):
            folder = train_translator(
                settings_of(step, root, "translated", init_from=named, restart=True, **quick), kind
            )
            for module, moved in ((name, averages(folder, name)) for name in expected):
                near = all(
                    torch.allclose(moved[name], expected[module][name], rtol=0, atol=1e-7)
                    for name in moved
                    if not name.endswith(("._u", "._v"))  # every pass turns spectral normalisation's vectors
                )
                assert near == (module == "translator" or named == "demo/tiny"), (kind, named, module)


def test_the_judges_begin_from_a_run(root):
    settings = settings_of("train_classifiers", root, "new", init_from="demo/tiny", iterations=1)
    task = ClassifierTask(settings, Faces.open(Workspace.of(settings).require("faces")), "gender")
    source = Workspace(root, "demo", "tiny").path("classifiers")
    assert same(task.modules["classifier"].state_dict(), averages(source / "gender", "classifier"))
    folders = train_classifiers(settings)
    assert set(folders) == {"age", "gender"}
    one = settings.model_copy(update={"init_from": str(source / "age")})
    with pytest.raises(CheckpointError, match=r"labels = \['30-', .*\], not \['female', 'male'\]"):
        ClassifierTask(one, task.faces, "gender")


def test_every_judge_begins_from_one_network_that_tells_several(root, tmp_path):
    """Each from its own logits, by whatever name they are first or last; one that it does not tell from new ones."""
    settings = settings_of("train_classifiers", root, "new", iterations=1)
    faces = Faces.open(Workspace.of(settings).require("faces"))
    folder = train(ClassifierTask(settings, faces, "age", also=["gender"]), settings, tmp_path / "several")
    file = release(folder, tmp_path / "judge.safetensors")
    state = averages(folder, "classifier")
    begin = settings.model_copy(update={"init_from": str(file)})
    begun = {name: ClassifierTask(begin, faces, name).modules["classifier"].state_dict() for name in ("age", "gender")}
    for name, part in (("age", slice(0, 4)), ("gender", slice(4, 6))):
        head = {f"network.fc.{tensor}": state[f"network.fc.{tensor}"][part] for tensor in ("weight", "bias")}
        assert same(begun[name], state | head), name
    again = begin.model_copy(update={"seed": 1})
    raced = Faces(faces.folder, faces.table.assign(race=np.where(faces.groups < 2, "one", "another")))
    of_race = [ClassifierTask(chosen, raced, "race").modules["classifier"].state_dict() for chosen in (begin, again)]
    assert all(torch.equal(of_race[0][name], state[name]) for name in state if "fc" not in name)
    assert not torch.equal(*(begun["network.fc.weight"] for begun in of_race)), "its own, drawn by the seed"


@pytest.mark.parametrize(
    ("step", "values", "told"),
    [
        ("train_glow", {"hidden": 8, "steps": 3}, r"steps = \[2, 2\], not \[3, 3\], hidden = 16, not 8"),
        ("train_ictm", {"couplings": 2}, r"couplings = 4, not 2\. .*init_from = nothing"),
        ("train_classifiers", {"architecture": "resnet50"}, r"architecture = 'resnet14', not 'resnet50'\. "),
    ],
)
def test_a_shape_that_does_not_fit_is_named(root, step, values, told):
    train = {"train_glow": train_glow, "train_ictm": train_translator, "train_classifiers": train_classifiers}[step]
    with pytest.raises(CheckpointError, match=told):
        train(settings_of(step, root, "tiny", init_from="demo/tiny", restart=False, **values))


def test_a_training_goes_on_where_a_sweep_writes_out_the_path_of_its_weights(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("glow", "other"):
        release(Workspace(root, "demo", "tiny").path("glow"), tmp_path / f"{name}.safetensors")
    run = Workspace(root, "demo", "written-out")
    shutil.copytree(Workspace(root, "demo", "tiny").path("faces"), run.path("faces"))
    train_glow(settings_of("train_glow", root, run.run, iterations=1, init_from="glow.safetensors"))
    whole = {"iterations": 2, "init_from": str(tmp_path / "glow.safetensors")}
    assert latest(train_glow(settings_of("train_glow", root, run.run, **whole))).iteration == 2
    with pytest.raises(ConfigChangedError, match=r"init_from: .*glow\.safetensors' → .*other\.safetensors'"):
        train_glow(settings_of("train_glow", root, run.run, **whole | {"init_from": "other.safetensors"}))


@pytest.mark.parametrize(
    ("step", "part"), [("train_glow", "glow"), ("train_ictm", "ictm"), ("train_classifiers", "classifiers")]
)
def test_a_training_goes_on_when_what_it_began_from_is_gone(root, step, part):
    train = {"train_glow": train_glow, "train_ictm": train_translator, "train_classifiers": train_classifiers}[step]
    source, new = Workspace(root, "demo", "source"), Workspace(root, "demo", f"from-source-{step}")
    for workspace in (source, new):
        for name in ("faces", "glow", "latents", "prototypes", *([part] if workspace is source else [])):
            if not (name == "glow" == part and workspace is new) and not workspace.path(name).exists():
                shutil.copytree(Workspace(root, "demo", "tiny").path(name), workspace.path(name))
    often = {"preview_every": 1, "checkpoint_every": 1, "init_from": "demo/source"}
    train(settings_of(step, root, new.run, iterations=1, **often))
    shutil.rmtree(source.root)
    train(settings_of(step, root, new.run, iterations=2, **often))
    trained = new.path(part, "age") if part == "classifiers" else new.path(part)
    assert latest(trained).iteration == 2
    with pytest.raises(CheckpointError, match="init_from = 'demo/source': no file of that name"):
        train(settings_of(step, root, new.run, iterations=2, restart=True, **often))
    assert latest(trained).iteration == 2, "what is there stays where it is"


@pytest.mark.parametrize("step", ["train_glow", "train_ictm", "train_classifiers"])
def test_weights_that_know_the_people_who_test_are_told(root, recwarn, step):
    """Faces of the same people with the halves changed over: whoever tests here was learned from there."""
    folder = Workspace(root, "demo", f"turned-{step}").path("faces")
    write_faces(folder)
    table = pd.read_parquet(folder / "faces.parquet")
    table["split"] = np.where(table["split"] == "test", "train", "test")
    table.to_parquet(folder / "faces.parquet")
    part = {"train_glow": "glow", "train_ictm": "ictm", "train_classifiers": "age"}[step]
    weights = find_weights("demo/tiny", root, part)
    warn_of_known_people("demo/tiny", weights, Faces.open(folder))
    (told,) = [str(warning.message) for warning in recwarn]
    test = (table["split"] == "test").sum()
    assert told.startswith(f"init_from = 'demo/tiny': {test} of the {test} test faces are of people whom those weights")
    recwarn.clear()
    warn_of_known_people("demo/tiny", weights, Faces.open(Workspace(root, "demo", "tiny").path("faces")))
    warn_of_known_people("pretrained", find_weights("pretrained", root, "glow"), Faces.open(folder))
    assert not list(recwarn)
    if step == "train_glow":
        values = {"iterations": 1, "checkpoint_every": 1, "preview_every": 1}
        with pytest.warns(UserWarning, match="what is measured on them flatters"):
            train_glow(settings_of(step, root, f"turned-{step}", init_from="demo/tiny", **values))


def test_what_is_not_there_is_told_with_where_it_was_looked_for(root, tmp_path, capsys):
    with pytest.raises(CheckpointError, match=r"no trained glow in any of .*demo/gone/glow.*dataset/run"):
        find_weights("demo/gone", root, "glow")
    with pytest.raises(CheckpointError, match=r"no trained race in any of .*demo/tiny/classifiers/race"):
        find_weights("demo/tiny", root, "race")
    with pytest.raises(CheckpointError, match=r"no pretrained weights for ictm .*name a run or a file"):
        find_weights("pretrained", root, "ictm")
    assert main([str(tmp_path / "gone"), str(tmp_path / "w.safetensors")]) == 1
    assert "no checkpoint in" in capsys.readouterr().err
    assert main([str(Workspace(root, "demo", "tiny").path("glow")), str(tmp_path / "w.bin")]) == 1
    assert "called ….safetensors" in capsys.readouterr().err


def test_another_network_or_a_damaged_file_is_refused(root, tmp_path):
    source = Workspace(root, "demo", "tiny")
    with pytest.raises(CheckpointError, match="of a training without a glow"):
        GlowTask(
            settings_of("train_glow", root, "new", init_from=source.path("ictm")), Faces.open(source.path("faces"))
        )
    file = release(source.path("classifiers/age"), tmp_path / "age.safetensors")
    with pytest.raises(CheckpointError, match="holds a classifier, not a glow"):
        GlowTask(settings_of("train_glow", root, "new", init_from=file), Faces.open(source.path("faces")))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"age.safetensors cannot be read .*checksum"):
        read_released(file)
    file.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"age.safetensors cannot be read"):
        find_and_read(file)
    save_file({"weight": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="not a file of the kit"):
        train_classifiers(settings_of("train_classifiers", root, "new", init_from=file, restart=True))


def find_and_read(file: Path) -> None:
    from ageflow.checkpoint import read_weights

    read_weights(find_weights(str(file), file.parent, "age"), "age")


def test_no_clipping_and_a_pass_of_the_whole_share_have_a_word_for_it():
    """None is the preset's, and the demo's and the paper's have a number there."""
    settings = ageflow.settings("train_glow", {"dataset": "demo", "clip": "nothing", "micro_batch": "nothing"})
    assert (settings.clip, settings.micro_batch) == (None, None)
    assert ageflow.settings("train_glow", {"dataset": "demo"}).clip is not None
    assert ageflow.settings("train_glow", {"dataset": "morph"}).micro_batch is not None


def test_a_translator_that_cannot_begin_anew_keeps_its_classifier(root):
    """T and C begin anew together, so C stays where it is until it is known that T can."""
    run = Workspace(root, "demo", "together")
    for name in ("faces", "glow", "latents", "prototypes"):
        shutil.copytree(Workspace(root, "demo", "tiny").path(name), run.path(name))
    often = {"iterations": 1, "preview_every": 1, "checkpoint_every": 1, "age_classifier_iterations": 1}
    often |= {"age_classifier": "decoded", "age_classifier_from": "nothing"}
    train_translator(settings_of("train_ictm", root, run.run, **often))
    before = fingerprint(run.path("decoded_age"))

    def kept() -> bool:
        aside = [path.name for path in run.root.iterdir() if path.name.startswith("decoded_age.")]
        return fingerprint(run.path("decoded_age")) == before and not aside

    for wrong in ({"init_from": "demo/none"}, {"latent": [0, 7]}):
        with pytest.raises((CheckpointError, ParameterError)):
            train_translator(settings_of("train_ictm", root, run.run, restart=True, **often, **wrong))
        assert kept()
    with sole_writer(run.path("ictm")), pytest.raises(FolderInUseError):
        train_translator(settings_of("train_ictm", root, run.run, restart=True, **often))
    assert kept()
    train_translator(settings_of("train_ictm", root, run.run, restart=True, **often))
    assert not kept()
    assert run.path("decoded_age.1").is_dir()


def test_processes_that_would_begin_anew_do_not_take_a_training_away(root, monkeypatch):
    """Of the judges, too, each of which is trained in a folder of its own."""
    monkeypatch.setattr("ageflow.training.launch._run", lambda *_: pytest.fail("they were started"))
    settings = settings_of("train_classifiers", root, "tiny", gpus=2, restart=True)
    with sole_writer(Workspace(root, "demo", "tiny").path("classifiers", "age")), pytest.raises(FolderInUseError):
        train_classifiers(settings)
    assert Workspace(root, "demo", "tiny").has("classifiers")


def test_what_was_set_aside_for_a_training_that_did_not_begin_is_put_back_whole(root, monkeypatch):
    """The processes trained C anew and then failed: the old T goes on with the old C."""
    run = Workspace(root, "demo", "together")
    before = fingerprint(run.path("decoded_age"))

    def trains_c_only(command, environment, report):
        shutil.copytree(Workspace(root, "demo", "tiny").path("classifiers", "age"), run.path("decoded_age"))
        return 1, "out of memory"

    monkeypatch.setattr("ageflow.training.launch._run", trains_c_only)
    given = {"age_classifier": "decoded", "age_classifier_from": "nothing", "age_classifier_iterations": 1}
    settings = settings_of("train_ictm", root, run.run, gpus=2, restart=True, **given)
    with pytest.raises(TrainingFailedError, match="ended with code 1"):
        train_translator(settings)
    assert run.has("ictm")
    assert fingerprint(run.path("decoded_age")) == before
