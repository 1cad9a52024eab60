"""A tiny run with every baseline trained for two updates, and batches of eight of its faces."""

from pathlib import Path

import pytest
import torch

from ageflow.baselines.train import BaselineTask, own_settings, train_baselines
from ageflow.data.faces import Faces
from ageflow.run import Workspace
from ageflow.training.distributed import learning
from ageflow.training.task import MicroBatch
from tests.tiny import settings_of, write_faces

WHOLE = MicroBatch(0, 0, 8, 8)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The run; C learned for four updates."""
    workspace = Workspace(tmp_path_factory.mktemp("baselines"), "demo", "tiny")
    write_faces(workspace.path("faces"))
    train_baselines(settings_of("baselines", workspace.runs_root, iterations=2))
    return workspace


@pytest.fixture
def task_of(trained: Workspace):
    """Make the task of a method that has seen nothing, from settings."""

    def make(name: str, **values: object) -> BaselineTask:
        settings = own_settings(settings_of("baselines", trained.runs_root, methods=[name], **values), name)
        return BaselineTask(settings, Faces.open(trained.path("faces")), Path(trained.path("decoded_age")))

    return make


def losses_of(task: BaselineTask) -> dict[str, dict[str, torch.Tensor]]:
    """Every loss of every objective on the same eight faces, by objective and name; a face is not left as it is."""
    torch.manual_seed(0)
    task.modules.train()
    with torch.no_grad():  # GLCA-GAN begins with x itself, where the gradient of keeping it is zero
        for parameter in task.modules.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    batch, found = task.batch(WHOLE), {}
    for key, (network, losses) in task.model.objectives().items():
        with learning(network, task.modules):  # as in the loop
            found[key] = losses(batch)
    return found
