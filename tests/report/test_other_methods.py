"""Methods beyond the ablation's in tables and figures: rows, looks, and what is compared with what."""

import pytest

from ageflow.config import BASELINES
from ageflow.evaluation.scores import strength_curves
from ageflow.report import plots
from ageflow.report.drawing import method_look
from ageflow.report.results import Results
from ageflow.report.statistics import Bootstrap
from ageflow.report.tables import make_table, tiles, verdict
from ageflow.run import Workspace
from ageflow.translation.methods import METHODS
from tests.report.evaluations import default_methods, judged_rows, numbers_of, person, write_evaluation

OTHERS = [*BASELINES, "mine:Fade"]


@pytest.fixture(scope="module")
def fourteen(tmp_path_factory):
    """An evaluation of the ablation's methods and eight others."""
    rows = default_methods()["glow"]
    return write_evaluation(tmp_path_factory.mktemp("fourteen"), methods=dict.fromkeys([*METHODS, *OTHERS], rows))


def test_tables_1_2_and_5_have_all_methods_and_the_variants_tables_their_own(fourteen):
    results = Results.open(Workspace.of(fourteen))
    for number, wanted in {1: ["AgeFlow", *OTHERS], 2: ["AgeFlow", *OTHERS], 3: list(METHODS.values())}.items():
        rows = numbers_of(make_table(number, results, fourteen)).reset_index()
        assert list(dict.fromkeys(rows["method"])) == wanted
    found = numbers_of(make_table(5, results, fourteen)).reset_index()
    for metric in ("age_accuracy", "cosine_centred", "cycle_error", "rho", "kid_face_api"):
        assert set(found.loc[found["metric"] == metric, "method"]) == {*METHODS.values(), *OTHERS}


def test_fourteen_methods_look_different_and_are_drawn(fourteen, tmp_path):
    titles = [*METHODS.values(), *OTHERS]
    look = method_look(titles)
    assert len({tuple(str(kind[title]) for kind in look.values()) for title in titles}) == 14
    assert len({look["palette"][title] for title in titles}) == 14
    results = Results.open(Workspace.of(fourteen))
    drawn = {
        "ages": plots.age_plot(plots.age_curves(results.continuous.rows, 20, results.titles)),
        "trade_off": plots.trade_off_plot(strength_curves(results.strength.rows), results.titles),
    }
    for name, figure in drawn.items():
        assert [text.get_text() for text in figure.legends[0].get_texts()] == titles
        figure.save(tmp_path / f"{name}.png")


def test_a_method_with_fewer_faces_is_compared_on_these(tmp_path):
    methods = default_methods()
    half = methods["ageflow"][person(methods["ageflow"]) < 20].iloc[:-1]  # all of them land
    settings = write_evaluation(tmp_path, methods=methods | {"mine:Half": half}, asked=len(methods["ageflow"]))
    results = Results.open(Workspace.of(settings))
    leads = numbers_of(make_table(6, results, settings))
    assert leads.loc[("age_accuracy", "over mine:Half", "mean"), "value"] == 0
    assert leads.loc[("age_accuracy", "over GLOW", "mean"), "value"] == pytest.approx(40)
    assert "mine:Half is judged, and compared, on 239 of 480" in "\n".join(make_table(1, results, settings).notes)


def test_a_method_of_one_target_is_no_rival_for_the_verdict(tmp_path):
    one = judged_rows((1,) * 4, (1,) * 4)
    one = one[one["target"] == 3]
    settings = write_evaluation(tmp_path, methods={"mine:One": one, "glow": default_methods()["glow"]})
    results = Results.open(Workspace.of(settings))
    assert verdict(results, Bootstrap(20))[0].startswith("By the run's own age judge, GLOW reaches the most")
    assert tiles(results)[0]["what"].endswith("GLOW")
    for number in range(1, 7):
        make_table(number, results, settings)
