from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from helpers import write_pair
from PIL import Image
from scipy import ndimage, stats
from torch.utils.data import DataLoader

import torchdl
from torchdl import BatchLoader, Digits, InputError, ShiftedImages, load_digits, random
from torchdl.data import digits as module
from torchdl.data.sources import LabelledImages

SUBSETS = ("train", "validation", "test")
NOISE = torch.randint(256, (60, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LABELS = torch.arange(60) * 7 % 10


@pytest.fixture(scope="module")
def embedded():
    return {subset: load_digits(subset, 28, color=False, rescale=False, name="mnist_5k") for subset in SUBSETS}


@pytest.fixture(scope="module")
def photographs():
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images) / 255.0  # (P, H, W, C)


# sizes and ranges


@pytest.mark.parametrize("size", [8, 14, 29, 64])
def test_resizing_is_scipys_linear_zoom_from_corner_to_corner(embedded, size):
    images = embedded["test"].images[::25, 0]
    resized = Digits(images, LABELS[: len(images)], size, color=False, rescale=False)[:][0]
    assert resized.shape == (len(images), 3, size, size)
    # "nearest", for where the zoom's last coordinate is rounded to beyond the last pixel
    expected = np.stack([ndimage.zoom(image / 255.0, size / 28, order=1, mode="nearest") for image in images.numpy()])
    for channel in resized.unbind(1):
        assert abs(channel.numpy() - expected).max() < 0.51 / 255  # rounded to a byte, no more
    assert resized[..., [0, 0, -1, -1], [0, -1, 0, -1]].equal(
        images[:, None, [0, 0, -1, -1], [0, -1, 0, -1]].expand(-1, 3, -1) / 255
    )


def test_images_of_the_right_size_are_left_alone_and_many_are_resized_as_few():
    assert torch.equal(Digits(NOISE, LABELS, 28, color=False).images[:, 0], NOISE)
    many = NOISE.repeat(35, 1, 1)  # 2,100, more than are resized at once
    assert torch.equal(module.resize(many, 20), module.resize(NOISE, 20).repeat(35, 1, 1))


@pytest.mark.parametrize("color", [False, True])
def test_both_ranges_are_the_same_images(color):
    wide, narrow = (Digits(NOISE, LABELS, 20, color, rescale, seed=3)[:][0] for rescale in (True, False))
    assert -1 <= wide.min() < -0.9
    assert 0.9 < wide.max() <= 1
    assert 0 <= narrow.min() < 0.05
    assert 0.95 < narrow.max() <= 1
    torch.testing.assert_close(wide, 2 * narrow - 1, rtol=0, atol=1e-6)


# colours


def coloured(number: int, data: Digits, photographs: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Follow the documented recipe for one image, in [0, 1], with the draws that belong to its number."""
    size, index = data.image_size, torch.tensor([number])
    count, height, width = photographs.shape[:3]
    bounds = torch.tensor([count, height - size + 1, width - size + 1])
    which, top, left = random.integers(bounds, data.seed, data.epoch, index, 3, 0)[0].tolist()
    constants = random.uniform(data.seed, data.epoch, index, 3, 1)[0].tolist()
    digit = ndimage.zoom(image / 255.0, size / 28, order=1)
    result = np.empty((3, size, size))
    for channel in range(3):
        for y in range(size):
            for x in range(size):
                value = (photographs[which, top + y, left + x, channel] + constants[channel]) / 2
                result[channel, y, x] = 1 - value if digit[y, x] >= 0.5 else value
    return result


@pytest.mark.parametrize("size", [28, 41])
@pytest.mark.parametrize("epoch", [0, 5])
def test_colour_images_are_those_of_a_slow_reference(photographs, embedded, size, epoch):
    images = embedded["test"].images[::60, 0]
    data = Digits(images, LABELS[: len(images)], size, rescale=False, seed=11)
    data.set_epoch(epoch)
    for number, image in enumerate(data[:][0]):
        expected = coloured(number, data, photographs, images[number].numpy())
        np.testing.assert_allclose(image.numpy(), expected, rtol=0, atol=1e-6)


def test_crops_come_from_everywhere_in_every_picture_and_constants_are_uniform(tmp_path):
    # a picture whose pixels say where they are, in black but for red (x) and green (y)
    side = 12
    picture = np.zeros((side, side, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(side)[None], np.arange(side)[:, None]
    Image.fromarray(picture).save(tmp_path / "where.png")
    black = torch.zeros(4000, 8, 8, dtype=torch.uint8)
    data = Digits(black, torch.zeros(4000).long(), 8, rescale=False, background=tmp_path / "where.png")
    images = data[:][0]
    constants = images[:, :, 0, 0] * 2  # in blue exactly; within 4/255 in the others
    assert stats.kstest(constants[:, 2].numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(constants.T.numpy()) - np.eye(3)).max() < 5 / np.sqrt(4000)
    corners = random.integers(torch.tensor([1, 5, 5]), data.seed, 0, torch.arange(4000), 3, 0)
    expected = random.uniform(data.seed, 0, torch.arange(4000), 3, 1)[:, :2] + corners[:, [2, 1]] / 255
    torch.testing.assert_close(constants[:, :2], expected, rtol=0, atol=1e-5)
    assert stats.chisquare(torch.bincount(corners[:, 1] * 5 + corners[:, 2], minlength=25).numpy()).pvalue > 1e-3


def test_an_item_is_the_same_in_any_batch_order_and_worker():
    data = Digits(NOISE, LABELS, 16, seed=1)
    whole, labels = data[:]
    assert torch.equal(labels, LABELS)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(data.__getitems__(order)[0], whole[order])
    assert torch.equal(data[17][0], whole[17])
    assert torch.equal(data.__getitems__([4, 4])[0], whole[[4, 4]])
    for workers in (0, 2):
        loader = BatchLoader(data, 7, shuffle=True, seed=2, workers=workers)
        parts = [images for (images, _), _ in loader.batches(0)]
        assert torch.equal(torch.cat(parts), whole[loader.order(0)])
    plain = DataLoader(data, batch_size=25, collate_fn=torchdl.whole_batch)
    assert torch.equal(torch.cat([images for images, _ in plain]), whole)


def test_colours_differ_between_epochs_seeds_and_images_and_shapes_do_not(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")  # on black, exactly the inverted pixels are above 0

    def images(seed: int, epoch: int) -> torch.Tensor:
        data = Digits(NOISE, LABELS, 28, seed=seed, background=tmp_path / "black.png")
        data.set_epoch(epoch)
        return data[:][0]

    variants = [images(0, 0), images(0, 1), images(1, 0)]
    for variant in variants:
        assert torch.equal(variant > 0, (NOISE >= 128)[:, None].expand(-1, 3, -1, -1))
    colours = torch.stack(variants).abs()[..., 0, 0].flatten(0, 1)  # (3 * 60, C)
    assert len(colours.unique(dim=0)) == 180
    assert torch.equal(images(0, 1), variants[1])


def test_epochs_reach_the_workers():
    data = Digits(NOISE, LABELS, 8)
    for epoch in (0, 3):
        through = torch.cat([images for (images, _), _ in BatchLoader(data, 30, workers=2).batches(epoch)])
        assert torch.equal(through, data[:][0])
        assert data.epoch == epoch


def test_grey_images_do_not_depend_on_seed_or_epoch():
    data = Digits(NOISE, LABELS, 28, color=False, rescale=False)
    first = data[:][0]
    assert torch.equal(first, (NOISE / 255)[:, None].expand(-1, 3, -1, -1))
    data.set_epoch(4)
    assert torch.equal(data[:][0], first)
    assert not torch.equal(Digits(NOISE, LABELS, 28, rescale=False)[:][0], first)


def test_the_fingerprint_is_of_the_images_and_of_the_background(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    prints = [
        Digits(NOISE, LABELS, 28).fingerprint(),
        Digits(NOISE, LABELS, 28, color=False).fingerprint(),
        Digits(NOISE, LABELS, 28, background=tmp_path / "red.png").fingerprint(),
        Digits(NOISE, LABELS, 20).fingerprint(),
        Digits(NOISE.flip(0), LABELS, 28).fingerprint(),
    ]
    assert len(set(prints)) == 5
    assert Digits(NOISE.clone(), LABELS, 28).fingerprint() == prints[0]


def test_a_background_of_ones_own_is_what_is_cropped(tmp_path):
    picture = torch.randint(256, (31, 45, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8).numpy()
    Image.fromarray(picture).save(tmp_path / "own.png")
    for path in (tmp_path / "own.png", str(tmp_path / "own.png")):
        data = Digits(NOISE[:5], LABELS[:5], 28, rescale=False, background=path)
        for number, image in enumerate(data[:][0]):
            expected = coloured(number, data, picture[None] / 255.0, NOISE[number].numpy())
            np.testing.assert_allclose(image.numpy(), expected, rtol=0, atol=1e-6)
    exact = Digits(NOISE[:5, :31, :31], LABELS[:5], 31, background=tmp_path / "own.png")  # one row of places
    assert exact[:][0].shape == (5, 3, 31, 31)


def test_backgrounds_have_names():
    china, flower, both, default = (
        Digits(NOISE[:5], LABELS[:5], 28, background=name) for name in ("china", "flower", "both", None)
    )
    assert torch.equal(both.photographs, default.photographs)
    assert torch.equal(both.photographs, torch.cat([china.photographs, flower.photographs]))
    assert not torch.equal(china.photographs, flower.photographs)


def small(folder):
    Image.new("RGB", (27, 200)).save(folder / "picture.png")


def text(folder):
    (folder / "picture.png").write_text("no picture")


def cut_off(folder):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "picture.png")
    (folder / "picture.png").write_bytes((folder / "picture.png").read_bytes()[:3000])


@pytest.mark.parametrize(
    ("prepare", "named"),
    [
        (small, "27 x 200 .*28 x 28"),
        (text, "picture.png"),
        (cut_off, "picture.png"),
        (lambda folder: None, "picture.png"),
        (lambda folder: (folder / "picture.png").mkdir(), "picture.png"),
    ],
    ids=["small", "text", "cut off", "missing", "folder"],
)
def test_a_background_that_cannot_be_used_is_one_sentence(tmp_path, prepare, named):
    prepare(tmp_path)
    with pytest.raises(InputError, match=named) as caught:
        Digits(NOISE, LABELS, 28, background=tmp_path / "picture.png")
    assert str(tmp_path / "picture.png") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(Digits(NOISE, LABELS, 28, color=False, background=tmp_path / "picture.png")) == 60  # grey needs none


@pytest.mark.parametrize(
    ("images", "size", "named"), [(NOISE, 7, "image_size.*7"), (NOISE[:, None], 28, r"\(N, H, W\)")]
)
def test_what_are_no_digits_is_refused(images, size, named):
    with pytest.raises(InputError, match=named):
        Digits(images, LABELS, size)


# lookups


def test_images_looked_up_by_label_are_of_those_labels_and_uniform_among_them(embedded):
    data = Digits(NOISE, LABELS, 28, color=False, rescale=False)
    labels = torch.arange(6000) % 10
    images = (data.get_batch_by_labels(labels)[:, 0] * 255).round().to(torch.uint8)
    numbers = {image.numpy().tobytes(): number for number, image in enumerate(NOISE)}
    found = torch.tensor([numbers[image.numpy().tobytes()] for image in images])
    assert torch.equal(LABELS[found], labels)
    assert stats.chisquare(torch.bincount(found, minlength=60).numpy()).pvalue > 1e-3


def test_lookups_depend_on_the_numbers_of_draws_and_the_epoch():
    data = Digits(NOISE, LABELS, 8, seed=4)
    labels = [3, 3, 3, 9, 0, 0]
    whole = data.get_batch_by_labels(labels)
    assert whole.shape == (6, 3, 8, 8)
    assert torch.equal(data.get_batch_by_labels(torch.tensor(labels)), whole)
    assert torch.equal(
        torch.cat([data.get_batch_by_labels(labels[:2]), data.get_batch_by_labels(labels[2:], 2)]), whole
    )
    assert not torch.equal(data.get_batch_by_labels(labels, start=6), whole)
    data.set_epoch(1)
    assert not torch.equal(data.get_batch_by_labels(labels), whole)
    assert data.get_batch_by_labels([]).shape == (0, 3, 8, 8)


def test_looked_up_images_are_on_backgrounds_that_do_not_tell_which_they_are():
    # of two pictures one is black, one white, so that the sign says which; of two digits the second is all inverted
    images = torch.stack([torch.zeros(8, 8), torch.full((8, 8), 255)]).to(torch.uint8)
    data = Digits(images.repeat_interleave(torch.tensor([1, 3]), 0), torch.tensor([0, 0, 0, 0]), 8)
    data.photographs = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    data.corners = torch.tensor([2, 1, 1])
    index = torch.arange(2000)
    second = data.look_up(torch.zeros(2000, 1).long(), index)[:, 0] > 0
    white = (data.get_batch_by_labels([0] * 2000)[:, 0, 0, 0] >= 0) != second
    table = np.zeros((2, 2), int)
    np.add.at(table, (second.numpy().astype(int), white.numpy().astype(int)), 1)
    assert table.sum(0).min() > 900
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("labels", [[10], [-1], [0, 3, 11], [5]])
def test_a_label_without_images_is_refused(labels):
    keep = LABELS != 5
    data = Digits(NOISE[keep], LABELS[keep], 8, color=False)
    assert len(data.get_batch_by_labels([0, 4, 6, 9])) == 4
    with pytest.raises(InputError, match="label"):
        data.get_batch_by_labels(labels)


# subsets


def test_the_embedded_digits_are_parted_five_to_one_with_all_digits_in_every_part(embedded):
    assert {subset: len(data) for subset, data in embedded.items()} == {"train": 3750, "validation": 750, "test": 500}
    for subset, each in (("train", 375), ("validation", 75), ("test", 50)):
        assert embedded[subset].labels.bincount().tolist() == [each] * 10
        assert embedded[subset].counts.tolist() == [each] * 10


def test_a_subset_of_ones_own_is_looked_up_by_its_labels(embedded):
    digits = embedded["validation"]
    sevens = digits.subset((digits.labels == 7).nonzero()[:2, 0])
    assert sevens.counts.tolist() == [0] * 7 + [2, 0, 0]
    found = sevens.get_batch_by_labels([7] * 9)
    assert all(any(torch.equal(image, seven) for seven in sevens[:2][0]) for image in found)
    with pytest.raises(InputError, match="label"):
        sevens.get_batch_by_labels([1])
    with pytest.raises(InputError, match="labels"):
        digits.without_labels().subset(torch.tensor([0]))


def test_digits_are_not_shifted_for_they_make_their_own_images(embedded):
    with pytest.raises(InputError, match="Digits"):
        ShiftedImages(embedded["validation"])


def test_no_image_is_in_two_subsets_and_none_is_lost_or_relabelled(embedded):
    of = {
        subset: {(image.numpy().tobytes(), int(label)) for image, label in zip(data.images, data.labels, strict=True)}
        for subset, data in embedded.items()
    }
    assert not of["train"] & of["validation"]
    assert not (of["train"] | of["validation"]) & of["test"]
    source = torchdl.load_images("mnist_5k")
    whole = {(image.numpy().tobytes(), int(label)) for image, label in zip(source.images, source.labels, strict=True)}
    assert of["train"] | of["validation"] == whole


def test_the_subsets_of_one_seed_have_their_own_draws():
    seeds = [load_digits(s, 28, color=False, seed=seed, name="mnist_5k").seed for s in SUBSETS[1:] for seed in (0, 1)]
    assert len(set(seeds)) == 4


def test_unsorted_digits_are_cut_in_their_own_order(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    raw = tmp_path / "MNIST" / "raw"
    write_pair(raw, NOISE.numpy(), LABELS.numpy())
    write_pair(raw, NOISE[:12].flip(0).numpy(), LABELS[:12].flip(0).numpy(), "test")
    expected = {"train": NOISE[:50], "validation": NOISE[50:], "test": NOISE[:12].flip(0)}
    for subset, images in expected.items():
        data = load_digits(subset, 28, color=False, root=tmp_path, fetch=False)
        assert torch.equal(data.images[:, 0], images)
        assert str(raw) in data.origin
        assert not data.fallback


def test_sorted_digits_of_uneven_counts_are_dealt_out():
    labels = torch.tensor([0] * 6 + [1] * 30 + [4] * 12)
    images = torch.arange(48, dtype=torch.uint8).view(48, 1, 1).expand(-1, 8, 8)
    parts = {s: module.split(LabelledImages(images, labels, tuple("01234"), "here"), s) for s in SUBSETS}
    assert [len(parts[s][1]) for s in SUBSETS] == [40, 8, 48]
    numbers = torch.cat([parts[s][0][:, 0, 0] for s in ("train", "validation")]).long()
    assert sorted(numbers.tolist()) == list(range(48))
    assert torch.equal(labels[numbers], torch.cat([parts[s][1] for s in ("train", "validation")]))
    assert set(parts["train"][1].tolist()) == {0, 1, 4}


def test_an_unknown_subset_is_refused():
    with pytest.raises(InputError, match=r"'val'.*train, validation, test"):
        load_digits("val", name="mnist_5k")


def test_valid_is_another_name_of_validation(embedded):
    data = load_digits("valid", 28, color=False, name="mnist_5k")
    assert data.fingerprint() == load_digits("validation", 28, color=False, name="mnist_5k").fingerprint()
    assert data.seed == load_digits("validation", 28, color=False, name="mnist_5k").seed


@pytest.mark.skipif(not os.environ.get("TORCHDL_DATA"), reason="set TORCHDL_DATA to a folder with MNIST to check it")
def test_the_real_digits_are_cut_at_50000():
    whole = torchdl.load_images("mnist", fetch=False)
    if whole.fallback:
        pytest.skip("$TORCHDL_DATA holds no mnist")
    parts = {subset: load_digits(subset, 28, color=False, fetch=False) for subset in SUBSETS}
    sizes = {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert {subset: len(data) for subset, data in parts.items()} == sizes
    assert torch.equal(torch.cat([parts["train"].images, parts["validation"].images]), whole.images)
    assert torch.equal(torch.cat([parts["train"].labels, parts["validation"].labels]), whole.labels)
    assert torch.equal(parts["test"].images, torchdl.load_images("mnist", "test", fetch=False).images)
