"""Walks between noise, and the noise of given images: closed forms, and images whose noise is known."""

from __future__ import annotations

import pytest
import torch
from helpers import fill_, gaussian
from torch import nn

from torchdl import InputError
from torchdl.latent import invert, linear_interpolation, spherical_interpolation
from torchdl.models import Generator

# walks


def test_noise_is_interpolated_along_great_circles():
    start, stop = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.5, 3**0.5 / 2]])
    path = spherical_interpolation(start, stop, 3).view(2, 3, 2)
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], stop)
    torch.testing.assert_close(path[0, 1], torch.tensor([2**0.5, 2**0.5]))  # at 45 of 90 degrees, with the same norm
    torch.testing.assert_close(path[1, 1], torch.tensor([3**0.5 / 2, 0.5]))  # at 30 of 60
    same = gaussian(1, 8)
    torch.testing.assert_close(spherical_interpolation(same, same, 4), same.expand(4, 8), atol=1e-3, rtol=1e-3)


def test_noise_is_interpolated_along_straight_lines():
    start, stop = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-1.0, 4.0]])
    expected = [[2, 0], [1.5, 0.5], [1, 1], [0.5, 1.5], [0, 2], [1, 0], [0.5, 1], [0, 2], [-0.5, 3], [-1, 4]]
    torch.testing.assert_close(linear_interpolation(start, stop, 5), torch.tensor(expected))


def test_halfway_along_a_line_noise_is_shorter_and_on_the_sphere_it_is_not():
    start, stop = gaussian(500, 100, seed=1), gaussian(500, 100, seed=2)
    halfway = [
        walk(start, stop, 3)[1::3].square().sum(1).mean() for walk in (linear_interpolation, spherical_interpolation)
    ]
    assert float(halfway[0]) == pytest.approx(50, rel=0.03)
    assert float(halfway[1]) == pytest.approx(100, rel=0.03)


# noise of images


def small_generator(seed: int = 0, **options) -> Generator:
    return fill_(Generator(z_dim=4, img_dim=24, hidden=(32,), **options), seed)


def test_images_that_the_generator_made_are_found():
    generator = small_generator()
    z = gaussian(6, 4, seed=7)
    images = generator(z).detach().view(6, 2, 3, 4)
    found = invert(generator, images, steps=300, restarts=4)
    assert (found.z.shape, found.images.shape, found.errors.shape) == ((6, 4), (6, 2, 3, 4), (6,))
    assert float(found.errors.max()) < 1e-6
    torch.testing.assert_close(found.z, z, atol=0.02, rtol=0)  # 24 numbers of 4 that this network can tell apart


def test_the_errors_are_those_of_the_images_and_the_images_those_of_the_noise():
    generator, images = small_generator(), gaussian(3, 24, seed=5).tanh()
    found = invert(generator, images, steps=20, restarts=3)
    torch.testing.assert_close(found.images, generator(found.z).detach())
    torch.testing.assert_close(found.errors, (found.images - images).square().mean(1))
    assert float(found.errors.min()) > 0.01  # what it cannot make is not found


def test_of_a_linear_generator_the_noise_is_that_of_least_squares():
    generator = nn.Linear(3, 10).double()
    generator.z_dim = 3
    fill_(generator, 2)
    images = gaussian(4, 10, seed=1, dtype=torch.float64)
    found = invert(generator, images, steps=1000, restarts=2)
    weight, bias = generator.weight.detach(), generator.bias.detach()
    expected = torch.linalg.lstsq(weight, (images - bias).T).solution.T
    torch.testing.assert_close(found.z, expected, atol=1e-3, rtol=0)


def test_the_same_seed_finds_the_same_and_the_first_of_many_images_are_as_if_alone():
    generator, images = small_generator(), gaussian(5, 24, seed=5).tanh()
    found = invert(generator, images, steps=15, restarts=3, seed=1)
    again = invert(generator, images, steps=15, restarts=3, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    assert not torch.equal(invert(generator, images, steps=15, restarts=3, seed=2).z, found.z)
    torch.testing.assert_close(invert(generator, images[:2], steps=15, restarts=3, seed=1).z, found.z[:2])


class Folded(nn.Module):
    """Of every z but those near 1 the image is 0 and has no slope."""

    z_dim = 1

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.relu(1 - 4 * (z - 1).abs())


def test_more_restarts_find_what_one_misses():
    image = torch.ones(8, 1)
    errors = [invert(Folded(), image, steps=100, restarts=count).errors for count in (1, 30)]
    assert float(errors[0].max()) == 1
    assert float(errors[1].max()) < 0.01


def test_the_generator_is_left_as_it_was():
    generator = small_generator(batch_norm=0.8).train()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    with torch.no_grad():  # as a script runs
        invert(generator, torch.zeros(2, 24), steps=2, restarts=2)
    assert generator.training
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear_interpolation(torch.zeros(2, 3), torch.zeros(2, 4), 3), r"\(2, 3\).*\(2, 4\)"),
        (lambda: spherical_interpolation(torch.zeros(3), torch.zeros(3), 3), r"\(N, Z\).*\(3,\)"),
        (lambda: spherical_interpolation(torch.zeros(2, 3), torch.zeros(2, 3), 1), "steps.*2.*1"),
        (lambda: invert(small_generator(), torch.zeros(0, 24)), "image.*0"),
        (lambda: invert(small_generator(), torch.zeros(1, 24), steps=0), "steps.*0"),
        (lambda: invert(small_generator(), torch.zeros(1, 24), restarts=0), "restarts.*0"),
        (lambda: invert(small_generator(), torch.zeros(1, 24), lr=0), "lr.*0"),
        (lambda: invert(small_generator(), torch.zeros(1, 25)), "24.*25"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()
