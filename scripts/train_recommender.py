"""Train on ratings: get them, build a model, train it, see what it is worth; or recommend by a finished run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import _clone  # noqa: F401
from torch import nn

from torchdl import MatrixFactorization, RatingModel, Trainer
from torchdl.cli.run import Run, RunOptions
from torchdl.cli.script import run_script
from torchdl.data.ratings import split_ratings
from torchdl.errors import InputError, require
from torchdl.recipes.recommendation import (
    CATALOGUE,
    DEFAULTS,
    RatingLearning,
    RatingOptions,
    evaluate_ratings,
    rating_training,
    recommend,
    save_catalogue,
)


@dataclass(frozen=True)
class Config:
    """Predict ratings (lectures 60 and 61): by the course's network, by a better one, by matrix factorisation."""

    model: Literal["course", "network", "mf", "bias"] = "course"
    """The course's network; one with biases and factors, too (best with --epochs 8 where there are 100,000 ratings);
    matrix factorisation (--epochs 6); biases alone."""
    dim: int | None = None
    """Numbers a user and an item; 10 in the course, 16 if not given for network, 64 for mf."""
    hidden: int | None = None
    """Units of a network's hidden layer; 1024 in the course, 128 if not given for network."""
    dropout: float | None = None
    """Probability of dropping what the network reads, and its hidden units; 0 in the course, else 0.4."""
    recommend: str = ""
    """A user's id: list titles for them by the finished run --resume, and train nothing."""
    n: int = 10
    """How many titles."""
    ratings: RatingOptions = field(default_factory=RatingOptions)
    learning: RatingLearning = field(default_factory=RatingLearning)
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=25, evaluate_every=5))


class Kind(NamedTuple):
    """How to build a model from (users, items, mean), its own settings, and how it learns where nothing is asked."""

    build: Callable[..., nn.Module]
    settings: dict[str, float]
    learning: RatingLearning


GIVEN = RatingLearning(1024, "momentum", 0.08, 0.0, "constant")
KINDS = {
    "course": Kind(RatingModel, {"dim": 10, "hidden": 1024, "dropout": 0.0}, GIVEN),
    "network": Kind(
        RatingModel, {"dim": 16, "hidden": 128, "dropout": 0.4, "factors": 64}, replace(DEFAULTS, weight_decay=1e-4)
    ),
    "mf": Kind(MatrixFactorization, {"dim": 64}, DEFAULTS),
    "bias": Kind(MatrixFactorization, {"dim": 0}, replace(DEFAULTS, weight_decay=1e-4)),
}


def main(config: Config) -> None:
    """Run the four steps, or recommend by a finished run."""
    if config.recommend:
        if config.run.resume is None:
            raise InputError("--recommend needs a finished run: --resume runs/recommender/NAME")
        for title, rating in recommend(config.run.resume, config.recommend, config.n):
            print(f"{rating:5.2f}  {title}")
        return
    kind = KINDS[config.model]
    own = {key: value for key in ("dim", "hidden", "dropout") if (value := getattr(config, key)) is not None}
    foreign = ", ".join(f"--{key}" for key in own if key not in kind.settings or config.model == "bias")
    require(not foreign, f"{foreign} is no setting of --model {config.model}: leave it out")
    config = replace(config, learning=config.learning.with_defaults(kind.learning))
    # 1. Get the ratings, and hold some out.
    ratings, titles = config.ratings.load(config.run.data_root)
    split = split_ratings(ratings, config.ratings.test_share, config.ratings.split == "time", seed=config.trainer.seed)
    run = Run("recommender", config, config.run, config.trainer, split.train, split.test)
    # 2. Build the model.
    model = kind.build(len(split.users), len(split.items), split.mean, **{**kind.settings, **own})
    # 3. Train it.
    since = time.perf_counter()
    run.fit(*rating_training(model, split, config.learning, config.trainer.seed))
    more = {"seconds of training": time.perf_counter() - since, "epoch chosen by": run.chosen_by}
    # 4. Compare it with means.
    if run.is_main:
        save_catalogue(run.folder / CATALOGUE, split, ratings, titles)
        run.keep(evaluate_ratings(model, split, config.learning.damping, config.trainer.device, more))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
