"""Prepares faces in a process of its own, so that a test can kill it: `python -m tests.data.prepare_worker '{json}'`."""

import sys

from ageflow.config import PrepareData
from ageflow.data.prepare import prepare

if __name__ == "__main__":
    prepare(PrepareData.model_validate_json(sys.argv[1]))
