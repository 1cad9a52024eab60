"""The tiny run for the tests of this folder."""

from pathlib import Path

import pytest

from tests.tiny import tiny_run


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny")
