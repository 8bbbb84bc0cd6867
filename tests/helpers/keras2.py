"""Files as Keras 2.2.4 wrote them, without Keras: descriptions as JSON, and weights by the names of their variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Weights = Mapping[str, Mapping[str, np.ndarray]]  # by layer, and by the names of variables


def node(kind: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:
    """Describe a layer of a functional model."""
    nodes = [[[other, 0, 0, {}] for other in inputs]] if inputs else []
    return {"name": name, "class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes}


def model(name: str, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe a functional model, whose last layer's output is its own."""
    inputs = [[layer["name"], 0, 0] for layer in layers if layer["class_name"] == "InputLayer"]
    outputs = [[layers[-1]["name"], 0, 0]]
    config = {"name": name, "layers": layers, "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Model", "config": config}


def save_weights(group: h5py.Group, names: list[str], weights: Weights) -> None:
    """Write weights as ``model.save_weights`` does."""
    group.attrs["layer_names"] = [name.encode() for name in names]
    group.attrs["backend"] = b"tensorflow"
    group.attrs["keras_version"] = b"2.2.4"
    for name in names:
        own, arrays = group.create_group(name), weights.get(name, {})
        own.attrs["weight_names"] = [path.encode() for path in arrays]
        for path, array in arrays.items():
            own.create_dataset(path, data=array)


def save(path: Path, description: dict[str, Any], weights: Weights) -> None:
    """Write a model as ``model.save`` does, with an optimizer that nobody needs."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"2.2.4"
        file.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = json.dumps(description).encode()
        names = [layer["config"]["name"] for layer in description["config"]["layers"]]
        save_weights(file.create_group("model_weights"), names, weights)
        file.attrs["training_config"] = b"{}"
        file.create_group("optimizer_weights").create_dataset("iterations:0", data=np.int64(3))


def arrays(seed: int, scope: str, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Draw variables of a layer."""
    rng = np.random.default_rng(seed)
    return {f"{scope}/{name}:0": rng.uniform(0.5, 1, shape).astype("float32") for name, shape in shapes.items()}


def perceptron() -> tuple[dict[str, Any], Weights]:
    """Describe a perceptron of two layers."""
    dense = [
        {"class_name": "Dense", "config": {"name": name, "units": units, "activation": activation, "use_bias": True}}
        for name, units, activation in (("dense_1", 3, "relu"), ("dense_2", 2, "softmax"))
    ]
    dense[0]["config"]["batch_input_shape"] = [None, 4]
    weights = {"dense_1": arrays(0, "dense_1", kernel=(4, 3), bias=(3,))}
    weights["dense_2"] = arrays(1, "dense_2", kernel=(3, 2), bias=(2,))
    return {"class_name": "Sequential", "config": {"name": "sequential_1", "layers": dense}}, weights


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    """Return Keras 2's hard sigmoid; Keras 3 has another."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the sigmoid."""
    return 1 / (1 + np.exp(-x))


def gru_states(x: np.ndarray, weights: Mapping[str, np.ndarray], gate: Any, reset_after: bool) -> np.ndarray:
    """Return the states (N, T, H) of Keras' GRU in all terms of sequences (N, T, D)."""
    kernel, weight, bias = weights["kernel"], weights["recurrent_kernel"], weights["bias"]
    h, states = np.zeros((len(x), len(weight))), []
    (k_z, k_r, k_h), (w_z, w_r, w_h) = np.split(kernel, 3, 1), np.split(weight, 3, 1)
    outer, inner = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    (b_z, b_r, b_h), (c_z, c_r, c_h) = np.split(outer, 3), np.split(inner, 3)
    for term in x.transpose(1, 0, 2):
        z = gate(term @ k_z + b_z + h @ w_z + c_z)
        r = gate(term @ k_r + b_r + h @ w_r + c_r)
        candidate = np.tanh(term @ k_h + b_h + (r * (h @ w_h + c_h) if reset_after else (r * h) @ w_h))
        h = z * h + (1 - z) * candidate
        states.append(h)
    return np.stack(states, 1)


def cpc(steps: int = 2, code_size: int = 5, units: int = 6, **gru: Any) -> tuple[dict[str, Any], Weights]:
    """Describe the whole CPC of 28x28 colour images: one encoder in two wrappers, so its weights are stored twice.

    ``gru`` has other settings of the GRU; None leaves a setting out.
    """
    norm = {"axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True}
    conv = {"filters": 32, "kernel_size": [3, 3], "strides": [2, 2], "padding": "valid", "activation": "linear"}
    conv |= {"data_format": "channels_last", "dilation_rate": [1, 1], "use_bias": True}
    dense = {"activation": "linear", "use_bias": True}
    chain: list[dict[str, Any]] = [node("InputLayer", "input_1", batch_input_shape=[None, 28, 28, 3], sparse=False)]
    trained, kept = dict[str, np.ndarray](), dict[str, np.ndarray]()

    def add(kind: str, name: str, config: dict[str, Any], **shapes: tuple[int, ...]) -> None:
        chain.append(node(kind, name, chain[-1]["name"], **config))
        drawn = arrays(len(chain), name, **shapes)
        kept.update({key: array for key, array in drawn.items() if "moving" in key})
        trained.update({key: array for key, array in drawn.items() if "moving" not in key})

    def norm_and_leak(number: int, size: int) -> None:
        four = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (size,))
        add("BatchNormalization", f"batch_normalization_{number}", norm, **four)
        add("LeakyReLU", f"leaky_re_lu_{number}", {"alpha": 0.30000001192092896})

    for number, channels in enumerate((3, 32, 32), 1):
        add("Conv2D", f"conv2d_{number}", conv, kernel=(3, 3, channels, 32), bias=(32,))
        norm_and_leak(number, 32)
    add("Flatten", "flatten_1", {"data_format": "channels_last"})
    add("Dense", "dense_1", {**dense, "units": 128}, kernel=(128, 128), bias=(128,))
    norm_and_leak(4, 128)
    add("Dense", "encoder_embedding", {**dense, "units": code_size}, kernel=(128, code_size), bias=(code_size,))

    encoder = model("encoder", chain)
    gates = {"units": units, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True}
    gates |= {"return_sequences": False, "go_backwards": False, "implementation": 1, "reset_after": False}
    gates = {key: value for key, value in (gates | gru).items() if value is not None}
    predictors = [f"z_t_{step}" for step in range(steps)]
    code = {"function": ["4wEAAAAAAAAA\n", None, None], "function_type": "lambda", "arguments": {}}
    layers = [
        node("InputLayer", "input_2", batch_input_shape=[None, 3, 28, 28, 3]),
        node("TimeDistributed", "time_distributed_1", "input_2", layer=encoder),
        node("GRU", "ar_context", "time_distributed_1", **gates),
        *(node("Dense", name, "ar_context", **dense, units=code_size) for name in predictors),
        node("InputLayer", "input_3", batch_input_shape=[None, steps, 28, 28, 3]),
        node("Lambda", "lambda_1", *predictors, **code),
        node("TimeDistributed", "time_distributed_2", "input_3", layer=encoder),
        node("CPCLayer", "cpc_layer_1", "lambda_1", "time_distributed_2"),
    ]
    weights: dict[str, Mapping[str, np.ndarray]] = {f"time_distributed_{i}": trained | kept for i in (1, 2)}
    bias = (2, 3 * units) if gates.get("reset_after") else (3 * units,)
    shapes = {"kernel": (code_size, 3 * units), "recurrent_kernel": (units, 3 * units), "bias": bias}
    weights["ar_context"] = arrays(50, "ar_context", **shapes)
    for step, name in enumerate(predictors):
        weights[name] = arrays(60 + step, name, kernel=(units, code_size), bias=(code_size,))
    return model("model_1", layers), weights
