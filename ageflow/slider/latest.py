"""Work that follows a hand: only the newest wish is fulfilled, those it overtook are dropped."""

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Wish = TypeVar("Wish")


class Latest(Generic[Wish]):
    """Fulfils wishes on a thread of its own; while one is worked on, only the newest of the others is kept.

    The thread begins with a wish and ends when there is nothing left to do, so that a slider whose cell was run again
    leaves nothing behind.

    Arguments:
        work: what is done for a wish at once.
        settled: what follows once no new wish has come for a while, in pieces: between two pieces (two ``yield``\\ s)
            a new wish takes over.
        failed: takes the exception of either, and the wish it came from.
        pause: how long no wish must come until `settled` begins, seconds.

    Example:
        >>> seen = []
        >>> latest = Latest(seen.append, failed=print)
        >>> latest.wish(1)
        >>> latest.wait()
        True
        >>> seen
        [1]
    """

    def __init__(
        self,
        work: Callable[[Wish], None],
        failed: Callable[[Exception, Wish], None],
        settled: Callable[[Wish], Iterator[None]] | None = None,
        pause: float = 0.15,
    ) -> None:
        self._work, self._settled, self._failed, self._pause = work, settled, failed, pause
        self._waiting: list[Wish] = []  # at most one
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def wish(self, wish: Wish) -> None:
        """Ask for `wish` in place of whatever has not begun; returns at once."""
        with self._changed:
            self._waiting = [wish]
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
                wish = self._waiting.pop()
            try:
                self._work(wish)
                with self._changed:
                    overtaken = self._changed.wait_for(lambda: self._waiting, self._pause if self._settled else 0)
                if self._settled and not overtaken:
                    for _ in self._settled(wish):
                        if self._waiting:
                            break
            except Exception as error:
                self._failed(error, wish)
