"""A table of a network's layers: names, kinds, shapes of outputs, numbers of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torchdl.errors import require
from torchdl.evaluation_mode import evaluating


def layer_table(model: nn.Module, *inputs: Any, call: Callable[..., Any] | None = None) -> str:
    """Return a table of a model's layers in the order of their calls: name, kind, output shape, parameters.

    A layer of PyTorch is one row; other modules are one row for each layer in them. Layers that are not called
    come last, with the shape "-"; of several outputs the first one's shape is shown. The model stays as it is.

    Args:
        model: The model, or a task with all its networks.
        inputs: What it is called with, such as a batch of one example.
        call: What is called instead of the model, such as a task's method ``evaluate``.

    Raises:
        InputError: An input is the shape of a batch.

    Example:
        >>> print(torchdl.layer_table(torchdl.SequenceModel("gru", in_features=3), torch.zeros(1, 20, 3)))
        layer  kind    output shape  parameters
        core   GRU     (1, 20, 10)          450
        head   Linear  (1, 1)                11
        461 parameters, none frozen
    """
    sizes = next((each for each in inputs if isinstance(each, (tuple, list)) and {*map(type, each)} == {int}), None)
    advice = f"layer_table calls the model: give it a batch, such as torch.zeros({sizes}), and not its shape"
    require(sizes is None, advice)
    layers, shapes = dict(layers_of(model)), dict[str, str]()

    def enter(name: str, module: nn.Module, args: Any) -> None:
        shapes.setdefault(name, "-")

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        first = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
        if shapes[name] == "-" and first is not None:
            shapes[name] = str(tuple(first.shape))

    hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in layers.items()]
    hooks += [layer.register_forward_pre_hook(partial(enter, name)) for name, layer in layers.items()]
    device = next(chain(model.parameters(), model.buffers()), torch.zeros(())).device
    try:
        with evaluating(model, device), torch.random.fork_rng(devices=[]):
            (call or model)(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    rows = [("layer", "kind", "output shape", "parameters")]
    for name in dict.fromkeys([*shapes, *layers]):
        layer = layers[name]
        own = sum(p.numel() for p in layer.parameters(recurse=is_layer(layer)))
        rows.append((name, type(layer).__name__, shapes.get(name, "-"), f"{own:,}" if own else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]
    total = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    lines.append(f"{total:,} parameters, {f'of which {frozen:,} are frozen' if frozen else 'none frozen'}")
    return "\n".join(line.rstrip() for line in lines)


def layers_of(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the rows of a :func:`layer_table`, by their names: layers, and modules with parameters of their own."""
    if is_layer(module) or any(True for _ in module.parameters(recurse=False)):
        yield name or type(module).__name__, module
    if not is_layer(module):
        for child, part in module.named_children():
            yield from layers_of(part, f"{name}.{child}" if name else child)


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is a layer of PyTorch, whatever it is made of, or one that holds no other."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    whole = type(module).__module__.startswith("torch.") and not isinstance(module, containers)
    return whole or not any(True for _ in module.children())
