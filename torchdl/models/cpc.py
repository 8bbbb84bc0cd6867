"""Contrastive predictive coding: encoder, recurrent context and a predictor for each step (van den Oord et al. 2018).

"The original" is the Keras implementation that this one follows.

Shapes: B sequences, T terms of context, K of future, D numbers per embedding, H per context, C channels, S x S pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from torchdl.errors import InputError, kind_of, require
from torchdl.models.arguments import plain_arguments
from torchdl.models.gates import RECURRENT, Gate, gated
from torchdl.models.init import keras_init_

MAX_STEPS = 1000
FirstNorm = Literal["batch", "instance"]
FIRST_NORMS = ("batch", "instance")


@plain_arguments
class ImageEncoder(nn.Module):
    """Embed images by 3x3 convolutions of stride 2, a hidden layer and a linear layer, with most of Keras' defaults.

    Images of at least 48 pixels a side get the original's network for 64 pixels: four convolutions of 64 filters and
    256 hidden units. Smaller ones get its network for 28 pixels: three convolutions of 32 filters and 128 units. Batch
    norm (epsilon 1e-3, Keras' momentum 0.99) and LeakyReLU (slope 0.3) follow every layer but the last. Kernels are
    Glorot-uniform, biases are 0. The running variances are PyTorch's, n / (n - 1) times Keras' for n values.

    Args:
        image_size: S, at least 15 pixels with three convolutions.
        channels: C.
        code_size: D.
        depth: Number of convolutions; None for the original's at this size.
        filters: Filters of each convolution; None for the original's.
        hidden: Units of the hidden layer; None for the original's.
        center_images: Whether to subtract the mean of each channel from each image, so that the colour of a whole image
            does not matter.
        first_norm: How the outputs of the first convolution are normalised: over the batch (``batch``), or for each
            image alone (``instance``; Ulyanov et al. 2016, arXiv 1607.08022). With the latter, too, the colour of a
            whole image does not matter, and the images are left as they are.

    Raises:
        InputError: ``first_norm`` is unknown, a size is not positive, or the images are too small.

    Example:
        >>> torchdl.ImageEncoder(image_size=28, channels=1, code_size=16)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        code_size: int = 128,
        center_images: bool = False,
        depth: int | None = None,
        filters: int | None = None,
        hidden: int | None = None,
        first_norm: FirstNorm = "batch",
    ) -> None:
        super().__init__()
        require(first_norm in FIRST_NORMS, f"ImageEncoder: unknown first_norm {first_norm!r}: choose batch or instance")
        sizes = [1 if size is None else size for size in (channels, code_size, depth, filters, hidden)]
        require(min(sizes) >= 1, "ImageEncoder: channels, code_size, depth, filters and hidden must be positive")
        self.image_size, self.channels, self.code_size = image_size, channels, code_size
        self.center_images, self.first_norm = center_images, first_norm
        self.depth, self.filters, self.hidden = depth, filters, hidden
        original = original_sizes(image_size)
        depth, filters, hidden = depth or original[0], filters or original[1], hidden or original[2]
        least = 2 ** (min(depth, 30) + 1) - 1  # each convolution turns s into (s - 1) / 2
        fits = (image_size + 1).bit_length() >= depth + 2
        require(fits, f"ImageEncoder: image_size must be {least} or more, not {image_size}")
        layers: list[nn.Module] = []
        side, width = image_size, channels
        for _ in range(depth):
            layers += [nn.Conv2d(width, filters, 3, stride=2), *normalized(nn.BatchNorm2d, filters)]
            side, width = (side - 3) // 2 + 1, filters
        if first_norm == "instance":
            # a group per filter is instance norm; InstanceNorm2d gives up channels last: steps take 1.6 times as long
            layers[1] = nn.GroupNorm(filters, filters, eps=1e-3)
        layers += [nn.Flatten(), nn.Linear(filters * side**2, hidden), *normalized(nn.BatchNorm1d, hidden)]
        self.layers = keras_init_(nn.Sequential(*layers, nn.Linear(hidden, code_size)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, D) of images (B, C, S, S).

        Raises:
            InputError: The images have another shape.
        """
        expected, shape = (self.channels, self.image_size, self.image_size), tuple(images.shape[1:])
        wanted = f"images of (channels, height, width) {expected}"
        require(shape == expected, f"this ImageEncoder takes {wanted}, not {shape}")
        if self.center_images:
            images = images - images.mean((2, 3), keepdim=True)
        return self.layers(images.contiguous(memory_format=torch.channels_last))  # 1.2x faster on CPUs


def original_sizes(image_size: int) -> tuple[int, int, int]:
    """Return the original's number of convolutions, of filters of each and of hidden units, for images of a size."""
    return (4, 64, 256) if image_size >= 48 else (3, 32, 128)


def normalized(norm: type[nn.Module], width: int) -> tuple[nn.Module, nn.Module]:
    """Build the batch norm and LeakyReLU after a layer, with Keras' settings (its momentum 0.99 is PyTorch's 0.01)."""
    return norm(width, eps=1e-3, momentum=0.01), nn.LeakyReLU(0.3, inplace=True)


@plain_arguments
class SignalEncoder(nn.Module):
    """Embed windows of a one-dimensional signal by strided convolutions (van den Oord et al. 2018, section 3.1).

    The defaults are the paper's for audio, but without a ReLU after the last layer. With strides 5, 4, 2, 2, 2 there is
    one embedding for every 160 samples. The embeddings of a longer window are averaged.

    Args:
        channels: C, the channels of the signal.
        code_size: D, which is also the number of filters of every layer.
        kernels: The layers' kernel sizes.
        strides: The layers' strides.

    Raises:
        InputError: A size is not positive, or the kernels and strides do not match.

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
        require(len(kernels) == len(strides) > 0, "SignalEncoder: give as many strides as kernels, one at least")
        self.channels, self.code_size, self.kernels, self.strides = channels, code_size, tuple(kernels), tuple(strides)
        layers: list[nn.Module] = []
        width = channels
        for kernel, stride in zip(kernels, strides, strict=True):
            require(kernel >= stride >= 1, f"SignalEncoder: kernel {kernel} must be at least its stride {stride}")
            # with this padding, a layer divides the length by its stride
            layers += [nn.Conv1d(width, code_size, kernel, stride, padding=(kernel - stride + 1) // 2), nn.ReLU()]
            width = code_size
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, signal: Tensor) -> Tensor:
        """Return the embeddings (B, D) of windows (B, C, L); L is at least the product of the strides.

        Raises:
            InputError: The windows have another shape, or are too short.
        """
        least = math.prod(self.strides)
        fits = signal.dim() == 3 and signal.shape[1] == self.channels and signal.shape[2] >= least
        expected = f"(B, {self.channels}, {least} or more)"
        require(fits, f"this SignalEncoder takes windows {expected}, not {tuple(signal.shape)}")
        return self.layers(signal).mean(2)  # (B, D, L / product of strides) -> (B, D)


@plain_arguments
class ContextNetwork(nn.Module):
    """Summarise, for each term, all embeddings up to it in a context.

    Args:
        code_size: D.
        context_size: H.
        cell: ``gru`` (as in the paper), ``lstm`` or ``rnn``. The GRU is cuDNN's (Keras' ``reset_after=True``).
        gate, reset_after: Gates of older Keras models; see :mod:`torchdl.models.gates`.

    Raises:
        InputError: The cell is unknown, or a size is not positive.

    Example:
        >>> network, embeddings = torchdl.ContextNetwork(code_size=8, context_size=16), torch.randn(5, 4, 8)
        >>> network(embeddings).shape
        torch.Size([5, 4, 16])
        >>> network(embeddings[:, :2]).allclose(network(embeddings)[:, :2], atol=1e-6)  # later terms do not matter
        True
    """

    def __init__(
        self,
        code_size: int = 128,
        context_size: int = 256,
        cell: str = "gru",
        gate: Gate = "sigmoid",
        reset_after: bool = True,
    ) -> None:
        super().__init__()
        require(cell in RECURRENT, f"ContextNetwork: unknown cell {cell!r}: choose one of {', '.join(RECURRENT)}")
        require(min(code_size, context_size) >= 1, "ContextNetwork: code_size and context_size must be positive")
        self.code_size, self.context_size, self.cell = code_size, context_size, cell
        self.gate, self.reset_after = gate, reset_after
        self.core = keras_init_(gated(cell, code_size, context_size, gate=gate, reset_after=reset_after))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the contexts (B, T, H) of embeddings (B, T, D); each depends only on the terms up to its own.

        Raises:
            InputError: The embeddings have another shape.
        """
        if embeddings.dim() != 3 or embeddings.shape[2] != self.code_size:  # a size in a text is fixed in an export
            expected, shape = f"embeddings (B, T, {self.code_size})", tuple(embeddings.shape)
            raise InputError(f"this ContextNetwork takes {expected}, not {shape}: code_size must be theirs")
        return self.core(embeddings)[0]


@plain_arguments
class Predictors(nn.Module):
    """Predict the embeddings of the next steps from a context, by one linear map per step.

    Args:
        context_size: H.
        code_size: D.
        steps: K.

    Raises:
        InputError: A size is not positive, or there are too many steps.

    Example:
        >>> torchdl.Predictors(context_size=256, code_size=128, steps=4)(torch.zeros(5, 256)).shape
        torch.Size([5, 4, 128])
    """

    def __init__(self, context_size: int = 256, code_size: int = 128, steps: int = 4) -> None:
        super().__init__()
        require(min(context_size, code_size, steps) >= 1, "Predictors: context_size, code_size, steps must be positive")
        require(steps <= MAX_STEPS, f"Predictors: steps must be {MAX_STEPS} or less, not {steps}")
        self.context_size, self.code_size, self.steps = context_size, code_size, steps
        self.linear = keras_init_(nn.ModuleList(nn.Linear(context_size, code_size) for _ in range(steps)))

    def forward(self, context: Tensor) -> Tensor:
        """Return the predictions (..., K, D) of contexts (..., H).

        Raises:
            InputError: The contexts have another size.
        """
        if context.dim() == 0 or context.shape[-1] != self.context_size:
            expected = f"contexts (..., {self.context_size})"
            raise InputError(f"these Predictors take {expected}, not {tuple(context.shape)}")
        return torch.stack([linear(context) for linear in self.linear], dim=-2)


class Prediction(NamedTuple):
    """CPC's predictions and the actual embeddings.

    Attributes:
        predicted: (B, T, K, D), from the context at every term; T is 1 if only the last context is used.
        embeddings: (B, terms + K, D), those of context and future.
    """

    predicted: Tensor
    embeddings: Tensor


@plain_arguments
class CPC(nn.Module):
    """Contrastive predictive coding: embeddings, their contexts, and predictions of future embeddings.

    Args:
        encoder: Maps any inputs (N, ...) to embeddings (N, D).
        context: Maps embeddings (B, T, D) to contexts (B, T, H).
        predictors: Maps contexts (..., H) to predictions (..., K, D).
        every_term: Whether to predict from the context at every term, as in the paper, or only at the last, as in the
            original.
        separate_passes: Whether to encode the context and the future in two passes, as in the original, so that in
            training each has batch statistics of its own.
        batch_statistics: Whether to encode with the batch's statistics in evaluation mode, too, as the original does.

    Raises:
        InputError: A part is not a module, or the sizes of two parts do not match.

    Example:
        >>> encoder, context = torchdl.ImageEncoder(28, code_size=16), torchdl.ContextNetwork(16, 32)
        >>> model = torchdl.CPC(encoder, context, torchdl.Predictors(32, 16, steps=2))
        >>> predicted, embeddings = model(torch.zeros(5, 4, 3, 28, 28), torch.zeros(5, 2, 3, 28, 28))
        >>> predicted.shape, embeddings.shape
        (torch.Size([5, 1, 2, 16]), torch.Size([5, 6, 16]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        context: nn.Module,
        predictors: nn.Module,
        every_term: bool = False,
        separate_passes: bool = False,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        modules = all(isinstance(part, nn.Module) for part in (encoder, context, predictors))
        require(modules, "CPC: the encoder, the context and the predictors must be modules")
        for size, first, second in (
            ("code_size", encoder, context),
            ("code_size", encoder, predictors),
            ("code_size", context, predictors),
            ("context_size", context, predictors),
        ):
            require_same("CPC", size, first, second)
        self.encoder, self.context, self.predictors, self.every_term = encoder, context, predictors, every_term
        self.separate_passes, self.batch_statistics = separate_passes, batch_statistics

    def encode(self, x: Tensor) -> Tensor:
        """Return the embeddings (B, T, D) of sequences (B, T, ...).

        Raises:
            InputError: The encoder returns something else.
        """
        with by_batch_statistics(self.encoder) if self.batch_statistics and not self.training else nullcontext():
            embeddings = self.encoder(x.flatten(0, 1))  # (B, T, ...) -> (B * T, ...) -> (B * T, D)
        require_shape("encoder", embeddings, "one embedding (D,) for each input", x.shape[0] * x.shape[1], None)
        return embeddings.unflatten(0, x.shape[:2])  # -> (B, T, D)

    def predict(self, embeddings: Tensor) -> Tensor:
        """Predict from a context's embeddings (B, T, D): (B, T, K, D), or (B, 1, K, D) from the last term only.

        Raises:
            InputError: The context or the predictors return something else.
        """
        contexts = self.context(embeddings)
        batch, terms, size = embeddings.shape
        require_shape("context", contexts, "contexts (B, T, H) alone", batch, terms, None)
        predicted = self.predictors(contexts if self.every_term else contexts[:, -1:])
        terms = terms if self.every_term else 1
        require_shape("predictors", predicted, "predictions (B, T, K, D)", batch, terms, None, size)
        return predicted

    def forward(self, context: Tensor, future: Tensor) -> Prediction:
        """Encode a context (B, T, ...) and a future (B, K, ...); predict the future from the context."""
        if self.separate_passes:
            embeddings = torch.cat([self.encode(context), self.encode(future)], dim=1)
        else:
            embeddings = self.encode(torch.cat([context, future], dim=1))  # (B, T + K, D)
        return Prediction(self.predict(embeddings[:, : context.shape[1]]), embeddings)


def require_same(owner: str, size: str, first: nn.Module, second: nn.Module) -> None:
    """Raise :class:`InputError` if two parts of a model both have a size of this name, and these differ."""
    sizes = [getattr(part, size, None) for part in (first, second)]
    names = [type(part).__name__ for part in (first, second)]
    equal = None in sizes or sizes[0] == sizes[1]
    require(equal, f"{owner}: {size} is {sizes[0]} in {names[0]}, but {sizes[1]} in {names[1]}")


def require_shape(part: str, returned: Any, expected: str, *sizes: int | None) -> None:
    """Raise :class:`InputError` unless a part of CPC returned a tensor with these sizes; None stands for any size."""
    shape = returned.shape if isinstance(returned, Tensor) else ()
    if len(shape) == len(sizes) and all(size is None or size == n for size, n in zip(sizes, shape, strict=True)):
        return  # a text with a size would fix it in an export
    given = f"a tensor {tuple(shape)}" if isinstance(returned, Tensor) else kind_of(returned)
    wanted = f"({', '.join('any' if size is None else str(size) for size in sizes)})"
    raise InputError(f"CPC: the {part} must return {expected}, here {wanted}, not {given}")


@contextmanager
def by_batch_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms normalise by the batch's statistics, and leave their running ones as they are."""
    norms = [(m, m.training) for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    try:
        for norm, _ in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, training in norms:
            norm.training, norm.track_running_stats = training, True


@plain_arguments
class ProbeHead(nn.Sequential):
    """Classify embeddings by the original's probe: one hidden layer with batch norm and LeakyReLU.

    Args:
        code_size: D.
        classes: Number of classes.
        hidden: Units of the hidden layer.

    Raises:
        InputError: A size is not positive.

    Example:
        >>> torchdl.ProbeHead(code_size=16)(torch.randn(5, 16)).shape
        torch.Size([5, 10])
    """

    def __init__(self, code_size: int = 128, classes: int = 10, hidden: int = 128) -> None:
        require(min(code_size, classes, hidden) >= 1, "ProbeHead: code_size, classes and hidden must be positive")
        super().__init__(nn.Linear(code_size, hidden), *normalized(nn.BatchNorm1d, hidden), nn.Linear(hidden, classes))
        self.code_size, self.classes, self.hidden = code_size, classes, hidden
        keras_init_(self)


def probe_head(code_size: int = 128, classes: int = 10) -> ProbeHead:
    """Build the original's probe: embeddings (B, D) to logits (B, classes), by a hidden layer of 128 units.

    ``code_size`` is D.
    """
    return ProbeHead(code_size, classes)


@plain_arguments
class ProbedEncoder(nn.Module):
    """Classify inputs by an encoder and a probe of its embeddings, as the original's benchmark does.

    Args:
        encoder: Maps any inputs (B, ...) to embeddings (B, D).
        head: Maps embeddings (B, D) to logits.

    Raises:
        InputError: A part is not a module, or the sizes of the parts do not match.

    Example:
        >>> model = torchdl.ProbedEncoder(torchdl.ImageEncoder(28, code_size=16), torchdl.ProbeHead(16))
        >>> model(torch.zeros(5, 3, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        parts = isinstance(encoder, nn.Module) and isinstance(head, nn.Module)
        require(parts, "ProbedEncoder: the encoder and the head must be modules")
        require_same("ProbedEncoder", "code_size", encoder, head)
        self.encoder, self.head = encoder, head

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of inputs (B, ...)."""
        return self.head(self.encoder(x))


def image_cpc(
    image_size: int = 64,
    channels: int = 3,
    code_size: int = 128,
    context_size: int = 256,
    predict_terms: int = 4,
    cell: str = "gru",
    every_term: bool = False,
    center_images: bool = False,
    gate: Gate = "sigmoid",
    reset_after: bool = True,
    separate_passes: bool = False,
    batch_statistics: bool = False,
    first_norm: FirstNorm = "batch",
) -> CPC:
    """Build the original's network for sequences of images.

    The original to the letter has
    ``gate="hard_sigmoid", reset_after=False, separate_passes=True, batch_statistics=True``.

    Args:
        image_size, channels, code_size, center_images, first_norm: As for :class:`ImageEncoder`.
        context_size, cell, gate, reset_after: As for :class:`ContextNetwork`.
        predict_terms: K, future terms to predict.
        every_term, separate_passes, batch_statistics: As for :class:`CPC`.

    Example:
        >>> model = torchdl.image_cpc(28, code_size=16, predict_terms=2, every_term=True)
        >>> predicted, embeddings = model(torch.zeros(5, 4, 3, 28, 28), torch.zeros(5, 2, 3, 28, 28))
        >>> predicted.shape, embeddings.shape
        (torch.Size([5, 4, 2, 16]), torch.Size([5, 6, 16]))
    """
    return CPC(
        ImageEncoder(image_size, channels, code_size, center_images, first_norm=first_norm),
        ContextNetwork(code_size, context_size, cell, gate, reset_after),
        Predictors(context_size, code_size, predict_terms),
        every_term,
        separate_passes,
        batch_statistics,
    )
