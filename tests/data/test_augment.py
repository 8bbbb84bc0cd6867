from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import fill_
from scipy.stats import chi2
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset

import torchdl
from torchdl import BatchLoader, ImageDataset, InputError, ShiftedImages, Stopped, Supervised, Trainer
from torchdl.files import CHECKPOINT
from torchdl.tasks import accuracy
from torchdl.training import checkpoint

pytestmark = pytest.mark.usefixtures("quick")

HEIGHT, WIDTH = 9, 12  # shifted by a quarter: 2 rows and 3 columns


def noise(count: int, channels: int = 3, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    """Make images of which no two pixels and no two shifted versions are likely to be the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def labelled(count: int, **options) -> ImageDataset:
    return ImageDataset(noise(count, **options), torch.arange(count) * 7 % 10, low=0, high=255)


@cache
def sources(height: int, width: int, rows: int, columns: int) -> dict[tuple[int, int, bool], np.ndarray]:
    """Say for all that may be drawn which pixel (H, W) stands at each place, pixel by pixel, from the definition."""
    found = {}
    for mirrored in (True, False):
        for down, right in itertools.product(range(-rows, rows + 1), range(-columns, columns + 1)):
            source = np.empty((height, width), int)
            for y, x in itertools.product(range(height), range(width)):
                row, column = min(max(y - down, 0), height - 1), min(max(x - right, 0), width - 1)
                source[y, width - 1 - x if mirrored else x] = row * width + column
            found[down, right, mirrored] = source
    return found


def versions(image: np.ndarray, rows: int, columns: int) -> dict[bytes, tuple[int, int, bool]]:
    """Make every version of an image (C, H, W): what was drawn, by the pixels that come out of it."""
    flat = image.reshape(len(image), -1)
    return {flat[:, s].tobytes(): choice for choice, s in sources(*image.shape[1:], rows, columns).items()}


def drawn(data: ShiftedImages, rows: int, columns: int) -> list[tuple[int, int, bool]]:
    """Read from the images of an epoch how each was moved."""
    batch = data.__getitems__(range(len(data)))
    batch = batch if isinstance(batch, torch.Tensor) else batch[0]
    pairs = zip(data.images.images.numpy(), batch.to(torch.uint8).numpy(), strict=True)
    return [versions(image, rows, columns)[shown.tobytes()] for image, shown in pairs]


def same(one, other) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


# --- one image


@pytest.mark.parametrize(
    ("channels", "height", "width", "shift", "rows", "columns"),
    [
        (3, 9, 12, 0.25, 2, 3),
        (1, 9, 12, 0.25, 2, 3),
        (1, 28, 28, 0.1, 2, 2),  # 2.8 pixels at most
        (3, 32, 32, 0.1, 3, 3),
        (2, 12, 3, 0.3, 3, 0),
        (1, 4, 3, 0.99, 3, 2),  # all but one row and column out of the picture
    ],
)
@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_every_image_is_a_shifted_and_perhaps_mirrored_one_with_its_edge_repeated(
    channels, height, width, shift, rows, columns, flip
):
    count = 25
    data = ShiftedImages(labelled(count, channels=channels, height=height, width=width), shift, flip, seed=3)
    batch, labels = data.__getitems__(range(count))
    assert batch.shape == (count, channels, height, width)
    assert batch.dtype == torch.float32
    assert labels.tolist() == data.images.labels.tolist()
    found = drawn(data, rows, columns)  # a KeyError where an image is none of the possible versions
    assert any(mirrored for *_, mirrored in found) == (flip > 0)
    assert len({tuple(one) for one in found}) > 5


def test_the_largest_shift_is_the_share_that_was_asked_for_where_it_is_a_whole_number_of_pixels():
    # 0.29 * 100 is 28.999999999999996
    ramp = torch.arange(100, dtype=torch.uint8).expand(2000, 1, 1, 100)
    shown = ShiftedImages(ImageDataset(ramp, high=255), 0.29, 0.0).__getitems__(range(2000))
    assert shown[:, 0, 0, 50].min() == 50 - 29
    assert shown[:, 0, 0, 50].max() == 50 + 29


def test_all_shifts_and_both_sides_occur_equally_often_and_independently():
    data = ShiftedImages(labelled(3500, height=5, width=8, channels=1), 0.25, 0.5, seed=1)  # 3 x 5 shifts
    found = Counter(drawn(data, 1, 2))
    assert len(found) == 3 * 5 * 2
    expected = 3500 / 30
    statistic = sum((count - expected) ** 2 / expected for count in found.values())
    assert chi2.sf(statistic, 29) > 1e-3


@pytest.mark.parametrize("flip", [0.1, 0.5, 0.8])
def test_the_share_of_mirrored_images_is_the_one_asked_for(flip):
    count = 20_000
    pixels = noise(1, 1, 1, 6).expand(count, 1, 1, 6)
    shown = ShiftedImages(ImageDataset(pixels, high=255), 0.0, flip).__getitems__(range(count))
    mirrored = (shown == pixels.flip(3)).flatten(1).all(1)
    assert torch.equal(shown[~mirrored], pixels[~mirrored].float())
    assert mirrored.float().mean().item() == pytest.approx(flip, abs=4 * (flip * (1 - flip) / count) ** 0.5)


def test_without_shifts_and_flips_the_images_are_as_they_are():
    data = ImageDataset(noise(20), torch.arange(20), -1, 1)
    plain = ShiftedImages(data, 0.0, 0.0)
    assert same(plain.__getitems__([4, 2, 2]), data.__getitems__([4, 2, 2]))
    assert same(plain[7], data[7])
    # a shift of less than a pixel is none
    assert same(ShiftedImages(data, 0.08, 0.0).__getitems__(range(20)), data.__getitems__(range(20)))


def test_where_all_are_mirrored_each_is_exactly():
    data = ImageDataset(noise(20), torch.arange(20), -1, 1)
    mirrored, labels = ShiftedImages(data, 0.0, 1.0).__getitems__(range(20))
    assert torch.equal(mirrored, data[:][0].flip(3))
    assert labels.tolist() == list(range(20))


def test_an_image_may_be_moved_one_way_and_not_the_other():
    found = drawn(ShiftedImages(labelled(200, height=3, width=10, channels=1), 0.2, 0.0), 0, 2)
    assert {right for _, right, _ in found} == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (2.0, -3.0)])
def test_the_pixels_are_scaled_as_the_images_own(low, high):
    pixels = noise(10)
    scaled = ShiftedImages(ImageDataset(pixels, low=low, high=high), 0.25, 0.5).__getitems__(range(10))
    bytes_ = ShiftedImages(ImageDataset(pixels, low=0, high=255), 0.25, 0.5).__getitems__(range(10))
    torch.testing.assert_close(scaled, low + (high - low) * bytes_ / 255, rtol=0, atol=1e-6)
    assert scaled.dtype == torch.float32


def test_images_without_labels_are_given_alone():
    data = labelled(8)
    shifted, bare = ShiftedImages(data), ShiftedImages(data.without_labels())
    assert torch.equal(bare.__getitems__([1, 5]), shifted.__getitems__([1, 5])[0])
    assert torch.equal(bare[5], shifted[5][0])


def test_the_images_themselves_are_left_alone():
    data = labelled(8)
    before = data.images.clone()
    ShiftedImages(data, 0.25, 0.5).__getitems__(range(8))[0].zero_()
    assert torch.equal(data.images, before)


# --- what is drawn depends on the seed, the epoch and the image's number alone


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_image_is_the_same_in_whatever_batch_it_is_asked_for(epoch):
    data = ShiftedImages(labelled(30), 0.25, 0.5, seed=2)
    data.set_epoch(epoch)
    whole, labels = data.__getitems__(torch.arange(30))
    for indices in ([3], [29, 0, 3, 3], list(range(29, -1, -1)), range(4, 20, 5)):
        wanted = list(indices)
        assert same(data.__getitems__(indices), (whole[wanted], labels[wanted]))
        assert same(data.__getitems__(torch.tensor(wanted)), (whole[wanted], labels[wanted]))
    for i in (0, 17):
        assert same(data[i], (whole[i], labels[i]))
    empty = data.__getitems__([])
    assert empty[0].shape == (0, 3, HEIGHT, WIDTH)
    assert len(empty[1]) == 0


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("batch_size", [4, 7])
def test_batches_by_workers_are_the_same_in_every_epoch(workers, batch_size):
    data = ShiftedImages(labelled(17), 0.25, 0.5, seed=2)
    loader = BatchLoader(ShiftedImages(labelled(17), 0.25, 0.5, seed=2), batch_size, shuffle=True, workers=workers)
    shown = []
    for epoch in range(2):
        data.set_epoch(epoch)
        order = loader.order(epoch)
        batches = list(loader)
        together = [torch.cat(parts) for parts in zip(*batches, strict=True)]
        assert same(together, data.__getitems__(order))
        shown.append(together[0][order.argsort()])
    assert not torch.equal(*shown)


def test_pytorchs_own_loader_gives_the_same_batches():
    data = ShiftedImages(labelled(10), 0.25, 0.5)
    data.set_epoch(1)
    for options in ({"collate_fn": torchdl.whole_batch}, {"num_workers": 1, "collate_fn": torchdl.whole_batch}):
        batches = DataLoader(data, batch_size=4, **options)
        assert same([torch.cat(parts) for parts in zip(*batches, strict=True)], data.__getitems__(range(10)))


def test_every_epoch_is_another_and_can_be_had_again():
    data = ShiftedImages(labelled(300, channels=1), 0.25, 0.5)
    epochs = []
    for epoch in (0, 1, 2, 1):
        data.set_epoch(epoch)
        epochs.append(drawn(data, 2, 3))
    assert epochs[3] == epochs[1]
    for one, other in itertools.combinations(epochs[:3], 2):
        # 70 versions: one image in 70 is the same by chance, within four deviations
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 300 / 70 + 4 * (300 / 70) ** 0.5


@pytest.mark.parametrize(("shift", "flip"), [(0.25, 0.0), (0.0, 0.5)])
def test_the_seed_decides_on_the_shifts_and_on_the_sides(shift, flip):
    def shown(seed: int):
        return ShiftedImages(labelled(50), shift, flip, seed=seed).__getitems__(range(50))[0]

    first = shown(1)
    torch.rand(3)
    assert torch.equal(shown(1), first)
    assert not torch.equal(shown(2), first)
    assert not torch.equal(shown(0), first)


def test_nothing_is_drawn_from_the_global_generator():
    before = torch.get_rng_state()
    ShiftedImages(labelled(5)).__getitems__(range(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_neighbours_are_not_moved_alike():
    found = drawn(ShiftedImages(labelled(400, channels=1), 0.25, 0.5), 2, 3)
    for part in range(3):
        values = np.array([one[part] for one in found], float)
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.2
    table = np.array(found, float)
    assert np.abs(np.corrcoef(table.T) - np.eye(3)).max() < 0.2  # rows, columns and sides among themselves


# --- what a checkpoint compares


def changed(one: tuple[float, float, int], other: tuple[float, float, int]) -> list[str]:
    """Name the settings that are told differently."""
    first, second = (ShiftedImages(labelled(10), *settings).order_settings() for settings in (one, other))
    assert first.keys() == second.keys()
    return [name for name in first if first[name] != second[name]]


@pytest.mark.parametrize("other", [(0.2, 0.5, 0), (0.1, 0.6, 0), (0.1, 0.5, 1), (0.0, 0.5, 0), (0.1, 0.0, 0)])
def test_every_setting_that_changes_the_batches_is_told(other):
    assert len(changed((0.1, 0.5, 0), other)) == 1
    assert changed(other, other) == []


@pytest.mark.parametrize("other", [(0.104, 0.5, 0), (0.1, 0.504, 0), (0.1, 0.501, 0)])
def test_a_small_change_of_a_setting_is_told_too(other):
    assert len(changed((0.1, 0.5, 0), other)) == 1


def test_the_settings_are_among_those_of_the_batches():
    data = ShiftedImages(labelled(10), 0.1, 0.5, 3)
    assert data.order_settings().items() < BatchLoader(data, 4).order_settings().items()


def fit(folder, resume: bool = False, stop_at: int | None = None, **augmented):
    """Train for three epochs of five steps, stopped within one if asked."""
    data = ShiftedImages(ImageDataset(noise(18, 1, 6, 8), torch.arange(18) % 3, -1, 1), **augmented)
    model = fill_(nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)))
    task = Supervised(model, F.cross_entropy, {"accuracy": accuracy})
    seen = []
    losses = task.losses

    def watched(batch):
        seen.append(batch[0].clone())
        if task.step_info.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        yield from losses(batch)

    task.losses = watched
    trainer = Trainer(epochs=3, device="cpu")
    stopped = False
    try:
        trainer.fit(task, BatchLoader(data, 4, shuffle=True), None, folder, resume=resume)
    except Stopped:
        stopped = True
    assert stopped == (stop_at is not None)
    return dict(task.state_dict()), seen


# in the first epoch, at its end, at the start and in the middle of the second
@pytest.mark.parametrize("step", [1, 4, 5, 7])
def test_training_that_was_stopped_sees_the_same_images_as_if_it_never_had_been(tmp_path, step):
    augmented = {"shift": 0.25, "flip": 0.5, "seed": 4}
    weights, seen = fit(tmp_path / "whole", **augmented)
    assert len(seen) == 15
    _, first = fit(tmp_path / "parts", stop_at=step, **augmented)
    assert checkpoint.read(tmp_path / "parts" / CHECKPOINT)["progress"]["step"] == step + 1
    resumed, rest = fit(tmp_path / "parts", resume=True, **augmented)
    assert same([*first, *rest], seen)
    assert same(resumed.values(), weights.values())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shift": 0.3}, "largest shift in % 30.*25"),
        ({"flip": 0.0}, "flips in % 0.*50"),
        ({"seed": 5}, "shifts' seed 5.*4"),
    ],
)
def test_other_shifts_are_an_input_error_on_resuming(tmp_path, change, named):
    augmented = {"shift": 0.25, "flip": 0.5, "seed": 4}
    fit(tmp_path, stop_at=7, **augmented)
    with pytest.raises(InputError, match=named):
        fit(tmp_path, resume=True, **{**augmented, **change})


# --- the rest


@pytest.mark.parametrize("shift", [-0.1, 1.0, 1.5, float("nan")])
def test_a_shift_that_is_no_share_is_refused(shift):
    with pytest.raises(InputError, match=f"shift.*{shift}"):
        ShiftedImages(labelled(2), shift)


@pytest.mark.parametrize("flip", [-0.1, 1.1, float("nan")])
def test_a_flip_that_is_no_probability_is_refused(flip):
    with pytest.raises(InputError, match=f"flip.*{flip}"):
        ShiftedImages(labelled(2), 0.1, flip)


def test_it_is_as_long_as_the_images_and_moves_with_them():
    data = ShiftedImages(labelled(6))
    assert len(data) == 6
    assert len(list(data)) == 6  # a for loop ends
    assert data.device == torch.device("cpu")
    loader = BatchLoader(data, 3, shuffle=True)
    loader.to(torch.device("meta"))
    assert data.device.type == data.images.images.device.type == loader.order(0).device.type == "meta"


def test_it_is_the_courses_augmentation_by_default():
    data = ShiftedImages(labelled(2))
    assert data.augmentation == torchdl.Augmentation(shift=0.1, horizontal_flip=0.5)
    assert (data.seed, data.epoch) == (0, 0)


def test_a_subset_of_images_is_shifted_as_those_images_alone():
    data = ImageDataset(noise(20), torch.arange(20))
    chosen = [7, 2, 2, 19]
    for subset in (Subset(data, chosen), Subset(Subset(data, [19, 7, 2]), [1, 2, 2, 0])):
        images, labels = ShiftedImages(subset, shift=0.3, seed=1)[:]
        alone, same = ShiftedImages(data.subset(torch.tensor(chosen)), shift=0.3, seed=1)[:]
        assert torch.equal(images, alone)
        assert labels.tolist() == same.tolist() == chosen
    with pytest.raises(InputError, match="Subset of one, not a ConcatDataset"):
        ShiftedImages(ConcatDataset([data, ImageDataset(noise(3), torch.arange(3))]))
