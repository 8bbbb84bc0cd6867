"""Constructors that take numbers of any kind."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from torch import Tensor, nn

from torchdl.files import plain

ModelT = TypeVar("ModelT", bound=type[nn.Module])


def plain_arguments(cls: ModelT) -> ModelT:
    """Let a model's constructor convert numbers and texts of NumPy's types, which PyTorch and JSON refuse."""
    construct: Any = cls.__init__

    @functools.wraps(construct)
    def convert(self: nn.Module, *arguments: Any, **named: Any) -> None:
        given = plain((arguments, named), keep=(Tensor, nn.Module))
        construct(self, *given[0], **given[1])

    cls.__init__ = convert  # type: ignore[method-assign]
    return cls
