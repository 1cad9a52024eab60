"""How many faces a forward pass is given where a person leaves it to the kit."""

import os
import resource

import psutil
import pytest
import torch

from ageflow.training import size
from ageflow.training.distributed import Processes
from tests.training.line import Line, settings


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_free_is_what_the_machine_has_and_no_more_than_a_limit_allows(count):
    import distributed.system  # noqa: F401  what is measured imports it, so that it takes its memory before

    def free() -> float:
        return count * size._free_memory(torch.device("cpu"), Processes(count=count))

    held, room = psutil.Process().memory_info().rss, 200 * 2**20
    unlimited, machine = free(), psutil.virtual_memory()
    expected = min(machine.available, machine.total - count * held)
    assert abs(unlimited - expected) < expected / 2, "others take and give back meanwhile"
    child = os.fork()  # a limit can only be lowered
    if child == 0:
        limit = count * psutil.Process().memory_info().rss + room
        resource.setrlimit(resource.RLIMIT_RSS, (limit, limit))
        os._exit(int(abs(free() - room) > room / 2))
    assert os.waitpid(child, 0)[1] == 0


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
