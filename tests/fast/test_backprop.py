"""Backpropagation that is written out equals autograd's."""

from __future__ import annotations

from itertools import pairwise, starmap

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn

from torchdl import ArrayDataset, BatchLoader, GANTask, Trainer, deep_gan, simple_gan
from torchdl.fast.backprop import Backprop, GANBackprop
from torchdl.losses import GAN_LOSSES
from torchdl.tasks import Update


def stack(*widths: int, slope: float = 0.2, tanh: bool = False, seed: int = 0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [nn.LeakyReLU(slope + 0.1 * i)] if i else []  # a slope of its own for every layer
        layers += [nn.Linear(inputs, outputs)]
    return fill_(nn.Sequential(*layers, *([nn.Tanh()] if tanh else [])), seed)


def grads(module: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters()]


def clear(*modules: nn.Module) -> None:
    for module in modules:
        module.zero_grad()


WIDTHS = [(5, 3), (5, 4, 3), (5, 6, 4, 3), (5, 8, 7, 6, 3)]


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("widths", WIDTHS)
def test_outputs_and_gradients_are_autograds(widths, tanh):
    layers, x, weights = stack(*widths, tanh=tanh), gaussian(7, 5, seed=1), gaussian(7, 3, seed=2)
    x.requires_grad_()
    expected = layers(x)
    (expected * weights).sum().backward()
    wanted, at_input = grads(layers), x.grad.clone()
    clear(layers)
    written_out = Backprop(layers)
    with torch.no_grad():
        given = x.detach().clone()
        output, tape = written_out.forward(given)
        got = written_out.backward(tape, weights)
    torch.testing.assert_close(output, expected.detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got, at_input, atol=1e-6, rtol=1e-6)
    assert torch.equal(given, x)
    for gradient, reference in zip(grads(layers), wanted, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("widths", WIDTHS)
def test_gradients_are_added_to_those_already_there_and_written_afresh_after_none(widths):
    layers, x, weights = stack(*widths, tanh=True), gaussian(7, 5, seed=1), gaussian(7, 3, seed=2)
    written_out = Backprop(layers)

    def go() -> None:
        with torch.no_grad():
            written_out.backward(written_out.forward(x)[1], weights.clone(), inputs=False)

    go()
    once = grads(layers)
    go()
    for gradient, reference in zip(grads(layers), once, strict=True):
        torch.testing.assert_close(gradient, 2 * reference)
    for set_to_none in (True, False):
        layers.zero_grad(set_to_none)
        go()
        for gradient, reference in zip(grads(layers), once, strict=True):
            torch.testing.assert_close(gradient, reference)


def test_a_pass_for_the_inputs_alone_leaves_the_parameters_without_gradients():
    layers = stack(5, 4, 3)
    written_out = Backprop(layers)
    with torch.no_grad():
        _, tape = written_out.forward(gaussian(2, 5))
        at_input = written_out.backward(tape, torch.ones(2, 3), parameters=False)
    assert at_input.shape == (2, 5)
    assert all(p.grad is None for p in layers.parameters())


PAIRS = [((3, 6), (6, 1)), ((3, 8, 6), (6, 5, 1)), ((3, 9, 8, 6), (6, 7, 5, 4, 1))]


@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
@pytest.mark.parametrize(("generator_widths", "discriminator_widths"), PAIRS)
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("accumulated", [False, True])
def test_both_updates_of_a_gan_are_autograds(loss, generator_widths, discriminator_widths, scale, accumulated):
    generator, discriminator = stack(*generator_widths, tanh=True), stack(*discriminator_widths, seed=1)
    with torch.no_grad():
        discriminator[-1].weight *= 4  # away from logits of 0, where the two losses' gradients are the same
    real, noise = gaussian(5, 6, seed=2).tanh(), gaussian(5, 3, seed=3)
    base = 0.5 if accumulated else None

    def prepare() -> None:
        for parameter in (*generator.parameters(), *discriminator.parameters()):
            parameter.grad = None if base is None else torch.full_like(parameter, base)

    fake = generator(noise)
    real_logits, fake_logits = discriminator(real), discriminator(fake.detach())
    d_loss = GAN_LOSSES[loss].discriminator(real_logits, fake_logits)
    g_loss = GAN_LOSSES[loss].generator(discriminator(fake))
    prepare()
    (scale * d_loss).backward(inputs=list(discriminator.parameters()))
    (scale * g_loss).backward(inputs=list(generator.parameters()))
    wanted = grads(generator), grads(discriminator)

    prepare()
    written_out = GANBackprop(generator, discriminator, loss)
    updates = starmap(Update, written_out.updates(real, noise, trains_generator=True))
    update = next(updates)
    assert update.optimizer == "discriminator"
    torch.testing.assert_close(update.loss, d_loss.detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(update.metrics["D(x)"], real_logits.sigmoid().mean().detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(update.metrics["D(G(z))"], fake_logits.sigmoid().mean().detach(), atol=1e-6, rtol=1e-6)
    update.backward(scale)
    after_discriminator = grads(discriminator)
    assert all((p.grad is None) if base is None else bool((p.grad == base).all()) for p in generator.parameters())
    update = next(updates)
    assert update.optimizer == "generator"
    torch.testing.assert_close(update.loss, g_loss.detach(), atol=1e-6, rtol=1e-6)
    update.backward(scale)
    for mine, theirs in zip((grads(generator), grads(discriminator)), wanted, strict=True):
        for gradient, reference in zip(mine, theirs, strict=True):
            torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-6)
    # the generator's update gives the discriminator nothing
    assert all(torch.equal(a, b) for a, b in zip(grads(discriminator), after_discriminator, strict=True))


def test_a_batch_of_another_size_in_between_changes_nothing():
    generator, discriminator = stack(3, 8, 6, tanh=True), stack(6, 5, 1, seed=1)
    written_out = GANBackprop(generator, discriminator, "non_saturating")
    for size in (5, 2, 5):
        real, noise = gaussian(size, 6, seed=size), gaussian(size, 3, seed=size + 1)
        clear(discriminator)
        (update,) = starmap(Update, written_out.updates(real, noise, trains_generator=False))
        update.backward(1.0)
        got, fake = grads(discriminator), generator(noise).detach()
        clear(discriminator)
        GAN_LOSSES["minimax"].discriminator(discriminator(real), discriminator(fake)).backward()
        for gradient, reference in zip(got, grads(discriminator), strict=True):
            torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-6)


class Named(nn.Sequential):
    """A stack with a forward of its own, for all that can be known."""


def frozen() -> nn.Sequential:
    layers = stack(4, 3, 1)
    layers[0].bias.requires_grad_(False)
    return layers


def test_the_notes_pair_is_supported():
    gan = simple_gan()
    assert Backprop.supports(gan.generator.stack)
    assert Backprop.supports(gan.discriminator.stack)
    assert Backprop.supports(deep_gan().discriminator.stack)
    for loss in ("non_saturating", "minimax"):
        assert GANBackprop.of(gan.generator, gan.discriminator, loss) is not None


@pytest.mark.parametrize(
    "layers",
    [
        nn.Sequential(),
        nn.Sequential(nn.Tanh()),
        nn.Linear(4, 1),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.1)),
        nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.BatchNorm1d(3), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.0), nn.Linear(3, 1)),  # a sign of 0 says nothing of the input's
        nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(-0.1), nn.Linear(3, 1)),
        nn.Sequential(nn.Linear(4, 1, bias=False)),
        nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()),
        Named(nn.Linear(4, 1)),
        frozen(),
        stack(4, 3, 1).double(),
        stack(4, 3, 1).bfloat16(),
        stack(4, 3, 1).to("meta"),
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 1))),
        deep_gan().generator.stack,
    ],
    ids=lambda layers: type(layers[0] if len(list(layers.children())) else layers).__name__,
)
def test_every_other_stack_is_left_to_autograd(layers):
    assert not Backprop.supports(layers)


def test_networks_without_a_stack_are_left_to_autograd():
    assert GANBackprop.of(simple_gan().generator, nn.Linear(784, 1), "minimax") is None
    assert GANBackprop.of(nn.Linear(64, 784), simple_gan().discriminator, "minimax") is None
    assert not Backprop.supports(None)


def test_networks_that_do_more_than_their_stack_are_left_to_autograd():
    class Louder(type(simple_gan().generator)):
        def forward(self, z):
            return super().forward(2 * z)

    gan = simple_gan()
    assert GANBackprop.of(Louder(), gan.discriminator, "minimax") is None


def count(calls: list[None]):
    return lambda *_: calls.append(None)


@pytest.mark.parametrize(
    "register",
    [
        lambda gan, hook: gan.generator.register_forward_hook(hook),
        lambda gan, hook: gan.generator.stack[1].register_forward_pre_hook(hook),
        lambda gan, hook: gan.discriminator.stack.register_forward_hook(hook),
        lambda gan, hook: gan.discriminator.stack[0].register_full_backward_hook(hook),
        lambda gan, hook: gan.generator.stack[0].register_full_backward_pre_hook(hook),
        lambda gan, hook: gan.generator.stack[0].weight.register_hook(hook),
        lambda gan, hook: gan.discriminator.stack[0].bias.register_post_accumulate_grad_hook(hook),
        lambda gan, hook: nn.modules.module.register_module_forward_hook(hook),
        lambda gan, hook: nn.modules.module.register_module_full_backward_hook(hook),
    ],
)
def test_every_hook_is_called_in_training_and_changes_nothing(register):
    def train(*hooks) -> GANTask:
        torch.manual_seed(0)
        task, calls = GANTask(simple_gan((1, 4, 4), z_dim=6)), []
        handles = [hook(task, count(calls)) for hook in hooks]
        try:
            images = ArrayDataset(gaussian(8, 1, 4, 4).tanh(), torch.zeros(8))
            Trainer(epochs=1, device="cpu").fit(task, BatchLoader(images, 4))
        finally:
            for handle in handles:
                handle.remove()
        assert len(calls) >= 2 * len(hooks)
        return task

    observed, alone = train(register), train()
    for one, other in zip(observed.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_layer_that_is_frozen_during_training_stays_as_it_is_and_gets_no_gradient():
    class Freezing(GANTask):
        def losses(self, batch):
            self.discriminator.stack[0].requires_grad_(self.step_info.step == 0)
            yield from super().losses(batch)

    images, weights = ArrayDataset(gaussian(8, 1, 4, 4).tanh(), torch.zeros(8)), []
    for steps in (1, 3):
        torch.manual_seed(0)
        task = Freezing(simple_gan((1, 4, 4), z_dim=6))
        Trainer(max_steps=steps, device="cpu").fit(task, BatchLoader(images, 4))
        weights.append([task.discriminator.stack[i].weight.clone() for i in (0, 2)])
    assert torch.equal(weights[0][0], weights[1][0])
    assert not torch.equal(weights[0][1], weights[1][1])
    assert all(p.grad is None for p in task.parameters())


def test_other_losses_are_left_to_autograd():
    gan = simple_gan()
    for loss in ("hinge", "least_squares", "wgan_gp"):
        assert GANBackprop.of(gan.generator, gan.discriminator, loss) is None


@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_huge_logits_give_finite_gradients(loss):
    generator, discriminator = stack(3, 8, 6, tanh=True), stack(6, 5, 1, seed=1)
    with torch.no_grad():
        discriminator[-1].weight *= 1e5
    written_out = GANBackprop(generator, discriminator, loss)
    noise = gaussian(5, 3)
    fake = generator(noise).detach()
    assert discriminator(fake).abs().max() > 1e3
    for one in starmap(Update, written_out.updates(gaussian(5, 6), noise, trains_generator=True)):
        assert one.loss.isfinite()
        one.backward(1.0)
    assert all(g.isfinite().all() for g in grads(generator) + grads(discriminator))
    assert F.softplus(discriminator(fake)).isfinite().all()
