"""Pretrained word vectors from a text file in GloVe's or word2vec's format."""

from __future__ import annotations

import codecs
import math
from pathlib import Path

import torch
from torch import Tensor

from torchdl.data.text_files import require_text
from torchdl.data.vocabulary import Vocabulary
from torchdl.errors import InputError, require
from torchdl.files import PathLike


def read_vectors(path: PathLike, vocabulary: Vocabulary, seed: int = 0) -> tuple[Tensor, int]:
    """Read the vectors of a vocabulary's words from a file; each line is a word and its D numbers, separated by blanks.

    Args:
        path: The file, in UTF-8. A first line of two integers, the number of words and D, is word2vec's.
        vocabulary: The words; the file's other words are ignored.
        seed: The seed of random vectors, uniform in [-0.05, 0.05], for words that the file does not have.

    Returns:
        The vectors (words, D) in the vocabulary's order, and the number of words found in the file.

    Raises:
        InputError: The file is missing, a line does not have as many numbers as the first one, there are more or fewer
            words than word2vec's first line says, or the file has no word of the vocabulary.
    """
    path = Path(path)
    require(path.is_file(), f"there is no file {path}: name word vectors in GloVe's text format")
    found: dict[int, list[float]] = {}
    dim = count = promised = 0
    with path.open("rb") as lines:
        for place, line in enumerate(lines, 1):
            if place == 1:
                require_text(path, line)
                require(not line.startswith(b"\x1f\x8b"), f"{path} is compressed (gzip): unpack it")
            # of bytes, split() takes only ASCII blanks; some words contain a no-break space
            parts = line.removeprefix(codecs.BOM_UTF8 if place == 1 else b"").split()
            if place == 1 and len(parts) == 2 and all(part.isdigit() and len(part) < 10 for part in parts):
                promised, dim = map(int, parts)
                continue
            if not parts:
                continue
            count += 1
            dim = dim or len(parts) - 1
            # some files have words with spaces; but a number before the last D ones is a number too many
            fits = 1 <= dim < len(parts) and not (len(parts) > dim + 1 and _is_number(parts[-dim - 1]))
            reason = "" if place == 1 else f", as in line 1, not {len(parts) - 1}"
            require(fits, f"{path}, line {place}: a word and {max(dim, 1)} numbers are expected{reason}")
            try:
                word = b" ".join(parts[:-dim]).decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {place}: the word is not text in UTF-8: save the file as UTF-8"
                ) from error
            if (index := vocabulary.numbers.get(word)) is not None and index not in found:
                try:
                    found[index] = [float(part) for part in parts[-dim:]]
                except ValueError as error:
                    raise InputError(f"{path}, line {place}: {dim} numbers are expected after the word") from error
                finite = bool(torch.tensor(found[index]).isfinite().all())
                require(finite, f"{path}, line {place} has numbers that are not finite: correct them")
    complete = promised in (0, count)
    require(complete, f"{path} has {count:,} words, but its line 1 says {promised:,}: fetch the file again")
    words = f"the vocabulary's {len(vocabulary):,} words"
    require(bool(found), f"{path} has none of {words}: name a file in their language")
    vectors = torch.empty(len(vocabulary), dim).uniform_(-0.05, 0.05, generator=torch.Generator().manual_seed(seed))
    vectors[torch.tensor(list(found)) - 1] = torch.tensor(list(found.values()))
    return vectors, len(found)


def _is_number(text: bytes) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
