"""Import torchvision late: it takes seconds, most of torchdl does not need it, and its version must match torch's."""

from __future__ import annotations

from types import ModuleType

import torch

from torchdl.errors import InputError


def import_torchvision() -> ModuleType:
    """Import torchvision; if it does not match this torch, :class:`InputError` says what to install."""
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        # "operator torchvision::nms does not exist" is a RuntimeError
        problem = f"torchvision does not match torch {torch.__version__} ({str(error).splitlines()[0]})"
        raise InputError(f"{problem}: install both together: pip install -U torch torchvision") from error
    return torchvision
