"""What was not downloaded is named, wherever weights are opened."""

import pytest

import ageflow
from ageflow.checkpoint import read_weights
from ageflow.evaluation.identity import load_embedder
from ageflow.evaluation.judges import InceptionFeatures

OPENED = {
    "weights.pt": lambda path: ageflow.load_released(path, 16),
    "weights.safetensors": read_weights,
    "arcface.onnx": lambda path: load_embedder(str(path)),
    "inception.pth": InceptionFeatures,
}
INSTEAD = {
    "it is empty": b"",
    "it is a web page": b"\n<!DOCTYPE html>\n<html><body>Sign in",
    "it is a text that begins with 'not found'": b"\xef\xbb\xbfNot Found",
    "it is a text that begins with '.\"error": b'{"error": "Entry not found"}',
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
}


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("said", INSTEAD)
def test_what_lies_in_the_files_place_is_named(tmp_path, name, said):
    (tmp_path / name).write_bytes(INSTEAD[said])
    with pytest.raises((RuntimeError, ValueError), match=f"{name}.*{said}") as refused:
        OPENED[name](tmp_path / name)
    assert "weights_only" not in str(refused.value)
