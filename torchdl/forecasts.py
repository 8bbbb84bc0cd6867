"""Multi-step forecasts: by a model that reads its own predictions, and by rules that need no training.

Shapes: N windows, T known terms, D numbers per term, H future terms.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from torchdl.errors import require

ModelT = TypeVar("ModelT", bound=nn.Module)

NAIVE = ("last value", "mean of the training part", "drift", "season before")


def forecast(model: nn.Module, x: Tensor, horizon: int) -> Tensor:
    """Forecast all windows at once; the model's own predictions are its next inputs (lecture 38).

    This is the step between tensors: windows and forecasts are in the model's own scale. A model that was trained on a
    :class:`torchdl.Split`, as those of all runs are, needs scaled windows (``split.test()``) and returns scaled terms
    (see ``split.unscale``): given prices, it returns nonsense. To ask a finished run what comes after a series in its
    own unit, use ``torchdl.load_predictor(run).predict(prices)``, which knows the scale; see
    :class:`torchdl.predict.Forecaster`.

    Args:
        model: Maps (N, T, D) to the next term (N, D), or to several terms (N, any number, D).
        x: (N, T, D), the windows before the forecasts, scaled as in training.
        horizon: H.

    Returns:
        (N, H, D). A model that predicts H terms or more at once is called once.

    Raises:
        InputError: The model returns another number of numbers per term than it reads.

    Example:
        >>> def model(x):  # the last term plus 1
        ...     return x[:, -1] + 1
        >>> torchdl.forecast(model, torch.zeros(1, 3, 1), horizon=4).flatten()
        tensor([1., 2., 3., 4.])
    """
    _check_horizon(horizon)
    length, count, predictions = x.shape[1], 0, []
    while count < horizon:
        new = model(x)
        new = new[:, None] if new.dim() == 2 else new  # (N, D) -> (N, 1, D)
        require(
            new.dim() == 3 and new.shape[::2] == x.shape[::2],
            f"the model must predict the {x.shape[2]} numbers per term that it reads, but returns {tuple(new.shape)}",
        )
        predictions.append(new)
        count += new.shape[1]
        x = torch.cat([x, new], 1)[:, -length:]  # (N, T, D)
    return torch.cat(predictions, 1)[:, :horizon]


def last_value(x: Tensor, horizon: int) -> Tensor:
    """Forecast no change (the naive forecast): ``x`` (N, T, D) to (N, H, D), where ``horizon`` is H.

    Example:
        >>> torchdl.last_value(torch.tensor([[[1.0], [2.0], [5.0]]]), horizon=3).flatten()
        tensor([5., 5., 5.])
    """
    _check_horizon(horizon)
    return x[:, -1:].expand(-1, horizon, -1)


def seasonal_last_value(x: Tensor, horizon: int, period: int) -> Tensor:
    """Forecast by repeating the last ``period`` terms: ``x`` (N, T, D) to (N, H, D), where ``horizon`` is H.

    Raises:
        InputError: ``period`` is not from 1 to T.

    Example:
        >>> torchdl.seasonal_last_value(torch.tensor([[[1.0], [2.0], [5.0]]]), horizon=3, period=2).flatten()
        tensor([2., 5., 2.])
    """
    _check_horizon(horizon)
    require(1 <= period <= x.shape[1], f"period must be from 1 to the {x.shape[1]} known terms, not {period}")
    return x[:, x.shape[1] - period + torch.arange(horizon, device=x.device) % period]


def drift(x: Tensor, horizon: int) -> Tensor:
    """Forecast by the line through the first and the last term: ``x`` (N, T, D) to (N, H, D), where ``horizon`` is H.

    Raises:
        InputError: There are fewer than two terms.

    Example:
        >>> torchdl.drift(torch.tensor([[[1.0], [2.0], [5.0]]]), horizon=3).flatten()
        tensor([ 7.,  9., 11.])
    """
    _check_horizon(horizon)
    require(x.shape[1] >= 2, f"drift needs windows of at least two terms, not {x.shape[1]}")
    slope = (x[:, -1:] - x[:, :1]) / (x.shape[1] - 1)  # (N, 1, D)
    return x[:, -1:] + slope * torch.arange(1, horizon + 1, device=x.device).view(1, -1, 1)  # (H,) -> (1, H, 1)


def naive_forecasts(x: Tensor, length: int, horizon: int, period: int = 0) -> dict[str, Tensor]:
    """Return the forecasts (N, H, D), by name, that need no training; the names are :data:`NAIVE`.

    Args:
        x: (N, any number, D), the known terms, scaled as by :class:`torchdl.Split`.
        length: T, the number of terms at the end of ``x`` that :func:`drift` sees.
        horizon: H.
        period: Terms per season; 0 for none.

    Example:
        >>> x = torch.tensor([[[1.0], [2.0], [5.0]]])
        >>> found = torchdl.forecasts.naive_forecasts(x, length=2, horizon=2)
        >>> {name: values.flatten().tolist() for name, values in found.items()}
        {'last value': [5.0, 5.0], 'mean of the training part': [0.0, 0.0], 'drift': [8.0, 11.0]}
    """
    found = {NAIVE[0]: last_value(x, horizon), NAIVE[1]: torch.zeros_like(x[:, :1]).expand(-1, horizon, -1)}
    if length > 1:
        found[NAIVE[2]] = drift(x[:, -length:], horizon)
    if period:
        found[NAIVE[3]] = seasonal_last_value(x, horizon, period)
    return found


@torch.no_grad()
def fit_linear_(model: ModelT, x: Tensor, y: Tensor) -> ModelT:
    """Fit a linear model by least squares, in place; return the model.

    If the target is the next term, this is the autoregressive model AR(T). The columns are centred and scaled first,
    and everything is computed in float64, so the level and the unit of a column do not matter. If there are several
    solutions up to the rounding of ``x`` (a sine obeys many recurrences), the one with the smallest weights for the
    scaled columns is chosen.

    Args:
        model: A :class:`torchdl.SequenceModel` of kind ``linear``.
        x: (N, T, D).
        y: (N, ...), with as many numbers as the model has outputs.

    Raises:
        InputError: The model is not linear, its shape is not that of ``x`` and ``y``, or a number is not finite.

    Example:
        >>> x, y = torchdl.Windows(torchdl.sine(100, step=0.1).values.float(), length=2)[:]
        >>> model = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=2), x, y)
        >>> weight, bias = model.head.parameters()
        >>> weight.detach()  # x[t] = 2 cos(0.1) x[t-1] - x[t-2]
        tensor([[-1.0000,  1.9900]])
    """
    kind = getattr(model, "kind", type(model).__name__)
    require(kind == "linear", f"fit_linear_ needs a model of kind 'linear', not {kind!r}")
    rows, targets = x.flatten(1).double().cpu(), y.flatten(1).double().cpu()  # (N, T, D) -> (N, T * D), (N, K)
    weight, bias = model.get_submodule("head").parameters()  # (K, T * D), (K,)
    outputs, numbers = len(bias), targets.shape[1]
    require(outputs == numbers, f"the model has {outputs} outputs, the targets have {numbers} numbers")
    inputs, columns = weight.shape[1], rows.shape[1]
    require(inputs == columns, f"the model reads {inputs} numbers, a window has {columns}")
    require(len(rows) == len(targets) > 0, f"fit_linear_ needs a target per window, not {len(targets)} for {len(rows)}")
    finite = bool(rows.isfinite().all() and targets.isfinite().all())
    require(finite, "fit_linear_ needs finite numbers: x or y has infinite or missing ones")
    center, scale = rows.mean(0), rows.std(0, correction=0)  # (T * D,)
    scale = torch.where(scale > 0, scale, 1)
    # Singular values that are 0 up to rounding count as 0. Rounding x changed each number by eps / 4 of it on average;
    # the second limit is NumPy's.
    rounding = torch.finfo(x.dtype if x.is_floating_point() else rows.dtype).eps / 4
    cut = max(rounding, torch.finfo(rows.dtype).eps * max(rows.shape))
    solution = torch.linalg.lstsq(
        (rows - center) / scale, targets - targets.mean(0), rcond=cut, driver="gelsd"
    ).solution
    weight.copy_((solution / scale[:, None]).T)  # (T * D, K) -> (K, T * D)
    bias.copy_(targets.mean(0) - weight.double().cpu() @ center)  # of the weights as stored, which may be rounded
    return model


def _check_horizon(horizon: int) -> None:
    require(horizon >= 1, f"horizon must be 1 or more, not {horizon}")
