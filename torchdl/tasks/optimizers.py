"""Optimizers by name, with PyTorch's fused kernels if the parameters allow them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from torchdl.errors import require
from torchdl.fast.adam import Adam
from torchdl.tasks.base import describe_batch


class Rule(NamedTuple):
    """An optimizer's class, with settings, and whether it has a fused kernel."""

    build: Callable[..., Optimizer]
    fused: bool


#: The optimizers by name. ``sgd`` is batch, stochastic or mini-batch gradient descent, depending on whether a batch
#: holds all examples, one or some. ``momentum`` is Polyak's and ``nesterov`` Nesterov's momentum, both 0.9.
OPTIMIZERS = {
    "sgd": Rule(torch.optim.SGD, True),
    "momentum": Rule(partial(torch.optim.SGD, momentum=0.9), True),
    "nesterov": Rule(partial(torch.optim.SGD, momentum=0.9, nesterov=True), True),
    "adagrad": Rule(torch.optim.Adagrad, False),
    "adadelta": Rule(torch.optim.Adadelta, False),
    "rmsprop": Rule(torch.optim.RMSprop, False),
    "adam": Rule(Adam, True),
    "adamw": Rule(torch.optim.AdamW, True),
}
OptimizerName = Literal["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw"]


def check_optimizer(name: str, lr: float, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0) -> None:
    """Raise :class:`InputError` unless there is an optimizer of this name and the settings are valid."""
    require(name in OPTIMIZERS, f"unknown optimizer {name!r}: choose one of {', '.join(OPTIMIZERS)}")
    require(math.isfinite(lr) and lr > 0, f"the learning rate must be a positive number, not {lr}")
    require(all(0 <= beta < 1 for beta in betas), f"Adam's betas must be in [0, 1), not {betas[0]} and {betas[1]}")
    require(math.isfinite(weight_decay) and weight_decay >= 0, f"weight_decay must be 0 or more, not {weight_decay}")


def has_fused_kernel(parameters: Iterable[nn.Parameter]) -> bool:
    """Return whether PyTorch can update these parameters with a fused kernel."""
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda", "mps") for p in parameters)


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, **settings: Any
) -> Optimizer:
    """Build an optimizer, fused if it has a fused kernel.

    Args:
        name: A name of :data:`OPTIMIZERS`.
        parameters: The parameters; those that need no gradient stay as they are until they need one.
        lr: The learning rate.
        weight_decay: The decay of kernels; biases and normalisation layers have none. ``adamw`` scales it by the
            learning rate (Loshchilov and Hutter 2019); all others add it to the gradient as an L2 penalty.
        settings: Further arguments of PyTorch's class, such as ``betas``.

    Raises:
        InputError: The name is unknown, or a setting is out of its range.
    """
    check_optimizer(name, lr, settings.get("betas", (0.9, 0.999)), weight_decay)
    parameters = list(parameters)
    rule = OPTIMIZERS[name]
    fused = {"fused": has_fused_kernel(parameters)} if rule.fused else {}
    if weight_decay == 0:
        return rule.build(parameters, lr=lr, weight_decay=0.0, **fused, **settings)
    kernels, others = ([p for p in parameters if (p.dim() > 1) == many] for many in (True, False))
    groups = [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return rule.build([g for g in groups if g["params"]], lr=lr, **fused, **settings)


def as_optimizers(given: Any) -> dict[str, Optimizer]:
    """Return the optimizers by name that a task's ``configure_optimizers`` has returned.

    Raises:
        InputError: It is something else, or an optimizer computes the loss several times a step.
    """
    named = isinstance(given, Mapping) and bool(given) and all(hasattr(each, "param_groups") for each in given.values())
    kind = describe_batch(given)
    require(named, f'configure_optimizers must return optimizers by name, such as {{"model": Adam(...)}}, not {kind}')
    for name, optimizer in given.items():
        again = f"the optimizer {name!r} is LBFGS, which computes the loss several times a step: choose another one"
        require(not isinstance(optimizer, LBFGS), again)
    return dict(given)


def with_frozen(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer's saved state with the frozen parameters that torchdl 0.1 left out of it.

    A state that does not fit, with or without them, is returned as it is.
    """
    groups, first = [], 0
    ids: dict[int, int] = {}
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False):
        trained = [first + i for i, p in enumerate(group["params"]) if p.requires_grad]
        if len(saved["params"]) != len(trained):
            return state
        ids.update(zip(saved["params"], trained, strict=True))
        groups.append({**saved, "params": list(range(first, first + len(group["params"])))})
        first += len(group["params"])
    if len(groups) != len(state["param_groups"]) or not state["state"].keys() <= ids.keys():
        return state
    return {**state, "state": {ids[number]: value for number, value in state["state"].items()}, "param_groups": groups}
