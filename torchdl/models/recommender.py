"""Predict ratings from the indices of a user and an item (lectures 60 and 61): the course's network and a baseline.

Indices start at 1. Index 0 stands for users and items that are not in training; they add nothing to the mean rating.

Shapes: B ratings, D numbers per user and per item.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.arguments import plain_arguments, require_tensor
from torchdl.models.embedding import look_up
from torchdl.models.init import keras_init_, spread_


class Recommender(nn.Module):
    """Base class: it keeps the mean of the training ratings, and takes pairs (B, 2) of a user's and an item's index.

    Indices start at 1. Index 0 is an unknown user or item, of which nothing is learned: :func:`torchdl.split_ratings`
    makes such indices of ids, and indices from 0 need + 1.

    Args:
        users: Number of users in training.
        items: Number of items in training.
        mean: The mean of the training ratings.
    """

    def __init__(self, users: int, items: int, mean: float) -> None:
        super().__init__()
        require(users >= 1 and items >= 1, f"{type(self).__name__}: users and items must be positive")
        self.users, self.items, self.mean = users, items, float(mean)

    def split(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Split pairs (B, 2) into users (B,) and items (B,)."""
        require_tensor(pairs, "int64")
        name = type(self).__name__
        require(pairs.dim() == 2 and pairs.shape[1] == 2, f"{name} takes pairs (B, 2) of a user and an item")
        return pairs[:, 0], pairs[:, 1]


def vectors(number: int, dim: int, spread: float) -> nn.Embedding:
    """Build ``number`` vectors of ``dim`` numbers in [-spread, spread], with indices from 1; vector 0 is zero."""
    return spread_(nn.Embedding(number + 1, dim, padding_idx=0), spread)


@plain_arguments
class RatingModel(Recommender):
    """The course's network: a user's and an item's vector concatenated, a hidden layer, one output plus the mean.

    With ``factors`` it also has biases and the product of two other vectors, as in matrix factorisation. In training,
    it uses either the network or the product, at random for each rating; in evaluation, it uses their mean. (He et al.
    2017 combine networks with products; Larsson et al. 2017 train one path without the other.)

    Indices start at 1; see :class:`Recommender`.

    Args:
        users, items, mean: See :class:`Recommender`.
        dim: D.
        hidden: Units of the hidden layer.
        dropout: The probability of dropping an input or a hidden unit of the network in training.
        factors: Dimension of the two vectors of the product; 0 for no product and no biases.

    Raises:
        InputError: A number is outside its range; when called, an index is.

    Example:
        >>> model = torchdl.RatingModel(users=100, items=50, mean=3.5, hidden=64, factors=8)
        >>> model(torch.tensor([[7, 3], [8, 3]])).shape
        torch.Size([2])
        >>> model.eval()(torch.tensor([[0, 0]])).item()  # of an unknown user and an unknown item: the mean
        3.5
    """

    def __init__(
        self,
        users: int,
        items: int,
        mean: float = 0.0,
        dim: int = 10,
        hidden: int = 1024,
        dropout: float = 0.0,
        factors: int = 0,
    ) -> None:
        super().__init__(users, items, mean)
        require(dim >= 1 and hidden >= 1, "RatingModel: dim and hidden must be positive")
        require(0 <= dropout < 1, f"RatingModel: dropout must be in [0, 1), not {dropout}")
        require(factors >= 0, f"RatingModel: factors must be 0 or more, not {factors}")
        self.dim, self.hidden, self.dropout, self.factors = dim, hidden, dropout, factors
        self.user_vectors, self.item_vectors = (vectors(number, dim, 0.05) for number in (users, items))
        self.layers = keras_init_(
            nn.Sequential(
                nn.Dropout(dropout), nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
            )
        )
        self.factorization = MatrixFactorization(users, items, 0.0, factors) if factors else None

    def forward(self, pairs: Tensor) -> Tensor:
        """Predict the ratings (B,) of pairs (B, 2); for an index 0, return the mean plus the other's bias, if any."""
        user, item = self.split(pairs)
        both = torch.cat(
            [look_up(self.user_vectors, user, "users"), look_up(self.item_vectors, item, "items")], 1
        )  # (B, 2 D)
        deep = torch.where((user > 0) & (item > 0), self.layers(both)[:, 0], 0)
        if self.factorization is None:
            return self.mean + deep
        biases, product = self.factorization.parts(pairs)
        share = torch.rand_like(deep).round() if self.training else 0.5
        return self.mean + biases + share * product + (1 - share) * deep


@plain_arguments
class MatrixFactorization(Recommender):
    """The sum of the mean, both biases and the product of both vectors (Koren, Bell and Volinsky 2009).

    Indices start at 1; see :class:`Recommender`.

    Args:
        users, items, mean: See :class:`Recommender`.
        dim: D; 0 for biases only.

    Raises:
        InputError: ``dim`` is negative; when called, an index is outside its range.

    Example:
        >>> model = torchdl.MatrixFactorization(users=100, items=50, mean=3.5)
        >>> model(torch.tensor([[7, 3], [8, 3]])).shape
        torch.Size([2])
        >>> model(torch.tensor([[0, 0]])).item()  # of an unknown user and an unknown item: the mean
        3.5
    """

    def __init__(self, users: int, items: int, mean: float = 0.0, dim: int = 10) -> None:
        super().__init__(users, items, mean)
        require(dim >= 0, f"MatrixFactorization: dim must be 0 or more, not {dim}")
        self.dim = dim
        self.user_bias, self.item_bias = (vectors(number, 1, 0.0) for number in (users, items))
        self.user_vectors, self.item_vectors = (vectors(number, dim, 0.05) for number in (users, items))

    def parts(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the biases (B,) and the products of the vectors (B,), which are added to the mean."""
        user, item = self.split(pairs)
        product = (look_up(self.user_vectors, user, "users") * look_up(self.item_vectors, item, "items")).sum(1)
        return self.user_bias(user)[:, 0] + self.item_bias(item)[:, 0], product

    def forward(self, pairs: Tensor) -> Tensor:
        """Predict the ratings (B,) of pairs (B, 2); unknown users and items add nothing to the mean."""
        biases, product = self.parts(pairs)
        return self.mean + biases + product
