"""The one table of records: age groups, and two halves that share nobody; test_readers.py holds which rows are rejected."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ageflow.data.records import PAPER_GROUPS, split_by_identity

ROW = st.tuples(st.integers(0, 30), st.integers(0, 3), st.sampled_from(["female", "male", None]))


def test_groups_are_the_papers_and_ages_are_completed_years():
    ages = [0, 16, 30, 30.99, 31, 40, 40.5, 41, 50, 50.99, 51, 90]
    assert PAPER_GROUPS.of(ages).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert PAPER_GROUPS.of(np.zeros((2, 3))).shape == (2, 3)
    assert len(PAPER_GROUPS) == 4


def test_an_age_that_is_no_number_has_no_group():
    with pytest.raises(ValueError, match="nan"):
        PAPER_GROUPS.of([20, float("nan")])


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=2, max_size=120), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_no_identity_in_both_halves(rows, share, seed):
    table = pd.DataFrame(rows, columns=["identity", "group", "gender"]).astype({"identity": str})
    split = split_by_identity(table, share, seed)
    assert split.index.equals(table.index)
    assert set(split) <= {"train", "test"}
    assert (split.groupby(table["identity"]).nunique() == 1).all()
    if table["identity"].nunique() > 1:
        assert set(split) == {"train", "test"}


@pytest.fixture
def table():
    random = np.random.default_rng(3)
    identities = np.repeat(np.arange(400), 2).astype(str)
    groups = np.repeat(random.choice(4, p=[0.6, 0.2, 0.15, 0.05], size=400), 2)
    genders = np.repeat(random.choice(["female", "male"], size=400), 2)
    return pd.DataFrame({"identity": identities, "group": groups, "gender": genders})


def test_every_group_and_gender_keeps_the_share(table):
    split = split_by_identity(table, 0.2, seed=5)
    assert abs((split == "test").sum() / 2 - 0.2 * 400) <= 1
    for _, cell in table.groupby(["group", "gender"]):
        assert abs((split[cell.index] == "test").sum() / 2 - 0.2 * len(cell) / 2) < 1.01, "to within one identity"


def test_the_seed_decides(table):
    first = split_by_identity(table, 0.2, seed=1)
    assert first.equals(split_by_identity(table, 0.2, seed=1))
    assert not first.equals(split_by_identity(table, 0.2, seed=2))


def test_the_order_of_the_rows_does_not_matter(table):
    shuffled = table.sample(frac=1, random_state=0)
    assert split_by_identity(shuffled, 0.2, seed=1).sort_index().equals(split_by_identity(table, 0.2, seed=1))
