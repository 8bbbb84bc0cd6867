"""Random numbers that are pure functions of ``(seed, epoch, index)``.

With a stateful generator, an item depends on all earlier draws. Here every item hashes its own counter (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"). So it is the same for every batch size, order, number of workers
and number of processes, which makes resuming and distribution exact. The hash is the finaliser of
SplitMix64 (Steele, Lea and Flood 2014), whose integer bits agree on every device.

Shapes: N items, K numbers per item.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio; its multiples are evenly spread
_WORD = (1 << 64) - 1


def _signed(x: int) -> int:
    x &= _WORD
    return x - (1 << 64) if x >> 63 else x


def _mix(x: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser to int64 tensors, in place (masks remove the sign bits that torch's shifts copy)."""
    x ^= (x >> 30) & ((1 << 34) - 1)
    x *= _signed(0xBF58476D1CE4E5B9)
    x ^= (x >> 27) & ((1 << 37) - 1)
    x *= _signed(0x94D049BB133111EB)
    x ^= (x >> 31) & ((1 << 33) - 1)
    return x


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


def key(*counters: int) -> int:
    """Hash any number of integers to one integer of 63 bits, such as a seed for ``torch.Generator.manual_seed``."""
    state = 0
    for counter in counters:
        state = _mix_int((state + int(counter) * _GOLDEN + _GOLDEN) & _WORD)
    return state >> 1


def bits(seed: int, epoch: int, index: Tensor, count: int, stream: int = 0) -> Tensor:
    """Draw ``count`` 64-bit words for every item.

    Args:
        seed: The run's seed.
        epoch: The epoch, or any other integer, such as a step.
        index: (N,) integers, the number of each item.
        count: K, the number of words per item.
        stream: Distinguishes independent draws for the same item.

    Returns:
        (N, K) int64, uniform over all 2^64 patterns, on the device of ``index``.
    """
    start = _signed(key(seed, epoch, stream))
    rows = _mix(index.to(torch.int64) * _signed(_GOLDEN) + start)  # (N,)
    columns = torch.arange(1, count + 1, device=index.device) * _signed(_GOLDEN)  # (K,)
    return _mix(rows[:, None] + columns)  # (N, K)


def uniform(seed: int, epoch: int, index: Tensor, count: int, stream: int = 0) -> Tensor:
    """Draw (N, K) float32, uniform in [0, 1); the arguments are those of :func:`bits`."""
    return (bits(seed, epoch, index, count, stream) >> 40 & 0xFFFFFF).float() * 2.0**-24


def integers(high: int | Tensor, seed: int, epoch: int, index: Tensor, count: int, stream: int = 0) -> Tensor:
    """Draw (N, K) int64 in [0, ``high``); ``high`` is at most 2^31, and the other arguments are those of :func:`bits`.

    For a bound for each number, ``high`` may be an int64 tensor that broadcasts with (N, K). Taking the upper part of a
    product causes a bias below ``high`` / 2^32.
    """
    return ((bits(seed, epoch, index, count, stream) >> 32 & 0xFFFFFFFF) * high) >> 32


def normal(seed: int, epoch: int, index: Tensor, count: int, stream: int = 0) -> Tensor:
    """Draw (N, K) float32 standard normals (Box and Muller 1958); the arguments are those of :func:`bits`."""
    words = bits(seed, epoch, index, (count + 1) // 2, stream)
    # u in (0, 1], so its logarithm is finite; the angle comes from the other half of the same word
    u = (words & 0xFFFFFFFF).float().add_(1.0).mul_(2.0**-32)
    angle = (words >> 32).float().mul_(2.0 * math.pi * 2.0**-32)
    radius = u.log_().mul_(-2.0).sqrt_()
    return torch.cat([radius * angle.cos(), radius * angle.sin_()], dim=1)[:, :count]  # (N, K)
