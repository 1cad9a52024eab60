"""Tables 5 and 6, and that LaTeX takes all six."""

import math
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

import ageflow
from ageflow.evaluation.judged import read_judged, write_judged
from ageflow.report.estimates import estimate
from ageflow.report.results import MixedResultsError, Results
from ageflow.report.tables import _best, make_table, make_tables
from ageflow.run import Workspace
from tests.report.evaluations import (
    PEOPLE,
    judged_rows,
    numbers_of,
    real_rows,
    write_beyond,
    write_evaluation,
    write_strengths,
)


def test_table_5_has_what_the_paper_does_not_measure(tmp_path):
    kid = [{"target": group, "kid": 0.001 * group, "spread": 0.0, "faces": 9} for group in range(4)]
    settings = write_evaluation(tmp_path, kid=kid, features="kid_face_api")
    write_beyond(settings)
    table = make_table(5, Results.open(Workspace.of(settings)), settings)
    found = numbers_of(table)
    assert found.loc[("inverse_error", "AgeFlow", "mean"), "value"] == pytest.approx(1e-6)
    assert "GLOW has no inverse" in found.loc[("inverse_error", "GLOW", "mean"), "note"]
    assert found.loc[("monotone", "AgeFlow", "31-40"), "value"] == pytest.approx(90)
    assert found.loc[("monotone", "GLOW", "31-40"), "value"] == pytest.approx(60)
    assert found.loc[("monotone_second", "GLOW", "31-40"), "value"] == pytest.approx(100)
    assert found.loc[("monotone", "AgeFlow", "30-"), "note"] == "no such test faces"
    assert found.loc[("kid_face_api", "AgeFlow", "51+"), "value"] == pytest.approx(3)
    best = table.best
    assert best.loc[("Cycle error (re-translation)", "this run (demo/r1)", "GLOW")].all()  # lower is better
    assert not best.loc[("Cycle error (re-translation)", "this run (demo/r1)", "AgeFlow")].any()
    assert "1.0e-06" in table.to_markdown()
    (fewer,) = [note for note in table.notes if note.startswith("Measured on a choice of the test faces")]
    assert "Continuous target: rank correlation, 10 of 10 people; Continuous target: monotone faces (%), 10 of" in fewer
    assert "Back by" not in fewer


def test_table_5_says_where_it_rests_on_fewer_faces_of_all_the_people(tmp_path):
    settings = write_evaluation(tmp_path)
    write_beyond(settings)
    file = Workspace.of(settings).path("evaluation", "cycle.parquet")
    judged = read_judged(file)
    write_judged(file, judged.rows[judged.rows["source"] == 0], judged.about)
    notes = make_table(5, Results.open(Workspace.of(settings)), settings).notes
    (fewer,) = [note for note in notes if note.startswith("Measured on a choice of the test faces")]
    assert f"Cycle error (re-translation), {PEOPLE} of {PEOPLE} people" in fewer


def test_the_second_judge_s_shares_are_told_of_methods_and_real_faces(tmp_path):
    """Its ages are chosen: of AgeFlow's faces a quarter land where they were asked to, of GLOW's half, of real ones 3/4."""
    centre, wrong = np.array([25.0, 35.0, 45.0, 60.0]), np.array([60.0, 25.0, 25.0, 25.0])

    def seen(rows, share):
        right = rows["identity"].str[2:].astype(int) < share * PEOPLE
        return rows.assign(second_age=np.where(right, centre[rows["target"]], wrong[rows["target"]]))

    methods = {name: judged_rows((1,) * 4, (1,) * 4, 1) for name in ("ageflow", "glow")}
    methods = {"ageflow": seen(methods["ageflow"], 0.25), "glow": seen(methods["glow"], 0.5)}
    settings = write_evaluation(tmp_path, methods=methods, real=seen(real_rows(), 0.75))
    write_beyond(settings)
    results = Results.open(Workspace.of(settings))
    table = make_table(5, results, settings)
    of_run, of_real = numbers_of(table), numbers_of(table, "real test faces")
    for group in ("30-", "31-40", "41-50", "51+", "mean"):
        assert of_run.loc[("second_accuracy", "AgeFlow", group), "value"] == pytest.approx(25)
        assert of_run.loc[("second_accuracy", "GLOW", group), "value"] == pytest.approx(50)
    for group in ("30-", "31-40", "41-50", "51+"):
        assert of_real.loc[("second_accuracy", "the second judge is right", group), "value"] == pytest.approx(75)
    assert table.best.loc[("Age accuracy, second judge (%)", "this run (demo/r1)", "GLOW")].all()
    lead = numbers_of(make_table(6, results, settings))
    assert lead.loc[("second_accuracy", "over GLOW", "mean"), "value"] == pytest.approx(-25)


def test_a_lead_that_reads_as_nothing_is_not_bold(tmp_path):
    hardly, more = 0.90001, 0.90002
    methods = {"glow": judged_rows((1,) * 4, (hardly,) * 4, 1), "ageflow": judged_rows((1,) * 4, (more,) * 4, 1)}
    settings = write_evaluation(tmp_path, methods=methods)
    table = make_table(6, Results.open(Workspace.of(settings)), settings)
    cosine = numbers_of(table).loc["cosine"].loc["over GLOW"]
    assert (cosine["low"] > 0).all()
    assert not cosine["best"].any()
    assert "+0.000 [+0.000, +0.000]" in table.to_markdown()


def test_table_6_compares_cosines_where_as_many_ages_are_reached(tmp_path):
    settings = write_evaluation(tmp_path)
    table = make_table(6, Results.open(Workspace.of(settings)), settings)
    assert "Centred cosine at equal age accuracy" not in table.to_markdown(), (
        "an evaluation before there was such a thing"
    )

    write_strengths(settings, ageflow=[(0.4, 0.8), (0.8, 0.6)], glow=[(0.3, 0.9), (0.5, 0.65)])
    table = make_table(6, Results.open(Workspace.of(settings)), settings)
    found = numbers_of(table).loc["cosine_at_equal_age"]
    assert found.index.tolist() == [("over GLOW", "mean"), ("over GLOW at 0.5 of its way", "mean")]
    assert math.isnan(found.loc[("over GLOW at 0.5 of its way", "mean"), "value"]), "at 0.5 AgeFlow reaches more"
    row = found.loc[("over GLOW", "mean")]
    assert row["strength"] == pytest.approx(0.625)  # a quarter of the way from 0.4 to 0.8
    assert row["value"] == pytest.approx(0.75 - 0.65)
    assert 0 < row["low"] < row["value"] < row["high"]
    assert row["best"]
    (note,) = [note for note in table.notes if note.startswith("At equal age accuracy")]
    assert "over GLOW 0.62 (1 moves" in note
    assert f"judged at 0.5, 1, straight lines between them, on {4 * PEOPLE} faces of {PEOPLE} people" in note


def test_table_6_says_where_ageflow_reaches_too_few_ages_to_compare(tmp_path):
    settings = write_evaluation(tmp_path)
    write_strengths(settings, ageflow=[(0.2, 0.8), (0.4, 0.6)], glow=[(0.3, 0.9), (0.5, 0.65)])
    table = make_table(6, Results.open(Workspace.of(settings)), settings)
    row = numbers_of(table).loc[("cosine_at_equal_age", "over GLOW", "mean")]
    assert math.isnan(row["value"])
    assert not row["best"]
    assert any(note.startswith("n/a: at no strength does it reach as many") for note in table.notes)
    less = numbers_of(table).loc[("cosine_at_equal_age", "over GLOW at 0.5 of its way", "mean")]
    assert (less["strength"], less["value"]) == pytest.approx((0.75, 0.7 - 0.9))
    (note,) = [note for note in table.notes if note.startswith("At equal age accuracy")]
    assert "going less of its way: over GLOW at 0.5 of its way 0.75 (1 moves" in note


def test_a_mean_of_kid_over_fewer_groups_is_no_number_and_says_why(tmp_path):
    kid = [{"target": group, "kid": 0.001 if group else math.nan, "spread": 0.0, "faces": 9} for group in range(4)]
    settings = write_evaluation(tmp_path, kid=kid, features="kid_face_api")
    write_beyond(settings)
    found = numbers_of(make_table(5, Results.open(Workspace.of(settings)), settings))
    for group in ("30-", "mean"):
        row = found.loc[("kid_face_api", "AgeFlow", group)]
        assert math.isnan(row["value"])
        assert row["note"] == "fewer than two faces of a group on one side"
    assert found.loc[("kid_face_api", "AgeFlow", "51+"), "value"] == pytest.approx(1)


def test_the_best_mean_is_told_by_the_mean_that_is_printed():
    """Over the faces, of which the groups have different numbers: the mean of the groups' means says the opposite."""

    def rows(often, seldom):
        shares = [(0, 100, often), (1, 10, seldom)]
        faces = [
            (f"{group}-{face}", group, float(face < share * of)) for group, of, share in shares for face in range(of)
        ]
        return pd.DataFrame(faces, columns=["identity", "group", "value"])

    higher = {"ageflow": rows(0.8, 0.0), "glow": rows(0.5, 1.0)}
    settings = ageflow.settings("tables", {"bootstrap": 200})
    values = {method: estimate(part, 200) for method, part in higher.items()}
    assert _best("age_accuracy", values, higher, settings) == "ageflow"


def test_strengths_of_other_weights_are_refused(tmp_path):
    settings = write_evaluation(tmp_path)
    write_strengths(settings, ageflow=[(0.4, 0.8), (0.8, 0.6)], glow=[(0.3, 0.9), (0.5, 0.65)])
    file = Workspace.of(settings).path("evaluation", "strength.parquet")
    judged = read_judged(file)
    others = {method: made_from | {"faces": "others"} for method, made_from in judged.about["fingerprints"].items()}
    write_judged(file, judged.rows, judged.about | {"fingerprints": others})
    with pytest.raises(MixedResultsError, match=r"strength of .* was measured with other faces"):
        make_tables(settings)


def test_numbers_beyond_the_paper_of_other_weights_are_refused(tmp_path):
    settings = write_evaluation(tmp_path)
    write_beyond(settings, faces="others")
    with pytest.raises(MixedResultsError, match=r"cycle of .* was measured with other faces"):
        make_tables(settings)


def test_table_6_has_the_paired_lead_by_group_and_in_the_mean(tmp_path):
    accuracies = {"glow": 0.3, "glow+attribute": 0.4, "no_ictm": 0.5, "ageflow": 0.7}
    methods = {name: judged_rows((share,) * 4, (0.9,) * 4, 1) for name, share in accuracies.items()}
    settings = write_evaluation(tmp_path, methods=methods)
    table = make_table(6, Results.open(Workspace.of(settings)), settings)
    found = numbers_of(table).loc["age_accuracy"]
    over = {"over GLOW": 40, "over the better of these two": 30, "over AgeFlow w/o ICTM": 20}
    for rival, expected in over.items():
        for group in ("31-40", "41-50", "mean"):
            row = found.loc[(rival, group)]
            assert row["value"] == pytest.approx(expected)
            assert 0 < row["low"] < expected < row["high"]
    # Those who are right in one are right in the other: 0.2·0.8 is the variance of the difference.
    row = found.loc[("over AgeFlow w/o ICTM", "31-40")]
    assert row["high"] - row["low"] == pytest.approx(2 * 196 * math.sqrt(0.2 * 0.8 / PEOPLE), rel=0.25)
    assert "+30.0 [+" in table.to_markdown()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine: the .tex are not compiled")
def test_latex_compiles(tmp_path):
    settings = write_evaluation(tmp_path)
    write_beyond(settings)
    tables = make_tables(settings)
    folder = Workspace.of(settings).path("tables")
    inputs = "\n".join(f"\\input{{table{table.number}.tex}}" for table in tables)
    packages = "\\usepackage{booktabs,graphicx,multirow}"
    document = f"\\documentclass{{article}}{packages}\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    (folder / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (folder / "all.pdf").stat().st_size > 10_000
