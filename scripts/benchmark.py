"""Compare the speed of this project with the usual way: the command line of ``experiments/benchmark``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from experiments.benchmark import Config, main
from torchdl.cli.main import run_script

if __name__ == "__main__":
    run_script(main, Config)
