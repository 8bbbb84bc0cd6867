"""Interpolate between a generator's noise vectors, and find the noise of a given image.

Shapes: N images, R restarts, Z dimensions of the noise, D numbers per image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchdl import random
from torchdl.errors import require


def linear_interpolation(start: Tensor, stop: Tensor, steps: int) -> Tensor:
    """Interpolate between rows of noise along straight lines.

    In many dimensions, the midpoint of two normal draws is shorter than they are, by a factor of √½. The generator was
    not trained on such noise (White 2016): see :func:`spherical_interpolation`.

    Args:
        start: (N, Z), where the paths start.
        stop: (N, Z), where they end.
        steps: Number of points of each path, both ends included.

    Returns:
        (N * steps, Z): one path after another.
    """
    share = shares(start, stop, steps)
    return torch.lerp(start[:, None], stop[:, None], share).flatten(0, 1)  # (N, steps, Z) -> (N * steps, Z)


def spherical_interpolation(start: Tensor, stop: Tensor, steps: int) -> Tensor:
    """Interpolate between rows of noise along great circles, which keep the length of normal noise (White 2016).

    Result (N * steps, Z) as that of :func:`linear_interpolation`.

    Args:
        start, stop, steps: As for :func:`linear_interpolation`.
    """
    share = shares(start, stop, steps)
    cosine = torch.cosine_similarity(start, stop).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = torch.acos(cosine)[:, None, None]  # (N, 1, 1)
    path = torch.sin((1 - share) * angle) * start[:, None] + torch.sin(share * angle) * stop[:, None]
    return (path / torch.sin(angle)).flatten(0, 1)  # (N, steps, Z) -> (N * steps, Z)


def shares(start: Tensor, stop: Tensor, steps: int) -> Tensor:
    """Return how far each point is along its path from ``start`` to ``stop``, (N, Z) each: (1, steps, 1) from 0 to 1.

    Raises:
        InputError: The ends have other shapes, or there are fewer than two steps.
    """
    shapes = f"{tuple(start.shape)} and {tuple(stop.shape)}"
    same = start.dim() == 2 and start.shape == stop.shape
    require(same, f"start and stop must have the same shape (N, Z), not {shapes}")
    require(steps >= 2, f"steps must be 2 or more, both ends included, not {steps}")
    return torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[None, :, None]  # (1, steps, 1)


INTERPOLATIONS = {"linear": linear_interpolation, "spherical": spherical_interpolation}


class Inverted(NamedTuple):
    """Noise ``z`` (N, Z), its images (in the given images' shape), and their mean squared errors (N,)."""

    z: Tensor
    images: Tensor
    errors: Tensor


def invert(
    generator: nn.Module, images: Tensor, steps: int = 500, restarts: int = 8, seed: int = 0, lr: float = 0.2
) -> Inverted:
    """Find the noise from which a generator makes the given images, or the most similar images that it can make.

    Adam minimises the squared error of the pixels (Creswell and Bharath 2018), starting from several normal draws. Each
    image keeps the best result, since a single draw may end in a local minimum (Lipton and Tripathi 2017). All images
    and restarts form one batch but do not affect each other, so an image's result does not depend on those after it.

    Args:
        generator: Maps noise (B, Z) to images (B, ...) of D numbers and has ``z_dim``; its weights are not changed.
        images: (N, ...) of D numbers, in the generator's range and on its device.
        steps: Number of gradient steps.
        restarts: R, the number of draws for each image.
        seed: The seed of the draws.
        lr: The learning rate. It stays constant: decay to 0 found worse images in the same number of steps.

    Raises:
        InputError: There is no image, an argument is not positive, or the generator makes images of another size.
    """
    require(len(images) >= 1, "invert needs at least 1 image, not 0")
    require(min(steps, restarts) >= 1, f"steps and restarts must be 1 or more, not {steps} and {restarts}")
    require(lr > 0, f"lr must be positive, not {lr}")
    count, z_dim = len(images), int(generator.z_dim)  # type: ignore[arg-type]
    index = torch.arange(count * restarts, device=images.device)
    z = random.normal(seed, 0, index, z_dim, random.Stream.INVERSION).to(images.dtype).requires_grad_()  # (N * R, Z)
    target = images.detach().flatten(1).repeat_interleave(restarts, 0)  # (N, ...) -> (N * R, D)
    optimizer = torch.optim.Adam([z], lr)

    def generate(noise: Tensor) -> Tensor:
        generated = generator(noise).flatten(1)  # (N * R, ...) -> (N * R, D)
        require(
            generated.shape == target.shape,
            f"the generator's images have {generated.shape[1]} numbers, but the given ones have {target.shape[1]}",
        )
        return generated

    was_training = generator.training
    generator.eval()  # in training mode, batch norm would couple the rows
    try:
        with torch.enable_grad():
            for _ in range(steps):
                optimizer.zero_grad()
                errors = (generate(z) - target).square().mean(1)  # (N * R,)
                errors.sum().backward(inputs=[z])  # each row of a sum's gradient is its own
                optimizer.step()
        with torch.no_grad():
            generated = generate(z)
            errors = (generated - target).square().mean(1).view(count, restarts)  # (N * R,) -> (N, R)
            best = errors.argmin(1) + restarts * torch.arange(count, device=images.device)  # (N,) of N * R
            return Inverted(z.detach()[best], generated[best].view_as(images), errors.flatten()[best])
    finally:
        generator.train(was_training)
