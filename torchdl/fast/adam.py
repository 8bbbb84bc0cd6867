"""Adam (Kingma and Ba 2015) with little Python around its kernel."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks


class Plan(NamedTuple):
    """A parameter group's tensors, lined up for the kernel; ``counts`` are the different ones of ``steps``."""

    parameters: list[Tensor]
    averages: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]
    counts: list[Tensor]


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)`` with less Python around its kernel, and equal to it to the bit.

    The lists that the kernel wants are kept between steps, and parameters that are equally old share their count of
    steps. Whatever is not the plain case (a missing gradient, ``amsgrad``, a closure, a tensor as learning rate) goes
    through PyTorch's own step.
    """

    _plans: list[Plan] | None = None

    def _plan(self) -> None:
        """Line up the state that a first step has made."""
        self._plans = []
        for group in self.param_groups:
            states = [self.state[p] for p in group["params"]]
            counts: dict[float, Tensor] = {}
            for state in states:
                state["step"] = counts.setdefault(float(state["step"]), state["step"])
            averages, squares, steps = ([state[k] for state in states] for k in ("exp_avg", "exp_avg_sq", "step"))
            self._plans.append(Plan(group["params"], averages, squares, steps, list(counts.values())))

    def _forget_plan(self) -> None:
        """Give every parameter its own count again, as PyTorch's own step expects."""
        if self._plans is not None:
            for state in self.state.values():
                state["step"] = state["step"].clone()
        self._plans = None

    def _is_plain(self) -> bool:
        """Say whether the kernel alone will do, for the groups as they are now."""
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        scaled = getattr(self, "grad_scale", None) is not None or getattr(self, "found_inf", None) is not None
        return not (hooks or _global_optimizer_pre_hooks or _global_optimizer_post_hooks or scaled) and all(
            group["fused"]
            and not (group["amsgrad"] or group["maximize"] or group["differentiable"] or group["capturable"])
            and not isinstance(group["lr"], Tensor)
            and all(p.grad is not None and not p.grad.is_sparse for p in group["params"])
            for group in self.param_groups
        )

    # what every optimizer's step is wrapped in: hooks and a profiler's record
    _torch_step = torch.optim.Optimizer.profile_hook_step(torch.optim.Adam.step)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step, as ``torch.optim.Adam`` does."""
        plain = closure is None and self._is_plain()
        if not plain:
            self._forget_plan()
        if self._plans is None:
            loss = self._torch_step(closure)
            if plain:
                self._plan()
            return loss
        for group, plan in zip(self.param_groups, self._plans, strict=True):
            for count in plan.counts:
                count += 1
            torch._fused_adam_(
                plan.parameters,
                [p.grad for p in plan.parameters],  # type: ignore[misc]
                plan.averages,
                plan.squares,
                [],
                plan.steps,
                amsgrad=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
        return None

    step.hooked = True  # type: ignore[attr-defined]  # so that PyTorch does not wrap it: the long way is wrapped itself

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as every optimizer does."""
        self._forget_plan()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        self._forget_plan()
        return super().__getstate__()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a copy of a state: PyTorch would go on counting and averaging in the given tensors themselves."""
        self._plans = None
        super().load_state_dict(copy.deepcopy(state_dict))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as every optimizer does."""
        self._forget_plan()
        super().add_param_group(param_group)
