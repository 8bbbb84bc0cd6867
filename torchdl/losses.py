"""Losses of GANs and of contrastive predictive coding, as pure functions of tensors.

The GAN losses take the discriminator's *logits*, of any shape, and return the mean over all of them as a 0-d tensor.
``real`` are the logits of real examples, ``fake`` those of generated ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdl.errors import require
from torchdl.fast.products import linear


def binary_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy with labels 1 (``real``) and 0 (``fake``), halved as in the notes (Goodfellow et al. 2014).

    With D = sigmoid(logit), it is -(log D(x) + log(1 - D(G(z)))) / 2. It is log 2 if D is 1/2 everywhere.
    """
    # softplus(-s) = -log sigmoid(s), without the overflow
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def minimax_generator_loss(fake: Tensor) -> Tensor:
    """Mean of log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1); its gradient vanishes as D(G(z)) approaches 0.

    ``fake`` are the logits of D(G(z)).
    """
    return -F.softplus(fake).mean()


def non_saturating_generator_loss(fake: Tensor) -> Tensor:
    """Mean of -log D(G(z)), the usual loss (Goodfellow et al. 2014, section 3): ``fake`` examples get the label 1."""
    return F.softplus(-fake).mean()


def least_squares_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance to 1 for ``real`` and to 0 for ``fake`` (Mao et al. 2017, eq. 9)."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator_loss(fake: Tensor) -> Tensor:
    """Half the squared distance of ``fake`` to 1 (Mao et al. 2017, eq. 9)."""
    return (fake - 1).square().mean() / 2


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - real) + max(0, 1 + fake) (Lim and Ye 2017; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's fake - real (Arjovsky et al. 2017); it also needs :func:`gradient_penalty`."""
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    """The negated mean score ``fake``, for both the Wasserstein and the hinge loss."""
    return -fake.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """The mean of (gradient norm of the critic - 1)^2 between real and generated data (Gulrajani et al. 2017, eq. 3).

    Args:
        critic: Returns (B,) or (B, 1) scores; each depends on its own example only (so no batch norm).
        real: (B, ...) real examples.
        fake: (B, ...) generated examples, detached.
        mix: (B,) in [0, 1], the share of the real example in each mixture.

    Returns:
        A 0-d tensor, differentiable in the critic's parameters.
    """
    share = mix.view(-1, *[1] * (real.dim() - 1))  # (B, 1, ...)
    between = torch.lerp(fake.to(real.dtype), real, share).requires_grad_()  # autocast generates in half precision
    # no score depends on another example, so each row of the sum's gradient is that example's gradient
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()  # (B, D) -> (B,) -> ()


class GANLoss(NamedTuple):
    """A discriminator's loss of (real, fake) logits, and a generator's loss of fake logits."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


#: The losses of a GAN by name; ``wgan_gp`` also needs :func:`gradient_penalty`, which ``GANTask`` adds.
GAN_LOSSES = {
    "non_saturating": GANLoss(binary_discriminator_loss, non_saturating_generator_loss),
    "minimax": GANLoss(binary_discriminator_loss, minimax_generator_loss),
    "least_squares": GANLoss(least_squares_discriminator_loss, least_squares_generator_loss),
    "hinge": GANLoss(hinge_discriminator_loss, wasserstein_generator_loss),
    "wgan_gp": GANLoss(wasserstein_discriminator_loss, wasserstein_generator_loss),
}


def _at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; return other types unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def log_bilinear_scores(predicted: Tensor, candidates: Tensor, temperature: float = 1.0) -> Tensor:
    """Score candidates by their dot products with the predictions W c (van den Oord et al. 2018, eq. 3).

    Args:
        predicted: (B, S, D) predictions of S steps.
        candidates: (N, S, D) embeddings for each step, or (N, D), the same for all steps.
        temperature: Divides the scores.

    Returns:
        (S, B, N), computed in float32 at least, even under autocast.

    Raises:
        InputError: The shapes do not match, or the temperature is not positive.
    """
    require(0 < temperature < math.inf, f"temperature must be positive, not {temperature}")
    shapes = tuple(predicted.shape), tuple(candidates.shape)
    fit = len(shapes[0]) == 3 and shapes[1][1:] in (shapes[0][1:], shapes[0][2:])
    require(fit, "predictions must be (B, S, D), and candidates (N, S, D) or (N, D), not {} and {}".format(*shapes))
    with torch.autocast(predicted.device.type, enabled=False):
        rows, columns = _at_least_float32(predicted).transpose(0, 1), _at_least_float32(candidates)  # (S, B, D)
        scores = rows @ columns.permute(1, 2, 0) if columns.dim() == 3 else linear(rows, columns)  # (S, B, N)
        return scores / temperature


def info_nce(predicted: Tensor, candidates: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4): find the correct embedding of each prediction among the candidates.

    The loss is log N if all scores are equal, and 0 if the correct candidate is certain. If the other candidates are
    independent of the context, log N minus the loss is a lower bound on the mutual information of context and
    embedding, in nats.

    Args:
        predicted, candidates, temperature: As for :func:`log_bilinear_scores`; the candidates are the correct
            embeddings, and those of other sequences, other steps or false futures.
        target: (B,) or (S, B) int64, the index of the correct candidate; not (B, S).

    Returns:
        (S, B), a loss for each step of each prediction.

    Raises:
        InputError: The shapes do not match, the target is not int64, or the temperature is not positive.
    """
    shape, wanted = tuple(target.shape), tuple(predicted.shape[1::-1])  # (S, B)
    require(target.dtype == torch.int64, f"target must be int64, the index of a candidate, not {target.dtype}")
    scores = log_bilinear_scores(predicted, candidates, temperature)  # (S, B, N)
    require(shape in (wanted, wanted[1:]), f"target must be (B,) or (S, B), here {wanted}, not {shape}")
    correct = target.expand(scores.shape[:2])  # (B,) -> (S, B)
    return scores.logsumexp(dim=2) - scores.gather(2, correct[..., None])[..., 0]


def paired_logits(predicted: Tensor, embeddings: Tensor) -> Tensor:
    """Score how well embeddings match predictions: the mean of their products over steps and dimensions.

    Args:
        predicted: (B, S, D) predictions of S steps.
        embeddings: (B, S, D) actual embeddings.

    Returns:
        (B,) logits, computed in float32 at least, even under autocast.

    Raises:
        InputError: The shapes differ.
    """
    shapes = tuple(predicted.shape), tuple(embeddings.shape)
    fit = len(shapes[0]) == 3 and shapes[0] == shapes[1]
    require(fit, "predictions and embeddings must both be (B, S, D), not {} and {}".format(*shapes))
    return (_at_least_float32(predicted) * _at_least_float32(embeddings)).mean(dim=(1, 2))


def paired_bce(predicted: Tensor, embeddings: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy (B,) of :func:`paired_logits`.

    Args:
        predicted, embeddings: As for :func:`paired_logits`.
        label: (B,), 1 for a real future and 0 for a false one.

    Raises:
        InputError: The shapes do not match.
    """
    logits = paired_logits(predicted, embeddings)
    shape = tuple(label.shape)
    require(shape == tuple(logits.shape), f"label must be (B,), here {tuple(logits.shape)}, not {shape}")
    return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none")
