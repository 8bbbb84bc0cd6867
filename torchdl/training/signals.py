"""Ctrl-C and SIGTERM as requests to stop after the current step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any


class Stopped(Exception):  # not an error: the user asked for it
    """Training was stopped by a signal, after it saved a checkpoint if it has a folder.

    Args:
        message: When it was stopped, in words.
        signal_number, folder: As the attributes.

    Attributes:
        signal_number: The signal: SIGINT (Ctrl-C) or SIGTERM.
        folder: The folder with the checkpoint to resume from; None if nothing was saved.

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

    def __init__(self, message: str, signal_number: int, folder: Path | None = None) -> None:
        super().__init__(message)
        self.signal_number, self.folder = signal_number, folder


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
