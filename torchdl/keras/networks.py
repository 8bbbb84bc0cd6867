"""The networks that have a Keras original: how each is recognised, and its operations in Keras' order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import nn

from torchdl import models
from torchdl.errors import require
from torchdl.keras.chain import Chain
from torchdl.keras.layers import CELLS, CENTRING, Piece, function, pieces, recurrent
from torchdl.keras.steps import MisfitError, Shape, Step
from torchdl.models.cpc import FirstNorm, original_sizes

CLASSIFIES = ("softmax", "sigmoid")  # activations that end a classifier in Keras, and lie in the loss here
KINDS = {"SimpleRNN": "rnn", "GRU": "gru", "LSTM": "lstm"}


class Network(NamedTuple):
    """A network and its Keras original, whose operations follow one another.

    Attributes:
        model: The class.
        build: Builds the model that a chain of operations would be, if it is such a network; None if it is not.
        describe: Returns the operations of a model in Keras' order, for inputs of a shape there.
        shape: Returns the shape of Keras' input, without the batch.
        endings: Activations that may follow in Keras and are left out here.
        inputs: Says what an input is.
        applies: The activation that the network applies to what ``describe`` returns.
        likely: Whether a chain is this network where its name is not given, and others have the same layers.
    """

    model: type[nn.Module]
    build: Callable[[Chain], nn.Module | None]
    describe: Callable[[Any, Shape], list[Piece]]
    shape: Callable[[Any], Shape]
    endings: tuple[str, ...] = ()
    inputs: str = "{shape}"
    applies: str = ""
    likely: Callable[[Chain], bool] = lambda chain: True


def rates(steps: Iterable[Step]) -> float:
    """Return the rate of all dropouts if they have the same one, else 0."""
    found = {step.settings["rate"] for step in steps if step.kind == "Dropout"}
    rate = found.pop() if len(found) == 1 else 0.0
    return rate if isinstance(rate, (int, float)) and 0 <= rate < 1 else 0.0


def units(steps: Iterable[Step]) -> list[int]:
    """Return the numbers of units of dense layers, or of filters of convolutions."""
    return [step.settings.get("units", step.settings.get("filters")) for step in steps]


def last_first(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (H, W, C) of (C, H, W)."""
    return (*shape[1:], shape[0])


# Images


def build_encoder(chain: Chain) -> nn.Module | None:
    """Build the encoder of CPC."""
    convolutions, dense = units(chain.of("Conv2D")), units(chain.of("Dense"))
    if not convolutions or len(dense) != 2 or not chain.of("BatchNormalization"):
        return None
    channels, side, width = chain.image_shape
    if side != width:
        raise MisfitError(None, f"its images of {side}x{width} pixels are not square, as ImageEncoder's are")
    sizes = (len(convolutions), convolutions[0], dense[0])
    given: dict[str, Any] = (
        {} if sizes == original_sizes(side) else dict(zip(("depth", "filters", "hidden"), sizes, strict=True))
    )
    norm: FirstNorm = "instance" if chain.of("GroupNormalization") else "batch"
    return models.ImageEncoder(side, channels, dense[1], chain.steps[0].kind == CENTRING, **given, first_norm=norm)


def describe_encoder(model: models.ImageEncoder, shape: Shape = ()) -> list[Piece]:
    """Describe the encoder of CPC."""
    return [*([Piece(CENTRING)] if model.center_images else []), *pieces(model.layers, channels=model.channels)]


def build_probe_head(chain: Chain) -> nn.Module | None:
    """Build the original's probe of embeddings."""
    dense = units(chain.of("Dense"))
    if len(dense) != 2 or len(chain.of("BatchNormalization")) != 1 or len(chain.input_shape) != 1:
        return None
    return models.ProbeHead(int(chain.input_shape[0] or 0), dense[1], dense[0])


def build_probed(chain: Chain) -> nn.Module | None:
    """Build an encoder of CPC with its probe."""
    heads = [i for i, step in enumerate(chain.steps) if step.kind == "Dense"][2:]
    if len(heads) != 2:
        return None
    encoder = build_encoder(chain._replace(steps=chain.steps[: heads[0]]))
    if not isinstance(encoder, models.ImageEncoder):
        return None
    dense = units(chain.of("Dense"))
    return models.ProbedEncoder(encoder, models.ProbeHead(encoder.code_size, dense[3], dense[2]))


def build_lenet(chain: Chain) -> nn.Module | None:
    """Build a LenetLike."""
    convolutions, dense = units(chain.of("Conv2D")), units(chain.of("Dense"))
    if len(dense) != 2 or chain.of("BatchNormalization") or not chain.of("MaxPooling2D"):
        return None
    return models.LenetLike(chain.image_shape, dense[1], convolutions[0], len(convolutions), dense[0])


def build_strided(chain: Chain) -> nn.Module | None:
    """Build lecture 32's or 33's network."""
    convolutions, dense = units(chain.of("Conv2D")), units(chain.of("Dense"))
    if len(convolutions) != 3 or len(dense) != 2 or chain.of("BatchNormalization", "MaxPooling2D"):
        return None
    split = next(i for i, step in enumerate(chain.steps) if step.kind == "Dense")
    dropout = rates(chain.steps[:split]), rates(chain.steps[split:])
    return models.StridedCNN(chain.image_shape, dense[1], dense[0], dropout)


def build_vgg(chain: Chain) -> nn.Module | None:
    """Build lecture 36's network."""
    convolutions, dense = units(chain.of("Conv2D")), units(chain.of("Dense"))
    if len(convolutions) != 6 or len(dense) != 2 or not chain.of("BatchNormalization"):
        return None
    return models.VGGLike(chain.image_shape, dense[1], convolutions[0], dense[0], rates(chain.steps))


def build_autoencoder(chain: Chain) -> nn.Module | None:
    """Build an autoencoder."""
    convolutions, dense = units(chain.of("Conv2D")), units(chain.of("Dense"))
    depth = len(chain.of("UpSampling2D"))
    if not depth or len(dense) != 2 or not convolutions:
        return None
    return models.Autoencoder(chain.image_shape, convolutions[0], depth, dense[0])


def describe_autoencoder(model: models.Autoencoder, shape: Shape = ()) -> list[Piece]:
    """Describe an autoencoder, which must not pad its images, because Keras' original cannot."""
    channels, height, width = model.in_shape
    require(
        not any(model.padding),
        f"{height}x{width} pixels cannot be halved {model.depth} times without padding, which Keras' original lacks",
    )
    return pieces(model.encoder, model.decoder, channels=channels)


# Flat inputs


def flat_size(chain: Chain) -> int:
    """Return the number of numbers of an input."""
    if None in chain.input_shape:
        raise MisfitError(None, f"its inputs of shape {chain.input_shape} have no known size")
    return math.prod(int(size or 0) for size in chain.input_shape)


def build_mlp(chain: Chain) -> nn.Module | None:
    """Build a multilayer perceptron of flat or flattened inputs."""
    dense = units(chain.of("Dense"))
    if not dense or chain.steps[0].kind not in ("Dense", "Flatten", "Dropout"):
        return None
    used = [step.settings for step in chain.of("Activation") if step.settings["function"] in models.ACTIVATIONS]
    activation = used[0]["function"] if used and len(dense) > 1 else "relu"
    return models.MLP(flat_size(chain), dense[-1], dense[:-1], rates(chain.steps), activation)


def flattened(layers: nn.Module, shape: Shape) -> list[Piece]:
    """Describe layers of flat inputs; inputs of several dimensions are flattened before."""
    before = [nn.Flatten()] if len(shape) > 1 else []
    return pieces(*before, layers, channels=int(shape[-1] or 1) if len(shape) == 3 else 1)


def slopes(chain: Chain) -> list[float]:
    """Return the slopes of all LeakyReLUs."""
    return [step.settings["slope"] for step in chain.of("Activation") if "slope" in step.settings]


def build_generator(chain: Chain) -> nn.Module | None:
    """Build a GAN's generator, which ends in tanh."""
    dense, slope = units(chain.of("Dense")), slopes(chain)
    ends = bool(chain.steps) and chain.steps[-1].settings.get("function") == "tanh"
    if len(dense) < 2 or len(slope) != len(dense) - 1 or not ends:
        return None
    momenta = [step.layer.config.get("momentum", 0.99) for step in chain.of("BatchNormalization")]
    return models.Generator(flat_size(chain), dense[-1], dense[:-1], slope[0], momenta[0] if momenta else None)


def build_discriminator(chain: Chain) -> nn.Module | None:
    """Build a GAN's discriminator, which has LeakyReLU everywhere and one output."""
    dense, slope = units(chain.of("Dense")), slopes(chain)
    if len(dense) < 2 or len(slope) != len(dense) - 1 or dense[-1] != 1 or chain.of("BatchNormalization"):
        return None
    return models.Discriminator(flat_size(chain), dense[:-1], slope[0])


def describe_discriminator(model: models.Discriminator, shape: Shape) -> list[Piece]:
    """Describe a discriminator; inputs of several dimensions are flattened."""
    require(not model.spectral_norm, "spectral norm has no layer in Keras: only torchdl can use this discriminator")
    return flattened(model.disc, shape)


def build_gan(chain: Chain) -> nn.Module | None:
    """Build a generator with the discriminator that reads its images."""
    ends = [i for i, step in enumerate(chain.steps) if step.settings.get("function") == "tanh"]
    if len(ends) != 1:
        return None
    generator = build_generator(chain._replace(steps=chain.steps[: ends[0] + 1]))
    if not isinstance(generator, models.Generator):
        return None
    rest = chain._replace(input_shape=(generator.img_dim,), steps=chain.steps[ends[0] + 1 :])
    discriminator = build_discriminator(rest)
    side = math.isqrt(generator.img_dim)
    if discriminator is None or side * side != generator.img_dim:
        return None
    return models.GAN(generator, discriminator, (1, side, side))


# Sequences


def build_sequence(chain: Chain) -> nn.Module | None:
    """Build a recurrent, linear or multilayer network of sequences."""
    cells, dense = chain.of(*CELLS.values()), units(chain.of("Dense"))
    if len(chain.input_shape) != 2 or chain.of("Embedding") or not dense:
        return None
    length, features = chain.input_shape
    horizon, outputs = None, dense[-1]
    if chain.steps[-1].kind == "Reshape" and len(chain.steps[-1].settings["target_shape"]) == 2:
        horizon, outputs = chain.steps[-1].settings["target_shape"]
    shape: dict[str, Any] = {"in_features": features, "out_features": outputs, "horizon": horizon}
    if cells:
        return models.SequenceModel(KINDS[cells[0].kind], **shape, **cell_arguments(chain, cells))  # type: ignore[arg-type]
    if chain.of("Dropout"):
        return None
    activation = [step.settings["function"] for step in chain.of("Activation")][: len(dense) - 1]
    return models.SequenceModel(
        "mlp" if dense[:-1] else "linear",
        length=length,
        hidden=dense[0],
        layers=max(1, len(dense) - 1),
        activation=activation[0] if activation else None,
        **shape,
    )


def reads_terms(chain: Chain) -> bool:
    """Return whether inputs are likely to be sequences, and not images of as many rows as columns."""
    length, features = chain.input_shape
    return bool(chain.of(*CELLS.values())) or length != features


def cell_arguments(chain: Chain, cells: list[Step]) -> dict[str, Any]:
    """Return the arguments of a :class:`SequenceModel` that recurrent layers determine."""
    first = cells[0].settings
    found: dict[str, Any] = {
        "hidden": first["units"],
        "layers": len(cells),
        "bidirectional": first["bidirectional"],
        "pooling": "max" if chain.of("GlobalMaxPooling1D") else "last",
    }
    if cells[0].kind == "SimpleRNN":
        activation = {"linear": "none", "tanh": None}.get(first["activation"], first["activation"])
        return found | {"activation": activation}
    gates = {"gate": first["gate"]} | ({"reset_after": first["reset_after"]} if "reset_after" in first else {})
    return found | gates


def describe_sequence(model: models.SequenceModel, shape: Shape = ()) -> list[Piece]:
    """Describe a network of sequences."""
    if isinstance(model.core, nn.RNNBase):
        pooled = model.pooling == "max"
        found = recurrent(model.core, pooled, linear=model.activation == "none")
        found += [Piece("GlobalMaxPooling1D")] if pooled else []
        found += pieces(model.head)
    else:
        found = [Piece("Flatten"), *pieces(model.head)]
    if model.horizon is not None:
        found.append(Piece("Reshape", {"target_shape": (model.horizon, model.out_features)}))
    return found


def sequence_shape(model: models.SequenceModel) -> Shape:
    """Return the shape of a sequence, (T, D); T is None if it is free."""
    return (None if isinstance(model.core, nn.RNNBase) else model.length, model.in_features)


def build_row_reader(chain: Chain) -> nn.Module | None:
    """Build a network that reads the rows of grey images."""
    cells, dense = chain.of(*CELLS.values()), units(chain.of("Dense"))
    if len(chain.input_shape) != 2 or None in chain.input_shape or not cells or len(dense) != 1:
        return None
    rows, width = chain.input_shape
    arguments = cell_arguments(chain, cells)
    if arguments.pop("activation", None) is not None:
        return None
    return models.RowReader((1, int(rows or 0), int(width or 0)), dense[0], KINDS[cells[0].kind], **arguments)  # type: ignore[arg-type]


def reads_rows(chain: Chain) -> bool:
    """Return whether sequences are likely to be the rows of an image: as many as columns, or with a softmax."""
    rows, width = chain.input_shape
    return rows == width or chain.steps[-1].settings.get("function") == "softmax"


def row_reader_shape(model: models.RowReader) -> Shape:
    """Return the shape of an image, (H, W)."""
    channels, height, width = model.in_shape
    require(channels == 1, "Keras' original reads the rows of grey images only")
    return height, width


def context_network(step: Step, code_size: int) -> models.ContextNetwork:
    """Build the context network of CPC that a recurrent layer is."""
    gates = {key: step.settings[key] for key in ("gate", "reset_after") if key in step.settings}
    return models.ContextNetwork(code_size, step.settings["units"], KINDS[step.kind], **gates)


# Texts


def build_text_lstm(chain: Chain) -> nn.Module | None:
    """Build lecture 57's network of texts."""
    tables, cells, dense = chain.of("Embedding"), chain.of("LSTM"), units(chain.of("Dense"))
    if len(tables) != 1 or len(cells) != 1 or len(dense) != 1:
        return None
    table, cell = tables[0].settings, cells[0].settings
    if table["mask_zero"] and cells[0].layer.config.get("zero_output_for_mask"):
        raise MisfitError(cells[0].layer, "returns zeros at padding (zero_output_for_mask), which change the maxima")
    return models.TextLSTM(
        table["input_dim"] - 1,
        dense[0],
        table["output_dim"],
        cell["units"],
        rates(chain.steps),
        cell["gate"],
        read_padding=not table["mask_zero"],
    )


def describe_text_lstm(model: models.TextLSTM, shape: Shape = ()) -> list[Piece]:
    """Describe a TextLSTM."""
    table = pieces(model.embedding)[0]
    table = table._replace(settings={**table.settings, "mask_zero": not model.read_padding})
    cells = recurrent(model.lstm, pooling=True)
    return [table, *pieces(model.drop_words), *cells, Piece("GlobalMaxPooling1D"), *pieces(model.drop, model.head)]


def build_text_cnn(chain: Chain) -> nn.Module | None:
    """Build lecture 59's network of texts."""
    tables, convolutions, dense = chain.of("Embedding"), units(chain.of("Conv1D")), units(chain.of("Dense"))
    if len(tables) != 1 or not convolutions or len(dense) != 1:
        return None
    table = tables[0].settings
    sizes = (table["input_dim"] - 1, dense[0], table["output_dim"], convolutions, rates(chain.steps))
    return models.TextCNN(*sizes, read_padding=True)  # Keras' convolutions know no masks


def describe_text_cnn(model: models.TextCNN, shape: Shape = ()) -> list[Piece]:
    """Describe a TextCNN."""
    found = pieces(model.embedding, model.drop_words)
    for number, convolution in enumerate(model.convolutions):
        if number:
            found.append(Piece("MaxPooling1D", {"pool_size": (3,), "strides": (3,), "padding": "valid"}))
        found += [*pieces(convolution), function("relu")]
    return [*found, Piece("GlobalMaxPooling1D"), *pieces(model.drop, model.head)]


IMAGES = "images (N, {channels}, {height}, {width}), channels first, where Keras takes {shape}"
ZERO_TO_ONE = IMAGES + "; the file does not say the scale of pixels: the course's is 0 to 1 (divided by 255)"
CENTRED = (
    IMAGES + "; the file does not say the scale of pixels: the original's is -1 to 1 (divided by 256, times 2 minus 1)"
)
SEQUENCES = "sequences (N, T, D) in the file's order {shape}, scaled as in training"
TEXTS = "indices of words (N, T), as the file's tokenizer gives them"
FLAT = "(N, ...) with {size} numbers each, where Keras takes {shape}; images of the course are 0 to 1, channels first"
NETWORKS = (
    Network(
        models.ImageEncoder,
        build_encoder,
        describe_encoder,
        lambda m: (m.image_size, m.image_size, m.channels),
        (),
        CENTRED,
    ),
    Network(
        models.ProbedEncoder,
        build_probed,
        lambda m, _: describe_encoder(m.encoder) + pieces(m.head),
        lambda m: (m.encoder.image_size, m.encoder.image_size, m.encoder.channels),
        CLASSIFIES,
        CENTRED,
    ),
    Network(
        models.ProbeHead,
        build_probe_head,
        lambda m, _: pieces(m),
        lambda m: (m.code_size,),
        CLASSIFIES,
        "embeddings {shape} of the encoder that it was trained on",
    ),
    Network(
        models.Autoencoder, build_autoencoder, describe_autoencoder, lambda m: last_first(m.in_shape), (), ZERO_TO_ONE
    ),
    Network(
        models.VGGLike,
        build_vgg,
        lambda m, _: pieces(m.features, m.classifier, channels=m.in_shape[0]),
        lambda m: last_first(m.in_shape),
        CLASSIFIES,
        ZERO_TO_ONE,
    ),
    Network(
        models.StridedCNN,
        build_strided,
        lambda m, _: pieces(m.features, m.classifier, channels=m.in_shape[0]),
        lambda m: last_first(m.in_shape),
        CLASSIFIES,
        ZERO_TO_ONE,
    ),
    Network(
        models.LenetLike,
        build_lenet,
        lambda m, _: pieces(m.features, m.classifier, channels=m.in_shape[0]),
        lambda m: last_first(m.in_shape),
        CLASSIFIES,
        ZERO_TO_ONE,
    ),
    Network(
        models.GAN,
        build_gan,
        lambda m, _: pieces(m.generator.gen) + describe_discriminator(m.discriminator, (m.generator.img_dim,)),
        lambda m: (m.generator.z_dim,),
        ("sigmoid",),
        "noise (N, {size}) from the standard normal distribution; generated images are in -1 to 1",
        "sigmoid",
    ),
    Network(
        models.Generator,
        build_generator,
        lambda m, _: pieces(m.gen),
        lambda m: (m.z_dim,),
        (),
        "noise (N, {size}) from the standard normal distribution; outputs are the pixels of images in -1 to 1",
    ),
    Network(
        models.Discriminator,
        build_discriminator,
        describe_discriminator,
        lambda m: (m.in_features,),
        ("sigmoid",),
        "images of {size} pixels in -1 to 1, channels first, where Keras takes {shape}",
        "sigmoid",
    ),
    Network(
        models.RowReader,
        build_row_reader,
        lambda m, _: describe_sequence(m.reader),
        row_reader_shape,
        CLASSIFIES,
        "grey images (N, 1, H, W), read row by row, where Keras takes {shape}; the course's pixels are 0 to 1; for "
        "sequences (N, T, D) instead, name the network SequenceModel",
        likely=reads_rows,
    ),
    Network(
        models.SequenceModel,
        build_sequence,
        describe_sequence,
        sequence_shape,
        CLASSIFIES,
        SEQUENCES,
        likely=reads_terms,
    ),
    Network(
        models.ContextNetwork,
        lambda chain: None,  # see :func:`torchdl.keras.graphs.read_context`
        lambda m, _: recurrent(m.core, True),
        lambda m: (None, m.code_size),
        (),
        "embeddings (N, T, D) in the order {shape}; outputs are the contexts of all terms",
    ),
    Network(models.TextLSTM, build_text_lstm, describe_text_lstm, lambda m: (None,), CLASSIFIES, TEXTS),
    Network(models.TextCNN, build_text_cnn, describe_text_cnn, lambda m: (None,), CLASSIFIES, TEXTS),
    Network(
        models.MLP, build_mlp, lambda m, shape: flattened(m.layers, shape), lambda m: (m.in_features,), CLASSIFIES, FLAT
    ),
)
