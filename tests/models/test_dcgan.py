from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn

from torchdl import ConvDiscriminator, ConvGenerator, GANTask, InputError, conv_gan, deep_gan, load, save, simple_gan


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 12)])
def test_images_have_the_shape_that_was_asked_for(shape):
    gan = conv_gan(shape, z_dim=5, width=4)
    images = gan.generate_samples(3)
    assert images.shape == (3, *shape)
    assert images.abs().max() <= 1
    assert gan.discriminator(images).shape == (3, 1)


def test_the_generator_is_its_layers_one_after_another():
    generator = fill_(ConvGenerator(3, (2, 8, 12), width=4)).train()
    z = gaussian(5, 3, seed=1)
    first, *doublings, last = (p for p in generator.parameters() if p.dim() > 1)
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [kernel.shape for kernel in (*doublings, last)] == [(16, 8, 4, 4), (8, 4, 4, 4), (2, 4, 3, 3)]
    x = (z @ first.T).view(5, 16, 2, 3)
    for number, norm in enumerate(norms):
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        x = (x - mean) / (variance + 1e-5).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        x = x.relu()
        if number < 2:
            x = F.conv_transpose2d(x, doublings[number], None, stride=2, padding=1)
    x = F.conv2d(x, last, generator.maps[-2].bias, padding=1)
    torch.testing.assert_close(generator(z), x.tanh(), atol=1e-5, rtol=1e-5)


def test_the_discriminator_is_its_layers_one_after_another():
    network = fill_(ConvDiscriminator((2, 8, 12), width=4, slope=0.3))
    x = images = gaussian(5, 2, 8, 12, seed=2)
    *convolutions, last = (m for m in network.score if not isinstance(m, (nn.LeakyReLU, nn.Flatten)))
    for layer in convolutions:
        x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1), 0.3)
    assert x.shape == (5, 16, 1, 2)
    torch.testing.assert_close(network.logits(images), x.flatten(1) @ last.weight.T + last.bias)
    torch.testing.assert_close(network(images), network.logits(images).sigmoid())


def test_images_of_other_channels_are_no_more_images():
    with pytest.raises(RuntimeError, match="unflatten"):
        ConvDiscriminator((1, 8, 12), width=4)(torch.zeros(2, 3, 8, 12))


def test_the_weights_begin_as_in_dcgan():
    for name, parameter in conv_gan().named_parameters():
        if parameter.dim() > 1:
            spread = 5 / math.sqrt(2 * parameter.numel())  # five standard errors of a standard deviation
            assert parameter.std().item() == pytest.approx(0.02, rel=spread), name
        elif name.endswith("bias"):
            assert not parameter.any(), name


@pytest.mark.parametrize("build", [lambda: ConvGenerator(4, (1, 10, 12)), lambda: ConvDiscriminator((1, 12, 10))])
def test_sides_that_cannot_be_halved_twice_are_refused(build):
    with pytest.raises(InputError, match=r"4.*(10x12|12x10)"):
        build()


@pytest.mark.parametrize(
    "build", [lambda: ConvGenerator(0), lambda: ConvGenerator(width=0), lambda: ConvDiscriminator(width=0)]
)
def test_sizes_that_are_not_positive_are_refused(build):
    with pytest.raises(InputError, match="positive"):
        build()


@pytest.mark.parametrize("build", [simple_gan, deep_gan, conv_gan])
def test_spectral_norm_makes_every_layers_greatest_singular_value_one(build):
    torch.manual_seed(0)  # of some weights, 50 estimates are not yet near enough
    discriminator = build(spectral_norm=True).discriminator
    layers = [m for m in discriminator.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert len(layers) >= 2
    for _ in range(50):  # an estimate, which passes in training improve
        discriminator.logits(torch.zeros(1, 1, 28, 28))
    for layer in layers:
        greatest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert greatest.item() == pytest.approx(1, abs=0.02)
    assert not any("parametrizations" in name for name in build().state_dict())


def test_the_deep_pairs_weights_are_keras_ones_with_spectral_norm_too():
    torch.manual_seed(4)
    usual = deep_gan().discriminator
    torch.manual_seed(4)
    limited = deep_gan(spectral_norm=True).discriminator
    for one, other in zip(usual.disc[::2], limited.disc[::2], strict=True):
        assert torch.equal(one.weight, other.parametrizations.weight.original)


def test_spectral_norm_is_given_once():
    with pytest.raises(InputError, match="spectral norm"):
        ConvDiscriminator(spectral_norm=True).limit_()


@pytest.mark.parametrize("build", [simple_gan, conv_gan])
def test_a_pair_with_spectral_norm_is_saved_and_loaded(build, tmp_path):
    gan = build(spectral_norm=True)
    gan.discriminator.logits(gan.generate_samples(4))  # moves the estimates
    save(gan.eval(), tmp_path)
    back = load(tmp_path)
    images = gan.generate_samples(3, seed=2)
    assert torch.equal(back.generate_samples(3, seed=2), images)
    assert torch.equal(back.discriminator(images), gan.discriminator(images))


@pytest.mark.parametrize("build", [simple_gan, conv_gan])
def test_a_discriminator_with_spectral_norm_is_trained_through_its_norm(build):
    torch.manual_seed(0)
    gan = build((1, 8, 8), 4, spectral_norm=True)
    task = GANTask(gan)
    optimizers = task.configure_optimizers()
    update = next(task.losses(gaussian(6, 1, 8, 8).tanh()))
    update.loss.backward(inputs=optimizers["discriminator"].param_groups[0]["params"])
    for name, parameter in gan.discriminator.named_parameters():
        if name.endswith("original"):
            # a kernel's length does not matter, so no gradient lies along it
            cosine = torch.cosine_similarity(parameter.grad.flatten(), parameter.detach().flatten(), dim=0)
            assert parameter.grad.any(), name
            assert abs(cosine.item()) < 1e-2, name
