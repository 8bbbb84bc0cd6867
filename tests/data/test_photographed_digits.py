from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.photographs import photograph
from PIL import Image

from torchdl import InputError, LenetLike, load_images, prepare_digit


def paper(height: int = 300, width: int = 200, level: int = 210) -> torch.Tensor:
    return torch.full((height, width), level, dtype=torch.uint8)


def seven(at: tuple[int, int] = (60, 40), level: int = 40, **options) -> torch.Tensor:
    """Draw strokes of 12 pixels in a box of 120 x 80: a bar above, and a bar on its right."""
    picture, (top, left) = paper(**options), at
    picture[top : top + 12, left : left + 80] = level
    picture[top : top + 120, left + 68 : left + 80] = level
    return picture


def centre_of_mass(digit: torch.Tensor) -> tuple[float, float]:
    places = torch.arange(28.0)
    mass = digit[0].double()
    rows, columns = mass.sum(1), mass.sum(0)
    return float((rows @ places.double()) / mass.sum()), float((columns @ places.double()) / mass.sum())


def box(digit: torch.Tensor) -> tuple[int, int]:
    rows, columns = digit[0].any(1), digit[0].any(0)
    return int(rows.nonzero().max() - rows.nonzero().min()) + 1, int(
        columns.nonzero().max() - columns.nonzero().min()
    ) + 1


@pytest.mark.parametrize("at", [(10, 10), (60, 40), (175, 115)])
def test_a_digit_fills_twenty_pixels_and_its_mass_is_at_the_centre(at):
    digit = prepare_digit(seven(at))
    assert digit.shape == (1, 28, 28)
    assert digit.dtype == torch.uint8
    assert box(digit) == (20, 13)  # 120 x 80
    assert digit.max() == 255
    assert all(abs(centre - 14) <= 0.5 for centre in centre_of_mass(digit))


def test_strokes_are_means_of_the_pixels_that_they_cover():
    picture = paper()
    picture[50:110, 50:110] = 30  # a square, whose pixels are 3 x 3 ones
    picture[50:53, 50:53] = 210
    digit = prepare_digit(picture)
    square = digit[0, 4:24, 4:24].long()
    assert square[0, 0] < 20
    assert bool((square[1:-1, 1:-1] > 250).all())
    edges = torch.cat([square[0, 1:], square[-1], square[:, -1], square[1:, 0]])
    assert bool((edges > 200).all())  # a little smoothed, against noise
    assert int(digit.long().sum()) == int(square.sum())


@pytest.mark.parametrize("scene", ["shadow", "table", "lines", "reversed"])
def test_a_scene_around_the_digit_changes_little(scene):
    digits = [digit[0] for digit in load_images("mnist_5k", "test").images[::100]]
    y, x = torch.meshgrid(torch.arange(400), torch.arange(300), indexing="ij")
    for seed, digit in enumerate(digits):
        picture = photograph(digit, seed, (400, 300), bright_ink=scene == "reversed").float()
        if scene == "shadow":
            picture *= torch.where(x - 0.3 * y > 60 + 10 * seed, 0.65, 1.0)
        elif scene == "table":
            picture = F.pad(picture, (50, 60, 50, 60), value=70)
        elif scene == "lines":
            picture[20::40] *= 0.85
        found = prepare_digit(picture.clamp(0, 255).to(torch.uint8)).float()
        assert F.cosine_similarity(found.flatten(), digit.float().flatten(), 0) > 0.85, seed


@pytest.mark.parametrize("channels", [1, 3])
def test_a_bright_digit_on_a_dark_ground_is_the_same(channels):
    dark = seven()
    expected = prepare_digit(dark)
    assert torch.equal(prepare_digit(255 - dark), expected)
    assert torch.equal(prepare_digit((255 - dark).expand(channels, -1, -1)), expected)


def test_uneven_light_noise_specks_and_what_reaches_in_from_the_border_change_little():
    plain = seven(height=400, width=300)
    expected = prepare_digit(plain).float()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 400), torch.linspace(-1, 1, 300), indexing="ij")
    noise = torch.randn(400, 300, generator=torch.Generator().manual_seed(0))
    picture = plain.float() * (0.8 + 0.15 * x - 0.1 * y - 0.05 * x * y) + 3 * noise
    picture[300:303, 200:203] = 20
    picture[:, -12:] = 60  # the table beside the paper
    picture[350:354] = 80  # a line
    found = prepare_digit(picture.clamp(0, 255).to(torch.uint8)).float()
    assert (found - expected).abs().mean() < 5
    assert box(found) == box(expected)


def test_a_file_is_turned_by_its_exif_and_transparency_is_paper(tmp_path):
    picture = seven()
    expected = prepare_digit(picture)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    lying = Image.fromarray(np.rot90(picture.numpy()).copy())
    lying.save(tmp_path / "lying.png", exif=exif)
    assert torch.equal(prepare_digit(tmp_path / "lying.png"), expected)
    alpha = (picture < 100).numpy().astype(np.uint8) * 255
    black = Image.fromarray(np.zeros((300, 200), np.uint8))
    Image.merge("LA", (black, Image.fromarray(alpha))).save(tmp_path / "drawn.png")
    assert torch.equal(prepare_digit(str(tmp_path / "drawn.png")), expected)


@pytest.mark.parametrize(
    "picture",
    [paper(), paper(level=0), paper(1, 1), paper(50, 1), photograph(torch.zeros(28, 28, dtype=torch.uint8), 1)],
    ids=["white", "black", "a pixel", "a line", "noisy paper"],
)
def test_paper_without_ink_is_refused(picture):
    with pytest.raises(InputError, match="there is no digit on this picture"):
        prepare_digit(picture)


def test_an_array_is_read_as_a_tensor_is():
    assert prepare_digit(seven().numpy()).equal(prepare_digit(seven()))
    assert prepare_digit(seven().numpy()[::-1].copy()[::-1]).equal(prepare_digit(seven()))  # a negative stride


@pytest.mark.parametrize("picture", [torch.zeros(9, 9), torch.zeros(2, 9, 9).byte(), torch.zeros(0, 9).byte()])
def test_what_are_no_pixels_is_refused(picture):
    with pytest.raises(InputError, match=r"a digit must be \(H, W\)"):
        prepare_digit(picture)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "digit.png").write_text("no picture")
    with pytest.raises(InputError, match=r"digit\.png cannot be read as an image"):
        prepare_digit(tmp_path / "digit.png")


def test_mnists_own_digits_stay_as_they_are():
    digits = load_images("mnist_5k", "test").images[::10]  # (50, 1, 28, 28), bold ones among them
    found = torch.stack([prepare_digit(digit) for digit in digits])
    assert (found.float() - digits.float()).abs().mean() < 6
    assert F.cosine_similarity(found.flatten(1).float(), digits.flatten(1).float()).min() > 0.5  # one pixel aside


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_network_of_mnists_digits_reads_photographs_that_were_prepared_and_no_others():
    train, test = (load_images("mnist_5k", split) for split in ("train", "test"))
    torch.manual_seed(0)
    network = LenetLike((1, 28, 28), 10, width=4, hidden=64)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for batch in torch.randperm(len(train)).split(32):
        images, labels = train.__getitems__(batch)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.eval()
    chosen = torch.arange(0, 500, 5)
    digits, labels = test.images[chosen][:, 0], test.labels[chosen]
    photographs = [photograph(digit, seed, (280, 210), bright_ink=seed % 4 == 0) for seed, digit in enumerate(digits)]
    resized = [torch.from_numpy(np.array(Image.fromarray(p.numpy()).resize((28, 28)))) for p in photographs]

    def accuracy(images: list[torch.Tensor]) -> float:
        with torch.no_grad():
            return float((network(torch.stack(images).view(-1, 1, 28, 28) / 255).argmax(1) == labels).double().mean())

    assert accuracy(resized) < 0.25
    assert accuracy([prepare_digit(p) for p in photographs]) > accuracy(list(digits)) - 0.04 > 0.8
