"""The scripts that made what ships, at smoke size: they run, and what they write can be used."""

import sys
from pathlib import Path

import pytest
import torch

from ageflow.checkpoint import PRETRAINED, read_weights

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield
    for name in ("average_glow", "distil_classifier", "mix_faces", "translate_faces"):
        sys.modules.pop(name, None)


def test_average_of_a_glow_with_itself_is_that_glow(tmp_path):
    import average_glow

    glow = PRETRAINED / "glow.safetensors"
    average_glow.average(glow, glow, 0.7, tmp_path / "average.safetensors")
    before, after = (read_weights(path, "glow") for path in (glow, tmp_path / "average.safetensors"))
    assert before.config == after.config
    assert all(torch.equal(before.state[name], after.state[name]) for name in before.state)
