"""Networks of torchdl from the files of their Keras originals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from torchdl.errors import InputError, first_line, require
from torchdl.files import PathLike
from torchdl.keras.chain import Chain, chain_of
from torchdl.keras.files import MODELS, KerasFile, Layer, layers_in, read_model
from torchdl.keras.graphs import GRAPHS
from torchdl.keras.layers import FUNCTIONS
from torchdl.keras.matching import TRAINING_ONLY, Match, differences, empty, fill_, match
from torchdl.keras.networks import NETWORKS, Network, flat_size
from torchdl.keras.steps import MisfitError, Reader, named_function, unknown
from torchdl.models import TextCNN, TextLSTM


def read_chain(network: Network) -> Callable[[KerasFile, bool], Match | None]:
    """Return a function that recognises a network whose layers follow one another."""

    def read(file: KerasFile, keras_2: bool) -> Match | None:
        chain = chain_of(file.model, keras_2)
        if not chain.steps or (model := network.build(chain)) is None:
            return None
        pieces = network.describe(model, chain.input_shape)
        pairs, ending = match(chain, pieces, type(model).__name__, network.endings)
        notes = [*padding_notes(model), *differences(chain.steps, pieces, pairs)]
        applies = "" if ending else network.applies
        if applies:
            notes.append(f"outputs: the file ends without the {applies} that the discriminator applies")
        return Match(
            model,
            pairs,
            described_inputs(network, chain),
            "" if ending == network.applies else ending,
            notes,
            channels_first=chain.channels_first,
            applies=applies,
            likely=network.likely(chain),
        )

    return read


def padding_notes(model: nn.Module) -> list[str]:
    """Say what a network of texts does with index 0."""
    if not isinstance(model, (TextLSTM, TextCNN)):
        return []
    if model.read_padding:
        return ["padding: index 0 is read like a word, as in the file, so outputs depend on how texts are padded"]
    return ["padding: index 0 never changes an output; in Keras, the file's mask does so behind the words only"]


def described_inputs(network: Network, chain: Chain) -> str:
    """Say what an input of a network is."""
    words: dict[str, Any] = {"shape": "(N, " + ", ".join(str(size or "any") for size in chain.input_shape) + ")"}
    if "{channels}" in network.inputs:
        words |= dict(zip(("channels", "height", "width"), chain.image_shape, strict=True))
    if "{size}" in network.inputs:
        words["size"] = flat_size(chain)
    return network.inputs.format(**words)


def of_a_version(layer: Layer) -> Layer | None:
    """Return a layer in a model whose function depends on Keras' version: Keras 3 has another hard sigmoid."""
    if layer.config.get("recurrent_activation") == "hard_sigmoid":
        return layer
    return next(filter(None, map(of_a_version, layer.layers)), None)


def unusual(model: Layer) -> MisfitError | None:
    """Return what is wrong with the first layer whose settings no network has; None if there is none, or unknown."""
    try:
        check_settings(model)
    except MisfitError as misfit:
        return misfit
    except Exception:  # of settings that Keras does not write, which the caller has met, too
        return None
    return None


def check_settings(model: Layer) -> None:
    """Raise :class:`MisfitError` if a layer has settings that no network has."""
    functions = {*FUNCTIONS.values(), "linear", "softmax"}
    for layer in layers_in(model):
        for key in ("dilation_rate", "groups"):
            value = layer.config.get(key, 1)
            if layer.kind in ACTIVE and value not in (1, [1], [1, 1], (1,), (1, 1)):
                raise MisfitError(layer, f"has the {key} {value}, which no network here has")
        function = named_function(layer, layer.config.get("activation"))["function"] if layer.kind in ACTIVE else ""
        if function and function not in functions:
            raise MisfitError(layer, f"has the activation {function!r}, which no network here has")


def first_unknown(model: Layer) -> str:
    """Say which layer is of a kind that no network has; list all layers if there is none."""
    layers = [layer for layer in layers_in(model) if layer.kind not in ("InputLayer", *MODELS)]
    known = Reader((), False, False).kinds
    if wrong := next((layer for layer in layers if layer.kind not in known), None):
        return str(MisfitError(wrong, unknown(wrong)))
    sizes = [layer.config.get("units", layer.config.get("filters")) for layer in layers]
    named = [f"{layer.kind} ({size})" if size else layer.kind for layer, size in zip(layers, sizes, strict=True)]
    return f"its layers are {', '.join(named[:SHOWN])}{', ...' if len(named) > SHOWN else ''}"


def left_out(model: Layer) -> list[str]:
    """Say which settings of training are in a file, but not in a network of torchdl."""
    configs = [layer.config for layer in layers_in(model)]
    set_keys = {key for config in configs for key, value in config.items() if value}
    notes = [
        f"The file's layers have {kind}s, which are left out: {TRAINING_ONLY}{advice}."
        for kind, advice in (("regularizer", ", where weight_decay is similar"), ("constraint", ""))
        if any(key.endswith(f"_{kind}") for key in set_keys)
    ]
    if any(config.get("trainable") is False for config in configs):
        notes.append(f"Some of the file's layers are frozen, and here all are trained: {TRAINING_ONLY}.")
    return notes


SHOWN = 12  # layers in a message
ACTIVE = ("Dense", "Conv1D", "Conv2D", "Activation")  # layers with an activation function
OWN_WAY = "take its arrays with torchdl.keras.read_model, and load them into a model of your own"
READERS = {**GRAPHS, **{n.model.__name__: read_chain(n) for n in NETWORKS if n.model.__name__ not in GRAPHS}}


class Imported(NamedTuple):
    """A network from a file of Keras, and what its user should know.

    Attributes:
        model: The network, in evaluation mode.
        notes: Sentences on its inputs and outputs, and on what differs from the file.
        ending: The activation at the end of Keras' model that the network leaves to the loss: ``softmax``, ``sigmoid``
            or ""; with it, both have the same outputs.
        channels_first: Whether images are (N, C, H, W) in Keras, too.
        applies: The activation that the network applies, and Keras' model does not: ``sigmoid`` or "".
    """

    model: nn.Module
    notes: tuple[str, ...]
    ending: str = ""
    channels_first: bool = False
    applies: str = ""


def from_keras(path: PathLike, architecture: PathLike | None = None, network: str | None = None) -> nn.Module:
    """Return the network of torchdl that a file of Keras holds, with its weights, in evaluation mode.

    The file is recognised by its layers. It may be any of these, of any widths and depths that the classes have
    arguments for: ``CPC`` whole, or its ``ImageEncoder``, ``ContextNetwork`` or ``Predictors``; ``ProbeHead`` and
    ``ProbedEncoder``; ``LenetLike``, ``StridedCNN``, ``VGGLike``, ``Autoencoder``; ``MLP``, ``SequenceModel``,
    ``RowReader``; ``TextLSTM``, ``TextCNN``, ``RatingModel``; ``Generator``, ``Discriminator``, or both as a ``GAN``.

    Nothing in the file is run. A ``Lambda`` layer is refused, except where the layers around it show the original CPC:
    between its predictors and its ``CPCLayer``, where its meaning is known.

    Args:
        path: A file ``.h5``, ``.keras`` or ``.weights.h5``; see :func:`torchdl.keras.files.read_model`.
        architecture: The JSON file with the layers, for a file that holds weights only.
        network: The name of the class to return, where the same layers are several networks of torchdl: a dense layer
            that reads a sequence is an ``MLP`` or a linear ``SequenceModel``, for example.

    Raises:
        InputError: The file cannot be read, or holds another network.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/lenet.keras"
        >>> notes = torchdl.keras.to_keras(torchdl.LenetLike((1, 28, 28), 10, width=4), path)
        >>> torchdl.keras.from_keras(path).width
        4
    """
    return describe_import(path, architecture, network).model


def describe_import(path: PathLike, architecture: PathLike | None = None, network: str | None = None) -> Imported:
    """Return what :func:`from_keras` returns, with notes on its inputs and outputs.

    Args:
        path, architecture, network: As for :func:`from_keras`.

    Raises:
        InputError: The file cannot be read, or holds another network.
    """
    try:
        return recognise(read_model(path, architecture), network)
    except MisfitError as misfit:
        raise InputError(f"{path} {misfit}") from misfit


def recognise(file: KerasFile, network: str | None = None) -> Imported:
    """Return the network that the layers of a file are.

    Args:
        file: The layers.
        network: See :func:`from_keras`.

    Raises:
        MisfitError: They are none that torchdl knows, or not the one that ``network`` names.
    """
    require(network in (None, *READERS), f"unknown network {network!r}: choose one of {', '.join(READERS)}")
    nearest: MisfitError | None = None
    if not file.version and (unclear := of_a_version(file.model)):
        raise MisfitError(unclear, "has a hard sigmoid, and the file does not say in which of Keras' versions")
    for name in [network] if network else READERS:
        try:
            found = empty(READERS[name], file, not file.version.startswith("3"))
            if found is not None and (network or found.likely):
                model = fill_(found)
                break
        except MisfitError as misfit:
            nearest = misfit if nearest is None or misfit.progress > nearest.progress else nearest
        except InputError as error:  # of the network's class
            nearest = nearest or MisfitError(None, str(error))
        except Exception as error:  # of many kinds, for settings that Keras does not write
            nearest = nearest or MisfitError(
                None, f"its layers have settings of other kinds than Keras' ({first_line(error)})"
            )
    else:
        reason = unusual(file.model) or nearest or first_unknown(file.model)
        raise MisfitError(None, f"does not hold {network or 'a network that torchdl knows'}: {reason}; {OWN_WAY}")
    notes = list(dict.fromkeys([f"inputs: {found.inputs}", *found.notes, *left_out(file.model)]))
    if found.ending:
        notes.insert(1, f"outputs: logits, because the {found.ending} at the end of the file's model is left out here")
    return Imported(model, tuple(notes), found.ending, found.channels_first, found.applies)
