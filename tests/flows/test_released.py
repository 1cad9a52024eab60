"""Checkpoints of two public codes, held against what those codes themselves compute (released/README.md)."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ageflow
from ageflow.checkpoint import CheckpointError
from ageflow.data.faces import Faces
from ageflow.flows.glow import load_glow
from ageflow.training.glow import train_glow

FOLDER = Path(__file__).with_name("released")
NAMES = ("authors-0", "authors-1", "rosinality", "rosinality-affine", "rosinality-affine-no-lu")


@pytest.mark.parametrize("memory", ["plain", "reversible"])
@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_the_public_code_computes(name, memory):
    expected = load_file(FOLDER / f"{name}.expected.safetensors")
    glow = ageflow.load_released(FOLDER / f"{name}.pt", image_size=16, memory=memory)
    z, _ = glow(expected["x"])
    torch.testing.assert_close(z, expected["z"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(glow.log_prob(expected["x"]), expected["log_prob"], rtol=1e-5, atol=0)
    decoded, _ = glow.inverse(expected["sampled_z"])
    torch.testing.assert_close(decoded, expected["sampled_x"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(glow.inverse(z)[0], expected["x"], rtol=0, atol=1e-5)


def test_it_can_be_trained_on(tmp_path, demo_faces_folder):
    """From a public checkpoint of small faces, in the run's own folder, with the checkpoint's shape kept."""
    run = tmp_path / "demo" / "smoke"
    shutil.copytree(demo_faces_folder, run / "faces")
    start = FOLDER / "authors-0.pt"
    parameters = {"preset": "smoke", "runs_root": tmp_path, "progress": False, "init_from": start, "iterations": 6}
    with pytest.warns(UserWarning, match=r"shape of .*authors-0.pt.*hidden = 8"):
        folder = train_glow(ageflow.settings("train_glow", parameters | {"learning_rate": 1e-3, "log_every": 1}))
    glow, before = load_glow(folder), ageflow.load_released(start, 32)
    assert glow.config.edges == "ones"
    images = Faces.open(run / "faces").images(slice(32))
    noise = [torch.Generator().manual_seed(0) for _ in range(2)]
    with torch.no_grad():
        assert glow.bits_per_dim(images, noise[0]).mean() < before.bits_per_dim(images, noise[1]).mean() - 0.01


def one_step(**changed: object) -> dict[str, object]:
    return {f"blocks.0.flows.1.{name.replace('__', '.')}": value for name, value in changed.items()}


NAN, STEP = torch.full((12,), torch.nan), "levels.0.transforms.1"
# What is changed in a checkpoint of rosinality's, None: taken out; and what is said of it.
BROKEN = {
    "a key too many": ({"head.weight": torch.ones(2)}, r"1 keys that a GLOW of this shape does not have: head.wei"),
    "a key too few": ({"blocks.1.flows.0.invconv.w_l": None}, r"has no 'blocks.1.flows.0.invconv.w_l'"),
    "narrow": (one_step(coupling__net__0__bias=torch.ones(5)), rf"{STEP}.coupling.network.first.bias"),
    "untrained": (one_step(actnorm__initialized=torch.zeros(1)), r"no values in blocks.0.flows.1.actnorm yet"),
    "no inverse": (one_step(actnorm__scale=torch.zeros(1, 12, 1, 1)), rf"{STEP}.actnorm.log_scale .*no inverse"),
    "not finite": ({"blocks.0.prior.conv.bias": NAN}, r"priors.0.parameters_of.bias .*not finite"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_weights_that_do_not_fit_or_cannot_be_inverted_are_refused(tmp_path, name):
    changed, words = BROKEN[name]
    changed = {f"module.{key}": tensor for key, tensor in changed.items()}
    tensors = torch.load(FOLDER / "rosinality.pt", weights_only=True) | changed
    kept = {key: tensor.contiguous().clone() for key, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / "it.safetensors")
    with pytest.raises(CheckpointError, match=words):
        ageflow.load_released(tmp_path / "it.safetensors", 16)


def test_what_is_no_state_dict_is_refused(tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(2)}}, tmp_path / "training.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    for name, words in {
        "gone.pt": "No such file",
        "text.pt": "it is a text that begins with 'no weights'",
        "module.pt": "whole modules are pickles",
        "training.pt": r"holds epoch, state_dict instead of tensors .* save what 'state_dict' holds",
        "list.pt": "holds a list instead of tensors",
        "other.pt": r"no keys blocks.0.flows.0.…, but bias, weight",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            ageflow.load_released(tmp_path / name, 16)
