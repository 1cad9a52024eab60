"""The demo faces again, in several shards."""

from pathlib import Path

import pytest

import ageflow
from ageflow.config import PrepareData
from ageflow.data.faces import Faces
from ageflow.data.prepare import prepare


@pytest.fixture
def wanted(tmp_path: Path, smoke_workspace) -> PrepareData:
    """Settings of a set of 96 faces in three shards, whose drawn faces are in the cache already."""
    return ageflow.settings(
        "prepare_data", {"preset": "smoke", "runs_root": tmp_path, "shard_size": 40, "workers": 1, "progress": False}
    )


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, smoke_workspace) -> Faces:
    """That set, prepared."""
    runs_root = tmp_path_factory.mktemp("sharded")
    parameters = {"preset": "smoke", "runs_root": runs_root, "shard_size": 40, "workers": 1, "progress": False}
    return prepare(ageflow.settings("prepare_data", parameters))
