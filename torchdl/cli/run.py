"""A training run: its options, its folder, and what is kept and shown of it."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchdl import artifacts, plots
from torchdl.cli.console import describe_data, say
from torchdl.collective import is_main_process
from torchdl.data import BatchLoader, DatasetInfo
from torchdl.errors import InputError, require
from torchdl.files import BEST, CHECKPOINT, CONFIG, PLOTS, RESULTS, read_config, write_json
from torchdl.recipes.report import Report
from torchdl.tasks import Task
from torchdl.training import Stopped, Trainer, TrainingDiverged, checkpoint, distributed
from torchdl.training.device import find_device, seed_generators, setup_process
from torchdl.training.logging import Logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RunOptions:
    """Where a run's data comes from, where its results go, and how its process is set up."""

    data_root: Path | None = None
    """The folder of the data sets; else $TORCHDL_DATA, the system's folders, ~/.cache/torchdl, a download."""
    out: Path = Path("runs")
    """The folder of all runs."""
    name: str = ""
    """The run's name; the date and time if none is given."""
    resume: Path | None = None
    """A run's folder to go on from, with its own options except those given anew."""
    threads: int = 0
    """CPU threads; 0 for PyTorch's choice."""
    keep_memory: bool = True
    """Tell the allocator to keep freed memory, which is quicker on CPUs and takes some more of it."""


class Run:
    """One training run and its folder ``<out>/<experiment>/<name>``; sets up the process and seeds it.

    Args:
        experiment: The experiment's name.
        config: The script's whole configuration, a dataclass or dictionary, to be written down.
        options: The common part of it.
        trainer: The trainer part of it.
        data: The training data, to be named in the record.
        test: The data that the result is measured on, to be named, too.
        verbose: Whether to print.
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
        self.trainer, self.options, self.verbose = trainer, options, verbose
        self.is_main = is_main_process()
        seed_generators(find_device(trainer.device), trainer.seed)  # for the initial weights
        self.say(setup_process(options.threads, options.keep_memory))
        self.say(describe_data(data))
        described = {"origin": data.origin, "stand_in": data.fallback, "fingerprint": data.fingerprint()}
        if test is not None:
            self.say(f"test data: {test.origin}")
            # fallback test images may be a part of the real training images
            require(
                data.fallback == test.fallback,
                f"training and test data do not belong together ({data.origin}; {test.origin}): fetch both",
            )
            described |= {"held_out_origin": test.origin, "held_out_fingerprint": test.fingerprint()}
        self.temporary = None
        if options.resume is not None:
            self.folder = options.resume
            known = read_config(self.folder).get("data", {})
            same = all(known.get(key) == value for key, value in described.items() if key.endswith("fingerprint"))
            require(same, f"{self.folder} was trained on other data: resume it with the same data")
        elif trainer.dry_run and not options.name:
            self.temporary = tempfile.TemporaryDirectory(prefix="torchdl-dry-run-")
            self.folder = Path(self.temporary.name)
        else:
            name = options.name or f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
            require(
                name == Path(name).name != "..", f"--name is a name, not a path: {name!r}; the folder of runs is --out"
            )
            self.folder = options.out / experiment / name
            taken = self.is_main and self.folder.exists() and any(self.folder.iterdir())
            require(
                not taken, f"{self.folder} exists already: choose another --name, or go on with --resume {self.folder}"
            )
        self.record: dict[str, Any] = {
            "config": config if isinstance(config, dict) else dataclasses.asdict(config),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "data": described,
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__},
        }

    def fit(
        self,
        task: Task,
        train: BatchLoader,
        validation: BatchLoader | None = None,
        pictures: Mapping[str, Tensor | Figure] | None = None,
    ) -> list[dict[str, float]]:
        """Train ``task``, keep its model in the run's folder at every checkpoint, and draw the history.

        With a monitored metric the model that is left there, and in memory, is the best one. The ``pictures`` by
        name, (C, H, W) uint8 or figures, are shown once, at the start.
        """

        def saved() -> None:
            artifacts.save(task.trained, self.folder)
            self.write_record()  # on a resume only now, when it is known that its options go with the checkpoint

        self.record["parameters"] = sum(p.numel() for p in task.trained.parameters())
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        if self.is_main and self.options.resume is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write_record()
            if pictures:
                with closing(self.logger()) as logger:
                    for name, picture in pictures.items():
                        logger.picture(name, picture)
        self.say(f"run: {self.folder}  (watch it: tensorboard --logdir {self.options.out})")
        flat = {**flatten(self.record["config"]), **flatten(self.record["data"], "data.")}
        try:
            history = self.trainer.fit(
                task,
                train,
                validation,
                self.folder,
                resume=self.options.resume is not None,
                record=flat,
                saved=saved,
                verbose=self.verbose,
            )
        except InputError as error:
            begun = isinstance(error, TrainingDiverged) or (self.folder / CHECKPOINT).exists()
            if self.is_main and self.options.resume is None and not begun:
                shutil.rmtree(self.folder)  # it holds nothing but what this call has put there before the mistake
                if not made:
                    self.folder.mkdir()
                with suppress(OSError):  # another run may have come into one of them
                    for parent in made[1:]:
                        parent.rmdir()
            raise
        except Stopped as stopped:
            again = shlex.join(["python", sys.argv[0], "--resume", str(self.folder)])
            raise Stopped(f"{stopped}; go on with: {again}", stopped.signal_number) from stopped
        if self.trainer.monitor and self.is_main and (self.folder / BEST).is_file():
            best = checkpoint.read(self.folder / BEST)
            task.load_state_dict(best["task"])
            self.say(f"the model is the one with the best {self.trainer.monitor}, {best['progress']['best']:.5g}")
            artifacts.save(task.trained, self.folder)
        distributed.unite(task)  # the best one is process 0's alone
        if self.is_main:
            plots.plot_history(history, self.folder / PLOTS / "history.png")
        return history

    def keep(self, report: Report) -> None:
        """Keep a recipe's report in the run's folder, show it in TensorBoard, and print it."""
        keep_report(report, self.folder, self.verbose)

    @property
    def chosen_by(self) -> str:
        """What the kept epoch was chosen by."""
        return self.trainer.monitor or "nothing: it is the last"

    def say(self, text: str) -> None:
        """Print a line, on process 0 and where it is wanted."""
        if self.verbose:
            say(text)

    def logger(self) -> Logger:
        """Open the run's log, on process 0, for what is shown before or after training."""
        return Logger(self.folder if self.is_main else None)

    def write_record(self) -> None:
        """Write ``config.json``: every option, the command, data's origin and fingerprint, versions, parameters."""
        write_json(self.folder / CONFIG, self.record, default=str)

    def close(self) -> None:
        """Remove the folder of a dry run."""
        if self.temporary is not None:
            self.temporary.cleanup()
            self.say("dry run: everything ran, and nothing was kept")


def keep_report(report: Report, folder: Path, verbose: bool = True, name: str = RESULTS) -> None:
    """Write a report into a run's folder, show its figures in TensorBoard, and print its summary."""
    paths = report.save(folder, name)
    with closing(Logger(folder)) as logger:
        logger.show(*paths)
        if report.embedding is not None:
            logger.embedding(*report.embedding)
    if verbose:
        say(report.summary)
        say(f"results and figures: {folder}")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one of their innermost names, ``prefix`` before those of the outermost level."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value) if isinstance(value, dict) else {prefix + key: value}
    return flat
