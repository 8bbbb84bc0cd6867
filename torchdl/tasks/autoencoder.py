"""Train an autoencoder to reconstruct images, or to remove noise from them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchdl import random
from torchdl.errors import require
from torchdl.tasks.base import Task, Update, inputs_of
from torchdl.tasks.optimizers import make_optimizer
from torchdl.tasks.schedules import AnySchedule, build_schedules, check_schedule


class AutoencoderTask(Task):
    """Minimise the mean squared error between images and their reconstructions, on batches of images (B, C, H, W).

    A batch may also be a tuple that begins with the images.

    Args:
        model: Maps images to images of the same shape.
        noise: Standard deviation of the normal noise added to the model's input but not to its target (a denoising
            autoencoder, Vincent et al. 2008); the noise depends on the seed, the epoch and the example's position.
        lr: The learning rate.
        schedule: Builds the schedule from the optimizer, or from it and the number of steps; none by default.
        examples: Images (N, C, H, W) in [0, 1] for the preview; none by default.
        optimizer: A name of :data:`torchdl.tasks.OPTIMIZERS`.
        weight_decay: See :func:`torchdl.tasks.make_optimizer`.

    Raises:
        InputError: The noise is negative.

    Example:
        >>> task = torchdl.AutoencoderTask(torch.nn.Identity(), noise=0.1)  # removes no noise: 20 dB
        >>> measured = task.evaluate(torch.zeros(2, 3, 64, 64))
        >>> sorted(measured), measured["psnr"].round()
        (['loss', 'psnr'], tensor([20., 20.]))
    """

    examples: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        noise: float = 0.0,
        lr: float = 1e-3,
        schedule: Callable[..., AnySchedule] | None = None,
        examples: Tensor | None = None,
        optimizer: str = "adam",
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        require(0 <= noise < math.inf, f"noise must be a standard deviation of 0 or more, not {noise}")
        check_schedule(schedule)
        self.model, self.noise, self.schedule = model, noise, schedule
        self.first = True  # whether no batch has been seen
        self.optimizer, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.register_buffer("examples", examples, persistent=False)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build one optimizer, named ``model``."""
        return {"model": make_optimizer(self.optimizer, self.model.parameters(), self.lr, self.weight_decay)}

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, AnySchedule]:
        """Build the schedule of ``optimizers["model"]``, if any, for ``steps`` steps in total."""
        return build_schedules(self.schedule, optimizers, steps)

    def add_noise(self, images: Tensor, positions: Tensor, stream: random.Stream) -> Tensor:
        """Add noise to images (B, C, H, W) at positions (B,); in training it is different in each epoch.

        ``stream`` separates the draws of training from those of validation.
        """
        if self.noise == 0:
            return images
        epoch = self.step_info.epoch if stream == random.Stream.TRAINING else 0
        drawn = random.normal(self.step_info.seed, epoch, positions, images[0].numel(), stream)  # (B, C * H * W)
        return images + self.noise * drawn.view_as(images)

    def losses(self, batch: Tensor | tuple[Tensor, ...]) -> Iterator[Update]:
        """Yield the update of the model."""
        images = inputs_of(self, batch)
        inputs = self.add_noise(images, self.positions(len(images), images.device), random.Stream.TRAINING)
        outputs = self.model(inputs).float()
        if self.first:
            self.first = False
            if images.min() < 0 <= outputs.min():
                advice = "scale the images to [0, 1], which is the range of a sigmoid: ImageDataset(..., low=0)"
                warnings.warn(f"the images have negative pixels, and the network returns none: {advice}", stacklevel=2)
        yield Update("model", (outputs - images).square().mean())

    def evaluate(self, batch: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return each image's mean squared error and peak signal-to-noise ratio in dB, (B,) each.

        If there is noise, the model reconstructs from noisy images; the noise is the same in every evaluation.
        """
        images = inputs_of(self, batch)
        inputs = self.add_noise(images, self.positions(len(images), images.device), random.Stream.VALIDATION)
        loss = (self.model(inputs).float() - images).square().flatten(1).mean(1)  # (B, C, H, W) -> (B,)
        return {"loss": loss, "psnr": -10 * loss.clamp(min=1e-10).log10()}

    def preview(self) -> dict[str, Tensor]:
        """Return the model's inputs for the fixed examples, and their reconstructions."""
        examples = self.examples
        if examples is None:
            return {}
        inputs = self.add_noise(examples, torch.arange(len(examples), device=examples.device), random.Stream.PREVIEW)
        return {"noisy images" if self.noise else "images": inputs, "reconstructions": self.model(inputs).float()}
