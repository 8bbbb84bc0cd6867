"""Save and load a model as two files: ``architecture.json`` and ``weights.safetensors``.

The architecture is the name of the model's class and its constructor's arguments, read from attributes of the same
names; an argument that is a model is described in the same way. Loading builds only torchdl's own model classes and
runs no code from the files, so a stranger's folder is data.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import threading
import typing
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import torchdl.models
from torchdl.errors import InputError, first_line, kind_of, require
from torchdl.files import ARCHITECTURE, WEIGHTS, PathLike, make_folder, plain, read_json, replacing, write_json

CHECKSUM, BLANK = "sha256", "0" * 64  # its name in the file's metadata, and what is in its place while it is computed
MAX_ARCHITECTURE = 2**20  # bytes
ModelT = TypeVar("ModelT", bound=nn.Module)
SPARE = 1000  # parameters that a model may register beyond ten for each one that it keeps: a backbone's classifier, say


def arguments_of(cls: type[nn.Module]) -> list[str]:
    """Return the names of a model class's arguments."""
    # a class without its own constructor has nn.Module's, which takes *args and **kwargs
    parameters = inspect.signature(cls).parameters.items()
    return [key for key, p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def describe(model: nn.Module) -> dict[str, Any]:
    """Describe a torchdl model as ``{"class": ..., "arguments": ...}``; arguments that are models are nested."""
    name = type(model).__name__
    require(
        getattr(torchdl.models, name, None) is type(model),
        f"{name} is not one of torchdl's model classes, so it cannot be saved: save its state_dict() by torch.save",
    )
    values = {key: getattr(model, key) for key in arguments_of(type(model))}
    arguments = {k: describe(v) if isinstance(v, nn.Module) else plain(v) for k, v in values.items()}
    return {"class": name, "arguments": arguments}


def build(description: object) -> nn.Module:
    """Build a model with new weights from the result of :func:`describe`; raise :class:`InputError` for others."""
    if not isinstance(description, dict) or not isinstance(description.get("arguments"), dict):
        raise InputError('an architecture must be {"class": name, "arguments": {...}}')
    cls = getattr(torchdl.models, str(description.get("class")), None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"{description.get('class')!r} is not one of torchdl's model classes")
    known, kinds, arguments = arguments_of(cls), typing.get_type_hints(cls.__init__), {}
    for name, value in description["arguments"].items():
        require(name in known, f"{cls.__name__} cannot be built: it has no argument {name!r}")
        try:
            is_model = isinstance(value, dict)
            arguments[name] = build(value) if is_model else msgspec.convert(value, kinds[name])
        except msgspec.ValidationError as error:
            raise InputError(f"{cls.__name__} cannot be built from these arguments: {name}: {error}") from error
    try:
        return cls(**arguments)
    except InputError:
        raise
    except Exception as error:  # constructors raise many kinds for numbers that are too large, say
        raise InputError(f"{cls.__name__} cannot be built from these arguments: {first_line(error)}") from error


# What is saved must be what is loaded


@functools.lru_cache(maxsize=8)
def skeleton(architecture: str) -> nn.Module:
    """Build the model that an ``architecture.json`` describes, without memory for its weights."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build(json.loads(architecture))


def settings(module: nn.Module) -> dict[str, Any]:
    """Return the settings of a module by name; instead of a value that is no setting, its type."""
    own = type(module).__module__.startswith("torchdl.")
    names = arguments_of(type(module)) if own else [name for name in vars(module) if name[0] != "_"]

    def setting(value: Any) -> Any:
        value = plain(value, keep=torch.Tensor)
        if isinstance(value, (list, tuple)):
            return [setting(each) for each in value]
        is_setting = value is None or isinstance(value, (bool, int, float, str)) or inspect.isroutine(value)
        return value if is_setting else type(value).__name__

    passing = {"training", "inplace", "forward"}
    return {name: setting(getattr(module, name)) for name in names if name not in passing}


def difference(model: nn.Module, other: nn.Module) -> str:
    """Describe the first difference in structure of a model from another one; return "" if there is none."""
    ours, theirs = (dict(m.named_modules(remove_duplicate=False)) for m in (model, other))
    for name in [*theirs, *ours]:
        module, expected = ours.get(name), theirs.get(name)
        if module is None or expected is None:
            return f"it has {'a new' if expected is None else 'no'} module {name}"
        kinds = [f"{type(m).__module__}.{type(m).__qualname__}" for m in (module, expected)]
        if kinds[0] != kinds[1]:
            return f"{name} is {kind_of(module)}, not {kind_of(expected)}"
        forward = vars(module).get("forward")
        source = getattr(
            forward, "func", forward
        )  # torchdl's own, in a partial, computes the same in several processes
        if forward is not None and not getattr(source, "__module__", "").startswith("torchdl."):
            return f"the forward of {name or 'the model'} was replaced"
        values = settings(module)
        for key, value in settings(expected).items():
            if values.get(key, "missing") != value:
                return f"{key} of {name or 'the model'} is {values.get(key, 'missing')}, not {value}"
    kinds_of = {name: tensor.dtype for name, tensor in other.state_dict().items()}
    for name, tensor in model.state_dict().items():
        if tensor.dtype != kinds_of.get(name, tensor.dtype):
            return f"{name} has {tensor.dtype} numbers, not {kinds_of[name]}"
    return misfit(shapes_of(model), shapes_of(other))


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's parameters and buffers."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def misfit(shapes: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> str:
    """Describe the first tensor that is missing, not expected or of another shape; return "" if there is none."""
    for name in [*expected, *shapes]:
        if name not in shapes or name not in expected:
            return f"{name} is {'missing' if name in expected else 'not expected'}"
        if shapes[name] != expected[name]:
            return f"{name} is {list(shapes[name])}, not {list(expected[name])}"
    return ""


def ties(model: nn.Module) -> list[list[str]]:
    """Return the names of the parameters that are one and the same, in groups."""
    groups: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups[id(parameter)].append(name)
    return [names for names in groups.values() if len(names) > 1]


def tie_(model: nn.Module, groups: list[list[str]]) -> None:
    """Make the parameters of each group one and the same, in place."""
    known = dict(model.named_parameters(remove_duplicate=False))
    for first, *others in groups:
        for name in others:
            module, _, key = name.rpartition(".")
            model.get_submodule(module).register_parameter(key, known[first])


def can_be_tied(model: nn.Module, names: list[str]) -> bool:
    """Return whether these are names of a model's parameters of one shape."""
    known = dict(model.named_parameters(remove_duplicate=False))
    return set(names) <= set(known) and len({known[name].shape for name in names}) == 1


def check(model: nn.Module) -> dict[str, Any]:
    """Return the description of a model; raise :class:`InputError` if it would build another one."""
    description = describe(model)
    try:
        reason = difference(model, skeleton(json.dumps(description)))
    except (InputError, TypeError, RecursionError) as error:  # JSON's error for other types is a TypeError
        reason = str(error)
    require(
        not reason,
        f"{type(model).__name__} cannot be saved, because its arguments would build another model ({reason}): "
        "build it with the arguments that it has now, or save its state_dict() by torch.save",
    )
    return description


def save(model: nn.Module, folder: PathLike, half: bool = False) -> None:
    """Save ``model`` in ``folder``; each of the two files is written whole or not at all.

    Parameters that are tied (one and the same under several names) are tied again by :func:`load`. Hooks are
    not saved: what a forward hook changes in an output, the loaded model does not do.

    Args:
        model: The model; one of ``torch.compile`` is saved as the model that it was made of.
        folder: The folder, which is made if it is not there.
        half: Whether the file has numbers of 16 bits, which takes half the space; :func:`load` returns the model's own
            type, with rounded weights.

    Raises:
        InputError: It is no model; it, or a model inside it, is not one of torchdl's own classes, or was changed after
            it was built (an activation replaced, say), so that its arguments would build another model; or a weight is
            too large for 16 bits.

    Example:
        >>> import os, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> torchdl.save(torchdl.MLP(), folder)
        >>> sorted(os.listdir(folder))
        ['architecture.json', 'weights.safetensors']
        >>> torchdl.save(torch.nn.Linear(1, 1), folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: Linear is not one of torchdl's model classes, so it cannot be saved: ...
    """
    given = kind_of(model)
    advice = "save(model, folder), or torch.save for a state_dict()"
    require(isinstance(model, nn.Module), f"torchdl.save takes a model, not {given}: {advice}")
    folder, model = Path(folder), getattr(model, "_orig_mod", model)  # of torch.compile
    half_key = next((k for k, t in model.state_dict().items() if t.dtype in (torch.float16, torch.bfloat16)), "")
    advice = "save model.float(), with half=True for a file of 16 bits"
    require(not half_key, f"{half_key} has numbers of 16 bits, but the model is loaded with 32: {advice}")
    description = check(model) | {"torchdl": torchdl.__version__}
    if tied := ties(model):
        description["tied"] = tied
    state, stored = {}, set()
    for key, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if half and tensor.is_floating_point():
            require(bool(tensor.abs().lt(65_520).all()), f"{key} has numbers that 16 bits cannot hold: save all 32")
            tensor = tensor.half()
        where = tensor.untyped_storage().data_ptr()
        state[key] = tensor.clone() if where in stored else tensor  # safetensors refuses shared memory
        stored.add(where)
    data = safetensors.torch.save(state, {CHECKSUM: BLANK})  # save_file hides a full disk behind its own error
    data = data.replace(BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
    make_folder(folder)
    write_json(folder / ARCHITECTURE, description)
    with replacing(folder / WEIGHTS) as path:
        path.write_bytes(data)
        check_weights(path)


def check_weights(path: Path) -> bytes:
    """Read a file of weights, and compare its SHA-256 with the one that it holds.

    The checksum is in the file itself, so that a kill leaves no file beside the checksum of another one. It is that of
    the file with zeros in the checksum's place. Files from before have none.

    Raises:
        InputError: The file is damaged.
    """
    data = path.read_bytes()
    try:
        known = str(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][CHECKSUM])
    except (ValueError, KeyError, TypeError, RecursionError):  # none, or no file of weights, which the reader reports
        return data
    found = hashlib.sha256(data.replace(known.encode(), BLANK.encode(), 1)).hexdigest()
    require(found == known, f"{path} is damaged: its checksum does not match")
    return data


def version_note(description: object) -> str:
    """Return what to add to an error if another version of torchdl wrote an architecture; "" if none did."""
    version = description.get("torchdl") if isinstance(description, dict) else None
    if version in (None, torchdl.__version__):
        return ""
    return f" (torchdl {str(version)[:20]} wrote it, and this is {torchdl.__version__}: use that version)"


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """Raise :class:`InputError` as soon as modules that are built here have too many parameters for ``count`` tensors.

    So a stranger's architecture, whatever numbers it has, takes no more time than its weights justify.
    """
    thread, left = threading.get_ident(), 10 * count + SPARE

    def count_down(*_: Any) -> None:
        nonlocal left
        left -= threading.get_ident() == thread
        require(left >= 0, f"it describes many more parameters than the {count} tensors in {WEIGHTS}")

    handle = register_module_parameter_registration_hook(count_down)
    try:
        yield
    finally:
        handle.remove()


@overload
def load(folder: PathLike, device: str | torch.device = "cpu") -> nn.Module: ...


@overload
def load(folder: PathLike, device: str | torch.device = "cpu", *, kind: type[ModelT]) -> ModelT: ...


def load(folder: PathLike, device: str | torch.device = "cpu", *, kind: type[nn.Module] = nn.Module) -> nn.Module:
    """Load the model that a run or :func:`save` stored in ``folder``, on ``device``, in evaluation mode.

    Args:
        folder: The folder.
        device: Where to load it.
        kind: The class that the model must be of, such as ``torchdl.LenetLike``; type checkers then know it.

    Raises:
        InputError: A file is missing, damaged or not torchdl's, the weights are another model's, or the model is of
            another class.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> torchdl.save(torchdl.MLP(4, 3, hidden=(8, 8)), folder)
        >>> model = torchdl.load(folder, kind=torchdl.MLP)
        >>> type(model).__name__, model.hidden, model.training
        ('MLP', (8, 8), False)
    """
    place = isinstance(device, (str, int, torch.device))
    require(place, f"device must be one of PyTorch's, such as cpu, not {device!r}: name the model's class by kind=")
    require(isinstance(kind, type), f"kind must be a class, such as torchdl.LenetLike, not {kind!r}")
    folder = Path(folder)
    for name in (ARCHITECTURE, WEIGHTS):
        if not (folder / name).is_file():
            advice = "choose the folder of a script's run, or save a model there by torchdl.save(task.trained, folder)"
            raise InputError(f"{folder} holds no {name}: {advice}")
    description, weights = read_json(folder / ARCHITECTURE, limit=MAX_ARCHITECTURE), check_weights(folder / WEIGHTS)
    try:
        found = safetensors.torch.load(weights)
        # allocates no memory: a stranger's file may name any sizes
        with at_most(len(found)), torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build(description)
            tied = msgspec.convert(description.get("tied", []), list[list[str]])
        require(all(can_be_tied(model, names) for names in tied), "it has other parameters than those that it ties")
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:  # msgspec's error is a ValueError
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder} has no model that torchdl can load: {reason}{version_note(description)}") from error
    reason = misfit({name: tuple(tensor.shape) for name, tensor in found.items()}, shapes_of(model))
    state = model.state_dict()  # knows the versions of its modules, which safetensors files lack
    if not reason:
        for name, tensor in found.items():
            if tensor.is_floating_point() != state[name].is_floating_point():
                reason = f"{name} has {tensor.dtype} numbers, not {state[name].dtype}"
            state[name] = tensor.to(state[name].dtype)
    require(not reason, f"{folder / WEIGHTS} does not fit {folder / ARCHITECTURE}: {reason}{version_note(description)}")
    model.load_state_dict(state, assign=True)
    tie_(model, tied)
    require(isinstance(model, kind), f"{folder} holds {kind_of(model)}, not a {kind.__name__}: name another run")
    return model.to(device).eval()
