"""The demo faces again, in several shards, and their pictures before alignment."""

from pathlib import Path

import pytest
from PIL import Image

import ageflow
from ageflow.config import PrepareData
from ageflow.data.faces import Faces
from ageflow.data.prepare import prepare, source_folder


def in_three_shards(runs_root: Path) -> PrepareData:
    """Settings of a set of 96 faces in three shards, whose drawn faces are in the cache already."""
    parameters = {"preset": "smoke", "runs_root": runs_root, "shard_size": 40, "workers": 1, "progress": False}
    return ageflow.settings("prepare_data", parameters)


@pytest.fixture
def wanted(tmp_path: Path, smoke_workspace) -> PrepareData:
    """Such settings, of a run that has nothing yet."""
    return in_three_shards(tmp_path)


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory, smoke_workspace) -> Faces:
    """That set, prepared."""
    return prepare(in_three_shards(tmp_path_factory.mktemp("sharded")))


@pytest.fixture(scope="session")
def pictures(demo_faces_folder: Path) -> list[Image.Image]:
    """Drawn faces of 40 people before alignment, 256×256."""
    table = Faces.open(demo_faces_folder).table.drop_duplicates("identity").head(40)
    return [Image.open(source_folder(demo_faces_folder) / file).convert("RGB") for file in table["file"]]
