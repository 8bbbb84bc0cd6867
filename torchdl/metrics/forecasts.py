"""Errors of forecasts."""

from __future__ import annotations

import math

import torch

from torchdl.errors import require
from torchdl.metrics.inputs import ArrayLike, as_tensor


def forecast_errors(predicted: ArrayLike, actual: ArrayLike, last: ArrayLike, scale: float) -> dict[str, float]:
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

    Raises:
        InputError: The shapes differ.
    """
    names = {"predicted": predicted, "actual": actual, "last": last}
    predicted, actual, last = (as_tensor(values, name) for name, values in names.items())
    shapes = [tuple(each.shape) for each in (predicted, actual, last)]
    fit = len(shapes[0]) == 2 and shapes[0] == shapes[1] and shapes[2] == shapes[0][:1]
    require(fit, "predicted and actual must be (N, H), and last (N,), not {}, {} and {}".format(*shapes))
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
    error: ArrayLike, reference: ArrayLike, block: int | None = None, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the ratio of two forecasts' root mean squared errors, with a confidence interval.

    Errors that are close in time are similar, most of all where forecasts overlap. So the variance of the mean squared
    errors comes from their projections on the slowest cosines (Müller 2004; Lazarus et al. 2018). There are
    (N / ``block``)^(2/3) of these, and as many degrees of freedom in Student's t. The interval has every ratio r at
    which the mean of error² - r² reference² does not differ from 0 (Fieller 1954). It may be unbounded; where there
    are fewer than two blocks, it is 0 to infinity. It is for a reference that was chosen without these errors.

    Args:
        error: (N,) or (N, H), in chronological order.
        reference: The other forecast's errors for the same terms, in the same shape.
        block: Number of terms after which errors count as independent, at least H; by default √N, at least H.
        level: The interval's coverage probability.

    Returns:
        The ratio, which is below 1 if the first forecast is better, and the interval's two ends. All are infinite if
        an error is not finite.

    Raises:
        InputError: The errors differ in shape or are empty, or a number is outside its range.
    """
    from scipy.special import stdtrit  # imported late: it takes half a second

    error, reference = as_tensor(error, "error"), as_tensor(reference, "reference")
    require(
        error.shape == reference.shape and len(error) > 0, "error and reference must have the same shape, not empty"
    )
    require(block is None or block >= 1, f"block must be 1 or more, not {block}")
    require(0 < level < 1, f"level must be in (0, 1), not {level}")
    squares = torch.stack([error, reference]).double().square().view(2, len(error), -1)  # (2, N, H)
    total, horizon = squares.shape[1:]
    squares = squares.mean(2)  # (2, N)
    ours, theirs = squares.mean(1).tolist()
    if not theirs:
        return math.nan, 0.0, math.inf
    if not math.isfinite(ours):  # the forecasts diverge
        return math.inf, math.inf, math.inf
    ratio, block = (ours / theirs) ** 0.5, max(block or round(total**0.5), horizon)
    if total < 2 * block:
        return ratio, 0.0, math.inf
    count = int((total / block) ** (2 / 3))
    waves = torch.arange(1, count + 1)[:, None] * math.pi * (torch.arange(total).double() + 0.5) / total  # (count, N)
    parts = squares @ waves.cos().T * (2 / total) ** 0.5  # (2, count)
    critical = float(stdtrit(count, (1 + level) / 2))
    (ours_margin, both), (_, theirs_margin) = (critical**2 * parts @ parts.T / count / total).tolist()
    # x = r² is in the interval if a x² - 2 b x + c <= 0
    a, b, c = theirs**2 - theirs_margin, ours * theirs - both, ours**2 - ours_margin
    root = max(b**2 - a * c, 0.0) ** 0.5
    low = (c / (b + root)) ** 0.5 if c > 0 else 0.0
    high = ((b + root) / a) ** 0.5 if a > 0 else math.inf
    return ratio, low, high
