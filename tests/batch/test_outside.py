"""What a batch is told to read outside its run: the same wherever it is carried out."""

from pathlib import Path

import pytest

from ageflow.batch.outside import absolute
from ageflow.batch.plan import CHAPTERS, Plan
from ageflow.batch.run import run_notebooks
from tests.batch.test_batch import plan, write_notebook

WEIGHTS = "checkpoint-00000009.safetensors"


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1")


@pytest.mark.parametrize(
    ("name", "value", "there", "is_path"),
    [
        ("train_glow.init_from", "glow.safetensors", ["here/glow.safetensors"], True),
        ("train_glow.init_from", "runs/base", [f"here/runs/base/glow/{WEIGHTS}"], True),
        ("train_glow.init_from", "demo/base", [f"runs/demo/base/glow/{WEIGHTS}"], False),
        # As `find` has it: first from the working directory, but only where there are weights of that part.
        ("train_glow.init_from", "demo/base", [f"{at}/demo/base/glow/{WEIGHTS}" for at in ("here", "runs")], True),
        (
            "train_glow.init_from",
            "demo/base",
            [f"here/demo/base/ictm/{WEIGHTS}", f"runs/demo/base/glow/{WEIGHTS}"],
            False,
        ),
        ("train_glow.init_from", "gone.safetensors", [], False),
        ("train_glow.init_from", "pretrained", ["here/pretrained"], False),
        ("02.init_from", "nothing", ["here/nothing"], False),
        ("train_classifiers.init_from", "base", [f"here/base/classifiers/age/{WEIGHTS}"], True),
        ("train_ictm.age_classifier_from", "judge.safetensors", ["here/judge.safetensors"], True),
        ("train_ictm.age_classifier_from", "demo/base", [f"runs/demo/base/decoded_age/{WEIGHTS}"], False),
        ("embedder", "arc.onnx", ["here/arc.onnx"], True),
        ("embedder", "dlib", ["here/dlib"], False),
        ("ablations.external", "demo/other", ["runs/demo/other/faces/faces.parquet"], False),
        ("ablations.external", "other", ["here/other/faces/faces.parquet"], True),
        ("figures.external", "pictures", ["here/pictures/face.jpg"], True),
        ("genders", "genders.csv", [], True),
        ("prepare_data.data_root", "raw", [], True),
        ("inception", "inception.pth", [], True),
        ("cache", "drawn", [], True),
    ],
)
def test_what_is_named_from_here_is_named_from_the_root(
    name: str, value: str, there: list[str], is_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for file in there:
        put(tmp_path / file)
    (tmp_path / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    given = {name: value, "runs_root": "../runs", "train_ictm.age_classifier": "decoded"}
    asked = Plan(preset="smoke", parameters=given)
    told = absolute(asked)
    monkeypatch.chdir("/")
    told.check()
    reach, _, bare = name.rpartition(".")
    for chapter in CHAPTERS:
        chosen = told.settings_of(chapter)
        assert chosen.runs_root == tmp_path / "runs"
        if reach in ("", chapter.step, chapter.number) and bare in told.parameters_of(chapter):
            assert told.parameters_of(chapter)[bare] == (str(tmp_path / "here" / value) if is_path else value)


def test_a_run_is_the_same_whether_its_weights_are_named_from_here_or_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As alone, and as one of a sweep."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder, "02_train_glow", extra="init_from = None  # weights\n")
    put(tmp_path / "glow.safetensors")
    monkeypatch.chdir(tmp_path)
    alone = plan(folder, chapters=CHAPTERS[1:2], parameters={"init_from": "glow.safetensors"})
    assert run_notebooks(alone)["02_train_glow"] is not None
    assert run_notebooks(absolute(alone))["02_train_glow"] is None
