"""Compare the speed of this project with the usual way: the command line of ``experiments/benchmark.py``."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))  # python -P leaves it out
import _clone  # noqa: F401

from experiments.benchmark import Config, main
from torchdl.cli.main import run_script

if __name__ == "__main__":
    run_script(main, Config)
