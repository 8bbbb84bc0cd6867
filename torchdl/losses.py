"""Losses as pure functions of tensors: of GANs, and of contrastive predictive coding.

The GAN losses take the discriminator's *logits*, of any shape, and return the mean over all of them as a 0-d tensor.
``real`` are the logits of real examples, ``fake`` those of generated ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy, real as 1 and generated as 0 (Goodfellow et al. 2014, algorithm 1), halved as in the notes.

    With D = sigmoid(logit): -(log D(x) + log(1 - D(G(z)))) / 2, which is log 2 where D is 1/2 everywhere.
    """
    # softplus(-s) = -log sigmoid(s), without the overflow
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def minimax_generator_loss(fake: Tensor) -> Tensor:
    """The log(1 - D(G(z))) of the two-player game (Goodfellow et al. 2014, eq. 1): flat where D is sure of itself."""
    return -F.softplus(fake).mean()


def non_saturating_generator_loss(fake: Tensor) -> Tensor:
    """The -log D(G(z)) that everyone trains with (Goodfellow et al. 2014, section 3): generated ones labelled as 1."""
    return F.softplus(-fake).mean()


def least_squares_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance to 1 for real and to 0 for generated (Mao et al. 2017, eq. 9)."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator_loss(fake: Tensor) -> Tensor:
    """Half the squared distance to 1 (Mao et al. 2017, eq. 9)."""
    return (fake - 1).square().mean() / 2


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - real) + max(0, 1 + fake) (Lim and Ye 2017; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's fake - real (Arjovsky et al. 2017); it needs :func:`gradient_penalty` beside it."""
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    """The negated score, for the critic and for the hinge loss alike."""
    return -fake.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """The mean of (|gradient of the critic| - 1)^2 between real and generated examples (Gulrajani et al. 2017, eq. 3).

    Args:
        critic: Gives (B,) or (B, 1) scores, each of its own example alone (so without batch norm).
        real: (B, ...) real examples.
        fake: (B, ...) generated examples, detached.
        mix: (B,) in [0, 1], the share of the real example in each mixture.

    Returns:
        A 0-d tensor, differentiable in the critic's parameters.
    """
    share = mix.view(-1, *[1] * (real.dim() - 1))  # (B, 1, ...)
    between = torch.lerp(fake, real, share).requires_grad_()
    # the sum's gradient is each example's own gradient, since no score depends on another's example
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()  # (B, D) -> (B,) -> ()


class GANLoss(NamedTuple):
    """A discriminator's loss of (real, fake) logits and a generator's loss of fake logits."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


#: The losses of a GAN by name; ``wgan_gp`` is completed by :func:`gradient_penalty`, which ``GANTask`` adds.
GAN_LOSSES = {
    "non_saturating": GANLoss(binary_discriminator_loss, non_saturating_generator_loss),
    "minimax": GANLoss(binary_discriminator_loss, minimax_generator_loss),
    "least_squares": GANLoss(least_squares_discriminator_loss, least_squares_generator_loss),
    "hinge": GANLoss(hinge_discriminator_loss, wasserstein_generator_loss),
    "wgan_gp": GANLoss(wasserstein_discriminator_loss, wasserstein_generator_loss),
}


def _wide(x: Tensor) -> Tensor:
    """Give half-precision numbers as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def log_bilinear_scores(predicted: Tensor, candidates: Tensor, temperature: float = 1.0) -> Tensor:
    """Score candidates by their products with predictions, W c being the prediction (van den Oord et al. 2018, eq. 3).

    Args:
        predicted: (B, S, D) predictions of S steps.
        candidates: (N, S, D) codes for each step, or (N, D) the same ones for all.
        temperature: What the scores are divided by.

    Returns:
        (S, B, N), computed in float32 at least, under autocast, too.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        rows, columns = _wide(predicted).transpose(0, 1), _wide(candidates)  # (S, B, D)
        columns = columns.permute(1, 2, 0) if columns.dim() == 3 else columns.T  # (S, D, N) or (D, N)
        return rows @ columns / temperature


def info_nce(predicted: Tensor, candidates: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4): find each prediction's own code among the candidates.

    It is log N where all scores are equal, 0 where the own one is beyond doubt, and log N minus it bounds the
    information that context and code share, in nats, where the other candidates are independent of the context.

    Args:
        predicted: (B, S, D) predictions of S steps.
        candidates: (N, S, D) codes for each step, or (N, D) the same ones for all: the own ones, other sequences',
            other steps', false futures'.
        target: (B,) or (S, B) int64, the number of the own code among the candidates.
        temperature: What the scores are divided by.

    Returns:
        (S, B), a loss for every step of every prediction.
    """
    scores = log_bilinear_scores(predicted, candidates, temperature)  # (S, B, N)
    own = target.expand(scores.shape[:2])  # (B,) -> (S, B)
    return scores.logsumexp(dim=2) - scores.gather(2, own[..., None])[..., 0]


def paired_logits(predicted: Tensor, codes: Tensor) -> Tensor:
    """Score whether codes are the predicted ones: the mean over steps of the mean over dimensions of their product.

    Args:
        predicted: (B, S, D) predictions of S steps.
        codes: (B, S, D) what came.

    Returns:
        (B,) logits, computed in float32 at least, under autocast, too.
    """
    return (_wide(predicted) * _wide(codes)).mean(dim=(1, 2))


def paired_bce(predicted: Tensor, codes: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy of :func:`paired_logits`, (B,); label (B,) is 1 for a real future, 0 for a false one."""
    logits = paired_logits(predicted, codes)
    return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none")
