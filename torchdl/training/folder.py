"""A run's folder: no training overwrites another one's, two never share one, and no link leads out of it."""

from __future__ import annotations

import errno
import math
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchdl.callbacks import Best
from torchdl.collective import is_main_process
from torchdl.errors import InputError, require
from torchdl.files import (
    ARCHITECTURE,
    BEST,
    CHECKPOINT,
    CONFIG,
    EMBEDDING,
    EVALUATION,
    LOGGERS,
    METRICS,
    PLOTS,
    PREPROCESSING,
    PREVIOUS,
    PROBE,
    RESULTS,
    SAMPLES,
    WEIGHTS,
    has_checkpoint,
    make_folder,
)
from torchdl.training import checkpoint
from torchdl.training.state import TrainingState

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

FOLDERS = (PLOTS, SAMPLES, PROBE, EMBEDDING, LOGGERS)
FILES = (CONFIG, METRICS, RESULTS, EVALUATION, CHECKPOINT, PREVIOUS, BEST, ARCHITECTURE, WEIGHTS, PREPROCESSING)
#: What a run writes in its folder, as patterns: only these are checked, for a folder may hold a user's own files, too.
WRITTEN = (*FOLDERS, *FILES, "*.pbtxt", "events.out.tfevents.*", ".*.tmp")

_taken: ContextVar[frozenset[Path]] = ContextVar("_taken", default=frozenset())
_descriptors: set[int] = set()


def versions() -> dict[str, str]:
    """Return the versions on which a run's numbers depend, for its ``config.json``."""
    return {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__}


def was_killed_early(folder: Path) -> bool:
    """Return whether a run's folder holds only what a run writes before it completes its first checkpoint."""
    early = (CONFIG, "events.out.tfevents.*", ".*.tmp", PLOTS, SAMPLES, LOGGERS, METRICS, "*.pt")
    if not folder.is_dir() or has_checkpoint(folder) or ((folder / METRICS).exists() and (folder / BEST).exists()):
        return False  # somebody has removed the checkpoints of a longer run
    return all(any(path.match(pattern) for pattern in early) for path in folder.iterdir())


def empty(folder: Path) -> None:
    """Remove what a run that was killed early has left, and the files that killed processes were writing."""
    require(
        was_killed_early(folder), f"{folder} holds more than a training that was killed before its first checkpoint"
    )
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def written(folder: Path) -> Iterator[Path]:
    """Yield the files and folders in a run's folder that a run may write."""
    for pattern in WRITTEN:
        for path in folder.glob(pattern):
            yield path
            if path.is_dir():
                yield from path.rglob("*")


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which a run would write through a link; a stranger may have made it.

    Raises:
        InputError: A file or folder that a run writes is a link, or something else that is no plain file or folder.
    """
    for path in written(folder):
        mode = path.lstat().st_mode
        require(
            stat.S_ISREG(mode) or stat.S_ISDIR(mode),
            f"{path} is a link or a device, and a run would write where it leads: replace it by a plain file or folder",
        )


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed processes have left of files that they were writing."""
    for place in (folder, *(folder / name for name in FOLDERS)):
        for path in place.glob(".*.tmp"):
            path.unlink(missing_ok=True)


@contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Keep other processes and threads from training in a folder; calls in the same thread may be nested.

    The lock ends with the process, however that ends.

    Raises:
        InputError: Somebody else is training there.
    """
    place = folder.resolve()
    if fcntl is None or place in _taken.get():
        yield
        return
    descriptor = os.open(place, os.O_RDONLY)
    token = None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                advice = "wait for it, or choose another folder"
                raise InputError(f"another training is running in {folder}: {advice}") from error
            # some network file systems lock no folders
        _descriptors.add(descriptor)
        token = _taken.set(_taken.get() | {place})
        yield
    finally:
        if token is not None:
            _taken.reset(token)
        _descriptors.discard(descriptor)
        os.close(descriptor)


def in_training(folder: Path) -> bool:
    """Return whether a process is training in a folder at this moment."""
    if fcntl is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(descriptor)
    return False


def _forget() -> None:
    """Close the locks in a forked process, such as a worker, which may outlive the training."""
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def opened(folder: Path | None, resume: bool) -> Iterator[bool]:
    """Take a folder for a training; yield whether it holds a checkpoint to resume from.

    Args:
        folder: The folder, which is made for a new training; None if nothing is to be written.
        resume: Whether to go on with the training that is there.

    Raises:
        InputError: A new training would overwrite another one, there is no folder to resume, somebody else is training
            there, or a link leads out.
    """
    if folder is None:
        yield False
        return
    require(not resume or folder.is_dir(), f"there is no run in {folder}: begin it with resume=False")
    if not resume and is_main_process():
        make_folder(folder)
    found = [name for name in (CHECKPOINT, PREVIOUS, BEST, METRICS) if (folder / name).exists()]
    # of a folder whose checkpoints somebody has removed, the checkpoint's reader tells
    resumable = resume and (has_checkpoint(folder) or {METRICS, BEST} <= {*found})
    if not is_main_process() or not folder.is_dir():  # process 0 alone writes
        yield resumable
        return
    with taken(folder):
        refuse_links(folder)
        advice = "choose another folder, or go on with that training (resume=True)"
        require(resume or not found, f"{folder} holds a training already ({', '.join(found)}): {advice}")
        if resume:
            remove_temporary_files(folder)
        yield resumable


def recover_best(folder: Path, state: TrainingState, monitor: str, mode: str) -> None:
    """Check that ``best.pt`` is there and is of the best epoch; write it again if that epoch's checkpoint is there.

    It is of a later step than the checkpoint if the process was killed between the two, and of an evaluation that the
    checkpoint does not know if the last step was within an epoch.

    Raises:
        InputError: It is missing, damaged or of an earlier epoch, and cannot be written again.
    """
    best = Best.of(state.history, monitor, mode).value
    if not monitor or math.isnan(best):
        return
    path = folder / BEST
    try:
        progress = checkpoint.read(path).get("progress", {})
        if ends_with(progress, monitor, best) or progress.get("step", -1) >= state.step:
            return
        reason = f"{path} is of another epoch than the best so far"
    except InputError as error:
        reason = str(error)
    for name in (CHECKPOINT, PREVIOUS):
        with suppress(InputError):
            saved = checkpoint.read(folder / name)
            progress = saved.get("progress", {})
            if progress.get("batch") == 0 and ends_with(progress, monitor, best):
                if is_main_process():
                    checkpoint.write(saved, path)
                return
    way_out = f"put it back, or copy {folder / CHECKPOINT} over it, and the last model counts as the best so far"
    raise InputError(f"{reason}; the best model cannot be made again from a checkpoint: {way_out}")


def ends_with(progress: Mapping[str, Any], monitor: str, value: float) -> bool:
    """Return whether the last epoch that a checkpoint knows has this value of a metric."""
    *_, last = progress.get("history") or [{}]
    return bool(last.get(monitor) == value)
