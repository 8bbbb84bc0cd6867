"""Checkpoints that are written whole, checked when read, and kept in twos.

A file is what ``torch.save`` writes, with its own SHA-256 as the zip archive's comment; so it is one file, renamed in
one go, and ``torch.load(path, weights_only=True)`` reads it too.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torchdl.errors import InputError, require
from torchdl.files import CHECKPOINT, PREVIOUS, replacing

DIGEST = 64  # characters of a hexadecimal SHA-256


def write(state: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint of tensors, numbers, strings and their containers; the file there becomes ``previous``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = bytearray(buffer.getvalue())
    # the last two bytes of a zip archive without a comment are the comment's length
    data[-2:] = struct.pack("<H", DIGEST)
    with replacing(path) as temporary:
        temporary.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
        if previous is not None and path.exists():
            os.replace(path, previous)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint that :func:`write` wrote; :class:`InputError` where it is missing, damaged or foreign."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data[:-DIGEST]).hexdigest().encode() != data[-DIGEST:]:
        raise InputError(f"the checkpoint {path} is damaged: its checksum does not match")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an unpickler meets in a foreign file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the checkpoint {path} cannot be read: {reason}") from error
    if not isinstance(state, dict):
        raise InputError(f"the checkpoint {path} is not one of torchdl's")
    return state


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say which settings, numbers or words, are new; an empty string where none is."""

    def shown(value: Any) -> str:
        return f"{value:.12g}" if isinstance(value, (int, float)) else str(value or "none").strip()

    pairs = {key: (old.get(key), new.get(key)) for key in {**old, **new}}
    return ", ".join(
        f"{key} {shown(now)} instead of {shown(before)}" for key, (before, now) in pairs.items() if now != before
    )


def read_last(folder: Path) -> tuple[dict[str, Any], str]:
    """Read the last good checkpoint of a run.

    Returns:
        The state, and a sentence on what had to be passed over (empty if nothing had).

    Raises:
        InputError: Neither the last checkpoint nor the one before it can be read.
    """
    try:
        return read(folder / CHECKPOINT), ""
    except InputError as error:
        if not (folder / PREVIOUS).is_file():
            raise InputError(f"{error}; there is none before it to resume from in {folder}") from error
        return read(folder / PREVIOUS), f"{error}; the one before it, {folder / PREVIOUS}, is used instead"


def restore(folder: Path, parts: Mapping[str, Any], order: Mapping[str, Any]) -> str:
    """Take a run's parts to where its last good checkpoint stood.

    Args:
        folder: The run's folder.
        parts: What has a state, by name; changed in place.
        order: What decides which examples a step sees, and at which rate; it must be the same as then.

    Returns:
        A sentence on what had to be passed over, empty if nothing had.

    Raises:
        InputError: There is no good checkpoint, the order is another one, or it is another model's.
    """
    state, passed_over = read_last(folder)
    changed = differences(state.get("order", {}), order)
    require(not changed, f"{folder} cannot go on with {changed}: give it what it was started with")
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} holds the checkpoint of another model or optimizer: {reason}") from error
    return passed_over
