"""The table of the course names only what is there."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
from helpers import ROOT, parse_script

NAMED = sorted(set(re.findall(r"`([^`]+)`", (ROOT / "COURSE.md").read_text(encoding="utf-8"))))
PLACES = {"python scripts/"}


def find(name: str) -> object:
    """Find what a name in the table stands for; an error where there is no such thing."""
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
    assert parts[0] == "torchdl", f"{name!r} is no script, no file and no name in torchdl"
    for number in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        for part in parts[number:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


@pytest.mark.parametrize("name", [name for name in NAMED if name not in PLACES])
def test_what_the_table_of_the_course_names_is_there(name):
    find(name)


@pytest.mark.parametrize(
    "name",
    [
        "train_nothing.py",
        "train_cnn.py --model resnet",
        "train_gan.py --nothing",
        "torchdl/nothing.py",
        "torchdl.Nothing",
        "torchdl.plots.plot_nothing",
        "nothing",
    ],
)
def test_what_is_not_there_is_found_out(name, capsys):
    with pytest.raises((AssertionError, AttributeError, FileNotFoundError, SystemExit)):
        find(name)


def test_every_lecture_has_a_row():
    text = (ROOT / "COURSE.md").read_text(encoding="utf-8")
    lectures = [int(number) for number in re.findall(r"^\|.*?\b(\d+)\. \w", text, re.MULTILINE) if int(number) > 5]
    sections = [int(number) for number in re.findall(r"^\| Section (\d+)\.", text, re.MULTILINE)]
    assert sections == list(range(2, 12))
    assert [n for n in range(6, 71) if not re.search(rf"^\|.*\b{n}\. [A-Z]", text, re.MULTILINE)] == []
    assert len(lectures) >= 65
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") == 3
            assert len(line.split("|")[2].strip()) > 0


def test_the_table_is_of_every_script():
    text = (ROOT / "COURSE.md").read_text(encoding="utf-8")
    later = {"benchmark.py", "reproduce.py", "_clone.py"}
    missing = [
        path.name for path in (ROOT / "scripts").glob("*.py") if path.name not in {*later} and path.name not in text
    ]
    assert missing == []
