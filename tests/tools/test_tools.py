"""The scripts that made what ships, at smoke size: they run, and what they write can be used."""

import sys
from pathlib import Path

import pytest
import torch

from ageflow.checkpoint import PRETRAINED, read_weights
from ageflow.data.faces import Faces
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield
    for name in ("average_glow", "compare_builds", "distil_classifier", "mix_faces", "translate_faces"):
        sys.modules.pop(name, None)


def test_average_of_a_glow_with_itself_is_that_glow(tmp_path):
    import average_glow

    glow = PRETRAINED / "glow.safetensors"
    average_glow.average(glow, glow, 0.7, tmp_path / "average.safetensors")
    before, after = (read_weights(path, "glow") for path in (glow, tmp_path / "average.safetensors"))
    assert before.config == after.config
    assert all(torch.equal(before.state[name], after.state[name]) for name in before.state)


def test_faces_are_made_between_others_and_in_other_groups_and_a_classifier_learns_from_them(encoded: Path, tmp_path):
    import distil_classifier
    import mix_faces
    import translate_faces

    given = Faces.open(encoded / "demo/tiny/faces").select(split="train").images(slice(None))
    made = {
        "translated": translate_faces.translate("tiny", encoded, "glow+attribute", seed=0, count=8),
        "mixed": mix_faces.mix("tiny", encoded, seed=0, count=8),
    }
    for name, faces in made.items():
        assert (faces.shape, faces.dtype) == ((8, *given.shape[1:]), torch.uint8)
        assert not any((face == given).flatten(1).all(1).any() for face in faces), f"{name} faces are new ones"
        torch.save(faces, tmp_path / f"{name}.pt")

    before, after = PRETRAINED / "judge.safetensors", tmp_path / "distilled.safetensors"
    translated = [tmp_path / f"{name}.pt" for name in made]
    distil_classifier.distil([encoded / "demo/tiny"], before, after, 0, 3.0, 2, translated)
    old, new = (read_weights(path, "classifier") for path in (before, after))
    assert new.config == old.config
    assert {name: value.shape for name, value in new.state.items()} == {n: v.shape for n, v in old.state.items()}
    assert all(value.isfinite().all() for value in new.state.values())
    assert not torch.equal(new.state["network.fc.weight"], old.state["network.fc.weight"])


@pytest.mark.parametrize("case", ["plain", "encoding"])
def test_a_build_is_timed_beside_another(case, capsys):
    import compare_builds

    small = {"image_size": 16, "levels": 2, "steps": 2, "hidden": 24}
    assert 0 < compare_builds.measure(case, **small)["seconds"] < 60
    with pytest.raises(SystemExit):
        compare_builds.main(["--before", "nowhere"])
    assert "--before nowhere: expected the folder of a checkout" in capsys.readouterr().err
