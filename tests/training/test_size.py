"""How many faces a forward pass is given where a person leaves it to the kit."""

import json
import subprocess
import sys

from tests.conftest import ROOT

_FREE = """
import json
import resource

import distributed.system  # what `_free_memory` imports, so that it takes its memory before
import psutil

from ageflow.training.distributed import Processes
from ageflow.training.size import _free_memory

told = []
for processes in (3, 1):  # a limit can only be lowered
    held, room = psutil.Process().memory_info().rss, 200 * 2**20
    unlimited, machine = _free_memory(Processes(count=processes)), psutil.virtual_memory()
    limit = processes * held + room
    if processes == 3:
        told.append([unlimited, min(machine.available, machine.total - processes * held)])
    resource.setrlimit(resource.RLIMIT_RSS, (limit, limit))
    told.append([_free_memory(Processes(count=processes)), room])
print(json.dumps(told))
"""


def test_what_is_free_is_what_the_machine_has_and_no_more_than_a_limit_allows():
    ended = subprocess.run([sys.executable, "-c", _FREE], cwd=ROOT, check=True, capture_output=True, text=True)
    for found, expected in json.loads(
        ended.stdout
    ):  # of the machine, and under a limit for three processes and for one
        assert abs(found - expected) < expected / 2, "others take and give back meanwhile"
