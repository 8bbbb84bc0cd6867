"""Compares the operations of a Keras model with those of a network, and fills the network with its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torchdl.keras.chain import Chain
from torchdl.keras.layers import Piece, to_torch
from torchdl.keras.steps import MisfitError, Step

TRAINING_ONLY = "it matters only in further training"
LABELS = {"axes": "inputs of this number of dimensions:"}  # of settings, where Keras has no word


class Pair(NamedTuple):
    """A step of a Keras model and the piece of a network that does the same; see :func:`to_torch` on the rest."""

    step: Step
    piece: Piece
    flat_last: bool = True
    folded_last: bool = True


class Match(NamedTuple):
    """What corresponds to what in a Keras model and a network.

    Attributes:
        model: The network, without memory for its weights.
        pairs: The corresponding operations.
        inputs: Says what an input is.
        ending: The activation at the end of the Keras model that the network leaves to the loss; "" if there is none.
        notes: What differs without changing an output.
        tensors: Weights of the network that no pair has, by their names in it.
        channels_first: Whether images are (N, C, H, W) in Keras, too.
        applies: The activation that the network applies, and Keras' model does not.
        likely: Whether to choose the network where its name is not given; others have the same layers.
    """

    model: nn.Module
    pairs: Sequence[Pair]
    inputs: str
    ending: str = ""
    notes: Sequence[str] = ()
    tensors: Mapping[str, Tensor] = {}
    channels_first: bool = False
    applies: str = ""
    likely: bool = True


def match(chain: Chain, pieces: Sequence[Piece], name: str, endings: Sequence[str] = ()) -> tuple[list[Pair], str]:
    """Pair the operations of a chain with those of a network.

    A dropout never makes a difference: it does nothing after training.

    Args:
        chain: The operations of the Keras model.
        pieces: Those of the network.
        name: The network's name, for errors.
        endings: Activations that may follow.

    Returns:
        The pairs, and the activation at the end that the network leaves out.

    Raises:
        MisfitError: An operation differs.
    """
    steps = [step for step in chain.steps if step.kind != "Dropout"]
    wanted = [piece for piece in pieces if piece.kind != "Dropout"]
    pairs: list[Pair] = []
    if strange := next((step for step in steps if "is" in step.settings), None):
        raise MisfitError(strange.layer, str(strange.settings["is"]), len(steps))  # whatever the network
    for step, piece in zip(steps, wanted, strict=False):
        if reason := difference(step, piece, name):
            raise MisfitError(step.layer, reason, len(pairs))
        pairs.append(Pair(step, piece, chain.flat_last, not chain.channels_first))
    done = len(pairs)
    if done < len(wanted):
        raise MisfitError(None, f"it ends where {name} has {described(wanted[done])}", done)
    rest, ending = steps[done:], ""
    if rest and rest[0].kind == "Activation" and rest[0].settings["function"] in endings:
        ending, rest = rest[0].settings["function"], rest[1:]
    if rest:
        raise MisfitError(rest[0].layer, f"comes after the end of {name}", done)
    return pairs, ending


def difference(step: Step, piece: Piece, name: str) -> str:
    """Say how a step differs from a piece of a network; return "" if it does not."""
    if step.kind != piece.kind:
        own = f"has {described(step)}" if step.kind == "Activation" else "stands"
        return f"{own} where {name} has {described(piece)}"
    for key, value in piece.settings.items():
        found = step.settings.get(key)
        numbers = isinstance(value, float) and isinstance(found, (int, float))
        if not (math.isclose(found, value, rel_tol=1e-6) if numbers else found == value):  # type: ignore[arg-type]
            return f"has {LABELS.get(key, key)} {found}, where {name} has {value}"
    return ""


def described(operation: Step | Piece) -> str:
    """Return an operation in words."""
    if operation.kind == "Activation":
        return f"the activation {operation.settings['function']!r}"
    return f"a layer {operation.kind}"


def differences(steps: Sequence[Step], pieces: Sequence[Piece], pairs: Sequence[Pair]) -> list[str]:
    """Say what differs from the file besides the form of inputs and outputs, most of it in further training only."""
    notes = []
    theirs = [rate for step in steps if step.kind == "Dropout" and (rate := step.settings["rate"])]
    ours = [rate for piece in pieces if piece.kind == "Dropout" and (rate := piece.settings["rate"])]
    if theirs != ours:
        notes.append(f"The file's dropouts have the rates {theirs}, the network's {ours}: {TRAINING_ONLY}.")
    configs = [layer.config for step, *_ in pairs for layer in (step.layer, *step.layer.layers)]
    if any(config.get("dropout") or config.get("recurrent_dropout") for config in configs):
        notes.append(f"The file's recurrent layers have dropouts of their own, which are left out: {TRAINING_ONLY}.")
    if any(config.get("stateful") for config in configs):
        notes.append("The file's recurrent layers are stateful: they go on where a batch ended; here each starts at 0.")
    if policies := sorted({name for config in configs if "16" in (name := policy(config.get("dtype")))}):
        notes.append(
            f"The file computes in {', '.join(policies)}, this network in 32 bits, so outputs differ a little."
        )
    for step, piece, *_ in pairs:
        if isinstance(piece.module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            kept = 1 - (piece.module.momentum or 0.0)
            momentum = step.layer.config.get("momentum", 0.99)
            if not isinstance(momentum, (int, float)) or not math.isclose(momentum, kept, rel_tol=1e-6):
                notes.append(f"Batch norm's momentum is {momentum} in the file, {kept:g} here: {TRAINING_ONLY}.")
                break
    if any(missing(step, piece) for step, piece, *_ in pairs):
        notes.append(
            "Some layers of the file have no bias or scale; here they are 0 and 1, and further training moves them."
        )
    if any(array.dtype == np.float64 for step, *_ in pairs for array in step.weights.values()):
        notes.append("The file's weights of 64 bits are rounded to 32.")
    return notes


def policy(dtype: Any) -> str:
    """Return the name of the type of numbers that a layer computes in."""
    inner = dtype.get("config") if isinstance(dtype, dict) else None
    return str(inner.get("name") if isinstance(inner, dict) else dtype)


def missing(step: Step, piece: Piece) -> bool:
    """Return whether a layer lacks a weight that the network has."""
    if piece.module is None or piece.kind == "Embedding":
        return False
    names = ("gamma", "beta") if piece.kind.endswith("Normalization") else ("bias",)
    return not set(names) <= set(step.weights)


def fill_(match: Match) -> nn.Module:
    """Give the network of a match the weights of the Keras model; return it in evaluation mode.

    Raises:
        MisfitError: A weight has another shape than the network's.
    """
    model, state = match.model, dict(match.tensors)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for step, piece, *order in match.pairs:
        if piece.module is None:
            continue
        prefix = next(name for name, found in model.named_modules() if found is piece.module)
        check_sizes(step, piece)
        for name, value in to_torch(piece, step.weights, *order).items():
            key = f"{prefix}.{name}" if prefix else name
            if tuple(value.shape) != shapes.get(key):
                reason = f"has weights for {tuple(value.shape)}, not for {shapes.get(key)} as {type(model).__name__}"
                raise MisfitError(step.layer, reason, len(match.pairs))
            state[key] = value
    model.load_state_dict(state, assign=True)
    return model.eval()


def check_sizes(step: Step, piece: Piece) -> None:
    """Raise :class:`MisfitError` unless a dense layer beside an image has a whole number of pixels for each channel."""
    if piece.kind == "Dense":
        kernel = step.weights["kernel"]
        if kernel.shape[0] % piece.flat or kernel.shape[1] % piece.folded:
            raise MisfitError(step.layer, f"has a kernel of shape {kernel.shape}, which is no whole number of pixels")


def empty(build: Any, *arguments: Any, **named: Any) -> Any:
    """Build a network without memory for its weights, and without drawing random numbers."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build(*arguments, **named)
