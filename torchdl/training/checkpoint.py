"""Checkpoints that are written atomically, verified when read, and kept together with the previous one.

A file is what ``torch.save`` writes, with its SHA-256 as the comment of the zip archive. So a checkpoint is a single
file, and ``torch.load(path, weights_only=True)`` reads it too.
"""

from __future__ import annotations

import copy
import hashlib
import io
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import torch
from torch.utils._pytree import tree_map

from torchdl.errors import InputError, first_line, kind_of, require
from torchdl.files import CHECKPOINT, PREVIOUS, check_archive, plain, replacing
from torchdl.training.state import Progress

OPTIONAL = ("callbacks", "loader")  # the parts that a checkpoint lacks if they have no state
LATER = ("precision", "products", "clip_norm", "num_workers")  # settings that a checkpoint from before 0.2 lacks
DIGEST = 64  # characters of a hexadecimal SHA-256
VALUES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device)


class Content(TypedDict, total=False):
    """What a checkpoint holds."""

    task: dict[str, Any]
    updates: Updates
    progress: Progress
    callbacks: dict[str, dict[str, Any]]
    loader: dict[str, Any]
    order: dict[str, bool | int | float | str | None]


class Updates(TypedDict, total=False):
    """The state of optimizers and schedules by name, their first settings, and the least size of oneDNN's products."""

    optimizers: dict[str, dict[str, Any]]
    schedules: dict[str, dict[str, Any]]
    initial: dict[str, dict[str, Any]]
    products: float


def write(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint of tensors, numbers, strings and their containers; an old file becomes ``previous``.

    Numbers and texts of NumPy's types become Python's. The new file is read before it replaces the old one.

    Raises:
        InputError: The state holds a value that could be written but not read.
    """
    buffer = io.BytesIO()
    torch.save(plain(state, keep=torch.Tensor), buffer)
    data = bytearray(buffer.getvalue())
    # the last two bytes of a zip archive without a comment are the comment's length
    data[-2:] = struct.pack("<H", DIGEST)
    with replacing(path, previous) as temporary:
        temporary.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
        try:
            read(temporary)
        except InputError as error:
            raise InputError(
                f"{path} stays as it is, because the new checkpoint could not be read back: "
                f"{reason_of(error.__cause__ or error)}"
            ) from error


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a state, on the CPU, which stays as it is while the training goes on."""
    progress = {"progress": state["progress"]}  # is a copy already, but for the history's rows, which nobody changes
    return {**tree_map(copied_value, {**state, "progress": None}), **progress}


def copied_value(value: Any) -> Any:
    """Return a copy of a tensor on the CPU, and of anything else."""
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def reason_of(error: BaseException) -> str:
    """Return in a line why a file could not be loaded, without PyTorch's advice to load it unsafely."""
    found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
    if found:
        return f"it holds a {found[1]}, which is not a tensor, a number or a text"
    if "weights_only" in str(error):
        return "it holds something other than tensors, numbers and texts"
    return first_line(error)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raise :class:`InputError` if it is missing, damaged or not written by :func:`write`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data[:-DIGEST]).hexdigest().encode() != data[-DIGEST:]:
        raise InputError(f"the checkpoint {path} is damaged: its checksum does not match")
    try:
        check_archive(io.BytesIO(data))
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        require(isinstance(state, dict), "it was not written by torchdl")
        check_values(state, len(data))
        msgspec.convert({name: state[name] for name in Content.__annotations__ if name in state}, Content)
    except Exception as error:  # an unpickler may raise anything on a foreign file
        raise InputError(f"the checkpoint {path} cannot be read: {reason_of(error)}") from error
    return state


def check_values(state: Any, size: int) -> None:
    """Check that a state holds tensors, numbers, texts and their containers, and no tensor larger than ``size`` bytes.

    A tensor may show a few numbers under any shape, and would take the memory of that shape when it is copied.
    """
    left, seen = [state], set[int]()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            seen.add(id(value))
            left += [*value, *value.values()] if isinstance(value, dict) else value
        elif isinstance(value, torch.Tensor):
            ordinary = value.layout == torch.strided and not value.is_quantized
            shape = list(value.shape)
            require(ordinary and value.nbytes <= size, f"it holds a tensor of {shape}, sparse or larger than the file")
        else:
            require(
                value is None or isinstance(value, VALUES),
                f"it holds {kind_of(value)}, which is not a tensor, a number or a text",
            )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Describe which settings (numbers or strings) differ; return an empty string if none does."""

    def shown(value: Any) -> str:
        return f"{value:.12g}" if isinstance(value, (int, float)) else str(value or "none").strip()

    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {shown(new.get(key))} instead of {shown(old.get(key))}" for key in changed)


def read_last(folder: Path) -> tuple[dict[str, Any], str]:
    """Read the last good checkpoint of a run.

    Returns:
        The state, and a warning if the last checkpoint could not be read (an empty string if it could).

    Raises:
        InputError: Neither the last checkpoint nor the previous one can be read.
    """
    try:
        return read(folder / CHECKPOINT), ""
    except InputError as error:
        if not (folder / PREVIOUS).is_file():
            raise InputError(f"{error}; there is no previous one to resume from in {folder}") from error
        return read(folder / PREVIOUS), f"{error}; the previous one, {folder / PREVIOUS}, is used instead"


def restore(folder: Path, parts: Mapping[str, Any], order: Mapping[str, Any]) -> str:
    """Load a run's last good checkpoint.

    Args:
        folder: The run's folder.
        parts: The objects that have a state, by name; changed in place.
        order: The settings that must be unchanged: of the data order, the optimizers and the choice of the best epoch.

    Returns:
        A warning if the last checkpoint could not be read (an empty string if it could).

    Raises:
        InputError: There is no good checkpoint, a setting has changed, or the model or optimizer is another one.
    """
    state, warning = read_last(folder)
    old = state.get("order", {})
    old = {**{name: order[name] for name in LATER if name in order}, **old}
    changed = differences(old, order)
    require(not changed, f"{folder} cannot be resumed with {changed}: use its original settings")
    load(state, parts, folder)
    return warning


def load(state: Mapping[str, Any], parts: Mapping[str, Any], path: Path) -> None:
    """Load the parts of a state from ``path``, in place.

    Raises:
        InputError: One is of another kind; the task is as before.
    """
    before = {name: copied_value(value) for name, value in parts["task"].state_dict().items()}
    try:
        for name, part in parts.items():
            part.load_state_dict(state.get(name, {}) if name in OPTIONAL else state[name])
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        parts["task"].load_state_dict(before)
        other = "a training with other callbacks" if name == "callbacks" else "another model or optimizer"
        raise InputError(f"{path} holds the checkpoint of {other}: {reason}") from error
