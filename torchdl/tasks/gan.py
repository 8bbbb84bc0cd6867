"""Adversarial training of a generator and a discriminator (Goodfellow et al. 2014).

Shapes: B examples, Z numbers of noise, (C, H, W) the shape of an image.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from torchdl import random
from torchdl.callbacks import Callback, WeightAverage
from torchdl.errors import InputError, require
from torchdl.fast.graphs import compiled
from torchdl.losses import GAN_LOSSES, gradient_penalty
from torchdl.tasks.base import Task, Update, inputs_of
from torchdl.tasks.optimizers import check_optimizer, make_optimizer
from torchdl.tasks.schedules import AnySchedule, build_schedules, check_schedule

AHEAD = 1024  # rows of noise drawn at a time
SATURATED = 0.99  # with a higher probability, the discriminator counts as certain of an image
MAX_SATURATION = 0.95  # the task warns if the discriminator is certain of a larger share of images


class GANTask(Task):
    """Train the discriminator on real and generated images, then the generator against the updated discriminator.

    Batches are images (B, C, H, W) in [-1, 1], or tuples that begin with them. The noise of each example depends only
    on the seed, the epoch and the example's position in the epoch.

    Args:
        gan: A :class:`torchdl.GAN`, or a module with the same attributes: ``generator`` has ``z_dim``
            and maps noise (B, Z) to images (B, C, H, W) or (B, C * H * W); ``discriminator`` has a method ``logits``
            that maps images to (B, 1); ``image_shape`` is (C, H, W).
        loss: A name of :data:`torchdl.losses.GAN_LOSSES`.
        lr: The learning rate of both networks.
        beta1: Adam's first beta, for both.
        beta2: Adam's second beta, for both.
        penalty: The gradient penalty's weight, for ``wgan_gp``.
        generator_every: Number of discriminator steps for each generator step.
        real_examples: Images (N, C, H, W) in [-1, 1], shown beside N generated ones; None for no preview.
        optimizer: A name of :data:`torchdl.tasks.OPTIMIZERS`, for both; only ``adam`` and ``adamw`` use the betas.
        average: The decay of an exponential moving average of the generator's weights and batch norms, such as 0.999
            (Yazici et al. 2019). The averaged generator then makes the samples, and is the one that is saved; 0 for
            no average.
        schedule: Builds each optimizer's schedule from the optimizer, or from it and the number of steps; none by
            default.

    Raises:
        InputError: The loss is unknown or does not suit the discriminator, or a number is outside its range.

    Example:
        >>> task = torchdl.GANTask(torchdl.simple_gan(), average=0.999)
        >>> [update.optimizer for update in task.losses(torch.zeros(8, 1, 28, 28))]
        ['discriminator', 'generator']
        >>> task.generate(3).shape
        torch.Size([3, 784])
        >>> task.trained.generate_samples(3).shape
        torch.Size([3, 1, 28, 28])
    """

    fixed_noise: Tensor
    real_examples: Tensor | None

    def __init__(
        self,
        gan: nn.Module,
        loss: str = "non_saturating",
        lr: float = 3e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        penalty: float = 10.0,
        generator_every: int = 1,
        real_examples: Tensor | None = None,
        optimizer: str = "adam",
        average: float = 0.0,
        schedule: Callable[..., AnySchedule] | None = None,
    ) -> None:
        super().__init__()
        require(loss in GAN_LOSSES, f"unknown GAN loss {loss!r}: choose one of {', '.join(GAN_LOSSES)}")
        require(generator_every >= 1, f"generator_every must be at least 1, not {generator_every}")
        check_optimizer(optimizer, lr, (beta1, beta2))
        require(math.isfinite(penalty) and penalty >= 0, f"penalty must be 0 or more, not {penalty}")
        check_gan(gan)
        self.generator: nn.Module = gan.generator  # type: ignore[assignment]
        self.discriminator: nn.Module = gan.discriminator  # type: ignore[assignment]
        self.given = (gan,)  # in a tuple, since as a module of its own it would be saved twice
        self.average = WeightAverage(self.generator, average, generator_every) if average else None
        self.averaged = None if self.average is None else self.average.averaged  # saved with the task
        check_schedule(schedule)
        self.schedule = schedule
        self.loss, self.optimizer, self.lr, self.penalty = loss, optimizer, lr, penalty
        self.betas = beta1, beta2
        self.generator_every, self.z_dim = generator_every, int(self.generator.z_dim)  # type: ignore[arg-type]
        # batch norm couples the examples of a batch, so real and generated ones then need separate passes
        self.one_pass = not any(isinstance(module, _BatchNorm) for module in self.discriminator.modules())
        require(
            self.one_pass or loss != "wgan_gp",
            "the loss wgan_gp penalises each example's gradient: use a discriminator without batch norm",
        )
        self.first = True  # whether no batch has been seen
        self._cached_noise: tuple[tuple[object, ...], int, Tensor] = (), 0, torch.empty(0)
        examples = 0 if real_examples is None else len(real_examples)
        noise = random.normal(0, 0, torch.arange(examples), self.z_dim, random.Stream.PREVIEW)
        self.register_buffer("fixed_noise", noise, persistent=False)
        self.register_buffer("real_examples", real_examples, persistent=False)

    @property
    def trained(self) -> nn.Module:
        """The GAN to save and use after training, with the averaged generator if there is one."""
        gan = copy.copy(self.given[0])
        gan._modules = {**gan._modules, "generator": self.sampler, "discriminator": self.discriminator}
        return gan

    @property
    def sampler(self) -> nn.Module:
        """The generator that makes the samples: the averaged one if there is one."""
        return self.generator if self.averaged is None else self.averaged.module

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> Tensor:
        """Generate ``n`` images (n, ...) in [-1, 1] as :meth:`torchdl.GAN.generate_samples` with ``seed``.

        Raises:
            InputError: ``n`` is noise, not a number.
        """
        require(
            not isinstance(n, Tensor), "generate(n) draws noise for n images: call task.sampler(noise) to give noise"
        )
        sampler = self.sampler
        was_training = sampler.training
        try:
            index = torch.arange(n, device=self.fixed_noise.device)
            noise = random.normal(seed, 0, index, self.z_dim, random.Stream.SAMPLES)
            return torch.cat([sampler.eval()(part) for part in noise.split(AHEAD)])
        finally:
            sampler.train(was_training)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build two optimizers, named ``discriminator`` and ``generator``."""
        settings: dict[str, Any] = {"betas": self.betas} if self.optimizer in ("adam", "adamw") else {}
        return {
            name: make_optimizer(self.optimizer, module.parameters(), self.lr, **settings)
            for name, module in (("discriminator", self.discriminator), ("generator", self.generator))
        }

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return what averages the generator, if anything does."""
        return () if self.average is None else (self.average,)

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, AnySchedule]:
        """Build the schedule of each of ``optimizers``, if any, for ``steps`` steps in total."""
        return build_schedules(self.schedule, optimizers, steps)

    def noise(self, batch_size: int) -> Tensor:
        """Return the noise (B, Z) of the batch at the current position."""
        seed, epoch, _, start = self.step_info
        stream = random.Stream.TRAINING if self.training else random.Stream.VALIDATION
        device = self.fixed_noise.device
        key = (seed, epoch, stream, device)
        cached_key, first, cached = self._cached_noise
        if cached_key != key or not first <= start <= start + batch_size <= first + len(cached):
            # drawing many rows at once takes a tenth of the time; each row depends on its own position only
            index = torch.arange(start, start + max(batch_size, AHEAD), device=device)
            first, cached = start, random.normal(seed, epoch, index, self.z_dim, stream)
            self._cached_noise = key, first, cached
        return cached[start - first : start - first + batch_size]

    def logits(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of ``real`` and ``fake`` images, (B, 1) each, in one pass if possible."""
        if self.one_pass:
            both = self.discriminator.logits(torch.cat([real, fake]))  # type: ignore[operator]
            real_logits, fake_logits = both.split([len(real), len(fake)])  # (2B, 1) -> (B, 1), (B, 1)
            return real_logits, fake_logits
        return self.discriminator.logits(real), self.discriminator.logits(fake)  # type: ignore[operator]

    def images_of(self, batch: Any) -> Tensor:
        """Return a batch's images (B, C, H, W).

        Raises:
            InputError: The images have another shape than the GAN's.
        """
        images, shape = inputs_of(self, batch), tuple(self.given[0].image_shape)  # type: ignore[arg-type]
        if images.shape[1:].numel() != math.prod(shape):
            given = tuple(images.shape[1:])
            raise InputError(f"the images are {given}, but the GAN makes {shape}: choose one shape")
        return images

    def losses(self, batch: Tensor | tuple[Tensor, ...]) -> Iterator[Update]:
        """Yield the discriminator's update, then the generator's, with the same generated images."""
        real = self.images_of(batch)
        loss = GAN_LOSSES[self.loss]
        fake = self.generator(self.noise(len(real))).view_as(real)  # (B, D) -> (B, C, H, W)
        if self.first:
            self.first = False
            self.compare_ranges(real, fake.detach())
        real_logits, fake_logits = self.logits(real, fake.detach())
        discriminator_loss = loss.discriminator(real_logits, fake_logits)
        if self.loss == "wgan_gp":
            discriminator_loss = discriminator_loss + self.penalty * self.gradient_penalty(real, fake.detach())
        yield Update("discriminator", discriminator_loss, self.scores(real_logits.detach(), fake_logits.detach()))
        if self.step_info.step % self.generator_every == 0:
            yield Update("generator", loss.generator(self.discriminator.logits(fake)))  # type: ignore[operator]

    def compare_ranges(self, real: Tensor, fake: Tensor) -> None:
        """Warn if only ``real`` or only ``fake`` images have negative pixels, because then they differ in scale."""
        (low, high), lowest = real.aminmax(), float(fake.min())
        if low < high and (low < 0) != (lowest < 0):
            found = f"from {float(low):.3g} to {float(high):.3g}, but those of generated ones start at {lowest:.3g}"
            advice = "give both one scale, which is [-1, 1] for torchdl's generators: ImageDataset(..., low=-1)"
            warnings.warn(f"the pixels of real images are {found}: {advice}", stacklevel=3)

    def scores(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """Return the discriminator's mean probabilities, D(x) and D(G(z)), and its accuracies.

        ``real_logits`` and ``fake_logits`` are its logits of real and of generated images, (B, 1) each. An image counts
        as real if the logit is above the middle of both labels. A Wasserstein critic has no labels, and so no
        accuracies.
        """
        scores = {"D(x)": real_logits.sigmoid().mean(), "D(G(z))": fake_logits.sigmoid().mean()}
        if self.loss == "wgan_gp":
            return scores
        middle = 0.5 if self.loss == "least_squares" else 0.0
        right = {"real_accuracy": real_logits > middle, "generated_accuracy": fake_logits <= middle}
        return scores | {name: values.float().mean() for name, values in right.items()}

    def gradient_penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the gradient penalty between ``real`` and ``fake`` images, (B, C, H, W) each."""
        index = self.positions(len(real), real.device)
        mix = random.uniform(self.step_info.seed, self.step_info.epoch, index, 1, random.Stream.MIXING)[:, 0]  # (B,)
        return gradient_penalty(self.discriminator.logits, real, fake, mix)  # type: ignore[arg-type]

    def evaluate(self, batch: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return the discriminator's probabilities on real and generated images, and its saturation, (B,) each."""
        real = self.images_of(batch)
        fake = self.generator(self.noise(len(real))).view_as(real)
        real_logits, fake_logits = self.logits(real, fake)
        on_real, on_fake = real_logits.sigmoid().flatten(), fake_logits.sigmoid().flatten()
        saturation = ((on_real > SATURATED).float() + (on_fake < 1 - SATURATED).float()) / 2
        return {"D(x)": on_real, "D(G(z))": on_fake, "saturation": saturation}

    def warnings(self, measured: Mapping[str, float]) -> list[str]:
        """Return a warning if the discriminator is certain of almost all images."""
        saturation = measured.get("val/saturation", 0.0)
        if saturation <= MAX_SATURATION:
            return []
        return [
            f"the discriminator is certain of {saturation:.0%} of all images, so the generator learns little from "
            "it: weaken it (lower learning rate, spectral norm, fewer discriminator steps per generator step)"
        ]

    def preview(self) -> dict[str, Tensor]:
        """Return images generated from fixed noise, and the real examples, (N, C, H, W) in [0, 1] each."""
        if self.real_examples is None:
            return {}
        fake = self.sampler(self.fixed_noise).view_as(self.real_examples)  # (N, D) -> (N, C, H, W)
        return {"generated": (fake + 1) / 2, "real": (self.real_examples + 1) / 2}

    def compile_modules(self) -> None:
        """Compile the generator and the discriminator's method ``logits``, which training uses."""
        device = self.fixed_noise.device
        self.generator._compiled_call_impl = compiled(self.generator._call_impl, device)
        self.discriminator.logits = compiled(self.discriminator.logits, device)  # type: ignore[assignment, arg-type]


def check_gan(gan: nn.Module) -> None:
    """Raise :class:`InputError` unless a module has all that a :class:`GANTask` uses of a GAN."""
    needed = ("generator", "generator.z_dim", "discriminator", "discriminator.logits", "image_shape")
    values: dict[str, Any] = {"": gan}
    for name in needed:
        owner, _, attribute = name.rpartition(".")
        values[name] = getattr(values[owner], attribute, None)
    missing = ", ".join(name for name, value in values.items() if value is None)
    require(
        not missing,
        f"GANTask needs a GAN, and this {type(gan).__name__} lacks {missing}: build a torchdl.GAN of a generator with "
        "z_dim, the number of its inputs, and a discriminator with a method logits, which maps images to (B, 1)",
    )
