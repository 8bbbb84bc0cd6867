from __future__ import annotations

import pytest
import torch
from helpers import fill_, gaussian
from torch import nn

from torchdl import GAN, Discriminator, Generator, InputError, conv_gan, deep_gan, simple_gan
from torchdl.models import keras_init_

PAIRS = {"simple": simple_gan, "deep": deep_gan, "conv": conv_gan}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def with_statistics(gan: GAN) -> GAN:
    """Move the running statistics away from 0 and 1, where forgetting them would not show."""
    for number, layer in enumerate(m for m in gan.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))):
        layer.running_mean.copy_(gaussian(layer.num_features, seed=number))
        layer.running_var.copy_(gaussian(layer.num_features, seed=number + 50).square() + 0.5)
        with torch.no_grad():
            layer.weight.copy_(gaussian(layer.num_features, seed=number + 100))
            layer.bias.copy_(gaussian(layer.num_features, seed=number + 150))
    return gan


@pytest.mark.parametrize(
    ("pair", "generator", "discriminator"), [("simple", 218_128, 100_609), ("deep", 1_489_936, 533_505)]
)
def test_the_networks_have_the_published_numbers_of_parameters(pair, generator, discriminator):
    gan = PAIRS[pair]()
    assert parameters(gan.generator) == generator
    assert parameters(gan.discriminator) == discriminator
    assert parameters(gan) == generator + discriminator


@pytest.mark.parametrize("pair", PAIRS)
def test_images_and_probabilities_have_their_shapes_and_ranges(pair):
    gan = PAIRS[pair]()
    noise = gan.noise(5)
    assert gan.generator(noise).flatten(1).shape == (5, 784)
    images = gan(noise)
    assert images.shape == (5, 1, 28, 28)
    assert images.abs().max() <= 1
    assert images.min() < 0 < images.max()
    logits, probabilities = gan.discriminator.logits(images), gan.discriminator(images)
    assert logits.shape == probabilities.shape == (5, 1)
    torch.testing.assert_close(probabilities, 1 / (1 + (-logits).exp()))
    # flattened or not, an image is the same image
    assert torch.equal(gan.discriminator.logits(images.flatten(1)), logits)


@pytest.mark.parametrize("pair", PAIRS)
def test_every_parameter_gets_a_gradient(pair):
    gan = PAIRS[pair]()
    gan.discriminator.logits(gan(gan.noise(4))).square().mean().backward()
    for name, parameter in gan.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # a bias before a batch norm of the same layer is not the case here: the norm comes after the LeakyReLU
        assert parameter.grad.abs().max() > 0, name


def test_the_layers_are_those_of_the_notes():
    gan = simple_gan()
    assert [type(m) for m in gan.generator.gen] == [nn.Linear, nn.LeakyReLU, nn.Linear, nn.Tanh]
    assert [type(m) for m in gan.discriminator.disc] == [nn.Linear, nn.LeakyReLU, nn.Linear]
    assert gan.generator.gen[1].negative_slope == gan.discriminator.disc[1].negative_slope == 0.1
    hidden = [nn.Linear, nn.LeakyReLU, nn.BatchNorm1d]
    assert [type(m) for m in deep_gan().generator.gen] == [*hidden * 3, nn.Linear, nn.Tanh]


def test_the_deep_generator_has_keras_batch_norms():
    norms = [m for m in deep_gan().modules() if isinstance(m, nn.BatchNorm1d)]
    assert [norm.num_features for norm in norms] == [256, 512, 1024]
    assert all(norm.eps == 1e-3 for norm in norms)
    assert all(norm.momentum == pytest.approx(0.2) for norm in norms)
    # a fifth of the batch's mean, four fifths of the old one
    norm = norms[0].train()
    norm.running_mean.fill_(1.0)
    norm(torch.full((4, 256), 6.0))
    torch.testing.assert_close(norm.running_mean, torch.full((256,), 0.8 * 1 + 0.2 * 6))


def test_keras_init_is_glorot_uniform_with_zero_biases():
    layers = keras_init_(nn.Sequential(nn.Linear(200, 100), nn.Conv2d(3, 8, 5), nn.Linear(4, 4, bias=False)))
    for layer, fan_in, fan_out in ((layers[0], 200, 100), (layers[1], 75, 200)):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not layer.bias.any()
    bound = (6 / 8) ** 0.5
    assert layers[2].weight.abs().max() <= bound


def test_the_deep_pair_alone_starts_from_keras_weights():
    assert all(not m.bias.any() for m in deep_gan().modules() if isinstance(m, nn.Linear))
    assert all(m.bias.any() for m in simple_gan().modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("pair", PAIRS)
def test_evaluation_is_deterministic_and_each_example_its_own(pair):
    gan = with_statistics(PAIRS[pair]()).eval()
    noise = gan.noise(6)
    images = gan(noise)
    assert torch.equal(gan(noise), images)
    torch.testing.assert_close(gan(noise[2:3]), images[2:3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_state_dict_carries_the_whole_model(pair):
    gan, other = with_statistics(PAIRS[pair]()).eval(), PAIRS[pair]().eval()
    noise = gan.noise(3)
    assert not torch.equal(other(noise), gan(noise))
    other.load_state_dict(gan.state_dict())
    assert torch.equal(other(noise), gan(noise))
    assert torch.equal(other.discriminator(other(noise)), gan.discriminator(gan(noise)))


@pytest.mark.parametrize("training", [True, False])
def test_generating_uses_running_statistics_and_leaves_the_mode_and_statistics_as_they_were(training):
    gan = with_statistics(deep_gan()).train(training)
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    samples = gan.generate_samples(4, seed=1)
    assert all(m.training is training for m in gan.modules())
    assert all(torch.equal(v, before[k]) for k, v in gan.state_dict().items())
    assert samples.shape == (4, 1, 28, 28)
    assert not samples.requires_grad
    assert torch.equal(samples, gan.eval()(gan.noise(4, seed=1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_gan_of_another_type_of_numbers_generates_in_it(dtype):
    model = simple_gan((1, 4, 4), z_dim=3)
    images = model.generate_samples(3)
    found = model.to(dtype).generate_samples(3)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), images, atol=0.01, rtol=0.01)


def test_a_shape_with_the_channels_last_is_refused_and_would_mix_the_pixels():
    for build in (simple_gan, deep_gan, conv_gan):
        with pytest.raises(InputError, match=r"\(channels, height, width\).* not \(32, 32, 3\)"):
            build((32, 32, 3))


def test_images_of_another_size_than_the_generator_gives_are_refused_not_cut_up():
    gan = GAN(Generator(img_dim=2 * 784), Discriminator(784))
    with pytest.raises(InputError, match=r"1568.*\(1, 28, 28\).*784"):
        gan.generate_samples(3)


def test_generating_restores_training_mode_after_a_failure():
    gan = GAN(Generator(img_dim=2 * 784), Discriminator(784)).train()
    with pytest.raises(InputError):
        gan.generate_samples(1)
    assert gan.training


def test_samples_depend_on_the_seed_alone_and_the_first_of_many_are_the_same():
    gan = with_statistics(deep_gan())
    torch.manual_seed(1)
    few = gan.generate_samples(3, seed=5)
    torch.manual_seed(2)
    assert torch.equal(gan.generate_samples(3, seed=5), few)
    assert not torch.equal(gan.generate_samples(3, seed=6), few)
    assert torch.equal(gan.noise(9, seed=5)[:3], gan.noise(3, seed=5))
    torch.testing.assert_close(gan.generate_samples(9, seed=5)[:3], few, atol=1e-5, rtol=1e-5)


def test_other_shapes_and_depths_work():
    gan = simple_gan((3, 4, 5), z_dim=7)
    assert gan.generate_samples(2).shape == (2, 3, 4, 5)
    assert gan.discriminator(gan.generate_samples(2)).shape == (2, 1)
    assert Generator(3, 4, hidden=())(torch.ones(2, 3)).shape == (2, 4)
    assert Discriminator(4, hidden=(5, 6, 7))(torch.ones(2, 4)).shape == (2, 1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Discriminator(0),
        lambda: Discriminator(4, hidden=(3, 0)),
        lambda: Generator(0),
        lambda: Generator(img_dim=-1),
        lambda: Generator(hidden=(0,)),
    ],
)
def test_widths_that_are_not_positive_are_refused(build):
    with pytest.raises(InputError, match="positive"):
        build()


def in_keras(keras, stack: nn.Sequential, inputs: int):
    """Build the same layers in Keras, with the same weights."""
    model, weights = keras.Sequential([keras.Input((inputs,))]), []
    for layer, following in zip(stack, [*stack[1:], None], strict=True):
        if isinstance(layer, nn.Linear):
            activation = "tanh" if isinstance(following, nn.Tanh) else None
            model.add(keras.layers.Dense(layer.out_features, activation=activation))
            weights += [
                layer.weight.detach().numpy().T,
                layer.bias.detach().numpy(),
            ]  # its kernels are (inputs, outputs)
        elif isinstance(layer, nn.LeakyReLU):
            model.add(keras.layers.LeakyReLU(negative_slope=layer.negative_slope))
        elif isinstance(layer, nn.BatchNorm1d):
            model.add(keras.layers.BatchNormalization(momentum=0.8))
            tensors = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            weights += [tensor.detach().numpy() for tensor in tensors]
    model.set_weights(weights)
    return lambda x: model(x, training=False).detach()


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["simple", "deep"])
def test_the_same_weights_in_keras_give_the_same_outputs(keras, pair):
    gan = with_statistics(fill_(PAIRS[pair](), seed=3)).eval()
    noise = gan.noise(8)
    with torch.no_grad():
        images = gan.generator(noise)
        logits = gan.discriminator.logits(images)
    # outputs that all agree because they are all the same would prove nothing
    assert min(images.std(0).mean(), logits.std()) > 1e-3
    generator = in_keras(keras, gan.generator.gen, gan.generator.z_dim)
    discriminator = in_keras(keras, gan.discriminator.disc, 784)
    torch.testing.assert_close(generator(noise), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(discriminator(images), logits, atol=1e-5, rtol=0)
