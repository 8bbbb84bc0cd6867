"""Tables: read from CSV, split, and turned into numbers by what their training part says alone (lectures 6 to 16).

Shapes: N rows, D numbers a row, K classes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import ArrayDataset
from torchdl.data.files import NotFound, find_file, read_csv
from torchdl.errors import InputError, require
from torchdl.files import write_json

if TYPE_CHECKING:
    import pandas

Missing = Literal["refuse", "drop", "fill"]
TableTask = Literal["auto", "classification", "regression"]
MOST_CATEGORIES = 50


def read_table(path: str | os.PathLike[str], texts: Collection[str] = ()) -> pandas.DataFrame:
    """Read a CSV file with a header and two columns at least; the columns ``texts`` as texts, whatever they hold.

    Raises:
        InputError: The file is not there, is broken, has one column alone, or numbers in place of a header.

    Example:
        >>> import os, pandas, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "people.csv")
        >>> pandas.DataFrame({"age": [31, 47], "zip": ["01234", "53111"]}).to_csv(path, index=False)
        >>> torchdl.read_table(path, texts=["zip"])
           age    zip
        0   31  01234
        1   47  53111
    """
    table = read_csv(path, texts)
    require(table.shape[1] > 1, f"{path} has one column alone, {table.columns[0]!r}: is its separator a comma?")
    named = [name for name in table.columns if not looks_like_a_number(name)]
    require(len(named) > 0, f"{path} has numbers where its columns' names belong: write a header above its rows")
    return table


def holds_numbers(column: pandas.Series) -> bool:
    """Say whether a column is one of numbers; truths are kinds."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) and not is_bool_dtype(column))


def row_number(table: pandas.DataFrame, position: int) -> int:
    """Count a row as a spreadsheet does, whose header is row 1; rows that were chosen keep the number they had."""
    label = table.index[position]
    return int(label) + 2 if isinstance(label, (int, np.integer)) else position + 2


def numbers(table: pandas.DataFrame, name: str) -> pandas.Series:
    """Give a column of numbers as float64, NaN where a value is missing; InputError names what is no finite number."""
    import pandas  # imported late: it takes a second

    found = pandas.to_numeric(table[name], errors="coerce").astype("float64")
    wrong = ((found.isna() & table[name].notna()) | found.isin([float("inf"), float("-inf")])).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"column {name!r} holds {str(table[name].iloc[row])!r} in row {row_number(table, row)}, which is no finite "
            f"number ({int(wrong.sum()):,} such in all): mend or empty them, or read the column as --kinds"
        )
    return found


def check_numbers(table: pandas.DataFrame) -> None:
    """Raise InputError for the first entry that is no finite number in a column of which most are.

    The row that it names is a spreadsheet's, whose header is row 1.
    """
    import pandas  # imported late: it takes a second

    for name in table.columns:
        if holds_numbers(table[name]):
            numbers(table, name)
        elif not pandas.api.types.is_bool_dtype(table[name]):
            known = table[name].dropna().astype(str)
            if 0 < int(pandas.to_numeric(known, errors="coerce").isna().sum()) < len(known) / 2:
                numbers(table, name)


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
        categorical: Columns of texts or truths, with the categories that become a number each, 1 for the row's own:
            all are 0 where it is one that training has not seen.
        target: The column to predict.
        classes: The target's classes; none where it is a number.
        scale: The target's mean and standard deviation, where it is a number.
        constant: Columns that are left out, because training has one value of them alone.

    Example:
        >>> import pandas
        >>> table = pandas.DataFrame({"rooms": [1, 3], "kind": ["flat", "house"], "price": [100, 300]})
        >>> columns = torchdl.Columns.fit(table, target="price")
        >>> columns.names
        ['rooms', 'kind=flat', 'kind=house']
        >>> columns.inputs(table)
        tensor([[-1.,  1.,  0.],
                [ 1.,  0.,  1.]])
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
        numeric: dict[str, tuple[float, float]] = {}
        categorical, constant = {}, []
        for name in table.columns.drop(target):
            column = table[name].dropna()
            if column.nunique() <= 1:
                constant.append(name)
            elif holds_numbers(column):
                numeric[name] = scale_of(table, name)
            else:
                kinds = sorted(set(column.map(text)))
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
        require(holds_numbers(goal), f"{target!r} holds texts or truths, which regression cannot predict")
        require(goal.nunique() > 1, f"{target!r} is always {goal.iloc[0]}: there is nothing to predict")
        return cls(numeric, categorical, target, (), scale_of(table, target), tuple(constant))

    @property
    def names(self) -> list[str]:
        """What the D numbers of a row are, by name."""
        kinds = [f"{name}={kind}" for name, kinds in self.categorical.items() for kind in kinds]
        return [*self.numeric, *kinds]

    def inputs(self, table: pandas.DataFrame) -> Tensor:
        """Turn rows into (N, D) float32; a missing number becomes the training mean, a missing text no category."""
        self.require_present(table)
        parts = []
        for name, (mean, deviation) in self.numeric.items():
            values = torch.from_numpy(numbers(table, name).fillna(mean).to_numpy().copy())
            scaled = ((values - mean) / deviation).float()
            if not bool(scaled.isfinite().all()):
                row = int((~scaled.isfinite()).int().argmax())
                raise InputError(
                    f"column {name!r} holds {values[row]:g} in row {row_number(table, row)}, too far from training's "
                    f"{mean:g} ± {deviation:g}: mend it"
                )
            parts.append(scaled[:, None])  # (N, 1)
        for name, kinds in self.categorical.items():
            row_kinds = table[name].map(text, na_action="ignore").to_numpy(dtype=object, na_value=None)
            parts += [torch.from_numpy((row_kinds == kind).astype("float32"))[:, None] for kind in kinds]
        return torch.cat(parts, 1)

    def require_present(self, table: pandas.DataFrame) -> None:
        """Raise InputError that names the columns that a table lacks; the target need not be there."""
        missing = [name for name in (*self.numeric, *self.categorical) if name not in table.columns]
        require(not missing, f"the table has no column {', '.join(map(repr, missing))}, which the model was trained on")

    def targets(self, table: pandas.DataFrame) -> Tensor:
        """Turn the target into (N, 1) float32, 0 or 1 of two classes or a scaled number; (N,) int64 of more classes."""
        if not self.classes:
            mean, deviation = self.scale
            scaled = ((numbers(table, self.target) - mean) / deviation).to_numpy("float32")
            return torch.from_numpy(scaled.copy())[:, None]  # (N,) -> (N, 1)
        values = table[self.target].map(text)
        unknown = sorted(set(values) - set(self.classes))
        known = ", ".join(self.classes)
        require(not unknown, f"{self.target!r} {', '.join(map(repr, unknown))} is none of the classes learnt: {known}")
        labels = torch.tensor([self.classes.index(value) for value in values])
        return labels.float()[:, None] if len(self.classes) == 2 else labels  # (N, 1) or (N,)

    def unseen(self, table: pandas.DataFrame) -> dict[str, int]:
        """Count the rows whose text training has not seen, by column."""
        counts = {
            name: int((~table[name].map(text).isin(kinds) & table[name].notna()).sum())
            for name, kinds in self.categorical.items()
        }
        return {name: count for name, count in counts.items() if count}

    def gaps(self, table: pandas.DataFrame) -> dict[str, int]:
        """Count the missing values in the columns that :meth:`inputs` reads, by column."""
        self.require_present(table)
        counts = {name: int(table[name].isna().sum()) for name in (*self.numeric, *self.categorical)}
        return {name: count for name, count in counts.items() if count}

    @property
    def texts(self) -> list[str]:
        """The columns to be read as they stand: texts among which a file might hold such alone as look like numbers."""
        kinds = {**self.categorical, self.target: tuple(c for c in self.classes if not looks_like_a_number(c))}
        return [name for name, found in kinds.items() if set(found) - {"True", "False"}]

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
            pairs = [*numeric.values(), (mean, deviation)]
            if not all(math.isfinite(mean) and 0 < deviation < math.inf for mean, deviation in pairs):
                raise ValueError
            return cls(numeric, categorical, str(found["target"]), classes, (mean, deviation), constant)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged, or something else"
            raise InputError(f"{path} does not describe a table ({reason}): name a run of train_tabular.py") from error


def looks_like_a_number(value: str) -> bool:
    """Say whether a text is a number's."""
    try:
        float(value)
    except ValueError:
        return False
    return True


def scale_of(table: pandas.DataFrame, name: str) -> tuple[float, float]:
    """Give the mean and the standard deviation of a column of numbers; InputError where they are out of range."""
    known = numbers(table, name).dropna().to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(known.mean()), float(known.std())
    require(
        math.isfinite(mean) and 0 < deviation < math.inf,
        f"the numbers in column {name!r} are too large, or too near to one another, to be scaled: give another unit",
    )
    return mean, deviation


def text(value: Any) -> str:
    """Name a class or category: whole numbers without a point, whichever way pandas holds them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def kind_of(goal: pandas.Series, task: TableTask = "auto") -> str:
    """Say whether a target is to be classified or regressed: up to ten whole numbers, texts and truths are classes."""
    if task != "auto":
        return task
    if not holds_numbers(goal):
        return "classification"
    few = goal.nunique() <= 10 and len(goal) > 2 * goal.nunique()
    return "classification" if few and bool((goal.dropna() % 1 == 0).all()) else "regression"


@dataclass(frozen=True)
class Table:
    """A table split into training and held-out rows, as numbers.

    Attributes:
        train: Inputs (N, D) float32 and targets, as :meth:`Columns.targets` gives them.
        test: The same of the held-out rows.
        columns: How the rows became numbers.
        notes: What was done to the table, a sentence each.

    Example:
        >>> import pandas
        >>> kinds = ["flat", "flat", "house", "house"]
        >>> rows = pandas.DataFrame({"rooms": [1, 2, 3, 4] * 5, "city": "Bonn", "kind": kinds * 5})
        >>> table = torchdl.split_table(rows, target="kind")
        >>> len(table.train), len(table.test), table.columns.classes
        (13, 7, ('flat', 'house'))
        >>> table.notes
        ('left out, for training has one value of them alone: city',)
    """

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
    origin: str = "a table in memory",
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

    Example:
        >>> import pandas
        >>> rows = pandas.DataFrame({"rooms": range(30), "price": [100.0 * rooms for rooms in range(30)]})
        >>> table = torchdl.split_table(rows, target="price", share=0.2)
        >>> len(table.train), len(table.test), table.columns.names
        (24, 6, ['rooms'])
        >>> table.train.inputs.mean().abs() < 1e-6, table.train.inputs.std(correction=0)
        (tensor(True), tensor(1.))
    """
    from sklearn.model_selection import train_test_split  # imported late: it takes a second

    names = [str(name) for name in table.columns]
    require(
        len(set(names)) == len(names) and all(isinstance(name, str) for name in table.columns),
        "a table's columns must have names, texts of which no two are the same",
    )
    for name in (target, *ignore):
        require(name in table.columns, f"there is no column {name!r}: choose among {', '.join(table.columns)}")
    require(target not in ignore, f"{target!r} cannot be both the target and ignored")
    require(0 < share < 1, f"the held-out share must be in (0, 1), not {share}")
    table, notes = table.drop(columns=list(ignore)).reset_index(drop=True), []
    check_numbers(table)
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
    least = min(len(train), len(test))
    require(
        is_class or least > 1, f"a share of {share} leaves {least} of {len(table)} rows on one side: choose another"
    )
    columns = Columns.fit(train, target, "classification" if is_class else "regression")
    if columns.constant:
        notes.append(f"left out, for training has one value of them alone: {', '.join(columns.constant)}")
    if unseen := columns.unseen(test):
        notes.append(f"held-out rows with a text that training has not seen: {unseen}")
    parts = [
        ArrayDataset(columns.inputs(rows), columns.targets(rows), f"{len(rows):,} rows of {origin}")
        for rows in (train, test)
    ]
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

    fallback = False
    try:
        path = find_file("moore", root, fetch)
    except NotFound as error:
        table = pandas.read_csv(Path(__file__).with_name("transistors.csv"))
        origin = f"{error}. IN ITS PLACE: {len(table)} processors' transistors as their makers published them"
        fallback = True
    else:
        try:
            table = pandas.read_csv(path, header=None)
        except ValueError as error:
            raise InputError(f"{path} is damaged: fetch it again") from error
        origin = f"{len(table):,} processors' transistors from {path}"
    numbers = table.iloc[:, :2].apply(pandas.to_numeric, errors="coerce").to_numpy(dtype="float64")
    values = torch.from_numpy(numbers.copy())
    whole = bool(values.isfinite().all() and (values > 0).all() and len(values) > 2)
    require(whole, f"{origin}: a year and a positive count are expected in every row")
    years, logarithms = values[:, 0], values[:, 1].log()
    data = ArrayDataset((years - years.mean()).float()[:, None], logarithms.float()[:, None], origin, fallback)
    return years, logarithms, data
