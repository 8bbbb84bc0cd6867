"""Every public name has an example in its docstring, and every example gives the output that it shows."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import inspect
import operator
import re
import socket
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import gaussian, write_pair
from PIL import Image

import torchdl
from torchdl import load_images

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
ROOT = Path(__file__).resolve().parent.parent
GLOBALS = {"torch": torch, "torchdl": torchdl}  # what an example may use without importing it
#: Names whose examples take more than a second, because they train.
SLOW = {"Stopped", "fit_model_cifar10", "fit_model_on"}


def read(docstring: str, name: str) -> doctest.DocTest:
    """Return the examples of a docstring."""
    return doctest.DocTestParser().get_doctest(docstring, dict(GLOBALS), name, None, None)


def definitions(path: Path) -> dict[str, Definition]:
    """Return what a Python file defines, and the file itself, by name, such as ``torchdl.data.vocabulary.pad``."""
    found: dict[str, Definition] = {}

    def walk(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = f"{name}.{child.name}" if hasattr(child, "name") else name
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found[inner] = child
            walk(child, inner)

    tree, module = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).with_suffix("").parts
    found[".".join(module)] = tree
    walk(tree, ".".join(module))
    return found


OBJECTS = {name: found for name in torchdl.__all__ if not isinstance(found := getattr(torchdl, name), ModuleType)}
PUBLIC = {f"{found.__module__}.{found.__qualname__}" for found in OBJECTS.values()}
# read from the files, because doctest's own search misses decorated functions
DEFINED = {name: node for path in (ROOT / "torchdl").rglob("*.py") for name, node in definitions(path).items()}
ALL = {name: ast.get_docstring(node) or "" for name, node in DEFINED.items()}
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
    section = (ROOT / "docs/guide/cpc.md").read_text(encoding="utf-8").split("## CPC on your own sequences")[1]
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


def public_names() -> dict[str, Any]:
    """Return the public classes and functions of torchdl and its modules, and the classes' methods, by name."""
    places = [torchdl, *(each for name in torchdl.__all__ if isinstance(each := getattr(torchdl, name), ModuleType))]
    found = {}
    for place in [*places, *(getattr(torchdl.recipes, name) for name in torchdl.recipes.__all__)]:
        for name in getattr(place, "__all__", None) or [name for name in vars(place) if not name.startswith("_")]:
            each = getattr(place, name)
            if not ((inspect.isclass(each) or inspect.isfunction(each)) and each.__module__.startswith("torchdl.")):
                continue
            path = f"{each.__module__}.{each.__qualname__}"
            found[path] = each
            methods = [name for name in vars(each) if not name.startswith("_")] if inspect.isclass(each) else []
            found |= {f"{path}.{name}": getattr(each, name) for name in methods}
    return found


def arguments(each: Any) -> list[str]:
    """Return the arguments that help must explain: not of what others have written, nor a method's only argument."""
    if inspect.isclass(each):  # dataclasses have a test of their own
        maker = next(cls for cls in each.__mro__ if {"__init__", "_fields"} & set(vars(cls)))
        if dataclasses.is_dataclass(each) or not maker.__module__.startswith("torchdl."):
            return []
    elif not (inspect.isfunction(each) or inspect.ismethod(each)):
        return []
    parameters = inspect.signature(each).parameters.values()
    passed_on = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [one.name for one in parameters if one.name != "self" and one.name[0] != "_" and one.kind not in passed_on]
    is_method = not inspect.isclass(each) and "." in each.__qualname__
    return names if len(names) > 1 or not is_method else []


def unexplained(each: Any) -> list[str]:
    """List the arguments that the docstring does not name, nor one to which it refers by "As :func:`name`"."""
    text = inspect.getdoc(each) or ""
    others = tuple("." + name.removeprefix("torchdl.") for name in re.findall(r"\bAs :\w+:`([\w.]+)`", text))
    text += "".join(found for name, found in ALL.items() if others and name.endswith(others))
    # the first word of a sentence has a capital letter; but N is not n
    return [name for name in arguments(each) if not re.search(rf"\b{name}\b", text, re.I if len(name) > 1 else 0)]


def test_help_names_every_argument():
    def add(one, other, x):
        """Add one to X."""

    assert unexplained(add) == ["other", "x"]
    assert {name: missing for name, each in public_names().items() if (missing := unexplained(each))} == {}


def raises_input_error(name: str) -> bool:
    """Return whether a function, or a class's ``__init__``, raises InputError itself."""
    is_class = isinstance(DEFINED[name], ast.ClassDef)
    node = DEFINED.get(f"{name}.__init__") if is_class else DEFINED[name]
    called = {
        call.func.id for call in ast.walk(node or ast.Pass()) if isinstance(call, ast.Call) and hasattr(call.func, "id")
    }
    return bool(called & {"require", "InputError"})


def test_help_says_where_input_error_is_raised():
    names = [name for name in public_names() if name in DEFINED and raises_input_error(name)]
    assert {"torchdl.models.mlp.MLP", "torchdl.data.digits.load_digits", "torchdl.models.gan.GAN.forward"} <= set(names)
    said = re.compile(r"Raises:\n +InputError|[Rr]aise :class:`InputError`")
    assert [name for name in names if not said.search(ALL[name])] == []


GUIDE = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/guide").glob("*.md"))}
NOTEBOOK = [
    block.split("```")[0]
    for page in ("notebooks", "coming_from_keras")
    for block in GUIDE[page].split("```python\n")[1:]
]


@pytest.mark.parametrize("page", GUIDE)
def test_every_name_of_torchdl_in_the_guide_exists(page):
    for name in re.findall(r"\btorchdl(?:\.\w+)+", GUIDE[page]):
        operator.attrgetter(name.removeprefix("torchdl."))(torchdl)


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
@pytest.mark.parametrize("code", NOTEBOOK)
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
