"""The newest request wins."""

import threading
import time
from collections.abc import Iterator

from ageflow.slider.latest import Latest


def test_requests_that_come_too_fast_are_dropped_and_the_last_is_served():
    done: list[int] = []

    def work(request: int) -> None:
        time.sleep(0.02)
        done.append(request)

    latest = Latest(work, failed=lambda error, request: done.append(-1), pause=0)
    started = time.perf_counter()
    for request in range(100):
        latest.request(request)
        time.sleep(0.001)
    assert latest.wait(10)
    assert time.perf_counter() - started < 1, "100 requests of 0.02 s each were queued"
    assert done[-1] == 99
    assert done == sorted(set(done))
    assert len(done) < 40


def test_what_follows_waits_for_rest_and_gives_way_to_a_new_request():
    done: list[str] = []
    begun = threading.Event()

    def follow(request: str) -> Iterator[None]:
        for part in range(50):
            done.append(f"{request}{part}")
            begun.set()
            time.sleep(0.01)
            yield

    latest = Latest(done.append, failed=lambda error, request: done.append("failed"), settled=follow, pause=0.05)
    latest.request("a")
    latest.request("b")
    assert begun.wait(5)
    latest.request("c")
    assert latest.wait(10)
    assert "a0" not in done
    assert "b0" in done
    assert "b49" not in done
    assert done[-1] == "c49"


def test_a_failure_is_reported_the_next_request_is_served_and_no_thread_is_left():
    before, seen = threading.active_count(), []
    latest = Latest(
        lambda request: seen.append(f"{1 / request:.1f}"), lambda error, request: seen.append((type(error), request))
    )
    for request in (0, 2):
        latest.request(request)
        assert latest.wait(5)
    assert seen == [(ZeroDivisionError, 0), "0.5"]
    time.sleep(0.1)
    assert threading.active_count() == before
