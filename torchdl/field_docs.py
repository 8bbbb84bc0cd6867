"""Let ``help`` of a dataclass show what its fields mean; Python keeps no docstrings of attributes."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


class FieldDocs:
    """A class's docstring with a list of its fields, read from the source once somebody asks for it."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls, self.own = cls, cls.__doc__ or ""

    def __get__(self, instance: object, owner: type[Any]) -> str:
        return self.text

    @cached_property
    def text(self) -> str:
        """The docstring; the class's own if there is no source."""
        found: dict[str, str] = {}
        for cls in filter(dataclasses.is_dataclass, reversed(self.cls.__mro__)):
            try:
                body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
            except OSError:
                return self.own
            for field, text in pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[field.target.id] = " ".join(text.value.value.split())  # type: ignore[union-attr,attr-defined]
        known = [f"    {each.name}: {found[each.name]}" for each in dataclasses.fields(self.cls) if each.name in found]
        before, example, after = inspect.cleandoc(self.own).partition("Example:\n")
        return "\n".join([before.rstrip(), "", "Args:", *known, "", example + after]).rstrip()


def with_field_docs(cls: T) -> T:
    """Add the docstrings of the fields of ``cls``, a dataclass, to its own; they cost nothing until they are read."""
    cls.__doc__ = FieldDocs(cls)  # type: ignore[assignment]
    return cls
