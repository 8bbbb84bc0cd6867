"""Random numbers that are pure functions of ``(seed, epoch, index)``.

With a stateful generator, an item depends on all earlier draws. Here every item hashes its own counter (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"). So it is the same for every batch size, order, number of workers
and number of processes, which makes resuming and distribution exact. The hash is the finaliser of
SplitMix64 (Steele, Lea and Flood 2014), whose integer bits agree on every device.

Other code draws from global generators, as dropout does: :func:`seeded` lends them, in a known state, to a region.

Shapes: N items, K numbers per item.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio; its multiples are evenly spread
_WORD = (1 << 64) - 1


@unique
class Stream(IntEnum):
    """The purposes of random draws: each has a stream of its own, so two with one seed do not repeat each other.

    Data sets number their own streams, from 0 to 31: they count examples in another way than tasks do.
    """

    TRAINING = 0  # a task's draws for the examples of a training batch
    VALIDATION = 1
    MIXING = 2  # of real and generated images, for a gradient penalty
    PREVIEW = 3
    SAMPLES = 32  # the noise of generated images, which evaluations measure
    NOISE_IMAGES = 34  # images of noise, measured beside generated ones
    DATA = 35  # what a data set draws from global generators for training
    SETUP = 36  # what a task draws while it builds its optimizers
    INVERSION = 37  # the noise from which a search begins
    EVALUATION_DATA = 38  # what a data set draws for an evaluation
    CALLBACKS = 39  # what callbacks draw at the end of an evaluation


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
    """Hash any number of integers of 64 bits to one of 63 bits, such as a seed for ``torch.Generator.manual_seed``.

    Example:
        >>> from torchdl import random
        >>> random.key(1, 2) == random.key(1, 2), random.key(1, 2) == random.key(2, 1)
        (True, False)
    """
    state = 0
    for counter in counters:
        # the hash of 0 is 0, which would be the state before all counters: a leading -1 would be lost
        state = _mix_int((state + int(counter) * _GOLDEN + _GOLDEN) & _WORD or _WORD)
    return state >> 1


def generators(device: torch.device) -> list[torch.Generator]:
    """Return the global generators of PyTorch that code on ``device`` draws from: the CPU's and the device's."""
    if device.type == "cuda":
        torch.cuda.init()  # creates the generators
        index = torch.cuda.current_device() if device.index is None else device.index
        return [torch.default_generator, torch.cuda.default_generators[index]]
    if device.type == "mps":
        return [torch.default_generator, torch.mps._get_default_mps_generator()]
    return [torch.default_generator]


_turn = threading.RLock()
if hasattr(os, "register_at_fork"):  # a worker process must not begin with another thread's turn
    os.register_at_fork(before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release)


@contextmanager
def seeded(device: torch.device, *counters: int, everywhere: bool = False) -> Iterator[None]:
    """Seed the global generators from ``counters`` for a region, and restore them after it, also after an error.

    Random draws in the region (of dropout, for example) then depend on ``counters`` alone. Threads take turns: PyTorch
    has one generator for all threads, so a thread waits until the region of another has ended. A thread that draws
    outside such regions can still disturb one.

    Args:
        device: The device on which the region computes; its generator is seeded, too.
        counters: Integers that identify the region, such as a seed, an epoch and a :class:`Stream`.
        everywhere: Whether to do the same with the global generators of Python and NumPy.

    Example:
        >>> from torchdl import random
        >>> before, drawn = torch.get_rng_state(), []
        >>> for _ in range(2):
        ...     with random.seeded(torch.device("cpu"), 1, 2):
        ...         drawn.append(torch.rand(3))
        >>> torch.equal(*drawn), torch.equal(before, torch.get_rng_state())
        (True, True)
    """
    seed, lent = key(*counters), generators(device)
    with _turn:
        states = [generator.get_state() for generator in lent]
        others = (random.getstate(), np.random.get_state(legacy=False)) if everywhere else None  # noqa: NPY002
        try:
            for generator in lent:
                generator.manual_seed(seed)
            if others is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            for generator, state in zip(lent, states, strict=True):
                generator.set_state(state)
            if others is not None:
                random.setstate(others[0])
                np.random.set_state(others[1])  # noqa: NPY002


@contextmanager
def taking_turns() -> Iterator[None]:
    """Keep other threads out of :func:`seeded` regions, and out of regions like this one."""
    with _turn:
        yield


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
