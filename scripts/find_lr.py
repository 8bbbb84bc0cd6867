"""Find a learning rate for a training script: raise it from step to step, and draw the loss over it."""

from __future__ import annotations

import io
import runpy
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import LearningRateFinder, plots
from torchdl.callbacks import Training
from torchdl.cli.main import run_script
from torchdl.cli.run import MORE_CALLBACKS
from torchdl.collective import is_main_process
from torchdl.errors import require
from torchdl.files import require_suffix
from torchdl.training import Stopped, TrainingDiverged


@dataclass(frozen=True)
class Config:
    """Find a learning rate for a training. After the options below, write the script and its own options:
    find_lr.py --steps 200 train_lenet.py --dataset mnist."""

    out: Path = Path("learning_rate.png")
    """The file for the picture; it ends in .png."""
    lowest: float = 1e-6
    """The first learning rate."""
    highest: float = 10.0
    """The last one, if the loss does not explode before."""
    steps: int = 100
    """The number of steps from the first to the last."""


class Found(Exception):  # not an error: the search has ended
    """The training is not needed any longer."""


class Finder(LearningRateFinder):
    """Ends the script when its training ends."""

    def on_fit_end(self, training: Training) -> None:
        """End the script, unless an error ends it."""
        error = sys.exc_info()[1]
        if self.ended or isinstance(error, TrainingDiverged):
            raise Found
        if isinstance(error, Stopped):  # by Ctrl-C or SIGTERM: there is nothing to go on with
            raise Stopped("interrupted", error.signal_number) from error


def main(config: Config) -> None:
    """Run the training script for a few steps, draw, and print the learning rate."""
    require_suffix(config.out, ".png")
    require(bool(COMMAND), "name a training script and its options: find_lr.py train_lenet.py --dataset mnist")
    script = Path(__file__).parent / COMMAND[0]
    trains = script.name.startswith("train_") and script.is_file()
    require(trains, f"{COMMAND[0]} is not one of the training scripts, such as train_lenet.py")
    folders = {word.split("=")[0] for word in COMMAND} & {"--resume", "--out", "--name"}
    require(not folders, f"find_lr.py trains a new model and keeps no run: drop {', '.join(sorted(folders))}")
    finder = Finder(config.lowest, config.highest, config.steps)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), suppress(Found):
        more = f"--out {folder} --name lr --logger none --max-steps {config.steps} --evaluate-every 1000000"
        sys.argv = [str(script), *COMMAND[1:], *more.split()]
        MORE_CALLBACKS.set((finder,))
        runpy.run_path(str(script), run_name="__main__")
    if is_main_process():
        plots.plot_learning_rates(finder.rates, finder.losses, finder.suggestion, config.out)
        print(f"the loss fell fastest at the learning rate {finder.suggestion:.2g}: {config.out}")


if __name__ == "__main__":
    own = next((number for number, word in enumerate(sys.argv) if number and word.endswith(".py")), len(sys.argv))
    sys.argv, COMMAND = sys.argv[:own], sys.argv[own:]
    run_script(main, Config)
