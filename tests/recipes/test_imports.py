from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from torchdl import recipes

#: Imports every recipe in a process of its own, forked from one that has imported only PyTorch.
SCRIPT = """
import importlib, os, sys, torch
failed = 0
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        importlib.import_module(f"torchdl.recipes.{name}")
        loaded = [module for module in ("tyro", "matplotlib", "pandas", "sklearn") if module in sys.modules]
        if loaded:
            print(name, "loads", *loaded, flush=True)
        os._exit(bool(loaded))
    failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(failed)
"""


@pytest.mark.slow
def test_recipes_load_no_command_line_plots_tables_or_scikit_learn():
    names = [module.name for module in pkgutil.iter_modules(recipes.__path__)]
    assert len(names) >= 13
    done = subprocess.run([sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
