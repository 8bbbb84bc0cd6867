"""Probe the frozen encoder of a run of train_cpc.py, and compare it with a random and a supervised encoder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torch.nn.functional as F
from torch import nn

import torchdl
from torchdl import BatchLoader, Digits, Supervised, Trainer, artifacts, load_digits
from torchdl.cli.finished_runs import data_root_of, dataset_of
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.cli.printing import describe_data
from torchdl.errors import kind_of, require
from torchdl.files import read_config, read_settings
from torchdl.models import FrozenFeatures, probe_head
from torchdl.recipes.cpc_probe import Embeddings, Probes, describe, encode, probe, probe_report
from torchdl.tasks import accuracy, plateau
from torchdl.training.device import find_device, seed_generators, setup_process
from torchdl.training.folder import refuse_links


@dataclass(frozen=True)
class Config:
    """Measure on test digits what an encoder from train_cpc.py has learnt, without training it further."""

    run: Positional[Path]
    """The folder of the run, such as runs/cpc/first, or of an encoder from convert_keras.py."""
    epochs: int = 15
    """Epochs of the probes. The supervised encoder is trained for as many epochs as the run."""
    views: int = 5
    """Colourings of each training image, which the probes see in turn; grey images have one."""
    baselines: bool = True
    """Probe a random encoder and a supervised one, too."""
    seed: int = 0
    """Seed of all random numbers."""
    data_root: Path | None = None
    """The folder of the datasets."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int = 0
    """CPU threads; 0 lets PyTorch choose."""


class Length(TypedDict):
    """How long the run was trained."""

    epochs: int
    max_steps: int


class OfRun(TypedDict):
    """The settings of the run that the probes need."""

    image_size: int
    color: bool
    rescale: bool
    background: str | None
    trainer: Length


def supervised_encoder(description: dict[str, Any], train: Digits, validation: Digits, trainer: Trainer) -> nn.Module:
    """Train an encoder of the same architecture, with a linear layer behind it, from the labels."""
    encoder = artifacts.build(description)
    model = nn.Sequential(encoder, nn.LeakyReLU(0.3), nn.Linear(encoder.code_size, len(train.classes)))  # type: ignore[arg-type]
    task = Supervised(model, F.cross_entropy, {"accuracy": accuracy}, schedule=lambda adam, _: plateau(adam))
    trainer.fit(task, BatchLoader(train, 64, shuffle=True, seed=trainer.seed), BatchLoader(validation, 500))
    return encoder


def main(config: Config) -> None:
    """Load the encoder, encode the digits, probe the embeddings, draw."""
    known, model = read_config(config.run).get("config", {}), torchdl.load(config.run)
    encoder = getattr(model, "encoder", model)  # of a CPC, or imported alone or with the original's probe
    if not isinstance(encoder, torchdl.ImageEncoder) or "image_size" not in known:
        raise torchdl.InputError(
            f"{config.run} holds {kind_of(model)}, not a CPC of digits: name a run of train_cpc.py"
        )
    settings = read_settings(config.run, OfRun)
    require(min(config.epochs, config.views) >= 1, "--epochs and --views must be 1 or more")
    refuse_links(config.run)
    print(setup_process(config.threads))
    shape: dict[str, Any] = {key: settings[key] for key in ("image_size", "color", "rescale", "background")}
    root = config.data_root or data_root_of(config.run)
    train, validation, test = (
        load_digits(subset, **shape, seed=config.seed, name=dataset_of(config.run), root=root)
        for subset in ("train", "valid", "test")
    )
    print(describe_data(train))
    trainer = Trainer(**settings["trainer"], seed=config.seed, device=config.device)
    description = artifacts.describe(encoder)
    encoders: dict[str, Callable[[], nn.Module]] = {"cpc": lambda: encoder}
    if config.baselines:
        encoders["random"] = lambda: artifacts.build(description)
        encoders["supervised"] = lambda: supervised_encoder(description, train, validation, trainer)
    probes: dict[str, Probes] = {}
    first: Embeddings | None = None
    for name, build in encoders.items():
        print(f"{name} encoder")
        seed_generators(find_device(config.device), config.seed)
        frozen = FrozenFeatures(build())
        before = frozen.fingerprint()
        train_set = encode(frozen, train, config.views if train.color else 1, config.device)
        validation_set, test_set = (encode(frozen, digits, device=config.device) for digits in (validation, test))
        first = first or test_set
        head = probe_head(train_set.codes.shape[2], len(test.classes))
        probes[name] = probe(head, train_set, validation_set, test_set, config.epochs, config.seed, config.device)
        assert frozen.fingerprint() == before, "a probe has changed the frozen encoder"
        print(describe(probes[name]))
    assert first is not None
    more = {"seed": config.seed, "epochs": config.epochs, "data": train.origin}
    report, folder = probe_report(probes, first, test.classes, config.seed, more), config.run / "probe"
    report.save(folder, "probe.json", plots="")
    print(f"results: {folder / 'probe.json'}; the figures are beside it")


if __name__ == "__main__":
    run_script(main, Config)
