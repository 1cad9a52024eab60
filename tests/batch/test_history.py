"""The record of a run's notebooks, where two batches of the run keep it at once."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path

from ageflow.batch.history import History, Inputs

WHEN = datetime(2026, 11, 29, 12, 0, 0)


def remember(path: Path, name: str, times: int) -> None:
    history = History(path)
    for _ in range(times):
        history.remember(name, Inputs(name, {}, {}), minutes=1, finished=WHEN)


def test_a_batch_keeps_what_another_has_recorded_since_it_began(tmp_path):
    path = tmp_path / "state.json"
    one, other = History(path), History(path)
    one.remember("04", Inputs("a", {}, {}), minutes=4, finished=WHEN)
    other.remember("05", Inputs("b", {}, {}), minutes=5, finished=WHEN)
    one.forget("03")
    both = History(path)
    assert (both.minutes("04"), both.minutes("05")) == (4, 5)
    other.forget("04")
    assert (History(path).minutes("04"), History(path).minutes("05")) == (None, 5)


def test_two_processes_that_record_at_once_lose_nothing(tmp_path):
    path = tmp_path / "state.json"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(remember, path, name, 100) for name in ("04", "05")]:
            done.result()
    assert (History(path).minutes("04"), History(path).minutes("05")) == (1, 1)
