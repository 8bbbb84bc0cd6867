"""Whether a module's computation is observed; a faster equivalent that calls no hooks then must not replace it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Return whether one of these modules has a hook, or any module would call a global one."""
    return _has_any_global_hook() or any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules
    )
