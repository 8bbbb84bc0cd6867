"""Texts as sequences of numbers: a vocabulary, padding, and a data set whose batches are padded no more than need be.

Keras' conventions (lectures 55 and 56): 0 is padding, words are numbered from 1 by frequency, and a word that is not
known is left out, or is word 1 where the vocabulary has a word for it.

Shapes: N texts, B in a batch, T words of the longest one.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchdl.data.described import fingerprint
from torchdl.errors import InputError, require
from torchdl.files import write_json

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'  # Keras' own: what separates words beside the space
UNKNOWN = "<unknown>"  # which no text can hold, for < is filtered
Side = Literal["pre", "post"]


def tokenize(text: str, lower: bool = True, filters: str = FILTERS) -> list[str]:
    """Split a text into words, as Keras' ``Tokenizer`` does: filtered characters count as spaces.

    Example:
        >>> tokenize("I like eggs and ham.")
        ['i', 'like', 'eggs', 'and', 'ham']
    """
    text = text.lower() if lower else text
    return [word for word in text.translate(str.maketrans(filters, " " * len(filters))).split(" ") if word]


class Vocabulary:
    """The words that a model knows, numbered from 1 by frequency; 0 is padding.

    Args:
        words: The words in the order of their numbers; :data:`UNKNOWN` first where words that are not known are to
            have a number.
        lower: Whether texts are lower-cased.
        filters: Characters that separate words beside the space.

    Example:
        >>> vocabulary = Vocabulary.learn(["I like eggs and ham.", "I love chocolate and bunnies.", "I hate onions."])
        >>> vocabulary.encode("I like ice and chocolate")
        [1, 3, 2, 7]
    """

    def __init__(self, words: Sequence[str], lower: bool = True, filters: str = FILTERS) -> None:
        require(
            all(isinstance(word, str) and word for word in words), "a vocabulary's words are texts of a letter or more"
        )
        require(len(set(words)) == len(words), "a vocabulary has every word once")
        self.words, self.lower, self.filters = tuple(words), bool(lower), str(filters)
        self.numbers = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def learn(
        cls,
        texts: Iterable[str],
        most: int | None = None,
        unknown: bool = False,
        lower: bool = True,
        filters: str = FILTERS,
    ) -> Vocabulary:
        """Learn the words of training texts, the most frequent first, of equals the one that came first.

        Args:
            texts: The texts, of the training part alone.
            most: How many words to keep; all if None. (Keras' ``num_words`` is one more than it keeps.)
            unknown: Whether a word that is not known has a number, 1, or is left out.
            lower: Whether texts are lower-cased.
            filters: Characters that separate words beside the space.
        """
        require(most is None or most >= 1, f"a vocabulary keeps 1 word or more, not {most}")
        counts = Counter(word for text in texts for word in tokenize(text, lower, filters))
        kept = [word for word, _ in counts.most_common(most) if word != UNKNOWN]
        require(bool(kept), "there is no word in the training texts: nothing can be learnt from them")
        return cls([UNKNOWN, *kept] if unknown else kept, lower, filters)

    def __len__(self) -> int:
        """The number of words; one less than an embedding needs, for padding has the number 0."""
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Give the numbers of a text's words."""
        words, other = tokenize(text, self.lower, self.filters), self.numbers.get(UNKNOWN)
        numbers = (self.numbers.get(word, other) for word in words)
        return [number for number in numbers if number is not None]

    def decode(self, numbers: Iterable[int]) -> str:
        """Give the words of numbers, padding left out, with spaces between them."""
        return " ".join(self.words[number - 1] for number in numbers if number > 0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON."""
        write_json(Path(path), {"words": self.words, "lower": self.lower, "filters": self.filters})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read what :meth:`save` wrote; :class:`InputError` for anything else."""
        try:
            found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(found["words"], found["lower"], found["filters"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged, or something else"
            raise InputError(f"{path} holds no vocabulary ({reason}): name a run of train_text.py") from error


def pad(
    sequences: Sequence[Sequence[int] | Tensor],
    length: int | None = None,
    padding: Side = "pre",
    truncating: Side = "pre",
) -> Tensor:
    """Make sequences equally long, as Keras' ``pad_sequences`` does.

    Args:
        sequences: Numbers above 0.
        length: T; the longest one's if None.
        padding: Whether zeros come before or after.
        truncating: Whether what is too long loses its beginning or its end.

    Returns:
        (N, T) int64.

    Example:
        >>> pad([[1, 2], [3, 4, 5]], padding="post")
        tensor([[1, 2, 0],
                [3, 4, 5]])
    """
    require(padding in ("pre", "post") and truncating in ("pre", "post"), "padding and truncating are pre or post")
    require(length is None or length >= 0, f"length must be 0 or more, not {length}")
    if length is None:
        length = max(map(len, sequences), default=0)
    rows = torch.zeros(len(sequences), length, dtype=torch.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        kept = torch.as_tensor(sequence, dtype=torch.int64)
        kept = kept[:length] if truncating == "post" else kept[max(0, len(kept) - length) :]
        start = length - len(kept) if padding == "pre" else 0
        row[start : start + len(kept)] = kept
    return rows


class TextDataset(Dataset):
    """Texts with labels; a batch is padded with zeros, after the words, to its own longest text.

    With ``BatchLoader(..., by_length=True)`` texts of about the same length come together, so that padding costs
    little.

    Args:
        texts: N texts.
        labels: (N, ...), one a text.
        vocabulary: What numbers their words.
        longest: Words of a text that are kept, its first ones; all if None.
        origin: Where they come from, for the user to read.
        stand_in: Whether they stand in for data that could not be had.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Tensor,
        vocabulary: Vocabulary,
        longest: int | None = None,
        origin: str = "memory",
        stand_in: bool = False,
    ) -> None:
        require(len(texts) == len(labels), f"there must be one label a text, not {len(labels)} for {len(texts)}")
        require(longest is None or longest >= 1, f"longest must be 1 word or more, not {longest}")
        encoded = [torch.tensor(vocabulary.encode(text)[:longest], dtype=torch.int64) for text in texts]
        self.labels, self.origin, self.stand_in = labels, origin, stand_in
        self.lengths = torch.tensor([len(words) for words in encoded], dtype=torch.int64)  # (N,)
        self.words = torch.cat([*encoded, torch.empty(0, dtype=torch.int64)])  # one text after the other
        self.starts = self.lengths.cumsum(0) - self.lengths  # (N,)

    def to(self, device: str | torch.device) -> TextDataset:
        """Move all of it to ``device``, in place, so that batches are made there; returns the data set itself."""
        for name in ("words", "starts", "lengths", "labels"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    @property
    def device(self) -> torch.device:
        """The device that the texts are on."""
        return self.words.device

    def fingerprint(self) -> str:
        """Return the SHA-256 of all numbers and labels, in hexadecimal."""
        return fingerprint([self.words, self.lengths, self.labels], repr((len(self), self.labels.shape)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice) -> tuple[Tensor, Tensor]:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        words, labels = self.__getitems__([range(len(self))[index]])
        return words[0], labels[0]

    def __getitems__(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Give the words (B, T) int64, T those of the batch's longest text but 1 at least, and the labels (B, ...)."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        lengths = self.lengths[indices, None]  # (B, 1)
        place = torch.arange(max(1, int(lengths.max())), device=self.device)  # (T,)
        within = place < lengths  # (B, T)
        words = self.words[torch.where(within, self.starts[indices, None] + place, 0)] if len(self.words) else within
        return torch.where(within, words, 0), self.labels.index_select(0, indices)
