"""How wrong forecasts are."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdl.errors import require


def forecast_errors(predicted: Tensor, actual: Tensor, last: Tensor, scale: float) -> dict[str, float]:
    """Measure forecasts of one quantity.

    Args:
        predicted: (N, H), what was forecast of H terms from each of N starts.
        actual: (N, H), what came.
        last: (N,), the last value known at each start.
        scale: The training part's mean absolute change from term to term.

    Returns:
        ``mae`` and ``rmse`` in the quantity's unit; ``mase``, the first in units of ``scale`` (Hyndman and Koehler
        2006), above 1 where the error is greater than the naive one-step forecast's in training; ``direction``, the
        share of forecasts on the right side of the last value, where something changed: NaN if all say that nothing
        will.
    """
    error, moved = predicted - actual, (actual - last[:, None]).sign()
    said = (predicted - last[:, None]).sign()
    counted = (moved != 0) & bool((said != 0).any())
    mae = float(error.abs().mean())
    return {
        "mae": mae,
        "rmse": float(error.square().mean().sqrt()),
        "mase": mae / scale,
        "direction": float((said == moved)[counted].double().mean()),
    }


def error_ratio(
    error: Tensor, reference: Tensor, block: int, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Compare two forecasts of the same terms: the ratio of their root mean squared errors, with an interval.

    The interval is of a bootstrap that draws whole blocks of successive terms (the circular one of Politis and Romano
    1992), for errors that are near in time are alike, most of all where forecasts overlap.

    Args:
        error: (N,) or (N, H), in the order of time.
        reference: The other forecast's errors, of the same shape.
        block: Terms a block, at least as many as an error reaches over.
        draws: Resamples.
        level: The interval's probability.
        seed: What the blocks are drawn from.

    Returns:
        The ratio and the interval's two ends; below 1 where the first forecast is better.
    """
    require(error.shape == reference.shape, "there must be one error of either forecast a term")
    require(block >= 1, f"a block must have 1 term or more, not {block}")
    squares = torch.stack([error, reference]).double().square().view(2, len(error), -1).mean(2)  # (2, N, H) -> (2, N)
    total = squares.shape[1]
    count = -(-total // block)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(total, (draws, count, 1), generator=generator)
    chosen = ((starts + torch.arange(block)) % total).flatten(1)[:, :total]  # (draws, count, block) -> (draws, N)
    means = squares[:, chosen].mean(2)  # (2, draws)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype)
    low, high = (means[0] / means[1]).sqrt().quantile(ends).tolist()
    ours, theirs = squares.mean(1).tolist()
    return (ours / theirs) ** 0.5 if theirs else float("nan"), low, high
