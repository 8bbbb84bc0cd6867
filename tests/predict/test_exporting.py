"""Exported networks compute what the networks compute, for inputs of any size, from raw inputs to answers."""

from __future__ import annotations

import functools
import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

import torchdl
from experiments.exported_models import MODELS, build
from torchdl.errors import InputError
from torchdl.models import gates
from torchdl.predict import (
    DirectionForecaster,
    Forecaster,
    ImageClassifier,
    ImageEmbedder,
    ImageGenerator,
    ImageInput,
    ImageReconstructor,
    RatedItems,
    Recommender,
    SequencePredictor,
    SeriesInput,
    SignalEmbedder,
    TabularPredictor,
    TextClassifier,
    export,
)
from torchdl.predict.graphs import scaled

SMALL = {name: functools.partial(build, name, small=True) for name in MODELS}


@pytest.fixture(scope="module")
def onnx():
    """Skip a test without the extra; read PyTorch's list of ONNX's operators once, which takes half a second."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    with pytest.MonkeyPatch.context() as patch:
        read = registration.ONNXRegistry.from_torchlib
        patch.setattr(registration.ONNXRegistry, "from_torchlib", staticmethod(functools.cache(read)))
        yield


@pytest.mark.slow
def test_every_model_class_is_exported():
    classes = {
        value for value in vars(torchdl.models).values() if isinstance(value, type) and issubclass(value, nn.Module)
    }
    layers = {gates.GatedGRU, gates.GatedLSTM, gates.LinearRNN}
    built = {type(module) for name in MODELS for module in SMALL[name]().modules()}
    assert classes | layers <= built


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_exported_as_a_program_of_pytorch(name, tmp_path, quick):
    assert export(SMALL[name](), tmp_path / "model.pt2", "torch-export").difference < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_exported_to_onnx(name, tmp_path, quick, onnx):
    assert export(SMALL[name](), tmp_path / "model.onnx").difference < 1e-5


def program(predictor, folder):
    """Export a predictor, and return the function that its program computes."""
    export(predictor, folder / "model.pt2", "torch-export")
    return torch.export.load(folder / "model.pt2").module()


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_pixels_are_scaled_as_in_training(low):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    images = ImageInput(1, 16, 16, low)
    assert torch.equal(scaled(images, pixels), images.scale(pixels))


def test_an_exported_classifier_answers_as_its_predictor(tmp_path, quick):
    settings = ImageClassifier.Settings(ImageInput(1, 28, 28, prepare="digit"), tuple("0123456789"))
    classifier = ImageClassifier(SMALL["LenetLike"](), settings, "cpu")
    pixels = torch.randint(256, (9, 1, 28, 28), dtype=torch.uint8)
    found = program(classifier, tmp_path)(pixels)
    torch.testing.assert_close(found.double(), classifier.predict(pixels).probabilities, rtol=0, atol=1e-6)
    description = json.loads((tmp_path / "model.pt2.json").read_text())
    assert description["inputs"][0]["shape"] == ["batch", 1, 28, 28]
    assert description["settings"]["classes"] == list("0123456789")


@pytest.mark.slow
def test_an_exported_encoder_embeds_as_its_predictor(tmp_path, quick):
    settings = ImageEmbedder.Settings(ImageInput(1, 28, 28, low=-1, prepare="digit"))
    embedder = ImageEmbedder(SMALL["CPC"](), settings, "cpu")
    pixels = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(program(embedder, tmp_path)(pixels), embedder.embed(pixels))


def test_an_exported_autoencoder_encodes_and_decodes_as_its_predictor(tmp_path, quick):
    reconstructor = ImageReconstructor(
        SMALL["Autoencoder"](), ImageReconstructor.Settings(ImageInput(1, 13, 13)), "cpu"
    )
    pixels = torch.randint(256, (3, 1, 13, 13), dtype=torch.uint8)
    codes, images = program(reconstructor, tmp_path)(pixels)
    torch.testing.assert_close(codes, reconstructor.embed(pixels))
    assert torch.equal(torchdl.pictures.to_pixels(images), reconstructor.predict(pixels).images)


def test_an_exported_generator_makes_the_same_images(tmp_path, quick):
    gan = SMALL["GAN, simple"]()
    generator = ImageGenerator.of(gan, "cpu")
    images = program(generator, tmp_path)(gan.noise(3, seed=1))
    assert torch.equal(torchdl.pictures.to_pixels(images), generator.predict(3, seed=1))


@pytest.mark.slow
def test_an_exported_classifier_of_texts_answers_as_its_predictor(tmp_path, quick):
    vocabulary = torchdl.Vocabulary.learn(["see you soon", "buy now"])
    settings = TextClassifier.Settings(vocabulary.settings, ("ham", "spam"))
    classifier = TextClassifier(torchdl.TextLSTM(len(vocabulary)), settings, "cpu")
    words = torch.tensor([[1 + vocabulary.settings.words.index(word) for word in ("buy", "soon")]])
    expected = classifier.predict(["buy soon"]).probabilities
    torch.testing.assert_close(program(classifier, tmp_path)(words).double(), expected, rtol=0, atol=1e-6)


def test_an_exported_forecaster_forecasts_as_its_predictor(tmp_path, quick):
    split = torchdl.Split(torchdl.google_prices(), length=10, test_size=300)
    series = SeriesInput.of(split)
    model = torchdl.SequenceModel("gru", in_features=5, out_features=5, hidden=4).eval()
    forecaster = Forecaster(model, Forecaster.Settings(series, horizon=1), "cpu")
    window = torchdl.google_prices().values[None, -10:]
    torch.testing.assert_close(
        program(forecaster, tmp_path)(window), forecaster.predict(torchdl.google_prices()).values[None]
    )
    model = torchdl.SequenceModel("linear", in_features=5, length=10).eval()
    direction = DirectionForecaster(model, DirectionForecaster.Settings(series, "close", 0.5), "cpu")
    expected = direction.predict(torchdl.google_prices()).probability
    assert program(direction, tmp_path)(window).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("classes", [(), ("cheap", "dear"), ("low", "middle", "high")])
def test_an_exported_predictor_of_rows_predicts_as_it_does(classes, tmp_path, quick):
    numeric, categorical = (
        {"rooms": (3.0, 1.5), "age": (40.0, 20.0)},
        {"type": ("flat", "house"), "town": ("A", "B", "C")},
    )
    columns = torchdl.Columns(numeric, categorical, "price", classes, scale=(200.0, 50.0))
    predictor = TabularPredictor(
        torchdl.MLP(7, max(1, len(classes) - (len(classes) == 2)), hidden=(4,)), columns, "cpu"
    )
    rows = [{"age": 7, "town": "C", "rooms": 2, "type": "house"}, {"age": None, "town": "A", "rooms": 4, "type": "hut"}]
    answers = predictor.predict(rows, missing="fill")
    numbers = torch.tensor([[2.0, 7.0], [4.0, torch.nan]], dtype=torch.float64)
    found = program(predictor, tmp_path)(numbers, torch.tensor([[1, 2], [-1, 0]]))
    torch.testing.assert_close(found, answers.probabilities if classes else answers.numbers)


@pytest.mark.parametrize("classes", [(), ("even", "odd")])
def test_an_exported_predictor_of_sequences_predicts_as_it_does(classes, tmp_path, quick):
    settings = SequencePredictor.Settings(2, classes=classes)
    predictor = SequencePredictor(torchdl.SequenceModel("gru", in_features=2, hidden=4), settings, "cpu")
    x = torch.randn(3, 9, 2)
    found, answers = program(predictor, tmp_path)(x).double(), predictor.predict(x)
    expected = answers.probabilities if classes else answers.numbers[:, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_an_exported_recommender_rates_as_it_does(tmp_path, quick):
    settings = Recommender.Settings((5, 9), (31, 40), ("Up (2009)", "Jaws (1975)"), (0.5, 5.0), 1.0)
    rated = RatedItems(stops=np.array([0, 2, 3]), rated=np.array([1, 2, 2]))
    model = torchdl.MatrixFactorization(users=2, items=2, mean=4.8, dim=2)
    with torch.no_grad():
        model.item_bias.weight[1:] = torch.tensor([[0.1], [-9.0]])
    recommender = Recommender(model, settings, "cpu", rated=rated)
    found = program(recommender, tmp_path)(torch.tensor([[2, 1], [2, 2]]))
    torch.testing.assert_close(found[:1], recommender.predict(9).ratings)
    assert found[1] == 0.5


@pytest.mark.slow
def test_a_table_is_exported_to_onnx(tmp_path, quick, onnx):
    columns = torchdl.Columns(
        {"rooms": (3.0, 1.5)}, {"type": ("flat", "house")}, "price", scale=(2.0, 0.5), logarithm=True
    )
    exported = export(TabularPredictor(torchdl.MLP(3, 1, hidden=(4,)), columns), tmp_path / "model.onnx")
    assert exported.difference < 1e-5


@pytest.mark.slow
def test_an_exported_encoder_of_signals_embeds_as_its_predictor(tmp_path, quick):
    recordings = torchdl.Recordings((3 + 2 * torch.randn(2, 200, generator=torch.Generator().manual_seed(0)),))
    embedder = SignalEmbedder(SMALL["CPC of signals"](), SignalEmbedder.Settings.of(recordings, 40, 20), "cpu")
    windows = recordings.signals[0].unfold(1, 40, 20).transpose(0, 1)
    torch.testing.assert_close(program(embedder, tmp_path)(windows), embedder.embed(recordings))


@pytest.mark.slow
def test_a_file_of_onnx_names_its_sizes_and_describes_itself(tmp_path, quick, onnx):
    import onnx as library

    settings = ImageClassifier.Settings(ImageInput(1, 28, 28), tuple("0123456789"))
    export(ImageClassifier(SMALL["LenetLike"](), settings), tmp_path / "digits.onnx")
    model = library.load(tmp_path / "digits.onnx")
    first = [each.type.tensor_type.shape.dim[0].dim_param for each in (*model.graph.input, *model.graph.output)]
    assert first == ["batch", "batch"]
    (known,) = [each.value for each in model.metadata_props if each.key == "torchdl"]
    assert json.loads(known) == json.loads((tmp_path / "digits.onnx.json").read_text())
    assert str(tmp_path.parent).encode() not in (tmp_path / "digits.onnx").read_bytes()
    assert __file__.rpartition("/tests")[0].encode() not in (tmp_path / "digits.onnx").read_bytes()
    again = export(ImageClassifier(SMALL["LenetLike"](), settings), tmp_path / "again.onnx")
    assert again.path.read_bytes() == (tmp_path / "digits.onnx").read_bytes()


def test_a_network_is_as_before(tmp_path, quick):
    model = SMALL["SequenceModel, GRU"]().train()
    x = torch.randn(2, 5, 1)
    before = model(x)
    export(model, tmp_path / "model.pt2", "torch-export")
    assert model.training
    assert torch.equal(model(x), before)
    assert "forward" not in vars(model.core)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_differs_too_much_is_not_written(tmp_path, quick):
    with pytest.raises(InputError, match="differs from the original"):
        export(SMALL["MLP"](), tmp_path / "model.pt2", "torch-export", tolerance=-1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "name", "format", "reason"),
    [
        (nn.Linear(2, 2), "model.pt2", None, "inputs of a Linear are not known: pass a torchdl.predict.Graph"),
        (nn.Linear(2, 2), "model.pt", None, "must end in .onnx or .pt2"),
        (nn.Linear(2, 2), "model.onnx", "torch-export", "must end in .pt2"),
        (nn.Linear(2, 2), "model.onnx", "pickle", "unknown format"),
    ],
)
def test_a_wrong_argument_is_refused(model, name, format, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        export(model, tmp_path / name, format)


def test_without_the_extra_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[export\]'"):
        export(SMALL["MLP"](), tmp_path / "model.onnx")
