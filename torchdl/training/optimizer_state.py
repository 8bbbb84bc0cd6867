"""The settings and the state of optimizers, schedules and tasks, as a checkpoint holds them, and whether they fit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.loss import _Loss
from torch.optim import Optimizer

from torchdl.errors import require
from torchdl.files import plain
from torchdl.tasks.optimizers import OPTIMIZERS, with_frozen
from torchdl.training.checkpoint import differences

NO_SETTINGS = {"params", "param_names", "initial_lr", "foreach", "fused", "capturable", "differentiable"}
CLASSES = {getattr(rule.build, "func", rule.build) for rule in OPTIMIZERS.values()}


def describe(optimizer: Optimizer) -> str:
    """Return an optimizer's class and those of its settings that loading a checkpoint would silently change."""
    group = optimizer.param_groups[0]
    settings = {key: plain(group[key]) for key in ("momentum", "nesterov", "betas") if group.get(key)}
    if decay := max(group.get("weight_decay", 0) for group in optimizer.param_groups):
        settings["weight_decay"] = plain(decay)
    return f"{type(optimizer).__name__}({', '.join(f'{key}={value}' for key, value in settings.items())})"


def in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return those settings of an optimizer's group, or of a scheduler, on which the numbers of training depend."""
    return {k: str(plain(v)) for k, v in settings.items() if k not in NO_SETTINGS and not callable(v)}


def of_task(task: nn.Module) -> dict[str, dict[str, str]]:
    """Return what a task and its losses were made with: its numbers and texts, and those of PyTorch's loss modules."""
    given = {name: getattr(task, name, None) for name in inspect.signature(type(task)).parameters}
    found = {"the task": {name: value for name, value in given.items() if isinstance(value, (bool, int, float, str))}}
    for name, value in (*task.named_modules(), *given.items()):
        if isinstance(value, _Loss):
            settings = {"class": type(value).__name__, **vars(value), **dict(value.named_buffers())}
            found[f"the task's {name}"] = {k: v for k, v in settings.items() if k[0] != "_" and k != "training"}
        elif isinstance(value, partial) and name == "loss":
            found["the task's loss"] = value.keywords
    return {name: in_words(settings) for name, settings in found.items() if settings}


def check_settings(new: Mapping[str, Mapping[str, str]], old: Mapping[str, Mapping[str, str]]) -> None:
    """Raise :class:`InputError` if a setting differs; another version of PyTorch may have others, torchdl 0.1 none."""
    for name, settings in old.items():
        known = {key: value for key, value in new.get(name, {}).items() if key in settings}
        changed = differences(public({key: settings[key] for key in known}), public(known))
        changed = changed or differences({key: settings[key] for key in known}, known)
        require(not changed, f"{name} has {changed}: use its original settings")


def public(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings without what PyTorch derives of them, as the phases of a ``OneCycleLR``."""
    return {key: value for key, value in settings.items() if not key.startswith("_")}


def load(optimizer: Optimizer, state: dict[str, Any], name: str) -> None:
    """Load an optimizer's state; raise :class:`InputError` or ValueError if it does not fit its parameters."""
    found, known = with_frozen(state, optimizer), optimizer.state_dict()["param_groups"]
    counts = len(known), len(found["param_groups"])
    require(
        counts[0] == counts[1],
        f"the optimizer {name!r} has {counts[0]} groups of parameters, in the checkpoint {counts[1]}: all must be "
        "there when training begins",
    )
    check_kind(known, found["param_groups"], f"the optimizer {name!r}")
    optimizer.load_state_dict(found)
    check_moments(optimizer, name)


def check_moments(optimizer: Optimizer, name: str) -> None:
    """Raise :class:`InputError` unless one of the :data:`OPTIMIZERS` keeps of each parameter what it would keep."""
    if type(optimizer) not in CLASSES:
        return
    for group in optimizer.param_groups:
        missing = ", ".join(sorted(optimizer.defaults.keys() - group.keys()))
        require(not missing, f"the state of the optimizer {name!r} lacks {missing}")
        for parameter in filter(optimizer.state.__contains__, group["params"]):
            like = nn.Parameter(torch.zeros_like(parameter[(slice(1),) * parameter.dim()]))
            like.grad = torch.zeros_like(like)
            fresh = type(optimizer)([{**group, "params": [like]}])  # type: ignore[call-arg]
            fresh.step()
            fits = shapes(optimizer.state[parameter], parameter) == shapes(fresh.state[like], like)
            require(fits, f"the state of the optimizer {name!r} does not fit its parameters")


def shapes(values: Mapping[str, Any], parameter: nn.Parameter) -> dict[str, object]:
    """Return the shape of each value that an optimizer keeps of a parameter: "alike" for the parameter's own."""
    found = {key: getattr(value, "shape", type(value)) for key, value in values.items()}
    return {key: "alike" if shape == parameter.shape else shape for key, shape in found.items()}


def load_schedule(scheduler: Any, state: dict[str, Any], name: str) -> None:
    """Load a scheduler's state; raise :class:`InputError` if it is of another one."""
    known = scheduler.state_dict()
    check_kind(known, state, f"the schedule of {name!r}")
    methods = [key for key in state if callable(getattr(type(scheduler), str(key), None))]  # PyTorch would replace them
    require(not methods, f"the schedule of {name!r} has no value named {methods}")
    # after more steps than its total, a schedule would raise errors
    fits = "total_steps" not in known or state["last_epoch"] <= state["total_steps"] == known["total_steps"]
    require(fits, f"the schedule of {name!r} has another number of steps")
    scheduler.load_state_dict(state)


def check_kind(known: Any, found: Any, place: str) -> None:
    """Raise :class:`InputError` if a state differs in kind from a known one, below ``place``.

    A number may become another number, None or a boolean a number, too, and a text another text. Containers keep their
    lengths. Dictionaries may have more or fewer keys, as other versions of PyTorch write them.
    """
    number = isinstance(found, (bool, int, float)) or (isinstance(found, torch.Tensor) and found.numel() == 1)
    if isinstance(known, Mapping):
        fits = isinstance(found, Mapping)
        parts = [(known[key], found[key], f"{place}.{key}") for key in known if fits and key in found]
    elif isinstance(known, (list, tuple)):
        fits = isinstance(found, (list, tuple)) and len(known) == len(found)
        parts = [(*pair, f"{place}[{n}]") for n, pair in enumerate(zip(known, found, strict=True))] if fits else []
    else:
        may_lack = found is None and isinstance(known, (bool, type(None)))
        fits, parts = type(found) is type(known) or (not isinstance(known, str) and (number or may_lack)), []
    require(fits, f"{place} has a value of another kind")
    for part in parts:
        check_kind(*part)
