"""Train contrastive predictive coding on signals: cut sequences, build the model, train, probe."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import CPC, BatchLoader, ContextNetwork, CPCTask, Predictors, SignalEncoder, SignalWindows, Trainer
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.printing import say
from torchdl.cli.run import Run
from torchdl.data.delimited_files import TableFormat
from torchdl.data.recordings import read_recordings
from torchdl.data.shoulder_exercises import FOLDS, load_exercises, split_exercises
from torchdl.errors import require
from torchdl.predict import SignalEmbedder
from torchdl.recipes.signal_probe import probe_signals, require_segments


@dataclass(frozen=True)
class Config:
    """Train an encoder by predicting the embeddings of a signal's next windows, and probe what it has learnt.

    By default the signals are movements of the wrist in seven shoulder exercises of ten people, from the package
    seglearn. Two people are for testing, and two for validation, by which the defaults were chosen.
    """

    signals: Path | None = None
    """Your own recordings: a .csv, .npy or .wav file, or a folder of such files. Without labels nothing is probed."""
    columns: tuple[str, ...] = ()
    """The columns of your tables to read as channels; if not given, all that are numbers, but for times and indices."""
    format: TableFormat = field(default_factory=TableFormat)
    fold: int | None = None
    """Which two people are for testing, from 0 to 4; by default the seed modulo 5. For the exercises, as are probes."""
    window: int = 16
    """Samples of a window, at least the product of the strides."""
    hop: int = 16
    """Samples from the start of a window to that of the next."""
    terms: int = 12
    """Number of context windows."""
    predict_terms: int = 4
    """Number of future windows."""
    batch_size: int = 32
    """Sequences per step, on each process."""
    kernels: tuple[int, ...] = (8, 4, 4)
    """Kernel sizes of the encoder's convolutions."""
    strides: tuple[int, ...] = (4, 2, 2)
    """Their strides."""
    code_size: int = 128
    """Length of an embedding."""
    context_size: int = 128
    """Length of a context vector."""
    temperature: float = 1.0
    """Divisor of InfoNCE's scores."""
    lr: float = 1e-3
    """The learning rate. It falls to a third after two evaluations without a lower validation loss, down to 1e-4."""
    segment: int = 200
    """Samples of the segments that the probes classify; 50 are a second."""
    probe_on: Literal["test", "validation"] = "test"
    """The people whose segments the probes classify; choose settings by those of validation."""
    probe_epochs: int = 30
    """Epochs of the networks that learn from labels."""
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=60, evaluate_every=20))


def require_used(config: Config) -> None:
    """Raise an error if options are given that change nothing, because they are for other data."""
    own, usual = config.signals is not None, Config()
    unused = ["segment", "probe_on", "probe_epochs"] if own else ["columns", "format"]
    if own and config.run.resume is None:  # older runs have recorded a fold
        unused.insert(0, "fold")
    given = [f"--{name.replace('_', '-')}" for name in unused if getattr(config, name) != getattr(usual, name)]
    whose = "the exercises, whose classes are known," if own else "files of your own (--signals)"
    named = " and ".join(given).replace("--format", "the format of tables")
    require(not given, f"{named} would change nothing: only {whose} need it, so leave it out")


def main(config: Config) -> None:
    """Cut sequences, build the model, train, probe."""
    seed = config.trainer.seed
    require_used(config)
    fold = seed % FOLDS if config.fold is None else config.fold
    config = replace(config, fold=fold) if config.signals is None else config
    require(
        config.batch_size >= 2,
        f"InfoNCE compares the sequences of a batch: --batch-size must be 2 or more, not {config.batch_size}",
    )
    # 1. Get the recordings; scale them by the mean and deviation of those for training, and cut sequences.
    if config.signals is None:
        everything = load_exercises()
        train, validation, test = split_exercises(everything, fold)
        probed = test if config.probe_on == "test" else validation
        for part in (train, probed):
            require_segments(part, config.window, config.segment)
    else:
        everything = read_recordings(config.signals, config.format, config.columns)
        span = (config.terms + config.predict_terms - 1) * config.hop + config.window
        train, validation = everything.split_in_time(span)
    settings = SignalEmbedder.Settings.of(train, config.window, config.hop, config.format)
    shape = (config.window, config.hop, config.terms, config.predict_terms)
    sequences, validation_sequences = (
        SignalWindows(settings.scaled(part), *shape, seed=seed) for part in (train, validation)
    )
    require(config.probe_epochs >= 1, f"probe_epochs must be 1 or more, not {config.probe_epochs}")
    for name, each in (("training", sequences), ("validation", validation_sequences)):
        enough = f"{name} needs 2 or more sequences, to tell one from another, and there is only {len(each)} of "
        require(len(each) >= 2, f"{enough}{each.span:,} samples: choose fewer terms, or longer recordings")
    prober = Trainer(config.probe_epochs, seed=seed, device=config.trainer.device, dry_run=config.trainer.dry_run)
    run = Run("cpc_signals", config, config.run, config.trainer, sequences)
    # 2. Build the model.
    model = CPC(
        SignalEncoder(everything.channels, config.code_size, config.kernels, config.strides),
        ContextNetwork(config.code_size, config.context_size),
        Predictors(config.context_size, config.code_size, config.predict_terms),
        every_term=True,
    )
    # 3. Train.
    task = CPCTask(model, lr=config.lr, temperature=config.temperature)
    batches, validation_batches = (
        BatchLoader(each, min(config.batch_size, len(each)), drop_last=True)
        for each in (sequences, validation_sequences)
    )
    run.fit(task, batches, validation_batches, predictor=SignalEmbedder(model, settings, config.trainer.device))
    # 4. Probe what the features say about people that no part of the training has seen.
    if config.signals is None:
        learnt, asked = (settings.scaled(part) for part in (train, probed))
        report = probe_signals(model, learnt, asked, config.window, config.hop, config.segment, prober)
        if run.is_main:
            run.keep(report)
    if run.temporary is None:
        say(f"embed your signals: python scripts/embed.py {run.folder} FILE --out codes.csv")
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
