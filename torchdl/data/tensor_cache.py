"""Tensors kept in a file with a checksum, to save computing them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from torchdl.data.info import fingerprint
from torchdl.files import replacing


def write_cache(path: Path, tensors: Mapping[str, Tensor], note: str = "") -> None:
    """Save ``tensors`` and a ``note`` at ``path``, whole or not at all, with a checksum of all three."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        # one entry, because safetensors writes several in any order
        safetensors.torch.save_file(dict(tensors), temporary, {"note": f"{_checksum(path, tensors, note)} {note}"})


def read_cache(path: Path) -> tuple[dict[str, Tensor], str] | None:
    """Return the tensors and the note that :func:`write_cache` wrote at ``path``; None if it is missing or damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
            checksum, _, note = (file.metadata() or {})["note"].partition(" ")
        return (tensors, note) if checksum == _checksum(path, tensors, note) else None
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, safetensors.SafetensorError):
        return None


def _checksum(path: Path, tensors: Mapping[str, Tensor], note: str) -> str:
    described = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sorted(tensors.items())]
    return fingerprint(
        [tensor for _, tensor in sorted(tensors.items())], f"{path.parent.name}/{path.name} {note} {described}"
    )
