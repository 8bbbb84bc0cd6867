"""Texts with classes: read from a table in any encoding, split, and encoded as word indices.

Shapes: N texts, B in a batch, T words of the longest one.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import ArrayLike, BatchDataset, as_classes, as_tensor
from torchdl.data.delimited_files import CSV, TableFormat, notes, read_rows, require_columns, row_number
from torchdl.data.info import fingerprint
from torchdl.data.text_files import find_encoding, open_text, reading
from torchdl.data.vocabulary import Vocabulary, as_texts
from torchdl.errors import InputError, require
from torchdl.field_docs import with_field_docs
from torchdl.files import PathLike


@with_field_docs
@dataclass(frozen=True)
class Texts:
    """Texts and the indices of their classes, (N,) int64; for :func:`read_texts`, class 0 is the largest.

    Example:
        >>> texts = torchdl.Texts(("see you", "buy now", "thank you"), torch.tensor([0, 1, 0]), classes=("ham", "spam"))
        >>> texts.counts
        {'ham': 2, 'spam': 1}
        >>> texts.numbered(torchdl.Vocabulary.learn(texts.texts))[2]
        (tensor([5, 1]), tensor([0.]))
    """

    texts: tuple[str, ...]
    """The texts."""
    labels: Tensor
    """(N,) int64, the index of each text's class."""
    classes: tuple[str, ...]
    """The names of the classes."""
    origin: str = "memory"
    """Where the texts come from, in words."""
    fallback: bool = False
    """Whether they replace data that was not found."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", as_texts(self.texts))
        object.__setattr__(self, "labels", as_classes(self.labels, "labels"))
        object.__setattr__(self, "classes", tuple(self.classes))
        require(not self.labels.is_floating_point(), f"labels must be integers, not {self.labels.dtype}")
        require(len(self.texts) == len(self.labels), f"there are {len(self.labels)} labels for {len(self.texts)} texts")
        known = bool(((self.labels >= 0) & (self.labels < len(self.classes))).all())
        require(known, f"labels must be from 0 to {len(self.classes) - 1}, the indices of the classes")

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: ArrayLike) -> Texts:
        """Return the texts with these indices (B,), or those where a mask (N,) is true."""
        chosen = as_tensor(rows, "rows")
        chosen = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen.long()
        return replace(self, texts=tuple(self.texts[row] for row in chosen.tolist()), labels=self.labels[chosen])

    @property
    def counts(self) -> dict[str, int]:
        """The number of texts of each class."""
        return dict(zip(self.classes, self.labels.bincount(minlength=len(self.classes)).tolist(), strict=True))

    def split(self, share: float = 0.33, seed: int = 0) -> tuple[Texts, Texts]:
        """Split into a training and a test part at random, by ``seed``; the test part has this share of every class.

        Raises:
            InputError: The share is not in (0, 1), or there are too few texts.
        """
        from sklearn.model_selection import train_test_split  # imported late: it takes a second

        require(0 < share < 1, f"the test share must be in (0, 1), not {share}")
        test_count = math.ceil(len(self) * share)
        few = [f"{name!r} ({count})" for name, count in self.counts.items() if count < 2]
        require(not few, f"each class needs 2 texts, one for each part: there are too few of {', '.join(few)}")
        enough = len(self.classes) <= min(test_count, len(self) - test_count)
        require(enough, f"{len(self)} texts cannot be split into two parts of {len(self.classes)} classes: get more")
        rows = train_test_split(np.arange(len(self)), test_size=share, random_state=seed, stratify=self.labels.numpy())
        parts = [self[part] for part in rows]
        train, test = (replace(part, origin=f"{len(part):,} of {self.origin}") for part in parts)
        return train, test

    def numbered(self, vocabulary: Vocabulary, longest: int | None = None) -> TextDataset:
        """Encode the words as indices; labels are (N, 1) float32 for two classes (one logit), else (N,) int64.

        Args:
            vocabulary: Gives each word its index.
            longest: The number of words after which a text is cut off; None for no limit.
        """
        labels = self.labels.float()[:, None] if len(self.classes) == 2 else self.labels
        return TextDataset(self.texts, labels, vocabulary, longest, self.origin, self.fallback)


def read_texts(
    path: PathLike,
    text: str,
    label: str,
    encoding: str | None = None,
    skip_empty: bool = False,
    format: TableFormat = CSV,
) -> Texts:
    """Read texts and their classes from two columns of a table; the origin has what was found out about its encoding.

    Args:
        path: The file.
        text: The column of the texts.
        label: The column of the classes' names.
        encoding: The file's encoding, in place of the format's.
        skip_empty: Whether to leave out texts that are empty or only spaces; otherwise they are an error.
        format: How the table is written: a CSV file with a header by default.

    Raises:
        InputError: A file or column is missing, or a row cannot be used; the message names it.

    Example:
        >>> import os, pandas, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "mails.csv")
        >>> mails = {"kind": ["ham", "spam", "ham"], "mail": ["see you", "buy now", "thank you"]}
        >>> pandas.DataFrame(mails).to_csv(path, index=False)
        >>> texts = torchdl.read_texts(path, text="mail", label="kind")
        >>> texts.classes, texts.labels, texts.texts[0]
        (('ham', 'spam'), tensor([0, 1, 0]), 'see you')
    """
    format = format if encoding is None else replace(format, encoding=encoding)
    table = read_rows(path, format, missing=False)  # a text may be NA
    require_columns(path, table, (text, label), ("text", "label"))
    require(text != label, f"text and label must be different columns, not both {text!r}")
    texts = [cell.replace("\r\n", "\n") for cell in table[text]]
    labels = [name.strip() for name in table[label]]
    filled = (table != "").any(axis=1).to_numpy().nonzero()[0].tolist()
    rows = [row for row in filled if texts[row].strip()]
    empty = [row for row in filled if not texts[row].strip()]
    some = ", ".join(str(row_number(table, row)) for row in empty[:5]) + (" and more" if len(empty) > 5 else "")
    problem = f"{path} has {len(empty):,} empty texts (in row {some})"
    require(skip_empty or not empty, f"{problem}: fill them in, or leave them out (skip_empty)")
    nameless = next((row for row in rows if not labels[row]), None)
    if nameless is not None:
        row = row_number(table, nameless)
        raise InputError(f"{path} has no {label!r} in row {row}: fill it in, or remove the row")
    counts = Counter(labels[row] for row in rows)
    require(len(counts) > 1, f"{path} has only one class ({', '.join(counts) or 'none'}): at least two are needed")
    classes = sorted(counts, key=lambda name: (-counts[name], name))
    number = {name: place for place, name in enumerate(classes)}
    known, note = table.attrs["encoding"]
    read = note.removeprefix(f"{path} is ") or f"read as {known.upper().removesuffix('-SIG')}"
    said = [f"{len(rows):,} texts from {path}, {read}"]
    said += [f"{len(empty):,} empty ones were left out"] if empty else []
    origin = "; ".join([*said, *(other for other in notes(table) if other != note)])
    numbers = torch.tensor([number[labels[row]] for row in rows])
    return Texts(tuple(texts[row] for row in rows), numbers, tuple(classes), origin)


def read_lines(path: PathLike, encoding: str = "") -> tuple[list[str], tuple[str, ...]]:
    """Read a text file with one text per line; blank lines are left out.

    Args:
        path: The file.
        encoding: Its encoding; if not given, it is detected.

    Returns:
        The texts, and a sentence on bytes that cannot be decoded, if there are any.

    Raises:
        InputError: There is no such file, or it is not a text file.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "mails.txt")
        >>> with open(path, "w") as file:
        ...     _ = file.write("see you\\n\\nbuy now\\n")
        >>> torchdl.data.text.read_lines(path)
        (['see you', 'buy now'], ())
    """
    require(os.path.isfile(path), f"there is no file {path}: name a text file with one text per line")
    with reading(path, encoding):
        known, note = find_encoding(path, encoding)
        with open_text(Path(path), known, "strict" if encoding else "replace") as file:
            lines = [line.strip() for line in file]
    return [line for line in lines if line], (note,) if note else ()


class TextDataset(BatchDataset[tuple[Tensor, Tensor]]):
    """Texts with labels; zeros after the words pad the texts of a batch to its longest one.

    ``BatchLoader(..., by_length=True)`` batches texts of similar length, which saves padding.

    Args:
        texts: N texts.
        labels: (N, ...), one per text.
        vocabulary: Encodes the words as indices.
        longest: The maximum number of words per text; the first ones are kept. None keeps all.
        origin: Where the texts come from, in words.
        fallback: Whether they replace data that was not found.

    Raises:
        InputError: Texts and labels differ in number, or ``longest`` is less than 1.

    Example:
        >>> texts = ["a good film", "bad"]
        >>> data = torchdl.TextDataset(texts, torch.tensor([1, 0]), torchdl.Vocabulary.learn(texts))
        >>> data[:]
        (tensor([[1, 2, 3],
                [4, 0, 0]]), tensor([1, 0]))
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Tensor,
        vocabulary: Vocabulary,
        longest: int | None = None,
        origin: str = "memory",
        fallback: bool = False,
    ) -> None:
        texts, labels = as_texts(texts), as_classes(labels, "labels")
        require(len(texts) == len(labels), f"there are {len(labels)} labels for {len(texts)} texts")
        require(longest is None or longest >= 1, f"longest must be 1 or more words, not {longest}")
        encoded = [torch.tensor(vocabulary.encode(text)[:longest], dtype=torch.int64) for text in texts]
        self.labels, self.vocabulary, self.longest = labels, vocabulary, longest
        self.origin, self.fallback = origin, fallback
        self.lengths = torch.tensor([len(words) for words in encoded], dtype=torch.int64)  # (N,)
        self.words = torch.cat([*encoded, torch.empty(0, dtype=torch.int64)])  # one text after the other
        self.starts = self.lengths.cumsum(0) - self.lengths  # (N,)

    def to(self, device: str | torch.device) -> TextDataset:
        """Move the data to ``device`` in place, so that batches are made there; return the data set itself."""
        for name in ("words", "starts", "lengths", "labels"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    @property
    def device(self) -> torch.device:
        """The device that the texts are on."""
        return self.words.device

    def fingerprint(self) -> str:
        """Return the SHA-256 of all word indices and labels, in hexadecimal."""
        return fingerprint([self.words, self.lengths, self.labels], repr((len(self), self.labels.shape)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the words (B, T) int64 and the labels (B, ...); T is the length of the longest text, at least 1."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        lengths = self.lengths[indices, None]  # (B, 1)
        place = torch.arange(max(1, int(lengths.max())), device=self.device)  # (T,)
        within = place < lengths  # (B, T)
        words = self.words[torch.where(within, self.starts[indices, None] + place, 0)] if len(self.words) else within
        return torch.where(within, words, 0), self.labels.index_select(0, indices)
