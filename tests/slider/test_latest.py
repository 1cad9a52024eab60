"""The newest wish wins."""

import threading
import time
from collections.abc import Iterator

from ageflow.slider import Latest


def test_wishes_that_come_too_fast_are_dropped_and_the_last_is_fulfilled():
    done: list[int] = []

    def work(wish: int) -> None:
        time.sleep(0.05)
        done.append(wish)

    latest = Latest(work, failed=lambda error, wish: done.append(-1))
    started = time.perf_counter()
    for wish in range(100):
        latest.wish(wish)
        time.sleep(0.002)
    assert latest.wait(10)
    assert time.perf_counter() - started < 2, "100 wishes of 0.05 s each were queued"
    assert done[-1] == 99
    assert done == sorted(set(done))
    assert len(done) < 30


def test_what_follows_waits_for_rest_and_gives_way_to_a_new_wish():
    done: list[str] = []
    begun = threading.Event()

    def follow(wish: str) -> Iterator[None]:
        for piece in range(50):
            done.append(f"{wish}{piece}")
            begun.set()
            time.sleep(0.01)
            yield

    latest = Latest(done.append, failed=lambda error, wish: done.append("failed"), settled=follow, pause=0.05)
    latest.wish("a")
    latest.wish("b")
    assert begun.wait(5)
    latest.wish("c")
    assert latest.wait(10)
    assert "a0" not in done
    assert "b0" in done
    assert "b49" not in done
    assert done[-1] == "c49"


def test_a_failure_is_told_and_the_next_wish_is_fulfilled():
    told: list[str] = []
    latest = Latest(
        lambda wish: told.append(f"{1 / wish:.1f}"), failed=lambda error, wish: told.append(type(error).__name__)
    )
    for wish in (0, 2):
        latest.wish(wish)
        assert latest.wait(5)
    assert told == ["ZeroDivisionError", "0.5"]


def test_no_thread_is_left_behind():
    before = threading.active_count()
    latest = Latest(lambda wish: None, failed=print)
    latest.wish(1)
    assert latest.wait(5)
    time.sleep(0.1)
    assert threading.active_count() == before
