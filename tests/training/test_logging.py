from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import gaussian
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import torchdl
from torchdl import BatchLoader, GANTask, ImageDataset, Trainer
from torchdl.training.logging import Logger

RECORD = {"lr": 3e-4, "loss": "non_saturating", "resume": None, "batch_size": 8}
CHARTS = {
    "train/discriminator_loss",
    "train/generator_loss",
    "train/discriminator_grad_norm",
    "train/generator_grad_norm",
    "train/D(x)",
    "train/D(G(z))",
    "charts/discriminator_learning_rate",
    "charts/generator_learning_rate",
    "charts/examples_per_second",
    "val/D(x)",
    "val/D(G(z))",
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Train a GAN for three epochs of four steps; return the folder of runs, the history and the task."""
    folder = tmp_path_factory.mktemp("logs")
    images = ImageDataset((128 + 50 * gaussian(40, 1, 4, 4)).clamp(0, 255).to(torch.uint8), low=-1, high=1)
    pair = torchdl.simple_gan((1, 4, 4), z_dim=6)
    task = GANTask(pair, real_examples=images[:9])
    train, held_out = BatchLoader(images, 10, shuffle=True), BatchLoader(images, 40)
    trainer = Trainer(epochs=3, device="cpu", log_every=2)
    history = trainer.fit(task, train, held_out, folder / "gan" / "first", record=RECORD)
    return folder, history


class Board:
    """TensorBoard's HTTP interface."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, route: str, **query: Any) -> bytes:
        url = f"{self.url}data/{route}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        return urllib.request.urlopen(url, timeout=20).read()

    def json(self, route: str, **query: Any) -> Any:
        return json.loads(self.get(route, **query))

    def post(self, route: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}data/{route}", json.dumps(body).encode(), headers)
        return json.loads(urllib.request.urlopen(request, timeout=20).read())


@pytest.fixture(scope="module")
def board(logs, tmp_path_factory):
    """Start TensorBoard on the logs, and stop it in the end."""
    said = tmp_path_factory.mktemp("tensorboard") / "said.txt"
    options = ["--logdir", str(logs[0]), "--port", "0", "--host", "127.0.0.1", "--load_fast=false"]
    with said.open("w") as file:
        server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *options], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 60
        board = None
        while board is None or not board.json("plugin/scalars/tags"):
            assert server.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            if found := re.search(r"http://127\.0\.0\.1:\d+/", said.read_text()):
                board = Board(found[0])
            time.sleep(0.1)  # it reads the logs in the background
        yield board
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.mark.slow
def test_there_is_one_run_and_no_other_beside_it(board, logs):
    assert board.json("runs") == [os.path.join("gan", "first")]
    assert len(list(logs[0].rglob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_the_charts_are_grouped_and_named(board):
    tags = board.json("plugin/scalars/tags")["gan/first"]
    assert tags.keys() >= CHARTS
    assert {tag.split("/")[0] for tag in tags if not tag.startswith("_")} == {"train", "val", "charts"}


@pytest.mark.slow
def test_the_charts_hold_the_history(board, logs):
    for tag in ("val/D(x)", "val/D(G(z))"):
        points = board.json("plugin/scalars/scalars", run="gan/first", tag=tag)  # [seconds, step, value] each
        expected = [(row["step"], row[tag]) for row in logs[1]]
        assert [(step, value) for _, step, value in points] == [(s, pytest.approx(v, rel=1e-6)) for s, v in expected]
    points = board.json("plugin/scalars/scalars", run="gan/first", tag="train/generator_loss")
    assert [step for _, step, _ in points] == [2, 4, 6, 8, 10, 12]
    for row, (_, _, one), (_, _, other) in zip(logs[1], points[::2], points[1::2], strict=True):
        assert (one + other) / 2 == pytest.approx(row["train/generator_loss"], rel=1e-6)


@pytest.mark.slow
def test_the_images_of_every_epoch_are_there(board, logs):
    steps = {"samples": [4, 8, 12], "curves/D(x) and D(G(z))": [4, 12]}  # curves are drawn as often as checkpoints are
    assert set(board.json("plugin/images/tags")["gan/first"]) == set(steps)
    for tag, expected in steps.items():
        images = board.json("plugin/images/images", run="gan/first", tag=tag, sample=0)
        assert [image["step"] for image in images] == expected
    images = board.json("plugin/images/images", run="gan/first", tag="samples", sample=0)
    pictures = [board.get(f"plugin/images/individualImage?{image['query']}") for image in images]
    assert len(set(pictures)) == 3  # from the same noise, but not the same
    side = 3 * (4 + 2) + 2  # three images of four pixels, two between them and around
    sizes = {Image.open(io.BytesIO(picture)).size for picture in pictures}
    assert {(width >= 2 * side, height > side) for width, height in sizes} == {(True, True)}  # with captions
    saved = sorted(path.name for path in Path(logs[0], "gan", "first", "samples").iterdir())
    assert saved == [f"epoch-{epoch:04d}.png" for epoch in (1, 2, 3)]


@pytest.mark.slow
def test_the_hyperparameters_are_beside_the_metrics(board):
    experiment = board.post("plugin/hparams/experiment", {"experimentName": ""})
    assert {column["name"] for column in experiment["hparamInfos"]} == set(RECORD)
    assert {info["name"]["tag"] for info in experiment["metricInfos"]} >= {"val/D(x)", "val/D(G(z))"}
    wanted = [{"metric": info["name"], "order": "ORDER_UNSPECIFIED"} for info in experiment["metricInfos"]]
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": wanted,
        "startIndex": 0,
        "sliceSize": 10,
    }
    (group,) = board.post("plugin/hparams/session_groups", body)["sessionGroups"]
    assert len(group["sessions"]) == 1
    assert group["hparams"] == {**RECORD, "resume": "None"}
    values = {value["name"]["tag"]: value for value in group["metricValues"]}
    assert values["val/D(x)"]["trainingStep"] == 12
    assert 0 < values["val/D(x)"]["value"] < 1


@pytest.mark.slow
def test_the_record_can_be_read_as_text(board):
    ((tag,),) = board.json("plugin/text/tags").values()
    (text,) = board.json("plugin/text/text", run="gan/first", tag=tag)
    assert all(f"<strong>{key}</strong>: {value}" in text["text"] for key, value in RECORD.items())


@pytest.mark.slow
def test_custom_charts_show_training_and_held_out_values_together(board, logs):
    layout = board.json("plugin/custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for part in layout["category"] for chart in part["chart"]}
    assert list(charts) == ["saturation"]  # of held-out images alone; with D(x), the page fails
    shown = {}
    for pattern in charts["saturation"]:  # TensorBoard takes them for regular expressions
        found = board.json("plugin/custom_scalars/scalars", run="gan/first", tag=pattern)
        assert found["regex_valid"]
        shown |= found["tag_to_events"]
    assert set(shown) == {"val/saturation"}
    assert [step for _, step, _ in shown["val/saturation"]] == [4, 8, 12]


def test_a_custom_chart_shows_no_other_metric_whose_name_begins_alike(tmp_path):
    logger = Logger(tmp_path)
    metrics = ["val/top1", "val/top1_chance", "val/top10", "val/a.b", "val/D(x)", "charts/learning_rate"]
    logger.record({}, metrics)
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    from tensorboard.plugins.custom_scalar import layout_pb2

    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    (category,) = layout_pb2.Layout.FromString(content).category
    tags = [*metrics, "train/top1", "train/top10", "train/a.b", "train/aXb"]
    shown = {chart.title: {t for p in chart.multiline.tag for t in tags if re.match(p, t)} for chart in category.chart}
    assert shown == {
        "top1": {"train/top1", "val/top1", "val/top1_chance"},
        "top10": {"train/top10", "val/top10"},
        "a.b": {"train/a.b", "val/a.b"},
    }


def test_the_first_five_settings_are_the_columns_that_tensorboard_shows(tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    logger = Logger(tmp_path)
    logger.record({"z": 1, "lr": 0.1, "model": "conv", "y": True, "b": None, "a": 2, "c": 3}, ["val/x"])
    logger.close()
    metadata = EventAccumulator(str(tmp_path)).Reload().SummaryMetadata("_hparams_/experiment")
    content = HParamsPluginData.FromString(metadata.plugin_data.content).experiment
    assert {info.name for info in content.hparam_infos if info.differs} == {"z", "lr", "model", "y", "b"}
    assert len(content.hparam_infos) == 7


def test_curves_with_references_are_images_after_each_validation(tmp_path):
    logger = Logger(tmp_path)
    row = {"epoch": 1, "step": 5, "train/a": 0.4, "train/b": 0.4}
    rows = [row, {**row, "epoch": 2, "step": 10, "val/a": 0.5, "val/b": 0.5, "val/a_chance": 0.1}]
    for number in (1, 2):
        logger.epoch(rows[:number], {})
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["images"] == ["curves/a"]
    (image,) = events.Images("curves/a")
    assert image.step == 10
    with Image.open(io.BytesIO(image.encoded_image_string)) as drawn:
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(2**16)}
    assert {(31, 119, 180), (255, 127, 14), (128, 128, 128)} <= colours  # training, validation, chance


def test_a_picture_is_shown_and_kept_as_it_is(tmp_path):
    picture = torch.randint(256, (3, 5, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    logger = Logger(tmp_path / "run")
    logger.picture("sequences", picture)
    logger.close()
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    (image,) = events.Images("plots/sequences")
    kept = (tmp_path / "run" / "plots" / "sequences.png").read_bytes()
    for content in (image.encoded_image_string, kept):
        shown = torch.tensor(list(Image.open(io.BytesIO(content)).convert("RGB").tobytes())).view(5, 7, 3)
        assert torch.equal(shown.permute(2, 0, 1), picture.long())


def test_codes_are_given_to_the_projector_with_labels_and_images(tmp_path):
    codes, images = gaussian(6, 4), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logger = Logger(tmp_path)
    logger.embedding(codes, list("abcabc"), images)
    logger.close()
    (config,) = tmp_path.rglob("projector_config.pbtxt")
    named = dict(re.findall(r"(tensor_path|metadata_path|image_path): \"(.*?)\"", config.read_text()))
    table = [[float(x) for x in line.split()] for line in (tmp_path / named["tensor_path"]).read_text().splitlines()]
    torch.testing.assert_close(torch.tensor(table), codes)
    assert (tmp_path / named["metadata_path"]).read_text().split() == list("abcabc")
    sprite = Image.open(tmp_path / named["image_path"])
    assert sprite.size == (24, 24)  # three by three, for six images
    first = torch.tensor(list(sprite.convert("RGB").tobytes())).view(24, 24, 3)[:8, 8:16]
    assert (first.permute(2, 0, 1) - 255 * images[1]).abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 8, 5), (3, 5, 8)])
def test_images_that_are_no_squares_are_padded_for_the_projector(tmp_path, shape):
    logger = Logger(tmp_path)
    logger.embedding(gaussian(4, 2), list("abcd"), torch.ones(4, *shape))
    logger.close()
    sprite = Image.open(next(tmp_path.rglob("sprite.png"))).convert("L")
    assert sprite.size == (16, 16)
    first = torch.tensor(list(sprite.tobytes())).view(16, 16)[:8, :8]
    _, height, width = shape
    assert first[:height, :width].min() == 255
    assert {*first[height:].flatten().tolist(), *first[:, width:].flatten().tolist()} <= {127, 128}


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = Logger(None)
    logger.picture("x", torch.zeros(3, 2, 2, dtype=torch.uint8))
    logger.embedding(torch.zeros(2, 2), ["a", "b"], torch.zeros(2, 3, 2, 2))
    logger.record({"lr": 1.0}, ["val/x"])
    logger.close()
    assert not list(tmp_path.iterdir())
