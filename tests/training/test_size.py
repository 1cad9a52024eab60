"""How many faces a forward pass is given where a person leaves it to the kit."""

import subprocess
import sys

import psutil

from tests.conftest import ROOT

_FREE = """
import resource
import sys

if limit := int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_RSS, (limit, limit))
from ageflow.training.distributed import Processes
from ageflow.training.size import _free_memory

print(_free_memory(Processes(count=int(sys.argv[2]))))
"""


def free(limit: int, processes: int = 1) -> int:
    """What a process of its own may take under a limit, or without one (0)."""
    command = [sys.executable, "-c", _FREE, str(limit), str(processes)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_what_is_free_is_no_more_than_a_limit_allows():
    limit = 2 * 2**30
    assert 2**30 < free(limit) < limit, "it takes some of it itself"
    assert 0 < free(limit, processes=3) < free(limit) - 2**28, "and so do the others"
    assert limit < free(0) < psutil.virtual_memory().total
