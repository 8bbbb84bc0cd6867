"""Convolution step by step (lectures 26 to 29): as loops, as sums over windows, as a matrix product, and in colour.

What networks call convolution is cross-correlation: it uses the kernel as it is. True convolution rotates the kernel by
180 degrees first. Both have three modes. For a side of N pixels and a kernel of K pixels, the result has:

    valid   N - K + 1   the kernel lies entirely within the image
    same    N           the image is padded with zeros to keep its size
    full    N + K - 1   the kernel overlaps the image by at least one pixel

This code is meant to be read; ``torch.nn.functional`` and ``scipy.signal`` compute the same faster.

Shapes: H x W pixels, h x w a kernel, C channels, O outputs, H' x W' pixels of the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdl.errors import require

MODES = ("valid", "same", "full")


def output_size(size: int, kernel: int, mode: str = "valid") -> int:
    """Return the size of the result for a side of N pixels and a kernel of K: N - K + 1, N or N + K - 1.

    ``size`` is N, ``kernel`` is K, and ``mode`` is ``valid``, ``same`` or ``full``.

    Raises:
        InputError: The mode is unknown, or the kernel does not fit.
    """
    require(mode in MODES, f"unknown mode {mode!r}: choose one of {', '.join(MODES)}")
    require(min(size, kernel) >= 1, f"an image and a kernel must have at least 1 pixel a side, not {size} and {kernel}")
    require(mode != "valid" or kernel <= size, f"a kernel of {kernel} does not fit into {size} pixels: try mode same")
    return {"valid": size - kernel + 1, "same": size, "full": size + kernel - 1}[mode]


def padding(kernel: int, mode: str = "valid", turned: bool = False) -> tuple[int, int]:
    """Return the numbers of zeros that a mode adds before and after a side, for a ``kernel`` of K pixels.

    For an even K, K - 1 is odd. The extra zero comes after the image for cross-correlation, as in PyTorch, and
    before it for true convolution (``turned``), as in SciPy.

    Raises:
        InputError: The mode is unknown.
    """
    require(mode in MODES, f"unknown mode {mode!r}: choose one of {', '.join(MODES)}")
    if mode == "valid":
        return 0, 0
    if mode == "full":
        return kernel - 1, kernel - 1
    less, more = (kernel - 1) // 2, kernel // 2
    return (more, less) if turned else (less, more)


def padded(image: Tensor, kernel: Tensor, mode: str, turned: bool = False) -> Tensor:
    """Pad an image (..., H, W) with zeros, as a mode needs for a ``kernel`` (..., h, w).

    The kernel is ``turned`` for true convolution; see :func:`padding`.
    """
    (height, width), (h, w) = image.shape[-2:], kernel.shape[-2:]
    output_size(height, h, mode), output_size(width, w, mode)  # checks the sizes
    return F.pad(image, (*padding(w, mode, turned), *padding(h, mode, turned)))


def check_grey(image: Tensor, kernel: Tensor) -> None:
    """Raise :class:`InputError` unless the image and the kernel are matrices."""
    require(
        image.dim() == kernel.dim() == 2,
        f"expected an image (H, W) and a kernel (h, w), not {tuple(image.shape)} and {tuple(kernel.shape)}: use "
        "correlate_color for colour images",
    )


def correlate_by_loops(image: Tensor, kernel: Tensor) -> Tensor:
    """Cross-correlate an image (H, W) and a kernel (h, w) in mode valid, as in lecture 26."""
    check_grey(image, kernel)
    (height, width), (h, w) = image.shape, kernel.shape
    result = image.new_zeros(output_size(height, h), output_size(width, w))  # (H', W')
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            for ii in range(h):
                for jj in range(w):
                    result[i, j] += image[i + ii, j + jj] * kernel[ii, jj]
    return result


def correlate(image: Tensor, kernel: Tensor, mode: str = "valid") -> Tensor:
    """Cross-correlate an image (H, W) and a kernel (h, w): a dot product at every position of the kernel.

    The product is large where the image looks like the kernel, so the result (H', W') shows where the pattern is
    (lecture 27).

    The ``mode`` is ``valid``, ``same`` or ``full``; it determines H' and W', see :func:`output_size`.
    """
    check_grey(image, kernel)
    windows = padded(image, kernel, mode).unfold(0, kernel.shape[0], 1).unfold(1, kernel.shape[1], 1)  # (H', W', h, w)
    return torch.einsum("ijhw,hw->ij", windows, kernel)


def convolve(image: Tensor, kernel: Tensor, mode: str = "valid") -> Tensor:
    """Return the true convolution (H', W') of an image (H, W) and a kernel (h, w), as ``scipy.signal.convolve2d``.

    The ``mode`` is ``valid``, ``same`` or ``full``; it determines H' and W', see :func:`output_size`.
    """
    check_grey(image, kernel)
    return correlate(padded(image, kernel, mode, turned=True), kernel.flip(0, 1))


def as_matrix(kernel: Tensor, height: int, width: int, mode: str = "valid") -> Tensor:
    """Write a cross-correlation as a matrix (H' * W', H * W), for an image flattened to a vector (lecture 28).

    Every row has the same h * w weights, but in different columns; all other entries are zero. So a convolution is a
    dense layer with few, shared weights. In practice nobody stores the matrix.

    Args:
        kernel: (h, w).
        height: H, pixels of the image.
        width: W.
        mode: ``valid``, ``same`` or ``full``; see :func:`output_size`.
    """
    h, w = kernel.shape
    rows, columns = output_size(height, h, mode), output_size(width, w, mode)
    (top, _), (left, _) = padding(h, mode), padding(w, mode)
    matrix = kernel.new_zeros(rows, columns, height, width)
    for i in range(rows):
        for j in range(columns):
            for ii in range(h):
                for jj in range(w):
                    y, x = i + ii - top, j + jj - left
                    if 0 <= y < height and 0 <= x < width:
                        matrix[i, j, y, x] = kernel[ii, jj]
    return matrix.flatten(2).flatten(0, 1)  # (H', W', H, W) -> (H' * W', H * W)


def correlate_color(image: Tensor, kernels: Tensor, bias: Tensor | None = None, mode: str = "valid") -> Tensor:
    """Cross-correlate an image (C, H, W) with kernels (O, C, h, w), as a convolutional layer does (lecture 29).

    A kernel has as many channels as the image, and the products are also summed over the channels, so each kernel
    makes one map: (O, H', W'). The bias (O,) has one number for each map.

    The ``mode`` is ``valid``, ``same`` or ``full``; it determines H' and W', see :func:`output_size`.

    Raises:
        InputError: The shapes do not match.
    """
    require(
        image.dim() == 3 and kernels.dim() == 4 and image.shape[0] == kernels.shape[1],
        f"expected an image (C, H, W) and kernels (O, C, h, w), not {tuple(image.shape)} and {tuple(kernels.shape)}",
    )
    if bias is not None:
        shape = tuple(bias.shape)
        require(shape == (len(kernels),), f"bias must have the shape ({len(kernels)},), not {shape}")
    h, w = kernels.shape[2:]
    windows = padded(image, kernels, mode).unfold(1, h, 1).unfold(2, w, 1)  # (C, H', W', h, w)
    result = torch.einsum("cijhw,ochw->oij", windows, kernels)
    return result if bias is None else result + bias[:, None, None]


def gaussian(size: int = 7, sigma: float = 2.0) -> Tensor:
    """Return a kernel (size, size) that blurs: a bell curve with standard deviation ``sigma`` in pixels and sum 1.

    Raises:
        InputError: ``size`` or ``sigma`` is not positive.
    """
    require(size >= 1 and sigma > 0, f"size and sigma must be positive, not {size} and {sigma}")
    x = torch.arange(size) - (size - 1) / 2
    bell = torch.exp(-0.5 * (x / sigma) ** 2)
    return torch.outer(bell, bell) / bell.sum() ** 2


SOBEL_X = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])  # finds vertical edges
SOBEL_Y = SOBEL_X.T  # finds horizontal edges
