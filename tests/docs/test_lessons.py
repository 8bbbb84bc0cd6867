"""Every lesson has its parts, its notebook runs in an empty folder, and its exercises tell right from wrong."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest
from helpers.exercises import Exercise, cells, exercises, faults

DOCS = Path(__file__).parents[2] / "docs"
LESSONS = sorted((DOCS / "lessons").glob("[0-9][0-9]_*.py"))
PARTS = ("by hand", "with torchdl", "what breaks", "exercise", "where next")
PACKAGES = {"check", "matplotlib", "mlxtend", "numpy", "pandas", "PIL", "safetensors", "scipy", "sklearn", "torch"}
PACKAGES |= {"torchdl", "torchvision", *sys.stdlib_module_names}
each_lesson = pytest.mark.parametrize("lesson", [pytest.param(path, id=path.stem) for path in LESSONS])


def missing(source: str) -> list[str]:
    """Return what the source of a lesson lacks, or has too much of."""
    tree = ast.parse(source)
    found = [] if re.match(r"\S.*\n=+\n", ast.get_docstring(tree) or "") else ["a title underlined with ="]
    headings = [heading for text, _ in cells(source) for heading in re.findall(r"^(\S.*)\n-+$", text, re.MULTILINE)]
    found += [part for part in PARTS if not any(part in heading.lower() for heading in headings)]
    read = re.sub(r"# \.\. dropdown:: Solution\n(#.*\n?)*", "", source)  # what every reader sees
    if not 100 <= sum(line.strip("#% ") != "" for line in read.splitlines()) <= 320:
        found.append("100 to 320 lines that are not empty")
    tasks = exercises(source)
    if not 2 <= len(tasks) <= 4 or None in [task.solution for task in tasks]:
        found.append("2 to 4 exercises with solutions")
    nodes = list(ast.walk(tree))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in modules}
    return found + [f"no import of {name}" for name in sorted(packages - PACKAGES)]


@each_lesson
def test_a_lesson_has_its_parts(lesson):
    assert missing(lesson.read_text(encoding="utf-8")) == []


def test_missing_parts_are_found():
    assert missing('"""A title."""\n\nimport helpers.exercises\n\n# %%\n# By hand\n# -------\n\ncheck(1, 1)\n') == [
        "a title underlined with =",
        *PARTS[1:],
        "100 to 320 lines that are not empty",
        "2 to 4 exercises with solutions",
        "no import of helpers",
    ]


def test_faults_of_exercises_are_found(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "lessons")
    check = importlib.import_module("check").check
    names = {"check": check, "two": 2}
    assert faults(Exercise("x = ...\ncheck(x, two)", "x = 1 + 1"), names) == []
    assert faults(Exercise("f = ...\ncheck(f, lambda f: f(2) == 4)", "def f(x):\n    return two * x"), names) == []
    assert faults(Exercise("x = ...\ncheck(x, two)", "x = 3"), names) == ["its solution is not right"]
    assert faults(Exercise("x = ...\ncheck(x, lambda x: True)", "x = 3"), names) == ["a wrong x is not found"]
    assert faults(Exercise("check(1, 1)", "x = 3"), names)[:2] == [
        "its cell assigns ... to no name",
        "its check does not wait for an answer",
    ]
    assert faults(Exercise("x = ...\ncheck(x, two)", None), names) == ["it has no solution"]
    assert names == {"check": check, "two": 2}


@pytest.mark.lessons
@each_lesson
def test_a_lessons_notebook_runs_alone_and_its_exercises_tell_right_from_wrong(lesson, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.syspath_prepend(DOCS / "extensions")
    notebook = nbformat.from_dict(importlib.import_module("notebooks").notebook_of(lesson))
    nbformat.validate(notebook)
    tests = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); from pathlib import Path\n"
    tests += f"from helpers.exercises import all_faults; all_faults(Path({str(lesson)!r}), globals())"
    notebook.cells.append(nbformat.v4.new_code_cell(tests))
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises an error where a cell does
    assert notebook.cells[-1].outputs[-1].data["text/plain"] == "[]"
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["check.py"]
