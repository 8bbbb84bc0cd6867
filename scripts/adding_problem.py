"""Train a network to add two marked numbers of a long sequence (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import AddingProblem, SequenceModel, Trainer, random
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.recipes.learning import Learning
from torchdl.recipes.sequence_memory import adding_predictor, adding_report, adding_training

TEST = 1  # makes the seed of the test sequences differ from that of the training sequences


@dataclass(frozen=True)
class Config:
    """Train a recurrent network on the adding problem; every epoch has new sequences."""

    terms: int = 100
    """Length of the sequences. One number in each half is marked."""
    low: float = 0.0
    """The smallest number; the largest is 1. The original paper's is -1, which makes errors four times as large."""
    sequences: int = 10_000
    """Number of training sequences per epoch; there are a fifth as many test sequences."""
    kind: Literal["rnn", "gru", "lstm"] = "lstm"
    """The kind of recurrent layers."""
    hidden: int = 16
    """Units per recurrent layer."""
    layers: int = 1
    """Number of recurrent layers. Each reads the states of the one before it."""
    pooling: Literal["last", "max"] = "last"
    """Predict from the last state, or from the maximum of each unit over all states."""
    learning: Learning = field(default_factory=lambda: Learning(50, 0.02, "one_cycle"))
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=15, clip_norm=1.0))


def main(config: Config) -> None:
    """Make data, build the model, train, look."""
    seed = config.trainer.seed
    # 1. Make the data.
    train = AddingProblem(config.sequences, config.terms, config.low, seed)
    test = AddingProblem(-(-config.sequences // 5), config.terms, config.low, random.key(seed, TEST))
    run = Run("adding", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = SequenceModel(config.kind, 2, 1, None, config.hidden, config.layers, pooling=config.pooling)
    # 3. Train it.
    predictor = adding_predictor(model, config.trainer.device)
    history = run.fit(*adding_training(model, train, test, config.learning), predictor=predictor)
    # 4. Look at the error.
    if run.is_main:
        run.keep(adding_report(predictor, test, history))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
