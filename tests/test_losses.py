from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from torch import nn

from torchdl import losses
from torchdl.losses import GAN_LOSSES, gradient_penalty

DISCRIMINATOR = {name: loss.discriminator for name, loss in GAN_LOSSES.items()}
GENERATOR = {name: loss.generator for name, loss in GAN_LOSSES.items()}
LOG2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("non_saturating", LOG2, LOG2),
        ("minimax", LOG2, -LOG2),
        ("least_squares", 0.5, 0.5),
        ("hinge", 2.0, 0.0),
        ("wgan_gp", 0.0, 0.0),
    ],
)
def test_logits_of_zero_give_the_closed_form(name, discriminator, generator):
    zero = torch.zeros(6, 1)
    assert DISCRIMINATOR[name](zero, zero).item() == pytest.approx(discriminator, abs=1e-7)
    assert GENERATOR[name](zero).item() == pytest.approx(generator, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # real (2, -1), fake (0.5, -3), by hand
        ("least_squares", ((1 + 4) / 2 + (0.25 + 9) / 2) / 2, (0.25 + 16) / 4),
        ("hinge", (0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
        ("wgan_gp", -1.25 - 0.5, 1.25),
    ],
)
def test_losses_by_hand(name, discriminator, generator):
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    assert DISCRIMINATOR[name](real, fake).item() == pytest.approx(discriminator)
    assert GENERATOR[name](fake).item() == pytest.approx(generator)


def test_binary_losses_are_binary_cross_entropy_of_the_probabilities():
    real, fake = gaussian(9, 1, seed=1, dtype=torch.float64), gaussian(9, 1, seed=2, dtype=torch.float64)
    p, q, one = real.sigmoid(), fake.sigmoid(), torch.ones(9, 1, dtype=torch.float64)
    expected = (F.binary_cross_entropy(p, one) + F.binary_cross_entropy(q, 0 * one)) / 2
    torch.testing.assert_close(losses.binary_discriminator_loss(real, fake), expected)
    # the two-player game: the generator's loss is the discriminator's own term on generated images, negated
    torch.testing.assert_close(losses.minimax_generator_loss(fake), -F.binary_cross_entropy(q, 0 * one))
    torch.testing.assert_close(losses.minimax_generator_loss(fake), (1 - q).log().mean())
    torch.testing.assert_close(losses.non_saturating_generator_loss(fake), F.binary_cross_entropy(q, one))


def test_real_and_fake_may_differ_in_number_and_weigh_the_same():
    real, fake = torch.full((2, 1), 1.0), torch.full((8, 1), 1.0)
    expected = (F.softplus(torch.tensor(-1.0)) + F.softplus(torch.tensor(1.0))) / 2
    torch.testing.assert_close(losses.binary_discriminator_loss(real, fake), expected)


@pytest.mark.parametrize("name", GAN_LOSSES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_give_finite_losses_and_gradients(name, size):
    real = torch.tensor([[size], [-size]], requires_grad=True)
    fake = torch.tensor([[-size], [size]], requires_grad=True)
    for loss in (DISCRIMINATOR[name](real, fake), GENERATOR[name](fake)):
        assert loss.shape == ()
        assert loss.isfinite()
        gradients = torch.autograd.grad(loss, [real, fake], allow_unused=True)
        assert all(g.isfinite().all() for g in gradients if g is not None)


def test_the_binary_losses_gradients_are_the_derivatives_where_the_discriminator_is_sure():
    # sigmoid(t) / n at t = -1e4, 1e4: exactly 0 and 1/n, where log(sigmoid) would have given nan
    fake = torch.tensor([-1e4, 1e4], requires_grad=True)
    (minimax,) = torch.autograd.grad(losses.minimax_generator_loss(fake), fake)
    (non_saturating,) = torch.autograd.grad(losses.non_saturating_generator_loss(fake), fake)
    assert minimax.tolist() == [0.0, -0.5]
    assert non_saturating.tolist() == [-0.5, 0.0]


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    # seeds whose values are far from the hinge's corners
    real = gaussian(5, 1, seed=3, dtype=torch.float64).requires_grad_()
    fake = gaussian(5, 1, seed=4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(DISCRIMINATOR[name], (real, fake))
    assert torch.autograd.gradcheck(GENERATOR[name], (fake,))


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_a_step_down_the_loss_moves_the_logits_the_right_way(name):
    real, fake = torch.tensor([0.3], requires_grad=True), torch.tensor([0.2], requires_grad=True)
    d_real, d_fake = torch.autograd.grad(DISCRIMINATOR[name](real, fake), [real, fake])
    (g_fake,) = torch.autograd.grad(GENERATOR[name](fake), fake)
    assert d_real < 0 < d_fake
    assert g_fake < 0


class LinearCritic(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.flatten(1) @ self.weight


@pytest.mark.parametrize(("weight", "norm"), [([3.0, 0, 4.0, 0], 5), ([1.0, 0, 0, 0], 1), ([0.0, 0.5, 0, 0], 0.5)])
def test_the_penalty_of_a_linear_critic_is_its_norm_less_one_squared(weight, norm):
    critic = LinearCritic(torch.tensor(weight))
    real, fake = gaussian(6, 1, 2, 2), gaussian(6, 1, 2, 2, seed=1)
    assert gradient_penalty(critic, real, fake, torch.rand(6)).item() == (norm - 1) ** 2


def test_the_penalty_is_the_mean_over_examples_at_their_own_mixtures():
    # a critic of sum(x^2) / 2 has the gradient x, so each example's norm is that of its mixture
    real, fake = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    mix = torch.tensor([0.25, 0.5])  # mixtures (0.5, 0) and (0, 3)
    penalty = gradient_penalty(lambda x: x.square().sum(1, keepdim=True) / 2, real, fake, mix)
    assert penalty.item() == pytest.approx(((0.5 - 1) ** 2 + (3 - 1) ** 2) / 2)


def test_the_penalty_differentiates_in_the_critics_parameters_and_leaves_its_inputs_alone():
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    real, fake = gaussian(5, 3, dtype=torch.float64), gaussian(5, 3, seed=1, dtype=torch.float64)
    mix = torch.linspace(0, 1, 5, dtype=torch.float64)
    weight = critic[0].weight
    (gradient,) = torch.autograd.grad(gradient_penalty(critic, real, fake, mix), weight)
    step = 1e-6
    expected = torch.zeros_like(weight)
    with torch.no_grad():
        for i in range(weight.numel()):
            ends = []
            for sign in (1, -1):
                weight.view(-1)[i] += sign * step
                with torch.enable_grad():
                    ends.append(gradient_penalty(critic, real, fake, mix).item())
                weight.view(-1)[i] -= sign * step
            expected.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)
    assert not real.requires_grad
    assert not fake.requires_grad
