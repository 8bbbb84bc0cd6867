"""Networks as CUDA graphs, by PyTorch's compiler.

A small network leaves a GPU idle between its kernels, because Python starts each one. A CUDA graph starts all kernels
of a pass at once. ``torch.compile`` makes one of each forward and of each backward pass (``mode="reduce-overhead"``).

The step around the passes is not captured by hand: its noise, learning rates and counters are Python's numbers, which a
graph would repeat for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from torchdl.errors import InputError, kind_of


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Compile a network's pass; on a GPU, into CUDA graphs.

    A graph's next run overwrites its outputs, silently at times. So what the function returns on a GPU are copies,
    which may be kept: a metric may collect them, for example. A function that is compiled for a GPU already stays as
    it is.

    Raises:
        InputError: The function, when called, returns an object whose tensors cannot be copied.

    Example:
        >>> from torchdl.fast.graphs import compiled
        >>> class Scores(torchdl.Supervised):  # compiles another method than forward
        ...     def compile_modules(self):
        ...         self.model.scores = compiled(self.model.scores, next(self.parameters()).device)
        >>> model = torch.nn.Linear(2, 1)
        >>> model.scores = model.forward
        >>> Scores(model, torch.nn.functional.mse_loss).compile_modules()
        >>> model.scores == model.forward
        False
    """
    if isinstance(function, partial) and function.func is _copied:
        return function
    if device.type != "cuda":
        return torch.compile(function)
    return partial(_copied, torch.compile(function, mode="reduce-overhead"))


def _copied(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return copies of the tensors that a function returns."""
    return tree_map(_copy, function(*args, **kwargs))


def _copy(value: Any) -> Any:
    """Return a copy of a tensor; other values have no memory that a graph could overwrite."""
    if isinstance(value, Tensor):
        return value.clone()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(
        f"a network that is compiled for a GPU must return tensors, or tuples, lists or dictionaries of them, not "
        f"{kind_of(value)}: return these, or train without compile"
    )


def begin_step(device: torch.device) -> None:
    """Tell the compiler that a new step begins, so that it may use the memory of the last one's graphs again.

    PyTorch asks for this where it cannot know: a generator's pass has no backward pass in a step that trains the
    discriminator alone, and with ``accumulate`` gradients must outlive several passes.
    """
    if device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()
