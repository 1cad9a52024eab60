"""One run: what is passed on, skipped and run again, and what is said when a notebook fails. On notebooks of two lines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from ageflow.batch.run import NotebookFailedError, Plan, execute, run_notebooks
from ageflow.run import Manifest
from tests.batch.small import small_plan, write_notebook

PREPARED = """\
from ageflow.data.prepare import _inputs
from ageflow.run import Manifest
faces = ageflow.Workspace.of(settings).path("faces")
(Manifest.read(faces) or Manifest(_inputs(settings, settings.data_root))).write(faces)
__import__("pandas").DataFrame({"identity": ["a"], "split": ["test"]}).to_parquet(faces / "faces.parquet")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("02_train_glow", "05_train_classifiers"):
        write_notebook(tmp_path / "notebooks", name)
    return tmp_path / "notebooks"


def ran(plan: Plan) -> list[str]:
    """The numbers of the notebooks that were not skipped."""
    return [notebook[:2] for notebook, minutes in run_notebooks(plan).items() if minutes is not None]


def test_unchanged_is_skipped_and_a_change_runs_what_depends_on_it(folder: Path, capsys: pytest.CaptureFixture):
    plan = small_plan(folder)
    copies, report = plan.workspace.path("notebooks"), plan.workspace.path("report", "index.html")
    taken = run_notebooks(plan)
    assert all(taken.values())
    for name in taken:
        cells = nbformat.read(copies / f"{name}.ipynb", as_version=4).cells
        assert any("made by" in str(cell.get("outputs")) for cell in cells)

    written = report.stat().st_mtime_ns
    capsys.readouterr()
    assert ran(plan) == []
    assert capsys.readouterr().out.count("unchanged, skipped") == 2
    assert report.stat().st_mtime_ns == written

    plan.workspace.path("classifiers", "made.txt").unlink()
    assert ran(plan) == ["05"]
    assert "05_train_classifiers: classifiers/made.txt is gone" in capsys.readouterr().out

    faster = small_plan(folder, **{"train_glow.learning_rate": 0.5})
    plan.workspace.path("classifiers", "manifest.json").unlink()
    assert ran(faster) == ["02", "05"]
    printed = capsys.readouterr().out
    assert "02_train_glow: changed since: learning_rate: 0.001 → 0.5" in printed
    assert "05_train_classifiers: changed since: other classifiers" in printed
    assert report.stat().st_mtime_ns > written

    (copies / "02_train_glow.ipynb").unlink()
    write_notebook(folder, "05_train_classifiers", extra='device = "cpu"  # device\n')
    assert ran(faster) == ["02", "05"], "without its executed copy it has not run"
    assert "05_train_classifiers: changed since: other notebook" in capsys.readouterr().out

    faces = plan.workspace.path("faces")
    Manifest(fingerprint="others").write(faces)
    pd.DataFrame({"identity": ["a", "b"], "split": ["test", "train"]}).to_parquet(faces / "faces.parquet")
    assert ran(faster) == ["02", "05"]
    assert capsys.readouterr().out.count("changed since: other faces") == 2
    assert ran(small_plan(folder, "05_train_classifiers", force=True)) == ["05"]


def test_a_network_that_is_not_judged_need_not_be_there(folder: Path, capsys: pytest.CaptureFixture):
    write_notebook(folder, "06_ablations", "print('judged')", "methods = None  # methods\n")
    without = small_plan(folder, "06_ablations", methods=["glow", "ageflow"])
    Manifest(fingerprint="as made", details={"summary": {}}).write(without.workspace.path("evaluation"))
    assert ran(without) == ["06"]
    assert ran(without) == []
    capsys.readouterr()
    every = small_plan(folder, "06_ablations")
    assert ran(every) == ["06"]
    assert "changed since: other no_ictm; methods: " in capsys.readouterr().out
    Manifest(fingerprint="trained").write(every.workspace.path("no_ictm"))
    assert ran(every) == ["06"], "the network without ICTM is another"


@pytest.mark.parametrize(
    ("notebook", "name", "value", "counts", "does_not"),
    [
        ("08_figures", "external", "demo/other", "runs/demo/other/faces", "runs/demo/other/report.html"),
        ("02_train_glow", "init_from", "demo/other", "runs/demo/other/glow", "runs/demo/other/figures/figure_4.png"),
        ("01_prepare_data", "data_root", ".", "another.jpg", "runs/demo/smoke/face.jpg"),
        ("06_ablations", "methods", "folder:made", "made/0_1.png", "another.png"),
        ("06_ablations", "methods", "made_elsewhere:Mine", "made_elsewhere.py", "another.py"),
    ],
)
def test_what_is_read_outside_the_run_is_an_input_and_what_else_lies_there_is_none(
    folder: Path, notebook: str, name: str, value: str, counts: str, does_not: str, monkeypatch: pytest.MonkeyPatch
):
    """Another run's faces or weights, raw files among which the runs lie, and methods of one's own."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(folder.parent)
    Path("made").mkdir()
    Path("made_elsewhere.py").write_text("class Mine: 1")
    write_notebook(folder, notebook, PREPARED if name == "data_root" else "print()", f"{name} = None  # outside\n")
    for made in ("glow", "faces"):
        Manifest(fingerprint="first").write(folder.parent / "runs" / "demo" / "other" / made)
    plan = small_plan(folder, notebook, dataset="folder", **{name: value})
    assert ran(plan) == [notebook[:2]]
    unread, read = folder.parent / does_not, folder.parent / counts
    unread.parent.mkdir(parents=True, exist_ok=True)
    unread.write_text("drawn again")
    assert ran(plan) == []
    if read.is_dir():
        Manifest(fingerprint="second").write(read)
    else:
        read.write_text("class Mine: 2")
    assert ran(plan) == [notebook[:2]]
    assert ran(plan) == (["01"] if name == "data_root" else []), "of pictures that changed it is told each time"


def test_a_failure_names_notebook_cell_exception_and_copy_and_later_ones_do_not_run(folder: Path, capsys):
    write_notebook(folder, "02_train_glow", code='print("so far")\nraise ValueError("too many faces: 7")')
    with pytest.raises(NotebookFailedError) as raised:
        run_notebooks(small_plan(folder))
    failed = small_plan(folder).workspace.path("notebooks", "02_train_glow.stopped.ipynb")
    for said in ("02_train_glow.ipynb", "cell In [4]", "ValueError: too many faces: 7", str(failed)):
        assert said in str(raised.value)
    assert "so far" in capsys.readouterr().out
    assert sorted(file.name for file in failed.parent.glob("*.ipynb")) == [failed.name]
    write_notebook(folder, "02_train_glow")
    assert ran(small_plan(folder)) == ["02", "05"]
    assert not failed.exists(), "the copy of a failure must not outlive it"


@pytest.mark.parametrize(
    ("code", "constant", "message"),
    [
        ("import os\nos._exit(1)", None, r"its kernel failed \(Kernel died\).*memory"),
        # It answers, and never says that it is idle again.
        ("get_ipython().kernel._publish_status = lambda *_, **__: None", "_SECONDS_TO_HEAR", "a very busy machine"),
    ],
)
def test_a_kernel_that_dies_or_hangs_is_reported(
    code: str, constant: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if constant is not None:
        monkeypatch.setattr(f"ageflow.batch.run.{constant}", 1)
    write_notebook(tmp_path / "notebooks", "02_train_glow", code)
    with pytest.raises(NotebookFailedError, match=rf"02_train_glow\.ipynb stopped: .*{message}"):
        execute(tmp_path / "notebooks" / "02_train_glow.ipynb", tmp_path / "copy.ipynb", {})


def test_it_runs_in_this_interpreter_without_papermills_warnings(folder: Path, tmp_path: Path):
    """Whatever the user installed as python3, and whatever parameters the notebook's cell leaves out."""
    kernels = tmp_path / "user" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    broken = {"argv": ["/bin/false", "{connection_file}"], "display_name": "other", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(broken))
    environment = {"JUPYTER_DATA_DIR": str(tmp_path / "user"), "JUPYTER_PREFER_ENV_PATH": "0", "OMP_NUM_THREADS": "3"}
    printed = "sys.executable, *map(os.environ.get, ['MKL_NUM_THREADS', 'GLIBC_TUNABLES', 'GOMP_SPINCOUNT'])"
    write_notebook(folder, "02_train_glow", f"import os, sys\nprint({printed})")
    command = f"-m ageflow.batch --preset smoke --notebooks 02 -p batch_size 16 --runs-root {tmp_path / 'runs'}".split()
    command = [sys.executable, *command, "--notebooks-folder", str(folder)]
    of_make = {"GLIBC_TUNABLES", "GOMP_SPINCOUNT"}
    environment = {k: v for k, v in os.environ.items() if k not in of_make} | {"MKL_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{sys.executable} 3 glibc.malloc.hugetlb=1 10000\n" in done.stdout
    assert "unknown parameter" not in (done.stdout + done.stderr).casefold()
