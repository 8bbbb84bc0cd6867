"""The process that trains: its allocator, threads, device and random generators."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from torchdl import random
from torchdl.errors import InputError, first_line, require

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory instead of returning it to the system; return whether this worked.

    Each training step allocates and frees the same tensors. By default each large one is mapped, faulted in page by
    page and unmapped, which takes longer than the arithmetic. Peak memory grows somewhat. If PyTorch has made no tensor
    yet, tensors of 2 MiB and more also get pages of that size, which saves another 2 %.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl and others
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads this once
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def setup_process(threads: int = 0, keep_memory: bool = True) -> str:
    """Set up this process for training, and return a line that describes the setup.

    Args:
        threads: CPU threads per operation; 0 for PyTorch's choice.
        keep_memory: Whether to call :func:`keep_freed_memory`.
    """
    require(threads >= 0, f"threads must be 0 (PyTorch's choice) or more, not {threads}")
    if threads:
        torch.set_num_threads(threads)
    kept = keep_memory and keep_freed_memory()
    be_deterministic()
    return f"{torch.get_num_threads()} CPU thread(s), freed memory {'kept' if kept else 'returned'}"


def be_deterministic() -> None:
    """Make a GPU compute the same result every time, for the rest of the process.

    Threads share these settings, so nothing turns them back. cuBLAS reads its variable at its first use.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True


@contextmanager
def tf32() -> Iterator[None]:
    """Let GPUs multiply float32 numbers in TF32 in a region: matrix products, convolutions and recurrent layers.

    Numbers keep float32's range, and the products 10 bits of their fractions, instead of 23. The settings are those of
    the process, and are restored after the region, so threads take turns.
    """
    cudnn: Any = torch.backends.cudnn
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    with random.taking_turns():
        before = [kind.fp32_precision for kind in kinds]
        try:
            for kind in kinds:
                kind.fp32_precision = "tf32"
            yield
        finally:
            for kind, precision in zip(kinds, before, strict=True):
                kind.fp32_precision = precision


def has_bf16_units() -> bool:
    """Return whether this CPU has bf16 units (AVX-512 BF16 or AMX); other CPUs emulate bf16 slowly."""
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test is not None and test() for test in tests)


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Return an available device for ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``, or for a ``torch.device``.

    ``auto`` and ``cuda`` choose this process's own GPU under ``torchrun``, otherwise PyTorch's current one.

    Raises:
        InputError: The name is unknown, or there is no such device.
    """
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdecimal()):
        raise InputError(f"unknown device {name!r}: choose auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise InputError("there is no CUDA device: choose device cpu, or install a CUDA build of PyTorch")
        index = int(number or os.environ.get("LOCAL_RANK") or torch.cuda.current_device())
        count = torch.cuda.device_count()
        require(index < count, f"there is no {kind}:{index}, only {count} CUDA device(s): choose one below {count}")
        return torch.device("cuda", index)
    available = kind != "mps" or torch.backends.mps.is_available()
    require(available, "there is no MPS device: choose device cpu")
    return torch.device(kind)


def seed_generators(device: torch.device, *counters: int) -> None:
    """Seed PyTorch's global generators from ``counters`` and leave them so, for what a program draws from then on.

    Training and evaluation do not: they restore the generators, by :func:`torchdl.random.seeded`.
    """
    for generator in random.generators(device):
        generator.manual_seed(random.key(*counters))


def move(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch (a tensor, or tuples, lists and dictionaries of tensors) to ``device``.

    Other objects are moved by their own method ``to``, if they have one.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if callable(getattr(batch, "to", None)):  # a packed sequence, or a tokenizer's output
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        values = [move(value, device) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch


def why_not_compile(device: torch.device) -> str:
    """Try ``torch.compile`` on a small function; return the reason if it fails, an empty string if it works."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # the compiler's errors have no common class
        torch._dynamo.reset()
        return first_line(error)
    return ""
