"""Write the pages of the API from what the code exports: a page an area, and one for each class and function."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from sphinx.application import Sphinx

import torchdl


@dataclass(frozen=True)
class Area:
    """A page, and the modules whose names it lists; the names of ``whole`` modules are explained on the page itself."""

    name: str
    title: str
    text: str
    modules: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


AREAS = (
    Area("data", "Data", "Where batches come from.", ("torchdl.data",)),
    Area("models", "Models", "Tensors in, tensors out.", ("torchdl.models",)),
    Area("losses", "Losses", "Functions of tensors.", whole=("torchdl.losses",)),
    Area("tasks", "Tasks", "A model, its losses and its optimizers, for the trainer.", ("torchdl.tasks",)),
    Area(
        "training",
        "Training",
        "The trainer, what it returns and what it raises, and loggers.",
        ("torchdl.training", "torchdl.loggers", "torchdl.history", "torchdl.errors"),
    ),
    Area("callbacks", "Callbacks", "What takes part in a training beside its task.", ("torchdl.callbacks",)),
    Area(
        "predict",
        "Prediction",
        "A trained model on raw inputs: photographs, tables, texts or series.",
        ("torchdl.predict", "torchdl.artifacts", "torchdl.features", "torchdl.forecasts"),
    ),
    Area("metrics", "Metrics", "Measures other than losses.", ("torchdl.metrics",)),
    Area("plots", "Plots", "Every function returns its figure, and saves it if given a path.", ("torchdl.plots",)),
    Area("pictures", "Pictures", "Tensors as files of pixels.", whole=("torchdl.pictures",)),
    Area("latent", "Latent space", "The noise of a generator.", whole=("torchdl.latent",)),
    Area("convolution", "Convolution", "Convolution in plain steps.", whole=("torchdl.convolution",)),
    Area("keras", "Keras", "Files of Keras, and the function names of its sources.", ("torchdl.keras",)),
    Area("processes", "Processes", "Several processes.", whole=("torchdl.collective",)),
    Area("random", "Random numbers", "Draws without a state.", whole=("torchdl.random",)),
    Area("fast", "Compiled functions", "Functions as graphs of a GPU.", whole=("torchdl.fast.graphs",)),
)


def public_names(module: ModuleType) -> list[str]:
    """Return the public names of a module: its ``__all__``, or what it defines itself; no modules."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name, each in vars(module).items() if getattr(each, "__module__", None) == module.__name__]
    return sorted(
        (name for name in names if name[0] != "_" and not isinstance(getattr(module, name), ModuleType)), key=str.lower
    )


def top_names() -> dict[int, str]:
    """Return the names of torchdl itself by the identity of what they stand for."""
    return {id(getattr(torchdl, name)): name for name in public_names(torchdl)}


def names_of(area: Area) -> list[str]:
    """Return the full names of an area, each once: ``torchdl.MLP``, but ``torchdl.data.pad``."""
    top = top_names()
    found: dict[str, None] = {}  # in order, each once
    for module in map(importlib.import_module, area.modules):
        package = hasattr(module, "__path__")
        for name in public_names(module):
            if id(getattr(module, name)) in top:
                found[f"torchdl.{top[id(getattr(module, name))]}"] = None
            elif package:
                found[f"{module.__name__}.{name}"] = None
    for name in public_names(torchdl):
        home = str(getattr(getattr(torchdl, name), "__module__", ""))
        if home in area.modules or home.startswith(tuple(f"{each}." for each in area.modules)):
            found[f"torchdl.{name}"] = None
    return sorted(found, key=lambda name: (name.count(".") > 1, name.lower()))


def explained() -> Iterator[tuple[str, str]]:
    """Return the names that whole modules explain on one page, as pairs of a module and a name."""
    modules = [module for area in AREAS for module in area.whole]
    modules += [f"torchdl.recipes.{name}" for name in dir(torchdl.recipes)]
    for module in modules:
        yield from ((module, name) for name in public_names(importlib.import_module(module)))


def find(name: str) -> Any:
    """Return what a full name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def members_of(cls: type) -> list[str]:
    """Return the methods and properties of a class that torchdl defines: fields stand in the class's docstring."""
    own = [each for each in cls.__mro__ if each.__module__.startswith("torchdl.")]
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    fields |= set(getattr(cls, "_fields", ()))
    kinds = (property, classmethod, staticmethod, type)
    return sorted(
        {
            name
            for each in own
            for name, value in vars(each).items()
            if name[0] != "_" and name not in fields and (inspect.isfunction(value) or isinstance(value, kinds))
            if inspect.getdoc(getattr(cls, name))
        }
    )


def heading(title: str, line: str = "=") -> str:
    """Return a heading in reST."""
    return f"{title}\n{line * len(title)}\n"


def has_page(name: str) -> bool:
    """Return whether a name stands for a class or a function, and not for a value or a type."""
    return inspect.isclass(find(name)) or inspect.isfunction(find(name))


def described(name: str) -> str:
    """Return the directive that shows the docstring of a class or a function, and the lessons that use it."""
    each = find(name)
    members = members_of(each) if inspect.isclass(each) else []
    lines = [f".. auto{'class' if inspect.isclass(each) else 'function'}:: {name}"]
    lines += [f"   :members: {', '.join(members)}"] if members else []
    uses = [f".. minigallery:: {name}", "   :add-heading: Lessons that use it", "   :heading-level: -"]
    return "\n".join([*lines, "", *uses])


def values(names: list[str]) -> list[str]:
    """Return the directives that show dictionaries and types."""
    lines = []
    for name in names:
        each = find(name)
        options = each if isinstance(each, dict) else get_args(each)
        kind = "A dictionary with the keys" if isinstance(each, dict) else "One of"
        shown = (f"``{getattr(option, '__name__', option)}``" for option in options)
        lines += [f".. py:data:: {name}", "", f"   {kind} {', '.join(shown)}.", ""]
    return lines


def pages() -> Iterator[tuple[str, str]]:
    """Return the pages as pairs of a name and a text in reST."""
    listed: set[str] = set()
    for area in AREAS:
        names = names_of(area)
        listed.update(names)
        shown = [name for name in names if has_page(name)]
        others = values([name for name in names if not has_page(name)])
        parts = [*table(shown), *others, *map(whole, area.whole)]
        yield area.name, "\n".join([heading(area.title), area.text, "", *parts])
        for name in shown:
            yield (
                f"names/{name}",
                "\n".join([":html_theme.sidebar_secondary.remove:", "", heading(name), described(name)]),
            )
    recipes = [f"torchdl.recipes.{name}" for name in dir(torchdl.recipes)]
    text = "Applications: each builds a task and its batches, evaluates the model and returns a report."
    yield "recipes", "\n".join([heading("Recipes"), text, "", *toctree([f"names/{name}" for name in recipes])])
    for name in recipes:
        yield f"names/{name}", "\n".join([heading(name), whole(name)])
    left = {f"torchdl.{name}" for name in public_names(torchdl)} - listed
    if left:
        raise ValueError(f"no page of the API lists {', '.join(sorted(left))}: add the module to an area")
    index = "Every public name, from its docstring. The examples run as they stand, after ``import torch, torchdl``."
    yield "index", "\n".join([heading("API"), index, "", *toctree([*(area.name for area in AREAS), "recipes"], False)])


def table(names: list[str]) -> list[str]:
    """Return a table of names with the first sentences of their docstrings."""
    lines = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
    return [*lines, *toctree([f"names/{name}" for name in names])] if names else []


def toctree(names: list[str], hidden: bool = True) -> list[str]:
    """Return a table of contents."""
    options = ["   :hidden:"] if hidden else ["   :maxdepth: 1"]
    return [".. toctree::", *options, "", *(f"   {name}" for name in names), ""]


def whole(module: str) -> str:
    """Return the directive that shows a module, and all that it defines."""
    names = ", ".join(public_names(importlib.import_module(module)))
    return f".. automodule:: {module}\n   :members: {names}\n   :member-order: bysource\n"


def write_pages(app: Sphinx) -> None:
    """Write the pages into the folder ``api``; those that have not changed keep their times."""
    folder = Path(app.srcdir) / "api"
    written = {folder / f"{name}.rst": text for name, text in pages()}
    for path in folder.rglob("*.rst"):
        if path not in written:
            path.unlink()
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("builder-inited", write_pages, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
