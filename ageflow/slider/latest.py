"""Work that follows a hand: only the newest request is served, those it overtook are dropped."""

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Request = TypeVar("Request")


class Latest(Generic[Request]):
    """Serves requests on a thread of its own; while one is served, only the newest of the others is kept.

    The thread starts with a request and ends when there is nothing left to do, so that a slider whose cell was run again
    leaves nothing behind.

    Arguments:
        work: what is done for a request at once.
        failed: takes the exception of `work` or `settled`, and the request it came from.
        settled: what follows once no new request has come for a while, in parts: between two parts (two ``yield``\\ s)
            a new request takes over.
        pause: how long no request must come until `settled` begins, seconds.

    Example:
        >>> seen = []
        >>> latest = Latest(seen.append, failed=print)
        >>> latest.request(1)
        >>> latest.wait()
        True
        >>> seen
        [1]
    """

    def __init__(
        self,
        work: Callable[[Request], None],
        failed: Callable[[Exception, Request], None],
        settled: Callable[[Request], Iterator[None]] = lambda _: iter(()),
        pause: float = 0.15,
    ) -> None:
        self._work, self._failed, self._settled, self._pause = work, failed, settled, pause
        self._waiting: list[Request] = []  # at most one
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def request(self, request: Request) -> None:
        """Ask for `request` in place of whatever has not begun; returns at once."""
        with self._changed:
            self._waiting = [request]
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run)
                self._thread.start()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing is left to do; False: that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                request = self._waiting.pop()
            try:
                self._work(request)
                with self._changed:
                    overtaken = self._changed.wait_for(lambda: self._waiting, self._pause)
                for _ in () if overtaken else self._settled(request):
                    if self._waiting:
                        break
            except Exception as error:
                self._failed(error, request)
