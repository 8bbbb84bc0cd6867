"""The example for type checkers is true when it runs, too; mypy checks its types."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_example_of_types_runs(quick, tmp_path):
    runpy.run_path(str(Path(__file__).parents[2] / "docs" / "examples" / "typed.py"))["main"](str(tmp_path))
