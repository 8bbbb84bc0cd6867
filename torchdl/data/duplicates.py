"""Examples of the test part that are in the training part, too: a score on them says nothing about new examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from torchdl.errors import require

Examples = Sequence[str] | Tensor | np.ndarray


def in_training(train: Examples, test: Examples) -> Tensor:
    """Return which test examples equal a training example, (N,) bool.

    Examples are compared by hashes of 64 bits, so large sets of images take little memory.

    Args:
        train: The training examples: texts, or a tensor or an array of numbers with one example per row.
        test: N test examples, of the same kind.

    Raises:
        InputError: The tensors have different types.

    Example:
        >>> torchdl.data.in_training(["see you", "buy now"], ["buy now", "buy it now"])
        tensor([ True, False])
        >>> torchdl.data.in_training(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[3, 4], [4, 3]]))
        tensor([ True, False])
    """
    train, test = _rows(train), _rows(test)
    kinds = [part.dtype if isinstance(part, Tensor) else str for part in (train, test)]
    require(kinds[0] == kinds[1], f"training and test examples must be of one type, not {kinds[0]} and {kinds[1]}")
    return torch.from_numpy(np.isin(hashes(test), hashes(train)))


def duplicates_note(duplicates: Tensor, what: str, score: str = "") -> str:
    """Return a sentence part about examples found by :func:`in_training`; empty if there are none.

    ``what`` names the examples, and ``score`` is the score without them, in words.

    Example:
        >>> from torchdl.data.duplicates import duplicates_note
        >>> duplicates_note(torch.tensor([True, False, False]), "texts", "accuracy 98 %")
        '1 of 3 test texts are in the training part, too; without them: accuracy 98 %'
    """
    count, without = int(duplicates.sum()), f"; without them: {score}" if score else ""
    return f"{count:,} of {len(duplicates):,} test {what} are in the training part, too{without}" if count else ""


def hashes(examples: Sequence[str] | Tensor) -> np.ndarray:
    """Return one number per example, (N,) uint64; rows of up to 8 bytes are their own hash."""
    if not isinstance(examples, Tensor):
        return _digests(text.encode("utf-8", "surrogatepass") for text in examples)
    rows = examples.detach().cpu().flatten(1) if examples.dim() > 1 else examples.detach().cpu()[:, None]  # (N, D)
    rows = rows + 0 if rows.is_floating_point() else rows  # -0.0 equals 0.0
    raw = rows.contiguous().view(torch.uint8).numpy()  # (N, bytes of a row)
    if raw.shape[1] > 8:
        return _digests(row.tobytes() for row in raw)
    return np.pad(raw, ((0, 0), (0, 8 - raw.shape[1]))).view(np.uint64)[:, 0]


def _rows(examples: Examples) -> Sequence[str] | Tensor:
    if not isinstance(examples, np.ndarray):
        return examples
    return torch.from_numpy(examples) if examples.dtype.kind in "biuf" else examples.tolist()


def _digests(rows: Iterable[bytes]) -> np.ndarray:
    joined = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
    return np.frombuffer(joined, np.uint64)
