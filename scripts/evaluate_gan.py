"""Measure how good the images of a trained GAN are, by the features of a classifier of the same images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torchdl
from torchdl.cli.finished_runs import (
    data_root_of,
    dataset_of,
    default_extractor,
    describe_extractor,
    find_extractor,
    load_gan,
)
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.cli.printing import describe_data, say
from torchdl.cli.run import keep_report
from torchdl.errors import require
from torchdl.files import EVALUATION
from torchdl.recipes.gan_evaluation import KID_SAMPLES, LEAST, evaluate_generator
from torchdl.training.device import setup_process


@dataclass(frozen=True)
class Config:
    """Compare generated images with test images: distances of features, precision, coverage, classes, copies."""

    run: Positional[Path]
    """The folder of the run, such as runs/gan/first."""
    feature_extractor: Path | None = None
    """A finished run of train_lenet.py on the same data. If not given: lenet/judge-DATASET beside the run's gan/, or
    the classifier that comes with torchdl: pretrained:lenet-mnist or pretrained:lenet-fashion."""
    samples: int = 10_000
    """Number of images to generate, at most as many as there are test images."""
    kid_samples: int = KID_SAMPLES
    """Number of these for the kernel distance and the neighbours, whose time grows with its square."""
    seed: int = 0
    """Seed of the noise."""
    data_root: Path | None = None
    """The folder of the datasets."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int = 1
    """CPU threads; 0 lets PyTorch choose, which is faster if nothing else runs, and slower otherwise."""


def main(config: Config) -> None:
    """Load the GAN, the feature extractor and the images, then measure."""
    for name, number in (("samples", config.samples), ("kid-samples", config.kid_samples)):
        require(number >= LEAST, f"--{name} must be at least {LEAST}, not {number}")
    gan, dataset = load_gan(config.run), dataset_of(config.run)
    place = config.feature_extractor or default_extractor(config.run.resolve().parents[1], dataset)
    extractor = find_extractor(place, dataset)
    say(setup_process(config.threads))
    say(describe_extractor(place, extractor))
    root = config.data_root or data_root_of(config.run)
    train, test = (torchdl.load_images(dataset, part, root) for part in ("train", "test"))
    say(describe_data(test))
    count, seed, device = config.samples, config.seed, config.device
    report = evaluate_generator(gan, extractor, train, test, count, seed, device, config.kid_samples)
    keep_report(report, config.run, name=EVALUATION)


if __name__ == "__main__":
    run_script(main, Config)
