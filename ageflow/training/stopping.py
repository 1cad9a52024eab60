"""SIGTERM and SIGINT during training: save first, then stop."""

import signal
import threading
from types import FrameType
from typing import Any


class Stopping:
    """While the block lasts, a signal to stop is noted, and comes into force when the block has ended.

    A second SIGINT (Ctrl-C again, the stop button again) stops at once, and what was done since the last checkpoint
    is done again next time. Outside the main thread no signal arrives, and nothing is changed.

    Example:
        >>> with Stopping() as stopping:
        ...     stopping.signal
        0
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self.signal and self._before:
            signal.raise_signal(self.signal)
