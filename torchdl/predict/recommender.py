"""Recommend items to a user who was in training, or to a new user by a few ratings.

Shapes: N ratings or pairs, U users, I items, P numbers per user.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchdl.data.delimited_files import CSV, TableFormat, read_rows, row_number
from torchdl.data.numerals import number
from torchdl.data.ratings import COLUMNS, Ratings, RatingSplit, as_ids, indices_of
from torchdl.errors import InputError, kind_of, require
from torchdl.files import PathLike, replacing
from torchdl.predict.base import Predictor
from torchdl.predict.embeddings import EmbeddingAnswers

if TYPE_CHECKING:
    import pandas

CATALOGUE = "catalogue.npz"
MAX_CATALOGUE = 2**31  # bytes of its arrays; those of 20 million ratings have 0.1 GiB
CHUNK = 2**16  # pairs that are predicted at a time
ROUNDS = 200  # at most, of L-BFGS: 20 to 60 are needed
TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class RatedItems:
    """Which items each user has rated; saved as ``catalogue.npz``.

    Attributes:
        stops: (U + 1,), where each user's items end; those of user 1 begin at ``stops[0]``.
        rated: The indices of the items, one user's after the other's.
    """

    stops: np.ndarray
    rated: np.ndarray

    @classmethod
    def of(cls, ratings: Ratings, split: RatingSplit) -> RatedItems:
        """List what each user of the training part of ``split`` has rated in ``ratings``, the test part included."""
        users, items = indices_of(ratings.user, split.users), indices_of(ratings.item, split.items)
        stops = np.cumsum(np.bincount(users, minlength=len(split.users) + 1))
        return cls(stops.astype(np.int64), items[np.argsort(users, kind="stable")])

    def by(self, user: int) -> np.ndarray:
        """Return the indices of the items that the user with an index from 1 has rated."""
        return self.rated[self.stops[user - 1] : self.stops[user]]

    def save(self, path: PathLike) -> None:
        """Save the arrays: about 4 bytes per rating before compression."""
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, stops=self.stops, rated=self.rated)

    @classmethod
    def load(cls, path: PathLike) -> RatedItems:
        """Load the arrays, as data and never as code; raise :class:`InputError` if they are missing or damaged."""
        require(Path(path).is_file(), f"there is no {path}: use a finished run of a recommender")
        try:
            with zipfile.ZipFile(path) as members:
                size = sum(member.file_size for member in members.infolist())
            require(size <= MAX_CATALOGUE, f"its arrays have {size:,} bytes, more than {MAX_CATALOGUE:,}")
            with np.load(path, allow_pickle=False) as file:
                found = cls(file["stops"], file["rated"])
            found.check()
        except Exception as error:  # a damaged zip file can raise many errors
            raise InputError(f"{path} is damaged ({' '.join(str(error).split())}): train again") from error
        return found

    def check(self) -> None:
        """Raise :class:`InputError` if the arrays are not such lists."""
        for name, array in (("stops", self.stops), ("rated", self.rated)):
            flat = array.ndim == 1 and array.dtype.kind in "iu"
            require(flat, f"{name} has {array.ndim} dimensions of {array.dtype}")
        require(len(self.stops) > 0, "it has no users")
        ends = [0, *self.stops[[0, -1]].tolist(), len(self.rated)]
        ordered = ends == sorted(ends) and ends[2] == ends[3] and bool((np.diff(self.stops) >= 0).all())
        require(ordered and bool((self.rated >= 0).all()), "its ratings do not match")


@dataclass(frozen=True)
class RecommenderSettings:
    """What a recommender knows of users, items and ratings.

    Attributes:
        users: The ids of the U users.
        items: The ids of the I items.
        titles: The titles of the items.
        range: The minimum and maximum of the training ratings.
        deviation: The standard deviation of the training ratings.
        item: The column of the items' ids in the training table.
        rating: The column of the ratings there.
    """

    users: tuple[int | str, ...]
    items: tuple[int | str, ...]
    titles: tuple[str, ...]
    range: tuple[float, float]
    deviation: float
    item: str = COLUMNS[1]
    rating: str = COLUMNS[2]


@dataclass(frozen=True)
class Recommendations:
    """Items for a user, the best first.

    Attributes:
        items: Their ids.
        titles: Their titles.
        ratings: The predicted ratings (N,), float64, within the range of the training ratings.
    """

    items: tuple[int | str, ...]
    titles: tuple[str, ...]
    ratings: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def to_frame(self) -> pandas.DataFrame:
        """Return a table: the predicted ratings, the titles and the ids."""
        import pandas  # imported late: it takes a second

        columns = {"predicted rating": self.ratings.tolist(), "title": self.titles, "item": self.items}
        return pandas.DataFrame(columns)


class Recommender(Predictor[RecommenderSettings]):
    """Recommend items by a model that maps pairs (N, 2) of a user's and an item's index, from 1, to ratings (N,).

    A new user is *folded in*: see :meth:`fold_in`.

    Args:
        model, settings, device: See :class:`Predictor`.
        batch_size: The number of pairs that are computed at once; at least 65,536, since they are small.
        rated: Which items each user has rated.

    Example:
        >>> import numpy as np
        >>> from torchdl.predict import RatedItems, Recommender
        >>> settings = Recommender.Settings((5, 9), (31, 40), ("Up (2009)", "Jaws (1975)"), (0.5, 5.0), 1.0)
        >>> model = torchdl.MatrixFactorization(users=2, items=2, mean=3.5, dim=2)
        >>> rated = RatedItems(stops=np.array([0, 2, 3]), rated=np.array([1, 2, 2]))  # user 9 has rated Jaws
        >>> recommender = Recommender(model, settings, rated=rated)
        >>> recommender.predict(9).titles, recommender.predict({"Up (2009)": 4.5}).titles
        (('Up (2009)',), ('Jaws (1975)',))
        >>> [title for title, similarity in recommender.similar("Up", least=1)]
        ['Jaws (1975)']
    """

    kind = "recommender"
    Settings = RecommenderSettings

    def __init__(
        self,
        model: nn.Module,
        settings: RecommenderSettings,
        device: str | torch.device = "auto",
        batch_size: int = CHUNK,
        *,
        rated: RatedItems,
    ) -> None:
        self.rated = rated
        self.saved_in: Path | None = None
        super().__init__(model, settings, device, batch_size)

    @classmethod
    def read_more(cls, folder: Path) -> dict[str, Any]:
        """Read what each user has rated."""
        return {"rated": RatedItems.load(folder / CATALOGUE)}

    def save_settings(self, folder: PathLike) -> None:
        """Save the settings, and beside them what each user has rated, which does not change during a training."""
        if self.saved_in != Path(folder):
            self.rated.save(Path(folder) / CATALOGUE)
            self.saved_in = Path(folder)
        super().save_settings(folder)

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        users, items = self.settings.users, self.settings.items
        for name, ids in (("users", users), ("items", items)):
            require(len(ids) == getattr(self.model, name, len(ids)) > 0, f"the model has another number of {name}")
            alike = len({type(each) for each in ids}) == 1 and len(set(ids)) == len(ids)
            require(alike, f"the {name} need distinct ids, all integers or all texts")
        self.users, self.items = as_ids(np.array(users, dtype=object)), as_ids(np.array(items, dtype=object))
        require(len(self.settings.titles) == len(items), "each item needs a title")
        (low, high), deviation = self.settings.range, self.settings.deviation
        require(-math.inf < low <= high < math.inf, f"the range of ratings cannot be {low} to {high}")
        require(0 <= deviation <= high - low, f"the deviation of ratings cannot be {deviation}")
        self.rated.check()
        own = len(self.rated.stops) == len(users) + 1 and bool((self.rated.rated <= len(items)).all())
        require(own, f"the lists of rated items ({CATALOGUE}) are of other users or items")

    # predictions

    def predict(self, user: Any, count: int | None = 10) -> Recommendations:
        """Return the items with the highest predicted ratings among those that a user has not rated.

        Args:
            user: The id of a user of the training; or a new user's own ratings, for :meth:`fold_in`: a dictionary from
                items to ratings, a list of pairs of them, or a table (``.csv``, ``.tsv``) with such columns. A string
                is an id if there is a user of that id, or if it does not end in ``.csv`` or ``.tsv``.
            count: The maximum number of items; None for all.

        Raises:
            InputError: There is no such user, item or file, or a rating is not in the range of the training's.
        """
        require(count is None or count >= 1, f"the number of recommendations must be at least 1, not {count}")
        tables: dict[str, Tensor] = {}
        if isinstance(user, (str, int, np.integer)) and not self.is_table(user):
            who = self.user_index(user)
            known = self.rated.by(who)
        else:
            items, ratings = self.own_ratings(user)
            who, known, tables = 1, items.numpy(), self.fold_in(items, ratings)
        unrated = torch.from_numpy(np.setdiff1d(np.arange(1, len(self.items) + 1), known))  # (N,)
        predicted = self.predictions(torch.stack([torch.full_like(unrated, who), unrated], 1), tables)
        order = predicted.argsort(descending=True, stable=True)[:count]
        chosen = (unrated[order] - 1).tolist()
        ids, titles = (tuple(part[k] for k in chosen) for part in (self.settings.items, self.settings.titles))
        return Recommendations(ids, titles, self.clip(predicted[order]))

    def rate(self, pairs: Iterable[tuple[str | int, str | int]]) -> Tensor:
        """Predict the ratings (N,), float64, of pairs of a user's id and an item's id or title.

        Raises:
            InputError: There are no pairs.
        """
        pairs = list(pairs)
        require(len(pairs) > 0, "there are no pairs of a user and an item")
        users, items = zip(*pairs, strict=True)
        who, what = torch.tensor([self.user_index(user) for user in users]), self.item_indices(items)
        return self.clip(self.predictions(torch.stack([who, what], 1)))

    def similar(self, item: str | int, count: int = 10, least: int = 10) -> list[tuple[str, float]]:
        """Return the titles of the items with the nearest vectors, and their cosine similarities in [-1, 1].

        Args:
            item: An item's id or title.
            count: The maximum number of items.
            least: The minimum number of ratings of an item that is returned: a vector of fewer is mostly noise.

        Raises:
            InputError: There is no such item, the model has no vectors of items, or no other item has as many ratings.
        """
        (place,) = (self.item_indices([item]) - 1).tolist()
        embeddings = self.item_embeddings()
        counts = np.bincount(self.rated.rated, minlength=len(self.items) + 1)[1:]
        others = [other for other in np.flatnonzero(counts >= least).tolist() if other != place]
        require(len(others) > 0, f"no other item has {least} ratings: choose a smaller number, such as least=1")
        chosen = [place, *others]
        titles = [embeddings.inputs[other] for other in chosen]
        return EmbeddingAnswers(embeddings.embeddings[chosen], titles).nearest(count, [0])[0]

    def item_embeddings(self) -> EmbeddingAnswers:
        """Return the vectors of all items, by title; those that a model has for its parts, one after the other.

        Raises:
            InputError: The model has no vectors of items.
        """
        named = self.model.named_parameters()
        tables = [table.detach()[1:].float().cpu() for name, table in named if name.endswith("item_vectors.weight")]
        vectors = torch.cat([torch.empty(len(self.items), 0), *tables], 1)  # (I, D)
        require(vectors.shape[1] > 0, f"{kind_of(self.model)} has no vectors of items to compare")
        return EmbeddingAnswers(vectors, self.settings.titles)

    def predictions(self, pairs: Tensor, tables: Mapping[str, Tensor] | None = None) -> Tensor:
        """Predict the ratings (N,), float64 on the CPU and not clipped, of pairs (N, 2) of indices, 0 for unknown ones.

        Args:
            pairs: The indices.
            tables: Parameters that replace the model's, by name; see :meth:`fold_in`.

        Raises:
            InputError: A prediction is not finite.
        """
        found = [torch.empty(0, dtype=torch.float64)]
        with self.ready():
            own = dict(self.model.named_parameters())
            replaced = {name: table.to(own[name]) for name, table in (tables or {}).items()}  # device and type
            for part in pairs.split(max(self.batch_size, CHUNK)) if len(pairs) else ():  # pairs are small
                found.append(functional_call(self.model, replaced, (part.to(self.device),)).cpu().double())
        predicted = torch.cat(found)
        require(bool(predicted.isfinite().all()), "the model predicts ratings that are not finite: train again")
        return predicted

    def clip(self, ratings: Tensor) -> Tensor:
        """Clip ratings to the range of the training ratings."""
        return ratings.clamp(*self.settings.range)

    # new users

    def fold_in(self, items: Tensor, ratings: Tensor) -> dict[str, Tensor]:
        """Find what the model would know of a new user, from ratings of that user; the model stays as it is.

        All P numbers of the user (the vectors and the bias) are fitted by ridge regression, with all other parameters
        frozen: they minimise the squared errors, divided by the variance of a rating's error, plus the squared distance
        from the mean of the trained users' numbers, measured by their covariance (Mahalanobis). That is the most
        probable user, if users are distributed as those of the training are, and errors normally. Without ratings it is
        the mean user. L-BFGS finds the minimum from there; the result depends on the ratings alone.

        Limits: the variance of an error is taken as half of that of the training ratings. A network's minimum may be a
        local one. The items' parameters learn nothing from the new ratings, nor does the model meet new items, so users
        who rate much are better served by a training that includes them.

        Args:
            items: The items' indices (N,), from 1.
            ratings: The ratings (N,).

        Returns:
            Tables of users, by their parameters' names, in which the user has the index 1.

        Raises:
            InputError: The model has no vectors of users, or one that is not finite.
        """
        state = {name: value.detach().cpu().double() for name, value in self.model.named_parameters()}
        names = [name for name in state if name.split(".")[-2:][0].startswith("user_")]
        require(len(names) > 0, f"{kind_of(self.model)} has no vectors of users: new users cannot be folded in")
        known = torch.cat([state[name][1:] for name in names], 1)  # (U, P)
        require(bool(known.isfinite().all()), "the model has users that are not finite: train again")
        widths, mean = [state[name].shape[1] for name in names], known.mean(0)
        values, vectors = torch.linalg.eigh((known - mean).T @ (known - mean) / len(known))
        root = vectors * values.clamp(min=0).sqrt()  # (P, P), times its transpose the covariance
        pairs, noise = torch.stack([torch.ones_like(items), items], 1), self.noise
        frozen = {name: value for name, value in state.items() if name not in names}

        def tables(z: Tensor) -> dict[str, Tensor]:
            rows = (mean + root @ z).split(widths)
            return {name: torch.stack([torch.zeros_like(row), row]) for name, row in zip(names, rows, strict=True)}

        z = torch.zeros(len(mean), dtype=torch.float64, requires_grad=True)  # in units of the prior's deviations
        optimizer = torch.optim.LBFGS([z], max_iter=ROUNDS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            predicted = functional_call(self.model, {**frozen, **tables(z)}, (pairs,))
            loss = (predicted - ratings).square().sum() / noise + z.square().sum()
            loss.backward()
            return loss

        with self.ready():
            optimizer.step(closure)  # it computes gradients
        return tables(z.detach())

    @property
    def noise(self) -> float:
        """The variance of a rating's error that :meth:`fold_in` assumes."""
        return max(self.settings.deviation * self.settings.deviation / 2, 1e-6)  # ** would overflow

    def own_ratings(self, given: Any) -> tuple[Tensor, Tensor]:
        """Return the items' indices (N,) and the ratings (N,), float64, of a new user; see :meth:`predict`.

        Raises:
            InputError: There are no ratings, or one is wrong or outside the range of the training's.
        """
        if isinstance(given, (str, os.PathLike)):
            pairs = self.read(Path(given))
        else:
            wanted = "name a user by an id, or a new one by ratings: a dictionary, a list of pairs or a table's file"
            require(isinstance(given, Iterable), f"{given!r} is no user: {wanted}")
            pairs = list(given.items() if isinstance(given, Mapping) else given)
        wrong = next((pair for pair in pairs if not isinstance(pair, (tuple, list)) or len(pair) != 2), None)
        require(wrong is None, f"own ratings are pairs of an item and a rating, unlike {wrong!r}")
        require(len(pairs) > 0, "there are no ratings: rate some items")
        (low, high), names, values = self.settings.range, [item for item, _ in pairs], []
        for name, value in pairs:
            number_of = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            fits = number_of and low <= value <= high
            require(fits, f"the rating of {name!r} must be from {low:g} to {high:g}, as in training, not {value!r}")
            values.append(float(value))
        items = self.item_indices(names)
        twice = next((name for place, name in enumerate(names) if items[place] in items[:place]), None)
        require(twice is None, f"{twice!r} has two ratings: leave one out")
        return items, torch.tensor(values, dtype=torch.float64)

    def read(self, path: Path) -> list[tuple[str, float]]:
        """Read the items (ids or titles) and the ratings of a table.

        Raises:
            InputError: The file is missing, or lacks a column or a rating.
        """
        require(path.is_file(), f"there is no file {path}: name a table with the columns item and rating")
        format = TableFormat(separator="\t") if path.suffix.lower() == ".tsv" else CSV
        table = read_rows(path, format, missing=False)
        chosen = []
        for names in (("item", "title", self.settings.item), ("rating", self.settings.rating)):
            found = next((name for name in names if name in table.columns), None)
            if found is None:
                wanted = " or ".join(dict.fromkeys(names))
                raise InputError(
                    f"{path} has no column {wanted}: its columns are {', '.join(table.columns)}; rename one"
                )
            chosen.append(found)
        items, ratings = ([cell.strip() for cell in table[name]] for name in chosen)
        values = [number(cell) for cell in ratings]
        wrong = next((place for place, value in enumerate(values) if value is None or not items[place]), None)
        if wrong is not None:
            row = f"an item {items[wrong]!r} and a rating {ratings[wrong]!r}"
            raise InputError(f"{path} has {row} in row {row_number(table, wrong)}: correct or remove it")
        return [(item, value) for item, value in zip(items, values, strict=True) if value is not None]

    # ids and titles

    def is_table(self, user: str | int | np.integer) -> bool:
        """Return whether this is the name of a table, not a user's id."""
        return str(user).lower().endswith(TABLES) and not indices_of(np.array([str(user).strip()]), self.users)[0]

    def user_index(self, user: str | int | np.integer) -> int:
        """Return the index of the user with an id; raise :class:`InputError` if there is no such user."""
        (index,) = indices_of(np.array([str(user).strip()]), self.users).tolist()
        users = f"{len(self.users):,} training users ({', '.join(map(str, self.users[:3].tolist()))}, ...)"
        require(index > 0, f"there is no user {user!r} among the {users}")
        return int(index)

    def item_indices(self, items: Sequence[str | int]) -> Tensor:
        """Return the indices (N,) int64 of items by their ids, or else by their titles, whatever the case.

        A title's year, as in "Jaws (1975)", can be left out.

        Raises:
            InputError: There is no such item, or several have the title.
        """
        found = indices_of(np.array([str(item).strip() for item in items]), self.items).astype(np.int64)
        for place in np.flatnonzero(found == 0).tolist():
            title = str(items[place]).strip()
            places = self.places.get(title.casefold()) or self.without_years.get(title.casefold(), [])
            if not places:
                close = difflib.get_close_matches(title.casefold(), self.places, 3)
                advice = ": do you mean " + " or ".join(
                    repr(self.settings.titles[self.places[name][0]]) for name in close
                )
                raise InputError(
                    f"there is no item {title!r} among the {len(self.items):,}{advice + '?' if close else ''}"
                )
            ids = ", ".join(str(self.items[k]) for k in places)
            require(len(places) == 1, f"several items have the title {title!r}: name one by its id, {ids}")
            found[place] = places[0] + 1
        return torch.from_numpy(found)

    @cached_property
    def without_years(self) -> dict[str, list[int]]:
        """As :attr:`places`, but by titles without their years."""
        found: dict[str, list[int]] = {}
        for title, places in self.places.items():
            found.setdefault(re.sub(r" \(\d{4}\)$", "", title), []).extend(places)
        return found

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """The places, from 0, of the items with each title, in lower case."""
        places: dict[str, list[int]] = {}
        for place, title in enumerate(self.settings.titles):
            places.setdefault(title.strip().casefold(), []).append(place)
        return places
