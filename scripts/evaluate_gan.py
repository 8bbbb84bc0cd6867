"""Measure how good the GAN of a finished run is, by a classifier that was trained on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import _clone  # noqa: F401

import torchdl
from torchdl.cli.arguments import Positional
from torchdl.cli.console import describe_data, say
from torchdl.cli.finished_runs import dataset_of, find_extractor, load_gan
from torchdl.cli.run import keep_report
from torchdl.cli.script import run_script
from torchdl.errors import require
from torchdl.files import EVALUATION
from torchdl.recipes.gan_evaluation import KID_SAMPLES, LEAST, evaluate_generator
from torchdl.training.device import find_device, setup_process


@dataclass(frozen=True)
class Config:
    """Compare generated images with held-out ones: distances of features, precision, coverage, classes, copies."""

    run: Positional[Path]
    """The run's folder, such as runs/gan/first."""
    feature_extractor: Path | None = None
    """A finished run of train_lenet.py on the same data; lenet/judge-DATASET beside the run's gan/ if not given."""
    samples: int = 10_000
    """Number of images to generate; fewer where there are fewer test images."""
    kid_samples: int = KID_SAMPLES
    """Number of them for the kernel distance and the neighbours, which take the square of it in time."""
    seed: int = 0
    """Which noise to draw."""
    data_root: Path | None = None
    """The folder of the data sets."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int = 1
    """CPU threads; 0 for PyTorch's choice, which is quicker where nothing else runs, and slower where it does."""


def main(config: Config) -> None:
    """Load the generator, its data and the feature extractor; measure."""
    for name, number in (("samples", config.samples), ("kid-samples", config.kid_samples)):
        require(number >= LEAST, f"--{name} must be at least {LEAST}, not {number}")
    gan, dataset = load_gan(config.run), dataset_of(config.run)
    extractor = find_extractor(config.feature_extractor, config.run.resolve().parents[1], dataset)
    say(setup_process(config.threads))
    train, test = (torchdl.load_images(dataset, part, config.data_root) for part in ("train", "test"))
    say(describe_data(test))
    device = find_device(config.device)
    report = evaluate_generator(gan, extractor, train, test, config.samples, config.seed, device, config.kid_samples)
    keep_report(report, config.run, name=EVALUATION)


if __name__ == "__main__":
    run_script(main, Config)
