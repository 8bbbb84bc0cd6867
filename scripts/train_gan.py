"""Train a generative adversarial network on small images: get the data, build the model, train, generate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import GAN, BatchLoader, GANTask, Trainer, conv_gan, deep_gan, load_images, simple_gan
from torchdl.cli.finished_runs import NO_EXTRACTOR, default_extractor, find_sample_monitor
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.printing import say
from torchdl.cli.run import Run
from torchdl.errors import require
from torchdl.pictures import image_grid, save_png, side_by_side
from torchdl.predict import ImageGenerator
from torchdl.tasks import OptimizerName, find_schedule


@dataclass(frozen=True)
class Config:
    """Train a GAN on small images, with the published settings of each pair of networks."""

    dataset: str = "mnist"
    """mnist, fashion_mnist, cifar10, cifar100, mnist_5k (needs no download), or a folder with train/ and test/."""
    model: Literal["simple", "deep", "conv"] = "simple"
    """The notes' pair with one hidden layer each, the course's with three and two, or convolutions as in DCGAN."""
    loss: Literal["non_saturating", "minimax", "least_squares", "hinge", "wgan_gp"] = "non_saturating"
    """The GAN loss."""
    z_dim: int | None = None
    """Length of the noise vector; if not given, 64 (simple, conv) or 100 (deep)."""
    width: int | None = None
    """Filters of conv's largest maps; 16 if not given."""
    optimizer: OptimizerName = "adam"
    """The optimizer of both networks. Only adam and adamw use the betas."""
    lr: float | None = None
    """The learning rate; if not given, 3e-4 (simple), 2e-4 (deep) or 2e-3 (conv)."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """The course of both learning rates; linear and cosine end at 0. If not given: linear (conv) or constant."""
    beta1: float | None = None
    """Adam's first beta; if not given, 0.9 (simple), 0.5 (deep) or 0 (conv)."""
    beta2: float = 0.999
    """Adam's second beta."""
    batch_size: int | None = None
    """Images per step, on each process; if not given, 32 (simple, deep) or 64 (conv)."""
    penalty: float = 10.0
    """Weight of wgan_gp's gradient penalty."""
    generator_every: int = 1
    """Number of discriminator steps per generator step."""
    spectral_norm: bool | None = None
    """Divide each kernel of the discriminator by its largest singular value; if not given, only with conv."""
    average: float | None = None
    """Decay of the moving average of the generator's weights that makes samples; if not given, 0.999 (conv) or 0."""
    feature_extractor: Path | None = None
    """A run of train_lenet.py on the same data, to measure samples with, or none. If not given: OUT/lenet/judge-DATASET
    if that is there, or the classifier that comes with torchdl: pretrained:lenet-mnist or pretrained:lenet-fashion."""
    evaluation_samples: int = 2000
    """Samples to compare with training images at each evaluation; the generator with the smallest distance is kept."""
    samples: int = 64
    """Number of preview images, always from the same noise."""
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=50))


class Pair(NamedTuple):
    """How to build a pair of networks, and the defaults of its training."""

    build: Callable[..., GAN]
    defaults: dict[str, Any]


PUBLISHED = {"batch_size": 32, "schedule": "constant", "spectral_norm": False, "average": 0.0}
PAIRS = {
    "simple": Pair(simple_gan, {"z_dim": 64, "lr": 3e-4, "beta1": 0.9, **PUBLISHED}),
    "deep": Pair(deep_gan, {"z_dim": 100, "lr": 2e-4, "beta1": 0.5, **PUBLISHED}),
    "conv": Pair(
        conv_gan,
        {
            "z_dim": 64,
            "lr": 2e-3,
            "beta1": 0.0,
            "batch_size": 64,
            "schedule": "linear",
            "spectral_norm": True,
            "average": 0.999,
        },
    ),
}


def main(config: Config) -> None:
    """Get the data, build the model, train, generate."""
    pair = PAIRS[config.model]
    given = {name: value for name in pair.defaults if (value := getattr(config, name)) is not None}
    chosen = {**pair.defaults, **given}
    config = replace(config, **chosen)
    require(config.samples >= 1, f"--samples must be 1 or more, not {config.samples}")
    require(config.width is None or config.model == "conv", "--width is for --model conv: leave it out")
    size = {} if config.width is None else {"width": config.width}
    # 1. Get the data.
    images, test = (
        load_images(config.dataset, part, config.run.data_root, low=-1, high=1) for part in ("train", "test")
    )
    extractor = config.feature_extractor
    if extractor is None and config.run.resume is not None and not config.trainer.monitor:
        extractor = NO_EXTRACTOR  # that run, from before 0.3, has found none
    monitor, sentence = find_sample_monitor(
        extractor, config.run.out, config.dataset, images, config.evaluation_samples
    )
    found = NO_EXTRACTOR if monitor is None else extractor or default_extractor(config.run.out, config.dataset)
    config = replace(config, feature_extractor=found)  # recorded, so that a resume does not look for another one
    if monitor is not None and not config.trainer.monitor:
        config = replace(config, trainer=replace(config.trainer, monitor="samples/frechet_distance"))
    images, test = images.without_labels(), test.without_labels()
    train = BatchLoader(images, chosen["batch_size"], shuffle=True, seed=config.trainer.seed, drop_last=True)
    run = Run("gan", config, config.run, config.trainer, images, test)
    say(sentence)
    # 2. Build the model.
    gan = pair.build(images.image_shape, chosen["z_dim"], spectral_norm=chosen["spectral_norm"], **size)
    task = GANTask(
        gan,
        loss=config.loss,
        lr=chosen["lr"],
        beta1=chosen["beta1"],
        beta2=config.beta2,
        penalty=config.penalty,
        optimizer=config.optimizer,
        generator_every=config.generator_every,
        real_examples=images.spread(config.samples),
        average=chosen["average"],
        schedule=find_schedule(chosen["schedule"]),
    )
    # 3. Train.
    generator = ImageGenerator.of(task.trained, config.trainer.device)
    run.fit(task, train, BatchLoader(test, 500), predictor=generator, callbacks=[monitor] if monitor else [])
    # 4. Generate.
    if run.is_main:
        path = run.folder / "samples" / "final.png"
        save_png(side_by_side({"generated": image_grid(generator.predict(config.samples))}), path)
        say(f"samples: {path}  (more: python scripts/predict.py {run.folder} --n 64 --out digits.png)")
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
