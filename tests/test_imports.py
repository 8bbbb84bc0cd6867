"""Who may import whom: scripts -> cli -> recipes -> predict -> training -> tasks -> losses, metrics; the rest alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import torchdl

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {
    "errors",
    "files",
    "history",
    "random",
    "collective",
    "pictures",
    "progress",
    "field_docs",
    "overrides",
    "fast",
    "evaluation_mode",
}
APPLIED = {
    "training",
    "callbacks",
    "loggers",
    "tasks",
    "losses",
    "metrics",
    "models",
    "data",
    "plots",
    "artifacts",
    "forecasts",
}
APPLIED |= {"features", "loggers"}
# what each part of torchdl may import of the others, beside itself and the leaves
ALLOWED = {
    "errors": set(),
    "random": set(),
    "progress": set(),
    "field_docs": set(),
    "overrides": set(),
    "evaluation_mode": set(),
    "fast": {"files", "errors"},
    "files": {"errors"},
    "history": {"files", "errors"},
    "collective": {"errors"},
    "pictures": {"files", "errors"},
    "data": set(),
    "models": set(),
    "losses": set(),
    "metrics": set(),
    "plots": set(),
    "artifacts": {"models"},
    "convolution": set(),
    "forecasts": set(),
    "latent": set(),
    "features": {"artifacts", "data", "training"},
    "callbacks": set(),
    "loggers": {"plots"},
    "tasks": {"callbacks", "losses", "metrics"},
    "training": {"callbacks", "loggers", "tasks", "data", "plots"},
    "predict": APPLIED | {"latent"},
    "recipes": APPLIED | {"predict"},
    "cli": APPLIED | {"predict", "recipes"},
    "keras": APPLIED | {"predict", "recipes", "cli"},
}
EVERYTHING = set(ALLOWED)
NAMES_A_SCRIPT = re.compile(r"(?<![-\w])--[a-z][a-z-]+|\bscripts/|\b(?:train|show|predict|probe|evaluate)_\w+\.py\b")


def imported(source: str, package: str) -> set[str]:
    """List the dotted names that a module in ``package`` imports, at any depth, relative ones resolved."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def wrong_imports(source: str, path: str) -> list[str]:
    """Say which of the imports of the file at ``path``, relative to the repository, go the wrong way."""
    parts = Path(path).with_suffix("").parts
    if parts[0] in ("scripts", "experiments"):
        allowed = EVERYTHING
    elif parts == ("torchdl", "__init__"):
        allowed = set()
    elif parts[1] in ALLOWED:
        allowed = ALLOWED[parts[1]] | {parts[1]} | (set() if parts[1] in LEAVES else LEAVES)
    else:
        return [f"{path}: torchdl.{parts[1]} has no place in the order yet: give it one in ALLOWED"]
    found = []
    for name in sorted(imported(source, ".".join(parts[:-1]))):
        first, *rest = name.split(".")
        outside = first in ("scripts", "experiments")
        wrong = outside or (first == "torchdl" and (not rest or rest[0] not in allowed))
        if wrong and parts[0] == "torchdl":
            found.append(f"{path} imports {name}")
    return found


FILES = sorted(path for folder in ("torchdl", "scripts") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    assert wrong_imports(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("torchdl/tasks/gan.py", "from torchdl.training import Trainer"),
        ("torchdl/tasks/gan.py", "from torchdl.models import GAN"),
        ("torchdl/tasks/gan.py", "import torchdl.data.loader"),
        ("torchdl/tasks/gan.py", "def f():\n    from torchdl import data"),
        ("torchdl/tasks/gan.py", "from ..models import GAN"),
        ("torchdl/tasks/gan.py", "from .. import models"),
        ("torchdl/tasks/gan.py", "from torchdl import GAN"),  # by way of the package, which imports everything
        ("torchdl/tasks/gan.py", "import torchdl"),
        ("torchdl/losses.py", "import os, torchdl.metrics"),
        ("torchdl/metrics.py", "from torchdl.losses import x"),
        ("torchdl/models/gan.py", "from torchdl.losses import x"),
        ("torchdl/models/gan.py", "from torchdl.artifacts import load"),
        ("torchdl/data/loader.py", "if True:\n    from .. import plots"),
        ("torchdl/plots/curves.py", "from torchdl.data import ImageDataset"),
        ("torchdl/plots/curves.py", "from ..data import ImageDataset"),
        ("torchdl/random.py", "from torchdl.errors import require"),
        ("torchdl/artifacts.py", "from torchdl.training import Trainer"),
        ("torchdl/training/trainer.py", "from torchdl.models import GAN"),
        ("torchdl/training/trainer.py", "import scripts.train"),
        ("torchdl/training/trainer.py", "from torchdl.recipes import tabular"),
        ("torchdl/training/trainer.py", "from torchdl.cli.run import Run"),
        ("torchdl/recipes/tabular.py", "from torchdl.cli.printing import say"),
        ("torchdl/recipes/tabular.py", "import experiments.registry"),
        ("torchdl/cli/run.py", "import torchdl.keras"),
        ("torchdl/__init__.py", "from torchdl.training import Trainer"),
        ("torchdl/novelty.py", ""),
    ],
)
def test_an_import_the_wrong_way_is_found(path, source):
    assert len(wrong_imports(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("torchdl/tasks/gan.py", "from torchdl import random\nfrom torchdl.losses import x\nfrom . import base"),
        ("torchdl/tasks/gan.py", "from ..errors import InputError\nimport torch.nn, random"),
        ("torchdl/training/trainer.py", "from torchdl.tasks import Task\nimport torchdl.plots\nfrom ..data import x"),
        ("torchdl/artifacts.py", "import torchdl.models"),
        ("torchdl/recipes/tabular.py", "from torchdl.models import MLP\nfrom torchdl.training import Trainer"),
        ("torchdl/cli/run.py", "from torchdl.recipes.report import Report"),
        ("torchdl/keras/sources.py", "from torchdl.cli.run import Run"),
        ("scripts/train.py", "import torchdl\nfrom torchdl import GAN\nfrom torchdl.training import device"),
    ],
)
def test_an_import_the_right_way_is_let_be(path, source):
    assert wrong_imports(source, path) == []


def test_tyro_is_imported_by_the_command_line_alone():
    users = {path for path in FILES if "tyro" in {n.split(".")[0] for n in imported(path.read_text("utf-8"), "x")}}
    assert {path.relative_to(ROOT).parts[:2] for path in users} == {("torchdl", "cli")}


def test_the_library_names_no_script_and_no_option():
    named = []
    for path in (ROOT / "torchdl").rglob("*.py"):
        if path.relative_to(ROOT).parts[1] != "cli":
            texts = (n.value for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Constant))
            found = [text for text in texts if isinstance(text, str) and NAMES_A_SCRIPT.search(text)]
            named += [f"{path.relative_to(ROOT)}: {text[:80]!r}" for text in found]
    assert named == []


@pytest.mark.slow
def test_importing_torchdl_brings_in_nothing_and_leaves_the_global_generators_alone():
    program = """
import random, sys
import numpy, torch
torch.manual_seed(123); random.seed(123); numpy.random.seed(123)
states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
import torchdl
assert not any(name.startswith("torchdl.") for name in sys.modules), "a part is imported before it is used"
assert callable(torchdl.latent.invert) and callable(torchdl.metrics.silent_units)
assert callable(torchdl.collective.rank_and_size) and torchdl.callbacks.Training
assert not hasattr(torchdl, "nothing")
for name in dir(torchdl):
    getattr(torchdl, name)
assert torch.equal(states[0], torch.get_rng_state()), "torch's generator was used"
assert states[1:] == (random.getstate(), numpy.random.get_state()[1].tolist()), "a generator was used"
heavy = {"torchvision", "tensorboard", "matplotlib", "pandas", "sklearn", "mlxtend", "PIL", "keras", "tyro"}
print(*sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_name_of_the_stub_is_re_exported_and_there():
    tree = ast.parse((ROOT / "torchdl" / "__init__.pyi").read_text("utf-8"))
    aliases = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.asname == alias.name for alias in aliases)  # else type checkers take it for private
    assert sorted(torchdl.__all__) == sorted(alias.name for alias in aliases)
    assert all(hasattr(torchdl, alias.name) for alias in aliases)
