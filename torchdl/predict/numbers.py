"""Answers that are numbers.

Shapes: N inputs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from torchdl.predict.base import require_finite
from torchdl.predict.classes import answers_frame

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class NumberAnswers:
    """A number for each input.

    Attributes:
        numbers: (N,) float64, in the unit of the training data.
        name: What the numbers are, such as the name of the column that is predicted.
        inputs: What each input is called; of a table's rows it is the index.
        notes: Sentences on what a reader of the answers should know, such as that missing values were filled.

    Raises:
        InputError: A number is not finite.

    Example:
        >>> from torchdl.predict import NumberAnswers
        >>> answers = NumberAnswers(torch.tensor([250.0, 310.0]), "price", ("flat", "house"))
        >>> print(answers.to_frame().to_string(index=False))
        input  price
         flat  250.0
        house  310.0
    """

    numbers: Tensor
    name: str
    inputs: Sequence[Hashable] | pandas.Index
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_finite(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def to_frame(self) -> pandas.DataFrame:
        """Return a table of the inputs and their numbers; the rows of a table have its index instead of the inputs."""
        return answers_frame({self.name: self.numbers.tolist()}, self.inputs)
