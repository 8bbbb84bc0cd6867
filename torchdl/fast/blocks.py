"""oneDNN's own layout of images in memory, for networks of convolutions and max-pooling on a CPU.

It keeps channels in blocks that fill a CPU's registers. Networks here lay images out with their channels last; in
blocks LenetLike trains 1.3 times as fast again with AVX2, and 1.03 (a Xeon) to 1.16 times (an EPYC) with AVX-512. But
tensors in blocks know few operations, and no second derivatives. So a network uses them within :func:`blocked` only,
which the trainer opens around its forward passes, and from its input to its output, where nobody else sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_allowed = False


@contextmanager
def blocked() -> Iterator[None]:
    """Let networks compute in blocks within this region."""
    global _allowed
    before, _allowed = _allowed, True
    try:
        yield
    finally:
        _allowed = before


def suits_blocks(images: Tensor, network: nn.Module) -> bool:
    """Say whether ``network`` should lay these images out in blocks, by ``images.to_mkldnn()``.

    Not on a GPU, of course, nor where it would be seen: by hooks, by a compiler, by autocast, or by a derivative with
    respect to the images, of which there may be a second one. ``torch.backends.mkldnn.enabled = False`` forbids it.
    """
    return bool(
        _allowed
        and not torch.compiler.is_compiling()
        and images.device.type == "cpu"
        and images.dtype == torch.float32
        and not images.requires_grad
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # others have not been measured
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
        and not any(module._backward_hooks or module._backward_pre_hooks for module in network.modules())
    )
