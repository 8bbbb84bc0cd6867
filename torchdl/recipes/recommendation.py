"""Train a model of ratings, and compare it with mean ratings.

Shapes: N ratings, U users, I items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.data import BatchLoader
from torchdl.data.delimited_files import TableFormat
from torchdl.data.duplicates import duplicates_note, in_training
from torchdl.data.movielens import find_ratings, read_titles
from torchdl.data.ratings import COLUMNS, Ratings, RatingSplit, read_ratings
from torchdl.errors import require
from torchdl.field_docs import with_field_docs
from torchdl.files import PathLike
from torchdl.overrides import Overrides
from torchdl.plots import plot_bars
from torchdl.predict import RatedItems, Recommender
from torchdl.predict.recommender import CHUNK
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, ScheduleName

ROUNDS = 1000  # at most, of conjugate gradients: 10 to 100 are needed
GROUPS = (0, 1, 3, 10, 30, 100)  # items are grouped by these minimum numbers of training ratings


@with_field_docs
@dataclass(frozen=True)
class RatingOptions:
    """Which ratings to use, the format of their file, and how to choose the test ratings."""

    dataset: str = "ml-latest-small"
    """ml-latest-small, ml-20m, a folder with ratings.csv (and movies.csv for titles), or a table of ratings."""
    user: str = COLUMNS[0]
    """The column of the users' ids."""
    item: str = COLUMNS[1]
    """The column of the items' ids."""
    rating: str = COLUMNS[2]
    """The column of the ratings."""
    time: str = COLUMNS[3]
    """The column of the times, seconds or ISO 8601 dates; read only for the split by time."""
    split: Literal["random", "time"] = "random"
    """Test on ratings drawn by the seed, as in the course, or on the latest ratings, as in real use."""
    test_share: float = 0.2
    """Share of the ratings that are used for testing."""
    format: TableFormat = field(default_factory=TableFormat)

    def load(self, root: PathLike | None = None) -> tuple[Ratings, list[str]]:
        """Load the ratings, and the titles of their items in the order of ``np.unique(ratings.item)``."""
        path = find_ratings(self.dataset, root)
        time = self.time if self.split == "time" else None
        ratings = read_ratings(path, self.user, self.item, self.rating, time, self.format)
        return ratings, read_titles(path, np.unique(ratings.item))


@with_field_docs
@dataclass(frozen=True)
class RatingLearning(Overrides):
    """How a model of ratings learns; None means the model's default."""

    batch_size: int = 1024
    """Ratings per step and process."""
    optimizer: OptimizerName | None = None
    """The name of the optimizer; adam by default, momentum for the course's network."""
    lr: float | None = None
    """The learning rate; with a schedule, its maximum; 0.01 by default, 0.08 for the course's network."""
    weight_decay: float | None = None
    """Weight decay of vectors and kernels: decoupled (scaled by the learning rate) with adamw, else an L2 penalty."""
    schedule: ScheduleName | None = None
    """The learning rate over time: constant; cosine or linear to 0; one_cycle, which rises during the first quarter."""
    damping: float = 5.0
    """Number of ratings equal to the overall mean that the mean baselines add to each user's and each item's."""


DEFAULTS = RatingLearning(1024, "adam", 1e-2, 2e-4, "cosine")


def fit_means(split: RatingSplit, damping: float = 5.0, rounds: int = ROUNDS) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute the deviations of users and items from the overall mean, separately and jointly.

    A deviation is a mean shrunk towards 0, as if there were ``damping`` more ratings without deviation. The joint ones
    minimise the squared errors plus ``damping`` times the squared deviations. Conjugate gradients find them to about
    ten digits: given the users' deviations, the items' are means, so a linear system for the users' remains (Hestenes
    and Stiefel 1952).

    Args:
        split: The ratings.
        damping: 0 or more. With 0, the joint deviations are not unique, but their predictions are.
        rounds: The maximum number of rounds of conjugate gradients, for fewer digits.

    Returns:
        The deviations of users (U + 1,) and items (I + 1,), float64, by the baseline's name. Number 0, the unknown user
        or item, has deviation 0.

    Raises:
        InputError: The damping is negative.
    """
    require(damping >= 0, f"damping must be 0 or more, not {damping}")
    users, items = (column.long() for column in split.train.inputs.unbind(1))
    rest = split.train.targets.double() - split.mean  # (N,)
    sizes = (len(split.users) + 1, len(split.items) + 1)
    # number 0 has no training ratings: avoid 0 / 0 without damping
    user_weights, item_weights = (
        (torch.bincount(numbers, minlength=size).double() + damping).clamp(min=1e-12)
        for numbers, size in zip((users, items), sizes, strict=True)
    )

    def user_sums(values: Tensor) -> Tensor:
        return torch.zeros(sizes[0], dtype=torch.float64).index_add_(0, users, values)

    def item_means(values: Tensor) -> Tensor:
        return torch.zeros(sizes[1], dtype=torch.float64).index_add_(0, items, values) / item_weights

    no_user, no_item = (torch.zeros(size, dtype=torch.float64) for size in sizes)
    user, item = user_sums(rest) / user_weights, item_means(rest)
    separate = {"mean": (no_user, no_item), "user means": (user, no_item), "item means": (no_user, item)}
    user = no_user.clone()
    gradient = user_sums(rest - item[items])  # (U + 1,), of the users' deviations, up to a factor of -2
    enough = 1e-15 * gradient.abs().max()
    scaled = gradient / user_weights
    direction = scaled
    for _ in range(rounds):
        if gradient.abs().max() <= enough:
            break
        change = user_weights * direction - user_sums(item_means(direction[users])[items])
        before = gradient @ scaled
        step = before / (direction @ change)
        user, gradient = user + step * direction, gradient - step * change
        scaled = gradient / user_weights
        direction = scaled + gradient @ scaled / before * direction
    return {**separate, "user and item means": (user, item_means(rest - user[users]))}


def predict_means(pairs: Tensor, mean: float, deviations: tuple[Tensor, Tensor]) -> Tensor:
    """Predict ratings (N,), float64, of pairs (N, 2) from the ``mean`` rating and deviations by :func:`fit_means`."""
    user, item = deviations
    return mean + user[pairs[:, 0].long()] + item[pairs[:, 1].long()]


def errors(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """Return the root mean squared and the mean absolute error of ``predicted`` ratings (N,) against ``true`` ones."""
    difference = predicted.double() - true.double()
    return {"RMSE": float(difference.square().mean().sqrt()), "MAE": float(difference.abs().mean())}


def rating_training(model: nn.Module, split: RatingSplit, learning: RatingLearning, seed: int = 0) -> Training:
    """Build the task and batches of training on ratings.

    The validation data are the test ratings. They influence no choice unless the trainer monitors one of their metrics.

    Args:
        model: Maps pairs (B, 2) to ratings (B,).
        split: The ratings.
        learning: How the model learns.
        seed: The seed of the batches' order.

    Raises:
        InputError: The damping is negative.
    """
    settings = asdict(learning.with_defaults(DEFAULTS))
    damping = settings.pop("damping")
    require(0 <= damping < math.inf, f"damping must be 0 or more, not {damping}")
    train = BatchLoader(split.train, learning.batch_size, shuffle=True, seed=seed)
    return Training(Learning(**settings).task(model, F.mse_loss), train, BatchLoader(split.test, CHUNK))


def recommender(
    model: nn.Module,
    split: RatingSplit,
    ratings: Ratings,
    titles: Sequence[str],
    options: RatingOptions | None = None,
    device: str = "auto",
) -> Recommender:
    """Return the predictor of a model that learns from the training part of ratings.

    Args:
        model: Maps pairs (N, 2) of a user and an item to ratings (N,).
        split: The ratings, split.
        ratings: All of them: what a user has rated, in either part, is not recommended.
        titles: The titles of the items, in the order of ``np.unique(ratings.item)``.
        options: Which columns the ratings came from.
        device: Where to compute.
    """
    options = RatingOptions() if options is None else options
    title_of = dict(zip(np.unique(ratings.item).tolist(), titles, strict=True))
    items = split.items.tolist()
    settings = Recommender.Settings(
        tuple(split.users.tolist()),
        tuple(items),
        tuple(title_of[item] for item in items),
        split.range,
        float(split.train.targets.double().std(correction=0)),
        options.item,
        options.rating,
    )
    return Recommender(model, settings, device, rated=RatedItems.of(ratings, split))


def evaluate_ratings(
    recommender: Recommender, split: RatingSplit, damping: float = 5.0, more: Mapping[str, Any] | None = None
) -> Report:
    """Compare a recommender with the means of users and items on the test ratings.

    All predictions are clipped to the range of the training ratings.

    Args:
        recommender: The recommender.
        split: The ratings; they are moved to the CPU.
        damping: See :func:`fit_means`.
        more: Further results to include.
    """
    for part in (split.train, split.test):
        part.to("cpu")
    pairs, true = split.test[:]
    low, high = split.range
    means = fit_means(split, damping)
    predicted = {name: predict_means(pairs, split.mean, deviations) for name, deviations in means.items()}
    predicted["this model"] = recommender.predictions(pairs)
    predicted = {name: values.clamp(low, high) for name, values in predicted.items()}
    measured = {name: errors(values, true) for name, values in predicted.items()}
    counts = torch.bincount(split.train.inputs[:, 1], minlength=len(split.items) + 1)[pairs[:, 1].long()]  # (N,)
    group = torch.bucketize(counts, torch.tensor(GROUPS), right=True) - 1  # (N,)
    names = ["none", *(f"{first} to {end - 1}" for first, end in pairwise(GROUPS[1:])), f"{GROUPS[-1]} or more"]
    by_count = {
        predictor: {
            f"{name} ({int((group == k).sum()):,} held out)": errors(predicted[predictor][group == k], true[group == k])
            for k, name in enumerate(names)
            if (group == k).any()
        }
        for predictor in ("user and item means", "this model")
    }
    unseen = (pairs == 0).sum(0).tolist()
    known = in_training(split.train.inputs, pairs)  # no pair with an index 0 is
    results = {
        "errors": measured,
        "errors by the item's training ratings": by_count,
        "ratings": {"train": len(split.train), "held out": len(split.test)},
        "held out pairs in training": int(known.sum()),
        "held out of users unseen in training": unseen[0],
        "held out of items unseen in training": unseen[1],
        "users": len(split.users),
        "items": len(split.items),
        "clipped to": [low, high],
        "damping": damping,
        "parameters": sum(p.numel() for p in recommender.model.parameters()),
        **(more or {}),
    }
    errors_by = {key: {name: row[key] for name, row in measured.items()} for key in ("RMSE", "MAE")}
    rmse_by_count = {name: {key: row["RMSE"] for key, row in rows.items()} for name, rows in by_count.items()}
    lines = [
        f"{'':20} {'RMSE':>8} {'MAE':>8}   on {len(true):,} test ratings, predictions in [{low:g}, {high:g}]",
        *(f"{name:20} {row['RMSE']:8.4f} {row['MAE']:8.4f}" for name, row in measured.items()),
        f"test ratings of users unseen in training: {unseen[0]:,}, of items unseen in training: {unseen[1]:,}",
    ]
    new, score = ~known, ""
    if 0 < new.sum() < len(new):
        others = {name: errors(values[new], true[new]) for name, values in predicted.items()}
        results["without duplicates"] = {"ratings": int(new.sum()), "errors": others}
        score = f"RMSE {others['this model']['RMSE']:.4f}"
    if note := duplicates_note(known, "pairs of a user and an item", score):
        lines.append(note)
    figures = {
        "errors": plot_bars(errors_by, f"error on {len(true):,} test ratings"),
        "errors_by_count": plot_bars(rmse_by_count, "RMSE by the item's number of training ratings"),
    }
    return Report(results, "\n".join(lines), figures)
