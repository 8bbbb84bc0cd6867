"""Run a script: parse its options, call its ``main``, and report an error in one sentence."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shlex
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torchdl.cli.options import SCRIPT_OPTIONS, resume_command
from torchdl.cli.parsing import ConfigT, option_names, parse
from torchdl.collective import is_main_process
from torchdl.data.loader import explaining_lost_workers
from torchdl.errors import FallbackWarning, InputError
from torchdl.files import leaves
from torchdl.training import Stopped, Trainer, distributed
from torchdl.training.device import find_device, seed_generators


def run_script(main: Callable[[ConfigT], None], config_class: type[ConfigT]) -> None:
    """Parse the command line into ``config_class``, call ``main``, and exit.

    If the configuration has a trainer, the global generators are seeded first. A model then has the same initial
    weights wherever ``main`` builds it.

    The exit status is 2 for bad input, 1 for a problem of the machine (a full disk, no memory), and 128 + the
    signal's number if Ctrl-C or SIGTERM has stopped the run.
    """
    open_standard_streams()
    threading.excepthook = _report_from_thread
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a character that the console lacks is no error; each line is in a log file at once
            stream.reconfigure(errors="replace", line_buffering=True)
    sentence, status = "", 0
    config: Any = None
    token = SCRIPT_OPTIONS.set(frozenset(option_names(config_class)))
    try:
        config = parse(config_class, sys.argv[1:])
        trainer = getattr(config, "trainer", None)
        if isinstance(trainer, Trainer):
            device = find_device(trainer.device)
            seed_generators(device, trainer.seed)
            distributed.start(device)  # now, so that an error of one process ends the others, too
        with explaining_lost_workers(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)  # scripts print where their data are from
            main(config)
    except Stopped as stopped:
        again = resume_command(stopped.folder) if stopped.folder is not None else ""
        sentence, status = f"{stopped}; go on with: {again}" if again else str(stopped), 128 + stopped.signal_number
        sentence = sentence if is_main_process() else ""
    except KeyboardInterrupt:
        sentence, status = "interrupted", 130
    except InputError as error:
        sentence, status = "" if distributed.is_reported_elsewhere(error) else str(error), 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sentence, status = f"{where}{error.strerror or error}; files saved before are unchanged", 1
        sentence = "" if distributed.is_reported_elsewhere(error) else sentence
    except (RuntimeError, MemoryError) as error:
        if distributed.is_lost_peer(error):
            sentence, status = (
                "another process of this training has ended: see its message, and start all of them again",
                1,
            )
        elif not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "tried to allocate" not in str(error):
            raise
        else:
            sentence, status = "there is not enough memory: use smaller batches, with --batch-size for example", 1
    finally:
        SCRIPT_OPTIONS.reset(token)
        distributed.stop()
    if sentence:
        sentence = name_columns(name_options(sentence, config_class), config)
        print(f"{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    sys.exit(status)


def open_standard_streams() -> None:
    """Let a closed standard stream lead nowhere; the next file that is opened would take its place otherwise."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # stays open to the end


def name_options(sentence: str, config_class: type[Any]) -> str:
    """Turn parameters in a message into the script's options: ``image_size`` and ``na=["?"]`` into ``--image-size`` and
    ``--na '?'``."""
    options = option_names(config_class)

    def option(found: re.Match[str]) -> str:
        name, value = f"--{found[1].replace('_', '-')}", found[2]
        if name not in options:
            return found[0]
        if value == "False":
            return f"--no-{name[2:]}"
        given = "" if value in (None, "True") else value.strip('[]"')
        return name if not given else f"{name} {given if given == '...' else shlex.quote(given)}"

    words = r"\b(?<![-/.])([a-z]+(?:_[a-z]+)+)\b(?![./=])()"
    values = r"\b(?<![-/.])([a-z]+(?:_[a-z]+)*)=(True|False|\d+\b|\"[^\"]*\"|\[\"[^\"]*\"\]|\[\.\.\.\])"
    return re.sub(words, option, re.sub(values, option, sentence))


def name_columns(sentence: str, config: Any) -> str:
    """Add the options that name the missing columns of a message: ``--column`` for ``has no column 'close'``."""
    found = re.search(r"\bno column ('[^']*'(?:, '[^']*')*)", sentence)
    if found is None or config is None:
        return sentence
    wanted = set(found[1][1:-1].split("', '"))
    values = [(keys[-1].replace("_", "-"), value) for keys, value in leaves(dataclasses.asdict(config))]
    options = [f"--{name}" for name, value in values if wanted & set(value if isinstance(value, tuple) else [value])]
    advice = " and ".join(option for option in options if option not in sentence)
    return f"{sentence}; name others with {advice}" if advice else sentence


def _report_from_thread(error: threading.ExceptHookArgs) -> None:
    """Ignore a full disk in TensorBoard's thread; the main thread meets it, too, and reports it."""
    if not isinstance(error.exc_value, OSError):
        threading.__excepthook__(error)
