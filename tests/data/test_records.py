"""The one table of records; test_readers.py holds which rows are rejected."""

import numpy as np
import pytest

from ageflow.data.records import AGE_GROUPS, age_group


def test_groups_are_the_papers_and_ages_are_completed_years():
    ages = [0, 16, 30, 30.99, 31, 40, 40.5, 41, 50, 50.99, 51, 90]
    assert age_group(ages).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert age_group(np.zeros((2, 3))).shape == (2, 3)
    assert len(AGE_GROUPS) == 4


def test_an_age_that_is_no_number_has_no_group():
    with pytest.raises(ValueError, match="nan"):
        age_group([20, float("nan")])
