"""Keras' augmentation: its geometry against SciPy and Keras, its draws, and what a checkpoint compares."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from torch import Tensor

from torchdl import Augmentation, AugmentedImages, BatchLoader, ImageDataset, InputError, ShiftedImages
from torchdl.data.augment import affine_matrix, warp

pytestmark = [
    pytest.mark.usefixtures("quick"),
    pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning"),  # Keras' own
]

EVERYTHING = Augmentation(
    rotation_range=30,
    width_shift_range=0.2,
    height_shift_range=1.5,
    shear_range=10,
    zoom_range=(0.7, 1.2),
    horizontal_flip=True,
    vertical_flip=0.3,
    brightness_range=(0.5, 1.5),
    channel_shift_range=40,
)
UNCHANGED = {"theta": 0.0, "tx": 0.0, "ty": 0.0, "shear": 0.0, "zx": 1.0, "zy": 1.0}  # Keras' names
CHANGES = [
    {"theta": 20.0},
    {"tx": 1.3},
    {"ty": -2.45},
    {"shear": 15.0},
    {"zx": 0.8, "zy": 1.3},
    {"theta": -33.0, "tx": 1.7, "ty": -0.6, "shear": 12.0, "zx": 1.2, "zy": 0.7},
    {"theta": 120.0, "tx": 15.3, "ty": -18.2},  # all but a corner is outside
]
MODES = ("nearest", "constant", "reflect", "wrap")


def noise(count: int = 4, channels: int = 3, height: int = 12, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def augmented(pixels: Tensor | None = None, seed: int = 0, **settings: Any) -> AugmentedImages:
    pixels = noise() if pixels is None else pixels
    return AugmentedImages(ImageDataset(pixels, high=255), Augmentation(**settings), seed)


def shown(data: AugmentedImages) -> Tensor:
    batch = data[:]
    return batch if isinstance(batch, Tensor) else batch[0]


# --- geometry


def matrices(changes: list[dict[str, float]]) -> Tensor:
    return affine_matrix(*(torch.tensor([{**UNCHANGED, **change}[name] for change in changes]) for name in UNCHANGED))


@pytest.mark.parametrize("mode", MODES)
def test_it_is_keras_geometry(mode):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    image = pytest.importorskip("keras.src.legacy.preprocessing.image")
    pixels = noise(1)
    axes = {"row_axis": 1, "col_axis": 2, "channel_axis": 0}
    found = warp(pixels.float().expand(len(CHANGES), -1, -1, -1), matrices(CHANGES), mode, 7.0)
    for change, one in zip(CHANGES, found, strict=True):
        keras = image.apply_affine_transform(pixels[0].double().numpy(), **change, **axes, fill_mode=mode, cval=7.0)
        np.testing.assert_allclose(one, keras, rtol=0, atol=2e-3)  # of 255


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("height", "width"), [(7, 12), (5, 1)])
def test_images_that_are_not_square_turn_about_their_centre_too(mode, height, width):
    pixels = noise(1, 1, height, width)
    found = warp(pixels.float().expand(len(CHANGES), -1, -1, -1), matrices(CHANGES), mode, 7.0)
    centre = (np.array([height, width]) - 1) / 2
    for matrix, one in zip(matrices(CHANGES).double().numpy(), found, strict=True):
        rows = matrix[::-1]  # SciPy's order: y, x
        linear, offset = rows[:, 1::-1], rows[:, 2]
        if width == 1 and mode == "wrap":
            continue  # a period of no pixels
        scipy = affine_transform(
            pixels[0, 0].double().numpy(), linear, offset + centre - linear @ centre, order=1, mode=mode, cval=7.0
        )
        np.testing.assert_allclose(one[0], scipy, rtol=0, atol=2e-3)


@pytest.mark.parametrize("axis", [2, 3])
def test_shifts_move_in_the_direction_of_their_name_by_parts_of_a_pixel(axis):
    ramp = torch.arange(40.0).to(torch.uint8)
    pixels = (ramp[:, None] if axis == 2 else ramp[None]).expand(500, 1, 40, 40).contiguous()
    name = ("height_shift_range", "width_shift_range")[axis - 2]
    for given, most in ((0.1, 4.0), (1.5, 1.5)):
        moved = shown(augmented(pixels, **{name: given}))[:, 0, 20, 20] - 20
        assert moved.abs().max() <= most + 1e-4
        assert moved.min() < -0.9 * most
        assert moved.max() > 0.9 * most
        assert len(moved.round(decimals=3).unique()) > 300
        other = ("width_shift_range", "height_shift_range")[axis - 2]
        torch.testing.assert_close(shown(augmented(pixels, **{other: given})), pixels.float(), rtol=0, atol=1e-3)


def test_a_range_replaces_the_whole_shift_in_its_direction():
    torch.testing.assert_close(
        shown(augmented(shift=0.3, width_shift_range=0.0, height_shift_range=0.0)), noise().float(), rtol=0, atol=1e-3
    )
    whole = shown(ShiftedImages(ImageDataset(noise(), high=255), 0.3, 0.5, seed=3))
    both = shown(augmented(shift=0.3, horizontal_flip=0.5, rotation_range=1e-9, seed=3))
    torch.testing.assert_close(whole, both, rtol=0, atol=1e-2)  # copied, and interpolated with the same draws


@pytest.mark.parametrize("mode", ["constant", "reflect", "wrap"])
def test_whole_shifts_fill_gaps_as_asked_for_too(mode):
    found = shown(augmented(torch.full((50, 1, 6, 6), 9, dtype=torch.uint8), shift=0.5, fill_mode=mode, cval=200))
    gaps = torch.isclose(found, torch.tensor(200.0))
    assert gaps.any() == (mode == "constant")
    assert torch.isclose(found[~gaps], torch.tensor(9.0)).all()


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_flips_copy_pixels_and_precede_no_move(name, axis):
    pixels = noise(400)
    found = shown(augmented(pixels, **{name: True}))
    mirrored = (found == pixels.flip(axis)).flatten(1).all(1)
    assert torch.equal(found[~mirrored], pixels[~mirrored].float())
    assert 140 < mirrored.sum() < 260
    moved = shown(augmented(pixels, rotation_range=40))
    torch.testing.assert_close(shown(augmented(pixels, rotation_range=40, **{name: 1.0})), moved.flip(axis))


# --- values


def test_brightness_multiplies_and_a_channel_shift_adds_within_the_image():
    pixels = noise(300)
    bright = shown(augmented(pixels, brightness_range=(0.5, 1.5)))
    factor = bright.flatten(1).median(1).values / pixels.float().flatten(1).median(1).values
    torch.testing.assert_close(bright, (pixels * factor[:, None, None, None]).clamp(0, 255), rtol=0, atol=1e-3)
    assert 0.5 <= factor.min() < 0.55
    assert 1.45 < factor.max() <= 1.5
    narrow = (pixels // 2 + 60).to(torch.uint8)
    shifted = shown(augmented(narrow, channel_shift_range=30)).flatten(1)
    flat = narrow.float().flatten(1)
    amount = (shifted - flat).gather(1, (flat - 120).abs().argmin(1, keepdim=True))
    least, most = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    torch.testing.assert_close(shifted, (flat + amount).clamp(least, most), rtol=0, atol=1e-3)
    assert -30 <= amount.min() < -27
    assert 27 < amount.max() <= 30


# --- what is drawn


def test_an_image_is_equal_to_the_bit_in_any_batch_and_by_workers():
    images = ImageDataset(noise(37), torch.arange(37), -1, 1)
    data = AugmentedImages(images, EVERYTHING, seed=2)
    data.set_epoch(3)
    whole = shown(data)
    assert whole.dtype == torch.float32
    assert whole.abs().max() <= 1
    for indices in ([3], [36, 0, 3, 3], range(5, 31)):
        assert torch.equal(data.__getitems__(indices)[0], whole[list(indices)])
    data.set_epoch(0)
    first = shown(data)
    assert not torch.isclose(first, whole).flatten(1).all(1).any()
    loader = BatchLoader(AugmentedImages(images, EVERYTHING, seed=2), 8, shuffle=True, workers=1)
    batches, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(batches, first[labels])
    assert not torch.isclose(shown(AugmentedImages(images, EVERYTHING, seed=1)), first).flatten(1).all(1).any()


def test_all_that_changes_the_batches_is_compared_on_resuming():
    told = [augmented(**settings).order_settings() for settings in (vars(EVERYTHING), {}, {"cval": 3.0})]
    assert told[1] == told[2] == ShiftedImages(ImageDataset(noise()), 0.0, 0.0).order_settings()
    changed = {
        "rotation_range": 10,
        "width_shift_range": 0.1,
        "height_shift_range": 1,
        "shear_range": 5,
        "zoom_range": 0.2,
        "horizontal_flip": 0.0,
        "vertical_flip": 0.0,
        "brightness_range": (0.5, 1.4),
        "channel_shift_range": 4,
        "fill_mode": "wrap",
        "shift": 0.1,
        "cval": 3.0,
    }
    for name, value in changed.items():
        assert augmented(**{**vars(EVERYTHING), name: value}).order_settings() != told[0]
    assert all(isinstance(value, int | float | str) for value in told[0].values())


def test_each_setting_is_shown_alone_and_all_together():
    rows = augmented(rotation_range=20, brightness_range=(0.5, 0.6), fill_mode="wrap").examples(index=2, count=3)
    assert list(rows) == ["rotation_range 20", "brightness_range (0.5, 0.6)", "all"]
    assert {images.shape for images in rows.values()} == {(3, 3, 12, 12)}
    factors = rows["brightness_range (0.5, 0.6)"] / (noise()[2].float() / 255)
    assert ((factors > 0.499) & (factors < 0.601) | factors.isnan()).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation_range": 181}, "rotation_range must be degrees from 0 to 180, not 181"),
        ({"width_shift_range": -0.1}, "width_shift_range .* 0 or more, not -0.1"),
        ({"height_shift_range": float("nan")}, "height_shift_range .*nan"),
        ({"shear_range": 90}, r"shear_range .*\[0, 90\), not 90"),
        ({"zoom_range": 1}, "zoom_range .*not 1"),
        ({"zoom_range": (1.2, 0.8)}, "zoom_range .* ordered"),
        ({"zoom_range": -0.1}, "zoom_range .*-0.1"),
        ({"vertical_flip": 2}, "vertical_flip .* probability"),
        ({"brightness_range": (-1, 1)}, "brightness_range .*-1"),
        ({"brightness_range": 0.5}, "brightness_range must be two .* not 0.5"),
        ({"zoom_range": (1, 1, 1)}, r"zoom_range .*\(1, 1, 1\)"),
        ({"channel_shift_range": 256}, "channel_shift_range .* 255, not 256"),
        ({"fill_mode": "mirror"}, "fill_mode .* nearest, constant, reflect, wrap, not mirror"),
        ({"cval": -1}, "cval .*-1"),
    ],
)
def test_a_setting_out_of_range_is_one_sentence(settings, message):
    with pytest.raises(InputError, match=message):
        augmented(**settings)
