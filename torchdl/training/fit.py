"""One training: all that a trainer does from the first step to the last."""

from __future__ import annotations

import copy
import math
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset

from torchdl import random
from torchdl.callbacks import Best, BestCheckpoint, Callback, EarlyStopping, Monitoring, ProgressBar, Training
from torchdl.callbacks.all_callbacks import Callbacks
from torchdl.callbacks.best import direction
from torchdl.collective import rank_and_size
from torchdl.data.loader import BatchLoader
from torchdl.errors import InputError, Stopped, require
from torchdl.fast.products import NEVER
from torchdl.files import BEST, CHECKPOINT, CONFIG, PREVIOUS, plain, write_json
from torchdl.history import History, describe
from torchdl.progress import tqdm
from torchdl.tasks import StepInfo, Task
from torchdl.tasks.schedules import cut_schedules
from torchdl.training import checkpoint, distributed, signals
from torchdl.training.device import be_deterministic, find_device, why_not_compile
from torchdl.training.evaluation import evaluate
from torchdl.training.folder import recover_best, versions
from torchdl.training.logging import Logger
from torchdl.training.pytorch_loader import PyTorchLoader, length_of
from torchdl.training.state import Sums, TrainingState
from torchdl.training.step import Stepper

if TYPE_CHECKING:
    from torchdl.training.trainer import Trainer


class Fit:
    """One call of :meth:`Trainer.fit`."""

    def __init__(
        self,
        options: Trainer,
        task: Task,
        train: BatchLoader | PyTorchLoader,
        validation: BatchLoader | PyTorchLoader | None,
        folder: Path | None,
        callbacks: Sequence[Callback],
        verbose: bool,
    ) -> None:
        self.options, self.task, self.train, self.validation = options, task, train, validation
        self.folder, self.verbose, self.state = folder, verbose, TrainingState()
        self.alerted: set[str] = set()  # the warnings so far
        self.kinds: set[str] = set()  # of the warnings of the last evaluation
        self.means: Mapping[str, float] = MappingProxyType({})  # of the training metrics, at the last point in the log
        self.row: dict[str, float] = {}  # the metrics of the epoch that ends
        self.found: list[str] = []  # warnings of callbacks about these
        self.names: list[str] = []  # further files for the next checkpoint
        self.pending: dict[str, Any] = {}  # checkpoints that are not yet written, by file
        self.record: dict[str, Any] = {}  # the run's settings
        self.written = -math.inf  # when the last one was
        self.reason = ""  # why a callback stops the training
        self.sharding: ModuleType | None = None  # torchdl.training.sharding, if the model is shared out
        be_deterministic()
        self.device = find_device(options.device)
        self.rank, size = rank_and_size()
        for loader in (train,) if validation is None else (train, validation):
            loader.shard(self.rank, size)
            loader.to(self.device)
        self.original_task = task
        if options.shard:  # a copy, so that the original stays whole, on the CPU
            self.task = task = copy.deepcopy(task.cpu())
            streams = isinstance(validation, PyTorchLoader) and isinstance(validation.loader.dataset, IterableDataset)
            require(not streams, "with shard, all processes need as many batches: let the validation data be no stream")
        else:
            task.to(self.device)
        distributed.unite(task)
        if options.compile and (reason := why_not_compile(self.device)):
            self.warn(f"torch.compile does not work here, so the networks are not compiled: {reason}")
        elif options.compile:
            task.compile_modules()
        compiled = options.compile and not reason
        with random.seeded(self.device, options.seed, 0, 0, 0, random.Stream.SETUP):
            settings = (self.device, options.seed, options.precision == "bf16", options.clip_norm)
            self.stepper = Stepper(task, *settings, self.least_product())
            self.stepper.graphs = compiled
        self.callbacks = Callbacks([*self.own_callbacks(), *task.configure_callbacks(), *callbacks], Training(self))
        self.parts: dict[str, Any] = {"task": task, "updates": self.stepper, "progress": self.state}
        self.parts |= {"callbacks": self.callbacks, **({"loader": train} if isinstance(train, PyTorchLoader) else {})}
        self.batches = length_of(train)
        known = self.batches is not None or bool(options.max_steps or options.dry_run)
        require(known, "the number of batches in an epoch is not known: set max_steps, the steps to train for")
        epoch_steps = -(-(self.batches or 0) // options.accumulate)
        self.steps = 2 if options.dry_run else options.max_steps or options.epochs * epoch_steps
        self.epochs = -(-self.steps // epoch_steps) if epoch_steps else None
        self.stepper.configure_schedules(self.steps)
        self.warn(cut_schedules(self.stepper.schedules, self.epochs) if self.epochs and not options.dry_run else "")

    def least_product(self) -> float:
        """Return the size from which oneDNN computes products; process 0 alone measures whether it is faster."""
        with distributed.sharing_errors():
            least = self.options.least_product() if self.rank == 0 else NEVER
        return distributed.of_first(least)

    def own_callbacks(self) -> list[Callback]:
        """Return the callbacks that the trainer's options ask for."""
        options, monitor = self.options, self.options.monitor
        own: list[Callback] = [BestCheckpoint(monitor, options.mode)] if monitor else []
        own += [EarlyStopping(monitor, options.patience, options.mode)] if options.patience else []
        return own + ([ProgressBar()] if self.verbose and self.rank == 0 else [])

    def arithmetic(self) -> AbstractContextManager[None]:
        """Return a context for what a GPU computes, with the asked precision of its float32 products."""
        return self.options.arithmetic(self.device)

    def say(self, text: str) -> None:
        """Print a line above the progress bar, if verbose, on process 0."""
        if self.verbose and self.rank == 0 and text and sys.stdout is not None:
            tqdm.write(text)

    def warn(self, text: str) -> None:
        """Print a warning if verbose, or else issue a Python warning, on process 0."""
        if self.verbose:
            self.say(text)
        elif self.rank == 0 and text:
            warnings.warn(text, stacklevel=4)

    def run(
        self, resume: bool, resumable: bool, record: Mapping[str, Any], make_logger: Callable[..., Logger]
    ) -> History:
        """Train to the end, from the start or from the last checkpoint, and return the history."""
        state, options = self.state, self.options
        self.record = {**record, "trainer": asdict(options)}
        with distributed.sharing_errors():
            if resumable and self.folder is not None:
                self.warn(checkpoint.restore(self.folder, self.parts, self.order()))
                if isinstance(self.train, PyTorchLoader):
                    self.warn(self.train.resumes(state.batch))
                recover_best(self.folder, state, options.monitor, options.mode)
                if not options.allows_onednn():
                    self.stepper.fast.least = NEVER
            elif resume:
                self.warn(f"{self.folder} holds no checkpoint yet, so the training starts from the beginning")
            purge_step = state.step + 1 if resume else None
            self.logger = make_logger(self.folder, purge_step) if self.rank == 0 else Logger(None)
        if options.shard:
            from torchdl.training import sharding  # imported late, because it takes half a second

            sharding.share_out(self.task, self.stepper.optimizers.values(), self.device)
            self.sharding, self.stepper.shared_out = sharding, True
        with self.logger, signals.requests() as self.request:
            measured = self.evaluate({}, 1, missing=math.nan)  # shows what can be monitored, before any training
            choice = ", ".join([*measured, "train/..."])
            own = f"{type(self.task).__name__}(…" if hasattr(self.task, "monitor") else "Schedule(scheduler"
            wanted = [(c.monitor, "") for c in self.callbacks.callbacks if isinstance(c, Monitoring)]
            wanted += [
                (s.monitor or "", f', by {own}, monitor="{next(iter(measured), "train/loss")}")')
                for s in self.stepper.schedules.values()
            ]
            for name, how in wanted:
                known = not name or name in measured or name.startswith("train/")
                require(known, f"there is no metric {name!r} to monitor: choose one of {choice}{how}")
            with distributed.sharing_errors():
                if state.step == 0:
                    metrics = sorted(measured, key=lambda name: name != options.monitor)  # the main one first
                    self.logger.record(record, [*metrics, *self.stepper.learning_rates()])
                unlogged = self.rank == 0 and state.batch == 0 and self.logger.epochs() < len(state.history)
            if distributed.any_process(unlogged):  # the process ended between the checkpoint and the log
                self.log(state.history[-1], self.is_due(state.history[-1]))
            try:
                self.call("on_fit_start")
                while not self.reason and (state.step < self.steps or state.batch):  # an epoch must begin, or end
                    self.train_epoch()
                    if not self.end_epoch():
                        break
            except BaseException as error:
                self.leave(error)
                raise
            else:
                self.leave()
            if state.step < self.steps:
                self.say(self.reason)
            if options.monitor and math.isnan(Best.of(state.history, options.monitor, options.mode).value):
                self.warn(f"{options.monitor} was never a number, so no epoch is the best and there is no {BEST}")
        return History(state.history)

    def leave(self, error: BaseException | None = None) -> None:
        """Write the pending checkpoints, call the callbacks, and give the original task the weights of a shared one.

        An error of writing must not hide the ``error`` that has ended the training, if any.
        """
        try:
            self.write_pending()
        except (OSError, InputError) as other:
            if error is None:
                raise
            self.warn(f"the last checkpoint could not be written: {other}")
        finally:
            self.callbacks.call("on_fit_end")
        if self.stepper.shared_out and (error is None or isinstance(error, Stopped)):  # as on all processes
            self.original_task.load_state_dict(self.gathered(self.task.state_dict()))

    def gathered(self, state: Any, everywhere: bool = True) -> Any:
        """Return a state with whole tensors, on process 0 or on all; all must call this."""
        return self.sharding.gathered(state, everywhere) if self.sharding else state

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Load a state of the task, whole or shared out."""
        self.task.load_state_dict(self.sharding.parts_of(state, self.task.state_dict()) if self.sharding else state)

    def train_epoch(self) -> None:
        """Train from the current batch to the end of the epoch, or to the last step."""
        state, options = self.state, self.options
        since, examples, self.exhausted = time.perf_counter(), 0, False
        batches = self.train.batches(state.epoch, state.batch)
        self.task.train()
        while state.step < self.steps:
            if not (group := list(islice(batches, options.accumulate))):
                self.exhausted = True
                require(state.batch > 0, "the loader yields no batches: a data set must be there anew in each epoch")
                break
            # what a step draws depends on its place alone, so a checkpoint needs no states of generators
            with random.seeded(self.device, options.seed, state.epoch, state.batch, self.rank), self.arithmetic():
                self.stepper.step(group, state)
            examples += sum(batch_range.total for _, batch_range in group)
            self.callbacks.call("on_step_end")
            if state.step % options.log_every == 0:
                self.stepper.collect(state)
                self.means, state.window_sums = MappingProxyType(state.window_sums.means()), Sums()
                rates = {"charts/examples_per_second": examples / (time.perf_counter() - since)}
                since, examples = time.perf_counter(), 0
                with distributed.sharing_errors():
                    self.logger.scalars({**self.means, **self.stepper.learning_rates(), **rates}, state.step)
                self.alert(self.task.warnings({**self.means, "step": state.step}))
            signalled, stopped = distributed.total([float(bool(self.request.signal_number)), float(bool(self.reason))])
            if signalled:
                self.save()
                message = f"stopped after step {state.step}"
                raise Stopped(message, self.request.signal_number, self.folder)
            if stopped:
                self.reason = self.reason or "another process has stopped"
                break
            if options.checkpoint_every and state.step % options.checkpoint_every == 0:
                self.save()
        if not self.exhausted and state.batch == self.batches:
            next(batches, None)  # the loader's epoch ends, too

    def end_epoch(self) -> bool:
        """Evaluate, step the schedules, save and log; return False if the last step was within the epoch.

        In that case the last checkpoint is from before the evaluation, so that a resume can complete the epoch.
        """
        state = self.state
        self.stepper.collect(state)
        if cut := not self.exhausted and (self.batches is None or state.batch < self.batches):
            self.save()
        row: dict[str, float] = {"epoch": state.epoch + 1, "step": state.step}
        row |= {**state.epoch_sums.means(), **self.stepper.learning_rates()}
        self.found = []
        if evaluated := self.is_due(row):
            try:
                measured = self.evaluate(row)
            except Exception as error:
                if not (isinstance(error, InputError) or distributed.have_joined()):  # to save takes all processes
                    self.save()  # a resume evaluates this epoch again
                raise
            twice = ", ".join(row.keys() & measured.keys())
            require(not twice, f"the task's evaluation returns {twice}, as training does: give it another name")
            row |= measured
        due = state.step >= self.steps or time.monotonic() - self.written >= self.options.checkpoint_seconds
        # the row decides what is best, when to stop, and the learning rate
        row, due = distributed.of_first((plain(row), due))
        self.row = row
        state.history.append(row)
        if not self.has_logged():  # the row will be in the log instead
            state.window_sums = Sums()
        if not cut:
            state.epoch, state.batch, state.epoch_sums = state.epoch + 1, 0, Sums()
            self.stepper.end_epoch(row)
        self.call("on_epoch_end")
        due = due or bool(self.reason)
        self.save(last=not cut, due=due)
        self.log(row, evaluated, due)  # after saving: an error here loses nothing, and a resume logs what is missing
        return not cut

    def call(self, place: str) -> None:
        """Call a method of all callbacks, where all processes wait for each other."""
        with distributed.sharing_errors():
            self.callbacks.call(place)
        if distributed.any_process(bool(self.reason)):
            self.reason = self.reason or "another process has stopped"

    def alert(self, found: Sequence[str]) -> None:
        """Print and log warnings within an epoch, each once."""
        new = [sentence for sentence in found if sentence not in self.alerted]
        self.alerted.update(new)
        for sentence in new:
            self.say(f"WARNING: step {self.state.step}: {sentence}")
        with distributed.sharing_errors():
            self.logger.warnings(new, self.state.step)

    def has_logged(self) -> bool:
        """Return whether training metrics were logged within the last epoch in the history."""
        before, step = [0, *(int(row["step"]) for row in self.state.history[-2:])][-2:]
        return step // self.options.log_every > before // self.options.log_every

    def is_due(self, row: Mapping[str, float]) -> bool:
        """Return whether an epoch is evaluated."""
        return bool(row["step"] >= self.steps or self.reason) or row["epoch"] % self.options.evaluate_every == 0

    def log(self, row: Mapping[str, float], evaluated: bool, durably: bool = True) -> None:
        """Log the last epoch, with preview images and warnings if it was evaluated."""
        previews, found = {}, []
        if evaluated:
            drawing = random.seeded(self.device, self.options.seed, 0, self.state.step, 0, random.Stream.PREVIEW)
            with torch.no_grad(), drawing, self.arithmetic(), self.stepper.region():
                previews = self.task.eval().preview()
            found = [*self.task.warnings(row), *self.found]
            self.alerted.update(found)
        with distributed.sharing_errors():
            if not self.has_logged():
                trained = {name: value for name, value in row.items() if name.startswith(("train/", "charts/"))}
                self.logger.scalars(trained, int(row["step"]))
            self.logger.epoch(self.state.history, previews, found, durably)
        if evaluated:  # a kind of warning is printed again only after it was gone
            new = [sentence for sentence in found if kind(sentence) not in self.kinds]
            self.kinds = set(map(kind, found))
            self.say("\nWARNING: ".join([describe(row), *new]))

    def evaluate(
        self, row: Mapping[str, float], batches: int | None = None, missing: float | None = None
    ) -> dict[str, float]:
        """Return the metrics of the validation data, or of its first ``batches``; see :func:`evaluate`.

        Callbacks may measure more; ``row`` has the training metrics of the same epoch.
        """
        if self.validation is None:
            return {}
        step_info = StepInfo(self.options.seed, 0, self.state.step)
        batches = 2 if self.options.dry_run else batches
        region = self.stepper.region
        with self.arithmetic():
            found = evaluate(self.task, self.validation, self.device, region, step_info, batches, missing)
        self.row = {**row, **found}
        drawing = random.seeded(self.device, self.options.seed, 0, self.state.step, 0, random.Stream.CALLBACKS)
        with torch.no_grad(), drawing, self.arithmetic():
            self.call("on_validation_end")
        return distributed.of_first({**found, **{k: v for k, v in self.row.items() if k not in row}})

    def save(self, last: bool = True, due: bool = True) -> None:
        """Write a checkpoint as the last one, and under the names that callbacks ask for, or keep it until one is due.

        What is pending is lost only if the process is killed; a resume then trains these seconds again.
        """
        self.stepper.collect(self.state)
        names, self.names = [*self.names, *[CHECKPOINT] * last], []
        if self.folder is None or not names:
            return
        states = {name: part.state_dict() for name, part in self.parts.items()}
        states = {name: state for name, state in states.items() if state or name not in checkpoint.OPTIONAL}
        checkpointed = {**self.gathered(states, everywhere=False), "order": self.order()}
        if self.rank == 0:
            self.pending |= dict.fromkeys(names, checkpointed if due else checkpoint.copied(checkpointed))
        if due:
            with distributed.sharing_errors():
                try:
                    self.logger.flush()  # first, because a resume logs nothing of before the checkpoint
                finally:
                    self.write_pending()
            self.written = time.monotonic()
            self.call("on_checkpoint")

    def write_pending(self) -> None:
        """Write the pending checkpoints, the last one at the end: it must find the best ones that it knows of."""
        for name in sorted(self.pending, key=CHECKPOINT.__eq__):
            assert self.folder is not None
            previous = self.folder / PREVIOUS if name == CHECKPOINT else None
            checkpoint.write(self.pending[name], self.folder / name, previous)
            del self.pending[name]
            if name == CHECKPOINT and not (self.folder / CONFIG).exists():  # a script has written its own
                write_json(self.folder / CONFIG, {"config": self.record, "versions": versions()}, default=str)

    def order(self) -> dict[str, Any]:
        """Return the settings that must not change on a resume: of data order, optimizers and best epoch."""
        names = ("accumulate", "clip_norm", "precision", "products", "monitor")
        options = {name: getattr(self.options, name) for name in names}
        options["mode"] = direction(self.options.monitor, self.options.mode)
        return {**self.train.order_settings(), **self.stepper.order_settings(), **options}


def kind(warning: str) -> str:
    """Return what all warnings of a kind share: their words before a colon, without numbers."""
    return re.sub(r"\d[\d.,]*", "", warning.split(":")[0])
