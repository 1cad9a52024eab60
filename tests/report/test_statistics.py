"""Intervals held against cases whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest

from ageflow.report.statistics import estimate, lead, lead_at_equal_age


def _scores(identities, values):
    return pd.DataFrame({"identity": identities, "value": values})


def test_interval_of_independent_faces_is_the_binomials():
    n, p = 1000, 0.3
    values = np.where(np.arange(n) < p * n, 100.0, 0.0)
    found = estimate(_scores([f"id{i}" for i in range(n)], values), resamples=4000)
    half = 1.96 * 100 * math.sqrt(p * (1 - p) / n)
    assert found.value == pytest.approx(30.0)
    assert found.low == pytest.approx(30.0 - half, abs=0.3)
    assert found.high == pytest.approx(30.0 + half, abs=0.3)


def test_copies_of_a_persons_face_do_not_narrow_the_interval():
    identities = np.array([f"id{i}" for i in range(100)])
    values = np.where(np.arange(100) < 40, 100.0, 0.0)
    one = estimate(_scores(identities, values), resamples=4000)
    nine = estimate(_scores(np.repeat(identities, 9), np.repeat(values, 9)), resamples=4000)
    assert nine.value == pytest.approx(one.value)
    assert (nine.low, nine.high) == pytest.approx((one.low, one.high))
    assert nine.high - nine.low > 15  # faces resampled one by one would give 6.4
    assert (nine.faces, nine.identities) == (900, 100)


def test_the_mean_is_over_faces_not_over_people():
    found = estimate(_scores(["a"] * 9 + ["b"], [100.0] * 9 + [0.0]))
    assert found.value == pytest.approx(90.0)
    assert (found.low, found.high) == (0.0, 100.0)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits, trials = 0, 200
    for trial in range(trials):
        person = rng.normal(0.8, 0.05, 60)  # a person's own mean, then their faces around it
        identities = np.repeat(np.arange(60).astype(str), 4)
        values = np.repeat(person, 4) + rng.normal(0, 0.02, 240)
        found = estimate(_scores(identities, values), resamples=400, seed=trial)
        hits += found.low <= 0.8 <= found.high
    assert 0.89 <= hits / trials <= 0.99


def test_same_seed_same_interval():
    scores = _scores([f"id{i}" for i in range(30)], np.arange(30.0))
    assert estimate(scores, seed=3) == estimate(scores, seed=3)
    assert estimate(scores, seed=3) != estimate(scores, seed=4)


def test_no_faces_is_told_and_is_no_crash():
    found = estimate(_scores([], []))
    assert math.isnan(found.value)
    assert found.note == "no such test faces"
    assert estimate(_scores(["a"], [math.nan])).faces == 0


def test_one_person_gives_a_mean_without_an_interval():
    found = estimate(_scores(["a", "a"], [100.0, 0.0]))
    assert found.value == 50.0
    assert math.isnan(found.low)
    assert found.note == "one identity: no interval"


def _grouped(values, group=0):
    return pd.DataFrame({"identity": [f"id{i}" for i in range(len(values))], "group": group, "value": values})


def test_lead_is_paired():
    rng = np.random.default_rng(0)
    person = rng.normal(0, 10, 200)  # what both share
    noise = rng.normal(1, 2, 200)
    found = lead(_grouped(person + noise), [_grouped(person)], [0], resamples=4000)
    half = 1.96 * noise.std() / math.sqrt(200)
    assert found.value == pytest.approx(noise.mean())
    assert found.low == pytest.approx(noise.mean() - half, abs=0.05)
    assert found.high == pytest.approx(noise.mean() + half, abs=0.05)


def test_lead_over_several_is_over_the_best_of_each_resample():
    rng = np.random.default_rng(1)
    first, one, other = (_grouped(rng.normal(0, 1, 100)) for _ in range(3))
    alone = [lead(first, [rival], [0]) for rival in (one, other)]
    both = lead(first, [one, other], [0])
    assert both.value == pytest.approx(min(found.value for found in alone))
    assert both.low <= min(found.low for found in alone) + 1e-9
    assert both.high <= min(found.high for found in alone) + 1e-9


def test_lead_in_the_mean_weighs_groups_alike():
    first = pd.concat([_grouped([1.0] * 30, 1), _grouped([5.0] * 3, 2)])
    second = pd.concat([_grouped([0.0] * 30, 1), _grouped([0.0] * 3, 2)])
    assert lead(first, [second], [1, 2]).value == pytest.approx(3.0)


def test_lead_without_faces_of_a_group_says_so():
    assert lead(_grouped([1.0]), [_grouped([0.0])], [3]).note == "no such test faces"
    assert lead(_grouped([1.0]), [_grouped([0.0])], [0]).note == "one identity: no interval"


def test_a_mean_over_a_group_of_one_person_has_no_interval():
    """Only resamples with that person count, which would leave its part of the variance out."""
    people = [f"id{i}" for i in range(99)]
    rows = pd.DataFrame({"identity": [*people, "alone"], "group": [0] * 99 + [1], "value": np.arange(100.0)})
    found = lead(rows, [rows.assign(value=rows["value"] - 5 + rows.index % 3)], [0, 1], resamples=100)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not math.isnan(found.value)
    assert found.note == "a group of one identity: no interval"
    assert not math.isnan(lead(rows, [rows.assign(value=rows["value"] - 5)], [0], resamples=100).low)


def _at_strengths(reached, value, people=200):
    """A method on `people` of one group: at each strength the first share of them are reached, all have the value."""
    parts = [
        _grouped([value] * people).assign(
            strength=strength, reached=np.where(np.arange(people) < share * people, 100.0, 0.0), value=value
        )
        for strength, (share, value) in enumerate(zip(reached, value, strict=True), start=1)
    ]
    return pd.concat(parts, ignore_index=True)


def test_lead_at_equal_age_is_where_the_other_is_reached():
    first = _at_strengths((0.2, 0.6, 0.9), (0.9, 0.7, 0.4))
    other = _at_strengths((0.75,), (0.5,))
    found, strength = lead_at_equal_age(first, other, [0])
    assert strength == pytest.approx(2.5)  # half-way from 0.6 to 0.9
    assert found.value == pytest.approx(0.55 - 0.5)
    assert found.low < found.value < found.high
    # The same people are reached by both in every resample, so what is left is how the least share of a line differs.
    assert found.high - found.low < 0.1


def test_lead_at_equal_age_has_no_number_where_the_least_strength_that_is_judged_reaches_more():
    """At 0.8 to 0.9 nothing is equal: at a lower strength AgeFlow would keep more."""
    found, strength = lead_at_equal_age(_at_strengths((0.5, 0.9), (0.8, 0.4)), _at_strengths((0.3,), (0.9,)), [0])
    assert math.isnan(strength)
    assert all(math.isnan(number) for number in (found.value, found.low, found.high))
    assert found.note == "at 1, the least strength that was judged, it reaches more: judge it at lower `strengths`"


def test_lead_at_equal_age_leaves_out_resamples_that_lack_a_group():
    """Of 40 people three have faces of 51+: one resample in 24 has none of them, more than are cut off below."""
    first, other = _at_strengths((0.2, 0.9), (0.8, 0.6), 40), _at_strengths((0.5,), (0.3,), 40)
    old = [part.assign(group=np.where(np.arange(len(part)) % 40 < 3, 3, 0)) for part in (first, other)]
    found, strength = lead_at_equal_age(*old, [0, 3])
    assert 1 < strength < 2
    assert found.note == ""
    assert found.low > 0.3


def test_lead_at_equal_age_has_no_number_where_as_many_are_never_reached():
    found, strength = lead_at_equal_age(_at_strengths((0.2, 0.6), (0.9, 0.7)), _at_strengths((0.7,), (0.1,)), [0])
    assert math.isnan(strength)
    assert math.isnan(found.value)
    assert found.note == "at no strength does it reach as many"


def test_lead_at_equal_age_has_no_interval_where_some_people_are_not_enough():
    """Reached by 61 of 100 and 60 of others: in nearly every second resample these would be more."""
    people = np.arange(200)
    first = _at_strengths((0.2, 0.605), (0.9, 0.7))
    other = _grouped([0.1] * 200).assign(strength=1, reached=np.where(people >= 80, 100.0, 0.0))
    found, strength = lead_at_equal_age(first, other, [0])
    assert 1 < strength < 2
    assert found.value > 0.5
    assert math.isnan(found.low)
    assert found.note == "it reaches as many, but not in every resample"


def test_lead_at_equal_age_without_faces_of_a_group_says_so():
    found, strength = lead_at_equal_age(_at_strengths((0.2,), (0.9,)), _at_strengths((0.1,), (0.1,)), [0, 3])
    assert found.note == "no such test faces"
    assert math.isnan(strength)
