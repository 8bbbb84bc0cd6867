"""COURSE.md has a row for every lecture and every script, names every lesson, and names only what exists."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
from helpers.registry import ROOT, parse_script

TEXT = (ROOT / "COURSE.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([^`]+)`", TEXT)) - {"python scripts/"})
#: Scripts that belong to no lecture.
OTHERS = {"benchmark.py", "compare.py", "embed.py", "export.py", "find_lr.py", "predict.py", "reproduce.py"}


def find(name: str) -> object:
    """Return what a name in COURSE.md stands for: a command, a file or a name in torchdl; raise if it is none."""
    if re.match(r"[a-z_]+\.py\b", name):
        script, *arguments = shlex.split(name)
        if arguments != ["--help"]:
            return parse_script([script, *arguments])
        assert (ROOT / "scripts" / script).is_file()
        return script
    if "/" in name or (ROOT / name).is_file():
        assert (ROOT / name).exists()
        return name
    parts = name.split(".")
    assert parts[0] == "torchdl"
    for number in range(len(parts), 0, -1):
        module = ".".join(parts[:number])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(str(error.name)):  # a module that exists, with a broken import
                raise
            continue
        for part in parts[number:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_table_names_exists(name):
    find(name)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("train_nothing.py", FileNotFoundError),
        ("train_nothing.py --help", AssertionError),
        ("train_cnn.py --model resnet", SystemExit),
        ("train_gan.py --nothing", SystemExit),
        ("torchdl/nothing.py", AssertionError),
        ("torchdl.Nothing", AttributeError),
        ("torchdl.plots.plot_nothing", AttributeError),
        ("nothing", AssertionError),
    ],
)
def test_what_does_not_exist_is_an_error(name, error, capsys):
    with pytest.raises(error):
        find(name)


def test_every_lecture_has_a_row():
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    assert [int(n) for n in re.findall(r"^\| Section (\d+)\.", TEXT, re.MULTILINE)] == list(range(2, 12))
    assert [n for n in range(6, 71) if not any(re.search(rf"\b{n}\. [A-Z]", row) for row in rows)] == []
    for row in rows:
        _, heading, _, here, _ = row.split("|")
        assert heading.strip()
        assert here.strip()


def test_every_lesson_is_named_and_every_lecture_has_one():
    lessons = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "lessons").glob("[0-9][0-9]_*.py")}
    linked = re.findall(r"\[(\d\d)\]\((docs/lessons/(\d\d)_\w+\.py)\)", TEXT)
    assert {path for _, path, _ in linked} == lessons
    assert all(number == named for number, _, named in linked)
    rows = [row.split("|") for row in TEXT.split("## The Keras CPC")[0].splitlines() if re.match(r"\| \d+\. ", row)]
    assert [heading for _, heading, lesson, *_ in rows if "docs/lessons" not in lesson] == []


def test_every_script_is_named():
    scripts = {path.name for path in (ROOT / "scripts").glob("*.py")} - OTHERS
    assert sorted(name for name in scripts if not re.search(rf"`{re.escape(name)}\b", TEXT)) == []
