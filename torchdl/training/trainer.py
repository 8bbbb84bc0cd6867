"""The one trainer: it runs any :class:`torchdl.tasks.Task` and owns everything mechanical about training."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from torchdl.collective import rank_and_size
from torchdl.data.loader import BatchLoader
from torchdl.errors import InputError, require
from torchdl.files import BEST, CHECKPOINT, PREVIOUS
from torchdl.tasks import StepInfo, Task
from torchdl.training import checkpoint, distributed, signals
from torchdl.training.device import be_deterministic, find_device, why_not_compile
from torchdl.training.evaluation import evaluate
from torchdl.training.logging import Logger, describe
from torchdl.training.progress import Progress, Sums
from torchdl.training.step import Updates


@dataclass(frozen=True)
class Trainer:
    """Train a task, evaluate it, log it, save it, and go on exactly where it was stopped.

    Example:
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> train = torchdl.BatchLoader(torchdl.ArrayDataset(x, 2 * x), batch_size=32, shuffle=True)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> history = torchdl.Trainer(epochs=2).fit(task, train, validation=train)
        >>> sorted(history[-1])
        ['charts/learning_rate', 'epoch', 'step', 'train/grad_norm', 'train/loss', 'val/loss']
    """

    epochs: int = 10
    """Passes over the training data."""
    max_steps: int = 0
    """Steps to train for, in place of epochs; 0 for epochs."""
    seed: int = 0
    """What every random draw derives from."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward passes; bf16 by autocast, with fp32 weights (slow on CPUs without bf16 units)."""
    compile: bool = False
    """Compile the networks with torch.compile; pays for convolutions, not for small networks."""
    accumulate: int = 1
    """Batches whose gradients are added up for one step."""
    clip_norm: float = 0.0
    """Scale gradients down to this norm, for each optimizer; 0 for never."""
    log_every: int = 50
    """Steps between two points in TensorBoard."""
    evaluate_every: int = 1
    """Epochs between two evaluations on held-out data, with preview images and a line on the console."""
    checkpoint_every: int = 0
    """Steps between two checkpoints, besides the one after each epoch; 0 for none."""
    monitor: str = ""
    """The metric that says which epoch is best, such as val/accuracy; its checkpoint is kept as best.pt."""
    mode: Literal["min", "max"] = "min"
    """Whether the monitored metric is better low or high."""
    patience: int = 0
    """Stop after so many evaluations without a new best; 0 for never."""
    dry_run: bool = False
    """Do two steps of everything, to see that it runs."""

    def __post_init__(self) -> None:
        counts = {"epochs": 1, "accumulate": 1, "log_every": 1, "evaluate_every": 1}
        for name, least in {**counts, "max_steps": 0, "clip_norm": 0, "checkpoint_every": 0, "patience": 0}.items():
            value = getattr(self, name)
            require(least <= value < math.inf, f"{name} must be {least} or more, not {value}")
        require(0 <= self.seed < 2**32, f"seed must be from 0 to {2**32 - 1}, not {self.seed}")
        known = self.precision in ("fp32", "bf16") and self.mode in ("min", "max")
        require(known, f"precision must be fp32 or bf16, and mode min or max: not {self.precision}, {self.mode}")
        require(self.patience == 0 or bool(self.monitor), "patience needs a metric to watch: set monitor, too")

    def fit(
        self,
        task: Task,
        train: BatchLoader,
        validation: BatchLoader | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        record: Mapping[str, Any] | None = None,
        saved: Callable[[], None] = lambda: None,
        verbose: bool = False,
    ) -> list[dict[str, float]]:
        """Train ``task``, in place, and return the history: one row of metrics an epoch.

        Args:
            task: What to train; it is left on the device.
            train: Batches to train on.
            validation: Batches to evaluate on.
            folder: Where the run is kept; None for nowhere, and then it cannot be resumed.
            resume: Whether to go on from the last checkpoint in ``folder``.
            record: The run's hyperparameters, for TensorBoard.
            saved: Called on process 0 whenever a checkpoint has been written.
            verbose: Whether to print a line an epoch and show a progress bar.

        Raises:
            InputError: There is no checkpoint to resume from, or it is another task's.
            TrainingDiverged: A loss or gradient norm is not finite; the checkpoints are from before.
            Stopped: Ctrl-C or SIGTERM came; a checkpoint was written if there is a folder.
        """
        require(not resume or folder is not None, "resume needs the folder of the run to resume")
        for loader in (train, validation):
            if not isinstance(loader, BatchLoader | None):
                kind = type(loader).__name__
                raise InputError(f"the trainer takes a BatchLoader, whose order can be resumed, not a {kind}")
        fit = Fit(self, task, train, validation, Path(folder) if folder else None, verbose)
        return fit.run(resume, record or {}, saved)


class Fit:
    """One call of :meth:`Trainer.fit`."""

    def __init__(
        self,
        options: Trainer,
        task: Task,
        train: BatchLoader,
        validation: BatchLoader | None,
        folder: Path | None,
        verbose: bool,
    ) -> None:
        self.options, self.task, self.train, self.validation = options, task, train, validation
        self.folder, self.verbose, self.progress = folder, verbose, Progress()
        be_deterministic()
        self.device = find_device(options.device)
        distributed.start(self.device)
        self.rank, size = rank_and_size()
        for loader in filter(None, (train, validation)):
            loader.shard(self.rank, size)
            loader.to(self.device)
        task.to(self.device)
        distributed.unite(task)
        if options.compile and (reason := why_not_compile(self.device)):
            self.warn(f"torch.compile does not work here, so the networks run as they are: {reason}")
        elif options.compile:
            task.compile_modules()
        self.updates = Updates(task, self.device, options.seed, options.precision == "bf16", options.clip_norm)
        self.parts: dict[str, Any] = {"task": task, "updates": self.updates, "progress": self.progress}
        an_epoch = -(-len(train) // options.accumulate)
        self.steps = 2 if options.dry_run else options.max_steps or options.epochs * an_epoch
        self.epochs = -(-self.steps // an_epoch)
        self.updates.schedules = task.configure_schedules(self.updates.optimizers, self.steps)

    def say(self, text: str) -> None:
        """Print a line above the progress bar, on process 0 and where it was asked for."""
        if self.verbose and self.rank == 0 and text:
            tqdm.write(text)

    def warn(self, text: str) -> None:
        """Say what must not go unnoticed: as a Python warning where nothing is printed."""
        if self.verbose:
            self.say(text)
        elif self.rank == 0 and text:
            warnings.warn(text, stacklevel=4)

    def run(self, resume: bool, record: Mapping[str, Any], saved: Callable[[], None]) -> list[dict[str, float]]:
        """Train to the end, from the start or from the last checkpoint."""
        self.saved, progress, options = saved, self.progress, self.options
        if resume and self.folder is not None:
            self.warn(checkpoint.restore(self.folder, self.parts, self.order()))
        self.logger = Logger(self.folder if self.rank == 0 else None, progress.step + 1 if resume else None)
        with closing(self.logger), signals.requests() as self.request:
            measured = self.evaluate(batches=1)  # what can be monitored, known before an epoch is spent
            choice = ", ".join([*measured, "train/..."])
            for name in filter(None, (options.monitor, *(s.monitor for s in self.updates.schedules.values()))):
                known = name in measured or name.startswith("train/")
                require(known, f"there is no metric {name!r} to monitor: choose one of {choice}")
            if progress.step == 0:
                self.logger.record(record, [*measured, *self.updates.learning_rates()])
            whole = True
            while whole and (progress.step < self.steps or progress.batch):  # an epoch is to begin, or to end
                if options.patience and progress.since_best >= options.patience:
                    self.say(f"stopped early: {options.monitor} has not improved for {options.patience} evaluations")
                    break
                self.train_epoch()
                whole = self.end_epoch()
        return progress.history

    def train_epoch(self) -> None:
        """Train until the epoch's or the last step, from wherever in the epoch progress is."""
        progress, options = self.progress, self.options
        since, first = time.perf_counter(), progress.batch
        batches = self.train.batches(progress.epoch, progress.batch)
        self.task.train()
        title = f"epoch {progress.epoch + 1}/{self.epochs}"
        hidden = True if self.rank > 0 or not self.verbose else None  # None: where there is no terminal
        with tqdm(total=len(self.train), initial=first, desc=title, disable=hidden, leave=False) as bar:
            while progress.step < self.steps and (group := list(islice(batches, options.accumulate))):
                self.updates.step(group, progress)
                bar.update(len(group))
                if progress.step % options.log_every == 0:
                    self.updates.collect(progress)
                    means, progress.window_sums = progress.window_sums.means(), Sums()
                    examples = (progress.batch - first) * self.train.global_batch_size
                    rates = {"charts/examples_per_second": examples / (time.perf_counter() - since)}
                    since, first = time.perf_counter(), progress.batch
                    self.logger.scalars({**means, **self.updates.learning_rates(), **rates}, progress.step)
                    bar.set_postfix({k.removeprefix("train/"): f"{v:.3g}" for k, v in means.items()}, refresh=False)
                if distributed.any_process(bool(self.request.signal_number)):
                    self.save()
                    raise signals.Stopped(f"stopped after step {progress.step}", self.request.signal_number)
                if options.checkpoint_every and progress.step % options.checkpoint_every == 0:
                    self.save()

    def end_epoch(self) -> bool:
        """Evaluate, preview, log, step the schedules of epochs, and save; False where max_steps has cut the epoch.

        What is saved of a cut epoch is from before its end, so that it can be gone on with.
        """
        progress, options = self.progress, self.options
        self.updates.collect(progress)
        if cut := progress.batch < len(self.train):
            self.save()
        row: dict[str, float] = {"epoch": progress.epoch + 1, "step": progress.step}
        row |= {**progress.epoch_sums.means(), **self.updates.learning_rates()}
        previews = {}
        if due := progress.step >= self.steps or (progress.epoch + 1) % options.evaluate_every == 0:
            row |= self.evaluate()
            with torch.no_grad(), self.updates.region():
                previews = self.task.eval().preview()
        progress.history.append(row)
        found = self.task.warnings(row) if due else []
        self.logger.epoch(progress.history, previews, found)  # before it is saved: a resume forgets what came after
        if not cut:
            progress.epoch, progress.batch, progress.epoch_sums = progress.epoch + 1, 0, Sums()
            self.updates.end_epoch(row)
        self.save(last=not cut, best=progress.is_best(row, options.monitor, options.mode))
        self.say("\nWARNING: ".join([describe(row), *found] if due else []))
        return not cut

    def evaluate(self, batches: int | None = None) -> dict[str, float]:
        """Return the means over the held-out data, or over its first ``batches``."""
        if self.validation is None:
            return {}
        step_info = StepInfo(self.options.seed, 0, self.progress.step)
        batches = 2 if self.options.dry_run else batches
        return evaluate(self.task, self.validation, self.device, self.updates.region, step_info, batches)

    def save(self, last: bool = True, best: bool = False) -> None:
        """Write a checkpoint, as the last one, the best one, or both."""
        self.updates.collect(self.progress)
        if self.folder is None or not (last or best):
            return
        state = {**{name: part.state_dict() for name, part in self.parts.items()}, "order": self.order()}
        if self.rank == 0:
            if last:
                checkpoint.write(state, self.folder / CHECKPOINT, self.folder / PREVIOUS)
            if best:
                checkpoint.write(state, self.folder / BEST)
            self.saved()

    def order(self) -> dict[str, Any]:
        """Return what decides which examples a step sees, at which rate, and what is best: the same after a resume."""
        own = {name: getattr(self.options, name) for name in ("accumulate", "monitor", "mode")}
        return {**self.train.order_settings(), **self.updates.order_settings(), **own}
