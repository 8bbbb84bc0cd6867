"""Constructors that take numbers of any kind, and inputs that must be tensors."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

from torch import Tensor, nn

from torchdl.errors import InputError, kind_of, require
from torchdl.files import plain

ModelT = TypeVar("ModelT", bound=type[nn.Module])


def plain_arguments(cls: ModelT) -> ModelT:
    """Let a model's constructor convert numbers and texts of NumPy's types, which PyTorch and JSON refuse.

    It also refuses a number in place of several, and the reverse, by the annotations.
    """
    construct: Any = cls.__init__
    parameters = list(inspect.signature(construct).parameters.values())[1:]

    @functools.wraps(construct)
    def convert(self: nn.Module, *arguments: Any, **named: Any) -> None:
        given = plain((arguments, named), keep=(Tensor, nn.Module))
        values = dict(zip((parameter.name for parameter in parameters), given[0], strict=False)) | given[1]
        for parameter in parameters:
            if parameter.name in values:
                check_count(type(self).__name__, parameter, values[parameter.name])
        construct(self, *given[0], **given[1])

    cls.__init__ = convert  # type: ignore[method-assign]
    return cls


def check_count(owner: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raise :class:`InputError` if an argument is a number where its annotation has several, or the reverse."""
    kind = str(parameter.annotation)
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    default = "" if parameter.default is parameter.empty else f", such as {parameter.default}"
    if kind.startswith("Sequence["):
        require(several, f"{owner}: {parameter.name} must be a tuple or list{default}, not {value!r}")
    elif kind.removesuffix(" | None") in ("int", "float"):
        require(not several, f"{owner}: {parameter.name} must be a number{default}, not {value!r}")


def require_tensor(x: Any, dtype: str = "float32") -> None:
    """Raise :class:`InputError` unless ``x`` is a tensor; ``dtype`` is the type to convert it to."""
    if not isinstance(x, Tensor):  # not require, because this runs in each step
        advice = f"torch.as_tensor(x, dtype=torch.{dtype})"
        raise InputError(f"a network takes tensors, not {kind_of(x)}: convert it, {advice}")
