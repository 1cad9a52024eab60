"""Anybody's method in the protocol: a class of one's own, and a folder of pictures that another tool made."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageEnhance

import ageflow
from ageflow import protocol
from ageflow.data.faces import Faces
from ageflow.evaluation.evaluate import Evaluation
from ageflow.evaluation.methods import load_method
from ageflow.evaluation.protocol import NotJudgedError
from ageflow.report.drawing import Figure
from ageflow.report.figures import RunFigures
from ageflow.report.tables import make_tables
from ageflow.run import Workspace
from ageflow.slider.explorer import Explorer, View
from tests.conftest import ROOT
from tests.evaluation.conftest import folder_of, read, settings_of
from tests.tiny import parameters


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The example of docs/method.md, as it stands there, in a module of its own."""
    section = (ROOT / "docs/method.md").read_text().partition("\n## A method of your own\n")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    assert 15 <= len(code.strip().splitlines()) <= 25
    (tmp_path / "code").mkdir()
    (tmp_path / "code/mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield tmp_path / "code/mine.py"
    sys.modules.pop("mine", None)


def tables_of(run):
    return {table.number: table for table in make_tables(ageflow.settings("tables", parameters(run, bootstrap=50)))}


def test_a_folder_made_by_another_tool_has_its_row_in_table_1(run, tmp_path, capsys):
    todo, done = tmp_path / "todo", tmp_path / "darker"
    done.mkdir()
    command = ["--preset", "smoke", "--run", "tiny", "--runs-root", str(run), "--evaluation-faces", "8"]
    assert protocol.main(["export", *command, "--out", str(todo)]) == 0
    assert "8 faces and 24 pictures to make of them" in capsys.readouterr().out
    for out, faces in ((todo, "4"), (todo / "faces.csv", "8")):
        assert protocol.main(["export", *command[:-1], faces, "--out", str(out)]) == 2
        assert "is not of this export: name an empty folder" in capsys.readouterr().err
    wanted = pd.read_csv(todo / "faces.csv")
    assert wanted["output"].equals(wanted["face"] + "_" + wanted["target"].astype(str) + ".png")
    for row in wanted.itertuples():  # the other tool
        with Image.open(todo / row.input) as face:
            ImageEnhance.Brightness(face).enhance(1 - 0.15 * (row.target - row.source)).save(done / row.output)
    missing, small, broken = wanted["output"].iloc[[0, 5, 9]]
    (done / missing).unlink()
    Image.new("RGB", (16, 16)).save(done / small)
    (done / broken).write_bytes(b"no picture")
    (done / "holiday.png").write_bytes(b"")

    name = f"folder:{done}"
    settings = settings_of(run, methods=["glow", name])
    with pytest.warns(UserWarning, match=r"1 extra, first holiday.png; 1 missing.*1 unreadable.*1 wrongly sized"):
        Evaluation(settings).judge_all()
    (file,) = folder_of(run).glob("*.problems.csv")
    problems = pd.read_csv(file).set_index("file")["problem"]
    assert sorted(problems.index) == sorted([missing, small, broken, "holiday.png"])
    assert problems[small] == "wrongly sized: 16×16, expected 32×32 pixels"
    rows = read(run, name).rows
    made = {f"{face}_{target}.png" for face, target in zip(rows["face"], rows["target"], strict=True)}
    assert made == set(wanted["output"]) - {missing, small, broken}

    method, faces = load_method(name), Faces.open(run / "demo/tiny/faces")
    row = int(np.flatnonzero(faces.table["face"] == wanted["face"].iloc[3])[0])
    target = torch.tensor([int(wanted["target"].iloc[3])])
    picture = np.asarray(Image.open(done / wanted["output"].iloc[3]))
    shown = (method.translate_faces(faces, np.array([row]), target, {})[0] * 255).round().byte()
    assert np.array_equal(shown.permute(1, 2, 0).numpy(), picture)

    tables = tables_of(run)
    table = tables[1].numbers[tables[1].numbers["method"] == "darker"]
    assert set(table["source"]) == {"this run (demo/tiny)"}
    assert table.loc[table["metric"] == "age_accuracy", "faces"].sum() == 21
    assert table.loc[table["metric"] == "age_accuracy", ["low", "high"]].notna().all(axis=None)
    assert any("darker is judged, and compared, on 21 of 24 translations" in note for note in tables[1].notes)
    assert "darker" not in tables[3].numbers["method"].to_numpy()
    text = tables[5].text.xs("darker", level=2)
    assert (text.loc["Cycle error (re-translation)"] == "–").all(axis=None)
    assert (text.loc["Continuous target: monotone faces (%)"] == "–").all(axis=None)
    assert Evaluation(settings).beyond()["cycle_error"].notna().tolist() == [False, True, False]
    assert Evaluation(settings).strengths().loc["darker"].index.tolist() == [1.0]

    drawn = RunFigures(ageflow.settings("figures", parameters(run)))
    assert isinstance(drawn.figure_5(), Figure)
    assert [axes.get_ylabel() for axes in drawn.figure_trade_off().axes][2:] == ["KID × 1000", "cycle error"]
    said = pytest.warns(UserWarning, match="24 missing, first face")
    with said, pytest.raises(NotJudgedError, match="can do none of 24 translations"):
        Evaluation(settings_of(run, methods=[f"folder:{todo}"])).judge_all()
    with pytest.raises(ageflow.ParameterError, match="pictures of test faces alone"):
        Explorer(ageflow.settings("age_slider", parameters(run, method=name))).prepare()


def test_the_class_of_the_docs_is_judged_and_ages_a_face(run, mine):
    settings = settings_of(run, methods=["mine:Fade"])
    assert Evaluation(settings).judge_all().loc["mine:Fade", "cosine"] > 0
    table = tables_of(run)[1].numbers
    assert "Fade" in table["method"].to_numpy()
    assert Evaluation(settings).beyond().loc["Fade", ["cycle_error", "rho"]].notna().all()
    assert Evaluation(settings).strengths().index.tolist() == [("Fade", 1.0)]

    explorer = Explorer(ageflow.settings("age_slider", parameters(run, method="mine:Fade")))
    face = explorer.portrait(1)
    younger, older = explorer.at_ages(View(face, 0.0, "mine:Fade"), [25.0, 57.0]).float().mean(dim=(1, 2, 3))
    assert younger > older
    with pytest.raises(ageflow.ParameterError, match="Fade has no strengths"):
        explorer.at_age(View(face, 25.0, "mine:Fade", 0.5))
    explorer.method("mine:Fade").translate = lambda images, *_: images.zero_()
    with pytest.raises(ValueError, match="'mine:Fade', translating, made torch"):
        explorer.at_age(View(face, 25.0, "mine:Fade"))
    assert torch.equal(face.image, explorer.portrait(1).image)

    before = load_method("mine:Fade", run="tiny", runs_root=run).weights
    mine.write_text(mine.read_text() + "# other code\n")
    after = load_method("mine:Fade", run="tiny", runs_root=run).weights
    assert before["own/source"] != after["own/source"]
    assert before["own/darkness"] == after["own/darkness"] == "0.15"


def test_a_method_that_goes_some_ways_is_judged_on_these(run, mine):
    older = 'class Older(Fade):\n    title = "Older"\n    pairs = {(0, 1), (0, 3), (1, 0)}\n'
    mine.write_text(f"{mine.read_text()}\n\n{older}")
    evaluation = Evaluation(settings_of(run, methods=["mine:Older", "glow"], cycle_faces=8))
    evaluation.judge_all()
    asked = read(run, "mine:Older").rows
    assert set(zip(asked["source"], asked["target"], strict=True)) == {(0, 1), (0, 3), (1, 0)}
    cycles = evaluation.gathered("cycle").rows.query("method == 'mine:Older'")
    assert set(zip(cycles["source"], cycles["target"], strict=True)) == {(0, 1), (1, 0)}
    assert "mine:Older" not in evaluation.gathered("continuous").rows["method"].to_numpy()
    assert "Older" in tables_of(run)[1].numbers["method"].to_numpy()
    assert "Older is judged, and compared, on" in Workspace.of(evaluation.settings).path("tables/table5.md").read_text()


def test_names_that_are_no_method_stop_the_first_cell(run, mine, tmp_path):
    for name, said in {
        "agflow": "did you mean 'ageflow'",
        "caea": "did you mean 'caae'",
        "mine:Fad": "mine has no class 'Fad': did you mean 'Fade'",
        "mime:Fade": "mime cannot be imported",
        f"folder:{tmp_path}/nowhere": "is no folder",
    }.items():
        with pytest.raises(ageflow.ParameterError, match=said):
            settings_of(run, methods=["glow", name])
        with pytest.raises(ageflow.ParameterError, match=said):
            ageflow.settings("age_slider", {"method": name})
    odd = {":": "is no ageflow.Method", "(ageflow.Method):": "takes no arguments; it needs __init__.*and translate"}
    for base, said in (odd | {"(ageflow.Method): __init__ = print;": "abstract class .*; it needs __init__"}).items():
        mine.write_text(f"import ageflow\n\n\nclass Fade{base} pass\n")
        sys.modules.pop("mine", None)
        with pytest.raises(ageflow.ParameterError, match=f"'mine:Fade'.*{said}"):
            Evaluation(settings_of(run, methods=["mine:Fade"])).judge_all()
