"""Nobody is in both halves, whatever the table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ageflow.data.records import split_by_identity


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 3), st.sampled_from(["female", "male", None])),
        min_size=2,
        max_size=120,
    ),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32 - 1),
)
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
        tested = (split[cell.index] == "test").sum() / 2
        assert abs(tested - 0.2 * len(cell) / 2) < 1.01, "to within one identity"


def test_the_seed_decides(table):
    first = split_by_identity(table, 0.2, seed=1)
    assert first.equals(split_by_identity(table, 0.2, seed=1))
    assert not first.equals(split_by_identity(table, 0.2, seed=2))


def test_the_order_of_the_rows_does_not_matter(table):
    shuffled = table.sample(frac=1, random_state=0)
    assert split_by_identity(shuffled, 0.2, seed=1).sort_index().equals(split_by_identity(table, 0.2, seed=1))
