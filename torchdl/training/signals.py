"""Ctrl-C and SIGTERM as requests to stop after the current step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class Request:
    """The signal received so far; 0 for none."""

    signal_number: int = 0


@contextmanager
def requests() -> Iterator[Request]:
    """Record Ctrl-C and SIGTERM in a :class:`Request`; a second signal has its usual effect at once.

    Outside the main thread Python cannot handle signals, so nothing is recorded there. A signal whose handler is not
    Python's own, but that of a program in which Python is embedded, is left to that handler.
    """
    request = Request()
    previous: dict[int, Any] = {}

    def record(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        signal.signal(number, previous[number])

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            try:
                if signal.getsignal(number) is not None:
                    previous[number] = signal.signal(number, record)
            except ValueError:
                break
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
