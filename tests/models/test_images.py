from __future__ import annotations

import inspect
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from torch import Tensor, nn

import torchdl
from torchdl import MLP, Autoencoder, InputError, LenetLike, StridedCNN, VGGLike
from torchdl.models import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("quick")
SMALL = {
    "lenet": lambda: LenetLike((2, 13, 29), 5, width=4, depth=3, hidden=24),
    "mlp": lambda: MLP(24, 5, hidden=(32, 16), dropout=0.3, activation="leaky_relu"),
    "strided": lambda: StridedCNN((2, 15, 23), 5, hidden=24, dropout=(0.5, 0.2)),
    "vgg": lambda: VGGLike((2, 9, 16), 5, width=4, hidden=24, dropout=0.3),
    "autoencoder": lambda: Autoencoder((2, 28, 30), width=6, depth=3, code_size=9),
}
SHAPES = {"mlp": (2, 3, 4)}
CLASSIFIERS = [name for name in SMALL if name != "autoencoder"]
CONVOLUTIONAL = [name for name in SMALL if name != "mlp"]
WITH_DROPOUT = ["mlp", "strided", "vgg"]


def seeded(build) -> nn.Module:
    """Build a model from weights that are the same every time, its biases and statistics not zero or one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.05 * gaussian(*parameter.shape, seed=number))
        for number, layer in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            layer.running_mean.copy_(0.3 * gaussian(layer.num_features, seed=number + 50))
            layer.running_var.copy_(gaussian(layer.num_features, seed=number + 90).square() + 0.5)
    return model


def shape_of(name: str) -> tuple[int, ...]:
    return SHAPES.get(name) or SMALL[name]().in_shape


def images(name: str, n: int = 6) -> Tensor:
    return gaussian(n, *shape_of(name)).sigmoid()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def dropouts(model: nn.Module) -> list[float]:
    return [m.p for m in model.modules() if isinstance(m, nn.Dropout)]


# what they are


@pytest.mark.parametrize(
    ("build", "number"),
    [
        (MLP, 101_770),
        (lambda: MLP(20, 3, hidden=()), 63),
        (lambda: MLP(4, 2, hidden=(5, 6)), (4 + 1) * 5 + (5 + 1) * 6 + (6 + 1) * 2),
        (lambda: LenetLike((1, 28, 28), 10), 1_630_090),
        (lambda: LenetLike((3, 32, 32), 10), 2_122_186),
        (lambda: LenetLike((1, 28, 28), 10, width=8, depth=3, hidden=64), 80 + 1168 + 4640 + (32 * 9 + 1) * 64 + 650),
        (lambda: LenetLike((2, 3, 5), 4, depth=0, hidden=7), (30 + 1) * 7 + (7 + 1) * 4),
        (StridedCNN, 360_458),
        (lambda: StridedCNN((3, 32, 32), hidden=1024, dropout=(0.5, 0.2)), 1_284_170),
        (VGGLike, 2_396_330),
        (Autoencoder, 162_659),
        (lambda: Autoencoder((1, 28, 28), width=8, depth=1, code_size=2), 80 + 3138 + 4704 + 584 + 73),
    ],
)
def test_the_networks_have_their_numbers_of_parameters(build, number):
    assert parameters(build()) == number


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_gives_one_row_of_logits_an_image(name):
    logits = seeded(SMALL[name]).eval()(images(name))
    assert logits.shape == (6, 5)
    assert logits.min() < 0  # logits, not probabilities
    assert (logits.exp().sum(1) - 1).abs().min() > 1e-3
    assert logits.std(0).min() > 1e-4


def test_the_dropout_asked_for_is_where_it_belongs_and_none_where_there_is_none():
    assert dropouts(StridedCNN(dropout=(0.5, 0.2))) == [0.5, 0.2]
    assert [type(m) for m in StridedCNN().classifier] == [
        *[nn.Flatten, nn.Dropout, nn.Linear, nn.ReLU],
        *[nn.Dropout, nn.Linear],
    ]
    assert dropouts(VGGLike((1, 8, 8), width=2, hidden=2, dropout=0.3)) == [0.3, 0.3]
    assert dropouts(MLP(hidden=(9, 8), dropout=0.4)) == [0.4, 0.4]
    assert [type(m) for m in MLP().layers] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert not any(dropouts(LenetLike((1, 8, 8), 2)))
    assert not any(dropouts(StridedCNN(dropout=(0, 0))))


def test_the_batch_norms_have_keras_epsilon_and_pytorchs_momentum():
    norms = [m for m in VGGLike(width=2, hidden=4).modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(norm.num_features, norm.eps, norm.momentum) for norm in norms] == [
        (filters, 1e-3, 0.1) for filters in (2, 2, 4, 4, 8, 8)
    ]


@pytest.mark.parametrize("name", SMALL)
def test_the_first_weights_are_keras_own(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SMALL[name]()
    for layer in (m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))):
        assert not layer.bias.any()
        outputs, inputs = layer.weight.shape[:2]
        bound = (6 / ((inputs + outputs) * layer.weight[0, 0].numel())) ** 0.5
        assert 0.8 * bound < layer.weight.abs().max() <= bound


# what they compute


def test_an_mlp_is_matrix_products_with_the_activation_between():
    model = seeded(lambda: MLP(12, 3, hidden=(8, 5), activation="tanh")).eval()
    first, second, third = (m for m in model.modules() if isinstance(m, nn.Linear))
    x = gaussian(7, 12)
    expected = torch.tanh(x @ first.weight.T + first.bias)
    expected = torch.tanh(expected @ second.weight.T + second.bias) @ third.weight.T + third.bias
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model(x.view(7, 3, 2, 2)), expected)


def test_an_mlp_without_hidden_layers_is_linear():
    model = seeded(lambda: MLP(12, 3, hidden=()))
    a, b = gaussian(4, 12), gaussian(4, 12, seed=1)
    torch.testing.assert_close(model(a) + model(b) - model(torch.zeros(4, 12)), model(a + b))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_mlp_has_the_activation_that_is_named(name):
    model = seeded(lambda: MLP(6, 6, hidden=(6,), dropout=0, activation=name))
    with torch.no_grad():
        for layer in (model.layers[0], model.layers[-1]):
            layer.weight.copy_(torch.eye(6))
            layer.bias.zero_()
    x = 2 * gaussian(5, 6)
    torch.testing.assert_close(model(x), ACTIVATIONS[name]()(x))


def test_a_lenet_of_odd_sides_pools_without_the_last_row_and_column():
    model = seeded(SMALL["lenet"])
    x = images("lenet")
    convolutions = [m for m in model.features if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(2, 4), (4, 8), (8, 16)]
    expected = x
    for convolution, (height, width) in zip(convolutions, [(6, 14), (3, 7), (1, 3)], strict=True):
        expected = F.conv2d(F.pad(expected, (1, 1, 1, 1)), convolution.weight, convolution.bias).clamp(min=0)
        expected = expected[..., : 2 * height, : 2 * width]
        expected = expected.unflatten(3, (width, 2)).unflatten(2, (height, 2)).amax((3, 5))
    hidden, last = (m for m in model.classifier if isinstance(m, nn.Linear))
    expected = F.linear(F.linear(expected.reshape(6, -1), hidden.weight, hidden.bias).clamp(min=0), last.weight)
    torch.testing.assert_close(model(x), expected + last.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 9), (15, 8), (13, 29)])
def test_a_vgg_like_takes_sides_of_eight_pixels_or_more(height, width):
    model = VGGLike((1, height, width), 3, width=2, hidden=4)
    assert model(torch.rand(2, 1, height, width)).shape == (2, 3)
    assert model.features(torch.rand(2, 1, height, width)).shape == (2, 8, height // 8, width // 8)


@pytest.mark.parametrize(("height", "width"), [(15, 15), (15, 40), (16, 18), (29, 22)])
def test_a_strided_cnn_takes_sides_of_fifteen_pixels_or_more(height, width):
    model = StridedCNN((1, height, width), 3, hidden=4)
    assert model(torch.rand(2, 1, height, width)).shape == (2, 3)


# the autoencoder


@pytest.mark.parametrize(
    ("height", "width", "depth", "sides"),
    [
        (32, 32, 3, (4, 4)),
        (28, 30, 3, (4, 4)),
        (33, 17, 3, (5, 3)),
        (33, 17, 1, (17, 9)),
        (33, 17, 5, (2, 1)),
        (3, 2, 1, (2, 1)),
    ],
)
def test_an_autoencoder_gives_codes_and_images_of_the_old_sides(height, width, depth, sides):
    model = seeded(lambda: Autoencoder((2, height, width), width=4, depth=depth, code_size=7))
    x = gaussian(3, 2, height, width).sigmoid()
    codes = model.encode(x)
    assert codes.shape == (3, 7)
    assert codes.min() < 0 < codes.max()  # no activation
    assert codes.std(0).min() > 1e-4
    decoded = model.decode(codes)
    assert decoded.shape == x.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    torch.testing.assert_close(model(x), decoded)
    # all that lies between image and code: sides halved and rounded up
    first, last = (m for m in model.modules() if isinstance(m, nn.Linear))
    assert first.in_features == last.out_features == 4 * sides[0] * sides[1]


@pytest.mark.parametrize(("height", "width", "padded"), [(28, 30, (32, 32)), (33, 17, (40, 24)), (32, 31, (32, 32))])
def test_sides_that_do_not_halve_are_padded_by_their_edge_and_cropped_back(height, width, padded):
    model = seeded(lambda: Autoencoder((2, height, width), width=4, depth=3, code_size=9))
    even = Autoencoder((2, *padded), width=4, depth=3, code_size=9)
    even.load_state_dict(model.state_dict())
    x = gaussian(3, 2, height, width).sigmoid()
    rows = torch.arange(padded[0]).clamp(max=height - 1)
    columns = torch.arange(padded[1]).clamp(max=width - 1)
    larger = x[:, :, rows][..., columns]
    codes = model.encode(x)
    torch.testing.assert_close(codes, even.encode(larger))
    whole = even(larger)
    torch.testing.assert_close(model(x), whole[:, :, :height, :width])
    torch.testing.assert_close(model.decode(codes), whole[:, :, :height, :width])
    # these pictures would tell padding with zeros, or before the image, from repeating the edge behind it
    below, right = padded[0] - height, padded[1] - width
    assert (even.encode(F.pad(x, (0, right, 0, below))) - codes).abs().max() > 1e-2
    assert (even.encode(F.pad(x, (right, 0, below, 0), mode="replicate")) - codes).abs().max() > 1e-2


def test_encoding_and_decoding_are_their_formulas():
    model = seeded(lambda: Autoencoder((1, 4, 6), width=3, depth=1, code_size=5))
    down, up, last = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    to_code, from_code = (m for m in model.modules() if isinstance(m, nn.Linear))
    x = gaussian(2, 1, 4, 6).sigmoid()

    def gelu(z: Tensor) -> Tensor:
        return z * (1 + torch.erf(z / 2**0.5)) / 2

    features = gelu(F.conv2d(F.pad(x, (1, 1, 1, 1)), down.weight, down.bias))
    features = features.unflatten(3, (3, 2)).unflatten(2, (2, 2)).amax((3, 5))  # (2, 3, 2, 3)
    codes = features.reshape(2, 18) @ to_code.weight.T + to_code.bias
    torch.testing.assert_close(model.encode(x), codes)
    features = (codes @ from_code.weight.T + from_code.bias).view(2, 3, 2, 3)
    features = gelu(F.conv2d(features, up.weight, up.bias, padding=1))
    features = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = 1 / (1 + (-F.conv2d(features, last.weight, last.bias, padding=1)).exp())
    torch.testing.assert_close(model.decode(codes), expected)
    torch.testing.assert_close(model(x), expected)


# training and evaluation


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    model = seeded(SMALL[name])
    x = images(name, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = model(x)
    targets = x if name == "autoencoder" else F.one_hot(torch.arange(16) % 5).float()
    F.mse_loss(outputs, targets).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", SMALL)
def test_evaluation_is_deterministic_each_example_its_own_and_the_inputs_left_alone(name):
    model = seeded(SMALL[name]).eval()
    x = images(name)
    before = x.clone()
    outputs = model(x)
    assert torch.equal(model(x), outputs)
    assert torch.equal(x, before)
    torch.testing.assert_close(model(x[2:3]), outputs[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_training_drops_units_at_random(name):
    model, x = seeded(SMALL[name]).train(), images(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = model(x), model(x)
        torch.manual_seed(0)
        again = model(x)
    assert (first - second).abs().max() > 1e-2
    torch.testing.assert_close(again, first)


@pytest.mark.parametrize(
    "build",
    [
        lambda: StridedCNN((1, 15, 15), hidden=8, dropout=(0, 0)),
        lambda: VGGLike((1, 8, 8), width=2, hidden=8, dropout=0),
        lambda: MLP(225, dropout=0),
        lambda: LenetLike((1, 15, 15), 10, width=2, hidden=8),
    ],
)
def test_training_without_dropout_is_deterministic(build):
    model = build()
    x = gaussian(4, 1, *getattr(model, "in_shape", (1, 15, 15))[1:])
    assert torch.equal(model.train()(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        lambda: LenetLike((1, 9, 8), 4, width=6, depth=2, hidden=32),
        lambda: MLP(72, 4, hidden=(32,), dropout=0),
        lambda: StridedCNN((1, 15, 16), 4, hidden=32, dropout=(0, 0)),
        lambda: VGGLike((1, 9, 8), 4, width=4, hidden=32, dropout=0),
    ],
    ids=CLASSIFIERS,
)
def test_a_classifier_overfits_a_small_batch(build):
    model = seeded(build)
    x, labels = gaussian(12, *getattr(model, "in_shape", (1, 9, 8))), torch.arange(12) % 4
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8
    assert losses[-1] < 0.02
    model.eval()
    assert torch.equal(model(x).argmax(1), labels)


@pytest.mark.slow
def test_an_autoencoder_overfits_two_images():
    model = seeded(lambda: Autoencoder((1, 7, 6), width=16, depth=1, code_size=2))
    x = torch.zeros(2, 1, 7, 6)
    x[0, :, :, :3], x[1, :, 4:] = 1, 1
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        loss = F.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.15
    assert losses[-1] < 0.02


# keeping them


@pytest.mark.parametrize("name", SMALL)
def test_a_state_dict_carries_the_whole_model(name):
    model, other, x = seeded(SMALL[name]).eval(), SMALL[name]().eval(), images(name)
    assert (other(x) - model(x)).abs().max() > 1e-3
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_model_comes_back_with_its_arguments_and_outputs(name, tmp_path):
    model = seeded(SMALL[name])
    torchdl.save(model, tmp_path)
    back = torchdl.load(tmp_path)
    assert type(back) is type(model)
    assert not any(m.training for m in back.modules())
    for key in inspect.signature(type(model)).parameters:
        assert getattr(back, key) == getattr(model, key), key
        assert type(getattr(back, key)) is type(getattr(model, key)), key
    assert dropouts(back) == dropouts(model)
    assert torch.equal(back(images(name)), model.eval()(images(name)))


@pytest.mark.parametrize("name", ["lenet", "mlp", "strided", "vgg", "autoencoder"])
def test_lists_do_for_tuples(name):
    model = SMALL[name]()
    arguments = {key: getattr(model, key) for key in inspect.signature(type(model)).parameters}
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    other = type(model)(**lists)
    assert {key: getattr(other, key) for key in arguments} == arguments
    assert other(images(name)).shape == model(images(name)).shape


# how images lie in memory


@pytest.mark.parametrize("name", SMALL)
def test_how_the_images_lie_in_memory_does_not_matter(name):
    model = seeded(SMALL[name]).eval()
    x = images(name)
    outputs = model(x)
    last = x.contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    every_other = torch.stack([x, 7 + x], -1)[..., 0]
    for same in (last, every_other, x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(same, x)
        torch.testing.assert_close(model(same), outputs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(x[:1].expand(6, -1, -1, -1)), outputs[:1].expand_as(outputs))


# what is refused


def greatest_depth(error: pytest.ExceptionInfo[InputError]) -> int:
    return int(re.search(r"from \d to (\d+)", str(error.value))[1])


@pytest.mark.parametrize(("height", "width", "most"), [(13, 29, 3), (8, 8, 3), (7, 100, 2), (28, 28, 4), (1, 9, 0)])
def test_the_greatest_depth_that_a_lenet_names_works_and_the_next_does_not(height, width, most):
    with pytest.raises(InputError, match=rf"depth.*{height}x{width}.*{most + 1}") as error:
        LenetLike((1, height, width), 3, width=1, depth=most + 1)
    assert greatest_depth(error) == most
    model = LenetLike((1, height, width), 3, width=1, depth=most, hidden=4)
    assert model(torch.rand(2, 1, height, width)).shape == (2, 3)


@pytest.mark.parametrize(
    ("height", "width", "most"), [(28, 30, 5), (33, 17, 5), (32, 32, 5), (2, 9, 1), (3, 9, 2), (4, 9, 2)]
)
def test_the_greatest_depth_that_an_autoencoder_names_works_and_the_next_does_not(height, width, most):
    for wrong in (most + 1, 0, -1):
        with pytest.raises(InputError, match=rf"depth.*{height}x{width}.*{wrong}") as error:
            Autoencoder((1, height, width), width=2, depth=wrong)
        assert greatest_depth(error) == most
    model = Autoencoder((1, height, width), width=2, depth=most)
    assert model(torch.rand(2, 1, height, width)).shape == (2, 1, height, width)


def test_an_autoencoder_that_no_depth_would_help_names_none():
    with pytest.raises(InputError) as error:
        Autoencoder((1, 1, 9), depth=1)
    assert "from 1 to 0" not in str(error.value)


@pytest.mark.parametrize("build", [lambda s: LenetLike(s, 10), StridedCNN, VGGLike, Autoencoder])
@pytest.mark.parametrize(
    "in_shape", [(28, 28), (1, 28, 28, 1), (0, 28, 28), (1, 28, -28), (1, 28.0, 28), (), (32, 32, 3), (28, 20, 1)]
)
def test_an_in_shape_that_is_not_that_of_images_is_refused(build, in_shape):
    with pytest.raises(InputError, match="in_shape") as error:
        build(in_shape)
    assert str(in_shape) in str(error.value)


@pytest.mark.parametrize("build", [LenetLike, StridedCNN, VGGLike])
@pytest.mark.parametrize("classes", [1, 0, -3])
def test_fewer_than_two_classes_are_refused(build, classes):
    with pytest.raises(InputError, match=f"{build.__name__}.*num_classes.*{classes}"):
        build((1, 28, 28), classes)


@pytest.mark.parametrize(
    "build",
    [
        lambda p: MLP(dropout=p),
        lambda p: StridedCNN(dropout=(p, 0.2)),
        lambda p: StridedCNN(dropout=(0.2, p)),
        lambda p: VGGLike(dropout=p),
    ],
)
@pytest.mark.parametrize("probability", [1, 1.5, -0.1, float("nan")])
def test_dropout_outside_zero_to_one_is_refused(build, probability):
    with pytest.raises(InputError, match=rf"dropout.*\[0, 1\).*{probability}"):
        build(probability)


@pytest.mark.parametrize("dropout", [(), (0.2,), (0.1, 0.2, 0.3)])
def test_a_strided_cnn_wants_two_probabilities(dropout):
    with pytest.raises(InputError, match="dropout"):
        StridedCNN(dropout=dropout)


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'swish'") as error:
        MLP(activation="swish")
    assert all(name in str(error.value) for name in ACTIVATIONS)


@pytest.mark.parametrize(
    "build",
    [
        lambda: MLP(0),
        lambda: MLP(out_features=0),
        lambda: MLP(hidden=(8, 0)),
        lambda: MLP(-4),
        lambda: LenetLike((1, 8, 8), 2, width=0),
        lambda: LenetLike((1, 8, 8), 2, hidden=0),
        lambda: StridedCNN(hidden=0),
        lambda: VGGLike(width=0),
        lambda: VGGLike(hidden=-1),
        lambda: Autoencoder(width=0),
        lambda: Autoencoder(code_size=0),
    ],
)
def test_widths_that_are_not_positive_are_refused(build):
    with pytest.raises(InputError, match="positive"):
        build()


def test_a_negative_depth_is_refused():
    with pytest.raises(InputError, match=r"depth.*-1"):
        LenetLike((1, 8, 8), 2, depth=-1)


@pytest.mark.parametrize(("build", "least"), [(StridedCNN, 15), (VGGLike, 8)])
def test_images_that_are_too_small_are_refused(build, least):
    assert isinstance(build((1, least, least)), nn.Module)
    for sides in ((least - 1, 40), (40, least - 1)):
        with pytest.raises(InputError, match=f"{least}.*{sides[0]}x{sides[1]}"):
            build((1, *sides))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_images_of_another_shape_are_refused_at_the_call(name):
    model = SMALL[name]()
    channels, height, width = model.in_shape
    for wrong in ((channels + 1, height, width), (channels, width, height), (height, width), (height, width, channels)):
        with pytest.raises(InputError, match="channels, height, width") as error:
            model(torch.zeros(2, *wrong))
        assert str(model.in_shape) in str(error.value)
        assert str(wrong) in str(error.value)


def test_an_mlp_refuses_another_number_of_inputs():
    with pytest.raises(InputError, match=r"784.*\(2, 783\)"):
        MLP()(torch.zeros(2, 783))


def test_an_mlp_refuses_an_input_without_a_batch():
    with pytest.raises(InputError, match="784"):
        MLP()(torch.zeros(784))


@pytest.mark.parametrize("wrong", [(31,), (32, 1), (8, 2, 2), ()])
def test_codes_of_another_shape_are_refused(wrong):
    with pytest.raises(InputError, match="32") as error:
        Autoencoder(width=2).decode(torch.zeros(2, *wrong))
    assert str(wrong) in str(error.value)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_lenet_doubles_its_filters_at_every_stage(depth):
    model = LenetLike((3, 16, 16), 4, width=5, depth=depth, hidden=6)
    filters = [m.out_channels for m in model.features if isinstance(m, nn.Conv2d)]
    assert filters == [5, 10, 20][:depth]
    assert all(b == 2 * a for a, b in pairwise(filters))
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 4)
