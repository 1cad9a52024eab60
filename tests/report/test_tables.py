"""Tables 1-4 from judged faces whose numbers are known."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.checkpoint import fingerprint, save_checkpoint
from ageflow.evaluation.judged import file_name, write_judged
from ageflow.report.published import TABLE_GROUPS, published
from ageflow.report.results import MixedResultsError, Results
from ageflow.report.tables import make_table, make_tables
from ageflow.run import MissingArtefactError, Workspace
from tests.report.evaluations import FINGERPRINTS, PEOPLE, judged_rows, numbers_of, real_rows, write_evaluation


def test_table_1_has_this_runs_accuracy_and_cosine_by_target_group(tmp_path):
    settings = write_evaluation(tmp_path)
    found = numbers_of(make_table(1, Results.open(Workspace.of(settings)), settings))
    for group, accuracy, cosine in zip(("30-", "31-40", "41-50", "51+"), (60, 70, 80, 90), range(80, 84), strict=True):
        row = found.loc[("age_accuracy", "AgeFlow", group)]
        assert row["value"] == pytest.approx(accuracy)
        assert row["low"] < accuracy < row["high"]
        assert (row["faces"], row["identities"]) == (3 * PEOPLE, PEOPLE)
        assert found.loc[("cosine", "AgeFlow", group), "value"] == pytest.approx(cosine / 100)
    assert set(found.index.get_level_values("method")) == {"AgeFlow"}


def test_intervals_resample_people_with_all_their_faces(tmp_path):
    # 3 faces of each of 40 people, all three right or all three wrong: the interval is that of 40 draws.
    settings = write_evaluation(tmp_path)
    row = numbers_of(make_table(1, Results.open(Workspace.of(settings)), settings)).loc[
        ("age_accuracy", "AgeFlow", "30-")
    ]
    half = 1.96 * 100 * math.sqrt(0.6 * 0.4 / PEOPLE)
    assert row["high"] - row["low"] == pytest.approx(2 * half, rel=0.2)


def test_tables_2_and_4_start_from_the_youngest_group_only(tmp_path):
    rows = judged_rows((1, 1, 1, 1), (1, 1, 1, 1), kept=0.75)
    rows.loc[rows["source"] != 0, "gender_predicted"] = "neither"
    settings = write_evaluation(tmp_path, methods={"ageflow": rows})
    for number in (2, 4):
        found = numbers_of(make_table(number, Results.open(Workspace.of(settings)), settings))
        for group in ("31-40", "41-50", "51+"):
            row = found.loc[("gender", "AgeFlow", group)]
            assert row["value"] == pytest.approx(75)
            assert row["faces"] == PEOPLE


@pytest.mark.parametrize(("dataset", "papers"), [("morph", {"MORPH"}), ("cacd", {"CACD"}), ("demo", {"MORPH", "CACD"})])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_papers_numbers_of_this_data_set_stand_beside(tmp_path, number, dataset, papers):
    settings = write_evaluation(tmp_path, dataset)
    table = make_table(number, Results.open(Workspace.of(settings)), settings)
    beside = table.numbers[table.numbers["source"].str.startswith("paper")]
    assert set(beside["source"]) == {f"paper, {name}, as published" for name in papers}
    expected = published(number)
    expected = expected[expected["dataset"].isin([name.lower() for name in papers])]
    assert sorted(beside["value"]) == sorted(expected["value"])
    assert beside["low"].isna().all()
    groups = [("30-", "31-40", "41-50", "51+")[group] for group in TABLE_GROUPS[number]]
    assert list(table.text.columns) == groups


def test_the_same_judges_on_real_faces_are_the_scale(tmp_path):
    settings = write_evaluation(tmp_path)
    results = Results.open(Workspace.of(settings))
    found = numbers_of(make_table(3, results, settings), "real test faces")
    assert found.loc[("age_accuracy", "the classifier is right", "51+"), "value"] == pytest.approx(90)
    assert found.loc[("cosine", "two photos of one person", "51+"), "value"] == pytest.approx(0.97)
    two = found.loc[("cosine", "photos of two people", "51+")]
    assert two["value"] == pytest.approx(0.85)
    assert two[["low", "high"]].isna().all(), "people of one side only would vary too little"
    assert two["note"] == "a mean over all pairs of people"
    assert found.loc[("cosine", "two photos of one person", "51+"), ["low", "high"]].notna().all()
    found = numbers_of(make_table(4, results, settings), "real test faces")
    assert found.loc[("gender", "the classifier is right", "41-50"), "value"] == pytest.approx(100)


def test_what_is_missing_says_so_and_why(tmp_path):
    # No method but AgeFlow, no test face of 51+ and of 30- at the start, no race labels.
    rows = judged_rows((1, 1, 1, 1), (1, 1, 1, 1), 1, groups=(1, 2))
    settings = write_evaluation(tmp_path, methods={"ageflow": rows}, real=real_rows(groups=(1, 2)))
    tables = {table.number: table for table in make_tables(settings)}
    text = tables[3].text
    assert (text.loc[("Age accuracy (%)", "this run (demo/r1)", "AgeFlow w/o ICTM")] == "n/a").all()
    assert any("AgeFlow w/o ICTM was not judged" in note for note in tables[3].notes)
    assert tables[1].text.loc[("Age accuracy (%)", "real test faces", "the classifier is right"), "51+"] == "n/a"
    assert (tables[2].text.loc[("Gender preserved (%)", "this run (demo/r1)", "AgeFlow")] == "n/a").all()
    assert any("no such test faces" in note for note in tables[2].notes)
    assert any("the faces of demo have no race labels" in note for note in tables[2].notes)


def best_of(settings, number=3):
    return make_table(number, Results.open(Workspace.of(settings)), settings).best


def test_the_best_of_this_run_is_bold_where_its_lead_is_beyond_chance(tmp_path):
    settings = write_evaluation(tmp_path)
    table = make_table(3, Results.open(Workspace.of(settings)), settings)
    best = table.best
    assert best.loc[("Age accuracy (%)", "this run (demo/r1)", "AgeFlow")].all()
    assert best.loc[("Cosine similarity", "this run (demo/r1)", "GLOW")].all()
    assert not best.xs("paper, MORPH, as published", level=1).any(axis=None)
    assert not best.xs("real test faces", level=1).any(axis=None)
    assert "**90.0 [" in table.to_markdown()
    assert "\\bfseries 90.0 [" in table.to_latex()


def test_a_lead_of_chance_is_not_bold(tmp_path):
    # One person of forty more, but other ones: 20 right against 21 wrong.
    one, other = judged_rows((0.5,) * 4, (0.9,) * 4, 1), judged_rows((0.5,) * 4, (0.9,) * 4, 1)
    last = other["identity"].str[2:].astype(int) >= 19
    other["predicted"] = np.where(last, other["target"], (other["target"] + 1) % 4)
    settings = write_evaluation(tmp_path, methods={"glow": one, "ageflow": other})
    assert not best_of(settings).loc["Age accuracy (%)"].any(axis=None)


def test_a_small_lead_that_everybody_shares_is_bold(tmp_path):
    # The spread between people is far larger than the lead, but it is the same in both: unpaired it would drown.
    rng = np.random.default_rng(0)
    one = judged_rows((0.5,) * 4, (0.5,) * 4, 1)
    one["cosine"] += one["identity"].map(dict(zip(one["identity"].unique(), rng.normal(0, 0.2, PEOPLE), strict=True)))
    other = one.assign(cosine=one["cosine"] + rng.normal(0.01, 0.005, len(one)))
    settings = write_evaluation(tmp_path, methods={"glow": one, "ageflow": other})
    assert best_of(settings).loc[("Cosine similarity", "this run (demo/r1)", "AgeFlow")].all()


def test_what_reads_the_same_is_not_bold(tmp_path):
    one, other = (judged_rows((0.5,) * 4, (cosine,) * 4, 1) for cosine in (0.90001, 0.90002))
    settings = write_evaluation(tmp_path, methods={"glow": one, "ageflow": other})
    assert not best_of(settings).loc["Cosine similarity"].any(axis=None)


def with_identity(rows, centred, verified):
    return rows.assign(cosine_centred=centred, verified=rows["identity"].str[2:].astype(int) < verified * PEOPLE)


def test_tables_1_and_3_tell_centred_cosines_and_verification(tmp_path):
    methods = {"ageflow": with_identity(judged_rows((1,) * 4, (0.99,) * 4, 1), 0.4, 0.7)}
    real = real_rows().assign(cosine_centred_same=0.5, cosine_centred_other=-0.1, verified_same=0.8, verified_other=0.1)
    settings = write_evaluation(tmp_path, methods=methods, real=real, threshold="Euclidean distance below 0.6")
    table = make_table(1, Results.open(Workspace.of(settings)), settings)
    found = numbers_of(table)
    assert found.loc[("cosine_centred", "AgeFlow", "51+"), "value"] == pytest.approx(0.4)
    assert found.loc[("verified", "AgeFlow", "51+"), "value"] == pytest.approx(70)
    scale = numbers_of(table, "real test faces")
    assert scale.loc[("cosine_centred", "photos of two people", "30-"), "value"] == pytest.approx(-0.1)
    assert scale.loc[("verified", "two photos of one person", "30-"), "value"] == pytest.approx(80)
    assert any("Euclidean distance below 0.6" in note for note in table.notes)


def test_every_table_is_written_in_four_forms_and_names_its_run(tmp_path):
    settings = write_evaluation(tmp_path)
    make_tables(settings)
    folder = Workspace.of(settings).require("tables")
    for number in range(1, 7):
        for suffix in ("md", "tex", "html"):
            text = (folder / f"table{number}.{suffix}").read_text()
            assert "demo/r1" in text
            assert "2026-01-02" in text
        numbers = pd.read_csv(folder / f"table{number}.csv")
        assert set(numbers["run"]) == {"demo/r1"}
        measured = numbers[numbers["source"].str.startswith("this run") & numbers["note"].isna()]
        assert measured[["value", "low", "high"]].notna().all(axis=None)
    assert json.loads((folder / "done.json").read_text())["run"] == "demo/r1"


def test_latex_has_nothing_unescaped(tmp_path):
    table = make_table(3, Results.open(Workspace.of(settings := write_evaluation(tmp_path))), settings)
    body = [line for line in table.to_latex().splitlines() if not line.startswith("%")]
    assert all(line.replace("\\%", "").count("%") == 0 for line in body)
    assert "Age accuracy (\\%)" in table.to_latex()
    rows = [line for line in body if line.endswith("\\\\")]
    assert {line.count(" & ") + line.startswith("&") for line in rows} == {6}


def test_methods_judged_by_different_judges_are_not_put_together(tmp_path):
    settings = write_evaluation(tmp_path)
    path = Workspace.of(settings).path("evaluation", file_name("glow"))
    about = {"evaluated": "2026-01-01", "fingerprints": FINGERPRINTS | {"classifiers/age": "another"}}
    write_judged(path, judged_rows((1, 1, 1, 1), (1, 1, 1, 1), 1), about)
    with pytest.raises(MixedResultsError, match="glow was judged with another classifiers/age"):
        make_tables(settings)


def test_without_an_evaluation_the_error_names_the_notebook(tmp_path):
    settings = ageflow.settings("tables", {"run": "empty", "runs_root": tmp_path})
    with pytest.raises(MissingArtefactError, match="06_ablations"):
        make_tables(settings)


def test_whose_faces_were_judged_is_said_below_the_table(tmp_path):
    told = []
    for name, about in (("own", {}), ("other", {"external": "morph/paper"})):
        settings = write_evaluation(tmp_path / name, **about)
        told.append(make_table(3, Results.open(Workspace.of(settings)), settings).notes[0])
    assert f"test faces of {PEOPLE} people. In brackets" in told[0]
    assert f"test faces of {PEOPLE} people, morph/paper's, new to the run. In brackets" in told[1]
    settings = write_evaluation(tmp_path / "nameless", identities=4 * PEOPLE)
    told = make_table(3, Results.open(Workspace.of(settings)), settings).notes[0]
    assert f"on {4 * PEOPLE} test faces each of a person of its own, as far as the set tells. In brackets" in told


def test_of_how_many_labelled_faces_an_attribute_is_told(tmp_path):
    half = judged_rows((1,) * 4, (1,) * 4, 1)
    half.loc[half["identity"].isin([f"id{person}" for person in range(10)]), "gender"] = None
    settings = write_evaluation(tmp_path, methods={"ageflow": half})
    notes = make_table(2, Results.open(Workspace.of(settings)), settings).notes
    people = PEOPLE - 10
    expected = (
        f"Of the labelled test faces of 30-, in each target group: Gender preserved (%), {people} faces of {people}"
    )
    assert any(note.startswith(expected) for note in notes)


def test_a_table_says_which_networks_were_trained_again_since_they_were_judged(tmp_path):
    """Notebook 04 with another seed, and 07 without 06: the numbers are of a network that the run has no more."""
    glow = Workspace(tmp_path, "demo", "r1").folder("glow")
    save_checkpoint(glow, 1, {"weight": torch.zeros(2)}, {})
    settings = write_evaluation(tmp_path, fingerprints=FINGERPRINTS | {"glow": fingerprint(glow)})
    results = Results.open(Workspace.of(settings))
    assert results.trained_since == ""
    save_checkpoint(glow, 2, {"weight": torch.ones(2)}, {})
    results = Results.open(Workspace.of(settings))
    said = "since 06_ablations.ipynb judged it, glow has been trained again. Run 06_ablations.ipynb again."
    for number in range(1, 5):
        assert any(said in note for note in make_table(number, results, settings).notes)
