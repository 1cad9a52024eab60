"""How many faces a forward pass is given where a person leaves it to the kit."""

import json
import subprocess
import sys

from tests.conftest import ROOT

_FREE = """
import json
import resource
import sys

import distributed.system  # what `_free_memory` imports, so that it takes its memory before
import psutil

from ageflow.training.distributed import Processes
from ageflow.training.size import _free_memory

processes = int(sys.argv[1])
held, room = psutil.Process().memory_info().rss, 200 * 2**20
unlimited, available = _free_memory(Processes(count=processes)), psutil.virtual_memory().available
limit = processes * held + room
resource.setrlimit(resource.RLIMIT_RSS, (limit, limit))
print(json.dumps([unlimited, min(available, psutil.virtual_memory().total - processes * held), room,
                  _free_memory(Processes(count=processes))]))
"""


def test_what_is_free_is_what_the_machine_has_and_no_more_than_a_limit_allows():
    for count in (1, 3):
        command = [sys.executable, "-c", _FREE, str(count)]
        ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        unlimited, of_machine, room, limited = json.loads(ended.stdout)
        assert abs(unlimited - of_machine) < of_machine / 2, "others take and give back meanwhile"
        assert abs(limited - room) < room / 2, "the limit less what so many processes hold already"
