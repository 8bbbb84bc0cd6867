"""The trainer's own callbacks, and the list of all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torchdl.errors import InputError, require
from torchdl.files import BEST
from torchdl.progress import progress_bar, tqdm
from torchdl.tasks import Callback
from torchdl.tasks.callback import Training
from torchdl.training.best import Best


def is_best(training: Training, monitor: str, mode: str) -> bool:
    """Return whether the epoch that has just ended has the best value of a metric so far."""
    known = ", ".join(name for name in training.row if name.startswith("train/"))
    there = monitor in training.row or not monitor.startswith("train/")
    require(there, f"there is no metric {monitor!r} to monitor: choose one of {known}")
    return monitor in training.row and Best.of(training.history, monitor, mode).since == 0


class BestCheckpoint(Callback):
    """Keep the checkpoint of the epoch with the best value of a metric, as ``best.pt``.

    Args:
        monitor: The metric, such as ``val/accuracy``.
        mode: min or max: whether a lower or a higher value is better.
        name: The file's name.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> data = torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1))
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> folder, best = tempfile.mkdtemp(), torchdl.BestCheckpoint("train/loss", name="lowest.pt")
        >>> history = torchdl.Trainer(epochs=2).fit(task, torchdl.BatchLoader(data, 2), folder=folder, callbacks=[best])
        >>> (Path(folder) / "lowest.pt").is_file()
        True
    """

    def __init__(self, monitor: str, mode: str = "min", name: str = BEST) -> None:
        self.monitor, self.mode, self.name = monitor, mode, name

    def on_epoch_end(self, training: Training) -> None:
        """Keep this epoch's checkpoint if it is the best one so far."""
        if is_best(training, self.monitor, self.mode):
            training.save_as(self.name)


class BestWeights(Callback):
    """End a training with the weights of the epoch that has the best value of a metric, also without a folder.

    Args:
        monitor: The metric, such as ``val/accuracy``.
        mode: min or max: whether a lower or a higher value is better.

    Example:
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), 4)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> best = torchdl.BestWeights("val/loss", mode="max")  # the highest loss is that after the first epoch
        >>> history = torchdl.Trainer(epochs=5).fit(task, loader, loader, callbacks=[best])
        >>> bool(torch.isclose(task.model(torch.ones(1, 1)), torch.tensor(1.0 - history[0]["val/loss"] ** 0.5)).all())
        True
    """

    def __init__(self, monitor: str, mode: str = "min") -> None:
        self.monitor, self.mode = monitor, mode
        self.weights: dict[str, Any] = {}

    def on_epoch_end(self, training: Training) -> None:
        """Keep a copy of this epoch's weights if it is the best one so far."""
        if is_best(training, self.monitor, self.mode):
            self.weights = copy.deepcopy(training.task.state_dict())

    def on_fit_end(self, training: Training) -> None:
        """Load the best epoch's weights."""
        if self.weights:
            training.task.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch's weights."""
        return self.weights

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the best epoch's weights, of a checkpoint."""
        self.weights = state


class EarlyStopping(Callback):
    """Stop when a metric has not improved for a number of evaluations.

    Args:
        monitor: The metric, such as ``val/loss``.
        patience: The number of evaluations, 1 or more.
        mode: min or max: whether a lower or a higher value is better.

    Raises:
        InputError: The patience is less than 1.

    Example:
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), 2)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> stopping = torchdl.EarlyStopping("val/loss", patience=2, mode="max")  # a loss that falls is no better
        >>> len(torchdl.Trainer(epochs=9).fit(task, loader, loader, callbacks=[stopping]))
        3
    """

    def __init__(self, monitor: str, patience: int, mode: str = "min") -> None:
        require(patience >= 1, f"patience must be 1 or more, not {patience}")
        self.monitor, self.patience, self.mode = monitor, patience, mode

    def on_fit_start(self, training: Training) -> None:
        """Do not go on with a training that was stopped."""
        self.on_epoch_end(training)

    def on_epoch_end(self, training: Training) -> None:
        """Stop if the last evaluations were no better."""
        if Best.of(training.history, self.monitor, self.mode).since >= self.patience:
            training.stop(f"stopped early: {self.monitor} has not improved for {self.patience} evaluations")


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


class Callbacks:
    """All callbacks of a training, called in their order; a checkpoint keeps their states by name."""

    def __init__(self, callbacks: Sequence[Callback], training: Training) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                advice = "an instance of a subclass of torchdl.Callback"
                raise InputError(f"a callback is {advice}, not {callback!r}")
        self.callbacks, self.training = list(callbacks), training

    def call(self, place: str) -> None:
        """Call one method of all."""
        for callback in self.callbacks:
            getattr(callback, place)(self.training)

    def named(self) -> dict[str, Callback]:
        """Return the callbacks by the names of their classes; a further one of a class gets a number."""
        found: dict[str, Callback] = {}
        for callback in self.callbacks:
            name = type(callback).__name__
            same = sum(known.split(" ")[0] == name for known in found)
            found[f"{name} {same + 1}" if same else name] = callback
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those that have one."""
        states = {name: callback.state_dict() for name, callback in self.named().items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Load the states; raise :class:`InputError` if a callback with a state is missing."""
        named = self.named()
        missing = ", ".join(states.keys() - named.keys())
        require(not missing, f"the checkpoint has the state of the callback {missing}: give it to fit, too")
        for name, state in states.items():
            named[name].load_state_dict(state)
