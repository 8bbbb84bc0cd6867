"""Words as numbers: how texts are split, the words that a model knows, and padding.

Keras' conventions (lectures 55 and 56): 0 is padding, words are numbered from 1 by frequency, and a word that is not
known is left out, or is word 1 where the vocabulary has a word for it.

Shapes: N texts, T words of the longest one.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from torchdl.errors import InputError, require
from torchdl.files import write_json

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'  # Keras' own: what separates words beside the space
UNKNOWN = "<unknown>"  # which no text can hold, for < is filtered
Side = Literal["pre", "post"]


def tokenize(text: str, lower: bool = True, filters: str = FILTERS, same_digits: bool = False) -> list[str]:
    """Split a text into words, as Keras' ``Tokenizer`` does: filtered characters count as spaces.

    With ``same_digits`` each digit counts as 0, so that numbers of the same length are one word.

    Example:
        >>> torchdl.data.tokenize("I like eggs and ham.")
        ['i', 'like', 'eggs', 'and', 'ham']
    """
    text = text.lower() if lower else text
    text = re.sub(r"\d", "0", text) if same_digits else text
    return [word for word in text.translate(str.maketrans(filters, " " * len(filters))).split(" ") if word]


class Vocabulary:
    """The words that a model knows, numbered from 1 by frequency; 0 is padding.

    Args:
        words: The words in the order of their numbers; :data:`UNKNOWN` first where words that are not known are to
            have a number.
        lower: Whether texts are lower-cased.
        filters: Characters that separate words beside the space.
        same_digits: Whether each digit counts as 0.

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
        require(
            all(isinstance(word, str) and word for word in words), "a vocabulary's words are texts of a letter or more"
        )
        require(len(set(words)) == len(words), "a vocabulary has every word once")
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
        """Learn the words of training texts, the most frequent first, of equals the one that came first.

        Args:
            texts: The texts, of the training part alone.
            most: How many words to keep; all if None. (Keras' ``num_words`` is one more than it keeps.)
            unknown: Whether a word that is not known has a number, 1, or is left out.
            least: How often a word must be there to be kept; with 2 and ``unknown`` a model learns what to make of rare
                words, which the words that it will not know are.
            lower: Whether texts are lower-cased.
            filters: Characters that separate words beside the space.
            same_digits: Whether each digit counts as 0.
        """
        require(most is None or most >= 1, f"a vocabulary keeps 1 word or more, not {most}")
        require(least >= 1, f"a word is kept that is there once or more often, not {least} times")
        counts = Counter(word for text in texts for word in tokenize(text, lower, filters, same_digits))
        kept = [word for word, count in counts.most_common(most) if count >= least and word != UNKNOWN]
        require(bool(kept), "there is no word in the training texts: nothing can be learnt from them")
        return cls([UNKNOWN, *kept] if unknown else kept, lower, filters, same_digits)

    def __len__(self) -> int:
        """The number of words; one less than an embedding needs, for padding has the number 0."""
        return len(self.words)

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words, known ones or not."""
        return tokenize(text, self.lower, self.filters, self.same_digits)

    def encode(self, text: str) -> list[int]:
        """Give the numbers of a text's words."""
        other = self.numbers.get(UNKNOWN)
        numbers = (self.numbers.get(word, other) for word in self.tokenize(text))
        return [number for number in numbers if number is not None]

    def decode(self, numbers: Iterable[int]) -> str:
        """Give the words of numbers, padding left out, with spaces between them."""
        return " ".join(self.words[number - 1] for number in numbers if number > 0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON."""
        settings = {"lower": self.lower, "filters": self.filters, "same_digits": self.same_digits}
        write_json(Path(path), settings | {"words": self.words})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read what :meth:`save` wrote; :class:`InputError` for anything else."""
        try:
            found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
            kinds = {"words": list, "lower": bool, "filters": str, "same_digits": bool}
            if not all(isinstance(found[name], kind) for name, kind in kinds.items()):
                raise TypeError
            return cls(**{name: found[name] for name in kinds})
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged, or something else"
            raise InputError(f"{path} holds no vocabulary ({reason}): name a finished run of train_text.py") from error


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
        >>> torchdl.data.pad([[1, 2], [3, 4, 5]], padding="post")
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
