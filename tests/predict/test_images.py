from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import torchdl
from torchdl import ImageDataset, InputError
from torchdl.predict import ImageInput
from torchdl.predict.images import as_pixels, listed

GREY, COLOUR = ImageInput(1, 28, 28, prepare="digit"), ImageInput(3, 8, 8, low=-1.0)
NOISE = torch.randint(256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def images_of(given: ImageInput, pictures, size: int = 500) -> tuple[torch.Tensor, list[str]]:
    batches = list(given.batches(pictures, size))
    return torch.cat([batch.images for batch in batches]), [name for batch in batches for name in batch.names]


@pytest.mark.parametrize(
    "pictures",
    [
        NOISE,
        NOISE.numpy(),
        NOISE.permute(0, 2, 3, 1).numpy(),
        NOISE / 255,
        NOISE.numpy()[:, ::-1].copy()[:, ::-1],
        (NOISE / 255).numpy().astype(">f8"),
        list(NOISE),
        [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in NOISE],
        ImageDataset(NOISE),
        ImageDataset(NOISE, torch.zeros(5, dtype=torch.int64)),
    ],
    ids=[
        "tensor",
        "array",
        "channels last",
        "floats",
        "reversed",
        "big-endian",
        "list",
        "Pillow",
        "data set",
        "labelled",
    ],
)
def test_pictures_of_the_networks_size_are_scaled_and_nothing_else(pictures):
    images, names = images_of(COLOUR, pictures, size=2)
    assert torch.equal(images, ImageDataset(NOISE, low=-1)[:])
    assert names == list("01234")


def test_files_are_decoded_and_named(tmp_path):
    for number, pixels in enumerate(NOISE):
        folder = tmp_path / ("a" if number < 3 else "b")
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / "._0.png").write_text("what macOS adds")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "0.png").write_text("hidden")
    images, names = images_of(COLOUR, tmp_path)
    assert torch.equal(images, ImageDataset(NOISE, low=-1)[:])
    assert names == ["a/0.png", "a/1.png", "a/2.png", "b/3.png", "b/4.png"]
    _, names = images_of(COLOUR, [tmp_path / "b", str(tmp_path / "a" / "0.png")])
    assert names == [str(tmp_path / name) for name in ("b/3.png", "b/4.png", "a/0.png")]


def test_pictures_that_lose_their_colours_are_counted(tmp_path):
    colour, grey = Image.new("RGB", (40, 30), "red"), Image.new("L", (40, 30), "white")
    colour.save(tmp_path / "a.png")
    grey.save(tmp_path / "b.png")
    said = "pictures in colour, made grey and resized to 28 x 28 ({}): {} of {}"
    assert GREY.notes(tmp_path) == (said.format("as photographs of a digit", 1, 2),)
    assert ImageInput(1, 28, 28).notes([colour, NOISE, grey]) == (said.format("their middle", 6, 7),)
    assert ImageInput(3, 28, 28, prepare="digit").notes(colour) == (said.format("as photographs of a digit", 1, 1),)
    assert GREY.notes(grey) == ImageInput(3, 28, 28).notes([colour, grey]) == ()


def test_a_larger_picture_is_cropped_or_squashed():
    picture = torch.zeros(3, 8, 32, dtype=torch.uint8)
    picture[:, :, 12:20] = 255  # the middle square is white
    cropped, _ = images_of(COLOUR, picture)
    squashed, _ = images_of(ImageInput(3, 8, 8, prepare="squash"), picture)
    assert bool((cropped == 1).all())
    assert bool((squashed[..., 4] > 0.8).all())
    assert bool((squashed[..., [0, 7]] == 0).all())


def test_squashing_is_what_a_folder_of_training_images_goes_through(tmp_path):
    large = torch.randint(256, (30, 50, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8).numpy()
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "dog").mkdir()
        for name in ("cat", "dog"):
            Image.fromarray(large).save(tmp_path / split / name / "1.png")
    trained = torchdl.load_images(tmp_path, "test", image_size=8)[:][0][:1]
    own = ImageInput(3, 8, 8, prepare="squash")
    assert torch.equal(images_of(own, tmp_path / "test" / "cat" / "1.png")[0], trained)
    assert torch.equal(images_of(own, Image.fromarray(large))[0], trained)
    assert torch.equal(images_of(own, large)[0], trained)


def test_a_photographed_digit_is_prepared_and_one_of_mnist_is_taken_as_it_is(tmp_path):
    digits = torchdl.load_images("mnist_5k", "test").images[:3]
    photograph = 255 - digits[0, 0].repeat_interleave(10, 0).repeat_interleave(10, 1)
    for name, pixels in {"digit": digits[0, 0], "photograph": photograph, "inverted": 255 - digits[0, 0]}.items():
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{name}.png")
    found, _ = images_of(GREY, [tmp_path / "digit.png", tmp_path / "photograph.png", tmp_path / "inverted.png"])
    assert torch.equal(found[0], digits[0] / 255)
    assert torch.equal(found[1], torchdl.prepare_digit(tmp_path / "photograph.png") / 255)
    assert (found[1:] - found[0]).abs().mean() < 0.1  # not white on black for black on white
    assert torch.equal(images_of(GREY, digits)[0], digits / 255)


def test_the_photograph_without_a_digit_is_named(tmp_path):
    digit, paper = torch.zeros(1, 28, 28, dtype=torch.uint8), Image.new("L", (60, 40), "white")
    paper.save(tmp_path / "blank.png")
    with pytest.raises(
        InputError, match=r"blank\.png: there is no digit.*; repair it, or leave it out of the 2 pictures"
    ):
        images_of(GREY, [digit, tmp_path / "blank.png"])
    with pytest.raises(InputError, match="1: there is no digit"):
        images_of(GREY, [digit, paper])
    with pytest.raises(InputError, match=r"^there is no digit"):
        images_of(GREY, paper)


@pytest.mark.parametrize(("image_size", "rescale"), [(28, True), (40, False)])
def test_a_digit_for_an_encoder_is_what_its_training_saw(image_size, rescale, tmp_path):
    digits = torchdl.load_digits("test", image_size, color=False, rescale=rescale, name="mnist_5k")
    raw = torchdl.load_images("mnist_5k", "test").images
    own = ImageInput.of(digits, "digit")
    assert (own.shape, own.low) == ((3, image_size, image_size), -1.0 if rescale else 0.0)
    expected = digits[:4][0]
    Image.fromarray(raw[0, 0].numpy()).save(tmp_path / "digit.png")
    for pictures in (raw[:4], raw[:4, 0].numpy(), digits.subset(torch.arange(4)), [tmp_path / "digit.png", *raw[1:4]]):
        assert torch.equal(images_of(own, pictures)[0], expected)


def test_coloured_digits_are_drawn_as_in_training_and_scaled_for_the_network():
    digits = torchdl.load_digits("test", 16, rescale=True, name="mnist_5k")
    digits = digits.subset(torch.arange(3))
    assert torch.equal(images_of(ImageInput.of(digits, "crop"), digits)[0], digits[:][0])
    assert torch.equal(images_of(ImageInput(3, 16, 16), digits)[0], digits[:][0].add(1).mul(0.5))
    assert digits.rescale


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ([], "no pictures"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "pictures must be"),
        (torch.full((3, 8, 8), 2.0), r"in \[0, 1\]"),
        (torch.full((3, 8, 8), torch.nan), r"in \[0, 1\]"),
        (np.zeros((2, 5, 8, 8), np.uint8), r"\(2, 5, 8, 8\)"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((9, 9), object), "object"),
        (np.array(["a.png", "b.png"]), "<U5"),
        (np.zeros((9, 9, 4), np.uint8), "transparency"),
        (np.zeros((9, 9, 2), np.uint8), "transparency"),
        ({"a": 1}, "dict"),
        (ImageDataset(NOISE[:, :, :4]), r"\(3, 8, 8\), not \(3, 4, 8\)"),
    ],
)
def test_what_are_no_pictures_is_refused(pictures, said):
    with pytest.raises(InputError, match=said):
        images_of(COLOUR, pictures)


def test_files_that_are_no_pictures_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    for path in ("empty", "text.png", "missing.png"):
        with pytest.raises(InputError, match=path):
            images_of(COLOUR, tmp_path / path)


def test_an_array_that_can_be_read_in_two_ways_is_read_as_the_network_takes_it():
    three = np.zeros((3, 28, 28), np.uint8)
    assert as_pixels(three, GREY.shape).shape == (3, 1, 28, 28)
    assert as_pixels(three, (3, 28, 28)).shape == (1, 3, 28, 28)
    assert as_pixels(np.zeros((28, 28, 3), np.uint8), GREY.shape).shape == (1, 3, 28, 28)
    assert as_pixels(np.zeros((7, 9, 9), np.uint8), GREY.shape).shape == (7, 1, 9, 9)
    assert as_pixels(np.zeros((9, 9, 4), np.uint8), (1, 9, 4)).shape == (9, 1, 9, 4)
    assert [name for name, _ in listed([three, three[0]], GREY.shape)] == ["0"] * 3 + ["1"]


@pytest.mark.parametrize(
    "images",
    [
        ImageInput(2, 8, 8),
        ImageInput(1, 0, 8),
        ImageInput(1, 8, 8, low=0.5),
        ImageInput(1, 28, 30, prepare="digit"),
        ImageInput(1, 2**20, 2**20),
        ImageInput(1, 8, 8, white_value=float("nan")),
        ImageInput(1, 8, 8, white_value=float("inf")),
    ],
)
def test_settings_of_no_image_are_refused(images):
    with pytest.raises(InputError):
        images.check()


def test_grey_data_sets_are_read_by_a_network_of_colours():
    data = torchdl.ImageDataset(torch.randint(256, (3, 1, 6, 6)).to(torch.uint8))
    (batch,) = ImageInput(3, 6, 6).batches(data, 10)
    (same,) = ImageInput(3, 6, 6).batches(data.images, 10)
    assert batch.images.shape == (3, 3, 6, 6)
    assert torch.equal(batch.images, same.images)
    with pytest.raises(InputError, match=r"takes images of .* \(1, 6, 6\), not \(3, 6, 6\)"):
        [*ImageInput(1, 6, 6).batches(torchdl.ImageDataset(data.images.expand(-1, 3, -1, -1)), 10)]
