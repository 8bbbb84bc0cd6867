"""Export every model class to every format, and print how far the results are from the original networks.

``python -m experiments.exported_models`` prints the table in docs/guide/export.md, of networks with random weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torchdl import models
from torchdl.models import gates
from torchdl.predict import export
from torchdl.predict.exporting import SUFFIXES

Arguments = dict[str, Any]


def encoder(**changed: Any) -> models.ImageEncoder:
    """Build an encoder of images."""
    return models.ImageEncoder(**{"image_size": 28, "channels": 1, "code_size": 16, **changed})


def cpc(**options: Any) -> models.CPC:
    """Build a CPC model of images."""
    return models.CPC(encoder(), models.ContextNetwork(16, 32), models.Predictors(32, 16, 2), **options)


def signal_cpc() -> models.CPC:
    """Build a CPC model of signals."""
    signals = models.SignalEncoder(2, 16, (8, 4), (4, 2))
    return models.CPC(signals, models.ContextNetwork(16, 32), models.Predictors(32, 16, 2), every_term=True)


#: Every class, with the arguments of a usual network, and those that make it small
MODELS: dict[str, tuple[Callable[..., nn.Module], Arguments, Arguments]] = {
    "LenetLike": (models.LenetLike, {"in_shape": (1, 28, 28), "num_classes": 10}, {"width": 4, "hidden": 8}),
    "MLP": (models.MLP, {}, {"in_features": 6, "hidden": (8,)}),
    "StridedCNN": (models.StridedCNN, {}, {"hidden": 8}),
    "VGGLike": (models.VGGLike, {}, {"in_shape": (3, 16, 16), "width": 4, "hidden": 8}),
    "AirbenchLike": (models.AirbenchLike, {}, {"in_shape": (3, 20, 20), "widths": (4, 4, 4)}),
    "RowReader": (models.RowReader, {"in_shape": (1, 28, 28), "num_classes": 10}, {"hidden": 4}),
    "Autoencoder": (models.Autoencoder, {"in_shape": (1, 28, 28)}, {"in_shape": (1, 13, 13), "width": 4}),
    "ImageEncoder": (encoder, {"center_images": True}, {"depth": 2, "filters": 4, "hidden": 8}),
    "SignalEncoder": (models.SignalEncoder, {}, {"code_size": 8}),
    "ContextNetwork, GRU": (models.ContextNetwork, {}, {"code_size": 8, "context_size": 6}),
    "ContextNetwork, LSTM": (models.ContextNetwork, {"cell": "lstm"}, {"code_size": 8, "context_size": 6}),
    "Predictors": (models.Predictors, {}, {"context_size": 6, "code_size": 8}),
    "CPC": (cpc, {}, {}),
    "CPC, as the original": (cpc, {"separate_passes": True, "batch_statistics": True}, {}),
    "CPC of signals": (signal_cpc, {}, {}),
    "ProbeHead": (models.ProbeHead, {}, {"code_size": 8}),
    "ProbedEncoder": (lambda: models.ProbedEncoder(encoder(), models.ProbeHead(16)), {}, {}),
    "Generator": (models.Generator, {"batch_norm": 0.8}, {"hidden": (16,)}),
    "Discriminator": (models.Discriminator, {}, {"in_features": 64, "hidden": (8,)}),
    "ConvGenerator": (models.ConvGenerator, {}, {"image_shape": (1, 8, 8), "width": 4}),
    "ConvDiscriminator": (models.ConvDiscriminator, {"spectral_norm": True}, {"image_shape": (1, 8, 8), "width": 4}),
    "GAN, simple": (models.simple_gan, {}, {"image_shape": (1, 8, 8)}),
    "GAN, convolutional": (models.conv_gan, {}, {"image_shape": (1, 8, 8), "width": 4}),
    "TransferModel": (
        models.TransferModel,
        {"backbone": "squeezenet1_1", "num_classes": 10},
        {"input_size": 32, "resize_size": 48},
    ),
    "FrozenFeatures": (lambda: models.FrozenFeatures(models.MLP()), {}, {}),
    "LinearHead": (lambda: models.LinearHead(576, 10), {}, {}),
    "RatingModel": (
        models.RatingModel,
        {"users": 943, "items": 1682, "mean": 3.5, "factors": 8},
        {"users": 20, "hidden": 8},
    ),
    "MatrixFactorization": (models.MatrixFactorization, {"users": 943, "items": 1682, "mean": 3.5}, {"users": 20}),
    "SequenceModel, linear": (models.SequenceModel, {"kind": "linear", "length": 20, "horizon": 5}, {}),
    "SequenceModel, MLP": (models.SequenceModel, {"kind": "mlp", "length": 20}, {}),
    "SequenceModel, RNN": (models.SequenceModel, {"kind": "rnn", "hidden": 32}, {"hidden": 4}),
    "SequenceModel, linear RNN": (models.SequenceModel, {"kind": "rnn", "activation": "none"}, {"hidden": 4}),
    "SequenceModel, GRU": (models.SequenceModel, {"kind": "gru", "hidden": 32}, {"hidden": 4}),
    "SequenceModel, LSTM of two layers": (
        models.SequenceModel,
        {"kind": "lstm", "hidden": 32, "layers": 2, "bidirectional": True, "pooling": "max"},
        {"hidden": 4},
    ),
    "GatedGRU": (
        gates.GatedGRU,
        {"input_size": 8, "hidden_size": 16, "reset_after": False, "gate": "hard_sigmoid"},
        {},
    ),
    "GatedLSTM": (gates.GatedLSTM, {"input_size": 8, "hidden_size": 16, "gate": "relu6"}, {}),
    "TextLSTM": (models.TextLSTM, {"vocabulary_size": 2000, "out_features": 3}, {"vocabulary_size": 50}),
    "TextCNN": (models.TextCNN, {"vocabulary_size": 2000, "out_features": 3}, {"widths": (4, 4, 4)}),
    "WordEmbedding": (models.WordEmbedding, {"vocabulary_size": 2000, "dim": 20}, {}),
    "BionodalRootUnit": (models.BionodalRootUnit, {}, {}),
    "Sine": (models.Sine, {}, {}),
}


def build(name: str, small: bool = False) -> nn.Module:
    """Build a model with random weights, biases and statistics, so that no part of it has no effect."""
    function, arguments, changes = MODELS[name]
    torch.manual_seed(0)
    model = function(**{**arguments, **(changes if small else {})}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and key.rpartition(".")[2] in ("bias", "running_mean", "running_var"):
                tensor.copy_(0.5 + 0.5 * torch.rand(tensor.shape, generator=generator))
    return model


def main() -> None:
    """Print the table."""
    print("| model | torch.export | ONNX |\n|---|---|---|")
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            found = [
                export(build(name), Path(folder) / f"model{suffix}", format).difference  # type: ignore[arg-type]
                for format, suffix in reversed(SUFFIXES.items())
            ]
        print(f"| {name} | " + " | ".join("0" if each == 0 else f"{each:.0e}" for each in found) + " |", flush=True)


if __name__ == "__main__":
    main()
