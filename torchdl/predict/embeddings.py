"""Answers that are embeddings.

Shapes: N inputs, D numbers per embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdl.errors import require
from torchdl.files import encodable
from torchdl.predict.base import require_finite

if TYPE_CHECKING:
    import pandas

ROWS = 1000  # of the similarities of all pairs that are in memory at a time


@dataclass(frozen=True)
class EmbeddingAnswers:
    """The embedding of each input, by which to compare inputs.

    Attributes:
        embeddings: (N, D) float32.
        inputs: What each input is called, such as its file; or its number, from 0.

    Raises:
        InputError: An embedding has a number that is not finite.

    Example:
        >>> from torchdl.predict import EmbeddingAnswers
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
        >>> EmbeddingAnswers(embeddings, ("cat", "dog", "lion")).nearest()
        [[('lion', 1.0)], [('cat', 0.0)], [('cat', 1.0)]]
    """

    embeddings: Tensor
    inputs: Sequence[str]

    def __post_init__(self) -> None:
        require_finite(self.embeddings)

    def __len__(self) -> int:
        return len(self.embeddings)

    def nearest(self, count: int = 1, of: Sequence[int] | None = None) -> list[list[tuple[str, float]]]:
        """Return the other inputs with the most similar embeddings, and their cosine similarities in [-1, 1].

        Args:
            count: The maximum number of inputs to find for each.
            of: The places, from 0, of the inputs that are compared with all; None for all of them.

        Raises:
            InputError: The number of inputs to find is less than 1, or there are fewer than two inputs.
        """
        whole = isinstance(count, int) and count >= 1
        require(whole, f"the number of inputs to find must be 1 or more, not {count!r}")
        require(len(self) >= 2, "an embedding is compared with those of other inputs: give two inputs or more")
        directions, found = F.normalize(self.embeddings.double(), dim=1), []
        for rows in torch.as_tensor(range(len(self)) if of is None else of, dtype=torch.int64).split(ROWS):
            similarities = directions[rows] @ directions.T  # (rows, N)
            similarities[torch.arange(len(rows)), rows] = -torch.inf
            best = similarities.topk(min(count, len(self) - 1))
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                found.append([(self.inputs[i], round(value, 6)) for i, value in zip(indices, values, strict=True)])
        return found

    def to_frame(self, top: int = 1, of: Sequence[int] | None = None) -> pandas.DataFrame:
        """Return a table: the inputs, and the most similar others with their cosine similarities.

        ``top`` and ``of`` are the two arguments of :meth:`nearest`.
        """
        import pandas  # imported late: it takes a second

        names = self.inputs if of is None else [self.inputs[place] for place in of]
        columns: dict[str, list[object]] = {"input": list(map(encodable, names))}
        found = self.nearest(top, of)
        for place in range(min(top, len(self) - 1)):
            suffix = "" if place == 0 else f" {place + 1}"
            columns[f"nearest{suffix}"] = [encodable(row[place][0]) for row in found]
            columns[f"similarity{suffix}"] = [row[place][1] for row in found]
        return pandas.DataFrame(columns)
