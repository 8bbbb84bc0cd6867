"""Probe the frozen encoder of a run of scripts/train_cpc.py, beside a random and a supervised one of its shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _clone  # noqa: F401
import numpy as np
import torch.nn.functional as F
import tyro
from sklearn.metrics import confusion_matrix
from torch import nn

import torchdl
from torchdl import BatchLoader, Digits, Supervised, Trainer, artifacts, load_digits, plots
from torchdl.data.described import introduce
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.models import FrozenFeatures, probe_head
from torchdl.tasks import accuracy, plateau
from torchdl.training import process
from torchdl.training.command import read_record, run_script
from torchdl.training.probing import Report, encode, map_codes, probe


@dataclass(frozen=True)
class Config:
    """Measure what an encoder trained by train_cpc.py has learnt, on test digits, without training it further."""

    run: tyro.conf.Positional[Path]
    """The run's folder, such as runs/cpc/first."""
    epochs: int = 15
    """Epochs of the probing network; the supervised encoder is trained for as many epochs as the run."""
    views: int = 5
    """Colourings of every training image, which the probing network sees in turn; grey images have one."""
    baselines: bool = True
    """Probe a random encoder and a supervised one, too."""
    seed: int = 0
    """What draws derive from."""
    data_root: Path | None = None
    """The folder of the data sets."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    threads: int = 0
    """CPU threads; 0 for PyTorch's choice."""


def supervised_encoder(description: dict[str, Any], train: Digits, valid: Digits, trainer: Trainer) -> nn.Module:
    """Train an encoder of the same shape from the labels themselves, with a linear layer at its end."""
    encoder = artifacts.build(description)
    model = nn.Sequential(encoder, nn.LeakyReLU(0.3), nn.Linear(encoder.code_size, len(train.classes)))  # type: ignore[arg-type]
    task = Supervised(model, F.cross_entropy, {"accuracy": accuracy}, schedule=lambda adam, _: plateau(adam))
    trainer.fit(task, BatchLoader(train, 64, shuffle=True, seed=trainer.seed), BatchLoader(valid, 500))
    return encoder


def main(config: Config) -> None:
    """Load the encoder, encode the digits, probe, draw."""
    settings = read_record(config.run).get("config", {})
    model = torchdl.load(config.run)
    if not isinstance(model, torchdl.CPC) or "image_size" not in settings:
        kind = type(model).__name__
        raise torchdl.InputError(f"{config.run} holds a {kind}, not a CPC of digits: name a run of train_cpc.py")
    require(min(config.epochs, config.views) >= 1, "--epochs and --views must be 1 or more")
    print(process.setup(config.threads))
    shape = {key: settings[key] for key in ("image_size", "color", "rescale", "background")}
    root = config.data_root or settings["run"]["data_root"]
    train, valid, test = (
        load_digits(subset, **shape, seed=config.seed, name=settings["dataset"], root=root)
        for subset in ("train", "valid", "test")
    )
    print(introduce(train))
    length = {key: settings["trainer"][key] for key in ("epochs", "max_steps")}
    trainer = Trainer(**length, seed=config.seed, device=config.device)
    description = artifacts.describe(model.encoder)
    encoders = {"cpc": lambda: model.encoder}
    if config.baselines:
        encoders["random"] = lambda: artifacts.build(description)
        encoders["supervised"] = lambda: supervised_encoder(description, train, valid, trainer)
    reports: dict[str, Report] = {}
    folder = config.run / "probe"
    for name, build in encoders.items():
        print(f"{name} encoder")
        process.seed_generators(process.find_device(config.device), config.seed)
        frozen = FrozenFeatures(build())
        before = frozen.fingerprint()
        coded = encode(frozen, train, config.views if train.color else 1, config.device)
        held_out, unseen = (encode(frozen, digits, device=config.device) for digits in (valid, test))
        head = probe_head(coded.codes.shape[2], len(test.classes))
        report = reports[name] = probe(head, coded, held_out, unseen, config.epochs, config.seed, config.device)
        assert frozen.fingerprint() == before, "a probe has changed the frozen encoder"
        for key, values in report.accuracy.items():
            spread = f" ± {100 * np.std(values):.2f} over {len(values)} draws" if len(values) > 1 else ""
            print(f"  {key:28} {100 * np.mean(values):6.2f} %{spread}")
        if name == "cpc":
            matrix = confusion_matrix(unseen.labels, report.answers, labels=range(len(test.classes)))
            plots.plot_confusion(matrix, test.classes, folder / "confusion.png")
            points, labels = map_codes(unseen.codes[0, :2000], config.seed), unseen.labels[:2000].numpy()
            plots.plot_map(points, labels, test.classes, "codes of test digits, t-SNE", folder / "codes.png")
    curves = {name: report.by_labels for name, report in reports.items()}
    note = "labels (one a class: k-means' clusters named by them; more: logistic regression)"
    plots.plot_label_efficiency(curves, folder / "label_efficiency.png", note)
    record = {
        "seed": config.seed,
        "epochs": config.epochs,
        "data": train.origin,
        "accuracy": {name: report.accuracy for name, report in reports.items()},
    }
    write_json(folder / "probe.json", record)
    print(f"results: {folder / 'probe.json'}, pictures beside it")


if __name__ == "__main__":
    run_script(main, Config)
