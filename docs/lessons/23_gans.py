r"""
Generative adversarial networks
===============================

How can a network draw digits that nobody has written, if no label says what a good picture is? And how do you know that
its pictures are good?

At the end you can write the training loop of a GAN, read its curves, make it collapse and say why, and measure how far
its samples are from real images.
"""

import copy
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import nn

import torchdl
from torchdl.metrics import Moments, class_shares, frechet_distance, neighbour_scores
from torchdl.plots import plot_image_rows

torch.manual_seed(0)

# %%
# The idea: a game of two networks
# --------------------------------
# The *generator* :math:`G` turns noise :math:`z`, a point of the *latent space*, into an image. Where a classifier maps
# an image to a vector, the generator goes the other way. The *discriminator* :math:`D` is a binary classifier: it
# returns the probability that an image is real. It trains on real images with the label 1 and on generated ones with
# the label 0. For a batch of :math:`B` of each, its loss is the binary cross-entropy
#
# .. math::
#    J_D = -\frac{1}{2B} \sum_{n=1}^{B} \big[ \log D(x_n) + \log(1 - D(G(z_n))) \big] .
#
# The generator wants the opposite: its images should get the label 1. It trains through the discriminator, whose
# weights stay as they are in this step:
#
# .. math::
#    J_G = -\frac{1}{B} \sum_{n=1}^{B} \log D(G(z_n)) .
#
# No image has to look like any given image; it only has to pass. Both networks improve against each other, so neither
# loss has to fall. If the generated images were perfect, the discriminator could only guess, :math:`D = 1/2`.

# %%
# By hand: two networks and two optimizers
# ----------------------------------------
# These are the course's networks. The pixels are in [-1, 1], the range of tanh. The discriminator returns a *logit*
# :math:`s` with :math:`D = 1 / (1 + e^{-s})`, because the loss of logits does not overflow.
Z, PIXELS = 100, 28 * 28


def hidden(width_in, width_out):
    """Return a hidden layer of the generator."""
    return nn.Linear(width_in, width_out), nn.LeakyReLU(0.2), nn.BatchNorm1d(width_out, eps=1e-3, momentum=0.2)


generator = nn.Sequential(*hidden(Z, 256), *hidden(256, 512), *hidden(512, 1024), nn.Linear(1024, PIXELS), nn.Tanh())
discriminator = nn.Sequential(
    nn.Linear(PIXELS, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
)
images = torchdl.load_images("mnist_5k", low=-1, high=1)
digits = images[: len(images)][0].flatten(1)  # (N, 784)
print(f"{len(digits):,} real images of {PIXELS} numbers")
for name, network in (("generator", generator), ("discriminator", discriminator)):
    print(f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters")

# %%
# The loop makes one update of each network per batch. Two details matter:
#
# - ``fake.detach()`` cuts the graph, so the discriminator's loss gives the generator no gradient.
# - Each optimizer has the parameters of one network, so a step of the generator changes the generator alone. Its loss
#   leaves gradients in the discriminator; ``zero_grad`` deletes them before the next step.


def adam(network, lr):
    """Return the optimizer of one network; 0.5 in place of 0.9 makes the momentum forget sooner."""
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999), fused=True)  # fused: the same, faster


def play(generator, discriminator, optimizers, batches):
    """Train on pairs of real examples and noise; return both losses and both accuracies of each step, (steps, 4)."""
    adam_d, adam_g = optimizers
    rows = []
    for real, z in batches:
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        # 1. the discriminator: real images are 1, generated ones 0
        fake = generator(z)
        on_real, on_fake = discriminator(real), discriminator(fake.detach())  # (B, 1) logits
        loss_d = F.binary_cross_entropy_with_logits(on_real, ones) + F.binary_cross_entropy_with_logits(on_fake, zeros)
        loss_d = loss_d / 2
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        # 2. the generator: the updated discriminator should take the same images for real
        loss_g = F.binary_cross_entropy_with_logits(discriminator(fake), ones)
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        accuracies = (on_real > 0).float().mean(), (on_fake < 0).float().mean()
        rows.append(torch.stack([loss_d, loss_g, *accuracies]).detach())
    return torch.stack(rows)


# %%
# Before we play, we keep a copy of the initial networks for later, and noise that never changes. The images of *fixed*
# noise show progress; with new noise each time, you could not tell it from chance.
start = copy.deepcopy((generator, discriminator))
fixed_noise = torch.randn(1000, Z)


def draw(n=1000, noise=fixed_noise):
    """Return the generator's images (n, 1, 28, 28) in [0, 1] in evaluation mode."""
    with torch.no_grad():
        made = generator.eval()(noise[:n])
    generator.train()
    return (made.view(-1, 1, 28, 28) + 1) / 2


def batches(steps, size=32):
    """Yield pairs of real images (B, 784) and noise (B, Z)."""
    for _ in range(steps):
        yield digits[torch.randint(len(digits), (size,))], torch.randn(size, Z)


optimizers = adam(discriminator, 2e-4), adam(generator, 2e-4)
rows, made = [], {"0": draw(12)}
for steps in (100, 300, 800):
    rows.append(play(generator, discriminator, optimizers, batches(steps)))
    made[f"{sum(map(len, rows)):,}"] = draw(12)
plot_image_rows(made)

# %%
# Each row is a number of steps, each column a noise vector. From dots over blots to strokes: the images settle as
# the training goes on.

# %%
# With torchdl
# ------------
# The library's :class:`torchdl.GANTask` does the same two updates. We give it the initial weights, and our loop its
# batches and its noise. After five steps both generators must draw the same. Here both use plain gradient descent: Adam
# divides by the size of the gradient, so it would magnify rounding errors.
gan = torchdl.deep_gan()
gan.generator.gen.load_state_dict(start[0].state_dict())
gan.discriminator.disc.load_state_dict(start[1].state_dict())
task = torchdl.GANTask(gan, optimizer="sgd", lr=0.05)
noise = task.noise(5 * 32).split(32)  # that of the first five batches


def loader():
    """Return a loader of real images."""
    return torchdl.BatchLoader(images.without_labels(), batch_size=32, shuffle=True, drop_last=True)


real = (batch.flatten(1) for batch in loader())
descents = [torch.optim.SGD(network.parameters(), lr=0.05) for network in reversed(start)]
ours = play(*start, descents, zip(real, noise, strict=False))
torchdl.Trainer(max_steps=5, device="cpu").fit(task, loader())
by_torchdl, by_hand = task.trained.generate_samples(5).flatten(1), start[0].eval()(gan.noise(5))  # (5, 784)
torch.testing.assert_close(by_torchdl, by_hand, rtol=0, atol=1e-3)
print(f"largest difference of a pixel after {len(ours)} steps: {(by_torchdl - by_hand).abs().max():.1e}")

# %%
# .. list-table:: From Keras
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``trainable = False``, a combined model
#      - ``fake.detach()``, two optimizers
#      - in Keras, set it before the combined model is compiled and after the discriminator is
#    * - ``BatchNormalization(momentum=0.8)``
#      - ``BatchNorm1d(n, eps=1e-3, momentum=0.2)``
#      - Keras' momentum is the share that is kept, PyTorch's the share that is new; the default eps differ
#    * - ``generator.predict``
#      - ``generator.eval()``
#      - batch norm with running averages; a generator that trains needs ``generator.train()``
#    * - ``sigmoid`` and ``binary_crossentropy``
#      - ``binary_cross_entropy_with_logits``
#      - no sigmoid in the network, or it is applied twice
#    * - ``Adam(0.0002, 0.5)``
#      - ``Adam(parameters, lr=2e-4, betas=(0.5, 0.999))``
#      - each network has an optimizer of its own

# %%
# Look: both losses and both accuracies
# -------------------------------------
# Means over 25 steps. The dashed lines are a discriminator that guesses: loss :math:`\log 2` for both networks,
# accuracy one half.
curves = torch.cat(rows)
smooth = curves.unfold(0, 25, 1).mean(2)  # (steps - 24, 4)
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
labels = ("discriminator", "generator", "real images", "generated images")
for ax, first, title, guess in zip(axes, (0, 2), ("loss", "discriminator's accuracy"), (math.log(2), 0.5), strict=True):
    for column, color in ((first, "C4"), (first + 1, "C3")):
        ax.plot(range(25, len(curves) + 1), smooth[:, column], color=color, label=labels[column])
    ax.axhline(guess, color="0.5", linestyle="--", label="guessing")
    ax.set(title=title, xlabel="step")
    ax.grid(alpha=0.3)
    ax.legend()
print("last 100 steps: " + ", ".join(f"{n} {v:.2f}" for n, v in zip(labels, curves[-100:].mean(0), strict=True)))

# %%
# No curve runs to 0 or 1. When one network gets ahead, its loss falls and the other's rises. So the curves do not say
# how good the images are: they say whether the game is still open. It is over if the accuracies stay at 1: then the
# generator cannot win any more and learns next to nothing.
#
# The generator has learnt a map from latent space to images. On a straight line between two points of noise, one shape
# bends into another. The mean of two images would fade one out and the other in.
share = torch.linspace(0, 1, 12)[:, None]  # (12, 1)
ends = ((6, 9), (0, 11), (4, 3))  # numbers of columns above
walks = {f"{a} to {b}": draw(12, torch.lerp(fixed_noise[a], fixed_noise[b], share)) for a, b in ends}
plot_image_rows(walks)

# %%
# Is it good?
# -----------
# Curves cannot say it, and eyes are easily fooled. So we measure with a network that knows digits: a classifier that
# comes with torchdl. Its hidden units are features, and we compare their distribution over generated and real images:
#
# - the *Fréchet distance* of two normal distributions with the features' means :math:`m` and covariances :math:`C`,
#   :math:`|m_1 - m_2|^2 + \mathrm{tr}(C_1 + C_2 - 2 (C_1 C_2)^{1/2})`. Smaller is better. It is not 0 for two sets of
#   real images, and depends on their size, so real images are measured as well;
# - *coverage*, the share of real images that have a generated one nearby, 1 at best: it shows what is missing;
# - the rarest digit's share, by the classifier.
classifier = torchdl.pretrained("lenet-mnist", "cpu").model.eval()


@torch.no_grad()
def features(pictures):
    """Return the features (N, F) and the predicted classes (N,) of pictures (N, 1, 28, 28) in [0, 1]."""
    units = classifier.hidden_units(pictures)
    return units, classifier.logits_of(units).argmax(1)


order = torch.randperm(len(digits))
real, other_real = ((digits[part].view(-1, 1, 28, 28) + 1) / 2 for part in (order[:1000], order[1000:2000]))
pretrained = torchdl.pretrained("gan-conv-mnist", "cpu").predict(1000).float() / 255
kinds = {"real": other_real, "pretrained": pretrained, "ours": draw(), "noise": torch.rand(1000, 1, 28, 28)}
real_features, _ = features(real)
shares = {}
print(f"{'':12}{'Fréchet distance':>18}{'coverage':>10}{'rarest digit':>14}")
for name, pictures in kinds.items():
    found, classes = features(pictures)
    distance = frechet_distance(Moments([found]), Moments([real_features]))
    coverage = neighbour_scores(real_features, found).coverage
    shares[name] = class_shares(classes, 10)
    print(f"{name:12}{distance:18.0f}{coverage:10.2f}{shares[name].min():14.1%}")

# %%
# Ours is far better than noise, and far worse than the pretrained one, which has convolutions and trained for longer on
# all of MNIST. The bars show which digits it neglects.
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for place, name in enumerate(("real", "pretrained", "ours")):
    ax.bar(
        torch.arange(10) + 0.27 * (place - 1),
        100 * shares[name],
        width=0.27,
        label=name,
        color=("0.6", "C2", "C3")[place],
    )
ax.set(title="what the classifier sees", xlabel="digit", ylabel="share of the images, %", xticks=range(10))
ax.legend()

# %%
# One more test: a generator that copies training images would get perfect marks above. Each generated image stands over
# the training image nearest to it. A copy would look the same, down to the pixel.
mine = draw(12)
nearest = torch.cdist(mine.flatten(1), (digits + 1) / 2).argmin(1)  # (12,)
plot_image_rows({"generated": mine, "nearest": (digits[nearest].view(-1, 1, 28, 28) + 1) / 2})

# %%
# What breaks it: collapse
# ------------------------
# The generator's loss asks for images that pass, not for different ones. If the generator learns much faster than the
# discriminator, it moves all its output to the one place that passes best, then on to the next one when that is found
# out. This is easy to see in the plane: real points lie in eight clusters on a ring. The networks and the loop are the
# same twice; only the two learning rates change places.


def ring(n):
    """Return points (n, 2) around eight places on a circle."""
    angle = torch.randint(8, (n,)) * math.pi / 4
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2)


def train_on_ring(lr_generator, lr_discriminator):
    """Return 1,000 points (1000, 2) that a GAN generates after 800 steps."""
    torch.manual_seed(0)
    small_g = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    small_d = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    pairs = ((ring(128), torch.randn(128, 8)) for _ in range(800))
    play(small_g, small_d, (adam(small_d, lr_discriminator), adam(small_g, lr_generator)), pairs)
    return small_g(torch.randn(1000, 8)).detach()


points = {
    "real": ring(1000),
    "discriminator four times as fast": train_on_ring(1e-3, 4e-3),
    "generator four times as fast": train_on_ring(4e-3, 1e-3),
}
places = torch.tensor([[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)])
fig, axes = plt.subplots(1, 3, figsize=(10, 3.5), sharex=True, sharey=True, layout="constrained")
for ax, (name, found) in zip(axes, points.items(), strict=True):
    ax.scatter(*found.T, s=5, alpha=0.5, linewidths=0, color="0.5" if name == "real" else "C3")
    ax.set(title=name, aspect="equal", xlim=(-2, 2), ylim=(-2, 2))
    near = torch.cdist(found, places).argmin(1).bincount(minlength=8) / len(found)
    print(f"{name}: shares of the points by place " + " ".join(f"{s:.0%}" for s in near))

# %%
# On digits, collapse is the same digit again and again; coverage and the bars show it. What helps: a faster or a wider
# discriminator (but one that is always right teaches nothing), a bound on its slope (spectral norm), other losses
# (hinge, Wasserstein).

# %%
# Exercise 1: the end of the game
# -------------------------------
# Suppose that :math:`D = 1/2` for every image. What are the losses ``[J_D, J_G]``?
losses = ...

check(losses, [-(2 * math.log(0.5)) / 2, -math.log(0.5)], hint="Put 1/2 into both formulas at the top.")

# %%
# .. dropdown:: Solution
#
#    All logarithms are :math:`\log 1/2`, so both losses are :math:`\log 2`, the dashed line of the figure.
#
#    .. code-block:: python
#
#       losses = [math.log(2), math.log(2)]

# %%
# Exercise 2: why this loss?
# --------------------------
# The obvious loss of the generator is the negative of the discriminator's: minimise :math:`\log(1 - D)` for
# :math:`D = 1 / (1 + e^{-s})`. At the beginning the discriminator is nearly certain: let :math:`D = 0.01`. By what
# factor is the derivative of :math:`-\log D` by the logit :math:`s` larger than that of :math:`\log(1 - D)`?
factor = ...

p = torch.tensor(0.01, dtype=torch.float64)
check(factor, (1 - p) / p, hint="The derivative of D by s is D (1 - D).")

# %%
# .. dropdown:: Solution
#
#    The derivatives are :math:`-(1 - D)` and :math:`-D`: where the generator is worst, the obvious loss teaches it
#    least. It is called *saturating*, and the one that we used *non-saturating*.
#
#    .. code-block:: python
#
#       factor = (1 - 0.01) / 0.01

# %%
# Exercise 3: count the places
# ----------------------------
# Write a function of points (N, 2) that returns how many of the eight ``places`` have a point within 0.15.
count_places = ...

check(
    count_places,
    lambda f: (
        [int(f(places[:k] + 0.1)) for k in (1, 5, 8)] == [1, 5, 8] or "it miscounts points close to 1, 5 or 8 places"
    ),
    hint="torch.cdist(points, places) has the shape (N, 8).",
)

# %%
# .. dropdown:: Solution
#
#    Take the minimum over the points, not over the places. Try it on ``points`` from above: it is a coverage by hand.
#
#    .. code-block:: python
#
#       def count_places(points):
#           return (torch.cdist(points, places).amin(0) < 0.15).sum()

# %%
# Where next
# ----------
# ``python scripts/train_gan.py --dataset mnist --model deep --max-steps 30000`` trains these networks as long as the
# course does, in four steps: get the data, build the model, train, generate. ``python scripts/evaluate_gan.py RUN``
# measures the result. ``--model simple`` is a smaller pair with one hidden layer each, and
# ``--model conv --loss hinge`` the recipe of the pretrained generator; ``python scripts/sweep_gan.py`` compares all
# networks with all losses. RESULTS lists the Fréchet distances beside that of real images. In the API:
# :class:`torchdl.GANTask`, :func:`torchdl.deep_gan`, :func:`torchdl.conv_gan`,
# :func:`torchdl.metrics.frechet_distance`, and :func:`torchdl.latent.invert`, which finds the noise of a given image.
# The next lesson, :doc:`/learn/24_lenet_and_autoencoders`, turns the arrow round: from an image to a short code, and
# back.
