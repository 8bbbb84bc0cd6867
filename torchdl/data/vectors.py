"""Pretrained word vectors from a text file in GloVe's or word2vec's format."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from torchdl.data.vocabulary import Vocabulary
from torchdl.errors import InputError, require


def read_vectors(path: str | os.PathLike[str], vocabulary: Vocabulary, seed: int = 0) -> tuple[Tensor, int]:
    """Read the vectors of a vocabulary's words from a file; each line is a word and its D numbers, separated by spaces.

    Args:
        path: The file, in UTF-8. A first line of two integers, as word2vec writes it, is skipped.
        vocabulary: The words; the file's other words are ignored.
        seed: The seed of random vectors, uniform in [-0.05, 0.05], for words that the file does not have.

    Returns:
        The vectors (words, D) in the vocabulary's order, and the number of words found in the file.

    Raises:
        InputError: The file is missing, a line does not have D numbers, or the file has no word of the vocabulary.
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
                complete = dim >= 1 and len(parts) > dim
                require(complete, f"{path}, line {place}: a word and {max(dim, 1)} numbers are expected")
                word = " ".join(parts[:-dim])  # some files have words with spaces
                if (index := vocabulary.numbers.get(word)) is not None and index not in found:
                    try:
                        found[index] = [float(part) for part in parts[-dim:]]
                    except ValueError as error:
                        raise InputError(f"{path}, line {place}: {dim} numbers are expected after the word") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: name word vectors in GloVe's text format") from error
    words = f"the vocabulary's {len(vocabulary):,} words"
    require(bool(found), f"{path} has none of {words}: name a file in their language")
    vectors = torch.empty(len(vocabulary), dim).uniform_(-0.05, 0.05, generator=torch.Generator().manual_seed(seed))
    vectors[torch.tensor(list(found)) - 1] = torch.tensor(list(found.values()))
    require(bool(vectors.isfinite().all()), f"{path} has numbers that are not finite: correct them")
    return vectors, len(found)
