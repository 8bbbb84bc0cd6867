from __future__ import annotations

import copy
import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn

from torchdl import GAN, Discriminator, GANTask, Generator, InputError
from torchdl.latent import invert
from torchdl.losses import GAN_LOSSES
from torchdl.recipes.gan_evaluation import generate
from torchdl.tasks import StepInfo
from torchdl.tasks.schedules import linear

SHAPE = (1, 3, 4)


class NormedDiscriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5), nn.LeakyReLU(0.1), nn.Linear(5, 1))

    def logits(self, x):
        return self.net(x.flatten(1))


def gan(batch_norm: float | None = None, discriminator: nn.Module | None = None) -> GAN:
    generator = fill_(Generator(4, 12, (8,), batch_norm=batch_norm), 1)
    return GAN(generator, discriminator or fill_(Discriminator(12, (7,)), 2), SHAPE)


def make_task(batch_norm: float | None = None, discriminator: nn.Module | None = None, **options) -> GANTask:
    return GANTask(gan(batch_norm, discriminator), **options)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return gaussian(count, *SHAPE, seed=seed).tanh()


def train(task: GANTask, steps: int, size: int = 6) -> list[dict[str, float]]:
    """Do what a trainer does, without one."""
    optimizers, rows = task.configure_optimizers(), []
    for step in range(steps):
        task.step_info, row = StepInfo(3, 0, step, step * size), {}
        for update in task.losses(images(size, seed=step)):
            optimizer = optimizers[update.optimizer]
            update.loss.backward(inputs=optimizer.param_groups[0]["params"])
            optimizer.step()
            optimizer.zero_grad()
            row |= {update.optimizer: update.loss.item(), **{k: v.item() for k, v in update.metrics.items()}}
        for callback in task.configure_callbacks():
            callback.on_step_end(SimpleNamespace(step=step + 1))
        rows.append(row)
    return rows


def naive(task: GANTask, steps: int, size: int = 6) -> list[dict[str, float]]:
    """The update as a textbook has it: two passes, cross-entropy of probabilities' logits, PyTorch's Adam."""
    generator, discriminator = task.generator, task.discriminator
    adam = partial(torch.optim.Adam, lr=task.lr, betas=task.betas, foreach=False)
    d_optimizer, g_optimizer = adam(discriminator.parameters()), adam(generator.parameters())
    entropy, rows = F.binary_cross_entropy_with_logits, []
    one, zero = torch.ones(size, 1), torch.zeros(size, 1)
    for step in range(steps):
        task.step_info = StepInfo(3, 0, step, step * size)
        real, noise = images(size, seed=step), task.noise(size)
        d_real = discriminator.logits(real)
        d_fake = discriminator.logits(generator(noise).detach())
        d_loss = (entropy(d_real, one) + entropy(d_fake, zero)) / 2
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        scored = discriminator.logits(generator(noise))
        g_loss = entropy(scored, one) if task.loss == "non_saturating" else -entropy(scored, zero)
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        measured = {"D(x)": d_real.sigmoid().mean().item(), "D(G(z))": d_fake.sigmoid().mean().item()}
        measured["real_accuracy"] = sum(score > 0 for score in d_real.flatten().tolist()) / size
        measured["generated_accuracy"] = sum(score <= 0 for score in d_fake.flatten().tolist()) / size
        rows.append({"discriminator": d_loss.item(), "generator": g_loss.item(), **measured})
    return rows


@pytest.mark.parametrize("loss", ["non_saturating", "minimax"])
def test_five_updates_are_those_of_a_textbook(loss):
    task = make_task(loss=loss, lr=1e-2, beta1=0.5)
    reference, start = copy.deepcopy(task), copy.deepcopy(task.state_dict())
    rows, wanted = train(task, 5), naive(reference, 5)
    for row, expected in zip(rows, wanted, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    for name, value in task.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(value, start[name], atol=1e-3), name


@pytest.mark.parametrize(("loss", "real", "generated"), [("hinge", 0.75, 0.5), ("least_squares", 0.25, 0.75)])
def test_accuracies_count_from_the_middle_of_both_labels(loss, real, generated):
    scores = make_task(loss=loss).scores(torch.tensor([0.4, 0.2, 0.6, -1.0]), torch.tensor([0.4, -0.2, 0.6, -1.0]))
    assert (scores["real_accuracy"].item(), scores["generated_accuracy"].item()) == (real, generated)
    critic = make_task(loss="wgan_gp").scores(torch.zeros(2, 1), torch.zeros(2, 1))
    assert list(critic) == ["D(x)", "D(G(z))"]


def test_the_discriminator_learns_to_tell_fixed_images_apart():
    rows = train(make_task(lr=1e-2), 60)
    assert rows[-1]["discriminator"] < rows[0]["discriminator"]
    assert rows[-1]["D(x)"] > rows[-1]["D(G(z))"]


def test_one_pass_of_the_discriminator_is_two():
    task = make_task()
    assert task.one_pass
    real, fake = images(5), images(3, seed=1)
    torch.testing.assert_close(task.logits(real, fake)[0], task.discriminator.logits(real))
    torch.testing.assert_close(task.logits(real, fake)[1], task.discriminator.logits(fake))
    assert [x.shape for x in task.logits(real, fake)] == [(5, 1), (3, 1)]


def test_a_discriminator_with_batch_norm_gets_two_passes_which_one_would_not_be():
    discriminator = fill_(NormedDiscriminator(), 2)
    task = make_task(discriminator=discriminator)
    reference, forced = copy.deepcopy(discriminator), copy.deepcopy(task)
    assert not task.one_pass
    real, fake = images(6), images(6, seed=1) * 0.3 + 0.5
    wanted = reference.logits(real), reference.logits(fake)
    got = task.logits(real, fake)
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1], wanted[1])
    assert torch.equal(discriminator.net[1].running_mean, reference.net[1].running_mean)
    forced.one_pass = True
    assert not torch.allclose(forced.logits(real, fake)[0], wanted[0], atol=1e-3)


@pytest.mark.parametrize("size", [1, 4, 7, 60])
def test_noise_is_the_same_whatever_the_batch_size(size):
    task = make_task()
    task.step_info = StepInfo(seed=5, epoch=2)
    whole = task.noise(60).clone()
    for start in range(0, 60, size):
        task.step_info = StepInfo(seed=5, epoch=2, step=start, start=start)
        count = min(size, 60 - start)
        assert torch.equal(task.noise(count), whole[start : start + count])


@pytest.mark.parametrize("start", [0, 1000, 1020, 1024, 5000, 3])
def test_noise_drawn_ahead_is_the_noise_drawn_afresh(start):
    walked, fresh = make_task(), make_task()
    walked.noise(10)  # draws the first thousand rows
    walked.step_info = fresh.step_info = StepInfo(start=start)
    assert torch.equal(walked.noise(16), fresh.noise(16))
    assert torch.equal(walked.noise(2000), fresh.noise(2000))  # more than are drawn ahead


def test_noise_differs_by_epoch_seed_position_and_mode():
    task = make_task()
    task.step_info = StepInfo()
    draws = [task.noise(4)]
    for step_info in (StepInfo(epoch=1), StepInfo(seed=1), StepInfo(start=4)):
        task.step_info = step_info
        draws.append(task.noise(4))
    task.step_info = StepInfo()
    draws.append(task.eval().noise(4))
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert torch.equal(task.train().noise(4), draws[0])
    task.step_info = StepInfo(step=9)  # the number of updates done does not matter: a resumed run may count differently
    assert torch.equal(task.noise(4), draws[0])


def test_no_purpose_repeats_the_noise_of_another_one_of_the_same_seed(monkeypatch):
    """Samples are measured by the seed of the training, whose first epoch must not have used their noise."""

    class Tracing(nn.Module):
        z_dim = 6

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            seen.append(z.detach())
            return z

    seen: list[torch.Tensor] = []
    generator = Tracing()
    task = GANTask(GAN(generator, Discriminator(6, (5,)), (1, 2, 3)), real_examples=torch.zeros(4, 1, 2, 3))
    task.sampler(task.noise(4))  # of the first steps of training
    task.eval().sampler(task.noise(4))  # of an evaluation of the losses
    task.preview()
    task.generate(4)  # of what a monitor measures
    invert(generator, torch.zeros(4, 6), steps=1, restarts=1)
    rows = {tuple(row) for noise in seen[:5] for row in noise.tolist()}
    assert len(rows) == 5 * 4
    gan = task.trained
    assert torch.equal(gan.noise(4), seen[3])  # the final evaluation measures these
    assert torch.equal(generate(gan, 4, 0, torch.device("cpu")).flatten(1), ((seen[3] + 1) / 2).clamp(0, 1))


def test_noise_follows_the_task_to_another_device():
    task = make_task()
    task.noise(4)
    task.to("meta")
    assert task.noise(4).device.type == "meta"


@pytest.mark.parametrize("loss", GAN_LOSSES)
@pytest.mark.parametrize("batch_norm", [None, 0.8])
def test_every_loss_moves_both_networks_and_only_its_own(loss, batch_norm):
    task = make_task(loss=loss, lr=1e-2, batch_norm=batch_norm)
    optimizers = task.configure_optimizers()
    networks = {"discriminator": task.discriminator, "generator": task.generator}
    seen = []
    for update in task.losses(images(6)):
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in networks.items()}
        assert update.loss.shape == ()
        assert update.loss.isfinite()
        update.loss.backward(inputs=list(networks[update.optimizer].parameters()))
        other = "generator" if update.optimizer == "discriminator" else "discriminator"
        assert all(p.grad is None for p in networks[other].parameters())
        assert all(p.grad.abs().max() > 0 for p in networks[update.optimizer].parameters() if p.shape != (1,))
        optimizers[update.optimizer].step()
        optimizers[update.optimizer].zero_grad()
        moved = {
            name: [not torch.equal(p, q) for p, q in zip(net.parameters(), before[name], strict=True)]
            for name, net in networks.items()
        }
        assert not any(moved[other])
        assert all(moved[update.optimizer][:-1])  # the last bias has no gradient under the Wasserstein loss
        seen.append(update.optimizer)
    assert seen == ["discriminator", "generator"]


def test_the_generator_is_updated_against_the_discriminator_just_updated():
    task = make_task()
    task.configure_optimizers()
    updates = task.losses(images(6))
    next(updates)
    with torch.no_grad():
        for parameter in task.discriminator.parameters():
            parameter.mul_(-3.0).add_(0.2)
        expected = F.softplus(-task.discriminator.logits(task.generator(task.noise(6)))).mean()
    torch.testing.assert_close(next(updates).loss.detach(), expected, atol=1e-6, rtol=1e-6)


def test_the_wasserstein_loss_has_its_penalty():
    batch = images(6)
    losses = {}
    for penalty in (0.0, 10.0, 20.0):
        task = make_task(loss="wgan_gp", penalty=penalty)
        losses[penalty] = next(task.losses(batch)).loss.item()
    critic = task.discriminator.logits
    fake = task.generator(task.noise(6)).view_as(batch)
    assert losses[0.0] == pytest.approx((critic(fake).mean() - critic(batch).mean()).item(), abs=1e-6)
    assert losses[10.0] - losses[0.0] > 0.1
    assert losses[20.0] - losses[0.0] == pytest.approx(2 * (losses[10.0] - losses[0.0]), rel=1e-4)


def test_the_penaltys_mixtures_are_their_own_examples_whatever_the_batch_size():
    whole, halves = make_task(loss="wgan_gp"), make_task(loss="wgan_gp")
    batch = images(6)
    expected = next(whole.losses(batch)).loss.item()
    parts = []
    for start in (0, 3):
        halves.step_info = StepInfo(start=start)
        parts.append(next(halves.losses(batch[start : start + 3])).loss.item())
    assert sum(parts) / 2 == pytest.approx(expected, abs=1e-5)


def test_the_penalty_refuses_a_discriminator_with_batch_norm():
    with pytest.raises(InputError, match=r"wgan_gp.*batch norm"):
        make_task(discriminator=NormedDiscriminator(), loss="wgan_gp")


def test_the_generator_is_updated_at_every_so_many_steps():
    task = make_task(generator_every=3)
    rows = train(task, 7)
    assert ["generator" in row for row in rows] == [True, False, False, True, False, False, True]
    assert all("discriminator" in row for row in rows)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"loss": "ours"}, "'ours'"),
        ({"generator_every": 0}, "generator_every.*0"),
        ({"lr": -1.0}, "learning rate.*-1.0"),
        ({"beta1": 1.0}, "betas.*1.0"),
        ({"penalty": -1.0}, "penalty.*-1.0"),
        ({"average": 1.0}, "average.*1.0"),
        ({"average": -0.1}, "average.*-0.1"),
    ],
)
def test_bad_arguments_are_refused(kwargs, named):
    with pytest.raises(InputError, match=named):
        make_task(**kwargs)


def test_a_batch_with_labels_is_its_images():
    batch = images(6)
    for task in (make_task(), make_task(loss="hinge")):
        alone, labelled = next(task.losses(batch)), next(task.losses((batch, torch.arange(6))))
        assert torch.equal(alone.loss, labelled.loss)


def test_evaluation_gives_every_examples_probabilities_on_noise_not_trained_on():
    task = make_task().eval()
    batch = images(6)
    measured = task.evaluate((batch, torch.arange(6)))
    assert {name: value.shape for name, value in measured.items()} == dict.fromkeys(
        ("D(x)", "D(G(z))", "saturation"), (6,)
    )
    torch.testing.assert_close(measured["D(x)"], task.discriminator(batch)[:, 0])
    fake = task.generator(task.noise(6))
    torch.testing.assert_close(measured["D(G(z))"], task.discriminator(fake)[:, 0])


def test_the_preview_is_of_fixed_noise_beside_the_real_ones_and_is_not_saved():
    real = images(5)
    task = make_task(real_examples=real)
    with torch.no_grad():
        first = task.preview()
        task.step_info = StepInfo(epoch=4, start=30)
        again = task.preview()
    assert torch.equal(first["generated"], again["generated"])
    assert first["generated"].shape == (5, *SHAPE)
    assert 0 <= first["generated"].min() <= first["generated"].max() <= 1
    torch.testing.assert_close(first["real"], (real + 1) / 2)
    assert not {"fixed_noise", "real_examples"} & task.state_dict().keys()
    assert make_task().preview() == {}


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_is_that_of_the_generators_weights_after_each_of_its_updates(every):
    task, usual = make_task(average=0.6, generator_every=every), make_task(generator_every=every)
    expected, updates = {name: p.detach().clone() for name, p in task.generator.named_parameters()}, 0
    for steps in (1, 2, 3, 4):
        usual = make_task(generator_every=every)
        train(usual, steps)
        if (steps - 1) % every == 0:
            decay = min(0.6, (1 + updates) / (10 + updates)) if updates else 0.0
            for name, parameter in usual.generator.named_parameters():
                expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
            updates += 1
    train(task, 4)
    for name, parameter in task.sampler.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], atol=1e-6, rtol=1e-5)
    for one, other in zip(task.generator.parameters(), usual.generator.parameters(), strict=True):
        assert torch.equal(one, other)  # it learns as it does without an average


def test_samples_and_previews_are_made_with_the_average():
    task = make_task(average=0.9, real_examples=images(3))
    train(task, 5)
    assert task.sampler is not task.generator
    trained = task.trained
    assert isinstance(trained, GAN)
    assert (trained.generator, trained.discriminator) == (task.sampler, task.discriminator)
    assert torch.equal(task.generate(5, seed=7).view(5, *SHAPE), trained.generate_samples(5, seed=7))
    assert not torch.equal(task.generate(5, seed=7), make_task().generate(5, seed=7))
    shown = (trained(task.fixed_noise).detach() + 1) / 2
    assert torch.equal(task.preview()["generated"], shown)


@pytest.mark.parametrize("batch_norm", [None, 0.8])
def test_generating_leaves_the_mode_and_the_statistics_as_they_were(batch_norm):
    task = make_task(batch_norm=batch_norm).train()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    samples = task.generate(2000, seed=3)
    assert samples.shape == (2000, 12)
    assert task.generator.training
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    torch.testing.assert_close(task.generate(5, seed=3), samples[:5])


def test_the_average_goes_with_the_state():
    task, other = make_task(average=0.9), make_task(average=0.9)
    train(task, 3)
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.generate(4), task.generate(4))
    assert int(other.averaged.n_averaged) == 3


@pytest.mark.parametrize(("share", "warns"), [(0.9, False), (0.96, True), (1.0, True)])
def test_the_task_warns_of_a_discriminator_that_is_certain_of_almost_all_images(share, warns):
    found = make_task().warnings({"val/saturation": share})
    assert bool(found) is warns
    assert all(f"{share:.0%}" in sentence for sentence in found)


def test_saturation_is_the_share_of_images_that_the_discriminator_is_certain_of():
    class Certain(nn.Module):
        """Be certain of the first two real images, and that all generated ones are real."""

        def logits(self, x):
            return torch.tensor([9.0, 9.0, 0.0, -9.0] + [9.0] * (len(x) - 4))[:, None]

    task = make_task(discriminator=Certain()).eval()
    assert task.evaluate(images(4))["saturation"].tolist() == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("batch", "ends", "warns"),
    [
        (images(6).abs(), nn.Tanh, True),
        (images(6).abs(), nn.Sigmoid, False),
        (images(6), nn.Tanh, False),
        (images(6), nn.Sigmoid, True),
        (torch.zeros(6, *SHAPE), nn.Tanh, False),
    ],
)
def test_real_images_of_another_scale_than_the_generated_are_warned_of_once(batch, ends, warns):
    task = make_task()
    task.generator.gen[-1] = ends()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            list(task.losses(batch))
    assert [str(each.message).split(":")[0][:29] for each in caught] == warns * ["the pixels of real images are "[:29]]
    assert all(each.filename == __file__ for each in caught)


def test_a_schedule_is_built_for_each_optimizer_over_all_steps():
    task = make_task(schedule=linear, lr=0.5)
    optimizers = task.configure_optimizers()
    schedules = task.configure_schedules(optimizers, 4)
    assert {name: made.scheduler.optimizer for name, made in schedules.items()} == optimizers
    assert {made.settings for made in schedules.values()} == {"over 4 steps"}
    assert make_task().configure_schedules(optimizers, 4) == {}
