"""Tables 1-6 from judged faces whose numbers are known."""

import math
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.checkpoint import fingerprint, save_checkpoint
from ageflow.report.results import MixedResultsError, Results
from ageflow.report.statistics import Bootstrap
from ageflow.report.tables import best_method, make_table, make_tables, published
from ageflow.run import Manifest, MissingArtefactError, Workspace
from tests.report.evaluations import (
    CENTRES,
    FINGERPRINTS,
    KID,
    PEOPLE,
    change_judged,
    continuous_rows,
    cycle_rows,
    judged_rows,
    numbers_of,
    person,
    real_rows,
    write_evaluation,
)

GROUPS = ("30-", "31-40", "41-50", "51+")


def table_of(settings, number):
    return make_table(number, Results.open(Workspace.of(settings)), settings)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """The default evaluation, and its tables as they are written, by number."""
    settings = write_evaluation(tmp_path_factory.mktemp("default"))
    return settings, {table.number: table for table in make_tables(settings)}


def test_table_1_has_this_runs_numbers_by_target_group_above_real_faces_and_the_paper(default):
    table = default[1][1]
    found = numbers_of(table)
    for group, accuracy, cosine in zip(GROUPS, (60, 70, 80, 90), range(80, 84), strict=True):
        row = found.loc[("age_accuracy", "AgeFlow", group)]
        assert row["value"] == pytest.approx(accuracy)
        assert (row["faces"], row["identities"]) == (3 * PEOPLE, PEOPLE)
        # 3 faces of each of 40 people, all three right or all three wrong: the interval is that of 40 draws.
        half = 1.96 * math.sqrt(accuracy * (100 - accuracy) / PEOPLE)
        assert row["high"] - row["low"] == pytest.approx(2 * half, rel=0.25)
        assert found.loc[("cosine", "AgeFlow", group), "value"] == pytest.approx(cosine / 100)
        assert found.loc[("cosine_centred", "AgeFlow", group), "value"] == pytest.approx(cosine / 100 - 0.4)
        assert found.loc[("verified", "AgeFlow", group), "value"] == pytest.approx(70)
    assert set(found.index.get_level_values("method")) == {"AgeFlow"}
    assert any("distance below 0.6" in note for note in table.notes)
    sources = table.text.loc["Age accuracy (%)"].index.get_level_values(0).unique()
    assert sources.tolist()[:2] == ["this run (demo/r1)", "real test faces"]
    assert all(source.startswith("paper") for source in sources[2:])


def test_the_same_judges_on_real_faces_are_the_scale(default):
    found = numbers_of(default[1][3], "real test faces")
    assert found.loc[("age_accuracy", "the classifier is right", "51+"), "value"] == pytest.approx(90)
    expected = {"cosine": (0.97, 0.85), "cosine_centred": (0.5, -0.1), "verified": (80, 10)}
    for metric, (same, other) in expected.items():
        one = found.loc[(metric, "two photos of one person", "51+")]
        two = found.loc[(metric, "photos of two people", "51+")]
        assert (one["value"], two["value"]) == pytest.approx((same, other))
        assert one[["low", "high"]].notna().all()
        assert two[["low", "high"]].isna().all(), "people of one side only would vary too little"
        assert two["note"] == "a mean over all pairs of people"
    found = numbers_of(default[1][4], "real test faces")
    assert found.loc[("gender", "the classifier is right", "41-50"), "value"] == pytest.approx(100)


def test_tables_2_and_4_start_from_the_youngest_group_only(tmp_path):
    rows = judged_rows((1,) * 4, (1,) * 4, kept=0.75)
    rows.loc[rows["source"] != 0, "gender_predicted"] = "neither"
    settings = write_evaluation(tmp_path, methods={"ageflow": rows})
    for number in (2, 4):
        found = numbers_of(table_of(settings, number)).loc["gender"].loc["AgeFlow"]
        assert found.index.tolist() == list(GROUPS[1:])
        assert found["value"].tolist() == pytest.approx([75] * 3)
        assert found["faces"].tolist() == [PEOPLE] * 3


@pytest.mark.parametrize(("dataset", "papers"), [("morph", {"MORPH"}), ("cacd", {"CACD"}), ("demo", {"MORPH", "CACD"})])
def test_the_papers_numbers_of_this_data_set_stand_below(tmp_path, dataset, papers):
    for number in range(1, 5):
        table = table_of(write_evaluation(tmp_path, dataset), number)
        below = table.numbers[table.numbers["source"].str.startswith("paper")]
        assert set(below["source"]) == {f"paper, {name}, as published" for name in papers}
        expected = published(number)
        expected = expected[expected["dataset"].isin([name.lower() for name in papers])]
        assert sorted(below["value"]) == sorted(expected["value"])
        assert below["low"].isna().all()
        assert list(table.text.columns) == [*GROUPS[number in (2, 4) :]]


def test_what_is_missing_says_so_and_why(tmp_path):
    # No method but AgeFlow, no test face of 51+ and of 30- at the start, no race labels.
    rows = judged_rows((1,) * 4, (1,) * 4, groups=(1, 2))
    settings = write_evaluation(tmp_path, methods={"ageflow": rows}, real=real_rows(groups=(1, 2)))
    tables = {number: table_of(settings, number) for number in range(1, 7)}
    assert set(numbers_of(tables[3]).index.get_level_values("method")) == {"AgeFlow"}
    said = "Not judged: GLOW, GLOW + attribute, Soft source (ours), Calibrated step (ours), AgeFlow w/o ICTM ("
    assert any(said in note for note in tables[3].notes)
    assert tables[1].text.loc[("Age accuracy (%)", "real test faces", "the classifier is right"), "51+"] == "n/a"
    assert (tables[2].text.loc[("Gender preserved (%)", "this run (demo/r1)", "AgeFlow")] == "n/a").all()
    assert any("AgeFlow w/o ICTM, race (no such labels" in note for note in tables[2].notes)
    assert any("no two methods were judged" in note for note in tables[6].notes)
    alone = rows[rows["face"] == "0-1"].assign(cosine_centred=math.nan)  # one face has no centre
    make_tables(settings := write_evaluation(tmp_path / "one", methods=dict.fromkeys(("glow", "ageflow"), alone)))
    details = Manifest.read(Workspace.of(settings).path("tables")).details
    assert "nan" not in str(details)
    assert "a centred cosine of –; a KID" in details["verdict"][2]


def test_the_best_of_this_run_is_bold_where_its_lead_is_beyond_chance(default):
    table = default[1][3]
    assert table.best.loc[("Age accuracy (%)", "this run (demo/r1)", "AgeFlow")].all()
    assert table.best.loc[("Cosine similarity", "this run (demo/r1)", "GLOW")].all()
    assert not table.best.drop("this run (demo/r1)", level=1).any(axis=None)
    assert "**90.0 [" in table.to_markdown()


def lead_of_chance():
    # One person of forty more, but other ones: 20 right against 21 wrong.
    one, other = (judged_rows((0.5,) * 4, (0.9,) * 4) for _ in range(2))
    other["predicted"] = np.where(person(other) >= 19, other["target"], (other["target"] + 1) % 4)
    return one, other, "age_accuracy", False


def small_lead_that_everybody_shares():
    # The spread between people is far larger than the lead, but it is the same in both: unpaired it would drown.
    rng = np.random.default_rng(0)
    one = judged_rows((0.5,) * 4, (0.5,) * 4)
    one["cosine"] += rng.normal(0, 0.2, PEOPLE)[person(one)]
    return one, one.assign(cosine=one["cosine"] + rng.normal(0.01, 0.005, len(one))), "cosine", True


def lead_that_reads_as_none():
    return *(judged_rows((0.5,) * 4, (cosine,) * 4) for cosine in (0.90001, 0.90002)), "cosine", False


@pytest.mark.parametrize("of", [lead_of_chance, small_lead_that_everybody_shares, lead_that_reads_as_none])
def test_a_lead_is_bold_where_it_is_beyond_chance_and_can_be_read(tmp_path, of):
    glow, ageflow_rows, metric, bold = of()
    settings = write_evaluation(tmp_path, methods={"glow": glow, "ageflow": ageflow_rows})
    found = numbers_of(table_of(settings, 3)).loc[metric]
    assert (found.loc["AgeFlow", "best"] == bold).all()
    assert not found.loc["GLOW", "best"].any()
    lead = numbers_of(table_of(settings, 6)).loc[metric].loc["over GLOW"]
    assert (lead["best"] == bold).all()
    if of is lead_that_reads_as_none:
        assert (lead["low"] > 0).all()


def test_the_best_mean_is_told_by_the_mean_that_is_printed():
    """Over the faces, of which the groups have different numbers: the mean of the groups' means says the opposite."""

    def rows(often, seldom):
        shares = [(0, 100, often), (1, 10, seldom)]
        faces = [(f"{g}-{face}", g, float(face < share * of)) for g, of, share in shares for face in range(of)]
        return pd.DataFrame(faces, columns=["identity", "group", "value"])

    parts, bootstrap = {"ageflow": rows(0.8, 0.0), "glow": rows(0.5, 1.0)}, Bootstrap(200)
    values = {method: bootstrap.mean(part) for method, part in parts.items()}
    assert best_method("age_accuracy", values, parts, bootstrap) == "ageflow"


def test_every_table_is_written_in_four_forms_and_names_its_run(default):
    folder = Workspace.of(default[0]).require("tables")
    for number in range(1, 7):
        for suffix in ("md", "tex", "html"):
            text = (folder / f"table{number}.{suffix}").read_text()
            assert "demo/r1" in text
            assert "2026-01-02" in text
        numbers = pd.read_csv(folder / f"table{number}.csv")
        assert set(numbers["run"]) == {"demo/r1"}
        measured = numbers[numbers["source"].str.startswith("this run") & numbers["note"].isna()]
        measured = measured[~measured["metric"].str.startswith("kid")]
        assert measured[["value", "low", "high"]].notna().all(axis=None)
    assert Manifest.read(folder).details["run"] == "demo/r1"


def test_the_verdict_and_tiles_say_who_leads_at_what_cost_beside_real_faces(default):
    details = Manifest.read(Workspace.of(default[0]).require("tables")).details
    own, second, cost = details["verdict"]
    assert own.startswith("By the run's own age judge, AgeFlow reaches the most target ages: 75.0 %, +40.0 [+2")
    assert "+0.0 [+0.0, +0.0] against" in second
    assert cost.startswith("The cost to AgeFlow: a centred cosine of 0.415, -0.100 [-0.100, -0.100] against GLOW;")
    accuracy, _, cosine, kid = details["tiles"]
    assert (accuracy["number"], accuracy["scale"]) == ("75.0 %", "real test faces: the classifier is right 90.0 %")
    scale = "real test faces: two photos of one person 0.500, photos of two people -0.100"
    assert (cosine["number"], cosine["scale"]) == ("0.415", scale)
    assert kid["number"] == "1.50 ± 0.00"


def test_latex_has_nothing_unescaped(default):
    body = [line for line in default[1][3].to_latex().splitlines() if not line.startswith("%")]
    assert all(line.replace("\\%", "").count("%") == 0 for line in body)
    assert any("Age accuracy (\\%)" in line for line in body)
    rows = [line for line in body if line.endswith("\\\\")]
    assert {line.count(" & ") + line.startswith("&") for line in rows} == {6}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine: the .tex are not compiled")
def test_latex_compiles(default):
    folder = Workspace.of(default[0]).path("tables")
    inputs = "\n".join(f"\\input{{table{number}.tex}}" for number in default[1])
    packages = "\\usepackage{booktabs,graphicx,multirow}"
    document = f"\\documentclass{{article}}{packages}\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    (folder / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (folder / "all.pdf").stat().st_size > 10_000


def test_methods_judged_differently_are_not_put_together(tmp_path):
    settings = write_evaluation(tmp_path)
    change_judged(settings, "cycle", fingerprints={"ageflow": FINGERPRINTS | {"faces": "others"}})
    with pytest.raises(MixedResultsError, match="cycle of ageflow was judged with another faces"):
        make_tables(settings)


def test_without_an_evaluation_the_error_names_the_notebook(tmp_path):
    settings = ageflow.settings("tables", {"run": "empty", "runs_root": tmp_path})
    with pytest.raises(MissingArtefactError, match="06_ablations"):
        make_tables(settings)


def test_a_table_says_which_networks_were_trained_again_since_they_were_judged(tmp_path):
    """Notebook 04 with another seed, and 07 without 06: the numbers are of a network that the run has no more."""
    glow = Workspace(tmp_path, "demo", "r1").folder("glow")
    save_checkpoint(glow, 1, {"model.weight": torch.zeros(2)}, Manifest(), {})
    settings = write_evaluation(tmp_path, fingerprints=FINGERPRINTS | {"glow": fingerprint(glow)})
    assert Results.open(Workspace.of(settings)).trained_since == ""
    save_checkpoint(glow, 2, {"model.weight": torch.ones(2)}, Manifest(), {})
    for number in range(1, 7):
        said = "trained again since 06_ablations.ipynb judged it: glow. Run 06_ablations.ipynb again."
        assert any(said in note for note in table_of(settings, number).notes)


def test_table_5_has_what_the_paper_does_not_measure(tmp_path):
    cycle = pd.concat([cycle_rows("ageflow", 1e-6, 0.02), cycle_rows("glow", math.nan, 0.01)])
    continuous = pd.concat([continuous_rows("ageflow", falling=1), continuous_rows("glow", falling=4)])
    table = table_of(write_evaluation(tmp_path, cycle=cycle, continuous=continuous), 5)
    found = numbers_of(table)
    assert found.loc[("inverse_error", "AgeFlow", "mean"), "value"] == pytest.approx(1e-6)
    assert ("inverse_error", "GLOW", "mean") not in found.index, "it has no inverse"
    assert found.loc[("monotone", "AgeFlow", "31-40"), "value"] == pytest.approx(90)
    assert found.loc[("monotone", "GLOW", "31-40"), "value"] == pytest.approx(60)
    assert found.loc[("monotone_second", "GLOW", "31-40"), "value"] == pytest.approx(100)
    assert found.loc[("monotone", "AgeFlow", "30-"), "note"] == "no such test faces"
    assert found.loc[("kid_face_api", "AgeFlow", "51+"), "value"] == pytest.approx(3)
    best = table.best.loc["Cycle error (re-translation)"].loc["this run (demo/r1)"]
    assert best.loc["GLOW"].all()  # lower is better
    assert not best.loc["AgeFlow"].any()
    assert "1.0e-06" in table.to_markdown()


def test_the_second_judge_s_shares_are_of_methods_and_real_faces(tmp_path):
    """Its ages are chosen: of AgeFlow's faces a quarter land where they were asked to, of GLOW's half, of real ones 3/4."""
    wrong = np.array([60.0, 25.0, 25.0, 25.0])

    def seen(rows, share):
        right = person(rows) < share * PEOPLE
        return rows.assign(second_age=np.where(right, CENTRES[rows["target"]], wrong[rows["target"]]))

    shares = {"ageflow": 0.25, "glow": 0.5}
    methods = {name: seen(judged_rows((1,) * 4, (1,) * 4), share) for name, share in shares.items()}
    settings = write_evaluation(tmp_path, methods=methods, real=seen(real_rows(), 0.75))
    table = table_of(settings, 5)
    found = pd.concat([numbers_of(table), numbers_of(table, "real test faces")]).loc["second_accuracy"]["value"]
    for method, share in {"AgeFlow": 25, "GLOW": 50, "the second judge is right": 75}.items():
        assert (found.loc[method].loc[[*GROUPS, "mean"]] == share).all()
    assert table.best.loc[("Age accuracy, second judge (%)", "this run (demo/r1)", "GLOW")].all()
    lead = numbers_of(table_of(settings, 6))
    assert lead.loc[("second_accuracy", "over GLOW", "mean"), "value"] == pytest.approx(-25)


def test_a_mean_of_kid_over_fewer_groups_is_no_number_and_says_why(tmp_path):
    settings = write_evaluation(tmp_path, kid=[KID[0] | {"kid": math.nan}, *KID[1:]])
    found = numbers_of(table_of(settings, 5)).loc["kid_face_api"].loc["AgeFlow"]
    assert found.loc[["30-", "mean"], "value"].isna().all()
    assert set(found.loc[["30-", "mean"], "note"]) == {"fewer than two faces of a group on one side"}
    assert found.loc["51+", "value"] == pytest.approx(3)


def test_table_6_has_the_paired_lead_by_group_and_in_the_mean(tmp_path):
    accuracies = {"glow": 0.3, "glow+attribute": 0.4, "no_ictm": 0.5, "ageflow": 0.7}
    methods = {name: judged_rows((share,) * 4, (0.9,) * 4) for name, share in accuracies.items()}
    table = table_of(write_evaluation(tmp_path, methods=methods), 6)
    found = numbers_of(table).loc["age_accuracy"]
    for rival, expected in {"over GLOW": 40, "over GLOW + attribute": 30, "over AgeFlow w/o ICTM": 20}.items():
        for group in ("31-40", "41-50", "mean"):
            row = found.loc[(rival, group)]
            assert row["value"] == pytest.approx(expected)
            assert 0 < row["low"] < expected < row["high"]
    # Those who are right in one are right in the other: 0.2·0.8 is the variance of the difference.
    row = found.loc[("over AgeFlow w/o ICTM", "31-40")]
    assert row["high"] - row["low"] == pytest.approx(2 * 196 * math.sqrt(0.2 * 0.8 / PEOPLE), rel=0.25)
    assert "+30.0 [+" in table.to_markdown()
