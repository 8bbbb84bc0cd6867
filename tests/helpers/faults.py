"""Processes that are killed, or meet an error, at their N-th change of a folder."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

# torch.export imagines eight CUDA devices. If a process computes its first gradients after that, PyTorch starts
# a thread for each device, and then none of the process's forks can compute gradients.
torch.ones((), requires_grad=True).backward()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def read_only() -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@dataclass
class Watch:
    """What is watched for: the changes of a folder."""

    folder: Path
    number: int
    act: Callable[[], None]
    flushes: bool
    seen: list[str]

    def reached(self, what: str) -> None:
        """Note a change, and do ``act`` before the N-th."""
        self.seen.append(what)
        if len(self.seen) == self.number:
            self.act()


_watches: list[Watch] = []  # at most one


def _hook(event: str, arguments: tuple) -> None:
    if not _watches or event not in ("os.mkdir", "os.rename", "open"):
        return
    (watch,), name = _watches, arguments[0]
    if not isinstance(name, (str, bytes, Path)):
        return
    path = Path(os.fsdecode(name))
    new = event == "os.rename" or not path.exists()
    writes = event != "open" or (watch.flushes and arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if writes and new and path.is_relative_to(watch.folder):
        watch.reached(f"{event} {path}")


def _flush(descriptor: int) -> None:
    for watch in _watches:
        if watch.flushes:
            watch.reached(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")


@cache
def _install_hook() -> None:
    sys.addaudithook(_hook)  # for as long as the process lasts


@contextmanager
def watching(folder: Path, number: int, act: Callable[[], None], flushes: bool = False) -> Iterator[list[str]]:
    """Call ``act`` before this process changes something in a folder for the N-th time; yield a list of all changes.

    Changes are new folders and renames. With ``flushes``, new files and flushes count, too: they can fail, but a
    process that is killed there leaves the same folder as at the next rename, but for a temporary file.
    """
    _install_hook()
    _watches.append(Watch(folder, number, act, flushes, []))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", _flush)
            yield _watches[0].seen
    finally:
        _watches.clear()


def in_child(work: Callable[[], None]) -> int:
    """Do something in a forked process; return its exit status, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
