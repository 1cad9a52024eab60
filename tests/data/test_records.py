"""The one table of records: groups and what is turned away."""

import numpy as np
import pandas as pd
import pytest

from ageflow.data.records import AGE_GROUPS, COLUMNS, age_group, checked


def row(**values):
    return {"file": "a.jpg", "identity": "7", "age": 30, "gender": "male", "race": None, "source": "x"} | values


def test_groups_are_the_papers_and_ages_are_completed_years():
    ages = [0, 16, 30, 30.99, 31, 40, 40.5, 41, 50, 50.99, 51, 90]
    assert age_group(ages).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert age_group(np.zeros((2, 3))).shape == (2, 3)
    assert len(AGE_GROUPS) == 4


def test_an_age_that_is_no_number_has_no_group():
    with pytest.raises(ValueError, match="nan"):
        age_group([20, float("nan")])


def test_every_row_is_kept_or_told():
    table = pd.DataFrame(
        [
            row(),
            row(file="b.jpg", age="41"),
            row(file="c.jpg", age="n/a"),
            row(file="d.jpg", age=-1),
            row(file="e.jpg", age=250),
            row(file="a.jpg", age=31),
            row(file="f.jpg", gender="M"),
            row(file="g.jpg", gender=None, identity=None),
            row(file=None),
            row(file="h.jpg", age=0),
            row(file="e.jpg", age=52),
        ]
    )
    kept, rejections = checked(table)
    assert kept["file"].tolist() == ["a.jpg", "b.jpg", "g.jpg", "h.jpg", "e.jpg"], "whose first row was bad"
    assert kept["age"].tolist() == [30, 41, 30, 0, 52]
    assert kept["identity"].tolist() == ["7", "7", "g.jpg", "7", "7"], "a picture that names nobody is its own identity"
    reasons = {line.row: line.reason for line in rejections}
    assert sorted(reasons) == [2, 3, 4, 5, 6, 8]
    assert "'n/a' is not a number" in reasons[2]
    assert "-1" in reasons[3]
    assert "250" in reasons[4]
    assert "earlier row" in reasons[5]
    assert "'M'" in reasons[6]


def test_a_table_without_a_column_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="lacks race"):
        checked(pd.DataFrame([row()])[[column for column in COLUMNS if column != "race"]])
