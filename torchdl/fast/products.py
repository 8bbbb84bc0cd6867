"""Matrix products by the faster of PyTorch's two libraries, MKL and oneDNN, on this CPU.

PyTorch's float32 products use MKL, which computes at half speed on AMD's CPUs with AVX-512. oneDNN comes in the same
packages and is not slower there, except for small products, whose time is Python's. :func:`choose` measures whether it
is faster, once on a machine. The trainer opens a :class:`Region` around its forward passes. Outside of one, and for
other than ordinary float32 tensors on a CPU, all products are PyTorch's own.

Whole training steps with oneDNN's products against MKL's, in turns within one training, on one core of an AMD EPYC with
AVX-512, torch 2.14, with oneDNN from 3,145,728 multiply-adds on (medians, time of the thread):

==========================================  =====================
training                                    speed-up
==========================================  =====================
the course's deep GAN, batch 32             1.38
MLP 1024-1024-10, batch 64, 128, 256        1.51, 1.70, 1.80
MLP 784-512-512-10, dropout, batch 128      1.48
RatingModel (the course's), batch 1024      1.49
GRU of 256, older Keras' gates, batch 128   1.49
the notes' GAN, batch 32                    1.02
CPC, 28x28, with all steps as candidates    1.03
CPC, 64x64 or 28x28, with either head       0.99 to 1.02
LenetLike; a probe; a head on features      0.98 to 1.00
MLP 784-128-10; a network on texts          0.99 to 1.01
nn.LSTM, which uses oneDNN already; nn.GRU  0.98 to 1.01
==========================================  =====================

On two cores, with oneDNN from 8,388,608 on, the first four gain 1.2x to 1.4x, and none loses more than 1 %.

Shapes: B rows, I inputs and O outputs; a size is the number of multiply-adds, B * I * O.
"""

from __future__ import annotations

import functools
import math
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from torchdl.errors import InputError, require
from torchdl.files import cache_folder, read_json, write_json

PRODUCTS = ("auto", "mkl", "onednn")

NEVER = math.inf  # a size that no product has
PER_THREAD = 2**22  # the size from which oneDNN computes products, for each thread
MARGIN = 1.3  # by which oneDNN must be faster with much larger products; it is 1.0 or 1.9 where it was measured
NARROW = 4  # with fewer rows, inputs or outputs, oneDNN is slower at any size
MEASURED = 128, 1024, 512  # B, I, O
TURNS = 11
CACHE = "products.json"

_least: ContextVar[float | None] = ContextVar("the size from which oneDNN computes products", default=None)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b (..., O) of x (..., I), weight (O, I) and bias (O,), as ``torch.nn.functional.linear`` does.

    Example:
        >>> from torchdl.fast.products import linear
        >>> linear(torch.ones(2, 3), torch.ones(4, 3)).shape
        torch.Size([2, 4])
    """
    if torch.compiler.is_compiling() or not _pays(x, weight, bias):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias) if torch.is_grad_enabled() else _onednn(x, weight, bias)


def _pays(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether oneDNN can compute this product, and is faster."""
    least = _least.get()
    return bool(
        least is not None
        and isinstance(x, Tensor)
        and torch._C._get_tracing_state() is None
        and x.numel() * weight.shape[0] >= least
        and all(map(_is_plain, (x, weight) if bias is None else (x, weight, bias)))
        and x.dim() >= 2
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and min(x.numel() // max(x.shape[-1], 1), *weight.shape) >= NARROW
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not _is_transformed()
    )


def _is_plain(x: Tensor) -> bool:
    """Return whether a tensor is an ordinary one of float32 numbers on a CPU."""
    kind = type(x) is Tensor or type(x) is nn.Parameter
    return kind and x.dtype == torch.float32 and x.is_cpu and x.layout == torch.strided and not x.is_nested


def _is_transformed() -> bool:
    """Return whether PyTorch vectorises, differentiates in another way than by ``backward``, or packs saved tensors.

    ``torch.utils.checkpoint`` packs them, and repeats the forward pass outside of the region, which must save the same.
    """
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """:func:`linear` by oneDNN, forwards and backwards, and differentiable as often as PyTorch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        wants_x, wants_weight, _ = ctx.needs_input_grad
        ctx.shapes = x.shape, weight.shape
        # no more than a gradient needs: the other may change, or go
        ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        product: Callable[[Tensor, Tensor], Tensor] = _onednn
        if torch.is_grad_enabled() or _is_transformed() or not _is_plain(gradient):
            product = F.linear  # this backward pass is differentiated, or is one of many at once
        following = *ctx.next_functions, (None, 0)  # it leaves a missing bias out
        wants_x, wants_weight, wants_bias = map(_is_wanted, ctx.needs_input_grad, following)
        shape, (outputs, inputs) = ctx.shapes
        gradient = gradient.reshape(-1, outputs)  # (..., O) -> (B, O)
        by_x = by_weight = None
        if wants_x:
            few = inputs < 32 and 16 * inputs <= outputs
            by_x = _multiply(product, gradient, weight, few).view(shape)  # (B, O) x (O, I)
        if wants_weight:
            x = x.reshape(-1, inputs)  # (..., I) -> (B, I)
            small = inputs <= outputs and 2 * inputs <= len(x)  # oneDNN copies a transposed first factor
            by_weight = _multiply(product, gradient.T, x, small)  # (O, B) x (B, I)
        return by_x, by_weight, gradient.sum(0) if wants_bias else None


def _multiply(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, turned: bool) -> Tensor:
    """Return the matrix product a b, computed as (b^T a^T)^T if ``turned``, which is faster for some shapes."""
    return product(b.T, a).T.contiguous() if turned else product(a, b.T)


def _is_wanted(needed: bool, following: tuple[Any, int]) -> bool:
    """Return whether a backward pass needs the gradient of an input; ``backward(inputs=...)`` leaves some out."""
    try:
        return needed and torch._C._will_engine_execute_node(following[0])
    except RuntimeError:  # it does not know in torch.autograd.grad
        return True


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


class Region:
    """Allow the faster ways of this package around a forward pass: oneDNN's blocks, and its products for linear layers.

    Inside, each ``nn.Linear`` of ``module`` has a ``forward`` of its own, which calls :func:`linear`. Subclasses and
    layers whose ``forward`` is replaced already are left as they are. Copy no layer inside: the copy would keep it.

    Args:
        module: Its linear layers use oneDNN.
        least: The size from which they do, and products by :func:`linear`, too.

    Example:
        >>> from torchdl.fast.products import Region
        >>> layer = torch.nn.Linear(512, 256)
        >>> with Region(layer, least=0):
        ...     y = layer(torch.ones(64, 512))
        >>> torch.allclose(y, layer(torch.ones(64, 512)), atol=1e-6)
        True
    """

    def __init__(self, module: nn.Module | None = None, least: float = NEVER) -> None:
        self.least, self.tokens = least, list[Token[float | None]]()
        layers = [] if module is None else [m for m in module.modules() if type(m) is nn.Linear]
        self.forwards = [(vars(layer), functools.partial(_forward, layer)) for layer in layers]

    def __enter__(self) -> None:
        self.tokens.append(_least.set(self.least))
        if self.least < NEVER:
            for attributes, forward in self.forwards:
                attributes.setdefault("forward", forward)

    def __exit__(self, *error: object) -> None:
        _least.reset(self.tokens.pop())
        for attributes, forward in self.forwards if not self.tokens else ():
            if attributes.get("forward") is forward:
                del attributes["forward"]


def in_region() -> bool:
    """Return whether a region is open."""
    return _least.get() is not None


def is_replaced(layer: nn.Module) -> bool:
    """Return whether somebody else than a region has given this layer another ``forward`` than its class's."""
    forward = vars(layer).get("forward")
    return forward is not None and getattr(forward, "func", None) is not _forward


def is_available() -> bool:
    """Return whether this PyTorch can compute products by oneDNN."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def choose(choice: str = "auto") -> float:
    """Return the size from which oneDNN computes products; infinity if it computes none.

    ``auto`` is a fixed size for each thread if oneDNN is faster here. This is measured once for a CPU, a number of
    threads and a version of PyTorch, in about 50 ms, and kept in torchdl's cache folder. The answer is coarse, so that
    each process on a machine, and each day, gives the same.

    Raises:
        InputError: The choice is ``onednn``, which this PyTorch lacks.
    """
    require(
        choice != "onednn" or is_available(), "this PyTorch computes no products by oneDNN: choose products auto or mkl"
    )
    if choice == "auto" and is_available():
        threads = torch.get_num_threads()
        return PER_THREAD * threads if _kept(f"{_cpu()}, {threads} threads, torch {torch.__version__}") else NEVER
    return 0 if choice == "onednn" else NEVER


def describe(least: float) -> str:
    """Return in words what :func:`choose` has chosen."""
    if least == NEVER:
        return "PyTorch's own products"
    return f"products by oneDNN{f' from {int(least):,} multiply-adds on' if least else ''}"


@functools.cache
def _kept(key: str) -> bool:
    """Return what was measured, now or earlier; a cache that cannot be used is none."""
    known: dict[str, bool] = {}
    with suppress(InputError, OSError):
        known = read_json(cache_folder() / CACHE, dict[str, bool])
    if key not in known:
        known[key] = is_faster()
        with suppress(InputError, OSError):
            cache_folder().mkdir(parents=True, exist_ok=True)
            write_json(cache_folder() / CACHE, known)
    return known[key]


def _cpu() -> str:
    """Return the processor's name and model."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        names = "model name", "cpu family", "model", "CPU implementer", "CPU part"  # the last two of ARM
        return " ".join(fields[name] for name in names if name in fields)
    return platform.processor() or platform.machine()


def is_faster(seconds: Callable[[float], float] | None = None) -> bool:
    """Measure whether oneDNN computes a large product and its gradients faster, by :data:`MARGIN`.

    Args:
        seconds: Measures a training step of that product, with this ``least`` of its region.
    """
    times = [[(seconds or _seconds)(least) for least in (NEVER, 0)] for _ in range(TURNS)]
    usual, ours = map(min, zip(*times, strict=True))  # other programs can only slow a turn down
    return usual >= MARGIN * ours


@torch.enable_grad()
def _seconds(least: float) -> float:
    rows, inputs, outputs = MEASURED
    shapes = (rows, inputs), (outputs, inputs), (outputs,)
    x, weight, bias = (torch.ones(shape, requires_grad=True) for shape in shapes)
    start = time.perf_counter()
    with Region(least=least):
        y = linear(x, weight, bias)
    torch.autograd.backward(y, torch.ones_like(y), inputs=(x, weight, bias))
    return time.perf_counter() - start
