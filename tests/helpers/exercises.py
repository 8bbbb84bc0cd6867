"""Read a lesson, and work through its exercises: as they stand, solved, and with wrong answers."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Exercise:
    """A cell that ends in ``check(...)``, and the code of the folded solution below it, or None without one."""

    cell: str
    solution: str | None


def cells(source: str) -> list[tuple[str, str]]:
    """Split a lesson after its docstring into pairs of the text of a block and the code below it."""
    pairs = []
    for block in re.split(r"^# %%.*\n", source, flags=re.MULTILINE)[1:]:
        text = re.match(r"(#.*\n)*", block)[0]
        pairs.append((re.sub("^# ?", "", text, flags=re.MULTILINE), block[len(text) :].strip()))
    return pairs


def exercises(source: str) -> list[Exercise]:
    """Return the exercises of a lesson."""
    pairs = cells(source)
    found = []
    for (_, code), (text, _) in zip(pairs, [*pairs[1:], ("", "")], strict=True):
        if any(is_check(each) for each in ast.parse(code).body):
            solution = re.search(
                r"\.\. dropdown:: Solution\n(?:.*\n)*?   \.\. code-block:: python\n((?:      .*\n|\n)*)", text
            )
            found.append(Exercise(code, textwrap.dedent(solution[1]).strip() if solution else None))
    return found


def is_check(statement: ast.stmt) -> bool:
    """Return whether a statement is ``check(...)``."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check"


def open_names(statement: ast.stmt) -> list[str]:
    """Return the names to which a statement assigns ``...``."""
    dots = isinstance(statement, ast.Assign) and getattr(statement.value, "value", None) is ...
    return (
        [node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        if dots
        else []
    )


def run_cell(cell: str, names: dict[str, Any], instead: Callable[[], None] | None = None) -> list[bool | None]:
    """Run an exercise's cell, with something else in place of its open answers, and return what its checks return."""
    checks = []
    for statement in ast.parse(cell).body:
        if is_check(statement):
            checks.append(eval(compile(ast.Expression(statement.value), "<check>", "eval"), names))
        elif instead and open_names(statement):
            instead()
        else:
            exec(compile(ast.Module([statement], []), "<cell>", "exec"), names)
    return checks


@contextlib.contextmanager
def restored(names: dict[str, Any]) -> Iterator[None]:
    """Run code in a namespace, then make that what it was; what the code prints is dropped."""
    before = dict(names)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        names.clear()
        names.update(before)


def wrong(value: Any) -> Any:
    """Return another answer of the same kind."""
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, int | float | np.number):
        return value * 1.5 + 1 if value != -2 else 0
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list | tuple):
        return type(value)([*reversed(value), 0])
    if isinstance(value, dict):
        return {key: wrong(each) for key, each in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        return ~value if value.dtype in (torch.bool, np.bool_) else value + 1
    return (lambda *given, **named: wrong(value(*given, **named))) if callable(value) else 1


def faults(exercise: Exercise, names: dict[str, Any]) -> list[str]:
    """Return what is wrong with an exercise, in the namespace that its lesson leaves; nothing if it is right."""
    if exercise.solution is None:
        return ["it has no solution"]
    answers = [name for statement in ast.parse(exercise.cell).body for name in open_names(statement)]
    found = [] if answers else ["its cell assigns ... to no name"]

    def solve() -> None:
        exec(compile(exercise.solution, "<solution>", "exec"), names)

    def solve_wrongly(name: str) -> None:
        solve()
        names[name] = wrong(names[name])

    with restored(names):
        if set(run_cell(exercise.cell, names)) != {None}:
            found.append("its check does not wait for an answer")
    with restored(names):
        if set(run_cell(exercise.cell, names, solve)) != {True}:
            found.append("its solution is not right")
    for name in answers:
        with restored(names):
            if False not in run_cell(exercise.cell, names, lambda name=name: solve_wrongly(name)):
                found.append(f"a wrong {name} is not found")
    return found


def all_faults(lesson: Path, names: dict[str, Any]) -> list[str]:
    """Return what is wrong with the exercises of a lesson, in the namespace that it leaves."""
    each = enumerate(exercises(lesson.read_text(encoding="utf-8")), 1)
    return [f"exercise {number}: {fault}" for number, exercise in each for fault in faults(exercise, names)]
