"""Whether a module's computation is observed; a faster equivalent that calls no hooks then must not replace it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def hooks_of(modules: Iterable[nn.Module]) -> list[Mapping[int, Any]]:
    """Return the modules' collections of hooks, which change as hooks are registered and removed."""
    kinds = ((m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks) for m in modules)
    return list(chain.from_iterable(kinds))


def has_hooks(hooks: Iterable[Mapping[int, Any]]) -> bool:
    """Return whether a pass through the modules of these hooks would call one, or a global one."""
    return any(hooks) or _has_any_global_hook()
