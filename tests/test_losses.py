from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from hypothesis import given, settings, strategies as st
from torch import nn

from torchdl import InputError, losses
from torchdl.losses import GAN_LOSSES, gradient_penalty, info_nce, log_bilinear_scores, paired_bce, paired_logits

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


# contrastive predictive coding


def slow_info_nce(predicted, candidates, target, temperature=1.0):
    """Do what the definition says, a number at a time: -log(own / sum of all), (S, B)."""
    predicted, candidates = predicted.tolist(), candidates.tolist()
    losses = []
    for s in range(len(predicted[0])):
        losses.append([])
        for b in range(len(predicted)):
            own = target[b] if target.dim() == 1 else target[s][b]
            scores = []
            for candidate in candidates:
                code = candidate[s] if isinstance(candidate[0], list) else candidate
                scores.append(sum(x * y for x, y in zip(predicted[b][s], code, strict=True)) / temperature)
            top = max(scores)
            losses[-1].append(top + math.log(sum(math.exp(x - top) for x in scores)) - scores[int(own)])
    return torch.tensor(losses, dtype=torch.float64)


def slow_paired_logits(predicted, codes):
    logits = []
    for p_steps, c_steps in zip(predicted.tolist(), codes.tolist(), strict=True):
        per_step = [
            sum(x * y for x, y in zip(p, c, strict=True)) / len(p) for p, c in zip(p_steps, c_steps, strict=True)
        ]
        logits.append(sum(per_step) / len(per_step))
    return torch.tensor(logits, dtype=torch.float64)


SIZES = st.integers(1, 5)


@given(
    batch=SIZES,
    steps=SIZES,
    size=SIZES,
    extra=st.integers(0, 4),
    seed=st.integers(0, 999),
    each_step=st.booleans(),
    target_each_step=st.booleans(),
    temperature=st.sampled_from([0.1, 1.0, 7.0]),
)
@settings(max_examples=60, deadline=None)
def test_info_nce_is_its_definition(batch, steps, size, extra, seed, each_step, target_each_step, temperature):
    count = batch + extra
    predicted = gaussian(batch, steps, size, seed=seed, dtype=torch.float64)
    candidates = gaussian(*((count, steps, size) if each_step else (count, size)), seed=seed + 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, batch) if target_each_step else (batch,)
    target = torch.randint(count, shape, generator=generator)
    loss = info_nce(predicted, candidates, target, temperature)
    assert loss.shape == (steps, batch)
    torch.testing.assert_close(loss, slow_info_nce(predicted, candidates, target, temperature))
    assert (loss > -1e-12).all()

    order = torch.randperm(count, generator=generator)
    permuted = info_nce(predicted, candidates[order], order.argsort()[target], temperature)
    torch.testing.assert_close(permuted, loss)
    # a vector added to all candidates adds one number to all of a prediction's scores
    shifted = info_nce(predicted, candidates + gaussian(size, seed=seed + 2, dtype=torch.float64), target, temperature)
    torch.testing.assert_close(shifted, loss, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(info_nce(predicted / temperature, candidates, target), loss)


@given(batch=SIZES, steps=SIZES, size=SIZES, seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_paired_loss_is_its_definition(batch, steps, size, seed):
    predicted = gaussian(batch, steps, size, seed=seed, dtype=torch.float64)
    codes = gaussian(batch, steps, size, seed=seed + 1, dtype=torch.float64)
    label = torch.randint(2, (batch,), generator=torch.Generator().manual_seed(seed))
    logits = slow_paired_logits(predicted, codes)
    torch.testing.assert_close(paired_logits(predicted, codes), logits)
    probability = logits.sigmoid()
    expected = -torch.where(label == 1, probability, 1 - probability).log()
    torch.testing.assert_close(paired_bce(predicted, codes, label), expected)


def test_info_nce_of_one_step_by_hand():
    # scores (2, 0, 1) of the one prediction
    predicted, candidates = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[2.0, 0.0], [1.0, -1.0], [0.0, 1.0]])
    expected = math.log(math.e**2 + 1 + math.e) - 1
    assert info_nce(predicted, candidates, torch.tensor([2])).item() == pytest.approx(expected)
    by_half = math.log(math.e**4 + 1 + math.e**2) - 2
    assert info_nce(predicted, candidates, torch.tensor([2]), 0.5).item() == pytest.approx(by_half)
    assert log_bilinear_scores(predicted, candidates, 0.5).tolist() == [[[4.0, 0.0, 2.0]]]


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_info_nce_of_equal_scores_is_log_n(count):
    same = gaussian(1, 3, 5).expand(count, 3, 5)
    loss = info_nce(gaussian(count, 3, 5, seed=1), same, torch.arange(count))
    torch.testing.assert_close(loss, torch.full((3, count), math.log(count)))
    zero = info_nce(torch.zeros(count, 3, 5), gaussian(count, 3, 5), torch.arange(count))
    torch.testing.assert_close(zero, torch.full((3, count), math.log(count)))


def test_info_nce_of_what_is_beyond_doubt_is_zero_and_of_what_is_wrong_is_large():
    codes = 100 * torch.eye(4)[:, None].expand(4, 2, 4)
    assert torch.equal(info_nce(codes, codes, torch.arange(4)), torch.zeros(2, 4))
    assert torch.equal(info_nce(codes, codes, torch.tensor([1, 2, 3, 0])), torch.full((2, 4), 1e4))


def test_every_step_has_its_own_candidates_where_there_are_some():
    codes = 50 * torch.eye(6).reshape(3, 2, 6)
    each = info_nce(codes, codes, torch.arange(3))
    all_of_them = info_nce(codes, codes.flatten(0, 1), torch.arange(3) * 2 + torch.tensor([[0], [1]]))
    assert torch.equal(each, torch.zeros(2, 3))
    assert torch.equal(all_of_them, torch.zeros(2, 3))
    # the first step's code as every step's candidate: the second step finds nothing like it
    first = info_nce(codes, codes[:, 0], torch.arange(3))
    torch.testing.assert_close(first, torch.tensor([[0.0], [math.log(3)]]).expand(2, 3))


@pytest.mark.parametrize("shape", [(3, 2, 4), (3, 4)])
def test_contrastive_gradients_are_those_of_finite_differences(shape):
    predicted = gaussian(3, 2, 4, seed=5, dtype=torch.float64).requires_grad_()
    candidates = gaussian(*shape, seed=6, dtype=torch.float64).requires_grad_()
    target = torch.tensor([2, 0, 1])
    assert torch.autograd.gradcheck(lambda p, c: info_nce(p, c, target, 0.7), (predicted, candidates))
    if len(shape) == 3:
        label = torch.tensor([1, 0, 1])
        assert torch.autograd.gradcheck(lambda p, c: paired_bce(p, c, label), (predicted, candidates))


CONTRASTIVE = {
    "infonce": lambda predicted, codes: info_nce(predicted, codes, torch.arange(len(codes))),
    "infonce, 2-d": lambda predicted, codes: info_nce(predicted, codes[:, 0], torch.arange(len(codes))),
    "paired": lambda predicted, codes: paired_bce(predicted, codes, torch.arange(len(codes)) % 2),
    "logits": paired_logits,
}


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_contrastive_losses_compute_in_float32_under_autocast(name, dtype):
    loss = CONTRASTIVE[name]
    predicted, codes = gaussian(6, 3, 40).to(dtype), gaussian(6, 3, 40, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(predicted, codes)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, loss(predicted.float(), codes.float()))


def test_paired_logits_of_zero_give_log_2():
    loss = paired_bce(torch.zeros(4, 2, 3), gaussian(4, 2, 3), torch.tensor([0, 1, 1, 0]))
    torch.testing.assert_close(loss, torch.full((4,), LOG2))


def test_paired_logits_by_hand():
    predicted = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    codes = torch.tensor([[[4.0, 1.0], [1.0, 9.0]]])
    assert paired_logits(predicted, codes).tolist() == [(6 / 2 + 3 / 2) / 2]


@pytest.mark.parametrize("name", ["infonce", "infonce, 2-d", "paired"])
@pytest.mark.parametrize("size", [1e3, -1e3])
def test_huge_scores_give_finite_losses_and_gradients(name, size):
    predicted = (size * gaussian(4, 2, 3)).requires_grad_()
    codes = (1e3 * gaussian(4, 2, 3, seed=1)).requires_grad_()
    loss = CONTRASTIVE[name](predicted, codes)
    assert loss.isfinite().all()
    assert loss.max() > 1e4  # so large that sigmoids and exponentials are 0, 1 or infinite
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), [predicted, codes]))


@pytest.mark.parametrize("name", ["infonce", "infonce, 2-d", "paired"])
def test_nan_in_one_prediction_is_nan_in_its_loss_alone(name):
    predicted = gaussian(4, 1, 3)
    predicted[2, 0, 1] = math.nan
    assert CONTRASTIVE[name](predicted, gaussian(4, 1, 3, seed=1)).isnan().flatten().tolist() == [0, 0, 1, 0]


CODES = torch.zeros(4, 2, 3)  # (B, S, D)
ROWS = torch.arange(4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: info_nce(CODES, CODES, ROWS, 0.0), "temperature must be positive, not 0"),
        (lambda: info_nce(CODES, CODES, ROWS, -1.0), "temperature must be positive, not -1"),
        (lambda: info_nce(CODES[:, :1], CODES, ROWS), r"not \(4, 1, 3\) and \(4, 2, 3\)"),
        (lambda: info_nce(CODES[:, 0], CODES[:, 0], ROWS), r"must be \(B, S, D\).*not \(4, 3\)"),
        (lambda: info_nce(CODES, CODES[:, 0, :2], ROWS), r"and \(4, 2\)"),
        (lambda: info_nce(CODES, CODES, ROWS[:, None].expand(4, 2)), r"here \(2, 4\), not \(4, 2\)"),
        (lambda: info_nce(CODES, CODES, ROWS[:1]), r"here \(2, 4\), not \(1,\)"),
        (lambda: info_nce(CODES, CODES, ROWS.float()), "int64.*not torch.float32"),
        (lambda: paired_logits(CODES, CODES[:1]), r"not \(4, 2, 3\) and \(1, 2, 3\)"),
        (lambda: paired_bce(CODES, CODES, torch.ones(4, 1)), r"here \(4,\), not \(4, 1\)"),
    ],
)
def test_shapes_that_would_be_broadcast_are_one_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
