"""What several test folders share: a small, real demo set, and one run of all the notebooks on it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# The workers of pytest-xdist share the cores: a thread each, for them and for all that they start. Before torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import ageflow
from ageflow.run import Workspace

# A suite started in the background inherits that Ctrl-C is ignored, and so would all that it starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# These tests look at the run of all the notebooks, which takes minutes: one worker makes it, once.
ON_THE_SMOKE_RUN = ("tests/slider/", "tests/notebooks/test_pipeline.py")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="what the flows' tests run on: cpu or cuda")
    group = parser.getgroup("the age slider")
    group.addoption("--screenshots", type=Path, help="folder to keep the slider's screenshots in")
    group.addoption("--screenshots-of", type=Path, help="run to show in them, runs/<data set>/<run>; else a smoke run")


def group_of(nodeid: str) -> str:
    """What one worker of pytest-xdist runs together, as it shares a fixture: a file's tests, or all on the smoke run."""
    return "smoke run" if nodeid.startswith(ON_THE_SMOKE_RUN) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    # Not its xdist_group marks, which pytest 9.2 does not see.
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here: these run where there is one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "smoke_run" in getattr(item, "fixturenames", ()):
            assert group_of(item.nodeid) == "smoke run", f"add {item.nodeid} to ON_THE_SMOKE_RUN"


@dataclass(frozen=True)
class Run:
    """A finished run of the notebooks.

    Arguments:
        workspace: its folders.
        command: the command line that made it.
    """

    workspace: Workspace
    command: list[str]


@pytest.fixture(scope="session")
def smoke_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run's workspace with prepared faces: the smoke preset's 96 at 32×32, drawn by the real generator.

    Drawn faces are kept in the user's cache, so only the first session takes its half a minute.
    """
    from ageflow.data.prepare import prepare

    runs_root = tmp_path_factory.mktemp("runs")
    settings = ageflow.settings("prepare_data", {"preset": "smoke", "runs_root": runs_root, "progress": False})
    prepare(settings)
    return Workspace.of(settings)


@pytest.fixture(scope="session")
def demo_faces_folder(smoke_workspace: Workspace) -> Path:
    """The folder of those faces, for `Faces.open`."""
    return smoke_workspace.require("faces")


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The notebooks 01 to 08 on the demo data at smoke size, run once for all the tests."""
    runs_root = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-u", "-m", "ageflow.batch", "--preset", "smoke", "--runs-root", str(runs_root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return Run(Workspace(runs_root, "demo", "smoke"), command)


@pytest.fixture
def papermill(tmp_path: Path):
    """Call the real papermill; returns the finished process, its output copy in ``tmp_path/out.ipynb``."""

    def call(*arguments: str, cwd: Path = ROOT / "notebooks", **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "papermill", *arguments]
        return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)

    return call


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs; ``demo/tiny`` has the tiny faces, a GLOW that learned from them, latents and averages."""
    from tests.tiny import encoded_run

    runs_root = tmp_path_factory.mktemp("encoded")
    encoded_run(runs_root, iterations=40)
    return runs_root


@pytest.fixture(scope="session")
def translators(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with both translators, the paper's, strongly drawn to their teacher; and a C for the methods that read."""
    from ageflow.data.faces import Faces
    from ageflow.training.ictm import train_age_classifier, train_translator, train_without_ictm
    from tests.tiny import STRONG, copy_of, settings_of

    runs_root = copy_of(encoded, tmp_path_factory.mktemp("translators"))
    train_translator(settings_of("train_ictm", runs_root, **STRONG))
    workspace = Workspace(runs_root, "demo", "tiny")
    train_without_ictm(workspace)
    c = settings_of("train_ictm", runs_root, age_classifier="decoded", age_classifier_iterations=4)
    train_age_classifier(c, Faces.open(workspace.path("faces")))
    return runs_root
