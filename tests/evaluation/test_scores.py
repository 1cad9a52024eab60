"""Monotonicity and KID on cases whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from ageflow.data.records import PAPER_GROUPS
from ageflow.evaluation.scores import in_groups, kernel_distance, kid_by_group, monotonicity

STOPS = PAPER_GROUPS.stops


def of_one_face(ages):
    face = {"method": "m", "face": "f", "identity": "i", "source": 0, "target_age": STOPS, "predicted_age": ages}
    return monotonicity(in_groups(pd.DataFrame(face), PAPER_GROUPS))["rho"].iloc[0]


def test_rounding_is_no_age():
    """The same picture in other batches: last bits differ, in the order of the ages asked for."""
    assert of_one_face(41.7 + 1e-6 * np.arange(len(STOPS))) == 0.0


def test_stops_beyond_the_outer_groups_count_once():
    # One swap among the eight different stops: 1 − 6·2/(8·63).
    swapped = [{35.0: 40.0, 40.0: 35.0}.get(age, age) for age in STOPS]
    assert of_one_face(swapped) == pytest.approx(1 - 12 / (8 * 63), abs=1e-5)
    assert of_one_face([-age for age in STOPS]) == pytest.approx(-1)


def test_kid_is_the_unbiased_distance_of_its_definition():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(40, 6, generator=generator).double() + shift for shift in (0.0, 0.5))
    x, y = first.numpy(), second.numpy()
    xx, yy, xy = (((a @ b.T) / 6 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    off = ~np.eye(40, dtype=bool)
    expected = xx[off].mean() + yy[off].mean() - 2 * xy.mean()
    kid, spread = kernel_distance(first, second)
    assert kid == pytest.approx(expected, rel=1e-9)
    assert spread == pytest.approx(0, abs=1e-9)  # all of both, in every subset


def test_kid_by_group_compares_with_real_faces_of_the_target_group():
    rng, groups, targets = np.random.default_rng(0), np.repeat(range(4), 50), np.repeat([1, 3], 50)
    real = pd.DataFrame({"target": groups, "feature": list(rng.normal(size=(200, 8)) + groups[:, None])})
    made = pd.DataFrame({"target": targets, "feature": list(rng.normal(size=(100, 8)) + 1)})  # all look like group 1
    found = pd.DataFrame(kid_by_group(made, real, 4)).set_index("target")
    assert abs(found.loc[1, "kid"]) < 1
    assert found.loc[3, "kid"] > 100
    assert found.loc[3, "faces"] == 50
    assert found.loc[[0, 2], "kid"].isna().all()
