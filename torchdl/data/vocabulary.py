"""Words as indices: tokenization, vocabularies and padding.

As in Keras (lectures 55 and 56), index 0 is padding, and words have indices from 1 in the order of frequency. Unknown
words are left out, or have the index 1 if the vocabulary has an entry for them.

Shapes: N texts, T words of the longest text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from torchdl.errors import InputError, kind_of, require
from torchdl.files import PathLike, read_json, write_json

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'  # Keras' separators of words besides the space
UNKNOWN = "<unknown>"  # cannot occur in a text, since < is filtered
Side = Literal["pre", "post"]


def tokenize(text: str, lower: bool = True, filters: str = FILTERS, same_digits: bool = False) -> list[str]:
    """Split a ``text`` into words, as Keras' ``Tokenizer`` does.

    Other than in Keras, where it would be a part of a word, the carriage return of Windows' line breaks is a space.

    Args:
        text: Any text.
        lower: Whether to write it in lower case first.
        filters: The characters that count as spaces.
        same_digits: Whether every digit becomes 0, so that all numbers of the same length become one word.

    Raises:
        InputError: ``text`` is no text, such as a list of texts.

    Example:
        >>> torchdl.data.tokenize("I like eggs and ham.")
        ['i', 'like', 'eggs', 'and', 'ham']
    """
    if not isinstance(text, str):
        raise InputError(f"one text is expected, not {kind_of(text)}: take the texts one by one")
    text = (text.lower() if lower else text).replace("\r\n", " ")
    text = re.sub(r"\d", "0", text) if same_digits else text
    return [word for word in text.translate(str.maketrans(filters, " " * len(filters))).split(" ") if word]


@dataclass(frozen=True)
class VocabularySettings:
    """A vocabulary as data: the arguments of :class:`Vocabulary`."""

    words: tuple[str, ...]
    lower: bool
    filters: str
    same_digits: bool


def as_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts as a tuple; :class:`InputError` if there is one text in place of several, or if one is missing.

    Example:
        >>> import numpy as np
        >>> from torchdl.data.vocabulary import as_texts
        >>> as_texts(np.array(["see you", "buy now"]))
        ('see you', 'buy now')
    """
    require(not isinstance(texts, str), "several texts are expected, not one: put it in a list")
    texts = tuple(texts.tolist() if hasattr(texts, "tolist") else texts)  # of an array or a column
    wrong = next(((place, text) for place, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"text number {wrong[0]} is {wrong[1]!r}, not a text: fill it in, or leave it out")
    return texts


class Vocabulary:
    """The words that a model knows, with indices from 1 in the order of frequency; 0 is padding.

    Args:
        words: The words in the order of their indices; :data:`UNKNOWN` comes first if unknown words have an index.
        lower: Whether texts are lower-cased.
        filters: Characters that separate words, besides the space.
        same_digits: Whether every digit becomes 0.

    Attributes:
        numbers: The index of each word.

    Raises:
        InputError: A word is empty, or there twice.

    Example:
        >>> vocabulary = torchdl.Vocabulary.learn(["I like eggs and ham.", "I love chocolate and bunnies."])
        >>> vocabulary.encode("I like ice and chocolate")
        [1, 3, 2, 7]
        >>> vocabulary.decode([1, 3, 2, 7])
        'i like and chocolate'
    """

    def __init__(
        self, words: Sequence[str], lower: bool = True, filters: str = FILTERS, same_digits: bool = False
    ) -> None:
        learn = "learn them from texts, Vocabulary.learn(texts, most=2000)"
        listed = hasattr(words, "__iter__") and not isinstance(words, str)
        require(listed, f"a vocabulary needs a list of words, not {words!r}: {learn}")
        require(all(isinstance(word, str) and word for word in words), "a vocabulary's words must be non-empty strings")
        require(len(set(words)) == len(words), "a vocabulary must have every word only once")
        self.words, self.lower, self.filters, self.same_digits = tuple(words), lower, filters, same_digits
        self.numbers = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def learn(
        cls,
        texts: Iterable[str],
        most: int | None = None,
        unknown: bool = False,
        least: int = 1,
        lower: bool = True,
        filters: str = FILTERS,
        same_digits: bool = False,
    ) -> Vocabulary:
        """Learn the words of texts, the most frequent first; ties keep the order in which the words first occur.

        Args:
            texts: The texts of the training part.
            most: The maximum number of words; None keeps all. (Keras keeps one word fewer than its ``num_words``.)
            unknown: Whether unknown words have the index 1; otherwise they are left out.
            least: The minimum number of occurrences of a word. With 2 and ``unknown``, rare words count as unknown, so
                a model learns how to treat unknown words.
            lower, filters, same_digits: See :class:`Vocabulary`.

        Raises:
            InputError: ``most`` or ``least`` is less than 1, or no word is left.
        """
        require(most is None or most >= 1, f"most must be 1 or more words, not {most}")
        require(least >= 1, f"least must be 1 or more occurrences, not {least}")
        counts = Counter(word for text in as_texts(texts) for word in tokenize(text, lower, filters, same_digits))
        kept = [word for word, count in counts.most_common(most) if count >= least and word != UNKNOWN]
        require(bool(kept), "there are no words in the training texts")
        return cls([UNKNOWN, *kept] if unknown else kept, lower, filters, same_digits)

    def __len__(self) -> int:
        """The number of words; an embedding needs one more, for padding."""
        return len(self.words)

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words, both known and unknown."""
        return tokenize(text, self.lower, self.filters, self.same_digits)

    def encode(self, text: str) -> list[int]:
        """Return the indices of a text's words."""
        unknown = self.numbers.get(UNKNOWN)
        indices = (self.numbers.get(word, unknown) for word in self.tokenize(text))
        return [index for index in indices if index is not None]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the words with these indices, without padding, joined by spaces."""
        return " ".join(self.words[index - 1] for index in numbers if index > 0)

    @property
    def settings(self) -> VocabularySettings:
        """The vocabulary as data."""
        return VocabularySettings(self.words, self.lower, self.filters, self.same_digits)

    @classmethod
    def of(cls, settings: VocabularySettings) -> Vocabulary:
        """Build a vocabulary from its settings."""
        return cls(settings.words, settings.lower, settings.filters, settings.same_digits)

    def save(self, path: PathLike) -> None:
        """Write the vocabulary as JSON."""
        write_json(Path(path), asdict(self.settings))

    @classmethod
    def load(cls, path: PathLike) -> Vocabulary:
        """Read a file that :meth:`save` wrote; raise :class:`InputError` for any other."""
        try:
            return cls.of(read_json(path, VocabularySettings))
        except InputError as error:
            raise InputError(f"{path} is not a vocabulary ({error}): name a finished text run") from error


def pad(
    sequences: Sequence[Sequence[int] | Tensor],
    length: int | None = None,
    padding: Side = "pre",
    truncating: Side = "pre",
) -> Tensor:
    """Pad or truncate sequences to the same length, as Keras' ``pad_sequences`` does.

    Args:
        sequences: Indices above 0.
        length: T; by default the maximum length.
        padding: Whether zeros are added before (``pre``) or after (``post``).
        truncating: Whether a longer sequence loses its beginning (``pre``) or its end (``post``).

    Returns:
        (N, T) int64.

    Raises:
        InputError: A side is neither ``pre`` nor ``post``, or the length is negative.

    Example:
        >>> torchdl.data.pad([[1, 2], [3, 4, 5]], padding="post")
        tensor([[1, 2, 0],
                [3, 4, 5]])
    """
    require(padding in ("pre", "post") and truncating in ("pre", "post"), "padding and truncating must be pre or post")
    require(length is None or length >= 0, f"length must be 0 or more, not {length}")
    length = max(map(len, sequences), default=0) if length is None else length
    rows = torch.zeros(len(sequences), length, dtype=torch.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        kept = torch.as_tensor(sequence, dtype=torch.int64)
        kept = kept[:length] if truncating == "post" else kept[max(0, len(kept) - length) :]
        start = length - len(kept) if padding == "pre" else 0
        row[start : start + len(kept)] = kept
    return rows
