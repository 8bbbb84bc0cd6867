"""The exercises' ``check`` tells right answers from wrong ones, and says what is off without giving the answer away."""

from __future__ import annotations

import atexit
import importlib
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from torchdl.plots.figure import new_figure


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs" / "lessons")
    return importlib.import_module("check").check


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (2, 2.0),
        (0.33333, 1 / 3),
        (np.float32(0.1), 0.1),
        ("relu", "relu"),
        (True, True),
        ([1, 2, 3], [1, 2, 3]),
        ((3, 4), [3, 4]),
        (torch.tensor([1.0, 2.0], requires_grad=True), np.array([1, 2])),
        (torch.Size([2, 3]), (2, 3)),
        (abs, lambda f: f(-2) == 2),
    ],
)
def test_a_right_answer_is_right(check, capsys, answer, wanted):
    assert check(answer, wanted, hint="A hint.") is True
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("answer", "wanted", "said"),
    [
        (2, 3, "it is too small"),
        (0.34, 1 / 3, "it is too large"),
        (0, 1e-5, "it is too small"),
        ("tanh", "relu", "it is something else"),
        (False, True, "it is something else"),
        ("3", 3, "a number is wanted"),
        ([1, 2], [1, 2, 3], "its shape is (2,), but (3,) is wanted"),
        ([1, 3, 3], [1, 2, 3], "1 of 3 numbers differ, the first at (1,)"),
        (float("nan"), 1.0, "it is too large"),
        (abs, lambda f: f(-2) == -2 or "abs(-2) is not -2", "abs(-2) is not -2"),
        (abs, lambda f: f(-2) == -2, "it is something else"),
        (abs, lambda f: f("x") == 2, "it raises TypeError: bad operand type for abs(): 'str'"),
    ],
)
def test_a_wrong_answer_is_wrong(check, capsys, answer, wanted, said):
    assert check(answer, wanted, hint="A hint.") is False
    assert capsys.readouterr().out == f"Not yet: {said}. A hint.\n"


def test_an_open_answer_is_neither(check, capsys):
    assert check(..., 3) is None
    assert capsys.readouterr().out == "Your turn: replace the three dots.\n"


def test_the_tolerance_is_relative_and_can_be_set(check):
    assert check(1001, 1000.0)
    assert not check(1003, 1000.0)
    assert check(1003, 1000.0, close=0.01)
    assert check(0.25**10, 0.25**10)
    assert not check(0, 0.25**10)


def test_whole_numbers_are_exact(check):
    assert check(36866.0, 36866)
    assert not check(36864, 36866)


def test_beside_zero_the_largest_number_sets_the_tolerance(check):
    assert check([1e-4, 1000], [0.0, 1000])
    assert not check([0.01, 1000], [0.0, 1000])
    assert check(1e-10, 0.0)
    assert not check(1e-8, 0.0)


@pytest.fixture
def script(check, monkeypatch):
    """Return the module of ``check`` as in a lesson that runs as a script."""
    module = importlib.import_module("check")
    monkeypatch.setattr(
        sys.modules["__main__"], "__file__", str(Path(module.__file__).parent / "01_x.py"), raising=False
    )
    monkeypatch.delitem(sys.modules, "sphinx_gallery", raising=False)
    monkeypatch.setattr(module, "NUMBERS", itertools.count(1))
    return module


def test_a_script_names_the_exercise(script, capsys):
    script.check(..., 3)
    script.check(3, 3)
    found = re.sub(r"line \d+", "line N", capsys.readouterr().out)
    assert found == "Exercise 1 (line N): Your turn: replace the three dots.\nExercise 2 (line N): Right.\n"


def test_a_script_saves_every_figure(script, monkeypatch, tmp_path, capsys):
    ends = []
    monkeypatch.setattr(script, "PICTURES", tmp_path / "runs")
    monkeypatch.setattr(atexit, "register", ends.append)
    monkeypatch.setattr(sys, "argv", ["docs/lessons/01_x.py"])
    monkeypatch.setattr(Figure, "__init__", Figure.__init__)  # is undone
    script.save_figures()
    Figure()  # without a panel
    Figure(figsize=(1, 1)).subplots().plot([1, 2])  # shown in a notebook alone
    new_figure(1, 1).subplots().plot([1, 2])
    ends[0]()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["01-1.png", "01-2.png"]
    assert capsys.readouterr().out == f"2 pictures in {tmp_path / 'runs'}: 01-1.png, 01-2.png\n"
