"""Every public name has an example in its docstring, and every example gives the output that it shows."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import re
import socket
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import gaussian, write_pair
from PIL import Image

import torchdl
from torchdl import load_images

ROOT = Path(__file__).resolve().parent.parent
GLOBALS = {"torch": torch, "torchdl": torchdl}  # what an example may use without importing it
#: Names whose examples take more than a second, because they train.
SLOW = {"Stopped", "fit_model_cifar10", "fit_model_on"}


def read(docstring: str, name: str) -> doctest.DocTest:
    """Return the examples of a docstring."""
    return doctest.DocTestParser().get_doctest(docstring, dict(GLOBALS), name, None, None)


def docstrings(path: Path) -> dict[str, str]:
    """Return the docstrings of a Python file by the name of what they describe, such as ``torchdl.data.pad``."""
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


OBJECTS = {name: found for name in torchdl.__all__ if not isinstance(found := getattr(torchdl, name), ModuleType)}
PUBLIC = {f"{found.__module__}.{found.__qualname__}" for found in OBJECTS.values()}
# read from the files, because doctest's own search misses decorated functions
ALL = {name: text for path in (ROOT / "torchdl").rglob("*.py") for name, text in docstrings(path).items()}
OTHERS = {name for name, text in ALL.items() if ">>>" in text and name not in PUBLIC}


def mark(names: set[str]) -> list[object]:
    """Return names as parameters of a test, with a mark for the slow ones."""
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(names)]


def faults(test: doctest.DocTest) -> str:
    """Run a docstring's examples and return what is wrong with them; empty if nothing is."""
    if not any(example.want for example in test.examples):
        return "no example shows an output"
    if any(doctest.SKIP in example.options for example in test.examples):
        return "an example is skipped"
    output: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=output.append)
    return "".join(output)


@pytest.fixture
def isolated_examples(quick, tmp_path, monkeypatch):
    """Give examples no data, no network and no folder but a temporary one."""

    def refuse(*_):
        raise OSError("an example must not need the network")

    torch.manual_seed(0)
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("isolated_examples")
@pytest.mark.parametrize("name", mark(set(OBJECTS)))
def test_every_public_name_has_an_example_that_runs(name):
    assert faults(read(OBJECTS[name].__doc__ or "", name)) == ""


@pytest.mark.usefixtures("isolated_examples")
@pytest.mark.parametrize("name", mark(OTHERS))
def test_every_other_example_runs(name):
    assert faults(read(ALL[name], name)) == ""


@pytest.mark.slow
@pytest.mark.usefixtures("isolated_examples")
def test_the_guides_code_for_own_sequences_runs(tmp_path):
    for name in ("recordings", "frames"):
        (tmp_path / name).mkdir()
    for number in range(3):
        np.save(tmp_path / "recordings" / f"{number}.npy", gaussian(2, 1500, seed=number).numpy())
    for number in range(12):
        Image.new("L", (30, 30), 20 * number).save(tmp_path / "frames" / f"{number}.png")
    section = (ROOT / "GUIDE.md").read_text(encoding="utf-8").split("### CPC on your own sequences")[1]
    names = dict(GLOBALS)
    exec(section.split("```python")[1].split("```")[0], names)
    assert names["embeddings"].shape == (1500 // 16, 64)
    assert names["contexts"].shape == (len(names["sequences"]), 12, 64)
    assert names["frames"][0][0].shape == (4, 1, 28, 28)


def fields_without_help() -> list[str]:
    """List the fields of public dataclasses, those of recipes included, that ``help`` does not explain."""
    places = [
        torchdl,
        torchdl.data,
        torchdl.predict,
        *(getattr(torchdl.recipes, name) for name in dir(torchdl.recipes)),
    ]
    found = {each for place in places for name in dir(place) if isinstance(each := getattr(place, name), type)}
    return [
        f"{cls.__name__}.{field.name}"
        for cls in found | {each for each in OBJECTS.values() if isinstance(each, type)}
        if dataclasses.is_dataclass(cls) and cls.__module__.startswith("torchdl.")
        for field in dataclasses.fields(cls)
        if not re.search(rf"\b{field.name}\b", inspect.getdoc(cls) or "")
    ]


def test_help_explains_every_field_of_a_dataclass():
    assert "    clip_norm: Maximum norm" in inspect.getdoc(torchdl.Trainer)
    assert fields_without_help() == []


NOTEBOOK = (ROOT / "GUIDE.md").read_text(encoding="utf-8").split("## From a notebook")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def notebooks_folder(tmp_path_factory):
    """Make small data sets under the names that the guide's code for notebooks uses."""
    folder = tmp_path_factory.mktemp("notebook")
    digits = load_images("mnist_5k", "train")
    for split, part in (("train", slice(0, None, 10)), ("test", slice(1, None, 40))):
        write_pair(folder / "MNIST" / "raw", digits.images[part, 0].numpy(), digits.labels[part].numpy(), split)
    (folder / "recordings").mkdir()
    np.save(folder / "recordings" / "1.npy", gaussian(2, 6000).numpy())
    (folder / "texts.csv").write_text("message,kind\n" + "you won cash,spam\nsee you at home,ham\n" * 20)
    rows = [f"{user},{item},{1 + user * item % 5},0" for user in range(1, 20) for item in range(10)]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torchdl.errors.FallbackWarning")
@pytest.mark.usefixtures("isolated_examples")
@pytest.mark.parametrize("code", [block.split("```")[0] for block in NOTEBOOK.split("```python\n")[1:]])
def test_the_guides_code_for_notebooks_runs_and_writes_no_file(notebooks_folder, monkeypatch, code):
    monkeypatch.setenv("TORCHDL_DATA", str(notebooks_folder))
    monkeypatch.chdir(notebooks_folder)
    before = sorted(notebooks_folder.rglob("*"))
    assert len(code.split("\n")) <= 12  # ten lines, a blank one after imports, and the end
    short = code.replace("Trainer(epochs=", "Trainer(dry_run=True, epochs=").replace("epochs=15", "epochs=1")
    exec(short, dict(GLOBALS))
    assert sorted(notebooks_folder.rglob("*")) == before


def test_docstrings_are_found_in_every_file():
    assert set(ALL) >= PUBLIC
    assert {"torchdl.data.vocabulary.pad", "torchdl.data.vocabulary.tokenize"} <= OTHERS
    assert {"torchdl.losses", "torchdl.models.gan.GAN.generate_samples"} <= set(ALL)
    assert not SLOW - set(OBJECTS) - OTHERS


@pytest.mark.parametrize(
    ("example", "fault"),
    [
        (">>> 1 + 1\n3\n", "Expected:\n    3\nGot:\n    2"),
        (">>> 1 + 1  # doctest: +SKIP\n2\n", "an example is skipped"),
        ("No example.\n", "no example"),
        (">>> two = 1 + 1\n", "no example"),
        (">>> nn.Linear(1, 1).bias.shape\ntorch.Size([1])\n", "NameError"),  # only torch and torchdl are there
        ('>>> torchdl.load("nowhere")\nTraceback (most recent call last):\n    ...\nInputError: no\n', "nowhere"),
        (
            '>>> import urllib.request as r\n>>> r.urlopen("http://127.0.0.1").status\n200\n',
            "must not need the network",
        ),
    ],
    ids=["output", "skipped", "none", "no output", "unknown name", "error", "network"],
)
@pytest.mark.usefixtures("isolated_examples")
def test_a_wrong_example_is_found(example, fault):
    assert fault in faults(read(example, "wrong"))
