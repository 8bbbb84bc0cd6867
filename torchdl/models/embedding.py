"""Looks vectors up in an embedding."""

from __future__ import annotations

from torch import Tensor, nn

from torchdl.errors import InputError


def look_up(table: nn.Embedding, indices: Tensor, what: str) -> Tensor:
    """Return the vectors (..., D) of indices (...), which messages call ``what``.

    Raises:
        InputError: An index is below 0 or too large. PyTorch checks this on a CPU only.
    """
    try:
        return table(indices)
    except IndexError as error:  # a check before would take time in every step
        low, high = (int(end) for end in indices.aminmax())
        raise InputError(
            f"the indices of {what} must be from 1 to {table.num_embeddings - 1}, or 0 for none of them, and these are "
            f"from {low} to {high}: count from 1, or build a larger model"
        ) from error
