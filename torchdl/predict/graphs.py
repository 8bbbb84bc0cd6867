"""What is exported of a model or of a predictor: a network of tensors alone, and what its inputs and outputs are.

Sizes of an input's shape that are texts, such as ``batch``, may be any number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchdl import models
from torchdl.errors import InputError, kind_of
from torchdl.models import gates
from torchdl.predict.base import Predictor
from torchdl.predict.direction_forecaster import DirectionForecaster
from torchdl.predict.forecaster import Forecaster
from torchdl.predict.image_classifier import ImageClassifier
from torchdl.predict.image_embedder import ImageEmbedder
from torchdl.predict.image_generator import ImageGenerator
from torchdl.predict.image_reconstructor import ImageReconstructor
from torchdl.predict.images import ImageInput
from torchdl.predict.recommender import Recommender
from torchdl.predict.sequence_predictor import SequencePredictor
from torchdl.predict.series import SeriesInput
from torchdl.predict.signal_embedder import SignalEmbedder
from torchdl.predict.tabular import TabularPredictor
from torchdl.predict.text_classifier import TextClassifier
from torchdl.tasks.supervised import class_probabilities

Size = int | str
BATCH, LENGTH = "batch", "length"


class Input(NamedTuple):
    """An input of a network.

    Attributes:
        name: Its name.
        shape: Its sizes; a text is the name of one that may change.
        meaning: What it is.
        dtype: The type of its numbers.
        low: The smallest number of examples; or one for each place of the last dimension.
        high: The largest, in the same way.
    """

    name: str
    shape: tuple[Size, ...]
    meaning: str
    dtype: torch.dtype = torch.float32
    low: float | Sequence[float] = 0.0
    high: float | Sequence[float] = 1.0

    def example(self, sizes: dict[str, int], generator: torch.Generator) -> Tensor:
        """Draw an example, given its sizes that may change."""
        shape = [sizes[size] if isinstance(size, str) else size for size in self.shape]
        low, high = (torch.tensor(each, dtype=torch.float64) for each in (self.low, self.high))
        share = torch.rand(shape, generator=generator, dtype=torch.float64)
        if self.dtype.is_floating_point:
            return (low + share * (high - low)).to(self.dtype)
        return (low + share * (high - low + 1)).floor().to(self.dtype)


class Output(NamedTuple):
    """The name of an output, and what it is."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Graph:
    """A network to export.

    Attributes:
        network: Maps tensors to a tensor, or to a tuple of tensors.
        inputs: Its inputs.
        outputs: Its outputs.
        least: The smallest value of the sizes that may change, if it is not 1.
    """

    network: nn.Module
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    least: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of the sizes that may change."""
        return list(dict.fromkeys(size for each in self.inputs for size in each.shape if isinstance(size, str)))

    def sizes(self, factor: int) -> dict[str, int]:
        """Return sizes that are ``factor`` times the smallest ones; the batch is smaller than sequences are long."""
        return {name: max(1, factor // 2 if name == BATCH else factor) * self.least.get(name, 1) for name in self.names}

    def examples(self, sizes: dict[str, int], seed: int = 0) -> tuple[Tensor, ...]:
        """Draw an example of each input, of these ``sizes`` by name, by ``seed``."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(each.example(sizes, generator) for each in self.inputs)


class Composed(nn.Module):
    """A model, and what is computed before and after it."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the function makes of the model and the inputs."""
        return self.function(self.model, *inputs)


# Models alone


def images_of(shape: Any, meaning: str = "images in [0, 1]") -> tuple[Input, ...]:
    """Describe an input of images."""
    return (Input("images", (BATCH, *shape), meaning),)


def vectors_of(name: str, size: int, meaning: str) -> tuple[Input, ...]:
    """Describe an input of vectors."""
    return (Input(name, (BATCH, size), meaning, low=-2.0, high=2.0),)


def sequences_of(size: int, length: Size = LENGTH) -> tuple[Input, ...]:
    """Describe an input of sequences."""
    return (Input("sequences", (BATCH, length, size), "scaled terms", low=-2.0, high=2.0),)


def words_of(model: Any) -> tuple[Input, ...]:
    """Describe an input of texts."""
    meaning = "indices of words, from 1; 0 is padding"
    return (Input("words", (BATCH, LENGTH), meaning, torch.int64, 0, model.vocabulary_size),)


def pairs_of(model: Any) -> tuple[Input, ...]:
    """Describe an input of pairs of a user and an item."""
    meaning = "indices of a user and an item, from 1; 0 is an unknown one"
    return (Input("pairs", (BATCH, 2), meaning, torch.int64, 0, (model.users, model.items)),)


def parts_of(cpc: Any) -> tuple[Input, ...]:
    """Describe the inputs of a CPC model: the terms of the context and of the future."""
    (each,) = inputs_of(cpc.encoder)
    steps = cpc.predictors.steps
    context = each._replace(name="context", shape=(BATCH, "terms", *each.shape[1:]))
    return context, each._replace(name="future", shape=(BATCH, steps, *each.shape[1:]))


def length_of(model: Any) -> Size:
    """Return the number of terms that a :class:`torchdl.SequenceModel` reads."""
    return LENGTH if model.kind in gates.RECURRENT else model.length


INPUTS: dict[type[nn.Module], Callable[[Any], tuple[Input, ...]]] = {
    models.Autoencoder: lambda m: images_of(m.in_shape),
    models.ImageEncoder: lambda m: images_of((m.channels, m.image_size, m.image_size), "images, scaled as in training"),
    models.SignalEncoder: lambda m: (
        Input("signal", (BATCH, m.channels, LENGTH), "windows of a signal", low=-2, high=2),
    ),
    models.ContextNetwork: lambda m: (Input("embeddings", (BATCH, LENGTH, m.code_size), "embeddings", low=-2, high=2),),
    models.Predictors: lambda m: vectors_of("contexts", m.context_size, "contexts"),
    models.CPC: parts_of,
    models.ProbeHead: lambda m: vectors_of("embeddings", m.code_size, "embeddings"),
    models.ProbedEncoder: lambda m: inputs_of(m.encoder),
    models.Generator: lambda m: vectors_of("noise", m.z_dim, "normal noise"),
    models.ConvGenerator: lambda m: vectors_of("noise", m.z_dim, "normal noise"),
    models.GAN: lambda m: inputs_of(m.generator),
    models.Discriminator: lambda m: vectors_of("images", m.in_features, "images in [-1, 1], flattened"),
    models.ConvDiscriminator: lambda m: images_of(m.image_shape, "images in [-1, 1]"),
    models.FrozenFeatures: lambda m: inputs_of(m.backbone),
    models.TransferModel: lambda m: images_of((3, m.resize_size, m.resize_size)),
    models.LinearHead: lambda m: vectors_of("features", m.features, "features"),
    models.MLP: lambda m: vectors_of("inputs", m.in_features, "scaled numbers"),
    models.RatingModel: pairs_of,
    models.MatrixFactorization: pairs_of,
    models.SequenceModel: lambda m: sequences_of(m.in_features, length_of(m)),
    models.TextLSTM: words_of,
    models.TextCNN: words_of,
    models.WordEmbedding: words_of,
    models.BionodalRootUnit: lambda m: vectors_of("z", 1, "numbers"),
    models.Sine: lambda m: vectors_of("z", 1, "numbers"),
    nn.RNNBase: lambda m: sequences_of(m.input_size),
}


def inputs_of(model: Any) -> tuple[Input, ...]:
    """Return the inputs of a model; raise :class:`InputError` if they are not known."""
    for cls in type(model).__mro__:
        if cls in INPUTS:
            return INPUTS[cls](model)
    if not hasattr(model, "in_shape"):  # every classifier of images has one
        raise InputError(
            f"the inputs of {kind_of(model)} are not known: pass a torchdl.predict.Graph that describes them"
        )
    return images_of(model.in_shape)


def least_of(model: nn.Module) -> dict[str, int]:
    """Return the smallest sizes that a model takes, if they are not 1."""
    signals = [math.prod(m.strides) for m in model.modules() if isinstance(m, models.SignalEncoder)]
    # a batch norm that uses the batch's statistics needs two examples
    pairs = any(isinstance(m, models.CPC) and m.batch_statistics for m in model.modules())
    return {**({LENGTH: signals[0]} if signals else {}), **({BATCH: 2} if pairs else {})}


def model_graph(model: nn.Module) -> Graph:
    """Return the graph of a model alone: its inputs are prepared, and its outputs are as they are.

    Example:
        >>> from torchdl.predict.graphs import model_graph
        >>> graph = model_graph(torchdl.SequenceModel("gru", in_features=3))
        >>> graph.inputs[0].shape, graph.outputs[0].name
        (('batch', 'length', 3), 'output')
    """
    if isinstance(model, models.CPC):
        meaning = "predictions (batch, 1 or terms, steps, numbers)"
        outputs: tuple[Output, ...] = (Output("predicted", meaning), Output("embeddings", "those of all terms"))
    elif isinstance(model, nn.RNNBase):
        last = ("last", "last_cell")[: 2 if model.mode == "LSTM" else 1]
        outputs = (Output("states", "all states"), *(Output(name, "the last states") for name in last))
    else:
        outputs = (Output("output", f"the output of the {type(model).__name__}"),)
    return Graph(model, inputs_of(model), outputs, least_of(model))


# Predictors


def pixels_of(images: ImageInput) -> tuple[Input, ...]:
    """Describe an input of pixels."""
    return (Input("pixels", (BATCH, *images.shape), "pixels of prepared images", torch.uint8, 0, 255),)


def scaled(images: ImageInput, pixels: Tensor) -> Tensor:
    """Return what :meth:`ImageInput.scale` does, to the bit, in operations that every format has."""
    return (pixels.float() * (1 - images.low) + 255 * images.low) / 255


def classifier_graph(predictor: ImageClassifier) -> Graph:
    """From pixels to probabilities."""
    images = predictor.settings.images
    network = Composed(predictor.model, lambda model, pixels: model(scaled(images, pixels)).softmax(1))
    return Graph(network, pixels_of(images), (Output("probabilities", "the probability of each class"),))


def embedder_graph(predictor: ImageEmbedder) -> Graph:
    """From pixels to embeddings."""
    images, encoder = predictor.settings.images, getattr(predictor.model, "encoder", predictor.model)
    network = Composed(encoder, lambda encoder, pixels: encoder(scaled(images, pixels)))
    return Graph(network, pixels_of(images), (Output("embeddings", "the embedding of each image"),))


def reconstructor_graph(predictor: ImageReconstructor) -> Graph:
    """From pixels to codes and reconstructions."""
    images = predictor.settings.images

    def reconstruct(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        codes = model.encode(scaled(images, pixels))
        return codes, model.decode(codes)

    outputs = Output("codes", "the latent codes"), Output("images", "the reconstructions, in [0, 1]")
    return Graph(Composed(predictor.model, reconstruct), pixels_of(images), outputs)


def generator_graph(predictor: ImageGenerator) -> Graph:
    """From noise to images."""
    low = predictor.settings.low
    network = Composed(predictor.model, lambda gan, noise: (gan(noise) - low) / (1 - low))
    return Graph(network, inputs_of(predictor.model), (Output("images", "images in [0, 1]"),))


def text_graph(predictor: TextClassifier) -> Graph:
    """From words to probabilities."""
    network = Composed(predictor.model, lambda model, words: class_probabilities(model(words)))
    meaning = "indices of words: 1 is the first of the vocabulary's words; 0 is padding, after the words"
    (words,) = inputs_of(predictor.model)
    return Graph(
        network, (words._replace(meaning=meaning),), (Output("probabilities", "the probability of each class"),)
    )


def windows_of(series: SeriesInput, model: nn.Module) -> tuple[Input, ...]:
    """Describe an input of windows of a series, in its own unit."""
    scale = list(zip(series.mean, series.deviation, strict=True))
    low, high = [mean - 2 * deviation for mean, deviation in scale], [mean + 2 * deviation for mean, deviation in scale]
    length = LENGTH if getattr(model, "kind", "") in gates.RECURRENT else series.length
    unit = "relative changes from term to term" if series.returns else "terms in their own unit"
    meaning = f"{unit}, of the columns {', '.join(series.columns)}; in training, {series.length} at a time"
    return (Input("windows", (BATCH, length, len(series.columns)), meaning, torch.float64, low, high),)


def forecaster_graph(predictor: Forecaster) -> Graph:
    """From terms to the next terms, in their own unit; to go on, the caller appends them to the window."""
    series = predictor.settings.series
    mean, deviation = (torch.tensor(each, dtype=torch.float64) for each in (series.mean, series.deviation))

    def forecast(model: nn.Module, windows: Tensor) -> Tensor:
        terms = model(((windows - mean) / deviation).float())
        terms = terms[:, None] if terms.dim() == 2 else terms  # (N, D) -> (N, 1, D)
        return terms.double() * deviation + mean

    outputs = (Output("terms", "the next terms (batch, terms, columns); append them to the windows to forecast on"),)
    return Graph(Composed(predictor.model, forecast), windows_of(series, predictor.model), outputs)


def direction_graph(predictor: DirectionForecaster) -> Graph:
    """From terms to the probability of a rise."""
    series = predictor.settings.series
    mean, deviation = (torch.tensor(each, dtype=torch.float64) for each in (series.mean, series.deviation))
    network = Composed(
        predictor.model, lambda model, windows: model(((windows - mean) / deviation).float()).double().sigmoid()
    )
    meaning = f"the probability that {predictor.settings.target} rises at the next term"
    return Graph(network, windows_of(series, predictor.model), (Output("probability", meaning),))


def signal_graph(predictor: SignalEmbedder) -> Graph:
    """From windows of recordings to embeddings."""
    settings, encoder = predictor.settings, getattr(predictor.model, "encoder", predictor.model)
    mean, deviation = (torch.tensor(each)[:, None] for each in (settings.mean, settings.deviation))  # (C, 1)
    network = Composed(encoder, lambda encoder, signal: encoder((signal - mean) / deviation))
    (signal,) = inputs_of(encoder)
    low, high = (float((mean + sign * deviation).mean()) for sign in (-2, 2))
    meaning = f"windows of recordings, in their own unit; in training, of {settings.window} samples"
    inputs = (signal._replace(low=low, high=high, meaning=meaning),)
    return Graph(network, inputs, (Output("embeddings", "the embedding of each window"),), least_of(encoder))


def sequence_graph(predictor: SequencePredictor) -> Graph:
    """From sequences to probabilities, or to numbers."""
    if not predictor.settings.classes:
        graph = model_graph(predictor.model)
        return replace(graph, outputs=(Output("numbers", predictor.settings.name),))
    network = Composed(predictor.model, lambda model, sequences: class_probabilities(model(sequences)))
    return Graph(network, inputs_of(predictor.model), (Output("probabilities", "the probability of each class"),))


def table_graph(predictor: TabularPredictor) -> Graph:
    """From the numbers and categories of rows to probabilities, or to numbers in the target's unit."""
    columns = predictor.settings
    scale, counts = list(columns.numeric.values()), [len(names) for names in columns.categorical.values()]
    mean, deviation = torch.tensor(scale, dtype=torch.float64).view(-1, 2).T  # each a number per numeric column
    places = [torch.arange(count) for count in counts]

    def predict(model: nn.Module, *inputs: Tensor) -> Tensor:
        parts = []
        if scale:
            parts.append(((torch.where(inputs[0].isnan(), mean, inputs[0]) - mean) / deviation).float())
        if places:
            parts += [(inputs[-1][:, column, None] == place).float() for column, place in enumerate(places)]
        output = model(torch.cat(parts, 1)).double()
        return class_probabilities(output) if columns.classes else columns.numbers(output)

    found = []
    if scale:
        low, high = [m - 2 * d for m, d in scale], [m + 2 * d for m, d in scale]
        meaning = f"{', '.join(columns.numeric)}, in their own units; NaN where missing"
        found.append(Input("numbers", (BATCH, len(scale)), meaning, torch.float64, low, high))
    if counts:
        most = [count - 1 for count in counts]
        meaning = f"the places of {', '.join(columns.categorical)} among their categories, from 0; -1 for others"
        found.append(Input("categories", (BATCH, len(counts)), meaning, torch.int64, -1, most))
    answer = ("probabilities", "the probability of each class") if columns.classes else ("prediction", columns.target)
    return Graph(Composed(predictor.model, predict), tuple(found), (Output(*answer),))


def recommender_graph(predictor: Recommender) -> Graph:
    """From pairs of a user and an item to ratings within the range of the training ratings."""
    low, high = predictor.settings.range
    network = Composed(predictor.model, lambda model, pairs: model(pairs).double().clamp(low, high))
    meaning = "places of a user and an item in the lists of ids, from 1; 0 is an unknown one"
    (pairs,) = inputs_of(predictor.model)
    return Graph(network, (pairs._replace(meaning=meaning),), (Output("ratings", "the predicted ratings"),))


GRAPHS: dict[type[Predictor[Any]], Callable[[Any], Graph]] = {
    ImageClassifier: classifier_graph,
    ImageEmbedder: embedder_graph,
    ImageReconstructor: reconstructor_graph,
    ImageGenerator: generator_graph,
    TextClassifier: text_graph,
    Forecaster: forecaster_graph,
    DirectionForecaster: direction_graph,
    Recommender: recommender_graph,
    SequencePredictor: sequence_graph,
    SignalEmbedder: signal_graph,
    TabularPredictor: table_graph,
}


def predictor_graph(predictor: Predictor[Any]) -> Graph:
    """Return the graph of a predictor: what is arithmetic between raw inputs and answers is inside.

    Raises:
        InputError: Only the network of such a predictor can be exported.

    Example:
        >>> from torchdl.predict import ImageClassifier, ImageInput
        >>> from torchdl.predict.graphs import predictor_graph
        >>> settings = ImageClassifier.Settings(ImageInput(1, 28, 28, prepare="digit"), tuple("0123456789"))
        >>> graph = predictor_graph(ImageClassifier(torchdl.LenetLike((1, 28, 28), 10), settings))
        >>> graph.inputs[0].name, graph.inputs[0].dtype, graph.outputs[0].name
        ('pixels', torch.uint8, 'probabilities')
    """
    graph = GRAPHS.get(type(predictor))
    if graph is None:
        raise InputError(f'a {predictor.kind} cannot be exported as a whole: export part="model", the network alone')
    return graph(predictor)
