"""Prepared faces, read back."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ageflow.data.faces import Faces, shard_file
from ageflow.data.records import PAPER_GROUPS


@pytest.fixture(scope="module")
def pixels(sharded: Faces) -> np.ndarray:
    """All faces as they lie on disk, [N, S, S, 3]."""
    return np.concatenate([np.load(shard_file(sharded.folder, shard)) for shard in range(3)])


@pytest.mark.parametrize(
    "order",
    [[95, 0, 41, 41, 39], slice(30, 90), slice(None, None, -7), np.arange(96) % 5 == 0, 17, torch.tensor([3, 80])],
    ids=str,
)
def test_images_are_the_shards_rows_in_the_order_asked_for(sharded, pixels, order):
    assert len(sharded) == 96 == len(pixels)
    rows = order.numpy() if isinstance(order, torch.Tensor) else order
    expected = np.atleast_1d(np.arange(96)[rows])
    images = sharded.images(order)
    assert images.dtype == torch.uint8
    assert images.shape == (len(expected), 3, 32, 32)
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), pixels[expected])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_row_that_is_not_there_is_an_error(sharded):
    with pytest.raises(IndexError):
        sharded.images([96])


def test_a_selection_keeps_its_own_faces_and_pixels(sharded, pixels):
    chosen = sharded.select(split="train", group=2, gender="male")
    rows = sharded.table.query("split == 'train' and group == 2 and gender == 'male'").index
    assert 0 < len(chosen) < 96
    assert chosen.table["face"].tolist() == rows.tolist()
    assert chosen.table.index.tolist() == list(range(len(rows)))
    assert np.array_equal(chosen.images(slice(None)).permute(0, 2, 3, 1).numpy(), pixels[rows])
    assert len(sharded.select(group=2)) == (sharded.groups == 2).sum()


def test_a_misspelt_selection_is_an_error(sharded):
    for wrong, said in (({"split": "validation"}, "validation"), ({"sex": "m"}, "no label 'sex': expected one")):
        with pytest.raises(ValueError, match=said):
            sharded.select(**wrong)


@pytest.mark.parametrize("name", ["faces.parquet", "shard-00002.npy"])
def test_a_file_that_is_missing_or_damaged_is_named_with_its_notebook(sharded, tmp_path, name):
    folder = shutil.copytree(sharded.folder, tmp_path / "faces")
    for spoil in (lambda file: file.write_bytes(file.read_bytes()[:-100]), Path.unlink):
        spoil(folder / name)
        with pytest.raises(FileNotFoundError, match=rf"{name} is missing or damaged .*run 01_prepare_data.ipynb"):
            Faces.open(folder)


def test_labels(sharded):
    assert np.array_equal(sharded.groups, PAPER_GROUPS.of(sharded.table["age"]))
    assert sharded.groups.dtype == np.int64
    assert sharded.identities[0] == "000000"
    assert sharded.attributes == ["gender"], "race is unknown in this set, so it is no attribute"
    assert sharded.select(gender="male").attributes == []
    assert sharded.image_size == 32


def test_an_identity_keeps_every_letter_where_another_is_missing(sharded):
    """`Series.to_numpy(dtype=str)` of pandas 3.1.1 cuts all to one letter."""
    table = sharded.table.assign(identity=["anna", None, *sharded.table["identity"][2:]])
    assert Faces(sharded.folder, table).identities[[0, 2]].tolist() == ["anna", sharded.identities[2]]


def test_the_fingerprint_names_the_table_and_the_pixels(sharded, smoke_workspace):
    assert sharded.select(split="test").fingerprint == sharded.fingerprint
    assert Faces.open(smoke_workspace.require("faces")).fingerprint != sharded.fingerprint
    assert smoke_workspace.manifest("faces").fingerprint == Faces.open(smoke_workspace.path("faces")).fingerprint
