"""Ctrl-C and SIGTERM as a request to stop after the step in hand."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


class Stopped(Exception):  # not an error: somebody asked for it
    """Training was asked to stop, and has saved where it stood if it has a folder.

    ``signal_number`` says by which signal, Ctrl-C's or SIGTERM.

    Example:
        >>> import signal
        >>> def loss(output, target):
        ...     signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
        ...     return (output - target).square().mean()
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(8, 1), torch.ones(8, 1)), batch_size=2)
        >>> torchdl.Trainer().fit(torchdl.Supervised(torch.nn.Linear(1, 1), loss), loader)
        Traceback (most recent call last):
            ...
        torchdl.training.signals.Stopped: stopped after step 1
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


@dataclass
class Request:
    """Which signal has come, if any (0 for none)."""

    signal_number: int = 0


@contextmanager
def requests() -> Iterator[Request]:
    """Note Ctrl-C and SIGTERM in a :class:`Request`; a second one acts at once, as if nobody listened.

    Outside the main thread, where Python takes no signals, nothing is noted.
    """
    request = Request()
    previous: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal_number = number
        signal.signal(number, previous[number])

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            try:
                previous[number] = signal.signal(number, note)
            except ValueError:
                break
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
