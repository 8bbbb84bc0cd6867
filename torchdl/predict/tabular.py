"""Predict a column of a table from the others.

Shapes: N rows, D input numbers per row, K classes, H hidden units.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torchdl.data.delimited_files import TableFormat, notes, repeated
from torchdl.data.tabular import Columns, Gaps, plain_column
from torchdl.errors import InputError, kind_of, require
from torchdl.files import PathLike
from torchdl.predict.base import Predictor, require_finite
from torchdl.predict.classes import ClassAnswers
from torchdl.predict.numbers import NumberAnswers
from torchdl.tasks.supervised import class_probabilities, logits_for

if TYPE_CHECKING:
    import pandas


class TabularPredictor(Predictor[Columns]):
    """Predict a class or a number for rows of a table, by a network that maps (N, D) to logits or a scaled number.

    The model has the attributes ``in_features``, D, and ``out_features``: 1 for a number or two classes, otherwise K.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are a
            :class:`torchdl.Columns`.

    Example:
        >>> from torchdl.predict import TabularPredictor
        >>> columns = torchdl.Columns({"rooms": (3.0, 1.0)}, {"type": ("flat", "house")}, "price", scale=(200.0, 50.0))
        >>> predictor = TabularPredictor(torchdl.MLP(3, 1), columns)
        >>> predictor.predict({"type": "flat", "rooms": 4}).numbers.shape
        torch.Size([1])
        >>> predictor.predict([{"type": "flat", "rooms": None}, {"type": "house", "rooms": 2}], missing="fill").notes
        ("missing values, filled: 'rooms' 1",)
    """

    kind = "tabular predictor"
    Settings = Columns

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        self.settings.check()
        expected = {"in_features": len(self.settings.names), "out_features": logits_for(len(self.settings.classes))}
        actual = {name: getattr(self.model, name, None) for name in expected}
        require(actual == expected, f"the model has {actual}, but its columns need {expected}")

    def read(
        self,
        rows: PathLike | pandas.DataFrame | Sequence[Mapping[str, Any]] | Mapping[str, Any],
        format: TableFormat | None = None,
    ) -> pandas.DataFrame:
        """Return the columns of rows that the model reads, and the target if there is one, as :meth:`predict` does.

        Args:
            rows, format: As for :meth:`predict`.

        Raises:
            InputError: There are no rows, a column is missing, or a numeric column holds a text.
        """
        import pandas  # imported late: it takes a second

        if isinstance(rows, (str, os.PathLike)):
            table = self.settings.read(rows, format)
            table.attrs["origin"] = os.fspath(rows)
            return table
        if isinstance(rows, pandas.DataFrame):
            table = rows
        else:
            listed = [rows] if isinstance(rows, Mapping) else rows
            known = isinstance(listed, Sequence) and all(isinstance(row, Mapping) for row in listed)
            require(
                known,
                "rows must be the path of a CSV file, a DataFrame, a dictionary for one row or a list of dictionaries, "
                f"not {kind_of(rows)}",
            )
            table = pandas.DataFrame(list(listed))
            table.attrs["first_row"] = 0
        require(len(table) > 0, "there are no rows to predict")
        self.settings.require_present(table)
        names = [*self.settings.numeric, *self.settings.categorical, self.settings.target]
        table = table[[name for name in table.columns if name in names]]
        twice = repeated([str(name) for name in table.columns])
        require(not twice, f"the table has several columns named {', '.join(twice)}: keep one of each")
        typed = table.apply(plain_column)
        typed.attrs = dict(table.attrs)
        return self.settings.typed(typed)

    def encoded(
        self, rows: Any, missing: Gaps | None = None, format: TableFormat | None = None
    ) -> tuple[Tensor, pandas.Index, tuple[str, ...]]:
        """Return rows as the model sees them, (N, D), their index, and notes on them.

        Args:
            rows, missing, format: As for :meth:`predict`.

        Raises:
            InputError: As :meth:`predict`.
        """
        missing = missing or self.settings.missing
        require(missing in ("refuse", "fill"), f'missing must be "refuse" or "fill", not {missing!r}')
        table = self.read(rows, format)
        said = list(notes(table))
        gaps = ", ".join(f"{name!r} {count:,}" for name, count in self.settings.gaps(table).items())
        lacks = f"{table.attrs.get('origin', 'the table')} lacks values in {gaps}"
        require(not gaps or missing == "fill", f'{lacks}: fill them in, or choose missing="fill"')
        if gaps:
            said.append(f"missing values, filled: {gaps}")
        if unseen := self.settings.unseen(table):
            rows_by_column = ", ".join(f"{name!r} {count:,}" for name, count in unseen.items())
            said.append(f"rows with a text that the training data lack, which counts as no category: {rows_by_column}")
        return self.settings.inputs(table), table.index, tuple(said)

    def answers(self, inputs: Tensor) -> Tensor:
        """Return class probabilities (N, K) or numbers (N,) in the target's unit, float64, of encoded rows (N, D)."""
        output = self.computed(self.model, inputs).double()
        found = class_probabilities(output) if self.settings.classes else self.settings.numbers(output)
        require_finite(found)
        return found

    def predict(
        self, inputs: Any, missing: Gaps | None = None, format: TableFormat | None = None
    ) -> ClassAnswers | NumberAnswers:
        """Return the probability of each class, or a number in the target's unit, for each row.

        Args:
            inputs: The path of a CSV file, a DataFrame, a list of dictionaries, or a dictionary for one row. The
                columns may be in any order; those that the model does not know are ignored.
            missing: Whether missing values are refused, or numbers are replaced by the training mean and texts by no
                category; as in the training by default.
            format: How the file is written; as that of the training by default.

        Raises:
            InputError: There are no rows, a column is missing, a numeric column holds a text, values are missing, or a
                row is too far from the training rows.
        """
        rows, index, said = self.encoded(inputs, missing, format)
        found = self.answers(rows)
        if self.settings.classes:
            return ClassAnswers(found, self.settings.classes, index, said)
        return NumberAnswers(found, self.settings.target, index, said)

    def embed(self, inputs: Any, missing: Gaps | None = None, format: TableFormat | None = None) -> Tensor:
        """Return the activations (N, H) of the last hidden layer, float32, by which to compare rows.

        Args:
            inputs: Rows, as for :meth:`predict`.
            missing, format: As for :meth:`predict`.

        Raises:
            InputError: The model has no hidden layer, or as :meth:`predict`.
        """
        hidden = getattr(self.model, "hidden_units", None)
        if hidden is None or not getattr(self.model, "hidden", True):
            raise InputError("the model has no hidden layer to compare rows by: train one with hidden layers")
        return self.computed(hidden, self.encoded(inputs, missing, format)[0])
