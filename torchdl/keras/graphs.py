"""The networks whose Keras originals are no chain of fixed layers: CPC and its parts, and the network of ratings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from torchdl import models
from torchdl.keras.chain import Chain, chain_of, require_output
from torchdl.keras.files import MODELS, KerasFile, Layer
from torchdl.keras.layers import CELLS, pieces, recurrent, tensor
from torchdl.keras.matching import Match, Pair, difference, differences, match
from torchdl.keras.networks import CENTRED, NETWORKS, context_network, rates
from torchdl.keras.steps import MisfitError, Reader

ENCODER = next(network for network in NETWORKS if network.model is models.ImageEncoder)


def fed_by(model: Layer, name: str) -> list[Layer]:
    """List the layers that a layer feeds."""
    return [layer for layer in model.layers if name in layer.inputs]


def dense_pair(layer: Layer, module: Any) -> Pair:
    """Pair a dense layer with a linear module, whatever axes come before the last."""
    if layer.config.get("activation", "linear") not in ("linear", None):
        raise MisfitError(layer, f"has the activation {layer.config['activation']!r}, where Predictors has none", 1)
    (step,) = Reader((1,), False, False).steps(layer)
    return Pair(step, pieces(module)[0])


def require_inputs(model: Layer, layer: Layer) -> None:
    """Raise :class:`MisfitError` unless inputs of the model feed a layer, and nothing else."""
    known = {each.name: each for each in model.layers}
    changed = next((known[name] for name in layer.inputs if known[name].kind != "InputLayer"), None)
    if changed is not None or not layer.inputs:
        raise MisfitError(changed or layer, "changes the inputs, which nothing does here", 3)


def stacked(model: Layer, stack: Layer) -> list[Layer]:
    """List the dense layers that a layer stacks before the last axis: a Lambda, or a concatenation.

    Raises:
        MisfitError: A concatenation, or a reshaping before it, puts them in another order.
    """
    known = {layer.name: layer for layer in model.layers}
    sources = [known[name] for name in stack.inputs]
    shapes = [source.config["target_shape"] for source in sources if source.kind == "Reshape"]
    if stack.kind == "Concatenate":
        rank = len(shapes[0]) + 1 if shapes else 0
        if stack.config.get("axis", -1) not in ((-2, rank - 2) if shapes else (-1,)):
            raise MisfitError(stack, "does not put the outputs of the predictors one after the other", 3)
    if wrong := next((shape for shape in shapes if len(shape) < 2 or shape[-2] != 1), None):
        raise MisfitError(stack, f"stacks predictions of shape {wrong}, not of one step each", 3)
    return [known[source.inputs[0]] if source.kind == "Reshape" else source for source in sources]


def same_layers(layers: list[Layer], others: list[Layer]) -> bool:
    """Return whether two lists hold the same layers, in any order."""
    return sorted(layer.name for layer in layers) == sorted(layer.name for layer in others)


# Contrastive predictive coding


def read_cpc(file: KerasFile, keras_2: bool) -> Match | None:
    """Recognise the original CPC, or the one that :func:`torchdl.keras.to_keras` writes.

    The original stacks its predictions in a Lambda. Its code is not read: between the predictors and the CPC layer, it
    can mean nothing else.
    """
    model = file.model
    wrapped = [layer for layer in model.layers if layer.kind == "TimeDistributed"]
    cells = [layer for layer in model.layers if layer.kind in CELLS.values()]
    dense = [layer for layer in model.layers if layer.kind == "Dense"]
    if not wrapped or len(cells) != 1 or not dense:
        return None
    cell = cells[0]
    if wrong := next((layer for layer in dense if layer.inputs != (cell.name,)), None):
        raise MisfitError(wrong, "does not read the context, as CPC's predictors do", 3)
    original = any(layer.kind == "CPCLayer" for layer in model.layers)
    context, dense = (read_original if original else read_export)(model, wrapped, cell, dense)
    encoder = read_encoder(context, keras_2)
    code_size = encoder.model.code_size
    (step,) = Reader((None, int(code_size)), False, keras_2).steps(cell)  # type: ignore[arg-type]
    every_term = bool(step.settings["return_sequences"])
    network = context_network(step, int(code_size))  # type: ignore[arg-type]
    (piece,) = recurrent(network.core, pooling=every_term)
    if reason := difference(step, piece, "ContextNetwork"):
        raise MisfitError(cell, reason, 4)
    predictors = models.Predictors(network.context_size, int(code_size), len(dense))  # type: ignore[arg-type]
    pairs = [*encoder.pairs, Pair(step, piece)]
    pairs += [dense_pair(layer, linear) for layer, linear in zip(dense, predictors.linear, strict=True)]
    notes = [*encoder.notes, *differences((), (), pairs[len(encoder.pairs) :])]
    if original:
        notes.append(
            "outputs: predictions and embeddings; the file's output is the sigmoid of the mean of their products, over "
            "steps and numbers"
        )
        notes.append("batch norm: running statistics; the source evaluated by those of a batch (batch_statistics=True)")
    cpc = models.CPC(encoder.model, network, predictors, every_term)
    return Match(cpc, pairs, f"two sequences, context and future (N, T, ...), of {encoder.inputs}", notes=notes)


def read_original(model: Layer, wrapped: list[Layer], cell: Layer, dense: list[Layer]) -> tuple[Layer, list[Layer]]:
    """Return the wrapper of the original's encoder, and its predictors in their order."""
    known = {layer.name: layer for layer in model.layers}
    last = next(layer for layer in model.layers if layer.kind == "CPCLayer")
    stack = known.get(last.inputs[0]) if len(last.inputs) == 2 else None
    if stack is None or {*last.inputs[1:], *cell.inputs} != {layer.name for layer in wrapped} or len(wrapped) != 2:
        raise MisfitError(last, "does not compare predictions of one encoder's codes with others, as in CPC", 4)
    if stack.kind not in ("Lambda", "Concatenate", "Reshape") or not same_layers(stacked(model, stack), dense):
        raise MisfitError(stack, "does not stack the outputs of all predictors", 4)
    context, future = known[cell.inputs[0]], known[last.inputs[1]]
    for wrapper in (context, future):
        require_inputs(model, wrapper)
    check_same(context, future)
    require_output(model, last)
    return context, stacked(model, stack)


def read_export(model: Layer, wrapped: list[Layer], cell: Layer, dense: list[Layer]) -> tuple[Layer, list[Layer]]:
    """Return the wrapper of the encoder that ``to_keras`` has written, and its predictors in their order."""
    known = {layer.name: layer for layer in model.layers}
    crop = known.get(cell.inputs[0]) if cell.inputs else None
    as_written = crop is not None and crop.kind == "Cropping1D" and crop.inputs == (wrapped[0].name,)
    if (
        len(wrapped) != 1
        or crop is None
        or not as_written
        or crop.config.get("cropping") not in ([0, len(dense)], (0, len(dense)))
    ):
        raise MisfitError(cell, "does not read the codes of a context, as in CPC", 3)
    joined = known.get(wrapped[0].inputs[0])
    if joined is None or joined.kind != "Concatenate" or joined.config.get("axis") != 1:
        raise MisfitError(wrapped[0], "does not encode a context and its future, as in CPC", 3)
    require_inputs(model, joined)
    stacks = [layer for layer in model.layers if layer.kind == "Concatenate" and layer is not joined]
    if len(stacks) != (len(dense) > 1) or not all(same_layers(stacked(model, stack), dense) for stack in stacks):
        raise MisfitError(cell, "does not feed predictors whose outputs are stacked, as in CPC", 4)
    return wrapped[0], stacked(model, stacks[0]) if stacks else dense


def read_encoder(wrapper: Layer, keras_2: bool) -> Match:
    """Recognise the encoder in a TimeDistributed layer."""
    if len(wrapper.layers) != 1 or wrapper.layers[0].kind not in MODELS:
        raise MisfitError(wrapper, "does not hold an encoder, as in CPC", 3)
    chain = chain_of(wrapper.layers[0], keras_2)
    encoder = ENCODER.build(chain)
    if encoder is None:
        raise MisfitError(wrapper, "does not hold an ImageEncoder, as in CPC", 3)
    found = ENCODER.describe(encoder, chain.input_shape)
    pairs, _ = match(chain, found, "ImageEncoder")
    channels, height, width = chain.image_shape
    inputs = CENTRED.format(shape=chain.input_shape, channels=channels, height=height, width=width)
    return Match(encoder, pairs, inputs, notes=differences(chain.steps, found, pairs))


def check_same(context: Layer, future: Layer) -> None:
    """Raise :class:`MisfitError` unless two wrappers hold one encoder, or copies; the second may have no weights."""
    first, second = all_weights(context), all_weights(future)
    if not second:
        return
    same = set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)
    if not same:
        raise MisfitError(future, f"holds another encoder than {context.name!r}; CPC has one", 4)


def all_weights(layer: Layer) -> dict[tuple[int | str, ...], np.ndarray]:
    """Return the weights of a layer and of those in it, by their places."""
    found: dict[tuple[int | str, ...], np.ndarray] = {(name,): array for name, array in layer.weights.items()}
    for place, inner in enumerate(layer.layers):
        found |= {(place, *name): array for name, array in all_weights(inner).items()}
    return found


def read_context(file: KerasFile, keras_2: bool) -> Match | None:
    """Recognise a recurrent layer alone, whether it returns the contexts of all terms or the last one only."""
    if sum(layer.kind != "InputLayer" for layer in file.model.layers) != 1:
        return None
    chain = chain_of(file.model, keras_2)
    if len(chain.steps) != 1 or chain.steps[0].kind not in CELLS.values():
        return None
    (step,) = chain.steps
    network = context_network(step, int(chain.input_shape[1] or 0))
    pieces_of_all = recurrent(network.core, pooling=bool(step.settings["return_sequences"]))
    pairs, _ = match(chain, pieces_of_all, "ContextNetwork")
    notes = (
        [] if step.settings["return_sequences"] else ["outputs: contexts of all terms; the file's is the last of them"]
    )
    notes += differences((), (), pairs)
    return Match(network, pairs, f"embeddings (N, T, {network.code_size})", notes=notes)


def read_predictors(file: KerasFile, keras_2: bool) -> Match | None:
    """Recognise dense layers side by side."""
    model = file.model
    dense = [layer for layer in model.layers if layer.kind == "Dense"]
    starts = [layer for layer in model.layers if layer.kind == "InputLayer"]
    others = {layer.kind for layer in model.layers} - {"Dense", "InputLayer", "Reshape", "Concatenate"}
    if len(starts) != 1 or others or not dense or any(layer.inputs != (starts[0].name,) for layer in dense):
        return None
    joined = [layer for layer in model.layers if layer.kind == "Concatenate"]
    if joined:
        require_output(model, joined[0])
        if len(joined) > 1 or not same_layers(stacked(model, joined[0]), dense):
            return None
        dense = stacked(model, joined[0])
    elif len(dense) == 1 and not any(layer.kind == "Reshape" for layer in model.layers):
        return None
    elif len(dense) > 1:
        if {layer.name for layer in dense} != set(file.outputs):
            return None
        known = {layer.name: layer for layer in dense}
        dense = [known[name] for name in file.outputs]
    size, code_size = dense[0].weights["kernel"].shape
    predictors = models.Predictors(size, code_size, len(dense))
    pairs = [dense_pair(layer, linear) for layer, linear in zip(dense, predictors.linear, strict=True)]
    inputs = f"contexts (..., {size}); outputs are (..., {len(dense)}, {code_size})"
    return Match(predictors, pairs, inputs, notes=differences((), (), pairs))


# Ratings


def read_ratings(file: KerasFile, keras_2: bool) -> Match | None:
    """Recognise the network of lecture 61: two embeddings, concatenated, and dense layers."""
    model = file.model
    known = {layer.name: layer for layer in model.layers}
    joined = [layer for layer in model.layers if layer.kind == "Concatenate"]
    if len(joined) != 1 or len(joined[0].inputs) != 2:
        return None
    tables = [table_before(known, name) for name in joined[0].inputs]
    if None in tables:
        return None
    for table in filter(None, tables):
        require_inputs(model, table)
    arrays = [table.weights["embeddings"] for table in tables if table]
    reader = Reader((sum(array.shape[1] for array in arrays),), False, keras_2)
    steps, layer = [], joined[0]
    for _ in model.layers:
        if following := fed_by(model, layer.name):
            layer = following[0]
            steps += reader.steps(layer)
    require_output(model, layer)
    mean = 0.0
    if steps and steps[-1].kind == "Rescaling" and steps[-1].settings["scale"] in (1, 1.0):
        mean = float(steps.pop().settings["offset"] or 0)
    chain = Chain(reader.shape, tuple(steps), False, True)
    dense = [step for step in steps if step.kind == "Dense"]
    if len(dense) != 2 or arrays[0].shape[1] != arrays[1].shape[1]:
        raise MisfitError(joined[0], "is not followed by two dense layers, or joins vectors of two sizes", 3)
    (users, dim), items = arrays[0].shape, len(arrays[1])
    hidden = dense[0].settings["units"]
    ratings = models.RatingModel(users, items, mean, dim, hidden, rates(steps))
    found = pieces(ratings.layers)
    pairs, _ = match(chain, found, "RatingModel")
    tensors = {
        f"{name}_vectors.weight": tensor(np.concatenate([np.zeros((1, dim)), array]))
        for name, array in zip(("user", "item"), arrays, strict=True)
    }
    notes = ["Index i of the file is i + 1 here, because index 0 stands for users and items that are not in training."]
    if not mean:
        notes.append("Outputs are ratings minus the mean rating of training, if the file was trained as in lecture 61.")
    inputs = "pairs (N, 2) of indices: first that of {!r}, then that of {!r}".format(*rating_inputs(model))
    return Match(ratings, pairs, inputs, notes=[*notes, *differences(steps, found, pairs)], tensors=tensors)


def rating_inputs(model: Layer) -> list[str]:
    """Return the names of the inputs that the two vectors belong to, in the order in which they are concatenated."""
    known = {layer.name: layer for layer in model.layers}
    names = next(layer for layer in model.layers if layer.kind == "Concatenate").inputs
    for _ in model.layers:  # as many steps as there can be, and no more, because a file may hold a circle
        names = tuple((known[name].inputs or (name,))[0] for name in names)
    return list(names)


def table_before(known: dict[str, Layer], name: str) -> Layer | None:
    """Return the embedding that feeds a layer, perhaps through layers that flatten it."""
    layer = known.get(name)
    for _ in known:
        if layer is not None and layer.kind in ("Flatten", "Reshape") and len(layer.inputs) == 1:
            layer = known.get(layer.inputs[0])
    is_table = (
        layer is not None and layer.kind == "Embedding" and layer.weights.get("embeddings", np.zeros(0)).ndim == 2
    )
    return layer if is_table else None


GRAPHS: dict[str, Callable[[KerasFile, bool], Match | None]] = {
    "CPC": read_cpc,
    "ContextNetwork": read_context,
    "Predictors": read_predictors,
    "RatingModel": read_ratings,
}
