"""What a notebook's first cell waits for: no package that takes seconds is imported before it is used."""

import subprocess
import sys

SLOW = ("torchvision", "torch._dynamo", "torch_fidelity", "sklearn", "matplotlib.pyplot", "distributed", "dlib")
MODULES = (
    "ageflow.data.prepare",
    "ageflow.evaluation.session",
    "ageflow.explore.explorer",
    "ageflow.report.figures",
    "ageflow.report.tables",
    "ageflow.train",
    "ageflow.training.ictm",
)


def test_nothing_slow_is_imported_before_it_is_used():
    program = f"import sys, {', '.join(MODULES)}\nprint(*(name for name in {SLOW} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
