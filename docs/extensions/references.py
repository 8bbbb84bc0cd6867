"""Resolve references to names of Python as docstrings write them; a name that does not exist stays a warning.

Docstrings and annotations say ``BatchLoader``, ``torchdl.data.BatchLoader`` or ``torchdl.data.loader.BatchLoader``; the
page of all three is that of ``torchdl.BatchLoader``. Names that exist but have no page, such as those of type variables
and of other libraries, become plain code.
"""

from __future__ import annotations

import importlib
import re
import sys
from functools import cache
from typing import Any

from api_pages import AREAS, find, names_of
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


@cache
def pages_of_objects() -> dict[int, str]:
    """Return the names that have pages of their own, by the identity of what they stand for."""
    return {id(find(name)): name for area in AREAS for name in names_of(area)}


def look_up(path: str, places: list[Any]) -> Any:
    """Return what a dotted path stands for in the first of some modules that knows it, or None."""
    for place in places:
        found = place
        for part in path.split("."):
            fields = getattr(found, "__annotations__", {})  # those of dataclasses have no value, or may have None
            found = fields.get(part) or getattr(found, part, None)
            if found is None:
                break
        else:
            return found
    return None


def imported(path: str) -> Any:
    """Return what an absolute dotted path stands for, or None."""
    parts = path.split(".")
    for number in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:number]))
        except ImportError:
            continue
        return look_up(".".join(parts[number:]), [module]) if number < len(parts) else module
    return None


def meant(target: str, module: str | None) -> Any:
    """Return what a reference means: in its own module, in torchdl, absolutely, or in any module of torchdl."""
    own = [sys.modules[name] for name in sorted(sys.modules) if name.split(".")[0] == "torchdl"]
    own = [each for each in own if each is not None]
    near = [sys.modules[module]] if module in sys.modules else []
    found = look_up(target, [*near, sys.modules["torchdl"]])
    found = imported(target) if found is None else found
    return look_up(target, own) if found is None else found


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement) -> nodes.Element | None:
    """Return a link to the page of a name of Python; its text alone if it has none; None if there is no such name."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].lstrip("~.").removesuffix("()")
    role = isinstance(text, nodes.literal)  # not an annotation, nor what napoleon takes for one
    if not re.fullmatch(r"\w+(\.\w+)*", target):
        return None if role else text
    documented = env.domains.python_domain.objects
    owner, _, last = target.rpartition(".")
    for path, rest in ((target, ""), (owner, f".{last}")) if owner else ((target, ""),):
        found = meant(path, node.get("py:module"))
        name = pages_of_objects().get(id(found), "") + rest if found is not None else ""
        if name in documented:
            entry = documented[name]
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, name)
    attribute = f"{node.get('py:class')}.{target}"  # of the class whose docstring it is
    known = not role or any(meant(path, node.get("py:module")) is not None for path in (target, attribute))
    return text if known else None


def open_properties(app: Sphinx, kind: str, name: str, each: Any, options: Any, lines: list[str]) -> None:
    """Begin a property's docstring with a blank line, or napoleon takes what is before its first colon for a type."""
    if kind in ("property", "attribute", "data") and lines:
        lines.insert(0, "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", open_properties, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
