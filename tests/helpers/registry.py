"""Load scripts without running them, and parse their command lines."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

from torchdl.cli.parsing import parse

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def config_class(script: str) -> Any:
    """Load a script without running it, and return its ``Config``, whether it defines or imports it."""
    paths = list(sys.path)  # to which a script adds its clone
    try:
        spec = importlib.util.spec_from_file_location(f"scripts_{script[:-3]}", ROOT / "scripts" / script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where the hints of dataclasses are resolved
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = paths
    return module.Config


def parse_script(command: list[str]) -> Any:
    """Parse a command line, the script's name first, as the script does."""
    return parse(config_class(command[0]), command[1:])
