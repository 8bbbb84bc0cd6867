"""A bar for each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchdl.callbacks.base import Callback, Training
from torchdl.progress import progress_bar, tqdm


class ProgressBar(Callback):
    """Show a bar for each epoch if there is a terminal or a notebook."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.means: Mapping[str, float] = {}  # those that it shows

    def on_fit_start(self, training: Training) -> None:
        """Show the bar of the first epoch."""
        self.open(training)

    def on_step_end(self, training: Training) -> None:
        """Move the bar."""
        if self.bar is not None:
            if training.means is not self.means:
                self.means = training.means
                shown = {name.removeprefix("train/"): f"{value:.3g}" for name, value in self.means.items()}
                self.bar.set_postfix(shown, refresh=False)
            self.bar.update(training.batch - self.bar.n)
            if training.batch == training.batches:
                self.close()

    def on_epoch_end(self, training: Training) -> None:
        """Show the bar of the next epoch."""
        self.close()
        if training.step < training.steps:
            self.open(training)

    def on_fit_end(self, training: Training) -> None:
        """Remove the bar."""
        self.close()

    def open(self, training: Training) -> None:
        """Show a bar."""
        title = f"epoch {training.epoch + 1}" + (f"/{training.epochs}" if training.epochs else "")
        self.bar = progress_bar(total=training.batches, initial=training.batch, desc=title, leave=False)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
