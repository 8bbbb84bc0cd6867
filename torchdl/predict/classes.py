"""Answers that are classes.

Shapes: N inputs, K classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from torchdl.errors import require
from torchdl.files import encodable
from torchdl.predict.base import require_finite

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class ClassAnswers:
    """The probability of each class for each input.

    Attributes:
        probabilities: (N, K) float64; each row adds up to 1.
        classes: The names of the K classes.
        inputs: What each input is called, such as its file; or its number, from 0. Of a table's rows it is the index.
        notes: Sentences on what a reader of the answers should know, such as that missing values were filled.

    Raises:
        InputError: A probability is not a finite number.

    Example:
        >>> from torchdl.predict import ClassAnswers
        >>> probabilities = torch.tensor([[0.1, 0.7, 0.2]], dtype=torch.float64)
        >>> answers = ClassAnswers(probabilities, ("cat", "dog", "owl"), ("photo.jpg",))
        >>> answers.labels, answers.top(2)
        (['dog'], [[('dog', 0.7), ('owl', 0.2)]])
    """

    probabilities: Tensor
    classes: tuple[str, ...]
    inputs: Sequence[Hashable] | pandas.Index
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_finite(self.probabilities)

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> list[str]:
        """The most probable class of each input."""
        return [self.classes[label] for label in self.probabilities.argmax(1).tolist()]

    def top(self, count: int = 3) -> list[list[tuple[str, float]]]:
        """Return the most probable classes of each input, with their probabilities, the most probable first.

        Raises:
            InputError: The number of classes is less than 1.
        """
        whole = isinstance(count, int) and count >= 1
        require(whole, f"the number of classes to show must be 1 or more, not {count!r}")
        found = self.probabilities.sort(dim=1, descending=True, stable=True)  # (N, K) each
        rows = zip(found.values[:, :count].tolist(), found.indices[:, :count].tolist(), strict=True)
        return [[(self.classes[k], p) for p, k in zip(*row, strict=True)] for row in rows]

    def to_frame(self, top: int = 1) -> pandas.DataFrame:
        """Return a table: the inputs, their most probable classes, and the probability of every class.

        The rows of a table have its index instead of the column of inputs.
        """
        columns: dict[str, list[object]] = {}
        ranked = self.top(max(top, 1))
        for place in range(min(top, len(self.classes))):
            suffix = "" if place == 0 else f" {place + 1}"
            found = [row[place] for row in ranked]
            columns[f"class{suffix}"] = [name for name, _ in found]
            columns[f"confidence{suffix}"] = [probability for _, probability in found]
        for number, name in enumerate(self.classes):
            columns[f"probability of {name}"] = self.probabilities[:, number].tolist()
        return answers_frame(columns, self.inputs)


def answers_frame(columns: Mapping[str, object], inputs: Sequence[Hashable] | pandas.Index) -> pandas.DataFrame:
    """Return a table of answers: of a table's rows with its index, of other inputs with a first column ``input``."""
    import pandas  # imported late: it takes a second

    if isinstance(inputs, pandas.Index):
        return pandas.DataFrame(columns, index=inputs)
    return pandas.DataFrame({"input": list(map(encodable, inputs)), **columns})
