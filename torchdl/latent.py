"""Walk through the noise that a generator makes images of, and find the noise of a given image.

Shapes: N images, R restarts, Z numbers of noise, D numbers an image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdl import random
from torchdl.errors import require


def linear_interpolation(start: Tensor, stop: Tensor, steps: int) -> Tensor:
    """Walk between rows of noise along straight lines.

    Halfway between two normal draws of many dimensions noise is shorter, by a factor of √½, than any that the generator
    was trained on (White 2016): see :func:`spherical_interpolation`.

    Args:
        start: (N, Z) where to begin.
        stop: (N, Z) where to end.
        steps: How many points, both ends included.

    Returns:
        (N * steps, Z): each row's walk in turn.
    """
    share = shares(start, stop, steps)
    return torch.lerp(start[:, None], stop[:, None], share).flatten(0, 1)  # (N, steps, Z) -> (N * steps, Z)


def spherical_interpolation(start: Tensor, stop: Tensor, steps: int) -> Tensor:
    """Walk between rows of noise along great circles, where normal noise of many dimensions lies (White 2016).

    Args:
        start: (N, Z) where to begin.
        stop: (N, Z) where to end.
        steps: How many points, both ends included.

    Returns:
        (N * steps, Z): each row's walk in turn.
    """
    share = shares(start, stop, steps)
    cosine = torch.cosine_similarity(start, stop).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = torch.acos(cosine)[:, None, None]  # (N, 1, 1)
    path = torch.sin((1 - share) * angle) * start[:, None] + torch.sin(share * angle) * stop[:, None]
    return (path / torch.sin(angle)).flatten(0, 1)  # (N, steps, Z) -> (N * steps, Z)


def shares(start: Tensor, stop: Tensor, steps: int) -> Tensor:
    """Give how far along each point of a walk is, (1, steps, 1) from 0 to 1."""
    require(
        start.dim() == 2 and start.shape == stop.shape,
        f"a walk begins and ends at rows of noise, (N, Z) both, not {tuple(start.shape)} and {tuple(stop.shape)}",
    )
    require(steps >= 2, f"a walk has 2 points or more, both ends included, not {steps}")
    return torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[None, :, None]  # (1, steps, 1)


INTERPOLATIONS = {"linear": linear_interpolation, "spherical": spherical_interpolation}


class Inverted(NamedTuple):
    """Noise (N, Z), the images made of it, shaped as those that were given, and mean squared errors (N,)."""

    z: Tensor
    images: Tensor
    errors: Tensor


def invert(
    generator: Any, images: Tensor, steps: int = 500, restarts: int = 8, seed: int = 0, lr: float = 0.2
) -> Inverted:
    """Find the noise that a generator makes given images of, or the most similar ones it can.

    By gradient descent on the squared error of the pixels (Creswell and Bharath 2018), with Adam, from several normal
    draws, of which each image keeps the best: one alone may end in a local minimum (Lipton and Tripathi 2017). All
    images and restarts are one batch and do not touch one another, so that the first images of many have the same
    result.

    Args:
        generator: Makes images (B, ...) of D numbers of noise (B, Z); it says its Z as ``z_dim``. Its weights stay.
        images: (N, ...) of D numbers, in the generator's range and on its device.
        steps: Steps of gradient descent.
        restarts: R, draws to begin at for each image.
        seed: What they are drawn by.
        lr: The learning rate, which stays: one that fell to 0 found worse images in as many steps.
    """
    require(len(images) >= 1, "there is no image to find the noise of")
    require(min(steps, restarts) >= 1, f"steps and restarts must be 1 or more, not {steps} and {restarts}")
    require(lr > 0, f"the learning rate must be a positive number, not {lr}")
    count, z_dim = len(images), int(generator.z_dim)
    index = torch.arange(count * restarts, device=images.device)
    z = random.normal(seed, 0, index, z_dim).to(images.dtype).requires_grad_()  # (N * R, Z)
    wanted = images.detach().flatten(1).repeat_interleave(restarts, 0)  # (N, ...) -> (N * R, D)
    optimizer = torch.optim.Adam([z], lr)

    def made_of(noise: Tensor) -> Tensor:
        made = generator(noise).flatten(1)  # (N * R, ...) -> (N * R, D)
        require(
            made.shape == wanted.shape,
            f"the generator makes {made.shape[1]} numbers an image, but these images have {wanted.shape[1]}",
        )
        return made

    was_training = generator.training
    generator.eval()  # in training a batch norm would couple the rows
    try:
        with torch.enable_grad():
            for _ in range(steps):
                optimizer.zero_grad()
                errors = (made_of(z) - wanted).square().mean(1)  # (N * R,)
                errors.sum().backward(inputs=[z])  # the sum: each row's gradient is its own
                optimizer.step()
        with torch.no_grad():
            made = made_of(z)
            errors = (made - wanted).square().mean(1).view(count, restarts)  # (N * R,) -> (N, R)
            best = errors.argmin(1) + restarts * torch.arange(count, device=images.device)  # (N,) of N * R
            return Inverted(z.detach()[best], made[best].view_as(images), errors.flatten()[best])
    finally:
        generator.train(was_training)
