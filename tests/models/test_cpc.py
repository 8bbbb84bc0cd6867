from __future__ import annotations

import copy
import math

import pytest
import torch
from helpers import fill_, gaussian
from torch import Tensor, nn

import torchdl
from torchdl import CPC, ContextNetwork, ImageEncoder, InputError, Predictors, image_cpc
from torchdl.models import SignalEncoder, keras_init_
from torchdl.models.rnn import RECURRENT


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def with_statistics(model: nn.Module) -> nn.Module:
    """Move the running statistics away from 0 and 1, where forgetting them would not show."""
    for number, layer in enumerate(m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))):
        layer.running_mean.copy_(0.3 * gaussian(layer.num_features, seed=number))
        layer.running_var.copy_(gaussian(layer.num_features, seed=number + 50).square() + 0.5)
    return model


def small(every_term: bool = False, cell: str = "gru") -> CPC:
    """A CPC of vectors of 6 numbers, without batch norm: what one sequence gives depends on no other."""
    return fill_(CPC(nn.Linear(6, 5), ContextNetwork(5, 7, cell), Predictors(7, 5, 3), every_term), 3)


def signals(every_term: bool = False) -> CPC:
    encoder = SignalEncoder(2, 6, kernels=(4, 3), strides=(2, 2))
    return CPC(encoder, ContextNetwork(6, 8, "lstm"), Predictors(8, 6, 2), every_term)


# sizes


def test_the_encoders_have_the_numbers_of_parameters_counted_by_hand():
    of_64 = (3 * 9 * 64 + 64) + 3 * (64 * 9 * 64 + 64) + 4 * 2 * 64 + (3 * 3 * 64 * 256 + 256) + 512 + (256 * 128 + 128)
    of_28 = (3 * 9 * 32 + 32) + 2 * (32 * 9 * 32 + 32) + 3 * 2 * 32 + (2 * 2 * 32 * 128 + 128) + 256 + (128 * 128 + 128)
    assert parameters(ImageEncoder(64)) == of_64 == 294_208
    assert parameters(ImageEncoder(28)) == of_28 == 52_864
    gru, predictors = 3 * 256 * (128 + 256) + 2 * 3 * 256, 4 * (256 * 128 + 128)
    assert parameters(image_cpc(64)) == of_64 + gru + predictors == 722_240
    assert parameters(image_cpc(28)) == of_28 + gru + predictors == 480_896


@pytest.mark.parametrize("size", [15, 28, 47, 48, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_encoder_gives_a_code_an_image(size, channels):
    encoder = ImageEncoder(size, channels, code_size=5)
    assert encoder(gaussian(4, channels, size, size)).shape == (4, 5)
    assert len([m for m in encoder.modules() if isinstance(m, nn.Conv2d)]) == (4 if size >= 48 else 3)


@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("size", [28, 64])
def test_predictions_and_embeddings_have_their_shapes_and_every_parameter_a_gradient(size, every_term):
    model = image_cpc(size, code_size=6, context_size=9, predict_terms=2, every_term=every_term)
    context, future = gaussian(3, 4, 3, size, size), gaussian(3, 2, 3, size, size, seed=1)
    predicted, embeddings = model(context, future)
    assert predicted.shape == (3, 4 if every_term else 1, 2, 6)
    assert embeddings.shape == (3, 6, 6)
    (predicted.square().sum() + embeddings.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0, name


def test_the_rows_of_embeddings_are_the_terms_in_order():
    model = with_statistics(image_cpc(28, code_size=6, context_size=9, predict_terms=2)).eval()
    context, future = gaussian(3, 4, 3, 28, 28), gaussian(3, 2, 3, 28, 28, seed=1)
    with torch.no_grad():
        predicted, embeddings = model(context, future)
        for b in range(3):
            torch.testing.assert_close(embeddings[b, :4], model.encoder(context[b]), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(embeddings[b, 4:], model.encoder(future[b]), rtol=1e-4, atol=1e-5)
        last = model.context(embeddings[:, :4])[:, -1]
        for k in range(2):
            torch.testing.assert_close(predicted[:, 0, k], model.predictors.linear[k](last))


def test_evaluation_is_deterministic_and_keeps_the_statistics_which_training_moves():
    model = with_statistics(image_cpc(28, code_size=6, context_size=9, predict_terms=2)).eval()
    context, future = gaussian(3, 4, 3, 28, 28), gaussian(3, 2, 3, 28, 28, seed=1)
    before = copy.deepcopy(model.state_dict())
    first, again = model(context, future), model(context, future)
    assert torch.equal(first.predicted, again.predicted)
    assert torch.equal(first.embeddings, again.embeddings)
    # one sequence alone gives what it gives among others
    torch.testing.assert_close(model(context[1:2], future[1:2]).embeddings, first.embeddings[1:2], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.train()(context, future)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "running" in name or "tracked" in name}


# what the context knows


@pytest.mark.parametrize("cell", RECURRENT)
def test_a_context_knows_the_terms_up_to_its_own_and_none_after(cell):
    model = small(every_term=True, cell=cell)
    context, future = gaussian(2, 4, 6).requires_grad_(), gaussian(2, 3, 6, seed=1).requires_grad_()
    predicted, _ = model(context, future)
    assert predicted.shape == (2, 4, 3, 5)
    for term in range(4):
        of_context, of_future = torch.autograd.grad(
            predicted[:, term].sum(), [context, future], retain_graph=True, allow_unused=True
        )
        assert (of_context[:, : term + 1].abs().amax(2) > 0).all()
        assert (of_context[:, term + 1 :] == 0).all()
        assert of_future is None or (of_future == 0).all()


@pytest.mark.parametrize("cell", RECURRENT)
def test_predicting_from_the_last_term_alone_is_the_last_of_predicting_from_every_term(cell):
    context, future = gaussian(2, 4, 6), gaussian(2, 3, 6, seed=1)
    every, last = (small(every_term, cell)(context, future) for every_term in (True, False))
    torch.testing.assert_close(every.predicted[:, -1:], last.predicted)
    assert torch.equal(every.embeddings, last.embeddings)
    assert not torch.allclose(every.predicted[:, :1], last.predicted, atol=1e-3)


def test_the_gru_is_the_published_one():
    model = small()
    weights = {name: value.double() for name, value in model.context.core.named_parameters()}
    embeddings = gaussian(1, 3, 5).double()
    h = torch.zeros(7, dtype=torch.float64)
    for x in embeddings[0]:
        of_x = weights["weight_ih_l0"] @ x + weights["bias_ih_l0"]
        of_h = weights["weight_hh_l0"] @ h + weights["bias_hh_l0"]
        reset, update = (of_x[:14] + of_h[:14]).sigmoid().chunk(2)
        h = (1 - update) * (of_x[14:] + reset * of_h[14:]).tanh() + update * h
    torch.testing.assert_close(model.context(embeddings.float())[0, -1].double(), h, rtol=1e-5, atol=1e-6)


# Keras' conventions


def glorot(weight: Tensor) -> float:
    field = weight[0, 0].numel()
    return math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * field))


@pytest.mark.parametrize("size", [28, 64])
def test_layers_start_in_keras_conventions(size):
    torch.manual_seed(0)
    model = image_cpc(size)
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    slopes = [m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)]
    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-3, 0.01)] * len(norms)
    assert slopes == [0.3] * len(norms)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == len(norms) + 1 + 4
    for layer in layers:
        assert (layer.bias == 0).all()
        bound = glorot(layer.weight)
        assert 0.97 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4), ("rnn", 1)])
def test_recurrent_layers_start_in_keras_conventions(cell, gates):
    torch.manual_seed(0)
    core = ContextNetwork(40, 64, cell).core
    assert core.weight_ih_l0.shape == (gates * 64, 40)
    bound = math.sqrt(6 / (40 + gates * 64))  # Keras' kernel is (40, gates * 64)
    assert 0.97 * bound < core.weight_ih_l0.abs().max() <= bound
    torch.testing.assert_close(core.weight_hh_l0.T @ core.weight_hh_l0, torch.eye(64), atol=1e-5, rtol=0)
    expected = torch.zeros(gates * 64)
    if cell == "lstm":
        expected[64:128] = 1
    assert torch.equal(core.bias_ih_l0 + core.bias_hh_l0, expected)


def test_the_lstms_one_is_in_the_forget_gate():
    core = keras_init_(nn.LSTM(2, 3))
    with torch.no_grad():
        core.weight_ih_l0.zero_()
        core.weight_hh_l0.zero_()
        _, (_, cell) = core(torch.zeros(1, 1, 2), (torch.zeros(1, 1, 3), torch.full((1, 1, 3), 2.0)))
    torch.testing.assert_close(cell, torch.full((1, 1, 3), 2 / (1 + math.exp(-1))))


# saving


@pytest.mark.parametrize(("size", "depth"), [(7, 2), (31, 4), (30, 3)])
def test_an_encoder_of_other_sizes_and_its_probe_are_saved(tmp_path, size, depth):
    encoder = ImageEncoder(size, 2, 5, depth=depth, filters=3, hidden=4)
    assert [layer.out_channels for layer in encoder.layers if isinstance(layer, nn.Conv2d)] == [3] * depth
    model = with_statistics(torchdl.ProbedEncoder(encoder, torchdl.ProbeHead(5, 3, 6))).eval()
    torchdl.save(model, tmp_path)
    images = gaussian(4, 2, size, size)
    assert torch.equal(torchdl.load(tmp_path)(images), model.head(encoder(images)))


MODELS = {"image_cpc": (lambda: image_cpc(15, 2, 5, 8, 2, "rnn", True), (2, 15, 15)), "signals": (signals, (2, 12))}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_was_saved_is_loaded_as_it_was(tmp_path, name):
    make, shape = MODELS[name]
    model = with_statistics(make()).eval()
    context, future = gaussian(3, 4, *shape), gaussian(3, 2, *shape, seed=1)
    torchdl.save(model, tmp_path)
    loaded, other = torchdl.load(tmp_path), make()
    assert type(loaded) is CPC
    assert loaded.every_term is model.every_term
    other.load_state_dict(model.state_dict())
    wanted = model(context, future)
    for same in (loaded, other.eval()):
        got = same(context, future)
        assert torch.equal(got.predicted, wanted.predicted)
        assert torch.equal(got.embeddings, wanted.embeddings)
    assert not torch.allclose(make().eval()(context, future).embeddings, wanted.embeddings)


# signals


def test_a_signal_has_one_code_every_160_samples():
    encoder = SignalEncoder(code_size=4)
    for windows in (1, 2, 7):
        signal = gaussian(3, 1, 160 * windows)
        assert encoder.layers(signal).shape == (3, 4, windows)
        assert encoder(signal).shape == (3, 4)
        torch.testing.assert_close(encoder(signal), encoder.layers(signal).mean(2))
    assert encoder(gaussian(3, 1, 20480)).shape == (3, 4)  # the paper's windows, of 128 embeddings
    assert parameters(SignalEncoder()) == 10 * 512 + (8 + 4 + 4 + 4) * 512 * 512 + 5 * 512


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (5, 5), (10, 5), (8, 4), (7, 3), (1, 1), (3, 1)])
def test_a_length_is_divided_by_the_stride_whatever_the_kernel(kernel, stride):
    encoder = SignalEncoder(1, 2, (kernel,), (stride,))
    assert encoder.layers(gaussian(1, 1, 6 * stride)).shape == (1, 2, 6)


def test_embeddings_of_signals_are_not_rectified():
    torch.manual_seed(0)
    assert SignalEncoder(code_size=8)(gaussian(4, 1, 320)).min() < 0


def test_signals_are_predicted_from_their_windows():
    predicted, embeddings = signals(every_term=True)(gaussian(3, 4, 2, 16), gaussian(3, 2, 2, 16, seed=1))
    assert predicted.shape == (3, 4, 2, 6)
    assert embeddings.shape == (3, 6, 6)


# what cannot be


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ImageEncoder(14), "image_size.*15.*14"),
        (lambda: ImageEncoder(1), "image_size.*15.*1"),
        (lambda: image_cpc(0), "image_size.*15.*0"),
        (lambda: ImageEncoder(28, 0), "channels.*positive"),
        (lambda: ImageEncoder(28, 3, 0), "code_size.*positive"),
        (lambda: SignalEncoder(kernels=(4, 4), strides=(2,)), "as many strides as kernels"),
        (lambda: SignalEncoder(kernels=(), strides=()), "as many strides as kernels"),
        (lambda: SignalEncoder(kernels=(2,), strides=(3,)), "kernel 2.*stride 3"),
        (lambda: ContextNetwork(cell="transformer"), "'transformer'.*rnn, gru, lstm"),
        (lambda: ContextNetwork(0), "code_size.*positive"),
        (lambda: Predictors(steps=0), "steps.*positive"),
        (lambda: CPC(ImageEncoder(28), ContextNetwork(), "linear"), "predictors.*modules"),
        (
            lambda: CPC(ImageEncoder(28, 3, 64), ContextNetwork(), Predictors()),
            "code_size is 64 in ImageEncoder.*128 in ContextNetwork",
        ),
        (lambda: CPC(nn.Flatten(), ContextNetwork(128, 8), Predictors()), "context_size is 8 in ContextNetwork"),
        (lambda: CPC(ImageEncoder(28), nn.Identity(), Predictors(128, 64)), "code_size.*128.*64 in Predictors"),
        (lambda: CPC(nn.Flatten(), ContextNetwork(16, 24), Predictors(24, 8)), "16 in ContextNetwork, but 8 in Pred"),
        (lambda: SignalEncoder(channels=0), "channels.*positive"),
        (lambda: ImageEncoder(30, depth=4), "image_size must be 31 or more"),
        (lambda: ImageEncoder(28, hidden=0), "hidden must be positive"),
        (lambda: torchdl.ProbeHead(hidden=0), "hidden must be positive"),
        (lambda: torchdl.ProbedEncoder(ImageEncoder(28), "head"), "must be modules"),
        (
            lambda: torchdl.ProbedEncoder(ImageEncoder(28), torchdl.ProbeHead(64)),
            "128 in ImageEncoder, but 64 in Probe",
        ),
    ],
)
def test_models_that_cannot_be_are_input_errors(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.mark.parametrize("shape", [(2, 1, 159), (2, 2, 160), (2, 160)])
def test_signals_of_another_size_are_an_input_error(shape):
    with pytest.raises(InputError, match="1, 160"):
        SignalEncoder(code_size=4)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 28, 28), (2, 3, 28, 27), (3, 28, 28)])
def test_images_of_another_size_are_an_input_error(shape):
    with pytest.raises(InputError, match=r"\(3, 28, 28\)"):
        ImageEncoder(28)(torch.zeros(shape))


FLAT = nn.Sequential(nn.Flatten(), nn.Linear(9, 8))


@pytest.mark.parametrize(
    ("encoder", "context", "predictors", "sentence"),
    [
        (nn.Flatten(), ContextNetwork(8, 16), Predictors(16, 8), r"embeddings \(B, T, 8\), not \(2, 4, 9\): code_size"),
        (
            nn.Identity(),
            ContextNetwork(8, 16),
            Predictors(16, 8),
            r"encoder .*\(14, any\), not a tensor \(14, 1, 3, 3\)",
        ),
        (FLAT, nn.GRU(8, 16, batch_first=True), Predictors(16, 8), r"context .*\(2, 4, any\), not a tuple"),
        (FLAT, nn.Linear(8, 5), Predictors(16, 8), r"contexts \(..., 16\), not \(2, 1, 5\)"),
        (FLAT, ContextNetwork(8, 16), nn.Linear(16, 8), r"predictors .*\(2, 1, any, 8\), not a tensor \(2, 1, 8\)"),
        (ContextNetwork(8, 16), FLAT, Predictors(16, 8), r"embeddings \(B, T, 8\), not \(14, 1, 3, 3\)"),
    ],
)
def test_parts_that_do_not_fit_are_named_with_what_they_return(encoder, context, predictors, sentence):
    with pytest.raises(InputError, match=sentence):
        CPC(encoder, context, predictors)(torch.zeros(2, 4, 1, 3, 3), torch.zeros(2, 3, 1, 3, 3))


def test_sequences_of_images_of_another_size_are_an_input_error():
    with pytest.raises(InputError, match=r"\(3, 32, 32\)"):
        image_cpc(28)(torch.zeros(2, 4, 3, 32, 32), torch.zeros(2, 4, 3, 32, 32))


# the original's conventions


def test_centred_images_are_those_minus_their_mean_colour():
    images, shift = gaussian(5, 3, 28, 28), 3 * gaussian(5, 3, 1, 1, seed=1)
    plain, centred = (ImageEncoder(28, center_images=center).eval() for center in (False, True))
    centred.load_state_dict(plain.state_dict())
    torch.testing.assert_close(centred(images), plain(images - images.mean((2, 3), keepdim=True)))
    torch.testing.assert_close(centred(images + shift), centred(images), rtol=1e-4, atol=1e-4)
    assert (plain(images + shift) - plain(images)).abs().max() > 0.1


def test_with_instance_norm_the_colour_of_a_whole_image_does_not_matter():
    images, shift = gaussian(5, 3, 28, 28), 3 * gaussian(5, 3, 1, 1, seed=1)
    encoder = ImageEncoder(28, first_norm="instance").eval()
    torch.testing.assert_close(encoder(images + shift), encoder(images), rtol=1e-4, atol=1e-4)
    convolved = encoder.layers[0](images)
    expected = nn.InstanceNorm2d(32, eps=1e-3)(convolved)
    torch.testing.assert_close(encoder.layers[1](convolved), expected)
    with pytest.raises(InputError, match="first_norm 'layer'"):
        ImageEncoder(28, first_norm="layer")


def test_two_passes_have_batch_statistics_of_their_own():
    context, future = gaussian(4, 4, 3, 28, 28), 3 + gaussian(4, 2, 3, 28, 28, seed=1)
    one, two = (image_cpc(28, predict_terms=2, separate_passes=separate).train() for separate in (False, True))
    two.load_state_dict(one.state_dict())
    encode = copy.deepcopy(one)
    expected = torch.cat([encode.encode(context), encode.encode(future)], 1)
    torch.testing.assert_close(two(context, future).embeddings, expected)
    assert (one(context, future).embeddings - expected).abs().max() > 0.1
    for model in (one, two):
        model.eval()
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(two(context, future).embeddings, one(context, future).embeddings)  # the same in the end


def test_batch_statistics_in_evaluation_are_those_of_training_and_move_nothing():
    context, future = gaussian(4, 4, 3, 28, 28), gaussian(4, 2, 3, 28, 28, seed=1)
    given, running = (image_cpc(28, predict_terms=2, batch_statistics=batch).eval() for batch in (True, False))
    running.load_state_dict(given.state_dict())
    before = copy.deepcopy(given.state_dict())
    evaluated = given(context, future).embeddings
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    assert not any(module.training for module in given.modules())
    assert (running(context, future).embeddings - evaluated).abs().max() > 0.1
    # the encoder by itself uses the running statistics
    torch.testing.assert_close(given.encoder(context[0]), running.encoder(context[0]))
    torch.testing.assert_close(running.train()(context, future).embeddings, evaluated)
