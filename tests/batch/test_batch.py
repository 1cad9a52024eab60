"""The batch: what it passes on, skips, runs again, and says when a notebook fails. On notebooks of two lines."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from ageflow.batch.__main__ import main
from ageflow.batch.execute import NotebookFailedError, _Lines, execute
from ageflow.batch.plan import CHAPTERS, Plan
from ageflow.batch.run import run_notebooks
from ageflow.config import STEPS, ParameterError
from ageflow.run import ARTEFACTS

PARAMETERS = """\
dataset = "demo"  # data set
preset = None  # preset
run = None  # run
runs_root = None  # folder of all runs
seed = 0  # seed
"""
MAKE = """\
print("made by", sys.executable)
for name in {names}:
    path = ageflow.Workspace.of(settings).path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{{}}")
"""


def write_notebook(folder: Path, name: str, code: str | None = None, extra: str = "") -> None:
    """A notebook of the kit's form that makes its markers and nothing else, or runs `code`."""
    chapter = next(chapter for chapter in CHAPTERS if chapter.notebook == name)
    made = [ARTEFACTS[artefact].path for artefact in chapter.makes]
    cells = [
        nbformat.v4.new_markdown_cell(f"# {name}"),
        nbformat.v4.new_code_cell(PARAMETERS + extra, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            f'import sys\nimport ageflow\nsettings = ageflow.settings("{chapter.step}", globals())'
        ),
        nbformat.v4.new_code_cell(code or MAKE.format(names=made)),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("02_train_glow", "05_train_classifiers"):
        write_notebook(folder, name)
    return folder


def plan(folder: Path, **changed: object) -> Plan:
    chapters = [chapter for chapter in CHAPTERS if chapter.number in ("02", "05")]
    values = {"preset": "smoke", "runs_root": folder.parent / "runs", "chapters": chapters, "notebooks": folder}
    return Plan(**(values | changed))


def test_chapters_are_the_steps_of_the_config_and_every_artefact_has_one():
    assert [chapter.step for chapter in CHAPTERS] == [
        step for step in STEPS if step not in ("age_slider", "benchmarks")
    ]
    assert {name for chapter in CHAPTERS for name in chapter.makes} == set(ARTEFACTS)


def test_every_notebook_reads_only_what_an_earlier_one_makes():
    made: set[str] = set()
    for chapter in CHAPTERS:
        assert set(chapter.reads) <= made
        made |= set(chapter.makes)


def test_unchanged_is_skipped_and_a_change_runs_what_depends_on_it(folder: Path, capsys: pytest.CaptureFixture):
    workspace = plan(folder).workspace
    first = run_notebooks(plan(folder))
    assert all(minutes is not None for minutes in first.values())
    assert (workspace.path("report", "index.html")).is_file()
    copy = nbformat.read(workspace.path("notebooks", "02_train_glow.ipynb"), as_version=4)
    assert any("made by" in str(cell.get("outputs")) for cell in copy.cells)

    capsys.readouterr()
    assert run_notebooks(plan(folder)) == {"02_train_glow": None, "05_train_classifiers": None}
    assert capsys.readouterr().out.count("unchanged, skipped") == 2

    faster = plan(folder, parameters={"train_glow.learning_rate": 0.5})
    assert run_notebooks(faster)["05_train_classifiers"] is None
    assert "02_train_glow: parameters changed (learning_rate)" in capsys.readouterr().out

    workspace.path("glow", "done.json").unlink()
    assert run_notebooks(faster)["02_train_glow"] is not None
    assert "something it made is gone" in capsys.readouterr().out

    pd.DataFrame({"identity": ["a", "b", "b"], "split": ["test", "train", "train"]}).to_parquet(
        workspace.folder("faces") / "faces.parquet"
    )
    taken = run_notebooks(faster)
    assert all(minutes is not None for minutes in taken.values())
    assert capsys.readouterr().out.count("inputs changed (faces)") == 2

    write_notebook(folder, "05_train_classifiers", extra='device = "cpu"  # device\n')
    taken = run_notebooks(faster)
    assert [name for name, minutes in taken.items() if minutes is not None] == ["05_train_classifiers"]
    assert "the notebook changed" in capsys.readouterr().out
    assert [name for name, minutes in run_notebooks(plan(folder, force=True)).items() if minutes is None] == []


def test_a_result_that_was_replaced_outside_the_batch_is_not_skipped(folder: Path, capsys: pytest.CaptureFixture):
    workspace = plan(folder).workspace
    run_notebooks(plan(folder))
    (workspace.path("glow") / "checkpoint-00000009.safetensors").write_text("of a training in a notebook")
    capsys.readouterr()
    assert [name for name, minutes in run_notebooks(plan(folder)).items() if minutes is not None] == ["02_train_glow"]
    assert "02_train_glow: what it made has changed since (glow)" in capsys.readouterr().out
    assert set(run_notebooks(plan(folder)).values()) == {None}

    state = workspace.path("notebooks", "state.json")  # of a version that did not note what was made
    state.write_text(json.dumps({name: entry | {"made": {}} for name, entry in json.loads(state.read_text()).items()}))
    assert set(run_notebooks(plan(folder)).values()) == {None}


def test_a_network_that_is_not_judged_need_not_be_there(folder: Path, capsys: pytest.CaptureFixture):
    code = MAKE.format(names=[ARTEFACTS["evaluation"].path]).replace('"{}"', "'{\"summary\": {}}'")
    write_notebook(folder, "06_ablations", code, extra="methods = None  # methods\n")
    chapters = [chapter for chapter in CHAPTERS if chapter.number == "06"]
    without = plan(folder, chapters=chapters, parameters={"methods": ["glow", "ageflow"]})
    assert run_notebooks(without)["06_ablations"] is not None
    assert run_notebooks(without)["06_ablations"] is None
    every = plan(folder, chapters=chapters)
    capsys.readouterr()
    assert run_notebooks(every)["06_ablations"] is not None
    assert run_notebooks(every)["06_ablations"] is not None, "the network without ICTM is gone"
    assert "06_ablations: parameters changed (methods)" in capsys.readouterr().out


def test_parameters_that_a_cell_leaves_out_are_no_warning_of_papermills(folder: Path, tmp_path: Path):
    given = ["--preset", "smoke", "--runs-root", str(tmp_path / "runs"), "--notebooks", "02", "-p", "batch_size", "16"]
    command = [sys.executable, "-m", "ageflow.batch", *given, "--notebooks-folder", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "unknown parameter" not in (run.stdout + run.stderr).casefold()


def test_a_kernel_that_says_nothing_more_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It answers, and never says that it is idle again."""
    monkeypatch.setattr("ageflow.batch.execute._SECONDS_TO_HEAR", 1)
    write_notebook(folder, "02_train_glow", "get_ipython().kernel._publish_status = lambda *all, **named: None")
    with pytest.raises(NotebookFailedError, match="its kernel said nothing more of a cell"):
        execute(folder / "02_train_glow.ipynb", tmp_path / "copy.ipynb", {})


def test_another_runs_faces_are_an_input_and_what_else_lies_there_is_none(folder: Path, tmp_path: Path):
    write_notebook(folder, "08_figures", extra="external = None  # run\n")
    chapters = [chapter for chapter in CHAPTERS if chapter.number == "08"]
    drawn = plan(folder, chapters=chapters, parameters={"external": "demo/other"})
    other = drawn.runs_root / "demo" / "other"
    (other / "faces").mkdir(parents=True)
    (other / "faces" / "faces.parquet").write_text("1")
    assert run_notebooks(drawn)["08_figures"] is not None
    (other / "report.html").write_text("1")
    assert run_notebooks(drawn)["08_figures"] is None
    (other / "faces" / "faces.parquet").write_text("22")
    assert run_notebooks(drawn)["08_figures"] is not None


def test_runs_in_the_folder_of_the_raw_data_are_no_part_of_it(folder: Path, tmp_path: Path):
    code = "import pandas\nfaces = ageflow.Workspace.of(settings).folder('faces') / 'faces.parquet'\n"
    code += "pandas.DataFrame({'identity': ['a'], 'split': ['train']}).to_parquet(faces)"
    write_notebook(folder, "01_prepare_data", code, extra="data_root = None  # raw files\n")
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "face.jpg").write_text("1")
    inside = plan(folder, chapters=CHAPTERS[:1], data_root=raw, runs_root=raw / "runs")
    assert run_notebooks(inside)["01_prepare_data"] is not None
    assert run_notebooks(inside)["01_prepare_data"] is None
    (raw / "another.jpg").write_text("2")
    assert run_notebooks(inside)["01_prepare_data"] is not None


def test_of_the_run_that_weights_come_from_the_weights_are_an_input_alone(folder: Path):
    write_notebook(folder, "02_train_glow", extra="init_from = None  # weights\n")
    tuned = plan(folder, chapters=CHAPTERS[1:2], run="tuned", parameters={"init_from": "demo/smoke"})
    other = tuned.runs_root / "demo" / "smoke"
    weights = other / "glow" / "checkpoint-00000009.safetensors"
    for file in (weights, other / "figures" / "figure_4.png"):
        file.parent.mkdir(parents=True)
        file.write_text("1")
    assert run_notebooks(tuned)["02_train_glow"] is not None
    (other / "figures" / "figure_4.png").write_text("drawn again")
    assert run_notebooks(tuned)["02_train_glow"] is None
    weights.write_text("trained again")
    assert run_notebooks(tuned)["02_train_glow"] is not None


@pytest.mark.parametrize("left", [b"{", b"[]", b"\xff"])
def test_a_damaged_state_is_told_in_a_line(folder: Path, left: bytes, capsys: pytest.CaptureFixture):
    state = plan(folder).workspace.folder("notebooks") / "state.json"
    state.write_bytes(left)
    arguments = ["--preset", "smoke", "--runs-root", str(folder.parent / "runs"), "--notebooks", "02"]
    assert main([*arguments, "--notebooks-folder", str(folder)]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(rf"{re.escape(str(state))} is damaged \(.+\): delete it, and every notebook runs again\n", told)
    assert state.read_bytes() == left


def test_times_are_kept(folder: Path):
    taken = run_notebooks(plan(folder))
    state = json.loads(plan(folder).workspace.path("notebooks", "state.json").read_text())
    for name, minutes in taken.items():
        assert state[name]["minutes"] == pytest.approx(minutes, abs=1e-3)


def test_a_failure_names_notebook_cell_exception_and_copy_and_later_ones_do_not_run(
    folder: Path, capsys: pytest.CaptureFixture
):
    write_notebook(folder, "02_train_glow", code='print("so far")\nraise ValueError("too many faces: 7")')
    with pytest.raises(NotebookFailedError) as raised:
        run_notebooks(plan(folder))
    failed = plan(folder).workspace.path("notebooks", "02_train_glow.failed.ipynb")
    for said in ("02_train_glow.ipynb", "cell In [4]", "ValueError: too many faces: 7", str(failed)):
        assert said in str(raised.value)
    assert failed.is_file()
    assert "so far" in capsys.readouterr().out
    assert sorted(file.name for file in failed.parent.glob("*.ipynb")) == [failed.name]
    write_notebook(folder, "02_train_glow")
    run_notebooks(plan(folder))
    assert not failed.exists(), "the copy of a failure must not outlive it"


def test_a_dead_kernel_is_told(folder: Path):
    write_notebook(folder, "02_train_glow", code="import os\nos._exit(1)")
    with pytest.raises(NotebookFailedError, match=r"02_train_glow\.ipynb: its kernel died"):
        run_notebooks(plan(folder))


def test_a_kernel_that_does_not_start_in_time_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that a busy machine holds up: it sleeps when Python starts."""
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("ageflow.batch.execute._SECONDS_TO_START", 1)
    with pytest.raises(NotebookFailedError, match=r"its kernel did not start \(Kernel didn't respond.*run this again"):
        run_notebooks(plan(folder))


def test_wrong_parameters_stop_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(ParameterError, match="'learning_rat': did you mean 'learning_rate'"):
        run_notebooks(plan(folder, parameters={"learning_rat": 0.1}))
    with pytest.raises(ParameterError, match=r"no notebook of this batch takes a parameter 'train_glow\.bootstrap'"):
        run_notebooks(plan(folder, parameters={"train_glow.bootstrap": 10}))
    with pytest.raises(ParameterError, match=r"external means two things.*ablations\.external or figures\.external"):
        Plan("demo", parameters={"external": "demo/held"}).check()
    Plan("demo", parameters={"ablations.external": "demo/held", "figures.external": "pictures"}).check()
    arguments = ["--preset", "smoke", "--runs-root", str(folder.parent / "runs"), "--notebooks", "02"]
    assert main([*arguments, "-p", "levels", "none"]) == 2
    assert "levels = 'none'" in capsys.readouterr().err
    assert main([*arguments, "--run", "my run"]) == 2
    assert "'my run' cannot name a folder: use letters" in capsys.readouterr().err
    assert not (folder.parent / "runs").exists()


def test_a_parameter_reaches_the_notebooks_that_take_it():
    by_number = {chapter.number: chapter for chapter in CHAPTERS}
    asked = Plan(
        preset="smoke", parameters={"seed": 3, "bootstrap": 20, "04.iterations": 7, "train_glow.iterations": 9}
    )
    assert all(asked.settings_of(chapter).seed == 3 for chapter in CHAPTERS)
    assert asked.settings_of(by_number["07"]).bootstrap == 20
    assert "bootstrap" not in asked.parameters_of(by_number["08"])
    assert asked.settings_of(by_number["04"]).iterations == 7
    assert asked.settings_of(by_number["02"]).iterations == 9
    assert "iterations" not in asked.parameters_of(by_number["05"])


def test_what_one_notebook_is_given_comes_before_what_all_are_given():
    for order in (1, -1):
        given = dict([("train_glow.iterations", 7), ("iterations", 3), ("prepare_data.seed", 0), ("seed", 5)][::order])
        plan = Plan(preset="smoke", parameters=given)
        told = {chapter.step: plan.settings_of(chapter) for chapter in CHAPTERS}
        assert (told["train_glow"].iterations, told["train_ictm"].iterations) == (7, 3)
        assert (told["prepare_data"].seed, told["train_glow"].seed) == (0, 5)


def test_a_run_is_called_as_it_was_written(tmp_path: Path, capsys: pytest.CaptureFixture):
    given = ["-p", "run", "2024_06_01", "--runs-root", str(tmp_path), "--notebooks", "07", "--preset", "smoke"]
    assert main([*given, "--notebooks-folder", str(Path(__file__).parents[2] / "notebooks")]) == 1, "nothing to judge"
    assert f"run {tmp_path / 'demo' / '2024_06_01'}" in capsys.readouterr().out


def test_python3_means_this_interpreter_whatever_the_user_installed(folder: Path, tmp_path: Path):
    kernels = tmp_path / "user" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    broken = {"argv": ["/bin/false", "{connection_file}"], "display_name": "other", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(broken))
    environment = os.environ | {"JUPYTER_DATA_DIR": str(tmp_path / "user"), "JUPYTER_PREFER_ENV_PATH": "0"}
    command = [sys.executable, "-m", "ageflow.batch", "--preset", "smoke", "--notebooks", "02"]
    command += ["--runs-root", str(tmp_path / "runs"), "--notebooks-folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"made by {sys.executable}" in done.stdout


def test_bars_become_lines_in_a_log(tmp_path: Path):
    with (tmp_path / "log").open("w+") as log:
        lines = _Lines(log)
        for text in ("start\n", "\r 0%", "\r 50%", "\r100%\n", "\r", "\rend\n"):
            lines.write(text)
        log.seek(0)
        assert log.read() == "start\n 0%\n 50%\n100%\nend\n"


@pytest.mark.parametrize(
    ("number", "name"), [("06", "ablations.embedder"), ("06", "inception"), ("01", "prepare_data.genders")]
)
def test_a_file_that_is_not_there_is_told_before_the_first_notebook_runs(tmp_path: Path, number: str, name: str):
    chapters = [chapter for chapter in CHAPTERS if chapter.number in ("01", "06")]
    missing = tmp_path / "nowhere.onnx"
    asked = Plan(preset="smoke", runs_root=tmp_path / "runs", chapters=chapters, parameters={name: str(missing)})
    bare = name.rpartition(".")[2]
    with pytest.raises(ParameterError, match=rf"{bare} = '{missing}': there is no such file, and {number}_"):
        run_notebooks(asked)
    assert not (tmp_path / "runs").exists()
