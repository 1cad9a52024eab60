"""Weights to pass on and to begin from: released, of another run, and what does not fit."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ageflow
from ageflow.checkpoint import (
    CheckpointError,
    ConfigChangedError,
    find_weights,
    fingerprint,
    latest,
    main,
    read_weights,
    release,
)
from ageflow.config import ParameterError
from ageflow.data.faces import Faces, warn_of_known_people
from ageflow.flows.glow import GlowConfig, load_glow
from ageflow.report.results import origins
from ageflow.run import FolderInUseError, Workspace, sole_writer
from ageflow.training.classifier import ClassifierTask, train_classifiers
from ageflow.training.glow import GlowTask, train_glow
from ageflow.training.ictm import train_translator
from ageflow.training.loop import train
from tests.tiny import tiny_run, write_faces
from tests.training.processes import settings_of

PARTS = {"glow": "glow", "ictm": "translator", "no_ictm": "translator", "classifiers/gender": "classifier"}
AWARE = {"age_classifier": "decoded", "condition": "source_aware", "prior_start": "averages"}  # as the tiny run's T
TRAIN = {"train_glow": train_glow, "train_ictm": train_translator, "train_classifiers": train_classifiers}
OFTEN = {"preview_every": 1, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Runs of these tests' own, beside the tiny run, which nobody changes."""
    tiny = tiny_run(tmp_path_factory.getbasetemp() / "tiny")
    root = tmp_path_factory.mktemp("runs")
    (root / "demo").mkdir()
    (root / "demo" / "tiny").symlink_to(tiny / "demo" / "tiny")
    return root


def beside(root: Path, run: str, *parts: str) -> Workspace:
    """A new run that has the tiny run's faces and these parts of it."""
    new = Workspace(root, "demo", run)
    for part in ("faces", *parts):
        (new.folder() / part).symlink_to(root / "demo" / "tiny" / part)
    return new


def averages(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """A checkpoint's averaged weights, read without the code under test."""
    with safe_open(latest(folder).path, framework="pt") as file:
        kept = {}
        for kind in ("model", "average"):
            prefix = f"{kind}.{part}."
            kept |= {key[len(prefix) :]: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    return kept


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("part", PARTS)
def test_released_weights_are_the_averages_to_the_last_bit(root, tmp_path, part):
    folder = root / "demo/tiny" / part
    expected = averages(folder, PARTS[part])
    file = release(folder, tmp_path / "w.safetensors")
    weights = read_weights(file)
    assert same(weights.state, expected)
    assert (weights.part, weights.config) == (PARTS[part], latest(folder).networks[PARTS[part]])
    with safe_open(file, framework="pt") as opened:
        assert set(opened.keys()) == set(expected)
    assert main([str(folder), str(tmp_path / "h.safetensors"), "--half"]) == 0
    half = read_weights(tmp_path / "h.safetensors", PARTS[part])
    assert (tmp_path / "h.safetensors").stat().st_size < 0.7 * file.stat().st_size
    assert not same(half.state, expected)
    assert [tensor.dtype for tensor in half.state.values()] == [expected[name].dtype for name in half.state]
    torch.testing.assert_close(half.state, expected, rtol=1e-3, atol=1e-6)
    assert same(read_weights(release(file, tmp_path / "again.safetensors", half=True)).state, half.state)


@pytest.mark.parametrize("how", ["run", "run folder", "glow folder", "released file", "checkpoint"])
def test_glow_begins_from(root, tmp_path, how):
    """Whatever names the weights, they are those; and training on changes them at its own rate."""
    folder = root / "demo/tiny/glow"
    names = {"run": "demo/tiny", "run folder": folder.parent, "glow folder": folder, "checkpoint": latest(folder).path}
    name = names.get(how) or release(folder, tmp_path / "glow.safetensors")
    run = beside(root, f"from-{how.replace(' ', '-')}")
    settings = settings_of("train_glow", root, run.run, init_from=name, iterations=3, learning_rate=1e-4)
    task = GlowTask(settings, Faces.open(run.require("faces")))
    expected = averages(folder, "glow")
    task.start()
    assert same(task.glow.state_dict(), expected)
    if how == "run":
        moved = averages(train_glow(settings), "glow")
        assert not same(moved, expected)
        assert origins(run)[0] == f"GLOW 3 updates from {name}", "the report names what it began from"
        torch.testing.assert_close(moved, expected, rtol=0, atol=4e-4, msg="too far for 3 updates of Adam's 1e-4")


def test_what_was_trained_in_bf16_is_used_and_released_in_fp32(root, tmp_path):
    """Only there does every 8-bit value come back."""
    run = beside(root, "bf16")
    given = {"iterations": 1, "precision": "bf16", "memory": "reversible"}
    folder = train_glow(settings_of("train_glow", root, run.run, **given))
    assert latest(folder).settings["precision"] == "bf16"
    assert load_glow(folder).config.precision == "fp32"
    config = GlowConfig(**read_weights(release(folder, tmp_path / "glow.safetensors")).config)
    assert (config.precision, config.memory) == ("fp32", "plain")


def test_a_released_glow_is_loaded_by_itself(root, tmp_path):
    folder = root / "demo/tiny/glow"
    file = release(folder, tmp_path / "glow.safetensors")
    glow, expected = ageflow.load_released(file, image_size=32), load_glow(folder, "cpu")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(glow.encode(x), expected.encode(x))
    assert (glow.config.bits, ageflow.load_released(file, 32, bits=8).config.bits) == (expected.config.bits, 8)
    with pytest.raises(CheckpointError, match="of faces of 32 pixels: image_size = 64"):
        ageflow.load_released(file, image_size=64)
    with pytest.raises(CheckpointError, match="holds a translator, not a glow"):
        ageflow.load_released(release(root / "demo/tiny/ictm", tmp_path / "ictm.safetensors"), image_size=32)


@pytest.mark.parametrize("network", ["ictm", "no_ictm"])
def test_a_translator_begins_from_another_with_its_critic(root, tmp_path, network):
    """From a run, T and D; from a released file, T, and D is new."""
    source = root / "demo/tiny" / network
    c = ["decoded_age"] if network == "no_ictm" else []  # which takes C as it is
    run = beside(root, f"translated-{network}", "glow", "latents", "prototypes", *c)
    quick = AWARE | {
        "iterations": 1,
        "learning_rate": 1e-9,
        "discriminator_learning_rate": 1e-9,
        "ema": 0,
        "restart": True,
    }
    expected = {part: averages(source, part) for part in ("translator", "discriminator")}
    for named in ("demo/tiny", release(source, tmp_path / "t.safetensors")):
        settings = settings_of("train_ictm", root, run.run, network=network, init_from=named, **quick)
        folder = train_translator(settings)
        for part, moved in ((part, averages(folder, part)) for part in expected):
            near = all(
                torch.allclose(moved[name], expected[part][name], rtol=0, atol=1e-7)
                for name in moved
                if not name.endswith(("._u", "._v"))  # every pass turns spectral normalisation's vectors
            )
            assert near == (part == "translator" or named == "demo/tiny"), (named, part)


def test_the_judges_begin_from_a_run_and_from_one_network_that_predicts_several(root, tmp_path):
    """Each from its own logits, by whatever name they are first or last; one that it does not predict from new ones."""
    run = beside(root, "judged")
    settings = settings_of("train_classifiers", root, run.run, init_from="demo/tiny", iterations=1)
    faces, source = Faces.open(run.require("faces")), root / "demo/tiny/classifiers"
    task = ClassifierTask(settings, faces, "gender")
    assert same(task.modules["classifier"].state_dict(), averages(source / "gender", "classifier"))
    assert set(train_classifiers(settings)) == {"age", "gender"}
    wrong = settings.model_copy(update={"init_from": str(source / "age"), "run": "other"})
    with pytest.raises(CheckpointError, match=r"labels = \['30-', .*\], not \['female', 'male'\]"):
        ClassifierTask(wrong, faces, "gender")

    new = settings.model_copy(update={"init_from": None, "run": "other"})
    folder = train(ClassifierTask(new, faces, "age", also=["gender"]), new, tmp_path / "several")
    file = release(folder, tmp_path / "judge.safetensors")
    state = averages(folder, "classifier")
    begin = new.model_copy(update={"init_from": str(file)})
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
    ("step", "values", "named"),
    [
        ("train_glow", {"hidden": 8, "steps": 3}, r"(?=.*steps = \[2, 2\], not \[3, 3\])(?=.*hidden = 16, not 8)"),
        ("train_ictm", AWARE | {"couplings": 2}, r"couplings = 4, not 2\. .*init_from = nothing"),
        ("train_classifiers", {"architecture": "resnet50"}, r"architecture = 'resnet14', not 'resnet50'\. "),
    ],
)
def test_a_shape_that_does_not_fit_is_named(root, step, values, named):
    run = beside(root, f"shape-{step}", *(["latents", "prototypes", "glow"] if step == "train_ictm" else []))
    with pytest.raises(CheckpointError, match=named):
        TRAIN[step](settings_of(step, root, run.run, init_from="demo/tiny", **values))


def test_a_training_continues_where_a_sweep_writes_out_the_path_of_its_weights(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("glow", "other"):
        release(root / "demo/tiny/glow", tmp_path / f"{name}.safetensors")
    run = beside(root, "written-out")
    train_glow(settings_of("train_glow", root, run.run, iterations=1, init_from="glow.safetensors"))
    whole = {"iterations": 2, "init_from": str(tmp_path / "glow.safetensors")}
    assert latest(train_glow(settings_of("train_glow", root, run.run, **whole))).iteration == 2
    with pytest.raises(ConfigChangedError, match=r"init_from: .*glow\.safetensors' → .*other\.safetensors'"):
        train_glow(settings_of("train_glow", root, run.run, **whole | {"init_from": "other.safetensors"}))


@pytest.mark.parametrize("part", ["glow", "ictm", "classifiers"])
def test_a_training_continues_when_what_it_began_from_is_gone(root, part):
    step = f"train_{part}"
    shutil.copytree(root / "demo/tiny" / part, root / "demo/source" / part)
    run = beside(root, f"source-{step}", *(["glow", "latents", "prototypes"] if step == "train_ictm" else []))
    given = OFTEN | {"init_from": "demo/source"} | (AWARE if step == "train_ictm" else {})
    TRAIN[step](settings_of(step, root, run.run, iterations=1, **given))
    shutil.rmtree(root / "demo/source")
    TRAIN[step](settings_of(step, root, run.run, iterations=2, **given))
    trained = run.path(part, "age") if part == "classifiers" else run.path(part)
    assert latest(trained).iteration == 2
    with pytest.raises(CheckpointError, match="init_from = 'demo/source': no file of that name"):
        TRAIN[step](settings_of(step, root, run.run, iterations=2, restart=True, **given))
    assert latest(trained).iteration == 2, "what is there stays where it is"


def test_weights_that_know_the_people_who_test_are_warned_of(root, recwarn):
    """Faces of the same people with the halves changed over: whoever tests here was learned from there."""
    folder = Workspace(root, "demo", "turned").path("faces")
    write_faces(folder)
    table = pd.read_parquet(folder / "faces.parquet")
    table["split"] = np.where(table["split"] == "test", "train", "test")
    table.to_parquet(folder / "faces.parquet")
    test = (table["split"] == "test").sum()
    for part in ("glow", "ictm", "classifiers/age"):
        warn_of_known_people("demo/tiny", find_weights("demo/tiny", root, part), Faces.open(root / "demo/tiny/faces"))
    warn_of_known_people("pretrained", find_weights("pretrained", root, "glow"), Faces.open(folder))
    assert not list(recwarn)
    for step in ("train_glow", "train_classifiers"):
        known = f"init_from = 'demo/tiny': {test} of the {test} test faces .*which flatters"
        with pytest.warns(UserWarning, match=known):
            TRAIN[step](settings_of(step, root, "turned", init_from="demo/tiny", iterations=1))


def test_what_is_not_there_is_named_with_where_it_was_looked_for(root, tmp_path, capsys):
    for name, part, message in (
        ("demo/gone", "glow", r"'demo/gone': no file .*no training in any of .*demo/gone/glow.*dataset/run"),
        ("demo/tiny", "classifiers/race", r"no training in any of .*demo/tiny/classifiers/race"),
        ("pretrained", "ictm", r"no pretrained weights for ictm .*name a run or a file"),
    ):
        with pytest.raises(CheckpointError, match=message):
            find_weights(name, root, part)
    assert main([str(tmp_path / "gone"), str(tmp_path / "w.safetensors")]) == 1
    assert "no checkpoint in" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"no checkpoint of a glow in .* again, with restart = True"):
        load_glow(tmp_path)
    assert main([str(root / "demo/tiny/glow"), str(tmp_path / "w.bin")]) == 1
    assert "called ….safetensors" in capsys.readouterr().err


def test_another_network_or_a_damaged_file_is_refused(root, tmp_path):
    tiny, run = Workspace(root, "demo", "tiny"), beside(root, "refusing")
    file = release(tiny.path("classifiers/age"), tmp_path / "age.safetensors")
    wrong = {tiny.path("ictm"): "of a training without a glow", file: "holds a classifier, not a glow"}
    for name, message in wrong.items():
        with pytest.raises(CheckpointError, match=message):
            train_glow(settings_of("train_glow", root, run.run, init_from=name))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    for damaged, message in ((content, "checksum"), (content[:-100], "")):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"age.safetensors cannot be read.*{message}"):
            read_weights(find_weights(str(file), tmp_path, "classifiers/age"), "classifier")
    save_file({"weight": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="not a file of the kit"):
        train_classifiers(settings_of("train_classifiers", root, run.run, init_from=file))


def test_a_translator_that_cannot_begin_anew_keeps_its_classifier(root):
    """T and C begin anew together, so C stays where it is until it is known that T can."""
    run = beside(root, "together", "glow", "latents", "prototypes")
    given = OFTEN | {"iterations": 1, "age_classifier_iterations": 1}
    given |= {"age_classifier": "decoded", "age_classifier_from": "nothing"}
    train_translator(settings_of("train_ictm", root, run.run, **given))
    before = fingerprint(run.path("decoded_age"))
    again = settings_of("train_ictm", root, run.run, restart=True, **given)

    def kept() -> bool:
        return fingerprint(run.path("decoded_age")) == before and not run.path("decoded_age.1").exists()

    for wrong in ({"init_from": "demo/none"}, {"latent": [0, 7]}):
        with pytest.raises((CheckpointError, ParameterError)):
            train_translator(again.model_copy(update=wrong))
        assert kept()
    with sole_writer(run.path("ictm")), pytest.raises(FolderInUseError):
        train_translator(again)
    assert kept()
    train_translator(again)
    assert run.path("decoded_age.1").is_dir()
    assert run.path("ictm.1").is_dir()
