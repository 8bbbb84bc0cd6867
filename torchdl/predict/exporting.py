"""Export a trained network as a file for other programs: ONNX, or a program of ``torch.export``.

A batch, and the length of sequences, may have any size. Arithmetic between raw inputs and answers, such as the scaling
of pixels and the softmax, is inside the file; a JSON file beside it describes the rest. Each file is compared with the
network on examples of several sizes before it is written.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from torchdl.errors import InputError, first_line, require
from torchdl.evaluation_mode import evaluating
from torchdl.files import PathLike, make_folder, plain, replacing, require_suffix, write_json
from torchdl.predict.base import Predictor
from torchdl.predict.graphs import Graph, model_graph, predictor_graph
from torchdl.predict.recurrent_layers import as_operators, of_any_length

Format = Literal["onnx", "torch-export"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
TRACED, COMPARED = 7, (1, 4, 11)  # the sizes of examples; see Graph.sizes
TOLERANCE = 1e-4
MAX_ONNX = 2**31 - 1  # bytes, the limit of protocol buffers


class Exported(NamedTuple):
    """An exported network.

    Attributes:
        path: The file.
        description: The JSON file that describes its inputs, its outputs and the preprocessing that is not inside.
        inputs: A sentence for each input.
        outputs: A sentence for each output.
        difference: The largest difference from the network, on examples; of outputs above 1, relative to the largest.
        sizes: The sizes of the examples.
    """

    path: Path
    description: Path
    inputs: list[str]
    outputs: list[str]
    difference: float
    sizes: list[dict[str, int]]


def export(
    source: Predictor[Any] | nn.Module | Graph,
    path: PathLike,
    format: Format | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a network as a file for other programs, and compare it with the network on random examples.

    Args:
        source: A predictor, which is exported with its preprocessing; a model of torchdl's alone; or a :class:`Graph`.
        path: The file: ``.onnx`` for ONNX, ``.pt2`` for ``torch.export``. The JSON file beside it adds ``.json``
            to its name.
        format: ``onnx``, which needs the extra ``export``, or ``torch-export``; by default, the one of the file's name.
        tolerance: The largest difference that is allowed; see :class:`Exported`.

    Raises:
        InputError: A package is missing, the network cannot be exported, or the difference is too large. No file is
            written then.

    Example:
        >>> import os, tempfile
        >>> from torchdl.predict import export
        >>> path = os.path.join(tempfile.mkdtemp(), "model.pt2")
        >>> exported = export(torchdl.MLP(4, 3, hidden=(8,)), path)
        >>> exported.difference < 1e-6, exported.description.name
        (True, 'model.pt2.json')
        >>> program = torch.export.load(path).module()
        >>> program(torch.zeros(5, 4)).shape, program(torch.zeros(2, 4)).shape
        (torch.Size([5, 3]), torch.Size([2, 3]))
    """
    path = Path(path)
    require(format in (None, *SUFFIXES), f"unknown format {format!r}: choose one of {', '.join(SUFFIXES)}")
    require_suffix(path, *([SUFFIXES[format]] if format else SUFFIXES.values()))
    format = format or ("onnx" if path.suffix.lower() == SUFFIXES["onnx"] else "torch-export")
    if format == "onnx":
        require_packages()
    graph = source if isinstance(source, Graph) else None
    graph = graph or (predictor_graph(source) if isinstance(source, Predictor) else model_graph(source))  # type: ignore[arg-type]
    description = describe(graph, source)
    with evaluating(graph.network, torch.device("cpu")):
        data, run = (onnx_file if format == "onnx" else torch_file)(graph, description)
        sizes = [graph.sizes(factor) for factor in COMPARED]
        difference = max(compare(graph, run, each) for each in sizes)
    require(
        difference <= tolerance,
        f"the exported network differs from the original by {difference:.1e}, more than {tolerance:g}: do not use it",
    )
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    description_path = path.with_name(f"{path.name}.json")
    write_json(description_path, description)
    inputs = [
        f"input {each['name']}: {each['type']} {each['shape']}, {each['meaning']}" for each in description["inputs"]
    ]
    outputs = [f"output {each.name}: {each.meaning}" for each in graph.outputs]
    return Exported(path, description_path, inputs, outputs, difference, sizes)


def describe(graph: Graph, source: Any) -> dict[str, Any]:
    """Return what the JSON file holds."""
    inputs = [
        {
            "name": each.name,
            "shape": list(each.shape),
            "type": str(each.dtype).partition(".")[2],
            "meaning": each.meaning,
        }
        for each in graph.inputs
    ]
    kind = {"kind": source.kind, "settings": asdict(source.settings)} if isinstance(source, Predictor) else {}
    return {"inputs": inputs, "outputs": [each._asdict() for each in graph.outputs], "least": graph.least, **kind}


def compare(graph: Graph, run: Callable[[Sequence[Tensor]], Sequence[Tensor]], sizes: dict[str, int]) -> float:
    """Return the largest difference between a network and its exported form; see :class:`Exported`."""
    inputs = graph.examples(sizes)
    expected, found = pytree.tree_leaves(graph.network(*inputs)), run(inputs)
    require(
        [tensor.shape for tensor in expected] == [tensor.shape for tensor in found],
        f"the exported network returns other shapes than the original for {sizes}",
    )
    largest = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        difference = (ours.double() - theirs.double()).abs().masked_fill(ours == theirs, 0)
        scale = max(1.0, float(ours[ours.isfinite()].abs().max()) if bool(ours.isfinite().any()) else 1.0)
        largest = max(largest, float(difference.nan_to_num(nan=torch.inf).max()) / scale)
    return largest


class Leaves(nn.Module):
    """A network whose output is one tensor, or a plain tuple of tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the tensors that the network returns."""
        tensors = pytree.tree_leaves(self.network(*inputs))
        return tensors[0] if len(tensors) == 1 else tuple(tensors)


def trace(graph: Graph, with_ones: bool = False) -> ExportedProgram:
    """Trace a network for inputs of any size.

    Args:
        graph: The network.
        with_ones: Whether to assume nothing of sizes that may be 1, for which PyTorch else may want another program.
    """
    shapes = tuple(
        {d: Dim.DYNAMIC for d, size in enumerate(each.shape) if isinstance(size, str)} for each in graph.inputs
    )
    assuming = torch.fx.experimental._config.patch(backed_size_oblivious=with_ones)  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(), assuming:
            warnings.simplefilter("ignore")
            return torch.export.export(
                Leaves(graph.network), graph.examples(graph.sizes(TRACED)), dynamic_shapes=(shapes,)
            )
    except InputError:
        raise
    except Exception as error:  # torch.export's errors have no common class
        kind = type(graph.network).__name__
        raise InputError(f"{kind} cannot be traced for inputs of any size: {first_line(error)}") from error


# torch.export


def torch_file(graph: Graph, description: dict[str, Any]) -> tuple[bytes, Callable[..., Any]]:
    """Return a program of ``torch.export`` as a file, and the function that computes it."""
    for with_ones in (False, True):
        with of_any_length(graph.network):
            program = trace(graph, with_ones)
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, file, extra_files={"torchdl.json": json.dumps(plain(description))})
            file.seek(0)
            loaded = torch.export.load(file).module()
        with contextlib.suppress(AssertionError):  # it refuses what it was not traced for
            loaded(*graph.examples(graph.sizes(1)))
            return file.getvalue(), partial(run_program, loaded)
    raise InputError(f"{type(graph.network).__name__} cannot be traced for inputs of any size")


def run_program(program: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs of a program of ``torch.export``."""
    return pytree.tree_leaves(program(*inputs))


# ONNX


def require_packages() -> None:
    """Raise :class:`InputError` unless the packages are installed that ONNX needs."""
    try:
        import onnx  # noqa: F401  # imported late: these take seconds, and are extra
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            "ONNX needs the packages onnx, onnxruntime and onnxscript: in a clone of torchdl, "
            "pip install -e '.[export]'"
        ) from error


def onnx_file(graph: Graph, description: dict[str, Any]) -> tuple[bytes, Callable[..., Any]]:
    """Return a network as a file of ONNX, and the function that computes it."""
    import onnx
    import onnxruntime

    with as_operators(graph.network):
        program = trace(graph)
    names = [each.name for each in graph.inputs], [each.name for each in graph.outputs]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(program, input_names=names[0], output_names=names[1], dynamo=True, verbose=False)
    require(converted is not None, "PyTorch has returned no network of ONNX")
    assert converted is not None
    model = converted.model_proto
    tidy_(model, graph)
    onnx.helper.set_model_props(model, {"torchdl": json.dumps(plain(description))})
    require(model.ByteSize() <= MAX_ONNX, 'the network is too large for a file of ONNX: choose format="torch-export"')
    data = model.SerializeToString(deterministic=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(names[0], inputs, strict=True)}
        return [torch.from_numpy(array) for array in session.run(names[1], given)]

    return data, run


def tidy_(model: Any, graph: Graph) -> None:
    """Give the sizes that may change their names, and remove PyTorch's notes on its own source code, in place."""
    renamed: dict[str, str] = {}
    for value, each in zip(model.graph.input, graph.inputs, strict=True):
        for dimension, size in zip(value.type.tensor_type.shape.dim, each.shape, strict=True):
            if isinstance(size, str):
                require(bool(dimension.dim_param), f"the exported network takes one {size} alone")
                renamed[dimension.dim_param] = size
                dimension.dim_param = size
    for value in model.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = re.sub(r"\w+", lambda found: renamed.get(found[0], found[0]), dimension.dim_param)
    del model.graph.value_info[:]
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
