"""Train on ratings: get them, build the model, train, compare it with means. Or recommend with a finished run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torch import nn

from torchdl import MatrixFactorization, RatingModel, Trainer
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.data.ratings import split_ratings
from torchdl.errors import InputError, require
from torchdl.predict import Recommender, load_as
from torchdl.recipes.recommendation import (
    DEFAULTS,
    RatingLearning,
    RatingOptions,
    evaluate_ratings,
    rating_training,
    recommender,
)


@dataclass(frozen=True)
class Config:
    """Predict ratings (lectures 60 and 61) by the course's network, a better network, or matrix factorisation."""

    model: Literal["course", "network", "mf", "bias"] = "course"
    """The course's network; a network with biases and factors, too (best with --epochs 8 for 100,000 ratings); matrix
    factorisation (--epochs 6); biases only."""
    dim: int | None = None
    """Length of the vector of a user or an item; if not given, 10 (course), 16 (network) or 64 (mf)."""
    hidden: int | None = None
    """Units of the hidden layer; if not given, 1024 (course) or 128 (network)."""
    dropout: float | None = None
    """Dropout probability of the network's inputs and hidden units; if not given, 0 (course) or 0.4 (network)."""
    recommend: str = ""
    """The id of a user: recommend titles with a finished run (--resume), without training."""
    n: int = 10
    """Number of titles to recommend."""
    ratings: RatingOptions = field(default_factory=RatingOptions)
    learning: RatingLearning = field(default_factory=RatingLearning)
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=25, evaluate_every=5))


class Kind(NamedTuple):
    """How to build a model from (users, items, mean), its settings, and the defaults of its training."""

    build: Callable[..., nn.Module]
    settings: dict[str, float]
    learning: RatingLearning


COURSE = RatingLearning(1024, "momentum", 0.08, 0.0, "constant")
KINDS = {
    "course": Kind(RatingModel, {"dim": 10, "hidden": 1024, "dropout": 0.0}, COURSE),
    "network": Kind(
        RatingModel, {"dim": 16, "hidden": 128, "dropout": 0.4, "factors": 64}, replace(DEFAULTS, weight_decay=1e-4)
    ),
    "mf": Kind(MatrixFactorization, {"dim": 64}, DEFAULTS),
    "bias": Kind(MatrixFactorization, {"dim": 0}, replace(DEFAULTS, weight_decay=1e-4)),
}


def main(config: Config) -> None:
    """Get the ratings, build the model, train, look; or recommend with a finished run."""
    if config.recommend:
        if config.run.resume is None:
            raise InputError("--recommend needs a finished run: --resume runs/recommender/NAME")
        found = load_as(Recommender, config.run.resume).predict(config.recommend, config.n)  # as predict.py does
        for title, rating in zip(found.titles, found.ratings, strict=True):
            print(f"{rating:5.2f}  {title}")
        return
    kind = KINDS[config.model]
    given = {key: value for key in ("dim", "hidden", "dropout") if (value := getattr(config, key)) is not None}
    foreign = ", ".join(f"--{key}" for key in given if key not in kind.settings or config.model == "bias")
    require(not foreign, f"{foreign} is not for --model {config.model}: leave it out")
    config = replace(config, learning=config.learning.with_defaults(kind.learning))
    # 1. Get the ratings, and split them.
    ratings, titles = config.ratings.load(config.run.data_root)
    split = split_ratings(ratings, config.ratings.test_share, config.ratings.split == "time", seed=config.trainer.seed)
    run = Run("recommender", config, config.run, config.trainer, split.train, split.test)
    # 2. Build the model.
    model = kind.build(len(split.users), len(split.items), split.mean, **{**kind.settings, **given})
    # 3. Train it.
    since = time.perf_counter()
    predictor = recommender(model, split, ratings, titles, config.ratings, config.trainer.device)
    run.fit(*rating_training(model, split, config.learning, config.trainer.seed), predictor=predictor)
    more = {"seconds of training": time.perf_counter() - since, "epoch chosen by": run.chosen_by}
    # 4. Look at it beside means.
    if run.is_main:
        run.keep(evaluate_ratings(predictor, split, config.learning.damping, more))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
