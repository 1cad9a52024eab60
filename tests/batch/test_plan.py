"""What a command line asks for: which notebooks are given what, what the runs are called, and what is refused."""

import re
from pathlib import Path

import pytest

from ageflow.batch.__main__ import _notebooks, main
from ageflow.batch.run import NOTEBOOKS, READS, made_by, plan_run, plan_runs, step_of
from ageflow.config import STEPS
from ageflow.run import ARTEFACTS

SMOKE = {"preset": "smoke"}


def test_every_step_has_its_notebook_every_artefact_its_maker_and_is_made_before_it_is_read():
    assert {step_of(name) for name in READS} == {*STEPS} - {"age_slider", "benchmarks"}
    assert [*NOTEBOOKS] == [name for name in READS if name != "11_baselines"]
    made: set[str] = set()
    for notebook, settings in ((name, plan_run(SMOKE, [*READS]).settings(name)) for name in READS):
        assert set(READS[notebook]) <= made
        made |= set(made_by(notebook, settings))
    assert made == set(ARTEFACTS)


def test_notebook_11_runs_where_it_is_asked_for_before_06_which_judges_what_it_trains():
    assert [name[:2] for name in _notebooks("01-05,11,06-08")] == ["01", "02", "03", "04", "05", "11", "06", "07", "08"]
    assert "11_baselines" not in NOTEBOOKS
    plan = plan_run(SMOKE | {"baselines.methods": ["pag"]}, _notebooks("11"))
    assert made_by("11_baselines", plan.settings("11_baselines")) == ["decoded_age", "baselines/pag"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_parameter_reaches_the_notebooks_that_take_it_and_their_own_come_first(order: int):
    given = {"iterations": 3, "train_glow.iterations": 9, "04.iterations": 7, "seed": 5, "prepare_data.seed": 0}
    given |= {"bootstrap": 20, "ablations.external": "demo/held", "figures.external": "pictures"}
    plan = plan_run(SMOKE | dict(list(given.items())[::order]))
    chosen = {notebook[:2]: plan.settings(notebook) for notebook in NOTEBOOKS}
    assert [chosen[number].iterations for number in ("02", "04", "05")] == [9, 7, 3]
    assert [settings.seed for settings in chosen.values()] == [0, *[5] * 7]
    assert (chosen["07"].bootstrap, chosen["06"].external, chosen["08"].external) == (20, "demo/held", "pictures")
    assert "bootstrap" not in plan.given["08_figures"]


@pytest.mark.parametrize(
    ("name", "value", "there", "is_path"),
    [
        ("train_glow.init_from", "glow.safetensors", "here/glow.safetensors", True),
        ("train_glow.init_from", "demo/base", "here/demo/base/glow/checkpoint", True),
        ("train_glow.init_from", "demo/base", "runs/demo/base/glow/checkpoint", False),
        ("02.init_from", "nothing", "here/nothing", False),
        ("train_ictm.age_classifier_from", "demo/base", "runs/demo/base/decoded_age/checkpoint", False),
        ("embedder", "arc.onnx", "here/arc.onnx", True),
        ("ablations.external", "demo/other", "runs/demo/other/faces/faces.parquet", False),
        ("figures.external", "pictures", "here/pictures/face.jpg", True),
        ("genders", "genders.csv", "here/other", True),
    ],
)
def test_what_is_named_from_here_is_named_from_the_root(
    name: str, value: str, there: str, is_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).write_text("1")
    (tmp_path / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    given = SMOKE | {name: value, "runs_root": "../runs", "train_ictm.age_classifier": "decoded"}
    plan = plan_run(given)
    reach, _, bare = name.rpartition(".")
    for notebook in NOTEBOOKS:
        assert plan.given[notebook]["runs_root"] == str(tmp_path / "runs")
        if reach in ("", step_of(notebook), notebook[:2]) and bare in plan.given[notebook]:
            assert plan.given[notebook][bare] == (str(tmp_path / "here" / value) if is_path else value)


def names(varied: dict, **given: object) -> list[str]:
    return [plan.name for plan in plan_runs(SMOKE | given, {"dataset": ["demo"]} | varied, {})]


def test_runs_are_called_by_what_sets_them_apart():
    assert names({}) == ["demo/smoke"]
    assert names({"dataset": ["demo", "fgnet"]}, preset=None) == ["demo/demo", "fgnet/paper"]
    assert names({"seed": [0, 12]}) == ["demo/smoke-seed0", "demo/smoke-seed12"]
    varied = {"seed": [3], "train_ictm.latent": ["all", [0, 1]], "embedder": ["/a b/arc.onnx"]}
    assert names(varied, run="wide") == [
        "demo/wide-seed3-train_ictm.latent=all-embedder=-a-b-arc.onnx",
        "demo/wide-seed3-train_ictm.latent=0+1-embedder=-a-b-arc.onnx",
    ]


def test_every_notebook_is_given_the_seed_and_the_value_and_the_first_its_own_folder(tmp_path: Path):
    roots = {name: str(tmp_path / name) for name in ("morph", "cacd")}
    varied = {"dataset": [*roots], "seed": [5], "methods": [["glow"]]}
    for plan, root in zip(plan_runs({"bits": 4}, varied, roots), roots.values(), strict=True):
        chosen = {notebook[:2]: plan.settings(notebook) for notebook in NOTEBOOKS}
        assert all(settings.seed == 5 for settings in chosen.values())
        assert (str(chosen["01"].data_root), chosen["02"].bits, chosen["06"].methods) == (root, 4, ["glow"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "learning_rat", "0.1"], "'learning_rat': did you mean 'learning_rate'"),
        (["-p", "train_glow.bootstrap", "9"], r"no notebook of this batch takes a parameter 'train_glow\.bootstrap'"),
        (["-p", "external", "demo/held"], r"pass ablations\.external or figures\.external, or both"),
        (["--run", "my run"], "'my run' cannot name a folder: use letters"),
        (["--seed", "0", "1", "0"], "2 runs would be called demo/smoke-seed0: leave out the duplicate"),
        (["--vary", "scale", "1", "2", "-p", "scale", "3"], "scale is both given by -p and varied"),
        (["--vary", "scale"], "--vary scale: expected once, with different values"),
        (["--vary", "hidden", "8", "8.0"], "--vary hidden: expected once, with different values"),
        (["-p", "train_glo.hidden", "3"], "'train_glo.hidden': did you mean 'train_glow.hidden'"),
        (["-p", "hidden", "True"], "hidden = 'True': .*valid integer.*hidden channels"),
        (["--runs-root", "/dev/null"], r"\A.*Not a directory: '/dev/null/.*'$"),
        (["--data-root", "/data/mine"], "data_root = '/data/mine': .*did you mean dataset = 'folder'"),
        (["--seed", "0", "-1"], "seed = -1: .*greater than or equal to 0"),
        (["--dataset", "morph", "cacd", "--data-root", "morph=/x"], r"morph=/x: .* once for each .*\(morph, cacd\)"),
        (["--seed", "0", "1", "--notebooks-folder", "nowhere"], "nowhere holds no 01_prepare_data.ipynb"),
        (["--seed", "0", "1", "--scheduler", "tcp://127.0.0.1:9"], "'tcp://127.0.0.1:9': no dask scheduler answers"),
        (["-p", "image_size", "30"], r"image_size = 30 is halved 2 times by levels = 2.* pass a multiple of 8"),
        (["-p", "levels", "5"], r"image_size = 32 is halved 5 times .*or fewer levels"),
        (["-p", "ablations.external", "demo/none"], "external = 'demo/none': it is not there, and ablations reads it"),
        (["-p", "train_glow.init_from", "fgnet/none"], "init_from = 'fgnet/none': it is not there, and train_glow"),
        (["-p", "ablations.external", "/"], r"external = '/': / holds no faces.parquet, and ablations reads it"),
        (["-p", "train_glow.init_from", "/bin"], r"init_from = '/bin': /bin holds no checkpoint-.*, and train_glow"),
        (["-p", "ablations.embedder", "/x.onnx"], "embedder = '/x.onnx': it is not there, and ablations reads it"),
    ],
)
def test_a_wrong_command_names_the_value_and_what_to_do_before_anything_runs(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ageflow.work._CONNECT_SECONDS", 2)
    code = main(["--preset", "smoke", "--runs-root", str(tmp_path / "runs"), *arguments])
    assert code == (1 if "/dev/null" in arguments else 2)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists(), "nothing has run"


def test_a_folder_may_be_called_as_its_data_set_and_the_demo_set_needs_none(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = ["--notebooks", "01", "--parameters", "--data-root", "morph", "--dataset"]
    for datasets, roots in ((["morph"], [tmp_path / "morph"]), (["demo", "morph"], [None, tmp_path / "morph"])):
        assert main([*listed, *datasets]) == 0
        found = re.findall(r"^data_root +(\S+)", capsys.readouterr().out, re.MULTILINE)
        assert found == [str(root) for root in roots]


def test_every_parameter_of_every_notebook_is_listed_with_its_value_and_description(capsys: pytest.CaptureFixture):
    assert main(["--dataset", "cacd", "--parameters", "-p", "run", "2024_06_01", "-p", "train_glow.hidden", "96"]) == 0
    parts = capsys.readouterr().out.split("\n\n")
    assert [part.splitlines()[0] for part in parts] == [f"{n:02d}_{step}" for n, step in enumerate(STEPS, 1)]
    for part, cls in zip(parts, STEPS.values(), strict=True):
        lines = {line.split()[0]: line for line in part.splitlines()[1:]}
        assert list(lines) == list(cls.model_fields)
        assert all(line.endswith(cls.model_fields[name].description) for name, line in lines.items())
        assert lines["run"].split()[1] == "2024_06_01", "a run is called as it was written"
    assert re.search(r"^scale +1\.8 ", parts[3], re.MULTILINE)
    assert re.search(r"^hidden +96 ", parts[1], re.MULTILINE)
