"""Measure how good the GAN of a finished run is, by a classifier that was trained on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import _clone  # noqa: F401
import tyro

import torchdl
from torchdl.data.described import introduce
from torchdl.errors import require
from torchdl.training import process
from torchdl.training.command import run_script, say
from torchdl.training.generation import LEAST, PAIRED, dataset_of, evaluate_run, load_gan, load_judge, usual_judge


@dataclass(frozen=True)
class Config:
    """Compare generated images with held-out ones: distances of features, precision, coverage, classes, copies."""

    run: tyro.conf.Positional[Path]
    """The run's folder, such as runs/gan/first."""
    judge: Path | None = None
    """A finished run of train_lenet.py on the same data; lenet/judge-DATASET beside the run's gan/ if not given."""
    samples: int = 10_000
    """How many images to generate; fewer where fewer are held out."""
    paired: int = PAIRED
    """Of how many of them the kernel distance and the neighbours are found, which takes the square of it."""
    seed: int = 0
    """Which noise to draw."""
    data_root: Path | None = None
    """The folder of the data sets."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int = 1
    """CPU threads; 0 for PyTorch's choice, which is quicker where nothing else runs, and slower where it does."""


def main(config: Config) -> None:
    """Load the generator, its data and the judge; measure."""
    for name, number in (("samples", config.samples), ("paired", config.paired)):
        require(number >= LEAST, f"--{name} must be at least {LEAST}, not {number}")
    gan, dataset = load_gan(config.run), dataset_of(config.run)
    runs = config.run.resolve().parents[1]
    judge = load_judge(config.judge or usual_judge(runs, dataset), dataset)
    say(process.setup(config.threads))
    train, test = (torchdl.load_images(dataset, part, config.data_root) for part in ("train", "test"))
    say(introduce(test))
    evaluate_run(config.run, gan, judge, train, test, config.samples, config.seed, config.device, config.paired)


if __name__ == "__main__":
    run_script(main, Config)
