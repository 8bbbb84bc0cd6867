"""Start a script in a process of its own, stop it so that it saves, and read what it has said."""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

from torchdl.training.stopping import Request, Stopped

PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: What the scripts import sooner or later, and what takes most of the seconds that they need.
PRELOADED = [
    "torchdl.training.classification",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",
    "scipy.ndimage",
    "sklearn.cluster",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.neighbors",
    "torchvision",
]


class Failed(Exception):  # not an error of this program: a script's, which is reported
    """A script has failed; the message is the last line it has written."""


class Child(Protocol):
    """A script at work."""

    @property
    def pid(self) -> int | None:
        """The number of its process."""

    def ended(self, seconds: float) -> int | None:
        """Wait so long at most; return its exit status, or None if it is still at work."""


class Started:
    """A script in a Python of its own, as a user starts it.

    Args:
        command: The script's path and its arguments.
        log: The file that what it says is added to.
        environment: Its environment.
        lock: An open file that it keeps open, too.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], lock: int | None) -> None:
        with open(log, "ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # the terminal's Ctrl-C comes to us alone, and is passed on
                pass_fds=[] if lock is None else [lock],
                preexec_fn=end_with_parent,
            )
        self.pid = self.process.pid

    def ended(self, seconds: float) -> int | None:
        """Wait so long at most; return its exit status, or None if it is still at work."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class Forked:
    """A script in a fork of this process: the same, without the seconds of what is imported here, see :func:`preload`.

    Args:
        command: The script's path and its arguments.
        log: The file that what it says is added to.
        environment: What is to be set in its environment.
        threads: CPU threads.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], threads: int) -> None:
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run, args=(list(command), str(log), dict(environment), threads))
        self.process.start()
        self.pid = self.process.pid

    def ended(self, seconds: float) -> int | None:
        """Wait so long at most; return its exit status, or None if it is still at work."""
        self.process.join(seconds)
        return self.process.exitcode


def preload() -> None:
    """Import :data:`PRELOADED` for all forks to come; what is not installed is left out."""
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)


def _run(command: list[str], log: str, environment: dict[str, str], threads: int) -> None:
    """Become a script."""
    os.setsid()
    end_with_parent()
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(said, number)
    torch.set_num_threads(threads)
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name="__main__")


def end_with_parent() -> None:
    """Let Linux ask this process to stop, and to save, where the one that has started it is killed."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def watch(child: Child, request: Request) -> int:
    """Wait for a script's end and return its exit status; a request to stop is passed on to it once, so that it saves.

    A second Ctrl-C, which acts at once, ends it at once.
    """
    passed_on, code = False, None
    try:
        while code is None:
            code = child.ended(0.1)
            if code is None and request.signal_number and not passed_on and child.pid:
                os.kill(child.pid, request.signal_number)
                passed_on = True
    finally:
        if code is None and child.pid:
            os.killpg(child.pid, signal.SIGKILL)
            child.ended(10)
    return code


def run_command(
    command: Sequence[str],
    scripts: Path,
    log: Path,
    environment: Mapping[str, str],
    request: Request,
    lock: int | None = None,
    forked: bool = False,
    threads: int = 1,
) -> None:
    """Run one script to its end.

    Args:
        command: Its name and arguments.
        scripts: The folder of the scripts.
        log: The file that the command and what it says are added to.
        environment: What is to be set in its environment.
        request: What says whether to stop.
        lock: An open file that it keeps open, too.
        forked: Whether it is spared the imports.
        threads: CPU threads, where it is forked.

    Raises:
        Failed: It has failed; the message is the last line that it has written.
        Stopped: It was asked to stop, and has ended before its end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as said:
        said.write(f"$ python scripts/{shlex.join(command)}\n")
    full = [str(scripts / command[0]), *command[1:]]
    child: Child = (
        Forked(full, log, environment, threads) if forked else Started(full, log, {**os.environ, **environment}, lock)
    )
    code = watch(child, request)
    if code and request.signal_number:
        raise Stopped("", request.signal_number)
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Failed(f"{lines[-1]} (exit status {code}; all that it said: {log})")
