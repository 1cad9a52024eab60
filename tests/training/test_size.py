"""How many faces a forward pass is given where a person leaves it to the kit."""

import json
import subprocess
import sys

import pytest
import torch

from ageflow.training import size
from ageflow.training.distributed import Processes
from tests.conftest import ROOT
from tests.training.line import Line, settings

_FREE = """
import json
import resource

import distributed.system  # what `_free_memory` imports, so that it takes its memory before
import psutil
import torch

from ageflow.training.distributed import Processes
from ageflow.training.size import _free_memory

cpu, found = torch.device("cpu"), []
for processes in (3, 1):  # a limit can only be lowered
    held, room = psutil.Process().memory_info().rss, 200 * 2**20
    unlimited, machine = _free_memory(cpu, Processes(count=processes)), psutil.virtual_memory()
    limit = processes * held + room
    if processes == 3:
        found.append([processes * unlimited, min(machine.available, machine.total - processes * held)])
    resource.setrlimit(resource.RLIMIT_RSS, (limit, limit))
    found.append([processes * _free_memory(cpu, Processes(count=processes)), room])
print(json.dumps(found))
"""


def test_what_is_free_is_what_the_machine_has_and_no_more_than_a_limit_allows():
    """Of the machine, and under a limit for three processes and for one."""
    ended = subprocess.run([sys.executable, "-c", _FREE], cwd=ROOT, check=True, capture_output=True, text=True)
    for found, expected in json.loads(ended.stdout):
        assert abs(found - expected) < expected / 2, "others take and give back meanwhile"


@pytest.mark.parametrize(("free", "chosen"), [(1e12, 16), (9e6, 4), (2e6, 1), (0, 1)])
def test_as_many_faces_as_fit_go_into_a_pass_and_the_weights_stay(monkeypatch, free, chosen):
    """A megabyte a face, of which 70 % of what is free may be taken."""
    monkeypatch.setattr(size, "_free_memory", lambda *given: free)
    monkeypatch.setattr(size, "reset_peak_memory", lambda device: 5e6)
    monkeypatch.setattr(size, "peak_memory", lambda device: 5e6 + 1e6 * seen[-1])
    seen, task = [], Line()
    loss = task.objectives[0].loss
    task.objectives[0].loss = lambda part: (seen.append(part.size), loss(part))[1]
    before = {name: tensor.clone() for name, tensor in task.modules.state_dict().items()}
    asked = settings(batch_size=16, micro_batch="auto")
    assert size.choose_micro_batch(task, asked, Processes(), torch.device("cpu")) == chosen
    assert all(torch.equal(before[name], tensor) for name, tensor in task.modules.state_dict().items())
    assert [parameter.grad for parameter in task.modules.parameters()] == [None] * 4


@pytest.mark.parametrize(("asked", "chosen"), [(None, 8), (3, 3), (99, 8)])
def test_a_process_passes_its_share_or_what_was_asked_for(asked, chosen):
    together = Processes(rank=0, count=2)
    given = settings(batch_size=15, micro_batch=asked)
    assert size.choose_micro_batch(Line(), given, together, torch.device("cpu")) == chosen
