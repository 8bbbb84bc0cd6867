"""oneDNN's blocked memory layout for images, for networks of convolutions and max-pooling on a CPU.

It stores channels in blocks of the size of a CPU register. Compared with the channels-last layout, LenetLike trains
1.44x as fast (1.40 to 1.47; batches of 64 random images of CIFAR-10's shape, two cores of an AMD EPYC with AVX-512,
torch 2.14, medians of 9 turns). Other machines gave 1.3x (AVX2), and 1.16x and 1.03x (AVX-512, an EPYC and a Xeon).

Blocked tensors support few operations and no second derivatives. So a network uses them only inside a
:class:`torchdl.fast.products.Region`, which the trainer opens around forward passes, and only between its input and its
output, which keep PyTorch's layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from torchdl.fast.products import in_region, is_replaced


def suits_blocks(images: Tensor, network: nn.Module) -> bool:
    """Return whether ``network`` should convert these images to blocks, by ``images.to_mkldnn()``.

    It should not on a GPU. It should not where other code would meet blocked tensors: layers other than those of
    :class:`torchdl.LenetLike`, hooks, a compiler, autocast, or a gradient of the images, which may be differentiated
    again. ``torch.backends.mkldnn.enabled = False`` forbids it.
    """
    return bool(
        in_region()
        and not torch.compiler.is_compiling()
        and images.device.type == "cpu"
        and images.dtype == torch.float32
        and not images.requires_grad
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # no other CPU has been measured
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not _has_any_global_hook()
        and all(not _has_hooks(m) and (m is network or _computes_in_blocks(m)) for m in network.modules())
    )


def _has_hooks(m: nn.Module) -> bool:
    return bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)


#: The layers that take blocked tensors, forwards and backwards, and the settings with which they do
_LAYERS: dict[type[nn.Module], Callable[[Any], bool]] = {
    nn.Sequential: lambda layers: True,
    nn.Conv2d: lambda layer: layer.padding_mode == "zeros",
    nn.MaxPool2d: lambda layer: layer.dilation in (1, (1, 1)) and not layer.return_indices,
    nn.ReLU: lambda layer: not layer.inplace,
    nn.Flatten: lambda layer: (layer.start_dim, layer.end_dim) == (1, -1),
    nn.Dropout: lambda layer: layer.p == 0 or not layer.training,
    nn.Linear: lambda layer: True,
}


def _computes_in_blocks(layer: nn.Module) -> bool:
    """Return whether a layer takes blocked tensors; a subclass, or a layer whose forward is replaced, may not."""
    return not is_replaced(layer) and _LAYERS.get(type(layer), lambda layer: False)(layer)
