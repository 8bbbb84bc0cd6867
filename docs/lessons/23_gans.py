r"""
Generative adversarial networks
===============================

How can a network draw digits that nobody has written, if no label says what a good picture is? And how do you know that
its pictures are good?

At the end you can write the training loop of a GAN, read its curves, make it collapse and say why, and measure how far
its samples are from real images.
"""

import copy
import itertools
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import nn

import torchdl
from torchdl.metrics import Moments, frechet_distance, neighbour_scores
from torchdl.plots import plot_image_rows

torch.manual_seed(0)

# %%
# The idea: a game of two networks
# --------------------------------
# Ian Goodfellow and others invented GANs in 2014; thispersondoesnotexist.com shows faces by one. The parts are old: a
# network is a chain of logistic regressions, and a convolutional or recurrent one shares weights. The objective is new.
#
# The *generator* :math:`G` turns noise :math:`z` into an image. Where a classifier maps an image to a vector, the
# generator goes the other way. The noise is a point of the *latent space*: we imagine that every possible image comes
# from there, and training maps its areas to images. The *discriminator* :math:`D` is a binary classifier: it returns
# the probability that an image is real. It trains on real images with the label 1, on generated ones with the label 0.
# For a batch of :math:`B` of each, its loss is the binary cross-entropy
#
# .. math::
#    J_D = -\frac{1}{2B} \sum_{n=1}^{B} \big[ \log D(x_n) + \log(1 - D(G(z_n))) \big] .
#
# The generator wants the opposite: its images should get the label 1. To train it, we treat both as one large network
# from noise to probability, in which the discriminator's weights stay as they are:
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
# :math:`s` with :math:`D = 1 / (1 + e^{-s})`: a probability can be rounded to 0, and its logarithm is infinite, but
# :math:`-\log D = \log(1 + e^{-s})` can be computed for any logit.
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

# %%
# The loop makes one update of each network per batch. Two details matter:
#
# - ``fake.detach()`` cuts the graph, so the discriminator's loss gives the generator no gradient.
# - Each optimizer has the parameters of one network, so a step of the generator changes the generator alone. Its loss
#   leaves gradients in the discriminator; ``zero_grad`` deletes them before the next step.


def adam(network, lr):
    """Return Adam; its momentum keeps 0.5 of the past per step, not 0.9, as old gradients belong to an old opponent."""
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))


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


def draw(n=1000):
    """Return the generator's images (n, 1, 28, 28) in [0, 1] in evaluation mode."""
    with torch.no_grad():
        made = generator.eval()(fixed_noise[:n])
    generator.train()
    return (made.view(-1, 1, 28, 28) + 1) / 2


def batches(steps, size=32):
    """Yield pairs of real images (B, 784) and noise (B, Z)."""
    for _ in range(steps):
        yield digits[torch.randint(len(digits), (size,))], torch.randn(size, Z)


optimizers = adam(discriminator, 2e-4), adam(generator, 2e-4)
rows, made = [], {"step 0": draw(12)}
for steps in (100, 300, 800):
    rows.append(play(generator, discriminator, optimizers, batches(steps)))
    made[f"step {sum(map(len, rows)):,}"] = draw(12)
plot_image_rows(made)

# %%
# Each column is one noise vector. From noise over blots to strokes: the images settle as the training goes on. (The
# lecture saves 25 of them every 200 steps: ``fig.savefig("gan_images/200.png")``.)

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


first_five = [batch.flatten(1) for batch in itertools.islice(loader(), 5)]
descents = [torch.optim.SGD(start[k].parameters(), lr=0.05) for k in (1, 0)]  # the discriminator's, the generator's
ours = play(*start, descents, zip(first_five, noise, strict=True))
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
#      - batch norm with running averages: the lecture's discriminator trains on such images, ours on those of the batch
#    * - ``train_on_batch(real, ones)``, then ``(fake, zeros)``
#      - one step on the mean of both losses
#      - the lecture makes two updates of the discriminator, and draws new noise for the generator's
#    * - ``sigmoid`` and ``binary_crossentropy``
#      - ``binary_cross_entropy_with_logits``
#      - no sigmoid in the network, or it is applied twice
#    * - ``Adam(0.0002, 0.5)``
#      - ``Adam(parameters, lr=2e-4, betas=(0.5, 0.999))``
#      - each network has an optimizer of its own
#    * - ``epochs = 30000``, ``batch_size = 12``
#      - 1,200 steps of 32
#      - the lecture calls a step an epoch

# %%
# A network as a class
# --------------------
# The GAN notes write a smaller pair as classes. ``class Discriminator(nn.Module)`` *inherits* from ``nn.Module``:
# ``parameters()``, ``.to(device)``, and ``__call__``, by which ``network(x)`` runs ``forward(x)``.


class Discriminator(nn.Module):
    """The notes' discriminator."""

    def __init__(self, in_features):
        super().__init__()  # must be first: it prepares the module for its layers
        self.disc = nn.Sequential(nn.Linear(in_features, 128), nn.LeakyReLU(0.1), nn.Linear(128, 1), nn.Sigmoid())

    def forward(self, x):
        """Return the probability (B, 1) that images (B, 784) are real."""
        return self.disc(x)


device = torch.device("cpu")  # or "cuda"
print(Discriminator(PIXELS).to(device)(digits[:4].to(device)).shape)
print(torchdl.simple_gan().generator)  # the notes' generator

# %%
# What else the notes name, those in PyTorch and those in TensorFlow:
#
# - ``torch`` has tensors and gradients, ``torch.nn`` layers and losses, ``torch.optim`` optimizers, from SGD over
#   momentum to Adagrad, Adadelta and Adam: :doc:`/learn/04_how_a_model_learns`.
# - ``torchvision.datasets``, ``torchvision.transforms``, ``DataLoader``: here :func:`torchdl.load_images`,
#   :doc:`/learn/12_augmentation_and_batch_norm`, :class:`torchdl.BatchLoader`. ``SummaryWriter`` writes TensorBoard's
#   logs, as in :doc:`/learn/05_save_load_hand_over`.
# - ``read_data_sets("MNIST_data", one_hot=True)``: ``load_images("mnist")`` has Yann LeCun's 60,000 + 10,000 digits. A
#   GAN needs no labels.
# - ``class Gan`` with ``_generator``, ``_discriminator`` and ``generate_samples`` is :class:`torchdl.GAN`; its
#   ``_discriminator_loss`` and ``_generator_loss`` are in our ``play``, and in :class:`torchdl.GANTask`.
# - ``main``, that is to get the data, build the model, train and generate: ``scripts/train_gan.py``, with
#   ``--model simple`` for the notes' GAN (``z_dim = 64``, ``lr = 3e-4``, ``batch_size = 32``, ``num_epochs = 50``).

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
for name, part in (("steps 51 to 100", curves[50:100]), ("last 100 steps", curves[-100:])):
    print(f"{name}: " + ", ".join(f"{label} {v:.2f}" for label, v in zip(labels, part.mean(0), strict=True)))

# %%
# At first the discriminator is right about everything, and the generator's loss climbs. Then the generator catches up.
# So the curves do not say how good the images are: they say whether the game is still open. It is over if the
# accuracies *stay* at 1: then the generator learns next to nothing.
#
# The generator has learnt a map from latent space to images. On a straight line between two points of noise, one shape
# bends into another (*walk*); the means of its first and last image only fade (*fade*). The generator comes with
# torchdl, and has trained for longer.
pretrained = torchdl.pretrained("gan-conv-mnist", "cpu").model.eval()
share, walks = torch.linspace(0, 1, 10)[:, None], {}  # (10, 1)
for number, (a, b) in enumerate(((2, 3), (4, 5)), 1):
    with torch.no_grad():
        walk = (pretrained(torch.lerp(*pretrained.noise(6)[[a, b]], share)) + 1) / 2  # (10, 1, 28, 28)
    walks |= {f"walk {number}": walk, f"fade {number}": torch.lerp(walk[:1], walk[-1:], share[..., None, None])}
plot_image_rows(walks)

# %%
# Is it good?
# -----------
# Curves cannot say it, and eyes are easily fooled. So we measure with a network that knows digits: a classifier that
# comes with torchdl. Its hidden units are features, and we compare their distribution over generated and real images:
#
# - the *Fréchet distance* of two normal distributions with the features' means :math:`m` and covariances :math:`C`,
#   :math:`|m_1 - m_2|^2 + \mathrm{tr}(C_1 + C_2 - 2 (C_1 C_2)^{1/2})`, where the root is that of a matrix. Smaller is
#   better. It is not 0 for two sets of real images, and depends on their size, so real images are measured as well;
# - *coverage*, the share of real images that have a generated one nearby, that is no further than their fifth neighbour
#   among the real ones: 1 at best. It shows what is missing.
classifier = torchdl.pretrained("lenet-mnist", "cpu").model.eval()


def features(pictures):
    """Return the features (N, F) of pictures (N, 1, 28, 28) in [0, 1]."""
    with torch.no_grad():
        return classifier.hidden_units(pictures)


order = torch.randperm(len(digits))
real, other_real = ((digits[part].view(-1, 1, 28, 28) + 1) / 2 for part in (order[:1000], order[1000:2000]))
good = (pretrained.generate_samples(1000) + 1) / 2
kinds = {"real": other_real, "pretrained": good, "ours": draw(), "noise": torch.rand(1000, 1, 28, 28)}
real_features = features(real)
print(f"{'':12}{'Fréchet distance':>18}{'coverage':>10}")
for name, pictures in kinds.items():
    found = features(pictures)
    distance = frechet_distance(Moments([found]), Moments([real_features]))
    print(f"{name:12}{distance:18.0f}{neighbour_scores(real_features, found).coverage:10.2f}")

# %%
# Ours is far better than noise, and far worse than the pretrained one, which has convolutions and trained for longer on
# all of MNIST.
#
# One more test: a generator that copies training images would get perfect marks above. Each generated image stands over
# the training image nearest to it. A copy would look the same, down to the pixel.
mine = draw(12)
nearest = torch.cdist(mine.flatten(1), (digits + 1) / 2).argmin(1)  # (12,)
plot_image_rows({"generated": mine, "nearest": (digits[nearest].view(-1, 1, 28, 28) + 1) / 2})

# %%
# What breaks it: collapse
# ------------------------
# The generator's loss asks for images that pass, not for different ones. So the generator may move all its output to
# one place that passes, and on to another when that is found out. This is easy to see in the plane: real points lie
# around eight places on a ring. The networks and the loop are the same three times; only the learning rates differ.


def ring(n):
    """Return points (n, 2) around eight places on a circle."""
    angle = torch.randint(8, (n,)) * math.pi / 4
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2)


def train_on_ring(lr_discriminator, lr_generator):
    """Return 1,000 points (1000, 2) that a GAN generates after 300, 450 and 600 steps."""
    torch.manual_seed(0)
    small_g = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    small_d = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    optimizers, found = (adam(small_d, lr_discriminator), adam(small_g, lr_generator)), {}
    for end, steps in ((300, 300), (450, 150), (600, 150)):
        play(small_g, small_d, optimizers, ((ring(128), torch.randn(128, 8)) for _ in range(steps)))
        found[end] = small_g(torch.randn(1000, 8)).detach()
    return found


places = torch.tensor([[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)])
points = {
    "discriminator four times as fast": train_on_ring(4e-3, 1e-3),
    "both as fast": train_on_ring(1e-3, 1e-3),
    "generator twice as fast": train_on_ring(1e-3, 2e-3),
}
fig, axes = plt.subplots(1, 3, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
for ax, (title, found) in zip(axes, points.items(), strict=True):
    for (step, cloud), color in zip(found.items(), ("C0", "C1", "C3"), strict=True):
        ax.scatter(*cloud.T, s=4, alpha=0.5, linewidths=0, color=color, label=f"step {step}")
    ax.scatter(*places.T, s=60, facecolors="none", edgecolors="black", label="real places")
    ax.set(title=title, aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    near = [(torch.cdist(cloud, places).amin(1) < 0.15).float().mean() for cloud in found.values()]
    print(f"{title}: share of the points near a place " + ", ".join(f"{each:.0%}" for each in near))
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=2)

# %%
# Only the faster discriminator keeps the generator on the whole ring. With equal rates this one collapses, too (with
# other seeds some recover): a cloud covers a place or two, and 150 steps later it is elsewhere. On digits, collapse is
# the same digit again and again; coverage shows it. What else helps: a wider discriminator (but one that is always
# right teaches nothing); *spectral norm*, which divides each of its weight matrices by the largest singular value, so
# that its slope is bounded; the *hinge* loss, which stops where the discriminator is sure enough; the *Wasserstein*
# loss, which compares mean scores.

# %%
# Exercise 1: the end of the game
# -------------------------------
# Suppose that :math:`D = 1/2` for every image. What are the losses ``[J_D, J_G]``, to two decimals?
losses = ...

check(losses, [-(2 * math.log(0.5)) / 2, -math.log(0.5)], hint="Put 1/2 into both formulas.", close=0.01)

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


def clouds(k):
    """Return three points close to each of k places, one at some distance of each, and five in the middle."""
    return torch.cat([places[:k] + 0.1] * 3 + [places[:k] * 1.3, torch.zeros(5, 2)])


check(
    count_places,
    lambda f: [int(f(clouds(k))) for k in (0, 1, 5, 8)] == [0, 1, 5, 8] or "it miscounts points close to some places",
    hint="torch.cdist(points, places) has the shape (N, 8).",
)

# %%
# .. dropdown:: Solution
#
#    Take the minimum over the points: over the places, you would count points. Try it on the clouds in ``points``.
#
#    .. code-block:: python
#
#       def count_places(points):
#           return (torch.cdist(points, places).amin(0) < 0.15).sum()

# %%
# Where next
# ----------
# ``python scripts/train_gan.py --dataset mnist --model deep --max-steps 30000`` trains these networks as long as the
# course does, and ``python scripts/evaluate_gan.py RUN`` measures the result. ``--model conv --loss hinge`` is the
# recipe of the pretrained generator; ``python scripts/sweep_gan.py`` compares all
# networks with all losses. RESULTS lists the Fréchet distances beside that of real images. In the API:
# :class:`torchdl.GANTask`, :func:`torchdl.deep_gan`, :func:`torchdl.conv_gan`,
# :func:`torchdl.metrics.frechet_distance`, and :func:`torchdl.latent.invert`, which finds the noise of a given image.
# The next lesson, :doc:`/learn/24_lenet_and_autoencoders`, turns the arrow round: from an image to a short code, and
# back.
