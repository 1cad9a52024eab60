"""The script that fitted the age direction."""

import runpy

import numpy as np
import pytest

from ageflow.data.demo import age_direction
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(ROOT / "tools/fit_age_direction.py"))


def test_the_direction_is_that_of_age_without_gender(script):
    random = np.random.default_rng(0)
    offsets = random.normal(size=(2000, 8))
    genders = np.sign(offsets[:, 1] + 0.1 * random.normal(size=2000))
    ages = 40 + 9 * offsets[:, 0] + 5 * offsets[:, 1] + random.normal(size=2000)
    unit, r_squared = script["direction_of_age"](offsets, ages, genders)
    assert np.abs(unit - np.eye(8)[0]).max() < 0.03
    assert r_squared > 0.97


def test_at_tiny_size_it_writes_a_direction_that_the_library_reads(script, tmp_path, capsys):
    script["main"](["--draws", "10", "--to", str(tmp_path / "direction.safetensors")])
    unit, years_per_step = age_direction(tmp_path / "direction.safetensors")
    assert unit.shape == (512,)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(years_per_step)
