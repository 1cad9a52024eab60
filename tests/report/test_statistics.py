"""Intervals held against cases whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest

from ageflow.report.statistics import Bootstrap

MANY = Bootstrap(resamples=4000)


def scores(identities, values, group=0):
    return pd.DataFrame({"identity": identities, "group": group, "value": values})


def grouped(values, group=0):
    return scores([f"id{i}" for i in range(len(values))], values, group)


def test_interval_of_independent_faces_is_the_binomials():
    found = MANY.mean(grouped(np.where(np.arange(1000) < 300, 100.0, 0.0)))
    half = 1.96 * 100 * math.sqrt(0.3 * 0.7 / 1000)
    assert found.value == pytest.approx(30.0)
    assert (found.low, found.high) == pytest.approx((30.0 - half, 30.0 + half), abs=0.3)


def test_copies_of_a_persons_face_do_not_narrow_the_interval():
    identities, values = np.array([f"id{i}" for i in range(100)]), np.where(np.arange(100) < 40, 100.0, 0.0)
    one, nine = MANY.mean(scores(identities, values)), MANY.mean(scores(identities.repeat(9), values.repeat(9)))
    assert (nine.value, nine.low, nine.high) == pytest.approx((one.value, one.low, one.high))
    assert nine.high - nine.low > 15  # faces resampled one by one would give 6.4
    assert (nine.faces, nine.identities) == (900, 100)


def test_the_mean_is_over_faces_not_over_people():
    found = Bootstrap().mean(scores(["a"] * 9 + ["b"], [100.0] * 9 + [0.0]))
    assert found.value == pytest.approx(90.0)
    assert (found.low, found.high) == (0.0, 100.0)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(5), 0, 200
    identities = np.repeat(np.arange(60).astype(str), 4)
    for trial in range(trials):
        person = rng.normal(0.8, 0.05, 60)  # a person's own mean, then their faces around it
        found = Bootstrap(400, seed=trial).mean(scores(identities, person.repeat(4) + rng.normal(0, 0.02, 240)))
        hits += found.low <= 0.8 <= found.high
    assert 0.89 <= hits / trials <= 0.99


def test_same_seed_same_interval():
    of = grouped(np.arange(30.0))
    assert Bootstrap(seed=3).mean(of) == Bootstrap(seed=3).mean(of) != Bootstrap(seed=4).mean(of)


@pytest.mark.parametrize(
    ("of", "value", "faces", "note"),
    [
        (scores([], []), math.nan, 0, "no such test faces"),
        (scores(["a"], [math.nan]), math.nan, 0, "no such test faces"),
        (scores(["a", "a"], [100.0, 0.0]), 50.0, 2, "one identity: no interval"),
    ],
)
def test_too_few_people_give_no_interval_and_a_reason(of, value, faces, note):
    found = Bootstrap().mean(of)
    assert found.value == pytest.approx(value, nan_ok=True)
    assert math.isnan(found.low)
    assert (found.faces, found.note) == (faces, note)


def test_lead_is_paired():
    rng = np.random.default_rng(0)
    person, noise = rng.normal(0, 10, 200), rng.normal(1, 2, 200)  # what both share, and what the first has
    found = MANY.lead(grouped(person + noise), grouped(person), [0])
    half = 1.96 * noise.std() / math.sqrt(200)
    assert found.value == pytest.approx(noise.mean())
    assert (found.low, found.high) == pytest.approx((noise.mean() - half, noise.mean() + half), abs=0.05)


def test_lead_in_the_mean_weighs_groups_alike():
    first = pd.concat([grouped([1.0] * 30, 1), grouped([5.0] * 3, 2)])
    assert Bootstrap().lead(first, first.assign(value=0.0), [1, 2]).value == pytest.approx(3.0)


def test_a_mean_over_a_group_of_one_person_has_no_interval():
    """Only resamples with that person count, which would leave its part of the variance out."""
    rows = grouped(np.arange(100.0), [0] * 99 + [1])
    found = Bootstrap(100).lead(rows, rows.assign(value=rows["value"] - 5 + rows.index % 3), [0, 1])
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not math.isnan(found.value)
    assert found.note == "a group of one identity: no interval"
    assert not math.isnan(Bootstrap(100).lead(rows, rows.assign(value=rows["value"] - 5), [0]).low)
