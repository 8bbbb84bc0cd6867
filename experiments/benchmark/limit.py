"""What a training step takes at least: its products and convolutions, and the memory traffic of Adam, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments.benchmark.measure import timed

Kernel = Callable[[], Any]


class Pass(NamedTuple):
    """A forward and backward pass of a network: its inputs, the method, and which gradients are computed."""

    network: nn.Module
    inputs: tuple[Tensor, ...]
    method: str = "forward"
    of_weights: bool = True
    of_inputs: bool = False


def limit(passes: Sequence[Pass], batch: int) -> Callable[[int], float]:
    """Return a function that computes the kernels of the steps that some examples take, and returns the seconds."""
    kernels = [kernel for each in passes for kernel in kernels_of(each)]
    trained = {p: None for each in passes if each.of_weights for p in each.network.parameters()}
    kernels.append(adam(list(trained)))
    return lambda examples: timed(lambda: [kernel() for _ in range(examples // batch) for kernel in kernels])


def kernels_of(each: Pass) -> list[Kernel]:
    """Return the products and convolutions of a pass, each by whichever library is fastest here."""
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.RNNBase)
    found: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, given: found.append((layer, given[0].detach())))
        for layer in each.network.modules()
        if isinstance(layer, kinds)
    ]
    with torch.no_grad():
        getattr(each.network, each.method)(*each.inputs)
    for hook in hooks:
        hook.remove()
    kernels: list[Kernel] = []
    for number, (layer, x) in enumerate(found):
        inputs = number > 0 or each.of_inputs
        if isinstance(layer, nn.Linear):
            kernels += products(layer, x.flatten(0, -2), each.of_weights, inputs)
        else:
            kernels.append(layer_alone(layer, x, each.of_weights, inputs))
    return kernels


def products(layer: nn.Linear, x: Tensor, weights: bool, inputs: bool) -> list[Kernel]:
    """Return the products of a linear layer for (B, I): the output, and the gradients that are wanted."""
    weight, gradient = layer.weight.detach(), torch.randn(len(x), layer.out_features)  # (O, I), (B, O)
    pairs = [(x, weight.t())]  # (B, I) x (I, O)
    pairs += [(gradient, weight)] if inputs else []  # (B, O) x (O, I)
    pairs += [(gradient.t(), x)] if weights else []  # (O, B) x (B, I)
    return [fastest(*pair) for pair in pairs]


def fastest(left: Tensor, right: Tensor) -> Kernel:
    """Return the product of two matrices by MKL or by oneDNN."""
    columns = right.t()
    by_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    choices: list[Kernel] = [lambda: torch.mm(left, right)]
    if by_onednn is not None and torch.backends.mkldnn.is_available():
        for a, b in ((left, columns), (columns, left)):  # as it is, and turned: (right^T left^T)^T
            choices += [
                partial(by_onednn, c, d, None, "none", [], "") for c in (a, a.contiguous()) for d in (b, b.contiguous())
            ]
    for kernel in choices:
        kernel()
    return min(choices, key=lambda kernel: min(timed(kernel) for _ in range(20)))


def layer_alone(layer: nn.Module, x: Tensor, weights: bool, inputs: bool) -> Kernel:
    """Return a layer's forward and backward pass; a convolution's in oneDNN's blocks."""
    blocks = isinstance(layer, nn.Conv2d) and torch.backends.mkldnn.is_available()
    leaf = (x.to_mkldnn() if blocks else x.clone()).requires_grad_(inputs)
    wanted = [*([leaf] if inputs else []), *(layer.parameters() if weights else [])]

    def output() -> Tensor:
        found = layer(leaf)
        return found[0] if isinstance(found, tuple) else found

    gradient = torch.ones_like(output().to_dense()).to_mkldnn() if blocks else torch.ones_like(output())
    return lambda: torch.autograd.grad(output(), wanted, gradient)


def adam(parameters: Sequence[Tensor]) -> Kernel:
    """Return Adam's kernel on parameters of these shapes, which reads four arrays of that size and writes three."""
    with torch.no_grad():
        values, gradients, averages, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(4))
    steps = [torch.ones(()) for _ in parameters]
    settings: dict[str, Any] = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8}
    return lambda: torch._fused_adam_(
        values, gradients, averages, squares, [], steps, amsgrad=False, maximize=False, **settings
    )
