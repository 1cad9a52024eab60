"""Latents are encoded once, shard by shard, by one process or several, and belong to one GLOW and one set of faces."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.checkpoint import CheckpointError
from ageflow.data.faces import Faces
from ageflow.flows.glow import Glow, load_glow
from ageflow.run import Workspace
from ageflow.training.ictm import TranslatorTask, train_translator
from ageflow.training.task import MicroBatch
from ageflow.translation import prototypes as prototypes_module
from ageflow.translation.prototypes import Latents, encode_faces
from tests.tiny import copy_of, settings_of


@pytest.fixture
def runs_root(encoded, tmp_path):
    return copy_of(encoded, tmp_path)


def folder_of(runs_root, part="latents"):
    return Workspace(runs_root, "demo", "tiny").path(part)


def all_of(latents):
    return latents.batch(slice(None)).numpy()


def written(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_latents_are_encoded_once_and_decode_to_the_faces(encoded):
    before = written(folder_of(encoded))
    latents = encode_faces(settings_of("prototypes", encoded))
    assert written(folder_of(encoded)) == before
    faces = Faces.open(folder_of(encoded, "faces"))
    assert (len(latents), latents.dimensions) == (len(faces), 3 * 32 * 32)
    back = load_glow(folder_of(encoded, "glow")).decode(latents.batch([0, 5]))
    assert (ageflow.to_uint8(back).int() - faces.images([0, 5]).int()).abs().max() <= 2, "kept in half precision"
    assert {shard.dtype.name for shard in latents.shards} == {"float16"}


def test_latents_that_are_not_kept_are_encoded_when_they_are_asked_for(runs_root):
    kept = all_of(encode_faces(settings_of("prototypes", runs_root)))
    latents = encode_faces(settings_of("prototypes", runs_root, keep=False))
    assert not list(folder_of(runs_root).glob("*.npy")), "they take no room"
    assert (len(latents), latents.dimensions) == kept.shape
    np.testing.assert_allclose(latents.batch([3, 1]), kept[[3, 1]], atol=4e-3)
    faces = Faces.open(folder_of(runs_root, "faces"))
    np.testing.assert_array_equal(Latents.open(folder_of(runs_root), faces).batch([5]), latents.batch([5]))
    assert TranslatorTask(settings_of("train_ictm", runs_root)).translator_loss(MicroBatch(0, 0, 4, 8))[0].isfinite()
    np.testing.assert_array_equal(all_of(encode_faces(settings_of("prototypes", runs_root))), kept)


def test_rows_come_in_the_order_asked_for_whatever_shards_they_lie_in():
    whole = np.arange(20, dtype=np.float32).reshape(10, 2)
    table = pd.DataFrame({"split": ["train", "test"] * 5, "group": [0] * 5 + [1] * 5})
    latents = Latents(table, [whole[:4], whole[4:8], whole[8:]], "glow", "faces")
    for index in ([9, 0, 4, 4], np.array([7, 3]), torch.tensor([8, 1]), slice(2, 9), table["group"].to_numpy() == 1):
        np.testing.assert_array_equal(latents.batch(index), whole[index])
    assert latents.batch(np.array([], dtype=int)).shape == (0, 2)
    assert latents.rows(split="train", group=1).tolist() == [6, 8]
    with pytest.raises(IndexError):
        latents.batch([10])


def test_several_processes_encode_what_one_that_was_stopped_left(runs_root, monkeypatch):
    """On a local dask cluster, as on GPUs; what the first one did stays, and nothing is done twice."""
    settings, folder = settings_of("prototypes", runs_root, encode_batch=16, workers=1), folder_of(runs_root)
    expected = all_of(Latents.open(folder, Faces.open(folder_of(runs_root, "faces"))))
    shutil.rmtree(folder)
    monkeypatch.setattr(prototypes_module, "_SHARD", 50)
    encode, encoded = Glow.encode, []

    def stopped(glow, images):
        encoded.append(len(images))
        if sum(encoded) > 60:
            raise KeyboardInterrupt
        return encode(glow, images)

    with monkeypatch.context() as patch:
        patch.setattr(Glow, "encode", stopped)
        with pytest.raises(KeyboardInterrupt):
            encode_faces(settings)
    assert encoded == [16, 16, 16, 2, 16], "no batch reaches into the next shard"
    first = folder / "latents-00000.npy"
    np.testing.assert_allclose(np.load(first), expected[:50], atol=1e-5)
    np.save(first, np.full_like(expected[:50], 7))  # to tell whether it is encoded again
    latents = encode_faces(settings.model_copy(update={"workers": 2}))
    assert (all_of(latents)[:50] == 7).all()
    np.testing.assert_allclose(all_of(latents)[50:], expected[50:], atol=1e-5)
    assert sorted(written(folder)) == ["latents-00000.npy", "latents-00001.npy", "latents-00002.npy", "manifest.json"]


def test_damaged_latents_are_named_and_made_again(runs_root):
    file, faces = folder_of(runs_root) / "latents-00000.npy", Faces.open(folder_of(runs_root, "faces"))
    expected = all_of(Latents.open(file.parent, faces))
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"latents-00000\.npy is damaged: run 03_prototypes"):
        train_translator(settings_of("train_ictm", runs_root))
    np.testing.assert_array_equal(all_of(encode_faces(settings_of("prototypes", runs_root))), expected)
