"""Save and load a model as two files: ``architecture.json`` and ``weights.safetensors``.

The architecture is the class's name and its constructor's arguments, read from the attributes of the same names; an
argument that is itself a module is written the same way, nested. Loading builds torchdl's own model classes alone and
runs nothing from the files, so a stranger's folder is data.
"""

from __future__ import annotations

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
from torchdl.files import ARCHITECTURE, WEIGHTS, replacing


def describe(model: nn.Module) -> dict[str, Any]:
    """Describe a torchdl model as ``{"class": ..., "arguments": ...}``, nested where an argument is a model."""
    name = type(model).__name__
    require(
        getattr(torchdl.models, name, None) is type(model),
        f"{name} is not one of torchdl's model classes, which alone can be saved: keep its state_dict() instead",
    )
    parameters = inspect.signature(type(model)).parameters
    # a module without arguments has nn.Module's, of any number
    arguments = {
        key: getattr(model, key) for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    return {
        "class": name,
        "arguments": {k: describe(v) if isinstance(v, nn.Module) else v for k, v in arguments.items()},
    }


def build(description: Any) -> nn.Module:
    """Build the model that :func:`describe` described, with new weights; :class:`InputError` for anything else."""
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
    """Save ``model`` in ``folder``, each of the two files written whole or not at all.

    Raises:
        InputError: The model, or one within it, is not of torchdl's own classes.

    Example:
        >>> import os, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> torchdl.save(torchdl.MLP(), folder)
        >>> sorted(os.listdir(folder))
        ['architecture.json', 'weights.safetensors']
        >>> torchdl.save(torch.nn.Linear(1, 1), folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: Linear is not one of torchdl's model classes, which alone can be saved: ...
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    architecture = json.dumps(describe(model), indent=2) + "\n"
    with replacing(folder / ARCHITECTURE) as path:
        path.write_text(architecture, encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as path:
        path.write_bytes(safetensors.torch.save(state))  # save_file has an error of its own for a full disk


def load(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> nn.Module:
    """Load the model that a run or :func:`save` left in ``folder``, on ``device``, in evaluation mode.

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
            raise InputError(f"{folder} holds no {name}: name the folder of a run that has saved its model")
    try:
        with torch.device("meta"):  # without memory: a stranger's file may name any sizes
            model = build(json.loads((folder / ARCHITECTURE).read_text(encoding="utf-8")))
        state = safetensors.torch.load_file(folder / WEIGHTS, device=str(device))
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} holds no model that torchdl can load: {reason}") from error
    try:
        wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        model.load_state_dict({name: t.to(wanted.get(name, t.dtype)) for name, t in state.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[1:2]).strip()
        raise InputError(f"{folder / WEIGHTS} does not fit {folder / ARCHITECTURE}: {reason}") from error
    return model.to(device).eval()
