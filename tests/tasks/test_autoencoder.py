from __future__ import annotations

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers import fill_
from torch import Tensor, nn

from torchdl import Autoencoder, AutoencoderTask, BatchLoader, ImageDataset, InputError, Trainer
from torchdl.tasks import SCHEDULES, StepInfo
from torchdl.training.evaluation import evaluate

pytestmark = pytest.mark.usefixtures("quick")
CPU = torch.device("cpu")


class Seen(nn.Module):
    """Gives a part of what it is given, and keeps that."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share, self.seen = nn.Parameter(torch.tensor(share)), []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.share * images


def images(count: int, seed: int = 0, side: int = 6) -> ImageDataset:
    """Make smooth pictures, of which there is something to learn: a bright blob each, somewhere."""
    centres = torch.rand(count, 2, 1, 1, generator=torch.Generator().manual_seed(seed)) * side
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    squared = (rows - centres[:, 0]).square() + (columns - centres[:, 1]).square()
    return ImageDataset((255 * torch.exp(-squared / 4)).to(torch.uint8))


def network(seed: int = 0) -> Autoencoder:
    return fill_(Autoencoder((1, 6, 6), width=8, depth=1, code_size=20), seed)


def mse(one: Tensor, other: Tensor) -> np.ndarray:
    return np.array([((x - y) ** 2).mean() for x, y in zip(one.double().numpy(), other.double().numpy(), strict=True)])


def noises(task: AutoencoderTask, count: int, batch: int, seed: int, epoch: int, stream: str) -> Tensor:
    """Collect the noise of black images, one batch after the other."""
    task.model.seen.clear()
    with torch.no_grad():
        for start in range(0, count, batch):
            black = torch.zeros(min(batch, count - start), 1, 6, 6)
            task.step_info = StepInfo(seed, epoch, start, start)
            list(task.losses(black)) if stream == "training" else task.evaluate(black)
    return torch.cat(task.model.seen)


def fit(task: AutoencoderTask, data: ImageDataset, validation=None, folder=None, resume: bool = False, **options):
    loader = BatchLoader(data, options.pop("batch_size", 4), shuffle=True)
    return Trainer(device="cpu", **options).fit(task, loader, validation, folder, resume=resume)


# loss and evaluation


def test_the_loss_is_the_mean_squared_error_over_all_pixels_and_images():
    model, batch = network(), images(5)[:]
    (update,) = AutoencoderTask(model).losses(batch)
    with torch.no_grad():
        expected = mse(model(batch), batch).mean()
    assert update.optimizer == "model"
    assert update.loss.shape == ()
    assert update.loss.item() == pytest.approx(expected, rel=1e-5)


def test_images_that_a_sigmoid_cannot_return_are_warned_of_once():
    for model, low, count in ((network(), -1, 1), (network(), 0, 0), (Seen(), -1, 0)):
        task, batch = AutoencoderTask(model), images(5).scaled_to(low)[:]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                list(task.losses(batch))
        assert ["scale the images to [0, 1]" in str(each.message) for each in caught] == count * [True]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 2.0])
def test_the_loss_of_a_share_of_the_image_has_a_closed_form(share):
    batch = images(3)[:]
    (update,) = AutoencoderTask(Seen(share)).losses(batch)
    assert update.loss.item() == pytest.approx((1 - share) ** 2 * batch.square().mean().item(), rel=1e-5, abs=1e-12)


def test_every_image_has_its_own_error_and_its_signal_to_noise_ratio():
    model, batch = network(), images(7)[:]
    with torch.no_grad():
        found, expected = AutoencoderTask(model).eval().evaluate(batch), mse(model(batch), batch)
    assert {name: value.shape for name, value in found.items()} == {"loss": (7,), "psnr": (7,)}
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(1 / expected), rtol=1e-5)
    assert len(set(found["loss"].tolist())) == 7


def test_a_perfect_reconstruction_has_a_finite_signal_to_noise_ratio():
    with torch.no_grad():
        found = AutoencoderTask(Seen()).evaluate(images(2)[:])
    assert found["loss"].tolist() == [0, 0]
    np.testing.assert_allclose(found["psnr"], [100, 100])


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("batch_size", [1, 4, 11, 50])
def test_evaluation_is_exact_with_a_ragged_last_batch_whatever_the_batch_size(noise, batch_size):
    data, task = images(11), AutoencoderTask(network(), noise)
    found = evaluate(task, BatchLoader(data, batch_size), CPU, nullcontext, StepInfo(seed=3, step=17))
    task.step_info = StepInfo(seed=3)
    with torch.no_grad():
        whole = task.evaluate(data[:])
    expected = {f"val/{name}": pytest.approx(value.double().mean().item(), rel=1e-5) for name, value in whole.items()}
    assert found == expected


# noise


def test_noise_is_added_to_what_the_network_sees_and_not_to_what_it_must_give():
    batch, before = images(4)[:], images(4)[:]
    task = AutoencoderTask(Seen(), noise=0.5)
    (update,) = task.losses(batch)
    (seen,) = task.model.seen
    assert torch.equal(batch, before)
    assert (seen - batch).abs().min() > 0
    assert update.loss.item() == pytest.approx((seen - batch).square().mean().item(), rel=1e-5)
    blind = AutoencoderTask(Seen(0.0), noise=0.5)  # gives black whatever it sees: its loss is that of the clean images
    (update,) = blind.losses(batch)
    assert update.loss.item() == pytest.approx(batch.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("noise", [0.1, 2.0])
@pytest.mark.parametrize("stream", ["training", "evaluation"])
def test_noise_is_normal_with_the_standard_deviation_asked_for(noise, stream):
    drawn = noises(AutoencoderTask(Seen(), noise), 600, 100, seed=1, epoch=2, stream=stream) / noise
    assert abs(drawn.mean()) < 0.03  # 21,600 numbers: 4 standard errors
    assert abs(drawn.std() - 1) < 0.02
    assert abs(drawn.pow(4).mean() - 3) < 0.2
    assert abs(torch.corrcoef(drawn.flatten(1).T).fill_diagonal_(0)).max() < 0.2


def test_no_noise_leaves_the_images_as_they_are():
    batch, task = images(4)[:], AutoencoderTask(Seen())
    list(task.losses(batch))
    task.evaluate(batch)
    assert all(torch.equal(seen, batch) for seen in task.model.seen)


@pytest.mark.parametrize("stream", ["training", "evaluation"])
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_an_examples_noise_is_the_same_whatever_the_batch_size(stream, batch):
    task = AutoencoderTask(Seen(), 1.0)
    whole = noises(task, 13, 13, seed=4, epoch=2, stream=stream)
    torch.rand(9)  # nor do others' draws matter
    assert torch.equal(noises(task, 13, batch, seed=4, epoch=2, stream=stream), whole)
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 13


def test_noise_is_drawn_anew_in_every_epoch_of_training_and_by_every_seed():
    task = AutoencoderTask(Seen(), 1.0)
    drawn = [noises(task, 3, 3, seed, epoch, "training") for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    drawn += [noises(task, 3, 3, seed, 0, "evaluation") for seed in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_noise_is_the_same_in_every_evaluation_and_in_every_preview():
    examples = images(3)[:]
    task = AutoencoderTask(Seen(0.5), 0.4, examples=examples)
    first = noises(task, 3, 3, 0, 0, "evaluation")
    assert torch.equal(noises(task, 3, 3, 0, 5, "evaluation"), first)
    previews = []
    for step_info in (StepInfo(), StepInfo(epoch=3, step=40, start=9)):
        task.step_info = step_info
        with torch.no_grad():
            previews.append(task.preview())
    assert list(previews[0]) == ["noisy images", "reconstructions"]
    assert all(torch.equal(previews[0][name], previews[1][name]) for name in previews[0])
    added = previews[0]["noisy images"] - examples
    assert 0.25 < added.std() < 0.55
    torch.testing.assert_close(previews[0]["reconstructions"], 0.5 * previews[0]["noisy images"])
    assert not torch.equal(added / 0.4, first)  # nor is it what is evaluated


def test_the_preview_is_of_the_examples_and_is_not_saved():
    examples, model = images(3)[:], network()
    task = AutoencoderTask(model, examples=examples)
    with torch.no_grad():
        shown = task.preview()
        assert torch.equal(shown["reconstructions"], model(examples))
    assert list(shown) == ["images", "reconstructions"]
    assert torch.equal(shown["images"], examples)
    assert set(task.state_dict()) == {f"model.{name}" for name in model.state_dict()}
    assert AutoencoderTask(model).preview() == {}


# training


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule", [None, SCHEDULES["constant"], SCHEDULES["one_cycle"]], ids=["none", "constant", "one_cycle"]
)
def test_it_overfits_one_batch(schedule):
    batch = images(4)
    task = AutoencoderTask(network(), lr=2e-2, schedule=schedule)
    history = fit(task, batch, BatchLoader(batch, 4), epochs=150)
    assert history[0]["train/loss"] > 0.02
    assert history[-1]["val/loss"] < 0.1 * history[0]["train/loss"]
    assert history[-1]["val/psnr"] > history[0]["val/psnr"] + 10


@pytest.mark.slow
def test_it_takes_away_noise_from_images_that_it_has_not_seen():
    task = AutoencoderTask(network(), noise=0.3, lr=1e-2)
    fit(task, images(200), epochs=15, batch_size=20)
    fresh = images(100, seed=9)
    found = evaluate(task, BatchLoader(fresh, 50), CPU, nullcontext)["val/loss"]
    assert found < 0.5 * 0.3**2
    assert found < 0.8 * fresh[:].var(0).mean().item()  # and it looks at them: better than the mean image


@pytest.mark.parametrize("cut", [3, 7, 8])  # within an epoch of 7 steps, at its end, after it
def test_a_resumed_run_with_noise_equals_one_that_was_not_stopped(tmp_path, cut):
    data, held_out = images(26), BatchLoader(images(5, seed=1), 2)
    whole, first, second = (AutoencoderTask(network(), noise=0.2) for _ in range(3))
    expected = fit(whole, data, held_out, max_steps=18)
    fit(first, data, held_out, tmp_path, max_steps=cut)
    assert fit(second, data, held_out, tmp_path, resume=True, max_steps=18) == expected
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in whole.state_dict().items())
    other = AutoencoderTask(network(), noise=0.2)
    fit(other, data, seed=1, max_steps=18)
    assert not torch.equal(other.model.encoder[0].weight, whole.model.encoder[0].weight)


def test_accumulating_batches_equals_one_large_batch_with_noise_too():
    one, many = (AutoencoderTask(network(), noise=0.2) for _ in range(2))
    fit(one, images(26), epochs=2, batch_size=8)
    fit(many, images(26), epochs=2, batch_size=4, accumulate=2)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, many.state_dict()[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_noise_that_is_no_standard_deviation_is_refused(noise):
    with pytest.raises(InputError, match=f"noise.*{noise}"):
        AutoencoderTask(network(), noise)


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan")])
def test_a_learning_rate_that_is_not_positive_is_refused(lr):
    with pytest.raises(InputError, match=f"learning rate.*{lr}"):
        fit(AutoencoderTask(network(), lr=lr), images(4))


def test_kernels_alone_shrink_by_the_weight_decay():
    task = AutoencoderTask(Autoencoder((1, 8, 8), width=4, depth=1), optimizer="adamw", weight_decay=0.1)
    groups = task.configure_optimizers()["model"].param_groups
    assert {group["weight_decay"]: {p.dim() > 1 for p in group["params"]} for group in groups} == {
        0.1: {True},
        0.0: {False},
    }


def test_no_purpose_repeats_the_noise_of_another_one():
    task = AutoencoderTask(Seen(), 0.5, examples=torch.zeros(3, 1, 2, 2))
    black = torch.zeros(3, 1, 2, 2)
    list(task.losses(black)), task.evaluate(black), task.preview()
    rows = {tuple(row) for inputs in task.model.seen for row in inputs.flatten(1).tolist()}
    assert len(rows) == 9
