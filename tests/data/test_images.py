from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import torchdl
from torchdl import ImageDataset, InputError, ShiftedImages
from torchdl.data.images import at_equal_distances

EVERY_BYTE = torch.arange(256, dtype=torch.uint8).view(16, 1, 4, 4)
LABELS = torch.arange(16) % 3
RANGES = [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0), (-0.5, 0.5), (-2.0, 3.0), (1.0, 0.0), (0.0, 0.1), (-0.3, 0.7)]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_pixels_are_scaled_linearly_to_float32(low, high):
    batch, labels = ImageDataset(EVERY_BYTE, LABELS, low, high).__getitems__(list(range(16)))
    expected = low + (high - low) * np.arange(256) / 255
    assert batch.shape == (16, 1, 4, 4)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.flatten().numpy(), expected, rtol=0, atol=1e-6 * max(abs(low), abs(high)))
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_black_and_white_are_exactly_low_and_high_so_that_no_pixel_is_outside(low, high):
    batch = ImageDataset(EVERY_BYTE, low=low, high=high).__getitems__(list(range(16))).flatten()
    ends = torch.tensor([low, high])  # float32
    assert batch[[0, -1]].tolist() == ends.tolist()
    assert ends.min() <= batch.min() <= batch.max() <= ends.max()


def test_ends_that_are_numpy_numbers_give_float32_too():
    assert ImageDataset(EVERY_BYTE, low=np.float64(-1), high=np.float64(1))[0].dtype == torch.float32


def test_a_batch_is_its_items_in_the_order_asked_for():
    data = ImageDataset(EVERY_BYTE, LABELS, -1, 1)
    indices = [5, 0, 15, 5]
    for batch, labels in (data.__getitems__(indices), data.__getitems__(torch.tensor(indices))):
        for i, image, label in zip(indices, batch, labels, strict=True):
            assert torch.equal(data[i][0], image)
            assert torch.equal(data[i][1], label)
            assert image.shape == (1, 4, 4)


def test_images_without_a_channel_axis_get_one():
    data = ImageDataset(EVERY_BYTE.squeeze(1))
    assert data.image_shape == (1, 4, 4)
    assert data[3].shape == (1, 4, 4)
    assert len(data) == 16
    assert data.device == torch.device("cpu")


def test_colour_images_keep_theirs():
    data = ImageDataset(torch.zeros(2, 3, 5, 6, dtype=torch.uint8), low=7, high=8)
    assert data.image_shape == (3, 5, 6)
    assert torch.equal(data[1], torch.full((3, 5, 6), 7.0))


def test_the_images_themselves_are_left_alone():
    images = EVERY_BYTE.clone()
    data = ImageDataset(images, low=-1)
    data[0].zero_()
    data.__getitems__([0, 1]).zero_()
    assert torch.equal(images, EVERY_BYTE)
    assert data.images.data_ptr() == images.data_ptr()


def test_an_index_beyond_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        ImageDataset(EVERY_BYTE)[16]
    assert torch.equal(ImageDataset(EVERY_BYTE)[-1], ImageDataset(EVERY_BYTE)[15])
    assert torch.equal(ShiftedImages(ImageDataset(EVERY_BYTE))[-1], ShiftedImages(ImageDataset(EVERY_BYTE))[15])
    assert len(list(ImageDataset(EVERY_BYTE))) == 16  # which is how a for loop ends


def test_a_slice_is_a_batch():
    data = ImageDataset(EVERY_BYTE, LABELS)
    for part in (slice(2, 5), slice(None, None, 7), slice(-2, None), slice(3, 3)):
        batch, labels = data[part]
        indices = list(range(16))[part]
        assert batch.shape == (len(indices), 1, 4, 4)
        assert torch.equal(batch, data.__getitems__(torch.tensor(indices, dtype=torch.int64))[0])
        assert labels.tolist() == LABELS[indices].tolist()


def test_without_labels_are_the_same_images_uncopied_and_alone():
    data = ImageDataset(EVERY_BYTE, LABELS, -1, 1, ("a", "b", "c"), "somewhere", True)
    bare = data.without_labels()
    assert bare.images.data_ptr() == data.images.data_ptr()
    assert torch.equal(bare[3], data[3][0])
    assert isinstance(bare.__getitems__([1, 2]), torch.Tensor)
    assert (bare.classes, bare.origin, bare.fallback) == (("a", "b", "c"), "somewhere", True)
    assert data.labels is not None


def test_the_fingerprint_is_of_the_images_their_shape_and_the_labels():
    def fingerprint(images=EVERY_BYTE, labels=LABELS, **kwargs) -> str:
        return ImageDataset(images, labels, **kwargs).fingerprint()

    changed, relabelled = EVERY_BYTE.clone(), LABELS.clone()
    changed[7, 0, 1, 2] += 1
    relabelled[-1] += 1
    variants = [
        fingerprint(),
        fingerprint(images=changed),
        fingerprint(labels=relabelled),
        fingerprint(labels=None),
        fingerprint(images=EVERY_BYTE.reshape(16, 1, 2, 8)),
        fingerprint(images=EVERY_BYTE.flip(0)),
    ]
    assert len(set(variants)) == len(variants)
    assert fingerprint(images=EVERY_BYTE.clone()) == variants[0]
    assert fingerprint(images=EVERY_BYTE.squeeze(1)) == variants[0]  # the same images
    assert len(bytes.fromhex(variants[0])) == 32


@pytest.mark.parametrize(
    ("images", "labels", "named"),
    [
        (torch.zeros(2, 4, 4), None, "uint8"),
        (torch.zeros(2, 4, dtype=torch.uint8), None, r"\(N, C, H, W\)"),
        (np.zeros((2, 32, 24, 3), np.uint8), None, r"\(N, C, H, W\), not \(2, 32, 24, 3\): .*transpose\(0, 3, 1, 2\)"),
        (torch.zeros(2, 28, 28, 1, dtype=torch.uint8), None, r"\(N, C, H, W\), .*permute\(0, 3, 1, 2\)"),
        (EVERY_BYTE, LABELS[:, None], r"\(N,\), not \(16, 1\): .*flatten\(\)"),
        (EVERY_BYTE, torch.eye(16)[:, :3], r"\(N,\), not \(16, 3\): .*argmax\(1\)"),
        (EVERY_BYTE, LABELS[:-1], f"{len(LABELS) - 1} labels .*{len(EVERY_BYTE)} images"),
    ],
    ids=["float", "flat", "channels last", "a channel last", "column of labels", "one-hot labels", "labels"],
)
def test_what_are_not_labelled_images_is_refused(images, labels, named):
    with pytest.raises(InputError, match=named):
        ImageDataset(images, labels)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("labelled", [True, False])
def test_pytorchs_own_loader_takes_whole_batches(workers, labelled):
    data = ImageDataset(EVERY_BYTE, LABELS if labelled else None, -1, 1)
    batches = list(DataLoader(data, batch_size=6, num_workers=workers, collate_fn=torchdl.whole_batch))
    assert len(batches) == 3
    for batch, indices in zip(batches, torch.arange(16).split(6), strict=True):
        expected = data.__getitems__(indices)
        if labelled:
            assert torch.equal(batch[0], expected[0])
            assert torch.equal(batch[1], expected[1])
        else:
            assert torch.equal(batch, expected)


def test_digits_by_name_are_scaled_as_asked():
    digits = torchdl.load_images("mnist_5k", "test", low=-1, high=1)
    assert (len(digits), digits.image_shape, digits.fallback) == (500, (1, 28, 28), False)
    assert digits.classes == tuple("0123456789")
    batch, labels = digits.__getitems__(list(range(500)))
    assert batch.min() == -1
    assert batch.max() == pytest.approx(1)
    assert labels.dtype == torch.int64


def test_spread_images_come_from_the_whole_of_the_set():
    data = ImageDataset(EVERY_BYTE, LABELS)
    images, labels = data.spread(4)
    assert torch.equal(images, data.__getitems__([0, 5, 10, 15])[0])
    assert torch.equal(labels, LABELS[[0, 5, 10, 15]])


@pytest.mark.parametrize(("total", "count", "expected"), [(5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (1, 1, [0])])
def test_numbers_are_chosen_at_equal_distances(total, count, expected):
    assert at_equal_distances(total, count).tolist() == expected


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_scaling_is_undone_for_a_picture(low, high):
    data = ImageDataset(EVERY_BYTE, low=low, high=high)
    torch.testing.assert_close(data.unscale(data[:]), EVERY_BYTE / 255, atol=1e-5, rtol=0)
