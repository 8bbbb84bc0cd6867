"""Every public name has an example in its docstring, and every example in a docstring gives what it says."""

from __future__ import annotations

import ast
import doctest
import socket
import tempfile
from pathlib import Path

import pytest
import torch

import torchdl

ROOT = Path(__file__).resolve().parent.parent
GLOBALS = {"torch": torch, "torchdl": torchdl}  # what a reader has imported


def read(docstring: str, name: str) -> doctest.DocTest:
    """Take the examples out of a docstring."""
    return doctest.DocTestParser().get_doctest(docstring, dict(GLOBALS), name, None, None)


def docstrings(path: Path) -> dict[str, str]:
    """Give the docstrings of a file of Python by what they describe, as in ``torchdl.data.pad``."""
    found = {}

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = f"{name}.{child.name}" if hasattr(child, "name") else name
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found[inner] = ast.get_docstring(child) or ""
            walk(child, inner)

    tree, module = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).with_suffix("").parts
    found[".".join(module)] = ast.get_docstring(tree) or ""
    walk(tree, ".".join(module))
    return found


PUBLIC = {f"{obj.__module__}.{obj.__qualname__}" for obj in map(torchdl.__dict__.get, torchdl.__all__)}
# from the files, for what a decorator hides from doctest's own search
ALL = {name: text for path in (ROOT / "torchdl").rglob("*.py") for name, text in docstrings(path).items()}
OTHERS = sorted(name for name, text in ALL.items() if ">>>" in text and name not in PUBLIC)


def faults(test: doctest.DocTest) -> str:
    """Run a docstring's examples, and say what is wrong with them; nothing if all is well."""
    if not any(example.want for example in test.examples):
        return "there is no example that shows what comes out"
    if any(doctest.SKIP in example.options for example in test.examples):
        return "an example is skipped"
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


@pytest.fixture
def apart(quick, tmp_path, monkeypatch):
    """Take the data, the network and the way to other folders away."""

    def refuse(*_):
        raise OSError("an example must not need the network")

    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("name", torchdl.__all__)
def test_every_public_name_has_an_example_that_runs(name):
    assert faults(read(getattr(torchdl, name).__doc__ or "", name)) == ""


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_example_runs(name):
    assert faults(read(ALL[name], name)) == ""


def test_docstrings_are_found_wherever_they_stand():
    assert set(ALL) >= PUBLIC
    assert {"torchdl.data.vocabulary.pad", "torchdl.data.vocabulary.tokenize"} <= set(OTHERS)
    assert {"torchdl.losses", "torchdl.models.gan.GAN.generate_samples"} <= set(ALL)


@pytest.mark.parametrize(
    ("example", "fault"),
    [
        (">>> 1 + 1\n3\n", "Expected:\n    3\nGot:\n    2"),
        (">>> 1 + 1  # doctest: +SKIP\n2\n", "an example is skipped"),
        ("No example.\n", "there is no example"),
        (">>> two = 1 + 1\n", "there is no example"),
        (">>> nn.Linear(1, 1).bias.shape\ntorch.Size([1])\n", "NameError"),  # torch and torchdl alone are there
        ('>>> torchdl.load("nowhere")\nTraceback (most recent call last):\n    ...\nInputError: no\n', "holds no"),
        (
            '>>> import urllib.request as r\n>>> r.urlopen("http://127.0.0.1").status\n200\n',
            "must not need the network",
        ),
    ],
    ids=["output", "skipped", "none", "no output", "unknown name", "error", "network"],
)
@pytest.mark.usefixtures("apart")
def test_an_example_that_is_wrong_is_found(example, fault):
    assert fault in faults(read(example, "wrong"))
