"""Save embeddings of what users have, by runs far from their data."""

from __future__ import annotations

import csv
import re

import numpy as np
import pandas
import pytest
import torch
from helpers import gaussian
from helpers.scripts import assert_mistake
from PIL import Image

import torchdl
from torchdl.predict import (
    ImageClassifier,
    ImageEmbedder,
    ImageGenerator,
    ImageInput,
    ImageReconstructor,
    SignalEmbedder,
    TabularPredictor,
    TextClassifier,
)

pytestmark = pytest.mark.slow
NOISE = torch.randint(256, (3, 3, 20, 30), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Return a folder with a run of each kind, untrained, and pictures, recordings and texts."""
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    pixels, vocabulary = ImageInput(3, 16, 16), torchdl.Vocabulary(["a", "b", "c"])
    rows = pandas.DataFrame({"size": [1.0, 2.0, 4.0], "price": [2.0, 3.0, 7.0]})
    recordings = torchdl.Recordings((gaussian(2, 40), gaussian(2, 30, seed=1)))
    settings = SignalEmbedder.Settings.of(recordings, window=8, hop=8)
    runs = {
        "encoder": ImageEmbedder(torchdl.ImageEncoder(16, code_size=5), ImageEmbedder.Settings(pixels)),
        "autoencoder": ImageReconstructor(
            torchdl.Autoencoder((3, 16, 16), 2, 1, 4), ImageReconstructor.Settings(pixels)
        ),
        "classifier": ImageClassifier(
            torchdl.LenetLike((3, 16, 16), 2, 2, 1, 6), ImageClassifier.Settings(pixels, ("cat", "dog"))
        ),
        "signals": SignalEmbedder(torchdl.SignalEncoder(2, 3, (4, 2), (2, 2)), settings),
        "spam": TextClassifier(
            torchdl.TextCNN(3, 1, 2, (2,)), TextClassifier.Settings(vocabulary.settings, ("h", "s"))
        ),
        "table": TabularPredictor(torchdl.MLP(1, 1, (4,)), torchdl.Columns.fit(rows, "price")),
        "gan": ImageGenerator.of(torchdl.conv_gan((1, 4, 4), 2, width=1)),
    }
    for name, predictor in runs.items():
        predictor.save(folder / name)
    for number, picture in enumerate(NOISE):
        place = folder / "pictures" / ("even" if number % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place / f"{number}.png")
    (folder / "recordings").mkdir()
    for number, signal in enumerate(recordings.signals):
        np.save(folder / "recordings" / f"{number}.npy", signal.numpy())
    rows.to_csv(folder / "rows.csv", index=False)
    (folder / "texts.txt").write_text("a b c\nb b\n")
    return folder


def rows_of(path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


NAMES = {
    "encoder pictures": [f"pictures/{name}.png" for name in ("even/0", "even/2", "odd/1")],
    "autoencoder pictures/odd": ["pictures/odd/1.png"],
    "classifier pictures/odd/1.png pictures/even/0.png": ["pictures/odd/1.png", "pictures/even/0.png"],
    "signals recordings": [f"{n}.npy, sample {8 * i}" for n, count in ((0, 5), (1, 3)) for i in range(count)],
    "spam texts.txt": ["a b c", "b b"],
    "table rows.csv": ["0", "1", "2"],
}


@pytest.mark.parametrize("command", NAMES)
def test_embeddings_are_saved_as_numbers_and_with_names(workplace, run, command):
    place, *inputs = command.split()
    done = run(f"embed.py {command} --out x.npy", workplace)
    assert (done.code, done.err) == (0, "")
    numbers = np.load(workplace / "x.npy")
    predictor = torchdl.load_predictor(workplace / place, "cpu")
    given = [workplace / name for name in inputs]
    assert np.array_equal(numbers, predictor.embed(given[0] if place in ("spam", "table") else given).numpy())
    assert re.match(f"{len(numbers)} embeddings of {numbers.shape[1]} numbers: x.npy", done.out)
    assert run(f"embed.py {command} --out x.csv", workplace).code == 0
    header, *rows = rows_of(workplace / "x.csv")
    assert header == ["input", *map(str, range(numbers.shape[1]))]
    assert [row[0] for row in rows] == NAMES[command]
    assert np.array_equal(np.array([row[1:] for row in rows], np.float32), numbers)


@pytest.mark.parametrize(("command", "images"), [("encoder pictures", 3), ("spam texts.txt", 0)])
def test_the_projectors_files_hold_numbers_names_and_pictures(workplace, run, tmp_path, command, images):
    done = run(f"embed.py {command} --projector {tmp_path / 'new'} --out x.npy", workplace)
    assert (done.code, done.err) == (0, "")
    text = (tmp_path / "new" / "projector_config.pbtxt").read_text()
    named = {name: tmp_path / "new" / path for name, path in re.findall(r'(\w+_path): "(.*?)"', text)}
    np.testing.assert_allclose(np.loadtxt(named["tensor_path"]), np.load(workplace / "x.npy"), rtol=1e-6)
    assert named["metadata_path"].read_text().splitlines() == NAMES[command]
    assert ("image_path" in named) == bool(images)
    if images:
        sprite = np.asarray(Image.open(named["image_path"]))
        assert sprite.shape == (32, 32, 3)  # 2 x 2 places of 16 x 16 pixels
        seen = next(ImageInput(3, 16, 16).batches(NOISE, 3)).images
        shown = np.stack([sprite[:16, :16], sprite[:16, 16:], sprite[16:, :16]])
        expected = seen[[0, 2, 1]].permute(0, 2, 3, 1).numpy() * 255
        assert abs(shown - expected).max() <= 1


def test_large_pictures_are_reduced_for_the_projector(workplace, run, tmp_path):
    pixels = ImageInput(3, 80, 96)
    classes = ImageClassifier.Settings(pixels, ("cat", "dog"))
    ImageClassifier(torchdl.LenetLike((3, 80, 96), 2, 2, 1, 6), classes).save(tmp_path / "run")
    done = run(f"embed.py run {workplace / 'pictures'} --projector new", tmp_path)
    assert (done.code, done.err) == (0, "")
    (sprite,) = (tmp_path / "new").rglob("sprite.png")
    assert Image.open(sprite).size == (128, 128)  # two columns of 64 pixels


MISTAKES = {
    "encoder pictures": "--out, such as codes.npy",
    "encoder pictures --out x.png": "x.png must end in .npy or .csv",
    "encoder --out x.npy": "name what encoder",
    "encoder nowhere.png --out x.npy": "nowhere.png",
    "encoder texts.txt --out x.npy": "texts.txt",
    "encoder pictures --projector pictures": "pictures exists already",
    "encoder pictures --projector texts.txt": "texts.txt exists already",
    "table rows.csv rows.csv --out x.npy": "name one CSV file",
    "gan pictures --out x.npy": "gan is of the kind image generator, which makes no embeddings",
    "signals pictures --out x.npy": "pictures has no recordings",
    "pictures pictures --out x.npy": "not the folder of a run",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence(workplace, run, command):
    assert_mistake(run, f"embed.py {command}", workplace, MISTAKES[command])
