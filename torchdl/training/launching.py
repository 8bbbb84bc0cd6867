"""Start scripts in processes of their own, several at a time, stop them so that they save, and read what they said.

One thread does all of it, as a process with several cannot be forked safely: what runs a script is a generator that
yields while the script is at work, and :func:`side_by_side` gives several of them turns.
"""

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
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from torchdl.training.stopping import Request, Stopped

KeyT = TypeVar("KeyT")
T = TypeVar("T")
Steps = Generator[None, None, T]  # what yields while it waits, and returns a T
PR_SET_PDEATHSIG = 1  # linux/prctl.h
TURN = 0.05  # seconds
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
    def pid(self) -> int:
        """The number of its process."""

    def ended(self) -> int | None:
        """Return its exit status, or None if it is still at work."""


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
        self.cpu_seconds = 0.0  # what it has taken, once it has ended

    def ended(self) -> int | None:
        """Return its exit status, or None if it is still at work."""
        if self.process.returncode is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)  # Popen.poll does not say what was used
            if pid:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = used.ru_utime + used.ru_stime
        return self.process.returncode


class Forked:
    """A script in a fork of this process: the same, without the seconds of what is imported here, see :func:`preload`.

    Args:
        command: The script's path and its arguments.
        log: The file that what it says is added to.
        environment: What is to be set in its environment.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_run, args=(list(command), str(log), dict(environment)))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def ended(self) -> int | None:
        """Return its exit status, or None if it is still at work."""
        return self.process.exitcode


def preload() -> None:
    """Import :data:`PRELOADED` for all forks to come; what is not installed is left out."""
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)


def _run(command: list[str], log: str, environment: dict[str, str]) -> None:
    """Become a script, of one CPU thread."""
    os.setsid()
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of what notes it in a request that is not ours
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(environment)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(said, number)
    torch.set_num_threads(1)
    sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
    runpy.run_path(command[0], run_name="__main__")


def end_with_parent() -> None:
    """Let Linux ask this process to stop, and to save, where the one that has started it is killed."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_at_once(child: Child) -> None:
    """Kill a script with all that it has started, and wait for its end, but not forever."""
    with suppress(ProcessLookupError):  # where it has not become the leader of its group yet
        os.killpg(child.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while child.ended() is None and time.monotonic() < until:
        time.sleep(0.01)


def watch(child: Child, log: Path, request: Request) -> Steps[None]:
    """Yield until a script has ended; a request to stop is passed on to it once, so that it saves.

    Where its steps are not gone on with, as after a second Ctrl-C, which acts at once, it is ended at once.

    Raises:
        Failed: It has failed; the message is the last line that it has written.
        Stopped: It was asked to stop, and has ended before its end.
    """
    passed_on, code = False, None
    try:
        while (code := child.ended()) is None:
            if request.signal_number and not passed_on:
                os.kill(child.pid, request.signal_number)
                passed_on = True
            yield
    finally:
        if code is None:
            end_at_once(child)
    if code and request.signal_number:
        raise Stopped("", request.signal_number)
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Failed(f"{''.join(lines[-1:])} (exit status {code}; all that it said: {log})")


def run_command(
    command: Sequence[str],
    scripts: Path,
    log: Path,
    environment: Mapping[str, str],
    request: Request,
    lock: int | None = None,
    forked: bool = False,
) -> Steps[None]:
    """Run one script to its end, in steps.

    Args:
        command: Its name and arguments.
        scripts: The folder of the scripts.
        log: The file that the command and what it says are added to.
        environment: What is to be set in its environment.
        request: What says whether to stop.
        lock: An open file that it keeps open, too.
        forked: Whether it is spared the imports.

    Raises:
        Failed, Stopped: As :func:`watch` says.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as said:
        said.write(f"$ python scripts/{shlex.join(command)}\n")
    full = [str(scripts / command[0]), *command[1:]]
    child: Child = Forked(full, log, environment) if forked else Started(full, log, {**os.environ, **environment}, lock)
    yield from watch(child, log, request)


def side_by_side(
    todo: dict[KeyT, Steps[T]],
    jobs: int,
    request: Request,
    ready: Callable[[KeyT, Sequence[KeyT]], bool] = lambda key, working: True,
) -> Generator[tuple[KeyT, T | Failed | Stopped], None, None]:
    """Run what is to be done, several at a time, and yield each as it ends with what it has returned or raised.

    Close it, and what is still at work is ended at once.

    Args:
        todo: What is to be done, by name; what is begun is taken out, and what is still there after a request to stop
            was not begun.
        jobs: How many at a time.
        request: What says whether to stop: nothing is begun then, and what is at work is gone on with to its end.
        ready: Whether one, given by its name, can be begun while those of the names in the list are at work.
    """
    working: dict[KeyT, Steps[T]] = {}
    try:
        while working or (todo and not request.signal_number):
            for key in tuple(todo):
                if not request.signal_number and len(working) < jobs and ready(key, tuple(working)):
                    working[key] = todo.pop(key)
            assert working or request.signal_number, f"nothing can be begun of {list(todo)}"
            for key, steps in tuple(working.items()):
                outcome: T | Failed | Stopped
                try:
                    next(steps)
                    continue
                except StopIteration as end:
                    outcome = end.value
                except (Failed, Stopped) as error:
                    outcome = error
                del working[key]
                yield key, outcome
            time.sleep(TURN)
    finally:
        for steps in working.values():
            steps.close()
