"""Save and load a model as two files: ``architecture.json`` and ``weights.safetensors``.

The architecture is the name of the model's class and its constructor's arguments, read from attributes of the same
names; an argument that is a model is described in the same way. Loading builds only torchdl's own model classes and
runs no code from the files, so a stranger's folder is data.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

import torchdl.models
from torchdl.errors import InputError, require
from torchdl.files import ARCHITECTURE, WEIGHTS, plain, replacing, write_json

CHECKSUM, BLANK = "sha256", "0" * 64  # its name in the file's metadata, and what is in its place while it is computed


def describe(model: nn.Module) -> dict[str, Any]:
    """Describe a torchdl model as ``{"class": ..., "arguments": ...}``; arguments that are models are nested."""
    name = type(model).__name__
    require(
        getattr(torchdl.models, name, None) is type(model),
        f"{name} is not one of torchdl's model classes, so it cannot be saved: save its state_dict() instead",
    )
    parameters = inspect.signature(type(model)).parameters
    # a class without its own constructor has nn.Module's, which takes *args and **kwargs
    names = [key for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    values = {key: getattr(model, key) for key in names}
    arguments = {k: describe(v) if isinstance(v, nn.Module) else plain(v) for k, v in values.items()}
    return {"class": name, "arguments": arguments}


def build(description: object) -> nn.Module:
    """Build a model with new weights from the result of :func:`describe`; raise :class:`InputError` for others."""
    if not isinstance(description, dict) or not isinstance(description.get("arguments"), dict):
        raise InputError('an architecture must be {"class": name, "arguments": {...}}')
    cls = getattr(torchdl.models, str(description.get("class")), None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"{description.get('class')!r} is not one of torchdl's model classes")
    arguments = description["arguments"]
    try:
        return cls(**{k: build(v) if isinstance(v, dict) else v for k, v in arguments.items()})
    except (TypeError, RuntimeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{cls.__name__} cannot be built from these arguments: {reason}") from error


def save(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Save ``model`` in ``folder``; each of the two files is written whole or not at all.

    Raises:
        InputError: The model, or a model inside it, is not one of torchdl's own classes.

    Example:
        >>> import os, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> torchdl.save(torchdl.MLP(), folder)
        >>> sorted(os.listdir(folder))
        ['architecture.json', 'weights.safetensors']
        >>> torchdl.save(torch.nn.Linear(1, 1), folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: Linear is not one of torchdl's model classes, so it cannot be saved: ...
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ARCHITECTURE, describe(model))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(state, {CHECKSUM: BLANK})  # save_file hides a full disk behind its own error
    data = data.replace(BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
    with replacing(folder / WEIGHTS) as path:
        path.write_bytes(data)
        check_weights(path)


def check_weights(path: Path) -> bytes:
    """Read a file of weights, and compare its SHA-256 with the one that it holds.

    The checksum is in the file itself, so that a kill leaves no file beside the checksum of another one. It is that of
    the file with zeros in the checksum's place. Files from before have none.

    Raises:
        InputError: The file is damaged.
    """
    data = path.read_bytes()
    try:
        known = str(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][CHECKSUM])
    except (ValueError, KeyError, TypeError, RecursionError):  # none, or no file of weights, which the reader reports
        return data
    found = hashlib.sha256(data.replace(known.encode(), BLANK.encode(), 1)).hexdigest()
    require(found == known, f"{path} is damaged: its checksum does not match")
    return data


def load(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> nn.Module:
    """Load the model that a run or :func:`save` stored in ``folder``, on ``device``, in evaluation mode.

    Raises:
        InputError: A file is missing, damaged or not torchdl's, or the weights are another model's.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> torchdl.save(torchdl.MLP(4, 3, hidden=(8, 8)), folder)
        >>> model = torchdl.load(folder)
        >>> type(model).__name__, model.hidden, model.training
        ('MLP', (8, 8), False)
    """
    folder = Path(folder)
    for name in (ARCHITECTURE, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no {name}: choose the folder of a run that saved its model")
    weights = check_weights(folder / WEIGHTS)
    try:
        with torch.device("meta"):  # allocates no memory: a stranger's file may name any sizes
            model = build(json.loads((folder / ARCHITECTURE).read_text(encoding="utf-8")))
        state = safetensors.torch.load(weights)
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} has no model that torchdl can load: {reason}") from error
    try:
        dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        model.load_state_dict({name: t.to(dtypes.get(name, t.dtype)) for name, t in state.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[1:2]).strip()
        raise InputError(f"{folder / WEIGHTS} does not fit {folder / ARCHITECTURE}: {reason}") from error
    return model.to(device).eval()
