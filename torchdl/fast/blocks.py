"""oneDNN's blocked memory layout for images, for networks of convolutions and max-pooling on a CPU.

It stores channels in blocks of the size of a CPU register. Compared with the channels-last layout, LenetLike trains
1.44x as fast (1.40 to 1.47; batches of 64 random images of CIFAR-10's shape, two cores of an AMD EPYC with AVX-512,
torch 2.14, medians of 9 turns). Other machines gave 1.3x (AVX2), and 1.16x and 1.03x (AVX-512, an EPYC and a Xeon).

Blocked tensors support few operations and no second derivatives. So a network uses them only inside :func:`blocked`,
which the trainer opens around forward passes, and only between its input and its output, which keep PyTorch's layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_allowed = False


@contextmanager
def blocked() -> Iterator[None]:
    """Allow networks to compute in blocks inside this region."""
    global _allowed
    before, _allowed = _allowed, True
    try:
        yield
    finally:
        _allowed = before


def suits_blocks(images: Tensor, network: nn.Module) -> bool:
    """Return whether ``network`` should convert these images to blocks, by ``images.to_mkldnn()``.

    It should not on a GPU. It should not where other code would meet blocked tensors: hooks, a compiler, autocast, or a
    gradient of the images, which may be differentiated again. ``torch.backends.mkldnn.enabled = False`` forbids it.
    """
    return bool(
        _allowed
        and not torch.compiler.is_compiling()
        and images.device.type == "cpu"
        and images.dtype == torch.float32
        and not images.requires_grad
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # no other CPU has been measured
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        and not any(module._backward_hooks or module._backward_pre_hooks for module in network.modules())
    )
