"""Classify texts.

Shapes: N texts, T words of the longest text, K classes, D features.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchdl.data import Vocabulary
from torchdl.data.delimited_files import CSV, TableFormat, notes, read_rows
from torchdl.data.text import TextDataset, read_lines
from torchdl.data.vocabulary import UNKNOWN, VocabularySettings, as_texts
from torchdl.errors import InputError, kind_of, require
from torchdl.predict.base import Predictor
from torchdl.predict.classes import ClassAnswers
from torchdl.predict.embeddings import EmbeddingAnswers
from torchdl.tasks.supervised import class_probabilities, logits_for

if TYPE_CHECKING:
    import pandas

TABLES, FILES = (".csv", ".tsv"), (".txt", ".csv", ".tsv")


@dataclass(frozen=True)
class TextSettings:
    """What a text classifier knows.

    Attributes:
        vocabulary: The words, and how a text becomes words.
        classes: The names of the K classes.
        longest: The maximum number of words that are read of a text, from its start; None for all.
        text: The column of the texts in the training table.
        format: How that table was written.
    """

    vocabulary: VocabularySettings
    classes: tuple[str, ...]
    longest: int | None = None
    text: str = ""
    format: TableFormat = CSV


@dataclass(frozen=True)
class TextAnswers(ClassAnswers):
    """The probability of each class for each text.

    Attributes:
        probabilities, classes, inputs, notes: As of :class:`ClassAnswers`.
        unknown: The words of each text that are not in the vocabulary, without repetitions.
        wordless: Whether each text has no words at all.
    """

    unknown: Sequence[tuple[str, ...]] = ()
    wordless: Sequence[bool] = ()

    def to_frame(self, top: int = 1) -> pandas.DataFrame:
        """Return a table: the texts, their most probable classes, their unknown words, all probabilities."""
        table = super().to_frame(top)
        words = [
            "(no words)" if none else ", ".join(row) for row, none in zip(self.unknown, self.wordless, strict=True)
        ]
        table.insert(len(table.columns) - len(self.classes), "unknown words", words)
        return table


class TextClassifier(Predictor[TextSettings]):
    """Classify texts by a network that maps word indices (N, T) to logits: (N, 1) for two classes, else (N, K).

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``TextClassifier.Settings``.

    Example:
        >>> from torchdl.predict import TextClassifier
        >>> vocabulary = torchdl.Vocabulary.learn(["see you", "buy now"])
        >>> settings = TextClassifier.Settings(vocabulary.settings, ("ham", "spam"))
        >>> classifier = TextClassifier(torchdl.TextLSTM(len(vocabulary)), settings)
        >>> answers = classifier.predict(["See you soon!", "buy"])
        >>> answers.probabilities.shape, answers.unknown
        (torch.Size([2, 2]), [('soon',), ()])
        >>> classifier.word_embeddings().inputs, len(classifier.similar("buy", count=2))
        (('see', 'you', 'buy', 'now'), 2)
    """

    kind = "text classifier"
    Settings = TextSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        settings = self.settings
        self.vocabulary = Vocabulary.of(settings.vocabulary)
        require(settings.longest is None or settings.longest >= 1, f"longest must be 1 or more, not {settings.longest}")
        words, classes, outputs = len(self.vocabulary), settings.classes, logits_for(len(settings.classes))
        require(getattr(self.model, "vocabulary_size", words) == words, "the model has another number of words")
        match = len(set(classes)) == len(classes) > 1 and getattr(self.model, "out_features", outputs) == outputs
        require(match, "the classes are not the model's")

    def predict(self, inputs: Any, text: str = "", format: TableFormat | None = None) -> TextAnswers:
        """Return the probability of each class for each text.

        Args:
            inputs: A text; a file with a text per line, or with a table (``.csv``, ``.tsv``); or a list of these. A
                string is a file's name if it is one word that ends in ``.txt``, ``.csv`` or ``.tsv``, or the name of a
                file that has a suffix.
            text: The column of the texts in tables; that of the training by default.
            format: How the tables are written; as that of the training by default.

        Raises:
            InputError: There are no texts, one is empty, or a file cannot be read.
        """
        texts, said = self.read(inputs, text, format)
        words = [self.vocabulary.tokenize(text) for text in texts]
        unknown = [tuple(dict.fromkeys(word for word in row if word not in self.vocabulary.numbers)) for row in words]
        wordless = [not row for row in words]
        return TextAnswers(self.probabilities(texts), self.settings.classes, texts, said, unknown, wordless)

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return the class probabilities (N, K) of texts, as float64."""
        return class_probabilities(self.compute(self.model, texts).double())

    def embed(self, inputs: Any, text: str = "", format: TableFormat | None = None) -> Tensor:
        """Return what the model's last layer reads (N, D), float32, by which to compare texts.

        Args:
            inputs, text, format: As for :meth:`predict`.

        Raises:
            InputError: The model has no features, or there is no text.
        """
        features = getattr(self.model, "features", None)
        if not callable(features):
            raise InputError(f"{kind_of(self.model)} has no features to compare texts by")
        return self.compute(features, self.read(inputs, text, format)[0])

    def word_embeddings(self) -> EmbeddingAnswers:
        """Return the vectors of the vocabulary's words, the most frequent first, but not that of unknown words.

        Raises:
            InputError: The model has no ``embedding`` with a vector for each word.
        """
        found, words = getattr(self.model, "embedding", None), self.vocabulary.words
        known = isinstance(found, nn.Embedding) and found.num_embeddings == len(words) + 1
        if not isinstance(found, nn.Embedding) or not known:
            raise InputError(f"{kind_of(self.model)} has no vectors of words to compare")
        first = int(words[0] == UNKNOWN)
        return EmbeddingAnswers(found.weight.detach()[1 + first :].float().cpu(), words[first:])

    def similar(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """Return the ``count`` words whose vectors are the nearest, and their cosine similarities in [-1, 1].

        Raises:
            InputError: The word is not in the vocabulary, or the model has no vectors of words.
        """
        embeddings, tokens = self.word_embeddings(), self.vocabulary.tokenize(word)
        known = len(tokens) == 1 and tokens[0] in embeddings.inputs
        close = difflib.get_close_matches(word.lower(), embeddings.inputs, 3)
        advice = f": do you mean {' or '.join(map(repr, close))}?" if close else ""
        require(known, f"{word!r} is not among the {len(embeddings):,} words of the training{advice}")
        return embeddings.nearest(count, [embeddings.inputs.index(tokens[0])])[0]

    def compute(self, function: Callable[[Tensor], Tensor], texts: Sequence[str]) -> Tensor:
        """Return what a function of word indices (B, T) returns for texts, on the CPU.

        Raises:
            InputError: There are no texts.
        """
        data = TextDataset(texts, torch.zeros(len(texts)), self.vocabulary, self.settings.longest)
        require(len(data) > 0, "there are no texts")
        order = data.lengths.argsort(stable=True)  # texts of similar length need little padding
        with self.ready():
            parts = [
                function(data.__getitems__(rows)[0].to(self.device)).cpu() for rows in order.split(self.batch_size)
            ]
        return torch.cat(parts)[order.argsort()]

    def read(self, inputs: Any, text: str = "", format: TableFormat | None = None) -> tuple[list[str], tuple[str, ...]]:
        """Return all texts, and sentences on the files that were read.

        Args:
            inputs, text, format: As for :meth:`predict`.

        Raises:
            InputError: There is no text, or one is empty, or something else is given.
        """
        text, format = text or self.settings.text, format or self.settings.format
        inputs = inputs.tolist() if hasattr(inputs, "tolist") else inputs  # an array or a column
        single = isinstance(inputs, (str, os.PathLike))
        table = isinstance(inputs, Mapping) or hasattr(inputs, "columns")
        advice = ": choose its column of texts" if table else ""
        known = isinstance(inputs, (Iterable, os.PathLike)) and not table
        require(known, f"texts are a text, a file or a list of these, not {kind_of(inputs)}{advice}")
        texts: list[str] = []
        said: list[str] = []
        for number, given in enumerate([inputs] if single else inputs, 1):
            if isinstance(given, os.PathLike) or is_file_name(given):
                found, notes_on_it = read_file(Path(given), text, format)
                said += [f"{len(found):,} texts from {given}", *notes_on_it]
            else:
                found = list(as_texts([given]))
                require(bool(given.strip()), f"text {number}, counted from 1, is empty: write one")
            texts += found
        require(len(texts) > 0, "there are no texts")
        return texts, tuple(said)


def is_file_name(text: Any) -> bool:
    """Return whether a string is the name of a file, not a text."""
    if not isinstance(text, str) or len(text.split()) != 1:
        return False
    return text.strip().lower().endswith(FILES) or (Path(text).suffix != "" and os.path.isfile(text))


def read_file(path: Path, text: str = "", format: TableFormat = CSV) -> tuple[list[str], tuple[str, ...]]:
    """Return the texts of a file, and sentences on it; blank texts are left out.

    Args:
        path: A table (``.csv``, ``.tsv``), or a file with a text per line.
        text: The table's column of texts.
        format: How the table is written.
    """
    require(path.is_file(), f"there is no file {path}: name one, or write a text of more than one word")
    if path.suffix.lower() not in TABLES:
        texts, said = read_lines(path, format.encoding)
        require(len(texts) > 0, f"{path} has no texts: name another file")
        return texts, said
    tabs = path.suffix.lower() == ".tsv" and format.separator == ","
    table = read_rows(path, replace(format, separator="\t") if tabs else format, missing=False)
    names = list(table.columns)
    known = f'{path} has no column {text!r}: choose one of {", ".join(names)}, such as text="{names[-1]}"'
    require(text in names, known)
    texts = [cell.replace("\r\n", "\n") for cell in table[text] if cell.strip()]
    require(len(texts) > 0, f"{path} has no texts in its column {text!r}: name another file or column")
    return texts, notes(table)
