from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian

import torchdl
from torchdl import AirbenchLike, InputError
from torchdl.models.airbench import convolution


@pytest.mark.parametrize("in_shape", [(3, 32, 32), (1, 28, 28), (2, 17, 21)])
def test_images_become_logits_and_every_parameter_but_the_patches_learns(in_shape):
    model = AirbenchLike(in_shape, 7, (4, 6, 8))
    logits = model(gaussian(3, *in_shape))
    assert logits.shape == (3, 7)
    F.cross_entropy(logits, torch.arange(3)).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name != "patches.weight"), name


def test_it_has_as_many_parameters_as_its_layers():
    numbers = 3 * 2 * 2
    convolutions = 9 * (2 * numbers * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256)
    norms = 2 * 2 * (64 + 128 + 256)
    patches = 2 * numbers * (numbers + 1)
    found = sum(p.numel() for p in AirbenchLike().parameters())
    assert found == patches + convolutions + norms + 256 * 10 == 1_161_272


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_and_of_variance_one_and_the_other_half_is_negated(channels):
    mixing = gaussian(channels, channels, seed=1)
    smooth = F.avg_pool2d(gaussian(40, channels, 21, 21, seed=2), 3, 1)  # neighbours are alike
    images = torch.einsum("dc,nchw->ndhw", mixing, smooth)
    model = AirbenchLike((channels, 19, 19)).whiten_(images, eps=0.0)
    with torch.no_grad():
        found = F.conv2d(images, model.patches.weight)
    rows = found.permute(1, 0, 2, 3).flatten(1)  # (2 P, N)
    half = 4 * channels
    torch.testing.assert_close(torch.cov(rows[:half]), torch.eye(half), atol=2e-3, rtol=0)
    torch.testing.assert_close(rows[half:], -rows[:half])


def test_directions_in_which_patches_hardly_differ_are_not_blown_up():
    flat = gaussian(30, 1, 1, 1).expand(30, 1, 17, 17) + 1e-4 * gaussian(30, 1, 17, 17, seed=1)
    model = AirbenchLike((1, 17, 17)).whiten_(flat)
    assert model.patches.weight.abs().max() < 1 / 5e-4**0.5 + 1


def test_a_convolution_passes_its_input_on_at_first():
    layer, x = convolution(3, 5), gaussian(2, 3, 6, 6)
    torch.testing.assert_close(layer(x)[:, :3], x)
    narrow = convolution(5, 3)
    torch.testing.assert_close(narrow(gaussian(2, 5, 6, 6)), gaussian(2, 5, 6, 6)[:, :3])


def test_evaluation_is_deterministic_and_a_saved_network_is_the_same(tmp_path):
    images = gaussian(4, 3, 32, 32)
    model = AirbenchLike(widths=(4, 6, 8)).whiten_(images)
    model(images)  # moves the batch norms' statistics
    torchdl.save(model.eval(), tmp_path)
    loaded = torchdl.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert torch.equal(loaded.patches.weight, model.patches.weight)
    assert not loaded.patches.weight.requires_grad


@pytest.mark.slow
def test_it_learns_a_batch_by_heart():
    torch.manual_seed(0)
    images, labels = gaussian(20, 3, 18, 18), torch.arange(20) % 10
    model = AirbenchLike((3, 18, 18), widths=(8, 16, 32)).whiten_(images)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (((3, 16, 40),), "17.*16x40"),
        (((3, 32, 32), 10, (4, 5)), "widths"),
        (((3, 32, 32), 10, (4, 5, 0)), "widths"),
        (((3, 32, 32), 1), "num_classes.*1"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        AirbenchLike(*arguments)


@pytest.mark.slow
def test_the_script_whitens_trains_and_reports(run, tmp_path):
    done = run(
        "train_cnn.py --model airbench --dataset mnist_5k --max-steps 2 --name x --out kept --threads 1", tmp_path
    )
    assert done.code == 0, done.err
    model = torchdl.load(tmp_path / "kept" / "cnn" / "x")
    half = len(model.patches.weight) // 2
    assert torch.equal(model.patches.weight[:half], -model.patches.weight[half:])
