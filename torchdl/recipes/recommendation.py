"""Train a model of ratings, compare it with mean ratings, and recommend items.

Shapes: N ratings, U users, I items.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl import artifacts
from torchdl.data import BatchLoader
from torchdl.data.delimited_files import TableFormat
from torchdl.data.duplicates import duplicates_note, in_training
from torchdl.data.movielens import find_ratings, read_titles
from torchdl.data.ratings import COLUMNS, Ratings, RatingSplit, indices_of, read_ratings
from torchdl.errors import InputError, require
from torchdl.files import PathLike, replacing
from torchdl.plots import plot_bars
from torchdl.recipes.learning import Learning, Overrides, Training
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, ScheduleName
from torchdl.training.device import find_device

CATALOGUE = "catalogue.npz"
MAX_CATALOGUE = 2**31  # bytes of its arrays; those of 20 million ratings have 0.1 GiB
CHUNK = 2**16  # pairs that are predicted at a time
ROUNDS = 1000  # at most, of conjugate gradients: 10 to 100 are needed
GROUPS = (0, 1, 3, 10, 30, 100)  # items are grouped by these minimum numbers of training ratings


@dataclass(frozen=True)
class RatingOptions:
    """Which ratings to use, and how to choose the test ratings."""

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
    """Predict ratings (N,), float64, of pairs (N, 2) from deviations by :func:`fit_means`."""
    user, item = deviations
    return mean + user[pairs[:, 0].long()] + item[pairs[:, 1].long()]


@torch.no_grad()
def predict(model: nn.Module, pairs: Tensor, device: torch.device) -> Tensor:
    """Predict ratings (N,), float64 on the CPU, of pairs (N, 2), and leave the model in evaluation mode."""
    model.eval().to(device)
    return torch.cat([model(part.to(device)).cpu().double() for part in pairs.split(CHUNK)])


def errors(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """Return the root mean squared error and the mean absolute error of predictions (N,)."""
    difference = predicted.double() - true.double()
    return {"RMSE": float(difference.square().mean().sqrt()), "MAE": float(difference.abs().mean())}


def rating_training(model: nn.Module, split: RatingSplit, learning: RatingLearning, seed: int = 0) -> Training:
    """Build the task and batches of training on ratings.

    The validation data are the test ratings. They influence no choice unless the trainer monitors one of their metrics.
    """
    settings = asdict(learning.with_defaults(DEFAULTS))
    damping = settings.pop("damping")
    require(0 <= damping < math.inf, f"damping must be 0 or more, not {damping}")
    train = BatchLoader(split.train, learning.batch_size, shuffle=True, seed=seed)
    return Training(Learning(**settings).task(model, F.mse_loss), train, BatchLoader(split.test, CHUNK))


def evaluate_ratings(
    model: nn.Module,
    split: RatingSplit,
    damping: float = 5.0,
    device: str = "auto",
    more: Mapping[str, Any] | None = None,
) -> Report:
    """Compare a model with the means of users and items on the test ratings.

    All predictions are clipped to the range of the training ratings.

    Args:
        model: Maps pairs (N, 2) of a user and an item to ratings (N,).
        split: The ratings; they are moved to the CPU.
        damping: See :func:`fit_means`.
        device: Where to compute.
        more: Further results to include.
    """
    for part in (split.train, split.test):
        part.to("cpu")
    pairs, true = split.test[:]
    low, high = split.range
    means = fit_means(split, damping)
    predicted = {name: predict_means(pairs, split.mean, deviations) for name, deviations in means.items()}
    predicted["this model"] = predict(model, pairs, find_device(device))
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
        "parameters": sum(p.numel() for p in model.parameters()),
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


def save_catalogue(path: PathLike, split: RatingSplit, ratings: Ratings, titles: list[str]) -> None:
    """Save the ids, the titles and which items each user rated, so that a run can recommend without the data set.

    Test ratings are included. The file has about 4 bytes per rating before compression.
    """
    title_of = dict(zip(np.unique(ratings.item).tolist(), titles, strict=True))
    users, items = indices_of(ratings.user, split.users), indices_of(ratings.item, split.items)
    order = np.argsort(users, kind="stable")
    stops = np.cumsum(np.bincount(users, minlength=len(split.users) + 1))  # (U + 1,): where each user's ratings end
    columns: dict[str, Any] = {
        "users": split.users,
        "items": split.items,
        "titles": np.array([title_of[item] for item in split.items.tolist()], dtype=np.str_),
        "stops": stops.astype(np.int64),
        "rated": items[order],
        "range": np.array(split.range),
    }
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **columns)


@dataclass(frozen=True)
class Catalogue:
    """The arrays saved by :func:`save_catalogue`."""

    users: np.ndarray
    items: np.ndarray
    titles: np.ndarray
    stops: np.ndarray
    rated: np.ndarray
    range: np.ndarray

    @classmethod
    def load(cls, path: PathLike) -> Catalogue:
        """Load a catalogue, as data and never as code; raise :class:`InputError` if it is missing or damaged."""
        require(Path(path).is_file(), f"there is no {path}: use a finished run of a recommender")
        try:
            with zipfile.ZipFile(path) as members:
                size = sum(member.file_size for member in members.infolist())
            require(size <= MAX_CATALOGUE, f"its arrays have {size:,} bytes, more than {MAX_CATALOGUE:,}")
            with np.load(path, allow_pickle=False) as file:
                catalogue = cls(**{name: file[name] for name in cls.__dataclass_fields__})
            catalogue.check()
        except Exception as error:  # a damaged zip file can raise many errors
            raise InputError(f"{path} is damaged ({' '.join(str(error).split())}): train again") from error
        return catalogue

    def check(self) -> None:
        """Raise :class:`InputError` if the arrays are not those of a catalogue."""
        users, items = len(self.users), len(self.items)
        for name, kinds in {
            **dict.fromkeys(("users", "items"), "iuU"),
            "titles": "U",
            "stops": "iu",
            "rated": "iu",
        }.items():
            array = getattr(self, name)
            require(
                array.ndim == 1 and array.dtype.kind in kinds, f"{name} has {array.ndim} dimensions of {array.dtype}"
            )
        distinct = all(len(np.unique(ids)) == len(ids) for ids in (self.users, self.items))
        require(distinct and len(self.titles) == items and len(self.stops) == users + 1, "its arrays do not match")
        ends = [0, *self.stops[[0, -1]].tolist(), len(self.rated)]
        ordered = ends == sorted(ends) and ends[2] == ends[3] and bool((np.diff(self.stops) >= 0).all())
        require(ordered and bool(((self.rated >= 0) & (self.rated <= items)).all()), "its ratings do not match")
        low_high = self.range.shape == (2,) and self.range.dtype.kind == "f"
        require(low_high and -math.inf < self.range[0] <= self.range[1] < math.inf, f"its range is {self.range}")

    def number_of(self, user: str | int) -> int:
        """Return the number of the user with an id; raise :class:`InputError` if there is no such user."""
        (index,) = indices_of(np.array([str(user).strip()]), self.users).tolist()
        users = f"{len(self.users):,} training users ({', '.join(map(str, self.users[:3].tolist()))}, ...)"
        require(index > 0, f"there is no user {user!r} among the {users}")
        return int(index)


def recommend(folder: PathLike, user: str | int, count: int = 10) -> list[tuple[str, float]]:
    """Return the titles with the highest predicted ratings among those that a user has not rated.

    Args:
        folder: The folder of a finished run.
        user: The user's id.
        count: Maximum number of titles.

    Returns:
        Titles and predicted ratings, sorted by prediction and then clipped to the range of the training ratings.
    """
    require(count >= 1, f"the number of recommendations must be at least 1, not {count}")
    catalogue = Catalogue.load(Path(folder) / CATALOGUE)
    model = artifacts.load(folder)
    sizes = (getattr(model, "users", None), getattr(model, "items", None))
    match = sizes == (len(catalogue.users), len(catalogue.items))
    require(match, f"the model and the {CATALOGUE} in {folder} do not match: use an unchanged run")
    who = catalogue.number_of(user)
    rated = catalogue.rated[catalogue.stops[who - 1] : catalogue.stops[who]]
    unrated = np.setdiff1d(np.arange(1, len(catalogue.items) + 1), rated)
    if len(unrated) == 0:
        return []
    pairs = torch.stack([torch.full((len(unrated),), who), torch.from_numpy(unrated)], 1)  # (N, 2)
    predicted = predict(model, pairs, torch.device("cpu"))
    require(
        bool(predicted.isfinite().all()), f"the model in {folder} predicts ratings that are not finite: train again"
    )
    order = predicted.argsort(descending=True, stable=True)[:count]
    low, high = catalogue.range.tolist()
    clipped = predicted[order].clamp(low, high).tolist()
    return list(zip(catalogue.titles[unrated[order.numpy()] - 1].tolist(), clipped, strict=True))
