"""The metrics of a training: a row per epoch, from memory, from a table or from a run's folder."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, Union, overload

from torchdl.errors import InputError, first_line, kind_of, require
from torchdl.files import METRICS, PathLike, replacing

if TYPE_CHECKING:
    import pandas

MAX_HISTORY = 2**26  # bytes

#: Rows of metrics, a DataFrame of them, or the folder of a run or its ``metrics.csv``.
AnyHistory = Union[Sequence[Mapping[str, float]], "pandas.DataFrame", PathLike]


class History(list[dict[str, float]]):
    """What :meth:`torchdl.Trainer.fit` returns: a row of metrics per epoch, as a list.

    ``history[-1]`` is the last epoch's row, and ``history["val/loss"]`` a metric of all epochs, as numbers: NaN where
    an epoch has none.

    Raises:
        InputError: No epoch has a metric of the name.

    Args:
        iterable: The rows, none by default: dictionaries of metrics by name, with ``epoch`` and ``step``.

    Example:
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), batch_size=2)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> history = torchdl.Trainer(epochs=3).fit(task, loader, loader)
        >>> history[-1]["step"], list(history.to_frame().index)
        (6, [1, 2, 3])
        >>> history["step"]
        [2, 4, 6]
    """

    @overload
    def __getitem__(self, key: SupportsIndex) -> dict[str, float]: ...
    @overload
    def __getitem__(self, key: slice) -> list[dict[str, float]]: ...
    @overload
    def __getitem__(self, key: str) -> list[float]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return an epoch's row by its number from 0, several by a slice, or a metric of all epochs by its name."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        known = dict.fromkeys(name for row in self for name in row)
        require(key in known, f"the history has no metric {key!r}: choose one of {', '.join(known)}")
        return [row.get(key, math.nan) for row in self]

    def to_frame(self) -> pandas.DataFrame:
        """Return a table: a row per epoch, which is its index, and a column per metric; NaN where there is none."""
        import pandas  # imported late: it takes a second

        return pandas.DataFrame(self, columns=list(dict.fromkeys(k for row in self for k in row))).set_index("epoch")


def as_history(history: AnyHistory) -> History:
    """Return the rows of any form of a history.

    Raises:
        InputError: It is none, or the folder's table is missing or damaged.
    """
    if isinstance(history, (str, os.PathLike)):
        path = Path(history)
        return read_history(path / METRICS if path.is_dir() else path)
    rows: Any = history
    if hasattr(rows, "to_dict"):  # a table
        records = (rows if "epoch" in rows else rows.reset_index()).to_dict("records")
        rows = [{name: value for name, value in row.items() if value == value} for row in records]  # NaN: no value
    known = isinstance(rows, Sequence) and all(isinstance(row, Mapping) and "epoch" in row for row in rows)
    wanted = "rows with an epoch, a table of such rows or a run's folder"
    require(known, f"a history is {wanted}, not {kind_of(history)}")
    return History(map(dict, rows))


def read_history(path: PathLike) -> History:
    """Read a run's ``metrics.csv``, which may be anybody's, at ``path``: one dictionary per evaluated epoch.

    Raises:
        InputError: It is missing or damaged, or is another table.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_HISTORY + 1)
        require(len(data) <= MAX_HISTORY, f"{path} cannot be read: it is larger than {MAX_HISTORY:,} bytes")
        names, *rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)) or [[]]
        history = [{name: float(cell) for name, cell in zip(names, row, strict=True) if cell} for row in rows]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except InputError:
        raise
    except (ValueError, csv.Error) as error:  # a row of another length, a cell that is no number, no UTF-8
        raise InputError(f"{path} cannot be read: it is damaged ({first_line(error)})") from error
    whole = all(math.isfinite(row.get(name, math.nan)) for row in history for name in ("epoch", "step"))
    known = len({"epoch", "step", *names}) == len(names)  # both, and none twice
    require(whole and known, f"{path} is not a training's table of epochs, or damaged")
    return History({name: int(v) if name in ("epoch", "step") else v for name, v in row.items()} for row in history)


def write_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write rows as a table at ``path``, which replaces an older one at once."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    with replacing(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, columns)
        rows.writeheader()
        rows.writerows(history)


def is_main(metric: str) -> bool:
    """Return whether a metric is no detail of another one, no reference of it and no chart."""
    return not any(word in metric for word in ("charts", "norm", "_chance", "_ceiling", "_step_", "_class_"))


def describe(row: Mapping[str, float]) -> str:
    """Return an epoch's main metrics in one line."""
    shown = {k.removeprefix("train/"): v for k, v in row.items() if is_main(k)}
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
