"""What every training script shares: its common options, its run's folder, and one sentence for every mistake."""

from __future__ import annotations

import dataclasses
import datetime
import io
import itertools
import json
import os
import shlex
import shutil
import sys
import tempfile
import threading
import typing
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from torchdl import artifacts, plots
from torchdl.data import BatchLoader, Described
from torchdl.data.described import introduce
from torchdl.errors import InputError, require
from torchdl.files import write_json
from torchdl.tasks import Task
from torchdl.training import checkpoint, distributed, process
from torchdl.training.logger import Logger
from torchdl.training.stopping import Stopped
from torchdl.training.trainer import Trainer
from torchdl.training.updates import TrainingDiverged

CONFIG = "config.json"
ConfigT = TypeVar("ConfigT")


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


def run_script(main: Callable[[ConfigT], None], config_class: type[ConfigT]) -> None:
    """Parse the command line into ``config_class``, run ``main``, and end with one sentence if something is wrong.

    Exit status: 2 for bad input, 1 for trouble with the machine (a full disk, no memory), 128 + the signal's number
    where Ctrl-C or SIGTERM stopped the run.
    """
    threading.excepthook = _report_from_thread
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the console has no character for ends no run
    sentence, status = "", 0
    try:
        main(parse(config_class, sys.argv[1:]))
    except Stopped as stopped:
        sentence, status = str(stopped) if is_main_process() else "", 128 + stopped.signal_number
    except KeyboardInterrupt:
        sentence, status = "interrupted", 130
    except InputError as error:
        sentence, status = str(error), 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sentence, status = f"{where}{error.strerror or error}; what was saved before is as it was", 1
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "tried to allocate" not in str(error):
            raise
        sentence, status = "the memory is not enough: ask for less at a time, with a smaller --batch-size say", 1
    finally:
        distributed.stop()
    if sentence:
        print(f"{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    sys.exit(status)


def _report_from_thread(error: threading.ExceptHookArgs) -> None:
    """Leave a full disk that TensorBoard's thread meets to the main thread, which meets it, too."""
    if not isinstance(error.exc_value, OSError):
        threading.__excepthook__(error)


def parse(config_class: type[ConfigT], arguments: list[str]) -> ConfigT:
    """Parse the command line; with ``--resume RUN``, what it leaves out is as that run was started."""
    default = None
    given = [a.removeprefix("--resume=") for a in arguments if a.startswith("--resume=")]
    given += [value for option, value in itertools.pairwise(arguments) if option == "--resume"]
    if given and not {"-h", "--help"} & set(arguments):
        record = read_record(Path(given[-1]))
        try:
            default = rebuild(config_class, record["config"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{given[-1]} is not a run of this script: its {CONFIG} has other options") from error
    parsed = tyro.cli(config_class, args=arguments, default=default, config=(tyro.conf.OmitArgPrefixes,))
    return typing.cast(ConfigT, parsed)


def read_record(folder: Path) -> dict[str, Any]:
    """Read what a run's ``config.json`` says."""
    try:
        record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise InputError(f"{folder} is no run of a script: its {CONFIG} cannot be read ({reason})") from error
    return record if isinstance(record, dict) else {}


def rebuild(config_class: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Build a configuration, nested ones too, from what ``dataclasses.asdict`` and JSON have made of it."""
    hints = typing.get_type_hints(config_class)
    built: dict[str, Any] = {}
    for key, value in values.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            value = rebuild(typing.cast("type[Any]", hint), value)
        elif value is not None and Path in (hint, *typing.get_args(hint)):
            value = Path(value)
        elif isinstance(value, list):
            value = tuple(value)  # which JSON does not know
        built[key] = value
    return config_class(**built)


class Run:
    """One training run and its folder ``<out>/<experiment>/<name>``; sets the process up and seeds it.

    Args:
        experiment: The experiment's name.
        config: The script's whole configuration, a dataclass or dictionary, to be written down.
        options: The common part of it.
        trainer: The trainer part of it.
        data: The training data, to be named in the record.
        held_out: The data that the result is measured on, to be named, too.
    """

    def __init__(
        self,
        experiment: str,
        config: Any,
        options: RunOptions,
        trainer: Trainer,
        data: Described,
        held_out: Described | None = None,
    ) -> None:
        self.trainer, self.options = trainer, options
        self.is_main = is_main_process()
        process.seed_generators(process.find_device(trainer.device), trainer.seed)  # for the initial weights
        say(process.setup(options.threads, options.keep_memory))
        say(introduce(data))
        described = {"origin": data.origin, "stand_in": data.stand_in, "fingerprint": data.fingerprint()}
        if held_out is not None:
            say(f"held out: {held_out.origin}")
            # what stands in for the test images may be a part of the real training images
            require(
                data.stand_in == held_out.stand_in,
                f"training and held-out data do not belong together ({data.origin}; {held_out.origin}): fetch both",
            )
            described |= {"held_out_origin": held_out.origin, "held_out_fingerprint": held_out.fingerprint()}
        self.temporary = None
        if options.resume is not None:
            self.folder = options.resume
            known = read_record(self.folder).get("data", {})
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
        model: nn.Module,
        train: BatchLoader,
        validation: BatchLoader | None = None,
        pictures: Mapping[str, Tensor] | None = None,
    ) -> list[dict[str, float]]:
        """Train ``task``, keep ``model`` in the run's folder at every checkpoint, and draw the history.

        With a monitored metric the model that is left there, and in memory, is the best one. The ``pictures`` by
        name, (C, H, W) uint8, are shown once, at the start.
        """

        def saved() -> None:
            artifacts.save(model, self.folder)
            self.write_record()  # on a resume only now, when it is known that its options go with the checkpoint

        self.record["parameters"] = sum(p.numel() for p in model.parameters())
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        if self.is_main and self.options.resume is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write_record()
            if pictures:
                with closing(self.logger()) as logger:
                    for name, picture in pictures.items():
                        logger.picture(name, picture)
        say(f"run: {self.folder}  (watch it: tensorboard --logdir {self.options.out})")
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
            )
        except InputError as error:
            begun = isinstance(error, TrainingDiverged) or (self.folder / checkpoint.LAST).exists()
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
        if self.trainer.monitor and self.is_main and (self.folder / checkpoint.BEST).is_file():
            best = checkpoint.read(self.folder / checkpoint.BEST)
            task.load_state_dict(best["task"])
            say(f"the best {self.trainer.monitor}, {best['progress']['best']:.5g}, is the model that is kept")
            artifacts.save(model, self.folder)
        distributed.unite(task)  # the best one is process 0's alone
        if self.is_main:
            plots.plot_history(history, self.folder / "plots" / "history.png")
        return history

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
            say("dry run: everything ran, and nothing was kept")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one of their innermost names, ``prefix`` before those of the outermost level."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value) if isinstance(value, dict) else {prefix + key: value}
    return flat


def is_main_process() -> bool:
    """Say whether this is the one process, or ``torchrun``'s first."""
    return os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """Return how many processes ``torchrun`` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def say(text: str) -> None:
    """Print a line on process 0."""
    if is_main_process():
        print(text, flush=True)
