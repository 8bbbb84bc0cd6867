"""Processes that are killed, or meet an error, at their N-th change of a folder."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def read_only() -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def watch(folder: Path, number: int, act: Callable[[], None], openings: bool = False) -> list[str]:
    """Call ``act`` before this process changes something in a folder for the N-th time; return a list of all changes.

    Changes are new folders, renames, flushes and, if asked for, new files. It lasts as long as the process, because
    Python's audit hooks do.
    """
    seen: list[str] = []

    def reached(what: str) -> None:
        seen.append(what)
        if len(seen) == number:
            act()

    def hook(event: str, arguments: tuple) -> None:
        if event not in ("os.mkdir", "os.rename", "open") or not isinstance(arguments[0], (str, bytes, Path)):
            return
        path = Path(os.fsdecode(arguments[0]))
        new = event == "os.rename" or not path.exists()
        writes = event != "open" or (openings and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and new and path.is_relative_to(folder):
            reached(f"{event} {path}")

    fsync = os.fsync

    def watched(descriptor: int) -> None:
        reached(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        fsync(descriptor)

    sys.addaudithook(hook)
    os.fsync = watched
    return seen


def in_child(work: Callable[[], None]) -> int:
    """Do something in a forked process; return its exit status: 1 for an OSError, 3 for others, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            work()
            code = 0
        except OSError:
            code = 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
