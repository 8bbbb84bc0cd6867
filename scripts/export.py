"""Export a trained run for other programs: to ONNX, or to a program of torch.export. No data set is needed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torch import nn

import torchdl
from torchdl.cli.finished_runs import comes_with_torchdl, find_predictor
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.errors import InputError, kind_of
from torchdl.predict import Predictor, export
from torchdl.predict.exporting import SUFFIXES, TOLERANCE, Format


@dataclass(frozen=True)
class Config:
    """Export a trained run, and compare the file with the run's network on examples of several sizes."""

    run: Positional[Path]
    """The folder of the run, or pretrained:NAME for a model that comes with torchdl, such as pretrained:lenet-mnist."""
    format: Format = "onnx"
    """onnx, which other frameworks and browsers run; or torch-export, which PyTorch runs without this project."""
    out: Path | None = None
    """The file, .onnx or .pt2; if not given, model.onnx or model.pt2 in the run's folder, or NAME.onnx or
    NAME.pt2 here for pretrained:NAME. A file beside it, with .json added to its name, describes it."""
    part: str = ""
    """If given, a network alone, without what is before and after it: model for all of it, or the name of one of its
    parts, such as encoder, context, generator or discriminator."""
    tolerance: float = TOLERANCE
    """The largest difference from the network that is allowed; of numbers above 1, it is relative to the largest."""


def find_part(model: nn.Module, part: str) -> nn.Module:
    """Return a part of a model by its name."""
    if part == "model":
        return model
    known = {name: module for name, module in model.named_children() if not isinstance(module, nn.Sequential)}
    if part not in known:
        raise InputError(f"{kind_of(model)} has no part {part!r}: choose {' or '.join(['model', *known])}")
    return known[part]


def main(config: Config) -> None:
    """Load the run, export it, and print what was exported and compared."""
    name = comes_with_torchdl(config.run)
    source: nn.Module | Predictor[Any]
    if config.part:  # a run of an older version has no predictor, but parts
        source = find_part(torchdl.pretrained(name).model if name else torchdl.load(config.run), config.part)
    else:
        source = find_predictor(config.run, "cpu")
    default = Path(name) if name else config.run / "model"
    out = config.out or default.with_name(f"{default.name}{SUFFIXES[config.format]}")
    exported = export(source, out, config.format, config.tolerance)
    for each in (*exported.inputs, *exported.outputs):
        print(each)
    sizes = "; ".join(", ".join(f"{name} {size}" for name, size in each.items()) for each in exported.sizes)
    print(f"largest difference from the network: {exported.difference:.1e} ({sizes})")
    print(f"{exported.path} ({exported.path.stat().st_size / 1e6:.2f} MB), described in {exported.description}")


if __name__ == "__main__":
    run_script(main, Config)
