"""Make a trained model part of the package: copy what a finished run needs to answer, with a model card and checksums.

In a clone: ``python -m experiments.publish results/runs/lenet/judge-mnist-0 --name lenet-mnist``.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from experiments.records import Records, read_figure
from experiments.registry import Experiment, find, load, read
from torchdl import artifacts
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.errors import InputError, require
from torchdl.files import ARCHITECTURE, PREPROCESSING, WEIGHTS, read_config, read_json, write_json
from torchdl.predict import ImageClassifier, Predictor, load_predictor
from torchdl.predict.pretrained_weights import CARD, FOLDER, INDEX, Pretrained, read_index
from torchdl.recipes.image_classification import ImageOptions
from torchdl.recipes.run_comparison import read_run

HERE = Path(__file__).resolve().parent
MODELS = HERE / "pretrained.toml"
RECORDS = HERE / "records.json"
MEASURABLE = 0.001  # a figure may change by so much when weights are rounded to 16 bits


class Data(TypedDict):
    """A data set, for readers of a card."""

    name: str
    licence: str


class Model(TypedDict):
    """What ``pretrained.toml`` says of a model."""

    about: str
    experiment: str
    seed: int
    data: str
    half: bool
    use: str
    not_for: str


class Models(TypedDict):
    """What ``pretrained.toml`` holds."""

    models: dict[str, Model]
    data: dict[str, Data]


@dataclass(frozen=True)
class Config:
    """Copy a finished run's model, preprocessing and figures into the package."""

    run: Positional[Path]
    """The folder of the run."""
    name: str
    """The name of the model in experiments/pretrained.toml."""
    out: Path = FOLDER
    """The folder of all published models."""
    data_root: Path | None = None
    """The folder of the datasets, to measure what 16 bits cost."""


def main(config: Config) -> None:
    """Check the run, copy its files, and write the card and the index."""
    models = read_models()
    known = ", ".join(models["models"])
    require(config.name in models["models"], f"{MODELS} describes no model {config.name!r}: it has {known}")
    model = models["models"][config.name]
    summary = read_run(config.run)
    require(summary.finished and not summary.notes, f"{config.run} is not a finished run: resume it until it ends")
    experiment = find(model["experiment"], load().experiments)
    full = load_predictor(config.run, "cpu")
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.out, prefix=".publish-") as temporary:
        place = Path(temporary) / config.name
        artifacts.save(full.model, place, model["half"])
        shutil.copy(config.run / PREPROCESSING, place)
        costs = cost_of_rounding(full, load_predictor(place, "cpu"), config) if model["half"] else {}
        figures = figures_of(experiment, model["seed"], config.run)
        card = write_card(config, model, models["data"][model["data"]], experiment, full, figures, costs)
        (place / CARD).write_text(card, encoding="utf-8")
        shutil.rmtree(config.out / config.name, ignore_errors=True)
        place.rename(config.out / config.name)
    index = read_index(config.out) if (config.out / INDEX).exists() else {}
    entry: Pretrained = {
        "about": model["about"],
        "kind": full.kind,
        "dataset": model["data"],
        "figures": {name: row["run"] for name, row in figures.items()},
        "files": {
            file: hashlib.sha256((config.out / config.name / file).read_bytes()).hexdigest()
            for file in (ARCHITECTURE, WEIGHTS, PREPROCESSING, CARD)
        },
    }
    write_json(config.out / INDEX, dict(sorted({**index, config.name: entry}.items())))
    size = sum(path.stat().st_size for path in config.out.rglob("*") if path.is_file())
    print(f"{config.out / config.name}: all published models have {size / 1e6:.2f} MB")


def read_models() -> Models:
    """Read ``pretrained.toml``."""
    try:
        return msgspec.convert(read(MODELS), Models)
    except msgspec.ValidationError as error:
        raise InputError(f"{MODELS} cannot be read: {error}") from error


def figures_of(experiment: Experiment, seed: int, run: Path) -> dict[str, dict[str, float]]:
    """Return a run's figures, each with that of RESULTS.md for the same seed, if it is recorded."""
    record = Records.load(RECORDS).find(experiment.name, seed) or {"figures": {}}
    found = {}
    for figure in experiment.figures:
        found[figure.metric] = {"run": read_figure(run, figure)["value"]}
        if figure.metric in record["figures"]:
            found[figure.metric]["recorded"] = record["figures"][figure.metric]["value"]
    return found


def accuracy_of(predictor: ImageClassifier, config: Mapping[str, Any], root: Path | None) -> dict[str, float]:
    """Return an image classifier's accuracy on its run's test images."""
    _, test = ImageOptions(**config["images"]).load(root, predictor.settings.images.low < 0)
    if test.labels is None:
        raise InputError("the test images have no labels")
    predicted = predictor.predict(test).probabilities.argmax(1)
    return {"accuracy": float((predicted == test.labels.cpu()).double().mean())}


MEASURES: dict[type[Predictor[Any]], Callable[[Any, Mapping[str, Any], Path | None], dict[str, float]]] = {
    ImageClassifier: accuracy_of
}


def cost_of_rounding(full: Predictor[Any], half: Predictor[Any], config: Config) -> dict[str, tuple[float, float]]:
    """Return the figures with all bits and with 16.

    Raises:
        InputError: They differ, or nothing measures this kind.
    """
    measure = MEASURES.get(type(full))
    if measure is None:
        raise InputError(f"nothing here measures what 16 bits cost {full.kind}s: publish all bits (half = false)")
    settings = read_config(config.run)["config"]
    one, other = (measure(each, settings, config.data_root) for each in (full, half))
    for name, value in one.items():
        same = abs(value - other[name]) <= MEASURABLE
        require(same, f"{name} falls from {value} to {other[name]} with 16 bits: publish all bits (half = false)")
    return {name: (value, other[name]) for name, value in one.items()}


def write_card(
    config: Config,
    model: Model,
    data: Data,
    experiment: Experiment,
    predictor: Predictor[Any],
    figures: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, tuple[float, float]],
) -> str:
    """Return the model card."""
    run = read_config(config.run)
    record = Records.load(RECORDS).find(model["experiment"], model["seed"])
    same = record is not None and all(row.get("recorded") == row["run"] for row in figures.values())
    made = record if record is not None and same else run  # a run that was resumed later records that
    first, *others = (f"python scripts/{line}" for line in experiment.typed)
    commands = " && ".join([f"{first} --seed {model['seed']}", *others])
    history = read_run(config.run).history
    parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    architecture = read_json(config.run / ARCHITECTURE)
    facts = {
        "kind": predictor.kind,
        "network": f"{architecture['class']}, {parameters:,} parameters",
        "data": data["name"],
        "licence of the data": data["licence"],
        "licence of the weights": "MIT, as the code",
        "command": f"`{commands}`, experiment `{experiment.name}`",
        "training": f"{history[-1]['epoch']} epochs, {history[-1]['step']:,} steps" if history else "",
        "commit": made.get("commit") or "not recorded",
        "versions": versions,
        "training data, SHA-256": run["data"].get("fingerprint", ""),
        "test data, SHA-256": run["data"].get("held_out_fingerprint", ""),
        "weights": "16 bits in the file, 32 when loaded" if model["half"] else "32 bits",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items() if value)
    measured = "\n".join(
        f"| {name} | {row['run']:.6g} | {format(row['recorded'], '.6g') if 'recorded' in row else 'not recorded'} |"
        for name, row in figures.items()
    )
    rounded = "".join(
        f"\nWith all bits, its {name} is {100 * full:.2f} %; with those of the file, {100 * half:.2f} %.\n"
        for name, (full, half) in costs.items()
    )
    return f"""# {config.name}

{model["about"]}

```python
{model["use"]}
```

| | |
|---|---|
{rows}

## Figures

| | this run | RESULTS.md, the same seed |
|---|---|---|
{measured}
{rounded}
## What it is not for

{textwrap.fill(model["not_for"], 120)}
"""


if __name__ == "__main__":
    run_script(main, Config)
