"""A folder of runs whose processes end with their test."""

from pathlib import Path

import pytest

from tests.training.processes import end_all


@pytest.fixture
def root(tmp_path: Path):
    """A folder of runs; what a failed test left running is killed."""
    yield tmp_path
    end_all(tmp_path)
