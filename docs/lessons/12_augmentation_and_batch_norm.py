"""
Augmentation and batch norm
===========================

How can a network learn more from the images that it has? Augmentation changes the images in every epoch, and batch norm
changes the numbers between the layers. We look at both, write both by hand, and measure what each is worth.

At the end you can

- choose the arguments of an image generator by looking at what they do, and avoid those that change the meaning,
- write a generator of batches, and know when it has to stop,
- compute batch norm by hand, in training and in evaluation,
- say what each of the two adds to the accuracy, and name the mistakes that undo it.
"""

# %%
# Augmentation: the idea
# ----------------------
# A shoe that is moved by two pixels is still a shoe. We know this, and the network does not, so we show it: each
# epoch draws another version of each image. That costs no memory if the versions are made batch by batch, while
# training runs. In Python, that is a **generator**: a function with ``yield``, which makes its next value when it is
# asked for one. ``range`` works like this, too; ``list(range(n))`` does not.
#
# By hand: a generator of batches
# -------------------------------
# The one below turns each image by a random angle. It never ends by itself, so somebody has to say how many steps an
# epoch has: Keras calls this ``steps_per_epoch``. A grid tells for each pixel of the result where to look in the
# image, and PyTorch interpolates there.

from collections.abc import Iterator
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import torchdl
from torchdl import Augmentation, AugmentedImages, BatchLoader
from torchdl.data.augment import affine_matrix, warp
from torchdl.plots import plot_image_rows

digits = torchdl.load_images("mnist_5k")
order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
train, test = digits.subset(order[:500]), digits.subset(order[500:2500])  # few to learn from, many to test
x_test, y_test = test[:]


def turn(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn images (B, C, H, H) by angles (B,)."""
    angle, zero = torch.deg2rad(degrees), torch.zeros(len(degrees))
    rows = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)  # (B, H, H, 2), from -1 to 1
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def generator(images: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of turned images, for ever."""
    draws = torch.Generator().manual_seed(0)
    while True:
        for indices in torch.randperm(len(images), generator=draws).split(batch_size):
            degrees = 40 * torch.rand(len(indices), generator=draws) - 20
            yield turn(images[indices], degrees), labels[indices]


steps_per_epoch = -(-len(train) // 32)
batches = generator(*train[:], batch_size=32)
epoch = [next(batches) for _ in range(steps_per_epoch)]
print(f"{steps_per_epoch} steps make an epoch of {sum(len(labels) for _, labels in epoch)} images")

few, angles = x_test[:4], torch.tensor([-20.0, -10.0, 10.0, 20.0])
none, one = torch.zeros(4), torch.ones(4)
torch.testing.assert_close(turn(few, angles), warp(few, affine_matrix(angles, none, none, none, one, one)))

# %%
# The last line says that torchdl moves pixels in the same way. It does so for whole batches, on the device that holds
# the images.
#
# With torchdl: every argument as pictures
# ----------------------------------------
# :class:`torchdl.Augmentation` has the arguments of Keras' ``ImageDataGenerator``. Each row shows what one of them
# makes of a photograph in eight epochs, and the last what all together do. Look at such a sheet before each training.

photo = torch.from_numpy(load_sample_image("china.jpg").copy())[::4, 20:448:4].permute(2, 0, 1)  # (3, 107, 107)
arguments = Augmentation(
    rotation_range=20,
    width_shift_range=0.2,
    height_shift_range=0.2,
    shear_range=20,
    zoom_range=(0.6, 1.4),
    horizontal_flip=True,
    vertical_flip=True,
    brightness_range=(0.4, 2),
    channel_shift_range=80,
)
plot_image_rows(AugmentedImages(torchdl.ImageDataset(photo[None]), arguments).examples(count=8))

# %%
# Shifts and turns leave gaps at the edges, which the nearest pixels fill: the streaks. ``fill_mode`` chooses
# something else. Angles, also that of the shear, are in degrees, so the course's ``shear_range=0.1`` is hardly
# visible.
#
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - torchdl
#      - the trap
#    * - ``ImageDataGenerator(...)``
#      - ``Augmentation(...)``
#      - flips: True means with probability 0.5
#    * - ``generator.flow(x, y, batch_size)``
#      - ``BatchLoader(AugmentedImages(images, augmentation), batch_size, shuffle=True)``
#      - the loader ends after each epoch; the flow never does
#    * - ``fit_generator(flow, steps_per_epoch=len(x) // 32)``
#      - ``Trainer(epochs=50).fit(task, loader)``
#      - rounding down leaves out the last images of an epoch
#    * - ``validation_data=(x_test, y_test)``
#      - ``validation=BatchLoader(test, 500)``
#      - never augment what you test on
#    * - ``BatchNormalization()``: momentum 0.99, epsilon 1e-3
#      - ``nn.BatchNorm2d(C)``: momentum 0.1, eps 1e-5
#      - PyTorch's momentum is the weight of the new batch: Keras' 0.99 is 0.01 here
#
# Batch norm: the idea
# --------------------
# We standardize the inputs of a network. After the first layer nothing is standardized any more, and what the second
# layer reads changes with every step of the first. Batch norm standardizes each channel again, by the mean and the
# variance of the batch, over all B images and H x W places. Nobody knows whether mean 0 and variance 1 are best, so
# two learned numbers a channel, :math:`\gamma` and :math:`\beta`, may move them:
#
# .. math:: z = \frac{x - \mu_B}{\sqrt{\sigma_B^2 + \varepsilon}}, \qquad y = \gamma z + \beta.
#
# To classify one image there is no batch. So in training, running averages are kept, and evaluation uses them
# instead:
#
# .. math:: \mu \leftarrow (1 - m)\, \mu + m\, \mu_B, \qquad \sigma^2 \leftarrow (1 - m)\, \sigma^2 + m\, s_B^2,
#
# with m = 0.1 in PyTorch, where :math:`s_B^2` divides by n - 1 instead of n.
#
# By hand: batch norm
# -------------------


class BatchNorm(nn.Module):
    """Standardize each channel of (B, C, H, W)."""

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Use the batch's statistics in training, and the running ones in evaluation."""
        mean, var = self.mean, self.var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.var.lerp_(x.var((0, 2, 3)), self.momentum)
        z = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.gamma[:, None, None] * z + self.beta[:, None, None]


torch.manual_seed(0)
ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
for _ in range(5):
    x = 2 * torch.randn(8, 3, 6, 6) + 1
    torch.testing.assert_close(ours(x), theirs(x))
torch.testing.assert_close((ours.mean, ours.var), (theirs.running_mean, theirs.running_var))
torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
print(f"running mean {ours.mean.mean():.2f} after 5 batches of mean 1: 1 - 0.9 ** 5 = {1 - 0.9**5:.2f}")

# %%
# Batch norm stands after convolutions; between dense layers, dropout is more usual.
#
# What is each worth?
# -------------------
# We train a small network on 500 digits, with and without each, and test it on 2,000 others. The loop is the usual
# one, with a learning rate that falls along a cosine; only the loader and the layers change. Digits must not be
# mirrored, so we shift and turn them a little.


def network(normalized: bool) -> nn.Sequential:
    """Build two convolutions with pooling, and a hidden layer."""
    layers, channels = [], 1
    for width in (8, 16):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.BatchNorm2d(width)] * normalized + [nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10))


@torch.no_grad()
def score(model: nn.Module) -> float:
    """Return the test accuracy, in per cent."""
    return 100 * (model.eval()(x_test).argmax(1) == y_test).float().mean().item()


def fit(model: nn.Module, images: torchdl.ImageDataset | AugmentedImages, epochs: int) -> dict[int, float]:
    """Train a network, and return its test accuracy after some of the epochs."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loader, scores = BatchLoader(images, batch_size=32, shuffle=True), {}
    for epoch in range(1, epochs + 1):
        model.train()
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if epoch % 3 == 0:
            scores[epoch] = score(model)
    return scores


mild = Augmentation(width_shift_range=0.1, height_shift_range=0.1, rotation_range=10)
curves, models = {}, {}
for name, normalized, images in (
    ("neither", False, train),
    ("augmentation", False, AugmentedImages(train, mild)),
    ("batch norm", True, train),
    ("both", True, AugmentedImages(train, mild)),
):
    torch.manual_seed(0)
    models[name] = network(normalized)
    curves[name] = fit(models[name], images, epochs=18)
    print(f"{name:13} test accuracy {curves[name][18]:.1f} %")

fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, scores in curves.items():
    ax.plot(list(scores), [100 - value for value in scores.values()], ".-", label=name)
ax.xaxis.set_major_locator(MaxNLocator(integer=True))
ax.set(title="500 training digits", xlabel="epoch", ylabel="test error, %", ylim=(0, None))
ax.legend()
plt.show()

# %%
# Lower is better. Batch norm learns faster from the first epochs on. Augmentation alone is slower, because each epoch
# is new and harder, and 18 epochs are too few for it. Together they are best: batch norm makes learning fast,
# augmentation gives more to learn from. Each curve is one seed; differences of a point can be chance.
#
# The same training with torchdl has no loop. One epoch from the same weights ends with the same weights:

torch.manual_seed(0)
by_hand = network(normalized=True)
with_torchdl = network(normalized=True)
with_torchdl.load_state_dict(by_hand.state_dict())
fit(by_hand, AugmentedImages(train, mild), epochs=1)
task = torchdl.Supervised(with_torchdl, F.cross_entropy, optimizer=partial(torch.optim.Adam, lr=3e-3))
loader = BatchLoader(AugmentedImages(train, mild), batch_size=32, shuffle=True)
torchdl.Trainer(epochs=1, device="cpu").fit(task, loader)
torch.testing.assert_close(by_hand.state_dict(), with_torchdl.state_dict(), rtol=1e-3, atol=1e-4)

# %%
# What breaks augmentation: a change of meaning
# ---------------------------------------------
# A mirrored cat is a cat. A mirrored 2 is no digit, and a 6 upside down is a 9. Two flips more, and the gain is gone:

torch.manual_seed(0)
flipped = Augmentation(**{**mild.chosen, "horizontal_flip": True, "vertical_flip": True})
scores = fit(network(normalized=True), AugmentedImages(train, flipped), epochs=18)
print(f"with both flips: test accuracy {scores[18]:.1f} %, without them {curves['both'][18]:.1f} %")

# %%
# What breaks batch norm: the wrong mode
# --------------------------------------
# In training mode the output for an image depends on the other images of its batch. This is noise, and noise is what
# makes batch norm work against overfitting, as dropout does. In evaluation it is a mistake: call ``model.eval()``.
# Below, the same 2,000 digits are classified in both modes, in batches that are sorted by class.

model = models["both"]
by_class = y_test.argsort()
accuracies = {}
for mode in ("evaluation", "training"):
    model.train(mode == "training")
    with torch.no_grad():
        logits = torch.cat([model(x_test[indices]) for indices in by_class.split(50)])
    accuracies[mode] = 100 * (logits.argmax(1) == y_test[by_class]).float().mean().item()
    print(f"{mode:10} mode: accuracy {accuracies[mode]:.1f} %")

# %%
# The network, deeper
# -------------------
# Lecture 36 puts both together: blocks of two convolutions that keep the sides, each with batch norm, then pooling,
# as in VGG. :class:`torchdl.VGGLike` is this network. In the lecture's listing each layer reads the input ``i``
# instead of the layer before. No error appears, but all convolutions except the last compute for nothing, and only
# one pooling is left before the dense layer. The shapes tell it: count before you train.

vgg = torchdl.VGGLike((3, 32, 32), num_classes=10)
print(f"VGGLike: {sum(p.numel() for p in vgg.parameters()):,} parameters, of which the hidden layer has", end=" ")
print(f"{128 * 4 * 4 * 1024:,}; as listed, it would have {128 * 16 * 16 * 1024:,} weights")

# %%
# Exercise 1: Steps
# -----------------
# There are 50,000 images, and batches have 128. How many steps has an epoch that leaves no image out?

steps = ...
check(steps, len(BatchLoader(list(range(50_000)), 128)), hint="The last batch is smaller.")

# %%
# .. dropdown:: Solution
#
#    390 batches are full, and one has the rest.
#
#    .. code-block:: python
#
#       steps = -(-50_000 // 128)

# %%
# Exercise 2: A running mean
# --------------------------
# A running mean starts at 0, with momentum 0.1. Two batches have the means 1 and 2. What is it then?

running = ...
norm = nn.BatchNorm1d(1)
_ = norm(torch.tensor([[0.0], [2.0]])), norm(torch.tensor([[1.0], [3.0]]))
check(running, norm.running_mean.item(), hint="Each batch moves it by a tenth of the way.")

# %%
# .. dropdown:: Solution
#
#    After the first batch it is 0.1; nine tenths of this and a tenth of 2 follow.
#
#    .. code-block:: python
#
#       running = 0.9 * (0.1 * 1) + 0.1 * 2

# %%
# Exercise 3: Fold batch norm away
# --------------------------------
# In evaluation batch norm is a factor and a number for each channel. Write a function of an ``nn.BatchNorm2d`` that
# returns both in one tensor (2, C): factors a and numbers b, so that the layer computes a x + b.

fold = ...
layer = models["both"][2].eval()
maps = torch.randn(2, 8, 4, 4)
check(
    fold,
    lambda function: (
        torch.allclose(
            function(layer)[0][:, None, None] * maps + function(layer)[1][:, None, None], layer(maps), atol=1e-4
        )
        or "a x + b is not what the layer computes"
    ),
    hint="weight, bias, running_mean, running_var and eps are the layer's attributes.",
)

# %%
# .. dropdown:: Solution
#
#    Programs that only predict do this, and merge both numbers into the convolution before.
#
#    .. code-block:: python
#
#       def fold(norm):
#           factor = norm.weight / (norm.running_var + norm.eps).sqrt()
#           return torch.stack([factor, norm.bias - factor * norm.running_mean])

# %%
# Where next
# ----------
# - ``python scripts/train_cnn.py --model vgg --dataset cifar10 --horizontal-flip 0.5`` trains lecture 36's network;
#   ``train_lenet.py --width-shift-range 0.1 --height-shift-range 0.1 --horizontal-flip 0.5`` augments as lecture 34.
# - :class:`torchdl.AugmentedImages`, :class:`torchdl.Augmentation` and :class:`torchdl.VGGLike` are the API.
# - RESULTS.md, under Images, has a case where augmentation hurts: on Fashion-MNIST the course's network had too few
#   epochs for it. It also has the VGG-like network on CIFAR-10, at three times its width.
# - Sequences are next: :doc:`/learn/13_sequences_and_autoregression`.
