"""Contrastive predictive coding: an encoder, a recurrent context, a predictor a step (van den Oord et al. 2018).

Shapes: B sequences, T terms of context, K of future, D numbers a code, H numbers a context, C channels, S x S pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.init import keras_init_
from torchdl.models.rnn import RECURRENT


class ImageEncoder(nn.Module):
    """Turn images into codes: 3x3 convolutions of stride 2, a hidden layer, a linear one, in Keras' conventions.

    For 64 pixels a side the original's four convolutions of 64 filters and 256 hidden units, for 28 three of 32 and
    128; sizes from 48 on take the former, smaller ones the latter. Batch norm (epsilon 1e-3, Keras' momentum 0.99)
    and LeakyReLU (slope 0.3) follow every layer but the last; kernels are Glorot-uniform, biases zero.

    Args:
        image_size: S, pixels a side, 15 at least.
        channels: C.
        code_size: D.

    Example:
        >>> torchdl.ImageEncoder(image_size=28, channels=1, code_size=16)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 16])
    """

    def __init__(self, image_size: int = 64, channels: int = 3, code_size: int = 128) -> None:
        super().__init__()
        require(min(channels, code_size) >= 1, "ImageEncoder: channels and code_size must be positive")
        self.image_size, self.channels, self.code_size = image_size, channels, code_size
        depth, filters, hidden = (4, 64, 256) if image_size >= 48 else (3, 32, 128)
        layers: list[nn.Module] = []
        side, width = image_size, channels
        for _ in range(depth):
            layers += [nn.Conv2d(width, filters, 3, stride=2), *normalized(nn.BatchNorm2d, filters)]
            side, width = (side - 3) // 2 + 1, filters
        require(
            side >= 1, f"ImageEncoder: image_size {image_size} is too small for {depth} convolutions: 15 is the least"
        )
        layers += [nn.Flatten(), nn.Linear(filters * side**2, hidden), *normalized(nn.BatchNorm1d, hidden)]
        self.layers = keras_init_(nn.Sequential(*layers, nn.Linear(hidden, code_size)))

    def forward(self, images: Tensor) -> Tensor:
        """Give the codes (B, D) of images (B, C, S, S)."""
        wanted = (self.channels, self.image_size, self.image_size)
        require(
            tuple(images.shape[1:]) == wanted,
            f"this ImageEncoder takes images of (channels, height, width) {wanted}, not {tuple(images.shape[1:])}",
        )
        return self.layers(images.contiguous(memory_format=torch.channels_last))  # a fifth quicker on CPUs


def normalized(norm: type[nn.Module], width: int) -> tuple[nn.Module, nn.Module]:
    """Build what follows a layer: Keras' batch norm (its momentum 0.99 is PyTorch's 0.01) and LeakyReLU."""
    return norm(width, eps=1e-3, momentum=0.01), nn.LeakyReLU(0.3, inplace=True)


class SignalEncoder(nn.Module):
    """Turn windows of a one-dimensional signal into codes by strided convolutions (van den Oord et al. 2018, 3.1).

    The defaults are the paper's for audio: strides 5, 4, 2, 2, 2, so one code for every 160 samples, but without a ReLU
    after the last; a longer window's codes are averaged.

    Args:
        channels: C, of the signal.
        code_size: D, filters of every layer.
        kernels: The kernels' sizes.
        strides: Their strides.

    Example:
        >>> encoder = torchdl.SignalEncoder(code_size=16)
        >>> encoder(torch.zeros(2, 1, 160)).shape, encoder(torch.zeros(2, 1, 1600)).shape
        (torch.Size([2, 16]), torch.Size([2, 16]))
    """

    def __init__(
        self,
        channels: int = 1,
        code_size: int = 512,
        kernels: Sequence[int] = (10, 8, 4, 4, 4),
        strides: Sequence[int] = (5, 4, 2, 2, 2),
    ) -> None:
        super().__init__()
        require(min(channels, code_size) >= 1, "SignalEncoder: channels and code_size must be positive")
        require(len(kernels) == len(strides) > 0, "SignalEncoder: kernels and strides must be as many")
        self.channels, self.code_size, self.kernels, self.strides = channels, code_size, tuple(kernels), tuple(strides)
        layers: list[nn.Module] = []
        width = channels
        for kernel, stride in zip(kernels, strides, strict=True):
            require(kernel >= stride >= 1, f"SignalEncoder: kernel {kernel} must be at least its stride {stride}")
            # padded so that a length is divided by the stride
            layers += [nn.Conv1d(width, code_size, kernel, stride, padding=(kernel - stride + 1) // 2), nn.ReLU()]
            width = code_size
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, signal: Tensor) -> Tensor:
        """Give the codes (B, D) of windows (B, C, L) of at least the product of the strides."""
        least = math.prod(self.strides)
        require(
            signal.dim() == 3 and signal.shape[1] == self.channels and signal.shape[2] >= least,
            f"this SignalEncoder takes windows (B, {self.channels}, {least} or more), not {tuple(signal.shape)}",
        )
        return self.layers(signal).mean(2)  # (B, D, L / product of strides) -> (B, D)


class ContextNetwork(nn.Module):
    """Summarise the codes so far in a context, at every term.

    Args:
        code_size: D.
        context_size: H.
        cell: ``gru`` (as published), ``lstm`` or ``rnn``. The GRU is cuDNN's, which Keras calls ``reset_after=True``.

    Example:
        >>> network, codes = torchdl.ContextNetwork(code_size=8, context_size=16), torch.randn(5, 4, 8)
        >>> network(codes).shape
        torch.Size([5, 4, 16])
        >>> network(codes[:, :2]).allclose(network(codes)[:, :2], atol=1e-6)  # what comes later is not known
        True
    """

    def __init__(self, code_size: int = 128, context_size: int = 256, cell: str = "gru") -> None:
        super().__init__()
        require(cell in RECURRENT, f"ContextNetwork: unknown cell {cell!r}: choose one of {', '.join(RECURRENT)}")
        require(min(code_size, context_size) >= 1, "ContextNetwork: code_size and context_size must be positive")
        self.code_size, self.context_size, self.cell = code_size, context_size, cell
        self.core = keras_init_(RECURRENT[cell](code_size, context_size, batch_first=True))

    def forward(self, codes: Tensor) -> Tensor:
        """Give the contexts (B, T, H) of codes (B, T, D); each knows the codes up to its own."""
        return self.core(codes)[0]


class Predictors(nn.Module):
    """Predict the codes of the next steps from a context, by a linear map each.

    Args:
        context_size: H.
        code_size: D.
        steps: K.

    Example:
        >>> torchdl.Predictors(context_size=256, code_size=128, steps=4)(torch.zeros(5, 256)).shape
        torch.Size([5, 4, 128])
    """

    def __init__(self, context_size: int = 256, code_size: int = 128, steps: int = 4) -> None:
        super().__init__()
        require(min(context_size, code_size, steps) >= 1, "Predictors: context_size, code_size, steps must be positive")
        self.context_size, self.code_size, self.steps = context_size, code_size, steps
        self.linear = keras_init_(nn.ModuleList(nn.Linear(context_size, code_size) for _ in range(steps)))

    def forward(self, context: Tensor) -> Tensor:
        """Give the predictions (..., K, D) of contexts (..., H)."""
        return torch.stack([linear(context) for linear in self.linear], dim=-2)


class Prediction(NamedTuple):
    """What CPC predicts, and what there is.

    Attributes:
        predicted: (B, T, K, D), from the context at every term; T is 1 where only the last one is used.
        codes: (B, terms + K, D), of context and future.
    """

    predicted: Tensor
    codes: Tensor


class CPC(nn.Module):
    """Contrastive predictive coding: codes, their context, and predictions of the codes to come.

    Args:
        encoder: Any inputs (N, ...) to codes (N, D).
        context: Codes (B, T, D) to contexts (B, T, H).
        predictors: Contexts (..., H) to predictions (..., K, D).
        every_term: Whether to predict from the context at every term, as the paper, or at the last, as the original.

    Example:
        >>> encoder, context = torchdl.ImageEncoder(28, code_size=16), torchdl.ContextNetwork(16, 32)
        >>> model = torchdl.CPC(encoder, context, torchdl.Predictors(32, 16, steps=2))
        >>> predicted, codes = model(torch.zeros(5, 4, 3, 28, 28), torch.zeros(5, 2, 3, 28, 28))
        >>> predicted.shape, codes.shape
        (torch.Size([5, 1, 2, 16]), torch.Size([5, 6, 16]))
    """

    def __init__(self, encoder: nn.Module, context: nn.Module, predictors: nn.Module, every_term: bool = False) -> None:
        super().__init__()
        require(
            all(isinstance(part, nn.Module) for part in (encoder, context, predictors)),
            "CPC: the encoder, the context and the predictors must be modules",
        )
        for size, first, second in (
            ("code_size", encoder, context),
            ("code_size", encoder, predictors),
            ("context_size", context, predictors),
        ):
            sizes = [getattr(part, size, None) for part in (first, second)]
            require(
                None in sizes or sizes[0] == sizes[1],
                f"CPC: the {size} of {type(first).__name__} is {sizes[0]}, that of {type(second).__name__} {sizes[1]}",
            )
        self.encoder, self.context, self.predictors, self.every_term = encoder, context, predictors, every_term

    def encode(self, x: Tensor) -> Tensor:
        """Give the codes (B, T, D) of sequences (B, T, ...)."""
        return self.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # (B, T, ...) -> (B * T, ...) -> (B, T, D)

    def predict(self, codes: Tensor) -> Tensor:
        """Predict from the codes of a context (B, T, D): (B, T, K, D), or (B, 1, K, D) from the last term alone."""
        contexts = self.context(codes)  # (B, T, H)
        return self.predictors(contexts if self.every_term else contexts[:, -1:])

    def forward(self, context: Tensor, future: Tensor) -> Prediction:
        """Encode a context (B, T, ...) and a future (B, K, ...) in one pass, and predict the one from the other."""
        codes = self.encode(torch.cat([context, future], dim=1))  # (B, T + K, D)
        return Prediction(self.predict(codes[:, : context.shape[1]]), codes)


def probe_head(code_size: int = 128, classes: int = 10) -> nn.Sequential:
    """Build the original's probe of codes (B, D), giving logits (B, classes): one hidden layer of 128 units."""
    hidden = [nn.Linear(code_size, 128), *normalized(nn.BatchNorm1d, 128)]
    return keras_init_(nn.Sequential(*hidden, nn.Linear(128, classes)))


def image_cpc(
    image_size: int = 64,
    channels: int = 3,
    code_size: int = 128,
    context_size: int = 256,
    predict_terms: int = 4,
    cell: str = "gru",
    every_term: bool = False,
) -> CPC:
    """Build the original's network for sequences of images.

    See :class:`ImageEncoder`, :class:`ContextNetwork` and :class:`CPC` for the arguments; ``predict_terms`` is K.

    Example:
        >>> model = torchdl.image_cpc(28, code_size=16, predict_terms=2, every_term=True)
        >>> predicted, codes = model(torch.zeros(5, 4, 3, 28, 28), torch.zeros(5, 2, 3, 28, 28))
        >>> predicted.shape, codes.shape
        (torch.Size([5, 4, 2, 16]), torch.Size([5, 6, 16]))
    """
    return CPC(
        ImageEncoder(image_size, channels, code_size),
        ContextNetwork(code_size, context_size, cell),
        Predictors(context_size, code_size, predict_terms),
        every_term,
    )
