"""Tables: read from text files, split, and encoded as numbers by the training rows (lectures 6 to 16).

What a column holds, numbers or categories, is decided once, by all rows of the training file, and saved with the run.
Later files are read as texts and encoded by that decision.

Shapes: N rows, D numbers per row, K classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import ArrayDataset
from torchdl.data.course_files import find_file
from torchdl.data.delimited_files import (
    CSV,
    TableFormat,
    as_names,
    read_rows,
    repeated,
    require_columns,
    row_number,
    separator_in,
)
from torchdl.data.download import IN_ITS_PLACE, NotFound
from torchdl.data.duplicates import duplicates_note, in_training
from torchdl.data.numerals import is_number, looks_like_numbers, notation_note, to_numbers
from torchdl.errors import InputError, require
from torchdl.files import PathLike

if TYPE_CHECKING:
    import pandas

Gaps = Literal["refuse", "fill"]
Missing = Literal["refuse", "drop", "fill"]
TableTask = Literal["auto", "classification", "regression"]
MAX_CATEGORIES = 50  # per column


def read_table(
    path: PathLike,
    categories: Collection[str] = (),
    format: TableFormat = CSV,
    target: str = "",
    task: TableTask = "auto",
) -> pandas.DataFrame:
    """Read a table with at least two columns; columns of numbers alone are numeric, all others hold texts.

    Numbers may be written as ``1,013`` (thousands) or ``23%`` (0.23). Codes with leading zeros, such as ``007``, are
    texts. ``attrs["notes"]`` has sentences about the file that its reader should know.

    Args:
        path: The file.
        categories: Columns of categories, even if their entries are numbers.
        format: How the file is written.
        target: The column to predict: if its values are classes, they are read as texts, so they keep their names.
        task: What kind of target it is; ``auto`` guesses it.

    Raises:
        InputError: The file is missing or broken, or has only one column or no header.

    Example:
        >>> import os, pandas, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "people.csv")
        >>> pandas.DataFrame({"age": [31, 47], "room": [101, 102]}).to_csv(path, index=False)
        >>> torchdl.read_table(path, categories=["room"])
           age room
        0   31  101
        1   47  102
    """
    import pandas  # imported late: it takes a second

    rows = read_rows(path, format)
    only = rows.columns[0]
    one = f"{path} has only one column, {only!r}: name its separator"
    require(rows.shape[1] > 1, f'{one}, such as separator="{separator_in(only)}"')
    columns, notes = {}, list[str]()
    for name in rows.columns:
        columns[name] = texts = stripped(rows[name])
        values, known = to_numbers(texts, format.decimal), texts.dropna().tolist()
        classes = name == target and guess_task(values, task) == "classification"
        if name in categories:
            columns[name] = texts.astype("category")
        elif not classes and values.count() == len(known):
            whole = 0 < len(texts) == len(known) and all(text.isdecimal() and len(text) < 16 for text in known)
            columns[name] = values.astype("int64") if whole else values
            notes += notation_note(name, known, format.decimal, format.separator)
            if name != target and len(texts) >= 10 and bool((np.diff(values) == 1).all()):
                notes.append(f"column {name!r} increases by 1 from row to row: ignore it, unless it is a measurement")
    table = pandas.DataFrame(columns)
    table.attrs = {**rows.attrs, "notes": (*rows.attrs["notes"], *notes), "format": asdict(format)}
    return table


def stripped(column: pandas.Series) -> pandas.Series:
    """Return a column of texts without the spaces around them."""
    import pandas  # imported late: it takes a second

    texts = [cell.strip() if isinstance(cell, str) else cell for cell in column.tolist()]
    return pandas.Series(texts, column.index, dtype=object, name=column.name)


def is_numeric(column: pandas.Series) -> bool:
    """Return whether a column holds real numbers; booleans are categories."""
    from pandas.api.types import is_any_real_numeric_dtype

    return bool(is_any_real_numeric_dtype(column))


def plain_column(column: pandas.Series) -> pandas.Series:
    """Return a column of Python objects as float64 if all are numbers; InputError if some are lists or the like."""
    known = column.dropna()
    if column.dtype != "object" or not len(known):
        return column
    kinds = {type(value) for value in known}
    strange = sorted(kind.__name__ for kind in kinds if kind.__hash__ is None)
    require(not strange, f"column {column.name!r} holds values of type {', '.join(strange)}: leave it out (ignore)")
    numbers = all(issubclass(kind, (Real, Decimal)) and kind is not bool for kind in kinds)
    return column.astype("float64") if numbers else column


def numeric_column(table: pandas.DataFrame, name: str, decimal: str = ".", advice: str = "") -> pandas.Series:
    """Return a column as float64, NaN for missing values. It is known to be numeric, so 007 is 7.

    Args:
        table: The table.
        name: The column's name.
        decimal: The decimal mark of numbers that are texts.
        advice: What else can be done about a wrong entry, beside correcting it.

    Raises:
        InputError: An entry is not a finite number; the first such is named.
    """
    found = table[name].astype("float64") if is_numeric(table[name]) else to_numbers(table[name], decimal, codes=True)
    wrong = ((found.isna() & table[name].notna()) | found.isin([float("inf"), float("-inf")])).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        entry, count = str(table[name].iloc[row]), int(wrong.sum())
        mark = "," if decimal == "." else "."
        if mark in entry and is_number(entry, mark):
            advice = f', or name the decimal point (decimal="{mark}"){advice}'
        raise InputError(
            f"column {name!r} has {entry!r} in row {row_number(table, row)}, not a finite number "
            f'({count:,} such entries): correct or empty them, or mark them as missing (na=["{entry}"]){advice}'
        )
    return found


def check_numeric(table: pandas.DataFrame) -> None:
    """Raise InputError for the first entry that is not a finite number in a column of mostly numbers.

    A column with codes, such as ``007``, is not numeric. The message counts rows as a spreadsheet does.
    """
    from pandas.api.types import is_bool_dtype

    for name in table.columns:
        advice = f', or read the column as categories (categories=["{name}"])'
        if is_numeric(table[name]):
            numeric_column(table, name, advice=advice)
        elif not is_bool_dtype(table[name]) and table[name].dtype != "category":
            known = table[name].dropna()
            texts = known[to_numbers(known).isna()].astype(str)
            codes = bool(texts.str.fullmatch(r"0\d+").any())
            if (
                len(texts)
                and not codes
                and (len(texts) < len(known) / 2 or looks_like_numbers(known.astype(str).tolist()))
            ):
                numeric_column(table, name, advice=advice)


def breast_cancer() -> pandas.DataFrame:
    """Load scikit-learn's 569 breast tumours: 30 numbers each and the ``diagnosis`` (lecture 10)."""
    from sklearn.datasets import load_breast_cancer  # imported late: it takes a second

    found = load_breast_cancer(as_frame=True)
    return found.data.assign(diagnosis=[str(found.target_names[label]) for label in found.target])


@dataclass(frozen=True)
class Columns:
    """The encoding of a table's rows as numbers; fitted on the training rows, and saved with the model.

    Attributes:
        numeric: The mean and standard deviation that scale each numeric column.
        categorical: The categories of each column of text or booleans, as they are written. The encoding is one-hot; a
            category that is not in the training rows becomes all zeros. Other spellings of whole numbers (``1.0`` for
            ``1``) and of ``True`` and ``False`` are the same category.
        target: The column to predict.
        classes: The target's classes; empty if the target is numeric.
        scale: The mean and standard deviation of a numeric target.
        constant: Columns that are left out, since they are constant in the training rows.
        logarithm: Whether the model learns the logarithm of a numeric target; ``scale`` is then that of the logarithm.
        format: How the training file was written.
        missing: Whether training refused missing values (or dropped their rows), or filled them.

    Example:
        >>> import pandas
        >>> table = pandas.DataFrame({"rooms": [1, 3], "type": ["flat", "house"], "price": [100, 300]})
        >>> columns = torchdl.Columns.fit(table, target="price")
        >>> columns.names
        ['rooms', 'type=flat', 'type=house']
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
    logarithm: bool = False
    format: TableFormat = CSV
    missing: Gaps = "refuse"

    @classmethod
    def fit(cls, table: pandas.DataFrame, target: str, task: TableTask = "auto") -> Columns:
        """Fit the encoding to training rows; missing values are ignored.

        Columns with one value are left out.

        Args:
            table: The rows, each column numeric or categorical by what it holds.
            target: The name of the column to predict.
            task: ``classification``, ``regression``, or ``auto`` for what the target's values suggest.

        Raises:
            InputError: All columns are constant, the target cannot be learned, or a column has too many categories.
        """
        numeric: dict[str, tuple[float, float]] = {}
        categorical, constant = {}, []
        for name in table.columns.drop(target):
            column = table[name].dropna()
            if column.nunique() <= 1:
                constant.append(name)
            elif is_numeric(column):
                numeric[name] = mean_and_deviation(table, name)
            else:
                categories = category_names(column)
                found = f"{len(categories):,} categories, more than the maximum of {MAX_CATEGORIES}"
                few = len(categories) <= MAX_CATEGORIES
                require(few, f'column {name!r} has {found}: leave the column out (ignore=["{name}"])')
                categorical[name] = categories
        require(bool(numeric or categorical), "all columns but the target are constant: there is nothing to learn from")
        values = table[target]
        if guess_task(values, task) == "classification":
            classes = category_names(values)
            require(len(classes) > 1, f"all rows have the {target!r} {classes[0]!r}: there is nothing to predict")
            return cls(numeric, categorical, target, classes, constant=tuple(constant))
        require(is_numeric(values), f"{target!r} is not numeric: regression cannot predict text or booleans")
        require(values.nunique() > 1, f"all rows have the {target!r} {values.iloc[0]}: there is nothing to predict")
        return cls(numeric, categorical, target, (), mean_and_deviation(table, target), tuple(constant))

    @property
    def names(self) -> list[str]:
        """The names of the D numbers of a row."""
        names = [f"{name}={category}" for name, categories in self.categorical.items() for category in categories]
        return [*self.numeric, *names]

    def read(self, path: PathLike, format: TableFormat | None = None) -> pandas.DataFrame:
        """Read rows to predict: each column holds what it held in the training file, whatever other rows hold.

        Args:
            path: The file.
            format: How it is written; as the training file by default.

        Raises:
            InputError: The file is missing or broken, or lacks a column, or has a text in a numeric column.
        """
        format = format or self.format
        index = any(name.startswith("Unnamed:") for name in (*self.numeric, *self.categorical))  # an old run's input
        rows = read_rows(path, format, row_index=index)
        self.require_present(rows, path)
        table = rows.apply(stripped)
        table.attrs = dict(rows.attrs)
        typed, written = self.typed(table, format.decimal), (format.decimal, format.separator)
        numbers = [name for name in self._numbers if name in table.columns]
        said = [note for name in numbers for note in notation_note(name, table[name].dropna().tolist(), *written)]
        typed.attrs["notes"] = (*rows.attrs["notes"], *said)
        return typed

    def typed(self, table: pandas.DataFrame, decimal: str = ".") -> pandas.DataFrame:
        """Return a table with float64 in its numeric columns, those of a numeric target included.

        ``decimal`` is the decimal mark of numbers that the table holds as texts.

        Raises:
            InputError: The table lacks a column, or has a text in a numeric column.
        """
        self.require_present(table)
        names = [name for name in self._numbers if name in table.columns]
        return table.assign(**{name: numeric_column(table, name, decimal) for name in names})

    @property
    def _numbers(self) -> list[str]:
        return [*self.numeric, *([] if self.classes else [self.target])]

    def inputs(self, table: pandas.DataFrame) -> Tensor:
        """Encode rows as (N, D) float32; a missing number becomes the training mean, a missing category all zeros.

        Raises:
            InputError: A number is too far from those of the training rows.
        """
        self.require_present(table)
        parts = []
        for name, (mean, deviation) in self.numeric.items():
            values = torch.from_numpy(numeric_column(table, name).fillna(mean).to_numpy().copy())
            scaled = ((values - mean) / deviation).float()
            if not bool(scaled.isfinite().all()):
                row = int((~scaled.isfinite()).int().argmax())
                raise InputError(
                    f"column {name!r} has {values[row]:g} in row {row_number(table, row)}, too far from the {mean:g} ± "
                    f"{deviation:g} of the training rows: correct it"
                )
            parts.append(scaled[:, None])  # (N, 1)
        for name, categories in self.categorical.items():
            places = torch.from_numpy(category_places(table[name], categories))  # (N,)
            parts.append((places[:, None] == torch.arange(len(categories))).float())  # (N, K)
        return torch.cat(parts, 1)

    def require_present(self, table: pandas.DataFrame, path: PathLike = "the table") -> None:
        """Raise :class:`InputError` if a table lacks columns other than the target; the message names ``path``."""
        require_columns(path, table, [*self.numeric, *self.categorical])

    def targets(self, table: pandas.DataFrame) -> Tensor:
        """Encode the target: (N, 1) float32, scaled numbers or 0 and 1 for two classes; (N,) int64 for more classes.

        Raises:
            InputError: A class is unknown, or a number is not positive where its logarithm is learned.
        """
        if not self.classes:
            mean, deviation = self.scale
            values = numeric_column(table, self.target)
            if self.logarithm:
                require(not (values <= 0).any(), f"{self.target!r} must be positive, for its logarithm to be learned")
                values = np.log(values)
            scaled = ((values - mean) / deviation).to_numpy("float32")
            return torch.from_numpy(scaled.copy())[:, None]  # (N,) -> (N, 1)
        labels = torch.from_numpy(category_places(table[self.target], self.classes))
        unknown = sorted({category_name(value) for value in table[self.target][(labels < 0).numpy()]})
        known = ", ".join(self.classes)
        require(not unknown, f"{self.target!r} {', '.join(map(repr, unknown))} is not in the training classes {known}")
        return labels.float()[:, None] if len(self.classes) == 2 else labels  # (N, 1) or (N,)

    def numbers(self, scaled: Tensor) -> Tensor:
        """Return numbers (N,) in the target's unit, float64, of scaled ones (N, 1), such as :meth:`targets` returns."""
        mean, deviation = self.scale
        values = scaled[:, 0].double() * deviation + mean  # (N, 1) -> (N,)
        return values.exp() if self.logarithm else values

    def unseen(self, table: pandas.DataFrame) -> dict[str, int]:
        """Return the number of rows with a category that is not in the training rows, by column."""
        counts = {
            name: int(((category_places(table[name], categories) < 0) & table[name].notna().to_numpy()).sum())
            for name, categories in self.categorical.items()
        }
        return {name: count for name, count in counts.items() if count}

    def gaps(self, table: pandas.DataFrame) -> dict[str, int]:
        """Return the number of missing values in the columns that :meth:`inputs` reads, by column."""
        self.require_present(table)
        counts = {name: int(table[name].isna().sum()) for name in (*self.numeric, *self.categorical)}
        return {name: count for name, count in counts.items() if count}

    def check(self) -> None:
        """Raise :class:`InputError` unless the encoding is one that :meth:`fit` can return."""
        for name, (mean, deviation) in {**self.numeric, self.target: self.scale}.items():
            require(math.isfinite(mean) and 0 < deviation < math.inf, f"{name!r} is scaled by {mean} ± {deviation}")
        require(bool(self.names), "there are no columns to learn from")
        distinct = len(self.classes) != 1 and not repeated(self.classes) and not repeated(self.names)
        require(distinct, "classes or categories are not distinct")


def mean_and_deviation(table: pandas.DataFrame, name: str) -> tuple[float, float]:
    """Return the mean and standard deviation of a numeric column; InputError if they are out of range."""
    known = numeric_column(table, name).dropna().to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(known.mean()), float(known.std())
    require(
        math.isfinite(mean) and 0 < deviation < math.inf,
        f"the numbers in column {name!r} are too large or too close together to be scaled: use another unit",
    )
    return mean, deviation


def category_name(value: object) -> str:
    """Return the name of a class or category; an integer has no decimal point, even if pandas stores it as a float."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def category_key(name: str) -> str:
    """Return what all spellings of a category share: those of a whole number, and those of True and False."""
    whole = re.fullmatch(r"\+?(-?(?:0|[1-9]\d*))(?:\.0*)?", name)
    return whole[1] if whole else name.lower() if name.lower() in ("true", "false") else name


def category_names(column: pandas.Series) -> tuple[str, ...]:
    """Return the names of the categories in a column, sorted; the first spelling of each."""
    names: dict[str, str] = {}
    for name in sorted({category_name(value) for value in column.dropna().unique()}):
        names.setdefault(category_key(name), name)
    return tuple(names.values())


def category_places(column: pandas.Series, categories: Sequence[str]) -> np.ndarray:
    """Return the places (N,) int64 of a column's entries in ``categories``; -1 for missing and other entries."""
    import pandas  # imported late: it takes a second

    places = {category_key(name): place for place, name in reversed(list(enumerate(categories)))}
    places |= {name: place for place, name in enumerate(categories)}  # the spelling itself goes first
    codes, found = pandas.factorize(column)
    names = [category_name(value) for value in found]
    known = [places.get(name, places.get(category_key(name), -1)) for name in names]
    return np.array([*known, -1], dtype=np.int64)[codes]  # the code of a missing value is -1


def guess_task(target: pandas.Series, task: TableTask = "auto") -> str:
    """Return ``task``, or guess it: text, booleans and up to ten integers (each > 2 times on average) are classes."""
    if task != "auto":
        return task
    if not is_numeric(target):
        return "classification"
    few = target.nunique() <= 10 and len(target) > 2 * target.nunique()
    return "classification" if few and bool((target.dropna() % 1 == 0).all()) else "regression"


@dataclass(frozen=True)
class Table:
    """A table split into training and test rows, encoded as numbers.

    Attributes:
        train: Inputs (N, D) float32 and targets as :meth:`Columns.targets` returns them.
        test: The same for the test rows.
        columns: The encoding.
        notes: Sentences about the file, about rows and columns that were left out or filled, and about duplicates.

    Example:
        >>> import pandas
        >>> types = ["flat", "flat", "house", "house"]
        >>> rows = pandas.DataFrame({"rooms": range(20), "city": "Bonn", "type": types * 5})
        >>> table = torchdl.split_table(rows, target="type")
        >>> len(table.train), len(table.test), table.columns.classes
        (13, 7, ('flat', 'house'))
        >>> table.notes
        ('left out, since they are constant in the training rows: city',)
    """

    train: ArrayDataset
    test: ArrayDataset
    columns: Columns
    notes: tuple[str, ...] = ()

    @property
    def duplicates(self) -> Tensor:
        """Which test rows (N,) equal a training row, the target included; bool."""
        rows = [
            torch.cat([part.inputs, part.targets.float().reshape(len(part), 1)], 1)  # (N, D + 1)
            for part in (self.train, self.test)
        ]
        return in_training(*rows)


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
    """Split rows at random, each class in the same proportion; encode them; fit the encoding on the training rows.

    Args:
        table: The table.
        target: The column to predict.
        task: ``classification``, ``regression``, or ``auto``, which guesses it from the target.
        share: The share of the test rows.
        missing: ``refuse`` missing values, ``drop`` their rows, or ``fill`` them: numbers with the mean of the training
            rows, categories with zeros. ``fill`` drops rows without a target.
        ignore: Columns to leave out.
        seed: The seed of the split.
        origin: Where the table comes from, in words.

    Raises:
        InputError: A column is missing, values are missing, or there is nothing to learn.

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

    distinct = table.columns.is_unique and all(isinstance(name, str) for name in table.columns)
    require(distinct, "the names of a table's columns must be strings, and all different")
    ignore = as_names(ignore)
    for name in (target, *ignore):
        require(name in table.columns, f"there is no column {name!r}: choose among {', '.join(table.columns)}")
    require(target not in ignore, f"the target {target!r} cannot be ignored")
    require(0 < share < 1, f"the test share must be in (0, 1), not {share}")
    attrs = dict(table.attrs)
    notes = list(attrs.get("notes", ()))
    table = table.drop(columns=list(ignore)).reset_index(drop=True).apply(plain_column)
    table.attrs = attrs
    check_numeric(table)
    gaps = table.isna()
    if gaps.any().any():
        counts = {name: int(count) for name, count in gaps.sum().items() if count}
        named = ", ".join(
            f"{name!r} {count:,} (first in row {row_number(table, int(gaps[name].to_numpy().argmax()))})"
            for name, count in counts.items()
        )
        require(missing != "refuse", f'values are missing in {named}: choose missing="drop" or missing="fill"')
        lost = gaps.any(axis=1) if missing == "drop" else gaps[target]
        table = table[~lost]
        others = ", others filled" if missing == "fill" else ""
        notes.append(f"missing values in {named}: {int(lost.sum()):,} rows dropped{others}")
    is_class = guess_task(table[target], task) == "classification"
    names = category_names(table[target]) if is_class else ()
    classes = category_places(table[target], names) if is_class else None
    require(len(table) >= 4, f"{len(table)} rows are too few to train and test on")
    if classes is not None:
        rows_per_class = np.bincount(classes)
        rare = names[int(rows_per_class.argmin())]
        require(len(names) > 1, f"all rows have the {target!r} {rare!r}: there is nothing to predict")
        enough = rows_per_class.min() > 1
        require(enough, f"the {target!r} {rare!r} has only one row, but training and testing need one each")
    try:
        train, test = train_test_split(table, test_size=share, random_state=seed, stratify=classes)
    except ValueError as error:  # too few rows for the classes
        raise InputError(f"the rows cannot be split with a test share of {share}: {error}") from error
    train.attrs = test.attrs = attrs
    least = min(len(train), len(test))
    require(is_class or least > 1, f"a test share of {share} leaves {least} of {len(table)} rows in one part")
    columns = replace(
        Columns.fit(train, target, "classification" if is_class else "regression"),
        format=TableFormat(**attrs.get("format", {})),
        missing="fill" if missing == "fill" else "refuse",
    )
    if columns.constant:
        notes.append(f"left out, since they are constant in the training rows: {', '.join(columns.constant)}")
    if unseen := columns.unseen(test):
        notes.append(f"test rows with a category that is not in the training rows: {unseen}")
    parts = [
        ArrayDataset(columns.inputs(rows), columns.targets(rows), f"{len(rows):,} rows of {origin}")
        for rows in (train, test)
    ]
    found = Table(parts[0], parts[1], columns, tuple(notes))
    repeated = duplicates_note(found.duplicates, "rows")
    return replace(found, notes=(*notes, repeated)) if repeated else found


def load_transistors(root: PathLike | None = None, fetch: bool = True) -> tuple[Tensor, Tensor, ArrayDataset]:
    """Load the years and the logarithms of the transistor counts of processors (lecture 12), float64 (N,) each.

    If the course's file is neither found nor downloaded, torchdl's list of 24 processors' published counts replaces it.

    Args:
        root: The data folder; see :mod:`torchdl.data.sources` for the other places.
        fetch: Whether to download a missing file.

    Returns:
        The years, the logarithms, and both as a data set of (N, 1) float32 with the years centred.

    Raises:
        InputError: A row lacks a year or a positive count.
    """
    fallback = False
    try:
        path = find_file("moore", root, fetch)
    except NotFound as error:
        table = read_rows(Path(__file__).with_name("transistors.csv"))
        origin = f"{error}{IN_ITS_PLACE}{len(table)} processors' transistors as their makers published them"
        fallback = True
    else:
        table = read_rows(path, TableFormat(header=False))
        origin = f"{len(table):,} processors' transistors from {path}"
    array = table.iloc[:, :2].apply(to_numbers).to_numpy()
    values = torch.from_numpy(array.copy())
    valid = bool(values.isfinite().all() and (values > 0).all() and len(values) > 2)
    require(valid, f"{origin}: a year and a positive count are expected in every row")
    years, logarithms = values[:, 0], values[:, 1].log()
    data = ArrayDataset((years - years.mean()).float()[:, None], logarithms.float()[:, None], origin, fallback)
    return years, logarithms, data
