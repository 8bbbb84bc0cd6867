"""The notes' GAN with its backpropagation written out: the gradients of autograd, at two thirds of the time on a CPU.

On networks this small most of a step goes into autograd's bookkeeping and into fresh memory for gradients. Here the
chain rule stands in a few lines, and gradients are written where they were the step before. It serves stacks of
linear layers with LeakyReLU; everything else trains through autograd.

Shapes: B examples, I and O a layer's inputs and outputs, D numbers an image.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.tasks.base import Update

Tape = list[Tensor]  # what went into each layer, then what came out of the last


class Backprop:
    """Forward and backward passes of a stack ``Linear, LeakyReLU, ..., Linear[, Tanh]``.

    Args:
        layers: The stack; :meth:`supports` says whether it is one.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        self.linears: list[nn.Linear] = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self.slopes = [layer.negative_slope for layer in layers if isinstance(layer, nn.LeakyReLU)]
        self.tanh = isinstance(layers[-1], nn.Tanh)
        self.buffers: dict[Tensor, Tensor] = {}

    @staticmethod
    def supports(layers: nn.Module) -> bool:
        """Say whether ``layers`` is such a stack, its parameters plain float32 ones on the CPU that all train."""
        kinds = [type(layer) for layer in layers.children()]
        if kinds and kinds[-1] is nn.Tanh:
            kinds.pop()
        alternating = [nn.Linear if i % 2 == 0 else nn.LeakyReLU for i in range(len(kinds))]
        return (
            type(layers) is nn.Sequential
            and len(kinds) % 2 == 1
            and kinds == alternating
            and all(
                type(p) is nn.Parameter and p.requires_grad and p.device.type == "cpu" and p.dtype == torch.float32
                for p in layers.parameters()
            )
            and all(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
            and all(layer.negative_slope > 0 for layer in layers if isinstance(layer, nn.LeakyReLU))
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tape]:
        """Give the output (B, O) for (B, I), and the tape that :meth:`backward` needs."""
        tape = [x]
        for number, linear in enumerate(self.linears):
            x = torch.addmm(linear.bias, x, linear.weight.t())  # (B, I) x (I, O) -> (B, O)
            if number < len(self.slopes):
                F.leaky_relu_(x, self.slopes[number])
            tape.append(x)
        if self.tanh:
            x.tanh_()
        return x, tape

    def backward(self, tape: Tape, gradient: Tensor, parameters: bool = True, inputs: bool = True) -> Tensor:
        """Carry the loss's gradient (B, O) back through the layers.

        Args:
            tape: What :meth:`forward` gave.
            gradient: The loss's gradient with respect to the output, (B, O).
            parameters: Whether to add the parameters' gradients to their ``grad``.
            inputs: Whether to go on to the input.

        Returns:
            The gradient with respect to the input (B, I), if asked for; else to the first layer's output.
        """
        if self.tanh:
            gradient = torch.ops.aten.tanh_backward(gradient, tape[-1])  # gradient * (1 - tanh^2)
        for number in reversed(range(len(self.linears))):
            linear, given = self.linears[number], tape[number]
            if parameters:
                self._add(linear.weight, gradient.t(), given)  # (O, B) x (B, I) -> (O, I)
                self._add(linear.bias, gradient, None)  # (B, O) -> (O,)
            if number or inputs:
                gradient = torch.mm(gradient, linear.weight)  # (B, O) x (O, I) -> (B, I)
            if number:  # the sign of LeakyReLU's output is that of its input
                gradient = torch.ops.aten.leaky_relu_backward(gradient, given, self.slopes[number - 1], True)
        return gradient

    def _add(self, parameter: Tensor, left: Tensor, right: Tensor | None) -> None:
        """Add ``left @ right``, or the sum of ``left`` over the batch, to the parameter's gradient."""
        if parameter.grad is None:
            if parameter not in self.buffers:
                self.buffers[parameter] = torch.empty_like(parameter)
            parameter.grad = self.buffers[parameter]
            if right is None:
                torch.sum(left, 0, out=parameter.grad)
            else:
                torch.mm(left, right, out=parameter.grad)
        elif right is None:
            parameter.grad += left.sum(0)
        else:
            parameter.grad.addmm_(left, right)


class GANBackprop:
    """The two updates of a GAN with binary cross-entropy, whose derivative by a logit is sigmoid(logit) - label.

    Args:
        generator: A stack from noise to images.
        discriminator: A stack from images to one logit.
        loss: ``non_saturating`` or ``minimax``.
    """

    def __init__(self, generator: nn.Sequential, discriminator: nn.Sequential, loss: str) -> None:
        self.generator, self.discriminator = Backprop(generator), Backprop(discriminator)
        # softplus(-logit) is low, or (minimax) softplus(logit) high, where the discriminator is fooled
        self.fooled = -1.0 if loss == "non_saturating" else 1.0
        self.signs = self.labels = torch.empty(0)

    @staticmethod
    def supports(generator: nn.Module, discriminator: nn.Module, loss: str) -> bool:
        """Say whether both networks are stacks that can be written out, and the loss one of the two."""
        return loss in ("non_saturating", "minimax") and all(
            Backprop.supports(stack) for stack in (generator, discriminator)
        )

    @torch.no_grad()
    def discriminator_update(self, real: Tensor, noise: Tensor) -> tuple[Update, Tensor, Tape]:
        """Give the discriminator's update on real images (B, D), and the generated ones (B, D) with their tape."""
        n = len(real)
        fake, generator_tape = self.generator.forward(noise)
        logits, tape = self.discriminator.forward(torch.cat([real, fake]))  # (2B, 1)
        if len(self.signs) != 2 * n:
            self.signs = torch.tensor([[-1.0], [1.0]]).repeat_interleave(n, 0)  # (2B, 1)
            self.labels = torch.tensor([[-0.5 / n], [0.0]]).repeat_interleave(n, 0)  # (2B, 1), over -2B
        probability = logits.sigmoid()
        real_mean, fake_mean = probability.view(2, n).mean(1).unbind()  # (2B, 1) -> (2, B) -> (2,)
        loss = F.softplus(logits * self.signs).mean()
        backward = partial(self._discriminator_backward, tape, probability)
        return Update("discriminator", loss, {"D(x)": real_mean, "D(G(z))": fake_mean}, backward), fake, generator_tape

    @torch.no_grad()
    def _discriminator_backward(self, tape: Tape, probability: Tensor, scale: float) -> None:
        gradient = torch.add(self.labels, probability, alpha=1 / len(probability))  # (probability - label) / 2B
        self.discriminator.backward(tape, gradient if scale == 1 else gradient * scale, inputs=False)

    @torch.no_grad()
    def generator_update(self, fake: Tensor, generator_tape: Tape) -> Update:
        """Give the generator's update, against the discriminator as it is now."""
        logits, tape = self.discriminator.forward(fake)
        signed = logits.mul_(self.fooled)
        loss = F.softplus(signed).mean().mul_(-self.fooled)
        return Update("generator", loss, backward=partial(self._generator_backward, generator_tape, tape, signed))

    @torch.no_grad()
    def _generator_backward(self, generator_tape: Tape, tape: Tape, signed: Tensor, scale: float) -> None:
        # the derivative of -fooled * softplus(fooled * logit) is -sigmoid(fooled * logit), as fooled is 1 or -1
        gradient = signed.sigmoid().mul_(-scale / len(signed))
        at_image = self.discriminator.backward(tape, gradient, parameters=False)
        self.generator.backward(generator_tape, at_image, inputs=False)
