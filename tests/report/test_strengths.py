"""What is drawn of methods that move faces less and more of the way."""

import pandas as pd
import pytest

from ageflow.evaluation.scores import strength_curves
from ageflow.report.strengths import draw_strengths
from ageflow.report.style import LINES
from ageflow.translation.methods import METHODS
from tests.report.evaluations import judged_rows

STRENGTHS = (0.5, 1.0, 1.5)


@pytest.fixture
def rows():
    """Each method reaches a share of the ages that rises with the strength; the second judge sees one group in all."""
    parts = []
    for place, method in enumerate(METHODS):
        for strength in STRENGTHS:
            share, cosine = 0.2 * place + 0.2 * strength, 1 - 0.2 * strength
            part = judged_rows((share,) * 4, (cosine,) * 4, 1).assign(method=method, strength=strength)
            parts.append(part.assign(cosine_centred=cosine, second_age=25.0, verified=True))
    return pd.concat(parts, ignore_index=True)


def test_curves_are_means_of_the_groups_means(rows):
    uneven = pd.concat([rows, rows[rows["target"] == 3].assign(cosine_centred=0.0)], ignore_index=True)
    curves = strength_curves(uneven).set_index(["method", "strength"])
    assert curves.index.tolist() == [(method, strength) for method in METHODS for strength in STRENGTHS]
    assert curves.loc[("glow", 0.5), "age_accuracy"] == pytest.approx(10)
    assert curves.loc[("ageflow", 1.0), "age_accuracy"] == pytest.approx(80)
    assert curves.loc[("ageflow", 1.0), "second_accuracy"] == pytest.approx(25), "every face is seen in 30-"
    # 51+ has twice as many rows, half of them at 0: it counts as a quarter all the same
    assert curves.loc[("ageflow", 1.0), "cosine_centred"] == pytest.approx((3 * 0.8 + 0.4) / 4)


def test_every_method_has_its_line_by_both_judges_and_a_large_point_as_it_is(rows):
    curves = strength_curves(rows)
    picture = draw_strengths(curves)
    for axes, column in zip(picture.axes, ("age_accuracy", "second_accuracy"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        large = [line for line in axes.lines if line.get_linestyle() == "None"]
        for (method, own), point in zip(curves.groupby("method", sort=False), large, strict=True):
            line = lines[METHODS[method]]
            assert line.get_xdata() == pytest.approx(own[column].to_numpy())
            assert line.get_ydata() == pytest.approx(own["cosine_centred"].to_numpy())
            assert (line.get_color(), line.get_marker()) == (LINES[method].color, LINES[method].marker)
            as_it_is = own[own["strength"] == 1]
            assert point.get_xdata() == pytest.approx(as_it_is[column].to_numpy())
            assert point.get_ydata() == pytest.approx(as_it_is["cosine_centred"].to_numpy())
    assert [axes.get_xlabel() for axes in picture.axes] == [
        "age accuracy by the run's classifier, %",
        "age accuracy by the second judge, %",
    ]
