"""Tables: read from CSV, split, and turned into numbers by what their training part says alone (lectures 6 to 16).

Shapes: N rows, D numbers a row, K classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from torchdl.data.arrays import ArrayDataset
from torchdl.data.files import find_file, read_csv
from torchdl.errors import InputError, require
from torchdl.files import write_json

if TYPE_CHECKING:
    import pandas

Missing = Literal["refuse", "drop", "fill"]
TableTask = Literal["auto", "classification", "regression"]
MOST_CATEGORIES = 50


def read_table(path: str | os.PathLike[str]) -> pandas.DataFrame:
    """Read a CSV file with a header; the row of a sentence is a spreadsheet's, whose header is row 1.

    A column in which most entries are numbers is one of numbers: InputError names the first that is not, or not finite.
    """
    import pandas  # imported late: it takes a second

    table = read_csv(path)
    require(table.shape[1] > 1, f"{path} has one column alone, {table.columns[0]!r}: is its separator a comma?")
    for name in table.columns:
        column = table[name]
        if not pandas.api.types.is_numeric_dtype(column):
            number = pandas.to_numeric(column, errors="coerce")
            wrong = number.isna() & column.notna()
            if 0 < wrong.sum() < 0.2 * column.notna().sum():
                row = int(wrong.to_numpy().argmax())
                raise InputError(
                    f"{path} has {str(column.iloc[row])!r} in column {name!r}, row {row + 2}, which otherwise holds "
                    f"numbers ({int(wrong.sum()):,} such entries): mend or empty them"
                )
        elif not (finite := ~column.isin([float("inf"), float("-inf")])).all():
            row = int((~finite).to_numpy().argmax())
            raise InputError(f"{path} has an infinite number in column {name!r}, row {row + 2}: mend or empty it")
    return table


def breast_cancer() -> pandas.DataFrame:
    """Give scikit-learn's 569 tumours, 30 numbers each, with their ``diagnosis`` (lecture 10)."""
    from sklearn.datasets import load_breast_cancer  # imported late: it takes a second

    found = load_breast_cancer(as_frame=True)
    return found.data.assign(diagnosis=[str(found.target_names[label]) for label in found.target])


@dataclass(frozen=True)
class Columns:
    """How the rows of a table become numbers; fitted on training rows alone, and kept as JSON beside a model.

    Attributes:
        numeric: Columns of numbers, with the mean and the standard deviation that scale them.
        categorical: Columns of texts, with the categories that become a number each, 1 for the row's own: all are 0
            where it is one that training has not seen.
        target: The column to predict.
        classes: The target's classes; none where it is a number.
        scale: The target's mean and standard deviation, where it is a number.
        constant: Columns that are left out, because training has one value of them alone.
    """

    numeric: dict[str, tuple[float, float]]
    categorical: dict[str, tuple[str, ...]]
    target: str
    classes: tuple[str, ...] = ()
    scale: tuple[float, float] = (0.0, 1.0)
    constant: tuple[str, ...] = ()

    @classmethod
    def fit(cls, table: pandas.DataFrame, target: str, task: TableTask = "auto") -> Columns:
        """Fit to training rows without missing values, or with those to be filled."""
        from pandas.api.types import is_numeric_dtype

        numeric, categorical, constant = {}, {}, []
        for name in table.columns.drop(target):
            column = table[name].dropna()
            if column.nunique() <= 1:
                constant.append(name)
            elif is_numeric_dtype(column):
                numbers = column.astype("float64")
                numeric[name] = (float(numbers.mean()), float(numbers.std(ddof=0)))
            else:
                kinds = sorted(column.astype(str).unique())
                require(
                    len(kinds) <= MOST_CATEGORIES,
                    f"column {name!r} holds {len(kinds):,} different texts, more than the {MOST_CATEGORIES} that can "
                    "be told apart as kinds: leave it out with --ignore",
                )
                categorical[name] = tuple(kinds)
        require(bool(numeric or categorical), "no column beside the target tells rows apart: there is nothing to learn")
        goal = table[target]
        if kind_of(goal, task) == "classification":
            classes = tuple(sorted({text(value) for value in goal}))
            require(
                len(classes) > 1, f"all rows have the {target!r} {classes[0]!r}: there are no classes to tell apart"
            )
            return cls(numeric, categorical, target, classes, constant=tuple(constant))
        require(is_numeric_dtype(goal), f"{target!r} holds texts, which regression cannot predict")
        require(goal.nunique() > 1, f"{target!r} is always {goal.iloc[0]}: there is nothing to predict")
        scale = (float(goal.mean()), float(goal.std(ddof=0)))
        return cls(numeric, categorical, target, (), scale, tuple(constant))

    @property
    def names(self) -> list[str]:
        """What the D numbers of a row are, by name."""
        kinds = [f"{name}={kind}" for name, kinds in self.categorical.items() for kind in kinds]
        return [*self.numeric, *kinds]

    def inputs(self, table: pandas.DataFrame) -> Tensor:
        """Turn rows into (N, D) float32; a missing number becomes the training mean, a missing text no category."""
        import pandas

        missing = [name for name in (*self.numeric, *self.categorical) if name not in table.columns]
        require(not missing, f"the table has no column {', '.join(map(repr, missing))}, which the model was trained on")
        parts = []
        for name, (mean, deviation) in self.numeric.items():
            number = pandas.to_numeric(table[name], errors="coerce")
            wrong = (number.isna() & table[name].notna()).to_numpy()
            if wrong.any():
                found = str(table[name].iloc[int(wrong.argmax())])
                raise InputError(f"{found!r} in column {name!r}, row {int(wrong.argmax()) + 2}, is no number: mend it")
            values = torch.from_numpy(number.to_numpy(dtype="float64", na_value=mean).copy())
            parts.append(((values - mean) / deviation)[:, None])  # (N, 1)
        for name, kinds in self.categorical.items():
            row = table[name].map(text).to_numpy()
            parts += [torch.from_numpy((row == kind).astype("float64"))[:, None] for kind in kinds]
        return torch.cat(parts, 1).float()

    def targets(self, table: pandas.DataFrame) -> Tensor:
        """Turn the target into (N, 1) float32, 0 or 1 of two classes or a scaled number; (N,) int64 of more classes."""
        if not self.classes:
            mean, deviation = self.scale
            return torch.from_numpy(((table[self.target] - mean) / deviation).to_numpy("float32").copy())[:, None]
        values = table[self.target].map(text)
        unknown = sorted(set(values) - set(self.classes))
        known = ", ".join(self.classes)
        require(not unknown, f"{self.target!r} {', '.join(map(repr, unknown))} is none of the classes learnt: {known}")
        numbers = torch.tensor([self.classes.index(value) for value in values])
        return numbers.float()[:, None] if len(self.classes) == 2 else numbers

    def unseen(self, table: pandas.DataFrame) -> dict[str, int]:
        """Count the rows whose text training has not seen, by column."""
        counts = {
            name: int((~table[name].map(text).isin(kinds) & table[name].notna()).sum())
            for name, kinds in self.categorical.items()
        }
        return {name: count for name, count in counts.items() if count}

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Columns:
        """Read what :meth:`save` wrote; InputError for anything else."""
        try:
            found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
            numeric = {
                str(name): (float(mean), float(deviation)) for name, (mean, deviation) in found["numeric"].items()
            }
            categorical = {str(name): tuple(map(str, kinds)) for name, kinds in found["categorical"].items()}
            mean, deviation = map(float, found["scale"])
            classes, constant = (tuple(map(str, found[key])) for key in ("classes", "constant"))
            return cls(numeric, categorical, str(found["target"]), classes, (mean, deviation), constant)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged, or something else"
            raise InputError(f"{path} does not describe a table ({reason}): name a run of train_tabular.py") from error


def text(value: Any) -> str:
    """Name a class or category: whole numbers without a point, whichever way pandas holds them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def kind_of(goal: pandas.Series, task: TableTask = "auto") -> str:
    """Say whether a target is to be classified or regressed: up to ten whole numbers, texts and truths are classes."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if task != "auto":
        return task
    whole = is_numeric_dtype(goal) and not is_bool_dtype(goal) and bool((goal.dropna() % 1 == 0).all())
    few = goal.nunique() <= 10 and len(goal) > 2 * goal.nunique()
    is_class = not is_numeric_dtype(goal) or is_bool_dtype(goal) or (whole and few)
    return "classification" if is_class else "regression"


@dataclass(frozen=True)
class Table:
    """A table split into training and held-out rows, as numbers; ``notes`` say what was done to it."""

    train: ArrayDataset
    test: ArrayDataset
    columns: Columns
    notes: tuple[str, ...] = ()


def split_table(
    table: pandas.DataFrame,
    target: str,
    task: TableTask = "auto",
    share: float = 0.33,
    missing: Missing = "refuse",
    ignore: Sequence[str] = (),
    seed: int = 0,
    origin: str = "memory",
) -> Table:
    """Split rows at random, each class alike, and turn them into numbers by what the training rows say alone.

    Args:
        table: The table.
        target: The column to predict.
        task: ``classification``, ``regression``, or ``auto``, by the target.
        share: The share of the rows that is held out.
        missing: ``refuse`` missing values, ``drop`` their rows, or ``fill`` them: with the training part's mean where
            numbers are, and as a text of no category; a row without a target is dropped then, too.
        ignore: Columns to leave out.
        seed: What the rows are drawn by.
        origin: Where the table comes from, for the user to read.

    Raises:
        InputError: A column is not there, values are missing, or there is nothing to learn.
    """
    from sklearn.model_selection import train_test_split  # imported late: it takes a second

    for name in (target, *ignore):
        require(name in table.columns, f"there is no column {name!r}: choose among {', '.join(table.columns)}")
    require(target not in ignore, f"{target!r} cannot be both the target and ignored")
    require(0 < share < 1, f"the held-out share must be in (0, 1), not {share}")
    table, notes = table.drop(columns=list(ignore)), []
    gaps = table.isna()
    if gaps.any().any():
        counts = {name: int(count) for name, count in gaps.sum().items() if count}
        named = ", ".join(
            f"{name!r} {count:,} (first in row {int(gaps[name].to_numpy().argmax()) + 2})"
            for name, count in counts.items()
        )
        require(missing != "refuse", f"values are missing in {named}: say --missing drop or --missing fill")
        lost = gaps.any(axis=1) if missing == "drop" else gaps[target]
        table = table[~lost]
        notes.append(
            f"missing values in {named}: {int(lost.sum()):,} rows dropped"
            + (", others filled" if missing == "fill" else "")
        )
    is_class = kind_of(table[target], task) == "classification"
    counts_by_class = table[target].map(text).value_counts() if is_class else None
    require(len(table) >= 4, f"{len(table)} rows are too few to learn from and to hold some out")
    if counts_by_class is not None:
        rare, number = str(counts_by_class.index[-1]), int(counts_by_class.iloc[-1])
        require(len(counts_by_class) > 1, f"all rows have the {target!r} {rare!r}: there are no classes to tell apart")
        require(number > 1, f"the {target!r} {rare!r} has one row alone, and learning and testing want one each")
    try:
        train, test = train_test_split(
            table, test_size=share, random_state=seed, stratify=table[target].map(text) if is_class else None
        )
    except ValueError as error:  # too few rows for the classes
        raise InputError(f"the rows cannot be split with a share of {share} held out: {error}") from error
    columns = Columns.fit(train, target, "classification" if is_class else "regression")
    if columns.constant:
        notes.append(f"left out, for training has one value of them alone: {', '.join(columns.constant)}")
    if unseen := columns.unseen(test):
        notes.append(f"held-out rows with a text that training has not seen: {unseen}")
    parts = [ArrayDataset(columns.inputs(rows), columns.targets(rows), origin) for rows in (train, test)]
    return Table(parts[0], parts[1], columns, tuple(notes))


def load_transistors(
    root: str | os.PathLike[str] | None = None, fetch: bool = True
) -> tuple[Tensor, Tensor, ArrayDataset]:
    """Load the years and the logarithms of the counts of processors' transistors (lecture 12), float64 (N,) each.

    Where the course's file can be had in no way, 24 processors' published counts stand in, which torchdl carries.

    Returns:
        The years, the logarithms, and both as a data set: years centred, (N, 1) float32.
    """
    import pandas  # imported late: it takes a second

    stand_in, origin = False, ""
    try:
        path = find_file("moore", root, fetch)
        table = pandas.read_csv(path, header=None)
        origin = f"{len(table):,} processors' transistors from {path}"
    except InputError as error:
        table = pandas.read_csv(Path(__file__).with_name("transistors.csv"))
        origin = f"{error}. IN ITS PLACE: {len(table)} processors' transistors as their makers published them"
        stand_in = True
    except ValueError as error:
        raise InputError(f"{path} is damaged: fetch it again") from error
    numbers = table.iloc[:, :2].apply(pandas.to_numeric, errors="coerce").to_numpy(dtype="float64")
    values = torch.from_numpy(numbers.copy())
    whole = bool(values.isfinite().all() and (values > 0).all() and len(values) > 2)
    require(whole, f"{origin}: a year and a positive count are expected in every row")
    years, logarithms = values[:, 0], values[:, 1].log()
    data = ArrayDataset((years - years.mean()).float()[:, None], logarithms.float()[:, None], origin, stand_in)
    return years, logarithms, data
