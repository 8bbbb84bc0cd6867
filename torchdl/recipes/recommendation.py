"""Train a model of ratings, compare it with means, and recommend with it.

Shapes: N ratings, U users, I items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl import artifacts
from torchdl.data import BatchLoader
from torchdl.data.movielens import find_ratings, read_titles
from torchdl.data.ratings import COLUMNS, Ratings, RatingSplit, number, read_ratings
from torchdl.errors import InputError, require
from torchdl.files import replacing
from torchdl.plots import plot_bars
from torchdl.recipes.learning import Overrides, Training
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, ScheduleName, Supervised, find_schedule, make_optimizer
from torchdl.training.device import find_device

CATALOGUE = "catalogue.npz"
CHUNK = 2**16  # pairs that are predicted at a time
ROUNDS = 20  # of alternating means
GROUPS = (0, 1, 3, 10, 30, 100)  # least numbers of an item's training ratings


@dataclass(frozen=True)
class RatingOptions:
    """Which ratings, and which of them are held out."""

    dataset: str = "ml-latest-small"
    """ml-latest-small, ml-20m, a folder with ratings.csv (and movies.csv for titles), or a CSV file of ratings."""
    user: str = COLUMNS[0]
    """The column of the users' ids."""
    item: str = COLUMNS[1]
    """The column of the items' ids."""
    rating: str = COLUMNS[2]
    """The column of the ratings."""
    time: str = COLUMNS[3]
    """The column of the times; needed for the split by time alone."""
    split: Literal["random", "time"] = "random"
    """Hold out ratings drawn by the seed, as in the course, or the latest, as a recommender meets them."""
    test_share: float = 0.2
    """Share of the ratings that is held out."""

    def load(self, root: Path | None = None) -> tuple[Ratings, list[str]]:
        """Load the ratings and the titles of their items, these in the order of ``np.unique(ratings.item)``."""
        path = find_ratings(self.dataset, root)
        ratings = read_ratings(path, self.user, self.item, self.rating, self.time)
        return ratings, read_titles(path, np.unique(ratings.item))


@dataclass(frozen=True)
class RatingLearning(Overrides):
    """How a model of ratings learns; what is None is as the model has it."""

    batch_size: int = 1024
    """Ratings a step, on each process."""
    optimizer: OptimizerName | None = None
    """The rule of updates; momentum for the course's network, else adam."""
    lr: float | None = None
    """The learning rate, the highest one with a schedule; 0.08 for the course's network."""
    weight_decay: float | None = None
    """How much vectors and kernels shrink: with adamw times the learning rate, else in the gradient."""
    schedule: ScheduleName | None = None
    """The learning rate's course: constant; cosine or linear, falling to 0; one_cycle, rising for a quarter first."""
    damping: float = 5.0
    """Ratings of the mean that the baselines, means of users and of items, are mixed with."""


DEFAULTS = RatingLearning(1024, "adam", 1e-2, 2e-4, "cosine")


def fit_means(split: RatingSplit, damping: float = 5.0, rounds: int = ROUNDS) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute the users' and the items' deviations from the mean, alone and together.

    Each is a mean shrunk towards 0 as if ``damping`` more ratings had none. Those of both together are what alternating
    least squares gives: the minimum of the squared errors and ``damping`` times the squared deviations.

    Returns:
        By name the deviations of the users (U + 1,) and of the items (I + 1,), of which number 0 has none, float64.
    """
    require(damping >= 0, f"damping must be 0 or more, not {damping}")
    users, items = (column.long() for column in split.train.inputs.unbind(1))
    rest = split.train.targets.double() - split.mean  # (N,)
    sizes = (len(split.users) + 1, len(split.items) + 1)

    def means(numbers: Tensor, values: Tensor, size: int) -> Tensor:
        sums = torch.zeros(size, dtype=torch.float64).index_add_(0, numbers, values)
        # number 0 has no ratings in training: without damping it would be 0 / 0
        return sums / (torch.bincount(numbers, minlength=size) + damping).clamp(min=1e-12)

    no_user, no_item = (torch.zeros(size, dtype=torch.float64) for size in sizes)
    user, item = means(users, rest, sizes[0]), means(items, rest, sizes[1])
    found = {"mean": (no_user, no_item), "user means": (user, no_item), "item means": (no_user, item)}
    user = no_user
    for _ in range(rounds):
        item = means(items, rest - user[users], sizes[1])
        user = means(users, rest - item[items], sizes[0])
    return {**found, "user and item means": (user, item)}


def predict_means(pairs: Tensor, mean: float, deviations: tuple[Tensor, Tensor]) -> Tensor:
    """Predict ratings (N,), float64, of pairs (N, 2) by what :func:`fit_means` gives."""
    user, item = deviations
    return mean + user[pairs[:, 0].long()] + item[pairs[:, 1].long()]


@torch.no_grad()
def predict(model: nn.Module, pairs: Tensor, device: torch.device) -> Tensor:
    """Predict ratings (N,), on the CPU in float64, of pairs (N, 2); the model is left in evaluation mode."""
    model.eval().to(device)
    return torch.cat([model(part.to(device)).cpu().double() for part in pairs.split(CHUNK)])


def errors(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """Give the root of the mean squared error and the mean absolute error of predictions (N,)."""
    difference = predicted.double() - true.double()
    return {"RMSE": float(difference.square().mean().sqrt()), "MAE": float(difference.abs().mean())}


def rating_training(model: nn.Module, split: RatingSplit, learning: RatingLearning, seed: int = 0) -> Training:
    """Build the task and the batches of a training on ratings.

    The validation data are the test ratings; nothing is chosen by them unless the trainer is told to monitor one of
    their metrics.
    """
    require(0 <= learning.damping < math.inf, f"damping must be 0 or more, not {learning.damping}")
    chosen: Any = learning.with_defaults(DEFAULTS)
    optimizer = partial(make_optimizer, chosen.optimizer, lr=chosen.lr, weight_decay=chosen.weight_decay)
    task = Supervised(model, F.mse_loss, optimizer=optimizer, schedule=find_schedule(chosen.schedule))
    train = BatchLoader(split.train, learning.batch_size, shuffle=True, seed=seed)
    return Training(task, train, BatchLoader(split.test, CHUNK))


def evaluate_ratings(
    model: nn.Module,
    split: RatingSplit,
    damping: float = 5.0,
    device: str = "auto",
    more: Mapping[str, Any] | None = None,
) -> Report:
    """Compare a model with means of users and of items on the test ratings.

    All predictions are clipped to the range of the training ratings.

    Args:
        model: Pairs (N, 2) of a user and an item to ratings (N,).
        split: The ratings; they are moved to the CPU.
        damping: See :func:`fit_means`.
        device: Where to compute.
        more: Results to add.
    """
    for part in (split.train, split.test):
        part.to("cpu")
    pairs, true = split.test[:]
    low, high = split.range
    predicted = {
        name: predict_means(pairs, split.mean, deviations) for name, deviations in fit_means(split, damping).items()
    }
    predicted["this model"] = predict(model, pairs, find_device(device))
    predicted = {name: values.clamp(low, high) for name, values in predicted.items()}
    measured = {name: errors(values, true) for name, values in predicted.items()}
    counts = torch.bincount(split.train.inputs[:, 1], minlength=len(split.items) + 1)[pairs[:, 1].long()]  # (N,)
    group = torch.bucketize(counts, torch.tensor(GROUPS), right=True) - 1  # (N,)
    names = [f"{least} to {most - 1}" for least, most in pairwise(GROUPS[1:])]
    names = ["none", *names, f"{GROUPS[-1]} or more"]
    by_count = {
        predictor: {
            f"{name} ({int((group == k).sum()):,} held out)": errors(predicted[predictor][group == k], true[group == k])
            for k, name in enumerate(names)
            if (group == k).any()
        }
        for predictor in ("user and item means", "this model")
    }
    unseen = (pairs == 0).sum(0).tolist()
    results = {
        "errors": measured,
        "errors by the item's training ratings": by_count,
        "ratings": {"train": len(split.train), "held out": len(split.test)},
        "held out of users unseen in training": unseen[0],
        "held out of items unseen in training": unseen[1],
        "users": len(split.users),
        "items": len(split.items),
        "clipped to": [low, high],
        "damping": damping,
        "parameters": sum(p.numel() for p in model.parameters()),
        **(more or {}),
    }
    errors_by = {key: {name: row[key] for name, row in measured.items()} for key in ("RMSE", "MAE")}
    rmse_by_count = {name: {key: row["RMSE"] for key, row in rows.items()} for name, rows in by_count.items()}
    lines = [
        f"{'':20} {'RMSE':>8} {'MAE':>8}   on {len(true):,} test ratings, predictions in [{low:g}, {high:g}]",
        *(f"{name:20} {row['RMSE']:8.4f} {row['MAE']:8.4f}" for name, row in measured.items()),
        f"test ratings of users unseen in training {unseen[0]:,}, of items {unseen[1]:,}",
    ]
    figures = {
        "errors": plot_bars(errors_by, f"error on {len(true):,} test ratings"),
        "errors_by_count": plot_bars(rmse_by_count, "RMSE by the item's number of training ratings"),
    }
    return Report(results, "\n".join(lines), figures)


def save_catalogue(path: Path, split: RatingSplit, ratings: Ratings, titles: list[str]) -> None:
    """Keep the ids, the titles and who has rated what, so that a run can recommend without the ratings.

    Whoever was held out counts as rated, too. It takes about 4 bytes a rating before it is packed.
    """
    known = dict(zip(np.unique(ratings.item).tolist(), titles, strict=True))
    users, items = number(ratings.user, split.users), number(ratings.item, split.items)
    order = np.argsort(users, kind="stable")
    stops = np.cumsum(np.bincount(users, minlength=len(split.users) + 1))  # (U + 1,): where a user's ratings stop
    columns: dict[str, Any] = {
        "users": split.users,
        "items": split.items,
        "titles": np.array([known[item] for item in split.items.tolist()], dtype=np.str_),
        "stops": stops.astype(np.int64),
        "rated": items[order],
        "range": np.array(split.range),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **columns)


@dataclass(frozen=True)
class Catalogue:
    """What :func:`save_catalogue` has kept, checked."""

    users: np.ndarray
    items: np.ndarray
    titles: np.ndarray
    stops: np.ndarray
    rated: np.ndarray
    range: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Load it as data, never as code; :class:`InputError` where it is not there or damaged."""
        require(path.is_file(), f"there is no {path}: name a finished run of a recommender")
        try:
            with np.load(path, allow_pickle=False) as file:
                made = cls(**{name: file[name] for name in cls.__dataclass_fields__})
            right = len(made.titles) == len(made.items) and len(made.stops) == len(made.users) + 1
            right = right and made.range.shape == (2,) and int(made.stops[-1]) == len(made.rated)
        except Exception as error:  # whatever a damaged zip makes of itself
            raise InputError(f"{path} is damaged ({' '.join(str(error).split())}): train again") from error
        require(right, f"{path} is damaged (its parts do not belong together): train again")
        return made

    def number_of(self, user: str) -> int:
        """Find a user's number by the id as the user writes it; :class:`InputError` where there is none."""
        found = np.flatnonzero(self.users.astype(str) == user.strip())
        some = ", ".join(map(str, self.users[:3].tolist()))
        require(
            len(found) == 1,
            f"there is no user {user!r} among the {len(self.users):,} that the model was trained on ({some}, ...)",
        )
        return int(found[0]) + 1


def recommend(folder: Path, user: str, count: int = 10) -> list[tuple[str, float]]:
    """Recommend by a finished run: the titles with the highest predicted ratings among those the user has not rated.

    Args:
        folder: The run's folder.
        user: The user's id.
        count: How many; fewer if there are fewer.

    Returns:
        Titles and predicted ratings, clipped to the range of the training ratings; ordered by what is predicted before
        it is clipped.
    """
    require(count >= 1, f"the number of recommendations must be at least 1, not {count}")
    catalogue = Catalogue.load(folder / CATALOGUE)
    model: Any = artifacts.load(folder)
    fits = (getattr(model, "users", None), getattr(model, "items", None)) == (
        len(catalogue.users),
        len(catalogue.items),
    )
    require(fits, f"the model and the {CATALOGUE} in {folder} do not belong together: name a run as it was left")
    who = catalogue.number_of(user)
    rated = catalogue.rated[catalogue.stops[who - 1] : catalogue.stops[who]]
    left = np.setdiff1d(np.arange(1, len(catalogue.items) + 1), rated)
    if len(left) == 0:
        return []
    pairs = torch.stack([torch.full((len(left),), who), torch.from_numpy(left)], 1)  # (I, 2)
    predicted = predict(model, pairs, torch.device("cpu"))
    order = predicted.argsort(descending=True, stable=True)[:count]
    low, high = catalogue.range.tolist()
    clipped = predicted[order].clamp(low, high).tolist()
    return list(zip(catalogue.titles[left[order.numpy()] - 1].tolist(), clipped, strict=True))
