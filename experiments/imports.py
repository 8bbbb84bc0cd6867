"""Which files of this repository a script depends on, and a hash of their code.

This module follows imports, including those inside functions, without running anything. A name that a package only
re-exports (``torchdl.GAN``, ``from torchdl import GAN``) leads to the file that defines it, by the import lists of the
package's ``__init__.py`` or ``__init__.pyi``. So a script depends on what it uses, not on the whole package. (``grimp``
builds such graphs of modules, but handles neither scripts nor re-exported names.)

The hash is of the syntax trees without the docstrings of modules, classes and functions. So these docstrings, comments
and line breaks do not count; messages and docstrings of attributes do.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IGNORED = ("ctx", "kind", "type_comment")  # fields of nodes that depend on Python's version or mean nothing here


def hash_code(scripts: Sequence[str], root: Path = ROOT) -> str:
    """Hash the code of scripts, given by their names in ``scripts/``, and of all files that they depend on."""
    found: set[Path] = set()
    for script in scripts:
        found |= files_of(script, root)
    trees = [[path.relative_to(root).as_posix(), tree_hash(path)] for path in sorted(found)]
    return hashlib.sha256(json.dumps(trees).encode()).hexdigest()[:16]


@cache
def files_of(script: str, root: Path = ROOT) -> frozenset[Path]:
    """Return a script and the files that it depends on."""
    found: set[Path] = set()
    todo = [root / "scripts" / script]
    while todo:
        path = todo.pop()
        if path not in found and path.is_file():
            found.add(path)
            todo += dependencies(path, root)
    return frozenset(found)


@cache
def parse(path: Path) -> ast.Module:
    """Parse a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def tree_hash(path: Path) -> str:
    """Hash a file's syntax tree, in a form that is the same for every version of Python."""
    return hashlib.sha256(json.dumps(plain(parse(path))).encode()).hexdigest()


def plain(node: Any) -> Any:
    """Turn a syntax tree into lists and strings, without docstrings and empty fields."""
    if isinstance(node, list):
        return [plain(each) for each in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in IGNORED}
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        fields["body"] = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return [type(node).__name__, {name: plain(value) for name, value in fields.items() if value not in (None, [])}]


# Imports


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return a file's syntax nodes, without the parts that only type checkers read."""
    found: list[ast.AST] = []
    todo: list[ast.AST] = [parse(path)]
    while todo:
        node = todo.pop()
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            found.append(node)
            todo += ast.iter_child_nodes(node)
    return tuple(found)


@cache
def dependencies(path: Path, root: Path) -> set[Path]:
    """Return the repository's files that a file imports, and the scripts that a script names."""
    modules, found = imports(path, root)
    for node in nodes(path):
        if isinstance(node, ast.Attribute):
            dotted = chain(node)
            if dotted and dotted[0] in modules:
                found |= resolve(".".join([modules[dotted[0]], *dotted[1:]]), root)
        elif path.parent.name == "scripts" and isinstance(node, ast.Constant) and isinstance(node.value, str):
            started = path.parent / node.value
            found |= {started} if node.value.endswith(".py") and started.is_file() else set()
    return found


def imports(path: Path, root: Path) -> tuple[dict[str, str], set[Path]]:
    """Return the modules that a file's imports bind to names, and the files of the names that it imports."""
    bound: dict[str, str] = {}
    found: set[Path] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                bound[alias.asname or first] = alias.name if alias.asname else first
                found |= resolve(alias.name, root) if "." in alias.name else plain_module(alias.name, path, root)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{source_of(node, path, root)}.{alias.name}"
                if module_file(name, root) is not None:
                    bound[alias.asname or alias.name] = name
                found |= resolve(name, root)
    return bound, found


def plain_module(name: str, path: Path, root: Path) -> set[Path]:
    """Return the file of ``import name``, beside a script or of a module; a package adds none, its used names do."""
    beside = path.parent / f"{name}.py"
    if path.parent.name == "scripts" and beside.is_file():
        return {beside}
    file = module_file(name, root)
    return {file} if file is not None and file.name != "__init__.py" else set()


def source_of(node: ast.ImportFrom, path: Path, root: Path) -> str:
    """Return the absolute dotted name of the module in a ``from ... import``."""
    parts = list(path.relative_to(root).parent.parts)
    base = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def chain(node: ast.AST) -> list[str]:
    """Return ``["a", "b", "c"]`` for ``a.b.c``."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def module_file(name: str, root: Path) -> Path | None:
    """Return a module's file, or a package's ``__init__.py``; None if this repository has none."""
    place = root.joinpath(*name.split("."))
    files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def resolve(name: str, root: Path) -> frozenset[Path]:
    """Return the files that define a dotted name: a module, or a name that a package re-exports."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        file = module_file(module, root)
        if file is None:
            continue
        if file.name != "__init__.py":
            return frozenset({file})
        if length == len(parts):
            return frozenset()  # a package itself adds no file; its used names do
        wanted = parts[length]
        if wanted.startswith("__"):
            return frozenset()
        passed = passed_on(file, root)
        if wanted == "*":
            return frozenset().union(*(resolve(source, root) for source in passed.values()))
        if wanted in passed:
            return resolve(".".join([passed[wanted], *parts[length + 1 :]]), root)
        return frozenset({file})  # the package's own file defines the name
    return frozenset()


@cache
def passed_on(init: Path, root: Path) -> dict[str, str]:
    """Return the names that a package re-exports, with the dotted name that each comes from."""
    found: dict[str, str] = {}
    for file in (init, init.with_suffix(".pyi")):
        for node in ast.walk(parse(file)) if file.is_file() else ():
            if isinstance(node, ast.ImportFrom):
                source = source_of(node, init, root)
                if module_file(source, root) is not None:
                    found |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
    return found
