"""What several tests share: a small, real demo set."""

from pathlib import Path

import pytest

import ageflow
from ageflow.workspace import Workspace


@pytest.fixture(scope="session")
def smoke_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run's workspace with prepared faces: the smoke preset's 96 at 32×32, drawn by the real generator.

    Drawn faces are kept in the user's cache, so only the first session takes its half a minute.
    """
    from ageflow.data.prepare import prepare

    runs_root = tmp_path_factory.mktemp("runs")
    settings = ageflow.settings("prepare_data", {"preset": "smoke", "runs_root": runs_root, "progress": False})
    prepare(settings)
    return settings.workspace


@pytest.fixture(scope="session")
def demo_faces_folder(smoke_workspace: Workspace) -> Path:
    """The folder of those faces, for `Faces.open`."""
    return smoke_workspace.require("faces")
