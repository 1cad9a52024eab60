"""What a notebook's first cell waits for: no package that takes seconds is imported before it is used."""

import subprocess
import sys

import pytest

SLOW = ("torchvision", "torch._dynamo", "torch_fidelity", "sklearn", "matplotlib.pyplot", "distributed", "dlib")
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
# What a person types, and waits for when it is mistyped; what it is told.
COMMANDS = {
    "ageflow.train": (["train_glow", "-p", "iteration", "5"], "unknown parameter 'iteration'"),
    "ageflow.batch.__main__": (["--dataset", "morf"], "morf"),
}


def test_nothing_slow_is_imported_before_it_is_used():
    program = f"import sys, {', '.join(MODULES)}\nprint(*(name for name in {SLOW} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("module", "arguments", "told"), [(name, *command) for name, command in COMMANDS.items()])
def test_a_mistyped_command_does_not_wait_for_torch(module, arguments, told):
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
    assert told in done.stderr


@pytest.mark.parametrize("module", ["ageflow.data.prepare", "ageflow.flows.glow"])
def test_a_gpu_finds_faces_and_runs_flows_in_32_bits_whatever_else_is_imported(module):
    code = f"import {module}, torch; print(torch.backends.cudnn.allow_tf32)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"]
