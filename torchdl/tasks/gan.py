"""Adversarial training of a generator and a discriminator (Goodfellow et al. 2014).

Shapes: B examples, Z numbers of noise, (C, H, W) of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from torchdl import random
from torchdl.errors import require
from torchdl.losses import GAN_LOSSES, gradient_penalty
from torchdl.tasks.backprop import GANBackprop
from torchdl.tasks.base import Task, Update
from torchdl.tasks.optimizers import check_optimizer, make_optimizer
from torchdl.tasks.schedules import Schedule, build_schedules

TRAINING, HELD_OUT, MIXING, PREVIEW = range(4)  # streams: draws that must not be the same
AHEAD = 1024  # rows of noise drawn at a time
SURE = 0.99  # a probability from which on the discriminator is sure of an image
ALARMING = 0.95  # a share of images that it is sure of


class Inspector(Protocol):
    """What looks at generated images during training, and says what is wrong with them."""

    count: int
    """How many images it wants to see."""

    def measure(self, images: Tensor) -> Mapping[str, float]:
        """Measure images (count, C, H, W) in [-1, 1]."""
        ...

    def alarms(self, measured: Mapping[str, float]) -> list[str]:
        """Give a sentence for everything that is wrong, by what was measured."""
        ...


class GANTask(Task):
    """Train the discriminator on real and generated images, then the generator against the discriminator just updated.

    Batches are images (B, C, H, W) in [-1, 1], or tuples that begin with them. The noise of every example is a pure
    function of the seed, the epoch and the example's position in it.

    Args:
        generator: Noise (B, Z) to images, of any shape with as many numbers; it says its Z as ``z_dim``.
        discriminator: Has a method ``logits`` from images to (B, 1).
        loss: A name of :data:`torchdl.losses.GAN_LOSSES`.
        lr: The learning rate, for both.
        beta1: Adam's first beta, for both.
        beta2: Adam's second beta, for both.
        penalty: The gradient penalty's weight, for ``wgan_gp``.
        generator_every: Update the generator at every so many steps of the discriminator.
        real_examples: (N, C, H, W) in [-1, 1], shown beside as many generated ones; None for no preview.
        optimizer: A name of :data:`torchdl.tasks.OPTIMIZERS`, for both; the betas are for ``adam`` and ``adamw``.
        average: The decay of an exponential moving average of the generator's weights and batch norms, such as 0.999,
            which then is what samples are made with (Yazici et al. 2019); 0 for none.
        inspector: Measures generated images at every evaluation.
        schedule: Builds the schedule of each optimizer, from it and the number of steps; none by default.

    Example:
        >>> model = torchdl.simple_gan()
        >>> task = torchdl.GANTask(model.generator, model.discriminator, average=0.999)
        >>> [update.optimizer for update in task.losses(torch.zeros(8, 1, 28, 28))]
        ['discriminator', 'generator']
        >>> task.generate(3).shape
        torch.Size([3, 784])
    """

    fixed_noise: Tensor
    real_examples: Tensor | None

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: str = "non_saturating",
        lr: float = 3e-4,
        beta1: float = 0.9,
        beta2: float = 0.999,
        penalty: float = 10.0,
        generator_every: int = 1,
        real_examples: Tensor | None = None,
        optimizer: str = "adam",
        average: float = 0.0,
        inspector: Inspector | None = None,
        schedule: Callable[[Optimizer, int], Schedule | None] | None = None,
    ) -> None:
        super().__init__()
        require(loss in GAN_LOSSES, f"unknown GAN loss {loss!r}: choose one of {', '.join(GAN_LOSSES)}")
        require(generator_every >= 1, f"generator_every must be at least 1, not {generator_every}")
        check_optimizer(optimizer, lr, (beta1, beta2))
        require(math.isfinite(penalty) and penalty >= 0, f"penalty must be 0 or more, not {penalty}")
        require(0 <= average < 1, f"average must be in [0, 1), not {average}")
        self.generator, self.discriminator = generator, discriminator
        self.averaged = None
        if average:
            self.averaged = AveragedModel(generator, multi_avg_fn=partial(average_, average), use_buffers=True)
        self.inspector, self.schedule = inspector, schedule
        self.loss, self.optimizer, self.lr, self.penalty = loss, optimizer, lr, penalty
        self.betas = beta1, beta2
        self.generator_every, self.z_dim = generator_every, int(generator.z_dim)  # type: ignore[arg-type]
        self.written_out: GANBackprop | None = None
        self.compiled = False
        # batch norm couples the examples of a batch, so real and generated ones then need a pass each
        self.one_pass = not any(isinstance(module, _BatchNorm) for module in discriminator.modules())
        require(
            self.one_pass or loss != "wgan_gp",
            "wgan_gp penalises every example's own gradient: use a discriminator without batch norm",
        )
        self._ahead: tuple[tuple[Any, ...], int, Tensor] = (), 0, torch.empty(0)
        examples = 0 if real_examples is None else len(real_examples)
        noise = random.normal(0, 0, torch.arange(examples), self.z_dim, PREVIEW)
        self.register_buffer("fixed_noise", noise, persistent=False)
        self.register_buffer("real_examples", real_examples, persistent=False)

    @property
    def sampler(self) -> nn.Module:
        """The generator that samples are made with: the averaged one where there is one."""
        return self.generator if self.averaged is None else self.averaged.module

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> Tensor:
        """Generate ``n`` images (n, ...) in [-1, 1], as :meth:`torchdl.GAN.generate_samples` does."""
        sampler = self.sampler
        was_training = sampler.training
        try:
            noise = random.normal(seed, 0, torch.arange(n, device=self.fixed_noise.device), self.z_dim)
            return torch.cat([sampler.eval()(part) for part in noise.split(AHEAD)])
        finally:
            sampler.train(was_training)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build two optimizers, ``discriminator`` and ``generator``."""
        self.written_out = self._write_out()
        settings: dict[str, Any] = {"betas": self.betas} if self.optimizer in ("adam", "adamw") else {}
        return {
            name: make_optimizer(self.optimizer, module.parameters(), self.lr, **settings)
            for name, module in (("discriminator", self.discriminator), ("generator", self.generator))
        }

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, Schedule]:
        """Build a schedule for each optimizer, if there is one."""
        return build_schedules(self.schedule, optimizers, steps)

    def _write_out(self) -> GANBackprop | None:
        """Take the backpropagation that is written out where these networks are its kind and it does what they do."""
        generator, discriminator = (getattr(module, "stack", None) for module in (self.generator, self.discriminator))
        if generator is None or discriminator is None or self.compiled:
            return None
        if not GANBackprop.supports(generator, discriminator, self.loss):
            return None
        written_out = GANBackprop(generator, discriminator, self.loss)
        with torch.no_grad():
            probe = self.generator(torch.ones(1, self.z_dim))
            logit = self.discriminator.logits(probe)  # type: ignore[operator]
            same = torch.equal(written_out.generator.forward(torch.ones(1, self.z_dim))[0], probe) and torch.equal(
                written_out.discriminator.forward(probe.flatten(1))[0], logit
            )
        return written_out if same else None

    def noise(self, batch_size: int) -> Tensor:
        """Draw the noise (B, Z) of the batch at the clock's position."""
        seed, epoch, _, start = self.clock
        stream, device = TRAINING if self.training else HELD_OUT, self.fixed_noise.device
        draw = (seed, epoch, stream, device)
        kept, first, ahead = self._ahead
        if kept != draw or not first <= start <= start + batch_size <= first + len(ahead):
            # many rows at once cost a tenth of as many draws; each row depends on its own position alone
            index = torch.arange(start, start + max(batch_size, AHEAD), device=device)
            first, ahead = start, random.normal(seed, epoch, index, self.z_dim, stream)
            self._ahead = draw, first, ahead
        return ahead[start - first : start - first + batch_size]

    def logits(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Score real and generated images, (B, 1) each, in one pass of the discriminator where that is the same."""
        if self.one_pass:
            both = self.discriminator.logits(torch.cat([real, fake]))  # type: ignore[operator]
            return both[: len(real)], both[len(real) :]  # (2B, 1) -> (B, 1), (B, 1)
        return self.discriminator.logits(real), self.discriminator.logits(fake)  # type: ignore[operator]

    def losses(self, batch: Tensor | tuple[Tensor, ...]) -> Iterator[Update]:
        """Yield the discriminator's update, then the generator's, which reuses the generated images."""
        yield from self._updates(batch)
        if self.averaged is not None and self.clock.step % self.generator_every == 0:
            self.averaged.update_parameters(self.generator)

    def _updates(self, batch: Tensor | tuple[Tensor, ...]) -> Iterator[Update]:
        real = batch if isinstance(batch, Tensor) else batch[0]
        if self.written_out is not None and not torch.is_autocast_enabled("cpu"):
            update, fake, tape = self.written_out.discriminator_update(real.flatten(1), self.noise(len(real)))
            yield update
            if self.clock.step % self.generator_every == 0:
                yield self.written_out.generator_update(fake, tape)
            return
        loss = GAN_LOSSES[self.loss]
        fake = self.generator(self.noise(len(real))).view_as(real)  # (B, D) -> (B, C, H, W)
        real_logits, fake_logits = self.logits(real, fake.detach())
        discriminator_loss = loss.discriminator(real_logits, fake_logits)
        if self.loss == "wgan_gp":
            index = self.positions(len(real), real.device)
            mix = random.uniform(self.clock.seed, self.clock.epoch, index, 1, MIXING)[:, 0]  # (B,)
            gap = gradient_penalty(self.discriminator.logits, real, fake.detach(), mix)  # type: ignore[arg-type]
            discriminator_loss = discriminator_loss + self.penalty * gap
        scores = {"D(x)": real_logits, "D(G(z))": fake_logits}
        measured = {name: score.detach().sigmoid().mean() for name, score in scores.items()}
        yield Update("discriminator", discriminator_loss, measured)
        if self.clock.step % self.generator_every == 0:
            yield Update("generator", loss.generator(self.discriminator.logits(fake)))  # type: ignore[operator]

    def evaluate(self, batch: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Give the discriminator's probabilities on held-out images and on generated ones, and if it is sure, (B,)."""
        real = batch if isinstance(batch, Tensor) else batch[0]
        fake = self.generator(self.noise(len(real))).view_as(real)
        real_logits, fake_logits = self.logits(real, fake)
        on_real, on_fake = real_logits.sigmoid().flatten(), fake_logits.sigmoid().flatten()
        sure = ((on_real > SURE).float() + (on_fake < 1 - SURE).float()) / 2
        return {"D(x)": on_real, "D(G(z))": on_fake, "saturation": sure}

    def summarize(self) -> dict[str, float]:
        """Measure generated images by the inspector."""
        return {} if self.inspector is None else dict(self.inspector.measure(self.generate(self.inspector.count)))

    def alarms(self, measured: Mapping[str, float]) -> list[str]:
        """Say that the discriminator has won, and what the inspector says."""
        found = [] if self.inspector is None else self.inspector.alarms(measured)
        if measured.get("val/saturation", 0.0) > ALARMING:
            found.append(
                f"the discriminator is sure of {measured['val/saturation']:.0%} of all images, so the generator learns "
                "little from it: weaken it (a lower --lr, --spectral-norm True, fewer steps a step of the generator)"
            )
        return found

    def preview(self) -> dict[str, Tensor]:
        """Generate images from the fixed noise, with the real ones beside them, (N, C, H, W) in [0, 1]."""
        if self.real_examples is None:
            return {}
        fake = self.sampler(self.fixed_noise).view_as(self.real_examples)  # (N, D) -> (N, C, H, W)
        return {"generated": (fake + 1) / 2, "real": (self.real_examples + 1) / 2}

    def compile_modules(self) -> None:
        """Compile both networks; of the discriminator it is the logits that training uses."""
        self.compiled = True
        self.generator.compile()
        self.discriminator.logits = torch.compile(self.discriminator.logits)  # type: ignore[assignment, arg-type]


@torch.no_grad()
def average_(decay: float, averages: Sequence[Tensor], tensors: Sequence[Tensor], updates: Tensor) -> None:
    """Move averages towards tensors, in place, at first faster, so that the initial weights are soon forgotten.

    The decay of update n is the least of ``decay`` and (1 + n) / (10 + n), as TensorFlow's moving average has it.
    """
    share = (1 - (1 + updates) / (10 + updates)).clamp(min=1 - decay)
    for average, tensor in zip(averages, tensors, strict=True):
        if average.is_floating_point():
            average.lerp_(tensor.to(average.dtype), share.to(average.dtype))
        else:
            average.copy_(tensor)  # a count
