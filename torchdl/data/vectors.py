"""Word vectors that others have trained, from a text file in GloVe's or word2vec's format."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from torchdl.data.vocabulary import Vocabulary
from torchdl.errors import InputError, require


def read_vectors(path: str | os.PathLike[str], vocabulary: Vocabulary, seed: int = 0) -> tuple[Tensor, int]:
    """Read the vectors of a vocabulary's words: a word and its D numbers a line, with spaces between them.

    Args:
        path: The file, in UTF-8. A first line of two whole numbers, as word2vec writes it, is passed over.
        vocabulary: The words; the others of the file are not kept.
        seed: Words that the file does not have get numbers in [-0.05, 0.05], drawn by it.

    Returns:
        The vectors (words, D) in the vocabulary's order, and how many of them are the file's.

    Raises:
        InputError: There is no such file, a line has other than D numbers, or no word is in both.
    """
    path = Path(path)
    require(path.is_file(), f"there is no file {path}: name word vectors in GloVe's text format")
    found: dict[int, list[float]] = {}
    dim = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for place, line in enumerate(lines, 1):
                parts = line.rstrip().split(" ")
                if place == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                    continue
                dim = dim or len(parts) - 1
                require(
                    dim >= 1 and len(parts) > dim, f"{path}, line {place}: a word and {max(dim, 1)} numbers expected"
                )
                word = " ".join(parts[:-dim])  # some files have words with spaces
                if (number := vocabulary.numbers.get(word)) is not None and number not in found:
                    try:
                        found[number] = [float(part) for part in parts[-dim:]]
                    except ValueError as error:
                        raise InputError(f"{path}, line {place}: after the word must come {dim} numbers") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: name word vectors in GloVe's text format") from error
    require(
        bool(found), f"{path} has a vector for none of the {len(vocabulary):,} words: name a file of their language"
    )
    vectors = torch.empty(len(vocabulary), dim).uniform_(-0.05, 0.05, generator=torch.Generator().manual_seed(seed))
    vectors[torch.tensor(list(found)) - 1] = torch.tensor(list(found.values()))
    require(bool(vectors.isfinite().all()), f"{path} holds numbers that are not finite: mend it")
    return vectors, len(found)
