"""Train contrastive predictive coding on sequences of digits: make sequences, build the model, train, look."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import (
    BatchLoader,
    CPCFeatures,
    CPCTask,
    Digits,
    SameNumbers,
    SortedNumbers,
    Trainer,
    image_cpc,
    load_digits,
)
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.printing import say
from torchdl.cli.run import Run
from torchdl.collective import rank_and_size
from torchdl.errors import require
from torchdl.files import read_config
from torchdl.models.gates import Gate
from torchdl.plots import plot_sequences
from torchdl.predict import ImageEmbedder, ImageInput
from torchdl.predict.images import DIGITS, Preparation
from torchdl.tasks import OptimizerName

OF_MODEL = ("every_term", "center_images", "first_norm", "gate", "reset_after", "separate_passes", "batch_statistics")
SEQUENCES = {"sorted": SortedNumbers, "same": SameNumbers}


@dataclass(frozen=True)
class Config:
    """Train an encoder by predicting the embeddings of future digits, with the settings of the Keras original."""

    dataset: Literal["mnist", "mnist_5k", "fashion_mnist"] = "mnist"
    """The images; mnist_5k has 5,000 digits and needs no download."""
    data: Literal["sorted", "same"] = "sorted"
    """Sequences of consecutive numbers, or of one number."""
    head: Literal["infonce", "paired"] | None = None
    """Find the real future among those of the batch (infonce, default), or classify each future as real or false like
    the original (paired)."""
    terms: int = 4
    """Number of context digits."""
    predict_terms: int = 4
    """Number of future digits."""
    positive_samples: int | None = None
    """Sequences per batch, on each process, that have their real future; half of the batch if not given."""
    batch_size: int = 32
    """Sequences per step, on each process."""
    image_size: int = 64
    """Side of the images, in pixels; 28 is faster."""
    color: bool = True
    """Draw the digits in random colours on crops of photographs, instead of in grey."""
    background: Path | None = None
    """A picture to crop behind the digits; or scikit-learn's china, flower or both (default)."""
    center_images: bool | None = None
    """Subtract the mean of each channel from each image; default of the head paired in colour."""
    first_norm: Literal["batch", "instance"] = "batch"
    """Normalise the first convolution over the batch like the original, or for each image alone, so that its colour
    does not matter."""
    rescale: bool = True
    """Scale pixels to [-1, 1], instead of [0, 1]."""
    code_size: int = 128
    """Length of an embedding."""
    context_size: int = 256
    """Length of a context vector."""
    cell: Literal["gru", "lstm", "rnn"] = "gru"
    """The recurrent layer that reads the context."""
    gate: Gate | None = None
    """The function of the recurrent layer's gates; Keras' hard sigmoid is hard_sigmoid in version 2 and relu6 in 3."""
    reset_after: bool | None = None
    """Let a GRU's reset follow the recurrent product (PyTorch, default) or precede it (old Keras)."""
    separate_passes: bool | None = None
    """Encode context and future in two passes, each with batch statistics of its own."""
    batch_statistics: bool | None = None
    """Use the batch's statistics in validation, too."""
    as_given: bool = False
    """Follow the Keras original to the letter, but for what other options choose: the head paired, one photograph, two
    passes, batch statistics, a GRU with hard sigmoids that resets before its product, images as they are."""
    every_term: bool | None = None
    """Predict from every term (as the paper; default of infonce) or the last one (as the original; of paired)."""
    temperature: float = 1.0
    """Divisor of InfoNCE's scores."""
    other_steps: bool = False
    """Take embeddings of other steps as candidates, too."""
    optimizer: OptimizerName = "adam"
    """The optimizer that updates the weights."""
    lr: float = 1e-3
    """The learning rate. It falls to a third after two epochs without a lower validation loss, down to 1e-4."""
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def defaults(config: Config) -> dict[str, Any]:
    """Return the values of options that were not given: the original's conventions, or this project's."""
    original = config.as_given
    head = config.head or ("paired" if original else "infonce")
    resumed = config.run.resume is not None  # a run from before 0.3 has recorded no center_images and had none
    return {
        "head": head,
        "every_term": head == "infonce",
        "positive_samples": config.batch_size // 2,
        "background": Path("flower") if original and config.color else None,
        "center_images": head == "paired" and config.color and not original and not resumed,
        "gate": "hard_sigmoid" if original and config.cell != "rnn" else "sigmoid",  # which has no gates
        "reset_after": not (original and config.cell == "gru"),  # the only one with a reset
        "separate_passes": original,
        "batch_statistics": original,
    }


def require_same_conventions(config: Config) -> None:
    """Raise an error if ``--as-given`` would change nothing, because a resumed run has its conventions already."""
    if config.run.resume is not None:
        begun = read_config(config.run.resume).get("config", {}).get("as_given", False)
        advice = "leave out --as-given and --no-as-given, or begin a new run"
        require(config.as_given == begun, f"a resumed run keeps the conventions it began with: {advice}")


def main(config: Config) -> None:
    """Make the sequences, build the model, train, look."""
    chosen = {name: value for name, value in defaults(config).items() if getattr(config, name) is None}
    config = replace(config, **chosen)
    size = rank_and_size()[1]
    batch_size, positive = config.batch_size * size, config.positive_samples or 0  # of all processes, and of each
    require(config.batch_size >= 1, f"batch_size must be at least 1, not {config.batch_size}")
    require(batch_size >= 2, "futures are compared with those of the batch: --batch-size must be 2 or more")
    require(config.head == "paired" or positive > 0, "InfoNCE needs real futures: --positive-samples must be 1 or more")
    require(
        config.head == "infonce" or positive % config.batch_size != 0,
        "the head paired tells real futures from false ones and needs both: --positive-samples must be from 1 to "
        f"{config.batch_size - 1}, not {positive}",
    )
    require(
        config.color or config.background is None or config.run.resume is not None,
        "a picture is behind coloured digits only: leave out --background or --no-color",
    )
    require_same_conventions(config)

    def digits(subset: str) -> Digits:
        return load_digits(
            subset,
            config.image_size,
            config.color,
            config.rescale,
            config.trainer.seed,
            config.background,
            config.dataset,
            config.run.data_root,
        )

    # 1. Make the sequences.
    shape = (config.terms, config.predict_terms, positive * size, batch_size)
    train, validation = (SEQUENCES[config.data](digits(subset), *shape) for subset in ("train", "valid"))
    run = Run("cpc", config, config.run, config.trainer, train.images)
    # 2. Build the model.
    model = image_cpc(
        config.image_size,
        code_size=config.code_size,
        context_size=config.context_size,
        predict_terms=config.predict_terms,
        cell=config.cell,
        **{name: getattr(config, name) for name in OF_MODEL},
    )
    task = CPCTask(
        model,
        config.head or "",
        config.lr,
        config.temperature,
        config.other_steps,
        classes=len(train.images.classes),
        examples=validation[: config.batch_size],
        optimizer=config.optimizer,
    )
    # 3. Train.
    prepare: Preparation = "crop" if config.color or config.dataset not in DIGITS else "digit"
    pixels, first = ImageInput.of(train.images, prepare), train[: min(8, config.batch_size)]
    embedder = ImageEmbedder(model, ImageEmbedder.Settings(pixels), config.trainer.device)
    figure = plot_sequences(first.context, first.future, first.label, first.digits, pixels.low)
    batches, validation_batches = (BatchLoader(sequences, config.batch_size) for sequences in (train, validation))
    run.fit(task, batches, validation_batches, pictures={"sequences": figure}, predictor=embedder)
    # 4. Look at the embeddings of test digits.
    if run.is_main:
        with closing(run.logger()) as logger:
            test = digits("test")
            images, labels = test.spread(min(1000, len(test)))
            names = [test.classes[label] for label in labels.tolist()]
            codes = CPCFeatures(model, device=config.trainer.device).encode(images)
            logger.embedding(codes, names, pixels.unscale(images))
    if run.temporary is None:
        say(f"see the embeddings in TensorBoard's projector, or probe them: python scripts/probe_cpc.py {run.folder}")
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
