"""Which module imports which: nothing slow before it is used, and every file only from the floors below it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SLOW = "torchvision, torch._dynamo, torch_fidelity, sklearn, matplotlib.pyplot, seaborn, distributed, dlib"
MODULES = (
    "ageflow.data.prepare",
    "ageflow.evaluation.evaluate",
    "ageflow.slider.explorer",
    "ageflow.report.figures",
    "ageflow.report.tables",
    "ageflow.train",
    "ageflow.training.classifier",
    "ageflow.training.distributed",
    "ageflow.training.glow",
    "ageflow.training.ictm",
)
# What a person types, and waits for when it is mistyped; what it says.
COMMANDS = {
    "ageflow.train": (["train_glow", "-p", "iteration", "5"], "unknown parameter 'iteration'"),
    "ageflow.age": (["README.md", "--to", "30", "--out", "README.md"], "--out README.md is a file"),
    "ageflow.batch.__main__": (["--dataset", "morf"], "did you mean 'morph'"),
    "ageflow.protocol": (["export", "--dataset", "morf"], "did you mean 'morph'"),
}
# From the ground up; files and folders of one line may not import each other.
FLOORS = """names, config, parameters, downloads run, work checkpoint device, data, flows, translation, training, baselines, evaluation, report,
slider, batch train benchmark age protocol"""
FLOOR = {name: height for height, names in enumerate(FLOORS.split(",")) for name in names.split()}


def test_nothing_slow_is_imported_before_it_is_used():
    program = f"import sys, {', '.join(MODULES)}\nprint(*(name for name in {SLOW.split(', ')} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("module", "arguments", "message"), [(name, *command) for name, command in COMMANDS.items()])
def test_a_mistyped_command_does_not_wait_for_torch(module: str, arguments: list[str], message: str):
    program = f"""
import sys, {module}
try:
    code = {module}.main({arguments})
except SystemExit as end:
    code = end.code
assert code, "it has to fail"
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("module", ["ageflow.data.prepare", "ageflow.flows.glow"])
def test_a_gpu_finds_faces_and_runs_flows_in_32_bits_whatever_else_is_imported(module: str):
    code = f"import {module}, torch; print(torch.backends.cudnn.allow_tf32)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"]


def imported(file: Path) -> Iterator[str]:
    """The files and folders of the library that a file imports from, wherever in it: ``flows``, ``run``, …"""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.split(".")[1] for name in names if name.startswith("ageflow."))


def test_every_file_imports_only_from_the_floors_below_it():
    climbing = []
    for file in sorted((ROOT / "ageflow").rglob("*.py")):
        place = file.relative_to(ROOT / "ageflow").parts[0].removesuffix(".py")
        if place != "__init__":  # it offers names of every floor, and imports none before it is asked for
            above = {name for name in imported(file) if name != place and FLOOR[name] >= FLOOR[place]}
            climbing += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(above)]
    assert not climbing
