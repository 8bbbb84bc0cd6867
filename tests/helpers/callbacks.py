"""Callbacks for several test files."""

from __future__ import annotations

from collections.abc import Callable

from torchdl import Callback


class AtCheckpoint(Callback):
    """Call a function on process 0 whenever a checkpoint is written."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def on_checkpoint(self, training) -> None:
        if training.is_main:
            self.function()
