"""The tiny run for the tests of this folder."""

from pathlib import Path

import pytest

from ageflow.data.faces import Faces
from ageflow.flows.glow import Glow, load_glow
from tests.tiny import tiny_run


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny")


@pytest.fixture
def faces(runs_root: Path) -> Faces:
    return Faces.open(runs_root / "demo/tiny/faces")


@pytest.fixture(scope="session")
def glow(runs_root: Path) -> Glow:
    return load_glow(runs_root / "demo/tiny/glow", "cpu")
