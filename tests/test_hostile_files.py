"""Every reader of a file that may be anybody's reads it, or refuses it in one sentence, within limits."""

from __future__ import annotations

import gzip
import importlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import gaussian
from helpers.mutations import Made, faults_of, mutate, mutate_arrays, mutate_checkpoint, mutate_json
from PIL import Image
from torch import nn

import torchdl
from experiments.plan import Plan
from experiments.records import Records, read_figure
from experiments.registry import Figure, load as load_registry
from torchdl import artifacts
from torchdl.callbacks import Best
from torchdl.cli.options import RunOptions
from torchdl.cli.parsing import defaults
from torchdl.data import read_vectors
from torchdl.data.idx import read_idx
from torchdl.data.movielens import read_titles
from torchdl.data.recordings import read_recordings
from torchdl.data.tensor_cache import read_cache, write_cache
from torchdl.data.text import read_lines
from torchdl.files import ARCHITECTURE, CHECKPOINT, CONFIG, METRICS, PREPROCESSING, RESULTS, WEIGHTS
from torchdl.models.backbones import read_weights
from torchdl.pictures import open_picture
from torchdl.predict import (
    DirectionForecaster,
    Forecaster,
    ImageEmbedder,
    ImageGenerator,
    ImageInput,
    ImageReconstructor,
    Predictor,
    SequencePredictor,
    SeriesInput,
    SignalEmbedder,
    TabularPredictor,
    TextClassifier,
    load_predictor,
)
from torchdl.predict.recommender import CATALOGUE
from torchdl.recipes.gan_evaluation import load_feature_extractor
from torchdl.recipes.recommendation import recommender
from torchdl.recipes.run_comparison import compare_runs
from torchdl.training import checkpoint
from torchdl.training.state import TrainingState
from torchdl.training.step import Stepper

COUNT = 400


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# models and training


def model_file(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        gan = torchdl.GAN(torchdl.Generator(2, 4, (3,), batch_norm=0.8), torchdl.Discriminator(4, (3,)), (1, 2, 2))
        torchdl.save(gan, folder)
        safetensors.torch.save_file(gan.state_dict(), folder / WEIGHTS)  # without a checksum, which would notice all
        return folder / name, lambda: torchdl.load(folder)

    return make


MODELS = [
    *(torchdl.MLP(4, 2, (3,)), torchdl.LenetLike((1, 4, 4), 2, 1, 1, 2), torchdl.StridedCNN((1, 15, 15), 2, 2)),
    *(torchdl.VGGLike((1, 8, 8), 2, 1, 2), torchdl.AirbenchLike((1, 17, 17), 2, (1, 1, 1)), torchdl.Autoencoder()),
    *(torchdl.image_cpc(15, 1, 2, 2, 2), torchdl.SignalEncoder(code_size=2), torchdl.conv_gan((1, 4, 4), 2, width=1)),
    *(torchdl.SequenceModel("gru", hidden=2, layers=2), torchdl.SequenceModel("mlp", length=3, hidden=2)),
    *(torchdl.RowReader((1, 4, 4), 2, hidden=2), torchdl.TextLSTM(3), torchdl.TextCNN(3), torchdl.BionodalRootUnit()),
    *(torchdl.RatingModel(2, 2, hidden=2, factors=2), torchdl.MatrixFactorization(2, 2), torchdl.models.Sine()),
    torchdl.ProbedEncoder(torchdl.ImageEncoder(7, 1, 2, depth=2, filters=1, hidden=2), torchdl.ProbeHead(2, 2, 2)),
    *(torchdl.TransferModel("pixels", 2, 2, 2), torchdl.models.LinearHead(2, 2), torchdl.models.WordEmbedding(2, 2)),
]


def mutate_architecture(_: bytes, rng: random.Random) -> bytes:
    """Change the architecture of one of the models."""
    return mutate_json(json.dumps(artifacts.describe(rng.choice(MODELS))).encode(), rng)


def training() -> tuple[Stepper, dict[str, Any]]:
    model, schedule = nn.Linear(2, 1), lambda adam, _: torchdl.tasks.plateau(adam)
    task = torchdl.Supervised(model, nn.functional.mse_loss, schedule=schedule)
    stepper = Stepper(task, torch.device("cpu"), 0, False, 0.0)
    stepper.configure_schedules(4)
    return stepper, {"task": task, "updates": stepper, "progress": TrainingState()}


def a_checkpoint(folder: Path) -> Made:
    def step(stepper: Stepper, parts: dict[str, Any]) -> None:
        whole = torchdl.BatchLoader(torchdl.ArrayDataset(gaussian(4, 2), gaussian(4, 1)), 4)
        stepper.step(list(whole.batches(0)), parts["progress"])
        stepper.collect(parts["progress"])

    stepper, parts = training()
    step(stepper, parts)
    folder.mkdir(parents=True, exist_ok=True)
    order = {"seed": 0, "monitor": "val/loss"}
    parts["progress"].history.append({"epoch": 1, "val/loss": 0.5})
    checkpoint.write({**{k: p.state_dict() for k, p in parts.items()}, "order": order}, folder / CHECKPOINT)

    def read() -> None:
        stepper, parts = training()
        checkpoint.restore(folder, parts, order)
        step(stepper, parts)
        stepper.end_epoch({"val/loss": 0.1})
        Best.of(parts["progress"].history, "val/loss", "min")

    return folder / CHECKPOINT, read


def weights(suffix: str, **options: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        path, state = write(folder / f"weights{suffix}", b""), nn.Linear(2, 2).state_dict()
        if suffix == ".safetensors":
            safetensors.torch.save_file(state, path)
        else:
            torch.save(state, path, **options)
        return path, lambda: read_weights(path)

    return make


def a_cache(folder: Path) -> Made:
    write_cache(folder / "x.safetensors", {"images": torch.zeros(2, 3, dtype=torch.uint8)}, "[1]")
    return folder / "x.safetensors", lambda: read_cache(folder / "x.safetensors")


# a run's other files


@dataclass(frozen=True)
class Config:
    """Options of every type."""

    dataset: str = "mnist"
    hidden: tuple[int, ...] = (4,)
    rate: float | None = None
    color: bool = True
    trainer: torchdl.Trainer = field(default_factory=torchdl.Trainer)
    run: RunOptions = field(default_factory=RunOptions)


def a_config(folder: Path) -> Made:
    trainer = {"epochs": 3, "monitor": "val/loss", "device": "cpu"}
    config = {"hidden": [3], "rate": 0.5, "trainer": trainer, "run": {"data_root": "x", "out": "runs"}}
    record = {"config": config, "data": {"stand_in": False}, "parameters": 3, "working_folder": "/"}
    return write(folder / CONFIG, json.dumps(record)), lambda: defaults(Config, folder)


def an_extractor(folder: Path) -> Made:
    model = torchdl.LenetLike((1, 4, 4), 2, width=1, depth=1, hidden=2)
    torchdl.save(model, folder)
    artifacts.load = lambda _: model  # in this process alone: loading it would take most of the time
    settings = {"images": {"dataset": "mnist"}, "learning": {"centred": True}}
    write(folder / CONFIG, json.dumps({"config": settings}))
    results = {"accuracy": 0.5, "accuracy by class": {"0": 0.5, "1": 0.5}}
    return write(folder / RESULTS, json.dumps(results)), lambda: load_feature_extractor(folder, "mnist")


def a_vocabulary(folder: Path) -> Made:
    path = write(folder / "vocabulary.json", "")
    torchdl.Vocabulary(["a", "b", "c"]).save(path)
    return path, lambda: torchdl.Vocabulary.load(path).encode("a b d")


def a_run(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        config = {"hidden": [3], "trainer": {"epochs": 3, "monitor": "val/loss", "mode": "min"}}
        record = {"config": config, "data": {"fingerprint": "a"}, "versions": {"torch": "2"}, "command": "a.py --x"}
        for run in (folder, folder / "other"):
            write(run / CONFIG, json.dumps(record | {"commit": run.name}))
            write(run / RESULTS, '{"accuracy": 0.5, "by class": {"a": 1, "b": 2}}')
            write(run / METRICS, "epoch,step,val/loss\n1,5,0.5\n2,10,0.25\n")
        return folder / name, lambda: compare_runs([folder, folder / "other"])

    return make


def a_text_classifier(folder: Path) -> Made:
    model, vocabulary = torchdl.TextCNN(3, 1, 2, (2,)), torchdl.Vocabulary(["a", "b", "c"])
    TextClassifier(model, TextClassifier.Settings(vocabulary.settings, ("ham", "jam"), 5)).save(folder)
    artifacts.load = lambda _: model  # in this process alone: loading it would take most of the time
    return folder / PREPROCESSING, lambda: load_predictor(folder).predict(["a b d", "x"]).to_frame()


def a_predictor(predictor: Predictor[Any], *inputs: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        predictor.save(folder)
        artifacts.load = lambda _: predictor.model  # in this process alone: loading it would take most of the time
        return folder / PREPROCESSING, lambda: load_predictor(folder, "cpu").predict(*inputs)

    return make


PIXELS = ImageInput(1, 4, 4)
EMBEDDER = ImageEmbedder(torchdl.ImageEncoder(4, 1, 2, depth=1, filters=1, hidden=2), ImageEmbedder.Settings(PIXELS))
RECONSTRUCTOR = ImageReconstructor(torchdl.Autoencoder((1, 4, 4), 1, 1, 1), ImageReconstructor.Settings(PIXELS))
SIGNALS = SignalEmbedder(
    torchdl.SignalEncoder(1, 2, (2,), (2,)), SignalEmbedder.Settings(1, 4, 4, mean=(0.5,), deviation=(2.0,))
)
SERIES = SeriesInput(("a", "b"), (0.5, 1.0), (2.0, 3.0), 3, (0.0, 1.0), (5.0, 6.0))
FORECASTER = Forecaster(
    torchdl.SequenceModel("linear", 2, 2, 3, horizon=1), Forecaster.Settings(SERIES, 2, "season before", 4)
)
DIRECTIONS = DirectionForecaster(torchdl.SequenceModel("rnn", 2, 1, 3), DirectionForecaster.Settings(SERIES, "b", 0.5))
SEQUENCES = SequencePredictor(
    torchdl.SequenceModel("gru", 2, 3), SequencePredictor.Settings(2, classes=("a", "b", "c"))
)


def a_table_predictor(folder: Path) -> Made:
    import pandas

    table = pandas.DataFrame({"size": [1.0, 2.0, 4.0], "kind": ["a", "b", "a"], "price": ["x", "y", "x"]})
    model = torchdl.MLP(3, 1, ())
    TabularPredictor(model, torchdl.Columns.fit(table, "price"), "cpu").save(folder)
    artifacts.load = lambda _: model  # in this process alone: loading it would take most of the time
    return folder / PREPROCESSING, lambda: load_predictor(folder, "cpu").predict(table)


def a_recommender(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        ratings = torchdl.data.Ratings(*(np.array(x) for x in ([3, 3, 5], [7, 8, 7], [1.0, 2.0, 3.0])), None, "memory")
        split = torchdl.data.split_ratings(ratings, 0.3)
        model = torchdl.MatrixFactorization(len(split.users), len(split.items), 2.0, 2)
        recommender(model, split, ratings, ["A", "B"]).save(folder)
        artifacts.load = lambda _: model  # in this process alone: loading it would take most of the time

        def read() -> None:
            predictor = load_predictor(folder)
            for user in (str(split.users[0]), {str(split.items[0]): 2.0}):
                assert predictor.predict(user, 2).ratings.isfinite().all()

        return folder / name, read

    return make


# the laboratory


def some_records(folder: Path) -> Made:
    figures = {"m": {"value": 1.0, "reference": 2.0}}
    kept = [{"experiment": "moore", "seed": 0, "settings": "x", "finished": True, "seconds": 1.0, "figures": figures}]

    def read() -> None:
        records = Records.load(folder / "records.json")
        records.is_finished(MOORE, 0)
        records.is_older(MOORE, 0, "x")

    return write(folder / "records.json", json.dumps(kept)), read


MOORE = load_registry().experiments[0]


def a_figure(file: str, text: str, key: tuple[str | int, ...]) -> Callable[[Path], Made]:
    return lambda folder: (write(folder / file, text), lambda: read_figure(folder, Figure("m", key, file=file)))


def a_plan(folder: Path) -> Made:
    Plan(folder, todo=(("moore", 0),), chosen=("moore",)).write()
    path = next(folder.rglob("plan.json"))
    return path, lambda: Plan.read(path)


SCRIPT = '["a.py"]\noptions = "--out {runs} --name {name} --seed {seed}"\nfolder = "{runs}/a/{name}"\n'
AREA = """[defaults]
seeds = [0, 1]
[experiments.one]
system = "a model"
data = "numbers"
commands = ["a.py"]
quick = ["--max-steps 2"]
minutes = 0.2
[[experiments.one.figures]]
metric = "error"
key = ["error", 0]
better = "lower"
"""


def a_registry(folder: Path) -> Made:
    write(folder / "scripts.toml", SCRIPT)
    return write(folder / "tabular.toml", AREA), lambda: load_registry(folder)


# data


def a_picture(kind: str, mode: str = "RGB") -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (gaussian(5, 4, 3) * 40 + 128).clamp(0, 255).to(torch.uint8).numpy()
        path = folder / f"x.{kind}"
        Image.fromarray(pixels).convert(mode).save(path)

        def read() -> None:
            # damage may make 67 million pixels of few, which are allowed and take a second to decode
            with open_picture(path, max_pixels=2**20) as image:
                image.convert("RGB")

        return path, read

    return make


def idx_images(pack: bool) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        data = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(12)])
        path = write(folder / f"x{'.gz' * pack}", gzip.compress(data) if pack else data)
        return path, lambda: read_idx(path, 3)

    return make


def a_table(reader: Callable[[Path], Any], text: str, name: str = "x.csv") -> Callable[[Path], Made]:
    return lambda folder: (path := write(folder / name, text), lambda: reader(path))  # type: ignore[return-value]


TABLE = "size,kind,price\n1.5,red,3\n2.5,blue,4\n,red,5\n4.5,green,\n"
SERIES = "date,open,close\n2024-01-02,1,2\n2024-01-03,2,3\n2024-01-04,3,4\n"
RATINGS = "userId,movieId,rating,timestamp\n1,10,2.5,100\n2,10,3,200\n2,11,4,300\n"
TEXTS = 'kind,mail\nham,see you\nspam,"buy, now"\nham,thank you\n'
WORDS = "2 3\na 1 2 3\nb 4 5 6\n"
TITLES = "movieId,title,genres\n10,Ten,x\n11,Eleven,y\n"


def a_recording(name: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        from scipy.io import wavfile

        folder.mkdir(parents=True, exist_ok=True)
        samples = (gaussian(40, 2) * 1000).numpy()
        if name.endswith(".npy"):
            np.save(folder / name, samples.T)
        else:
            wavfile.write(folder / name, 8000, samples.astype(np.uint8 if "8" in name else np.int16))
        return folder / name, lambda: read_recordings(folder / name)

    return make


READERS: dict[str, tuple[Callable[[Path], Made], Callable[..., bytes]]] = {
    "architecture": (model_file(ARCHITECTURE), mutate_json),
    "architecture of any model": (model_file(ARCHITECTURE), mutate_architecture),
    "weights": (model_file(WEIGHTS), mutate),
    "checkpoint": (a_checkpoint, mutate_checkpoint),
    "pretrained weights": (weights(".pth"), mutate),
    "pretrained weights, old": (weights(".pth", _use_new_zipfile_serialization=False), mutate),
    "pretrained weights, safetensors": (weights(".safetensors"), mutate),
    "cache": (a_cache, mutate),
    "config": (a_config, mutate_json),
    "config, extractor": (lambda folder: (folder / CONFIG, an_extractor(folder)[1]), mutate_json),
    "results, extractor": (an_extractor, mutate_json),
    "vocabulary": (a_vocabulary, mutate_json),
    "preprocessing, texts": (a_text_classifier, mutate_json),
    "preprocessing, table": (a_table_predictor, mutate_json),
    "preprocessing, embedder": (a_predictor(EMBEDDER, torch.zeros(1, 6, 5)), mutate_json),
    "preprocessing, reconstructor": (a_predictor(RECONSTRUCTOR, torch.zeros(1, 6, 5)), mutate_json),
    "preprocessing, generator": (a_predictor(ImageGenerator.of(torchdl.simple_gan((1, 2, 2), 2)), 2), mutate_json),
    "preprocessing, forecaster": (a_predictor(FORECASTER, torch.ones(9, 2), 2), mutate_json),
    "preprocessing, directions": (a_predictor(DIRECTIONS, torch.ones(9, 2)), mutate_json),
    "preprocessing, sequences": (a_predictor(SEQUENCES, torch.ones(1, 9, 2)), mutate_json),
    "preprocessing, signals": (a_predictor(SIGNALS, torch.ones(1, 9)), mutate_json),
    "catalogue": (a_recommender(CATALOGUE), mutate_arrays),
    "preprocessing, recommender": (a_recommender(PREPROCESSING), mutate_json),
    "records": (some_records, mutate_json),
    "figure": (a_figure("results.json", '{"a": {"b": [1, 2.5]}}', ("a", "b")), mutate_json),
    "metrics": (a_figure("metrics.csv", "epoch,a\n1,0.5\n2,0.25\n", ("a",)), mutate),
    "metrics, comparison": (a_run(METRICS), mutate),
    "config, comparison": (a_run(CONFIG), mutate_json),
    "results, comparison": (a_run(RESULTS), mutate_json),
    "plan": (a_plan, mutate_json),
    "registry": (a_registry, mutate),
    **{f"image, {kind}": (a_picture(kind), mutate) for kind in ("png", "jpg", "bmp", "tiff", "webp", "ppm")},
    "image, gif": (a_picture("gif", "P"), mutate),
    "image, 32 bits": (a_picture("tiff", "I"), mutate),
    "idx": (idx_images(False), mutate),
    "idx, gzipped": (idx_images(True), mutate),
    "table": (a_table(torchdl.read_table, TABLE), mutate),
    "series": (a_table(torchdl.read_series, SERIES), mutate),
    **{f"recording, {name}": (a_recording(name), mutate) for name in ("x.npy", "16.wav", "8.wav")},
    "ratings": (a_table(torchdl.read_ratings, RATINGS, "ratings.csv"), mutate),
    "texts": (a_table(lambda path: torchdl.read_texts(path, "mail", "kind"), TEXTS), mutate),
    "lines": (a_table(read_lines, "see you\nbuy now\n"), mutate),
    "vectors": (a_table(lambda path: read_vectors(path, torchdl.Vocabulary(["a", "b"])), WORDS), mutate),
    "titles": (
        a_table(lambda path: read_titles(path.parent / "ratings.csv", np.array([10])), TITLES, "movies.csv"),
        mutate,
    ),
}


@pytest.fixture(scope="module")
def imported():
    """Import here what the readers import late, instead of in each process."""
    for name in ("pandas", "torchvision.models"):
        importlib.import_module(name)


@pytest.mark.slow
@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_is_read_or_refused_in_one_sentence(tmp_path, name):
    make, mutation = READERS[name]
    faults = faults_of(make, mutation, tmp_path / "x", COUNT)
    assert not faults, f"{len(faults)} of {COUNT}:\n" + "\n".join(faults[:5])


def read_by(*calls: Callable[[], Any]) -> Callable[[Path], Made]:
    """Return a file whose first reading calls nothing, and each later one the next of ``calls``, or the last."""
    left = [lambda: None, *calls]

    def make(folder: Path) -> Made:
        return write(folder / "x", b"1"), lambda: (left.pop(0) if len(left) > 1 else left[0])()

    return make


def hang() -> None:
    while True:
        pass


@pytest.mark.slow
def test_the_checks_notice_what_they_are_for(tmp_path):
    hoard: list[bytes] = []
    bad = {
        "ZeroDivisionError": lambda: 1 // 0,
        "Hang": hang,
        "bytes": lambda: hoard.append(b"1" * 2**27),
        "not one sentence": lambda: torchdl.errors.require(False, ""),
    }
    for word, fault in bad.items():
        faults = faults_of(read_by(fault), mutate, tmp_path, 1, memory=2**26)
        assert len(faults) == 1
        assert word in faults[0]


def test_a_reader_that_is_slow_once_is_asked_again(tmp_path):
    assert not faults_of(read_by(hang, lambda: None), mutate, tmp_path, 1, seconds=0.2)
    assert "ZeroDivisionError" in faults_of(read_by(hang, lambda: 1 // 0), mutate, tmp_path, 1, seconds=0.2)[0]
