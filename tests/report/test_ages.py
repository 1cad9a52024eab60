"""Predicted against target age: what is averaged, over whom, and what is drawn."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from ageflow.report.ages import age_curves, draw_ages, read_ages
from ageflow.report.style import LINES
from ageflow.translation.methods import METHODS

TARGETS = (20.0, 40.0, 60.0)


def judged():
    """Faces of ten people, the first of whom has nine: every method misses by its place, and each person by theirs."""
    rows = []
    for place, method in enumerate(reversed(METHODS)):
        for face in range(18):
            person = max(0, face - 8)
            for target in TARGETS:
                rows.append((method, f"f{face}", f"p{person}", face % 4, target, target + place + person))
    return pd.DataFrame(rows, columns=["method", "face", "identity", "source", "target_age", "predicted_age"])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "continuous.parquet"


def test_curves_are_means_over_faces_with_intervals_over_people():
    curves = age_curves(judged())
    assert list(dict.fromkeys(curves["method"])) == list(METHODS)
    assert curves.groupby("method")["target_age"].apply(list).tolist() == [list(TARGETS)] * 4
    assert (curves["faces"] == 18).all()
    assert (curves["identities"] == 10).all()
    miss = np.repeat([3, 2, 1, 0], 3) + 45 / 18  # nine faces of person 0, one of each of the persons 1 to 9
    assert curves["value"].to_numpy() == pytest.approx(curves["target_age"].to_numpy() + miss)
    # Were faces drawn instead of people, the first person's nine would make the interval narrower than a mean of
    # eighteen faces with this spread has: 1.96 · 3.1/√18.
    assert ((curves["high"] - curves["low"]) > 2 * 1.96 * 3.1 / 18**0.5).all()
    assert curves["value"].between(curves["low"], curves["high"]).all()


def test_every_method_has_its_line_and_band_over_the_line_of_equal_ages():
    table = judged()
    axes = draw_ages(age_curves(table)).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    for method, name in METHODS.items():
        own = table[table["method"] == method].groupby("target_age")["predicted_age"].mean()
        assert lines[name].get_xdata() == pytest.approx(own.index.to_numpy())
        assert lines[name].get_ydata() == pytest.approx(own.to_numpy())
        assert (lines[name].get_color(), lines[name].get_marker()) == (LINES[method].color, LINES[method].marker)
    assert [to_hex(band.get_facecolor()[0]) for band in axes.collections] == [line.color for line in LINES.values()]
    equal = lines["predicted = target"]
    assert (equal.get_xdata() == equal.get_ydata()).all()
    assert equal.is_dashed()
    assert sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":") == [30.5, 40.5, 50.5]
    assert [text.get_text() for text in axes.texts] == ["30-", "31-40", "41-50", "51+"]


def test_one_person_has_a_line_and_no_band_and_far_groups_no_name():
    table = judged()
    axes = draw_ages(age_curves(table[(table["identity"] == "p0") & (table["target_age"] > 40)])).axes[0]
    assert len([line for line in axes.lines if line.get_label() in METHODS.values()]) == 4
    assert [text.get_text() for text in axes.texts] == ["51+"]
    axes.figure.draw_without_rendering()


def test_a_measured_file_is_read_as_it_is(file):
    judged().to_parquet(file)
    assert read_ages(file).equals(judged())


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (judged().drop(columns="target_age"), "lacks target_age.*06_ablations"),
        (judged().iloc[:0], "no rows.*06_ablations"),
        (judged().assign(method="caae"), "caae.*glow"),
        (judged().assign(predicted_age=np.nan), "no numbers"),
    ],
    ids=["column", "empty", "method", "number"],
)
def test_a_file_that_cannot_be_drawn_is_refused(file, broken, told):
    broken.to_parquet(file)
    with pytest.raises(ValueError, match=told):
        read_ages(file)
