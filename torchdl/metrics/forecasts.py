"""Errors of forecasts."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdl.errors import require


def forecast_errors(predicted: Tensor, actual: Tensor, last: Tensor, scale: float) -> dict[str, float]:
    """Measure forecasts of one quantity.

    Args:
        predicted: (N, H), forecasts of H terms from each of N starts.
        actual: (N, H), the actual terms.
        last: (N,), the last value known at each start.
        scale: The mean absolute change from term to term in the training part.

    Returns:
        ``mae`` and ``rmse`` in the quantity's unit; ``mase``, which is ``mae`` / ``scale`` (Hyndman and Koehler 2006),
        above 1 if it is greater than the naive one-step forecast's in training; ``direction``, the share of nonzero
        changes from the last value whose sign is forecast correctly, NaN if all forecast or all actual changes are 0.
    """
    error = predicted - actual
    direction, forecast_direction = (actual - last[:, None]).sign(), (predicted - last[:, None]).sign()
    counted = (direction != 0) & bool((forecast_direction != 0).any())
    mae = float(error.abs().mean())
    return {
        "mae": mae,
        "rmse": float(error.square().mean().sqrt()),
        "mase": mae / scale,
        "direction": float((forecast_direction == direction)[counted].double().mean()),
    }


def error_ratio(
    error: Tensor, reference: Tensor, block: int, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return the ratio of two forecasts' root mean squared errors, with a confidence interval.

    The interval comes from a circular block bootstrap (Politis and Romano 1992). It draws whole blocks of successive
    terms because errors that are close in time are similar, most of all where forecasts overlap.

    Args:
        error: (N,) or (N, H), in chronological order.
        reference: The other forecast's errors for the same terms, in the same shape.
        block: Number of terms per block, at least as many as one forecast covers.
        draws: Number of resamples.
        level: The interval's coverage probability.
        seed: The seed of the resamples.

    Returns:
        The ratio, which is below 1 if the first forecast is better, and the interval's two ends.
    """
    require(error.shape == reference.shape, "error and reference must have the same shape")
    require(block >= 1, f"block must be 1 or more, not {block}")
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
