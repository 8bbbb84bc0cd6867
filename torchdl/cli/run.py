"""A training run: its options, its folder, and what is saved there."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from torchdl import artifacts, plots
from torchdl.callbacks import Best, Callback, Training
from torchdl.cli.commit import commit
from torchdl.cli.options import RENAMED_VALUES, SCRIPT_OPTIONS, RunOptions
from torchdl.cli.printing import describe_data, say
from torchdl.cli.record import WORKING_FOLDER
from torchdl.collective import is_main_process
from torchdl.data import BatchLoader, DatasetInfo
from torchdl.data.download import IN_ITS_PLACE
from torchdl.data.sources import data_roots
from torchdl.data.wrappers import look_through
from torchdl.errors import InputError, require
from torchdl.fast import products
from torchdl.files import (
    ARCHITECTURE,
    BEST,
    CHECKPOINT,
    CONFIG,
    PLOTS,
    PREVIOUS,
    RESULTS,
    has_checkpoint,
    leaves,
    read_config,
    write_json,
)
from torchdl.history import History
from torchdl.loggers import BY_NAME, RunLogger
from torchdl.models import layer_table
from torchdl.predict import Predictor
from torchdl.recipes.report import Report
from torchdl.tasks import Task
from torchdl.training import Stopped, Trainer, TrainingDiverged, checkpoint, distributed
from torchdl.training.device import find_device, seed_generators, setup_process
from torchdl.training.folder import empty, refuse_links, taken, versions, was_killed_early
from torchdl.training.logging import Logger
from torchdl.training.state import TrainingState

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Further callbacks of all trainings, for a script that runs another script.
MORE_CALLBACKS: ContextVar[tuple[Callback, ...]] = ContextVar("MORE_CALLBACKS", default=())


class Run:
    """A training run and its folder ``<out>/<experiment>/<name>``. Creating it sets up and seeds the process.

    Create the run first, then the model: the last thing that creating a run does is to seed PyTorch's global generators
    by the trainer's seed, so the next numbers drawn from them, the initial weights, depend on that seed alone. The
    generators are left so. :meth:`fit` draws from streams of its own and restores the generators, so a second model
    built after it gets the weights that it would have had before it, and other ones than the first.

    Args:
        experiment: The name of the folder of all its runs.
        config: The script's configuration, a dataclass or dictionary; it is saved as ``config.json``.
        options: The run's options, a part of ``config``.
        trainer: The trainer, a part of ``config``.
        data: The training data, or a ``Subset`` of it; ``config.json`` records its origin.
        test: The test data; ``config.json`` records its origin, too.
        verbose: Whether to print.

    Raises:
        InputError: The name is a path, the folder is taken, or a resumed run was trained on other data.
    """

    def __init__(
        self,
        experiment: str,
        config: Any,
        options: RunOptions,
        trainer: Trainer,
        data: DatasetInfo,
        test: DatasetInfo | None = None,
        verbose: bool = True,
    ) -> None:
        options = under_torchrun(options, experiment)
        self.trainer, self.options, self.verbose = trainer, options, verbose
        self.is_main = is_main_process()
        self.loggers, self.tensorboard = find_loggers(options.logger, experiment, options.name)
        setup = setup_process(options.threads, options.keep_memory)
        if self.is_main:  # to measure on all processes at once would disturb the measurement
            self.say(f"{setup}, {products.describe(trainer.least_product())}")
        data, test = look_through(data), test and look_through(test)
        self.say(describe_data(data))
        described = {"origin": data.origin, "stand_in": data.fallback, "fingerprint": data.fingerprint()}
        if test is not None:
            self.say(f"test data: {test.origin.split(IN_ITS_PLACE)[-1]}")  # why is said above
            # fallback test data may be a part of the real training data
            require(
                data.fallback == test.fallback,
                f"only one of training and test data is fallback data ({data.origin}; {test.origin}): get both",
            )
            described |= {"held_out_origin": test.origin, "held_out_fingerprint": test.fingerprint()}
        self.temporary = None
        if options.resume is not None:
            keeps = "a dry run keeps nothing, so it goes on with no run, and none goes on with it"
            require(not trainer.dry_run, f"{keeps}: drop dry_run=True and train, or drop resume")
            self.folder = options.resume
            if self.is_main:
                refuse_links(self.folder)
            record = read_config(self.folder)
            known = record.get("data", {})
            begun = "fingerprint" in known or was_killed_early(self.folder)
            advice = "begin a new run; an imported network cannot be trained further by a script"
            require(begun, f"{self.folder} holds a network, but no training that can go on: {advice}")
            same = all(known.get(key) == value for key, value in described.items() if key.endswith("fingerprint"))
            require(same, f"{self.folder} was trained on other data: go on with the same data")
            if self.is_main and record.get("config", {}).get("trainer", {}).get("monitor") in RENAMED_VALUES:
                rename_metrics(self.folder)
        elif trainer.dry_run:  # it takes no name from the run that follows
            self.temporary = tempfile.TemporaryDirectory(prefix="torchdl-dry-run-")
            self.folder = Path(self.temporary.name)
        else:
            name = options.name or f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
            plain = name == Path(name).name != ".."
            require(plain, f"--name is a name, not a path, unlike {name!r}: choose the folder of all runs with --out")
            self.folder = options.out / experiment / name
            if self.is_main and options.name:
                self.refuse_taken_folder()
        values = config if isinstance(config, dict) else dataclasses.asdict(config)
        if isinstance(values.get("run"), dict) and values["run"].get("data_root") is None:
            found = next((root.absolute() for root in data_roots() if root.is_dir()), None)
            values = values | {
                "run": values["run"] | {"data_root": found}
            }  # found by a resume, too, whatever is set then
        self.record: dict[str, Any] = {
            "config": values,
            WORKING_FOLDER: str(Path().absolute()),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "data": described,
            "commit": commit(),
            "versions": versions(),
        }
        seed_generators(find_device(trainer.device), trainer.seed)  # last, for the initial weights

    def fit(
        self,
        task: Task,
        train: BatchLoader,
        validation: BatchLoader | None = None,
        pictures: Mapping[str, Tensor | Figure] | None = None,
        predictor: Predictor[Any] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train ``task``, save its model at every checkpoint, and draw the history.

        If the trainer monitors a metric, the best model is the one that remains, in the folder and in memory.

        Args:
            task: The task, with its model.
            train: The training batches.
            validation: The validation batches.
            pictures: Pictures (C, H, W) uint8, or figures, by name; they are logged once, before training.
            predictor: Answers on raw inputs with the task's model; its settings are saved beside the model.
            callbacks: See :meth:`torchdl.Trainer.fit`.

        Returns:
            The metrics of every evaluated epoch.
        """

        artifacts.check(task.trained)  # not only after the first epoch
        own = predictor is None or same_parameters(predictor.model, task.trained)
        require(own, "the predictor answers with another model than the task trains: build it with the task's model")
        if self.options.summary:
            self.say(summary_of(task, train))
        self.record["parameters"] = sum(p.numel() for p in task.trained.parameters())
        with self.opened() as resume:
            if resume:
                self.require_same_model(task.trained)
            if self.is_main and not resume:
                self.write_record()
                if pictures:
                    with closing(self.logger()) as logger:
                        for name, picture in pictures.items():
                            logger.picture(name, picture)
            self.say(f"run: {self.folder}  (watch it with: tensorboard --logdir {self.options.out})")
            saving = SaveModel(self, task, predictor)
            flat = first_things_first({**flatten(self.record["config"]), **flatten(self.record["data"], "data.")})
            try:
                history = self.trainer.fit(
                    task,
                    train,
                    validation,
                    self.folder,
                    resume,
                    flat,
                    [*callbacks, *MORE_CALLBACKS.get(), saving],
                    self.loggers,
                    self.tensorboard,
                    self.verbose,
                )
            except Stopped as stopped:
                if self.temporary is not None:
                    raise Stopped(str(stopped), stopped.signal_number) from stopped
                raise
            return self.finish(task, history, predictor)

    def finish(self, task: Task, history: History, predictor: Predictor[Any] | None = None) -> History:
        """Keep the best model, in the folder and in memory, and draw the history."""
        monitor = self.trainer.monitor
        if monitor and self.is_main and (self.folder / BEST).is_file():
            progress, path = TrainingState(), self.folder / BEST
            checkpoint.load(checkpoint.read(path), {"task": task, "progress": progress}, path)
            best = Best.of(progress.history, monitor, self.trainer.mode).value
            self.say(f"the saved model is the one with the best {monitor}, {best:.5g}")
        elif monitor:
            self.say(f"the saved model is the last one, because {monitor} has had no value that is a number")
        distributed.unite(task)  # only process 0 has read the best model
        if self.is_main:
            self.save_model(task, predictor)  # of a run that was killed after its last checkpoint, too
            plots.plot_history(history, self.folder / PLOTS / "history.png")
        return history

    def save_model(self, task: Task, predictor: Predictor[Any] | None) -> None:
        """Save the model, the settings of what answers with it, and the record."""
        if predictor is not None:
            predictor.save_settings(self.folder)
        artifacts.save(task.trained, self.folder)
        self.write_record()  # a resumed run's only now: the trainer has checked its options against the checkpoint

    def require_same_model(self, model: nn.Module) -> None:
        """Raise :class:`InputError` if a resumed run's model is of other settings, even if its weights would fit."""
        try:
            saved = artifacts.skeleton((self.folder / ARCHITECTURE).read_text(encoding="utf-8"))
        except (OSError, ValueError, InputError):  # missing or damaged, then it is written anew
            return
        changed = artifacts.difference(model, saved)
        require(not changed, f"{self.folder} was trained with another model ({changed}): use its original settings")

    def refuse_taken_folder(self) -> None:
        """Raise :class:`InputError` if the folder of a new run holds anything but a run that was killed early."""
        folder = self.folder
        if not folder.exists() or was_killed_early(folder):
            return
        require(folder.is_dir(), f"{folder} is not a folder: choose another name")
        if "--resume" in SCRIPT_OPTIONS.get():
            advice = "choose another --name" + (f", or go on with --resume {folder}" if has_checkpoint(folder) else "")
        else:
            advice = "choose another name or folder"
        raise InputError(f"{folder} exists already: {advice}")

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Take the run's folder, and make it if it is new; yield whether it holds a checkpoint to resume from.

        A run that was killed before its first checkpoint begins again. A folder that this call has made is removed if
        an :class:`InputError` comes before the first checkpoint.
        """
        resumes = self.options.resume is not None
        resumable = resumes and not was_killed_early(self.folder)
        if not self.is_main or self.temporary is not None:
            yield resumable
            return
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        if not resumes:
            self.make_folder()
        with taken(self.folder):
            if not resumes:
                self.refuse_taken_folder()  # another process may have been first
            if not resumable:
                if any(self.folder.iterdir()):
                    refuse_links(self.folder)
                    self.say(f"{self.folder} holds no checkpoint yet, so the training starts from the beginning")
                empty(self.folder)
            try:
                yield resumable
            except InputError as error:
                begun = isinstance(error, TrainingDiverged) or has_checkpoint(self.folder)
                if not resumes and not begun:
                    shutil.rmtree(self.folder)  # it holds only what this call has written
                    if not made:
                        self.folder.mkdir()
                    with suppress(OSError):  # another run may be in one of them
                        for parent in made[1:]:
                            parent.rmdir()
                raise

    def make_folder(self) -> None:
        """Make the folder of a new run; of two processes at once only one can. A name that is a time gets a number."""
        name = self.folder.name
        for number in itertools.count(2):
            try:
                self.folder.mkdir(parents=True)
                return
            except FileExistsError:
                if self.options.name:
                    return  # it may be empty, or of a run that was killed early
                self.folder = self.folder.with_name(f"{name}-{number}")

    def keep(self, report: Report) -> None:
        """Save a recipe's report in the run's folder, log its figures, and print its summary."""
        keep_report(report, self.folder, self.verbose, logger=self.logger())

    @property
    def chosen_by(self) -> str:
        """The metric that chose the saved model."""
        return self.trainer.monitor or "nothing: it is the last"

    def say(self, text: str) -> None:
        """Print a line if the run is verbose and this is process 0."""
        if self.verbose:
            say(text)

    def logger(self) -> Logger:
        """Open the run's log, for pictures before or after training; only process 0 writes."""
        return Logger(self.folder, None, self.loggers, self.tensorboard) if self.is_main else Logger(None)

    def write_record(self) -> None:
        """Write ``config.json``: options, command, origin and fingerprint of the data, versions, parameters."""
        write_json(self.folder / CONFIG, self.record, default=str)

    def close(self) -> None:
        """Remove the folder if this was a dry run."""
        if self.temporary is not None:
            self.temporary.cleanup()
            self.say("dry run: everything ran, and nothing was kept")


def under_torchrun(options: RunOptions, experiment: str) -> RunOptions:
    """Return the options of a run that ``torchrun`` may restart: with a name, and going on if it has a checkpoint.

    Raises:
        InputError: It may restart, but neither the options nor its rendezvous name the run, so a restart would begin
            another one.
    """
    most, count = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("MAX_RESTARTS", "RESTART_COUNT"))
    meeting = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if most == 0 or options.resume is not None:
        return options
    name = options.name or ("" if meeting == "none" else meeting)
    advice = "give the run a --name, or torchrun a --rdzv-id, and a restart goes on with it"
    require(bool(name), f"torchrun may restart this training up to {most:,} times: {advice}")
    folder = options.out / experiment / name
    resumes = count > 0 and has_checkpoint(folder)
    return dataclasses.replace(options, name=name, resume=folder if resumes else None)


def summary_of(task: Task, train: BatchLoader) -> str:
    """Return a table of the layers of all networks of a task, with the shapes for the first example in training.

    All processes must call this: a task may compare examples of all of them.
    """
    batch, _ = next(train.batches(epoch=0))
    device = next(chain(task.parameters(), task.buffers())).device
    example = tree_map_only(Tensor, lambda values: values[:1].to(device), batch)
    return layer_table(task, example, call=task.evaluate)


class SaveModel(Callback):
    """Save the model, what answers with it, and the record, whenever the trainer has written a checkpoint."""

    def __init__(self, run: Run, task: Task, predictor: Predictor[Any] | None) -> None:
        self.run, self.task, self.predictor = run, task, predictor

    def on_checkpoint(self, training: Training) -> None:
        """Save everything that is used after training."""
        if training.is_main:
            self.run.save_model(self.task, self.predictor)


def same_parameters(model: nn.Module, other: nn.Module) -> bool:
    """Return whether two models have the very same parameters, so that training one is training both."""
    return [id(p) for p in model.parameters()] == [id(p) for p in other.parameters()]


def rename_metrics(folder: Path) -> None:
    """Rename the metrics of generated samples in the checkpoints of a run from before 0.2."""

    def renamed(metric: str) -> str:
        return re.sub("^val/(?=frechet_distance$|coverage$|share_class_)", "samples/", metric)

    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        with suppress(InputError, LookupError, TypeError):  # the trainer reports a damaged file
            state = checkpoint.read(path)
            state["order"]["monitor"] = renamed(state["order"]["monitor"])
            history = state["progress"]["history"]
            history[:] = [{renamed(name): value for name, value in row.items()} for row in history]
            checkpoint.write(state, path)


def keep_report(
    report: Report, folder: Path, verbose: bool = True, name: str = RESULTS, logger: Logger | None = None
) -> None:
    """Save a report in a run's folder, log its figures, in TensorBoard if no logger is given, and print its summary."""
    refuse_links(folder)
    paths = report.save(folder, name)
    with closing(logger or Logger(folder)) as logger:
        logger.show(*paths)
        if report.embedding is not None:
            logger.embedding(*report.embedding)
    if verbose:
        say(report.summary)
        say(f"results and figures: {folder}")


def find_loggers(names: str, experiment: str, run: str) -> tuple[list[RunLogger], bool]:
    """Return the loggers of a list of names with commas, but for TensorBoard, and whether that is among them."""
    chosen = [name for name in map(str.strip, names.split(",")) if name not in ("", "none")]
    known = ["tensorboard", *BY_NAME]
    unknown = ", ".join(name for name in chosen if name not in known)
    require(not unknown, f"there is no logger {unknown}: choose among {', '.join(known)}")
    return [BY_NAME[name](experiment, run) for name in chosen if name in BY_NAME], "tensorboard" in chosen


def first_things_first(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a table of runs should show: the learning rate, model and batch size first, and no fingerprints."""
    first = ("lr", "model", "batch_size")
    kept = {name: value for name, value in record.items() if not name.endswith("fingerprint")}
    return {**{name: kept[name] for name in first if name in kept}, **kept}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one with the innermost keys; ``prefix`` stands before those of the top level."""
    return {(prefix if len(keys) == 1 else "") + keys[-1]: value for keys, value in leaves(values)}
