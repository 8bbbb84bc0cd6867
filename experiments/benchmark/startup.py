"""The start of a program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.measure import timed


def importing(statement: str, config: Config, folder: Path) -> Callable[[int], float]:
    """Start Python and run an import statement, with this clone's torchdl on the path."""
    path = os.pathsep.join([str(Path(torchdl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command, environment = [sys.executable, "-c", statement], {**os.environ, "PYTHONPATH": path}

    def run(examples: int) -> float:
        return timed(lambda: [subprocess.run(command, env=environment, check=True) for _ in range(examples)])

    return run
