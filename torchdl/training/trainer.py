"""The trainer of all tasks: it does everything in training that does not depend on the task."""

from __future__ import annotations

import copy
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from torchdl import random
from torchdl.collective import rank_and_size
from torchdl.data.loader import BatchLoader, explaining_lost_workers
from torchdl.errors import InputError, kind_of, require
from torchdl.fast.products import NEVER, PRODUCTS, choose
from torchdl.field_docs import with_field_docs
from torchdl.files import BEST, CHECKPOINT, PREVIOUS, plain
from torchdl.history import History
from torchdl.progress import tqdm
from torchdl.tasks import Callback, StepInfo, Task
from torchdl.tasks.callback import Training
from torchdl.training import checkpoint, distributed, signals
from torchdl.training.best import Best
from torchdl.training.callbacks import BestCheckpoint, Callbacks, EarlyStopping, ProgressBar
from torchdl.training.device import be_deterministic, find_device, why_not_compile
from torchdl.training.evaluation import evaluate
from torchdl.training.folder import opened, recover_best
from torchdl.training.loggers import RunLogger
from torchdl.training.logging import Logger, describe
from torchdl.training.pytorch_loader import PyTorchLoader, as_loader, length_of
from torchdl.training.state import Sums, TrainingState
from torchdl.training.step import Stepper


@with_field_docs
@dataclass(frozen=True)
class Trainer:
    """Train a task, with evaluation, logging, checkpoints and exact resuming.

    Several processes, started by ``torchrun``, do the same training as one with the same global batch: equal losses and
    gradients, up to rounding. There are two exceptions. What a model draws from PyTorch's generator, such as dropout's
    masks, depends on the number of processes, because each draws its own. A loss with weights of its own, such as a
    cross-entropy with class weights or ``ignore_index``, divides by the weights of each process's part alone, and with
    ``accumulate`` by those of each batch.

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
    """Steps to train for, instead of epochs; 0 to train for epochs."""
    seed: int = 0
    """The seed of all random draws."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; or a torch.device."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the forward passes; bf16 uses autocast with fp32 weights (slow on CPUs without bf16 units)."""
    products: Literal["auto", "mkl", "onednn"] = "auto"
    """The library of float32 matrix products on a CPU: auto measures from which size on oneDNN is faster here."""
    compile: bool = False
    """Compile the networks with torch.compile, which makes convolutions faster, but not small networks."""
    shard: bool = False
    """Share out parameters and optimizers over the processes, by PyTorch's FSDP2, for models that do not fit in one."""
    accumulate: int = 1
    """Batches per step, whose gradients are averaged."""
    clip_norm: float = 0.0
    """Maximum norm of each optimizer's gradients, which are scaled down to it; 0 for no clipping."""
    log_every: int = 50
    """Steps between two points in TensorBoard."""
    evaluate_every: int = 1
    """Epochs between two evaluations on validation data, each with preview images and a printed line."""
    checkpoint_every: int = 0
    """Steps between two checkpoints, in addition to those at the ends of epochs; 0 for none."""
    checkpoint_seconds: float = 5.0
    """Least seconds between two checkpoints at the ends of epochs; the last is always written. 0 for one each epoch."""
    monitor: str = ""
    """The metric that decides which epoch is best, such as val/accuracy; that epoch's checkpoint is kept as best.pt."""
    mode: Literal["min", "max"] = "min"
    """Whether a lower or a higher value of the monitored metric is better."""
    patience: int = 0
    """Stop after this number of evaluations without improvement; 0 for never."""
    dry_run: bool = False
    """Do only two steps of training and of evaluation, to check that everything runs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", str(self.device))  # what a run's record can hold
        for name in (field.name for field in fields(self)):
            object.__setattr__(self, name, plain(getattr(self, name)))  # a number of NumPy's types, for example
        counts = {"epochs": 1, "accumulate": 1, "log_every": 1, "evaluate_every": 1}
        for name, least in {
            **counts,
            "max_steps": 0,
            "clip_norm": 0,
            "checkpoint_every": 0,
            "checkpoint_seconds": 0,
            "patience": 0,
        }.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and least <= value < math.inf
            require(number, f"{name} must be {least} or more, not {value}")
        require(
            isinstance(self.seed, int) and 0 <= self.seed < 2**32,
            f"seed must be from 0 to {2**32 - 1}, not {self.seed}",
        )
        known = self.precision in ("fp32", "bf16") and self.mode in ("min", "max")
        require(known, f"precision must be fp32 or bf16, and mode min or max: not {self.precision}, {self.mode}")
        require(self.products in PRODUCTS, f"products must be {', '.join(PRODUCTS)}, not {self.products}")
        require(self.patience == 0 or bool(self.monitor), "patience needs a metric: set monitor, too")
        require(
            not (self.shard and self.compile), "a model that is shared out cannot be compiled: drop compile or shard"
        )

    def least_product(self) -> float:
        """Return the number of multiply-adds from which oneDNN computes a product; infinity if it computes none."""
        others = self.precision != "fp32" or self.compile or self.shard or find_device(self.device).type != "cpu"
        return NEVER if others else choose(self.products)

    def fit(
        self,
        task: Task,
        train: BatchLoader | DataLoader[Any],
        validation: BatchLoader | DataLoader[Any] | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        record: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[RunLogger] = (),
        tensorboard: bool = True,
        verbose: bool = False,
    ) -> History:
        """Train ``task`` in place, and return the history: one row of metrics per epoch.

        PyTorch's global generators are restored afterwards. What a task draws from them depends only on the trainer's
        seed and the position in training. Trainers in several threads take turns, step by step, and draw the same
        numbers as one alone; give each its own task. Only a thread that draws from the global generators without
        :func:`torchdl.random.seeded` disturbs them.

        Args:
            task: The task; it stays on the trainer's device.
            train: Training batches. A :class:`BatchLoader` goes on within an epoch at once, and is shared out over
                several processes. With a ``DataLoader``, each process needs its own part (``DistributedSampler``), a
                resume reads the batches of an unfinished epoch again, and ``max_steps`` must be set if its length is
                not known.
            validation: Validation batches.
            folder: The folder for checkpoints and logs; None to write nothing (such a run cannot be resumed). A folder
                that holds a training is refused unless ``resume`` is set.
            resume: Whether to resume from the last checkpoint in ``folder``. A training that was killed before its
                first checkpoint starts from the beginning.
            record: The run's hyperparameters, for TensorBoard.
            callbacks: Are called at fixed places of the training; see :class:`torchdl.Callback`. A resume needs the
                same ones, if they have a state.
            loggers: Log numbers, pictures and settings elsewhere, too, such as :class:`torchdl.MLflowLogger`.
            tensorboard: Whether to write TensorBoard's files in ``folder``.
            verbose: Whether to print a line per epoch and show a progress bar (in a terminal or a notebook).

        Raises:
            InputError: There is no checkpoint to resume from, it is of another task, the best epoch's is missing or
                damaged, or ``folder`` holds another training.
            TrainingDiverged: A loss or a gradient norm is not finite; the checkpoints are from before it.
            Stopped: The process received Ctrl-C or SIGTERM; if there is a folder, it holds a checkpoint.
        """
        require(not resume or folder is not None, "resume needs the folder of the run to resume")
        outside = "call fit outside of torch.no_grad() and torch.inference_mode()"
        require(torch.is_grad_enabled(), f"PyTorch computes no gradients here: {outside}")
        loaders = as_loader(train, self.seed), None if validation is None else as_loader(validation, self.seed)
        trainable = isinstance(task, Task)
        require(trainable, f"the trainer needs a Task, such as Supervised(model, loss), not {kind_of(task)}")
        place = Path(folder) if folder else None
        distributed.start(find_device(self.device))
        with ExitStack() as stack, explaining_lost_workers(), distributed.explaining_errors():
            for loader in loaders:
                if isinstance(loader, PyTorchLoader):
                    stack.callback(loader.close)
            with distributed.sharing_errors():
                resumable = stack.enter_context(opened(place, resume))
            shares = distributed.have_joined() or not self.shard
            require(shares, "shard shares a model out over several processes: start them by torchrun")
            fit = Fit(self, task, *loaders, place, callbacks, verbose)
            make_logger = partial(Logger, loggers=loggers, tensorboard=tensorboard)
            return fit.run(resume, distributed.any_process(resumable), record or {}, make_logger)


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
        self.means: Mapping[str, float] = MappingProxyType({})  # of the training metrics, at the last point in the log
        self.row: dict[str, float] = {}  # the metrics of the epoch that ends
        self.found: list[str] = []  # warnings of callbacks about these
        self.names: list[str] = []  # further files for the next checkpoint
        self.kept: dict[str, Any] = {}  # checkpoints that are not yet written, by file
        self.written = -math.inf  # when the last one was
        self.reason = ""  # why a callback stops the training
        self.whole: Callable[[Any], Any] = lambda state: state  # makes a state's tensors whole
        be_deterministic()
        self.device = find_device(options.device)
        self.rank, size = rank_and_size()
        for loader in (train,) if validation is None else (train, validation):
            loader.shard(self.rank, size)
            loader.to(self.device)
        self.given = task
        if options.shard:  # a copy, so that the given task stays whole, on the CPU
            self.task = task = copy.deepcopy(task.cpu())
        else:
            task.to(self.device)
        distributed.unite(task)
        if options.compile and (reason := why_not_compile(self.device)):
            self.warn(f"torch.compile does not work here, so the networks are not compiled: {reason}")
        elif options.compile:
            task.compile_modules()
        with random.seeded(self.device, options.seed, 0, 0, 0, random.Stream.SETUP):
            settings = (self.device, options.seed, options.precision == "bf16", options.clip_norm)
            self.stepper = Stepper(task, *settings, distributed.of_first(options.least_product()))
        self.callbacks = Callbacks([*self.own_callbacks(), *task.configure_callbacks(), *callbacks], Training(self))
        kept = {"callbacks": self.callbacks, **({"loader": train} if isinstance(train, PyTorchLoader) else {})}
        self.parts: dict[str, Any] = {"task": task, "updates": self.stepper, "progress": self.state, **kept}
        self.batches = length_of(train)
        known = self.batches is not None or bool(options.max_steps or options.dry_run)
        require(known, "the number of batches in an epoch is not known: set max_steps, the steps to train for")
        epoch_steps = -(-(self.batches or 0) // options.accumulate)
        self.steps = 2 if options.dry_run else options.max_steps or options.epochs * epoch_steps
        self.epochs = -(-self.steps // epoch_steps) if epoch_steps else None
        self.stepper.configure_schedules(self.steps)

    def own_callbacks(self) -> list[Callback]:
        """Return the callbacks that the trainer's options ask for."""
        options, monitor = self.options, self.options.monitor
        own: list[Callback] = [BestCheckpoint(monitor, options.mode)] if monitor else []
        own += [EarlyStopping(monitor, options.patience, options.mode)] if options.patience else []
        return own + ([ProgressBar()] if self.verbose and self.rank == 0 else [])

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
        with distributed.sharing_errors():
            if resumable and self.folder is not None:
                self.warn(checkpoint.restore(self.folder, self.parts, self.order()))
                if isinstance(self.train, PyTorchLoader):
                    self.warn(self.train.resumes(state.batch))
                recover_best(self.folder, state, options.monitor, options.mode)
            elif resume:
                self.warn(f"{self.folder} holds no checkpoint yet, so the training starts from the beginning")
            purge_step = state.step + 1 if resume else None
            self.logger = make_logger(self.folder, purge_step) if self.rank == 0 else Logger(None)
        if options.shard:
            from torchdl.training import sharding  # imported late, because it takes half a second

            sharding.share_out(self.task, self.stepper.optimizers.values(), self.device)
            self.stepper.shared_out, self.whole = True, sharding.whole
        with closing(self.logger), signals.requests() as self.request:
            measured = self.evaluate({}, 1, missing=math.nan)  # shows what can be monitored, before any training
            choice = ", ".join([*measured, "train/..."])
            for name in filter(None, (options.monitor, *(s.monitor for s in self.stepper.schedules.values()))):
                known = name in measured or name.startswith("train/")
                require(known, f"there is no metric {name!r} to monitor: choose one of {choice}")
            with distributed.sharing_errors():
                if state.step == 0:
                    metrics = sorted(measured, key=lambda name: name != options.monitor)  # the main one first
                    self.logger.record(record, [*metrics, *self.stepper.learning_rates()])
                unlogged = self.rank == 0 and state.batch == 0 and self.logger.epochs() < len(state.history)
            if distributed.any_process(unlogged):  # the process ended between the checkpoint and the log
                self.log(state.history[-1])
            try:
                self.call("on_fit_start")
                while not self.reason and (state.step < self.steps or state.batch):  # an epoch must begin, or end
                    self.train_epoch()
                    if not self.end_epoch():
                        break
            finally:
                self.write_kept()
                self.callbacks.call("on_fit_end")
            if state.step < self.steps:
                self.say(self.reason)
            if options.monitor and math.isnan(Best.of(state.history, options.monitor, options.mode).value):
                self.warn(f"{options.monitor} was never a number, so no epoch is the best and there is no {BEST}")
            if options.shard:
                self.given.load_state_dict(self.whole(self.task.state_dict()))
        return History(state.history)

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
            with random.seeded(self.device, options.seed, state.epoch, state.batch, self.rank):
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
                raise signals.Stopped(message, self.request.signal_number, self.folder)
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
        if self.is_due(row):
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
        if not cut:
            state.epoch, state.batch, state.epoch_sums = state.epoch + 1, 0, Sums()
            self.stepper.end_epoch(row)
        self.call("on_epoch_end")
        due = due or bool(self.reason)
        self.save(last=not cut, due=due)
        self.log(row, due)  # after saving: an error here loses nothing, and a resume logs what is missing
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

    def is_due(self, row: Mapping[str, float]) -> bool:
        """Return whether an epoch is evaluated."""
        return bool(row["step"] >= self.steps or self.reason) or row["epoch"] % self.options.evaluate_every == 0

    def log(self, row: Mapping[str, float], durably: bool = True) -> None:
        """Log the last epoch, with preview images and warnings if it was evaluated."""
        previews, found = {}, []
        if due := self.is_due(row):
            drawing = random.seeded(self.device, self.options.seed, 0, self.state.step, 0, random.Stream.PREVIEW)
            with torch.no_grad(), drawing, self.stepper.region():
                previews = self.task.eval().preview()
            found = [*self.task.warnings(row), *self.found]
            self.alerted.update(found)
        with distributed.sharing_errors():
            self.logger.epoch(self.state.history, previews, found, durably)
        self.say("\nWARNING: ".join([describe(row), *found] if due else []))

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
        found = evaluate(self.task, self.validation, self.device, region, step_info, batches, missing)
        self.row = {**row, **found}
        drawing = random.seeded(self.device, self.options.seed, 0, self.state.step, 0, random.Stream.CALLBACKS)
        with torch.no_grad(), drawing:
            self.call("on_validation_end")
        return distributed.of_first({**found, **{k: v for k, v in self.row.items() if k not in row}})

    def save(self, last: bool = True, due: bool = True) -> None:
        """Write a checkpoint as the last one, and under the names that callbacks ask for; or keep it until one is due.

        What is kept is lost only if the process is killed; a resume then trains these seconds again.
        """
        self.stepper.collect(self.state)
        names, self.names = [*self.names, *[CHECKPOINT] * last], []
        if self.folder is None or not names:
            return
        states = {name: part.state_dict() for name, part in self.parts.items()}
        states = {name: state for name, state in states.items() if state or name not in checkpoint.OPTIONAL}
        checkpointed = {**self.whole(states), "order": self.order()}
        if self.rank == 0:
            self.kept |= dict.fromkeys(names, checkpointed if due else checkpoint.copied(checkpointed))
        if due:
            with distributed.sharing_errors():
                try:
                    self.logger.flush()  # first, because a resume logs nothing of before the checkpoint
                finally:
                    self.write_kept()
            self.written = time.monotonic()
            self.call("on_checkpoint")

    def write_kept(self) -> None:
        """Write the checkpoints that are kept, the last one at the end: it must find the best ones that it knows of."""
        kept, self.kept = self.kept, {}
        for name in sorted(kept, key=CHECKPOINT.__eq__):
            assert self.folder is not None
            previous = self.folder / PREVIOUS if name == CHECKPOINT else None
            checkpoint.write(kept[name], self.folder / name, previous)

    def order(self) -> dict[str, Any]:
        """Return the settings that must not change on a resume: of data order, optimizers and best epoch."""
        names = ("accumulate", "monitor", "mode", *(["products"] if self.options.products != "auto" else []))
        options = {name: getattr(self.options, name) for name in names}
        return {**self.train.order_settings(), **self.stepper.order_settings(), **options}
