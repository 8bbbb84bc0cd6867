"""
Convolutional networks
======================

How does a network get from pixels to a class by convolutions, and which shapes does it pass on the way? We build the
course's network for Fashion-MNIST by hand, count everything in it, and see what it learns.

At the end you can

- compute the shape and the number of parameters of every layer,
- halve the sides by strides or by pooling, and say what each costs,
- compute the receptive field of a unit, and check it by a gradient,
- read learning curves, a confusion matrix, mistakes and filters,
- test whether a network still recognizes an image that has moved.
"""

# %%
# The idea
# --------
# A convolutional network has two parts. The **body** is a chain of convolutions. Each searches its input for small
# patterns, by many kernels, and writes one map a pattern. Between them the maps shrink, so the same small kernel
# covers a larger part of the image: strokes first, then corners, then parts of things. Where a pattern was is lost
# step by step, and what was found remains. The **head** is an ordinary network with a dense layer or two, which
# classifies the last maps as a vector.
#
# A convolution of K pixels with P zeros on each side and a stride of S (the kernel moves by S pixels) turns N pixels
# a side into
#
# .. math:: N' = \left\lfloor \frac{N + 2P - K}{S} \right\rfloor + 1.
#
# Pooling has the same formula. It keeps the maximum (or the mean) of each window of K pixels, without any weights.
# The usual K = S = 2 halves the sides; with S < K, windows overlap. The maximum says that a pattern was found, not
# exactly where. Neighbouring pixels are similar, so a stride in the convolution itself loses little either, and
# computes only a quarter of the numbers.
#
# Conventions to start from: kernels of 3, 5 or 7 pixels; maps that get smaller and more (32, 64, 128); dropout in the
# head, rarely between convolutions. ``Conv2d`` is for images, whose channels are no direction in space. Speech needs
# ``Conv1d``, video or a body scan ``Conv3d``.
#
# By hand: shapes, layer by layer
# -------------------------------
# The data: Fashion-MNIST, ten kinds of clothes in 28 x 28 pixels, if it is on this machine; otherwise 5,000 digits,
# which come with torchdl's dependencies. PyTorch wants images as (B, C, H, W), so a grey image has the shape (1, 28,
# 28).

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

import torchdl
from torchdl.plots import plot_confusion, plot_predicted_images
from torchdl.tasks import accuracy

try:
    train = torchdl.load_images("fashion_mnist", fetch=False).subset(torch.arange(6000))
    test = torchdl.load_images("fashion_mnist", "test", fetch=False).subset(torch.arange(2000))
except torchdl.InputError:
    train, test = torchdl.load_images("mnist_5k"), torchdl.load_images("mnist_5k", "test")
x_test, y_test = test[:]
print(f"{train.origin}: {len(train):,} training and {len(test):,} test images, {len(train.classes)} classes")


def strided(widths: tuple[int, ...] = (32, 64, 128), hidden: int = 512) -> nn.Sequential:
    """Build the course's network: convolutions of stride 2, and a hidden layer."""
    layers, channels, side = [], 1, 28
    for width in widths:
        layers += [nn.Conv2d(channels, width, kernel_size=3, stride=2), nn.ReLU()]
        channels, side = width, (side - 3) // 2 + 1
    head = [nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels * side**2, hidden), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Dropout(0.2), nn.Linear(hidden, 10))


def summarize(model: nn.Sequential, x: Tensor) -> None:
    """Print the shape after each layer, and its number of parameters."""
    for layer in model:
        x = layer(x)
        count = sum(p.numel() for p in layer.parameters())
        if not isinstance(layer, (nn.ReLU, nn.Dropout)):
            print(f"{type(layer).__name__:17} {tuple(x.shape)!s:20} {count:9,}")


torch.manual_seed(0)
model = strided()
summarize(model, x_test[:1])
print(f"in total {sum(p.numel() for p in model.parameters()):,} parameters")

# %%
# 28 becomes 13, 6 and 2 pixels a side, while the maps become 32, 64 and 128. Most of the parameters are in the hidden
# layer, whose input is the last maps as one vector of :math:`128 \cdot 2 \cdot 2` numbers.
#
# By hand: train it
# -----------------
# Nothing is new in the loop: softmax and cross-entropy, as for any classifier.

epochs = 5


@torch.no_grad()
def measure(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the loss and the accuracy."""
    logits = model.eval()(images)
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def fit(model: nn.Module, epochs: int) -> list[dict[str, float]]:
    """Train a network, and return a row of metrics per epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader, rows = torchdl.BatchLoader(train, batch_size=64, shuffle=True), []
    for epoch in range(1, epochs + 1):
        model.train()
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        measured = {"train": measure(model, *train.spread(1000)), "val": measure(model, x_test, y_test)}
        rows.append({"epoch": epoch, **{f"{part}/loss": numbers[0] for part, numbers in measured.items()}})
        rows[-1] |= {f"{part}/accuracy": numbers[1] for part, numbers in measured.items()}
    return rows


start = {name: weight.clone() for name, weight in model.state_dict().items()}
history = fit(model, epochs)
print(", ".join(f"{name} {value:.3f}" for name, value in history[-1].items()))
torchdl.plots.plot_history(history)

# %%
# The loss on training images goes on falling. That on test images (orange, "validation") falls more slowly, and the
# gap grows from epoch to epoch: the network overfits. After more epochs the test loss rises while the accuracy stays,
# because the network becomes more certain of its mistakes, too.
#
# With torchdl
# ------------
# :class:`torchdl.StridedCNN` is this network. From the same weights it computes the same logits.

same = torchdl.StridedCNN((1, 28, 28), num_classes=10, hidden=512, dropout=(0.2, 0.2))
same.load_state_dict(dict(zip(same.state_dict(), start.values(), strict=True)))
by_hand = strided()
by_hand.load_state_dict(start)
torch.testing.assert_close(same.eval()(x_test[:9]), by_hand.eval()(x_test[:9]))

task = torchdl.Supervised(same, F.cross_entropy, metrics={"accuracy": accuracy})
batches = torchdl.BatchLoader(train, 64, shuffle=True)
rows = torchdl.Trainer(epochs=epochs, device="cpu").fit(task, batches, torchdl.BatchLoader(test, 500))
print(f"test accuracy: by hand {history[-1]['val/accuracy']:.3f}, with torchdl {rows[-1]['val/accuracy']:.3f}")

# %%
# The two differ a little, because dropout draws other units. Lecture 33's network for CIFAR-10 is the same with three
# colours, a larger hidden layer and more dropout:

colour = torchdl.StridedCNN((3, 32, 32), num_classes=10, hidden=1024, dropout=(0.5, 0.2))
print(f"the network for CIFAR-10 has {sum(p.numel() for p in colour.parameters()):,} parameters")

# %%
# Look
# ----
# Which classes does it confuse? A row is a true class, a column a predicted one.

with torch.no_grad():
    probabilities = model.eval()(x_test).softmax(1)
predicted = probabilities.argmax(1)
matrix = torch.bincount(y_test * 10 + predicted, minlength=100).view(10, 10).numpy()
plot_confusion(matrix, train.classes)

# %%
# Everything on the diagonal is correct. Off it are pairs that look alike: 4 and 9 among digits, shirts and T-shirts
# among clothes. The mistakes of which the network is most certain are worth a look:

wrong = (predicted != y_test).nonzero()[:, 0]
worst = wrong[probabilities[wrong, predicted[wrong]].argsort(descending=True)[:6]]
plot_predicted_images(
    x_test[worst],
    [f"true {train.classes[y_test[i]]}" for i in worst],
    [train.classes[predicted[i]] for i in worst],
    "The most confident mistakes",
)

# %%
# The first layer's kernels have 3 x 3 numbers, so we can see them, and the maps that they make of one image.

kernels = model[0].weight.detach()[:, 0]  # (32, 3, 3)
maps = model[:2](x_test[7:8]).detach()[0]  # (32, 13, 13), after ReLU
fig, axes = plt.subplots(2, 9, figsize=(10, 2.8), layout="constrained")
limit = float(kernels.abs().max())
axes[0, 0].set_axis_off()
axes[1, 0].imshow(x_test[7, 0], cmap="gray")
axes[1, 0].set_title("image", fontsize=9)
for column, (upper, lower) in enumerate(axes.T[1:]):
    shown = upper.imshow(kernels[column], cmap="RdBu", vmin=-limit, vmax=limit)
    lower.imshow(maps[column], cmap="gray")
    upper.set_title(f"kernel {column}", fontsize=9)
    lower.set_title(f"map {column}", fontsize=9)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
fig.colorbar(shown, ax=axes[0], label="weight")
plt.show()

# %%
# Blue is positive, red negative. Kernels with blue on one side and red on the other find edges of one direction, and
# their maps are bright along these edges alone.
#
# Receptive field
# ---------------
# One unit of the last map sees only a part of the image. Before layer :math:`l`, neighbouring units are
# :math:`j_{l-1} = S_1 S_2 \cdots S_{l-1}` pixels apart, so a kernel of :math:`K_l` adds :math:`(K_l - 1)\, j_{l-1}`:
#
# .. math:: r_l = r_{l-1} + (K_l - 1)\, j_{l-1}, \qquad r_0 = 1.
#
# Three kernels of 3 with stride 2 see :math:`1 + 2 + 4 + 8 = 15` pixels. A gradient can prove it: the pixels on which
# a unit depends are those where its derivative is not 0.


def receptive_field(body: nn.Module, side: int = 61) -> Tensor:
    """Return where in an image (H, W) the middle unit of the last map looks."""
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)  # weights that cannot cancel
    image = torch.ones(1, 1, side, side, requires_grad=True)
    maps = body(image)
    maps[0, 0, maps.shape[2] // 2, maps.shape[3] // 2].backward()
    return image.grad[0, 0] != 0


pooling = [nn.Conv2d(1, 1, 3), nn.AvgPool2d(2)]
bodies = {
    "three of 3 x 3, stride 1": nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(3))),
    "three of 3 x 3, stride 2": nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2) for _ in range(3))),
    "three of 3 x 3, each with pooling": nn.Sequential(*pooling, *pooling, *pooling),
}
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, (name, body) in zip(axes, bodies.items(), strict=True):
    seen = receptive_field(body)
    ax.imshow(seen, cmap="Blues")
    width = int(seen.any(0).sum())
    ax.set(title=f"{name}:\n{width} x {width} pixels", xlabel="column", ylabel="row")
fig.suptitle("What one unit sees of an image of 61 x 61 pixels")
plt.show()

# %%
# What breaks it: a picture that has moved
# ----------------------------------------
# "Translation invariant" is said of convolutional networks. Pooling makes them a little so, but a head that reads the
# flattened map knows every place. **Global max pooling** keeps one number a map, its maximum, wherever it is. Then
# the head does not know the place, and images of any size fit in. We train three small networks and move the test
# images.


def pooled(last: nn.Module, features: int) -> nn.Sequential:
    """Build a network with max-pooling after each convolution, and ``last`` at the end of its body."""
    layers, channels = [], 1
    for width in (8, 16):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    body = [*layers, nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), last, nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 10))


def products(model: nn.Sequential, x: Tensor) -> int:
    """Count the multiplications that one image (1, C, H, W) takes."""
    total = 0
    for layer in model:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            total += x[0].numel() * layer.weight[0].numel()
    return total


torch.manual_seed(0)
networks = {
    "stride 2, flattened": strided((8, 16, 32), 64),
    "max-pooling, flattened": pooled(nn.MaxPool2d(2), 32 * 3 * 3),
    "max-pooling, global at the end": pooled(nn.AdaptiveMaxPool2d(1), 32),
}
distances = range(0, 11, 2)
fig, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
for name, network in networks.items():
    fit(network, 4)
    moved = (F.pad(x_test, (distance, 0, 0, 0))[..., :28] for distance in distances)  # to the right, black behind
    scores = [100 * measure(network, images, y_test)[1] for images in moved]
    ax.plot(distances, scores, ".-", label=name)
    print(f"{name:30} {products(network, x_test[:1]):9,} multiplications;", end=" ")
    print(f"not moved {scores[0]:.1f} %, moved by 4 pixels {scores[2]:.1f} %")
ax.axhline(10, color="0.5", linestyle="--", label="chance")
ax.xaxis.set_major_locator(MaxNLocator(integer=True))
ax.set(title="Test images moved to the right", xlabel="pixels", ylabel="test accuracy, %", ylim=(0, 100))
fig.legend(loc="outside lower center", ncols=2)
plt.show()

# %%
# Strides are much cheaper than pooling, since they do not compute what pooling would drop, but pooling keeps the
# largest response wherever it is. All of them lose in the end. Among digits, which have a black margin, the network
# with the global maximum loses least; clothes fill their image, and soon a part of them is outside. The cure for the
# others is to train on moved images, in the next lesson.
#
# Global pooling also takes larger images. It needs maps to pool, so images that are too small for the layers before
# it are an error:

print("64 x 64 pixels:", tuple(networks["max-pooling, global at the end"](torch.zeros(1, 1, 64, 64)).shape))
try:
    networks["max-pooling, global at the end"](torch.zeros(1, 1, 3, 3))
except RuntimeError as error:
    print(f"3 x 3 pixels: {str(error).splitlines()[0][:90]}")

# %%
# From Keras to PyTorch
# ---------------------
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - the trap
#    * - ``Conv2D(32, (3, 3), strides=2, activation="relu")(i)``
#      - ``nn.Conv2d(1, 32, 3, stride=2)``, then ``nn.ReLU()``
#      - the activation is a layer of its own
#    * - ``np.expand_dims(x, -1)``
#      - ``x[:, None]``
#      - (N, H, W, 1) there, (N, 1, H, W) here; colours need ``permute(0, 3, 1, 2)``
#    * - ``Flatten()``
#      - ``nn.Flatten()``
#      - the order is H, W, C there and C, H, W here: copied dense weights must be reordered
#    * - ``Dense(10, activation="softmax")``, ``sparse_categorical_crossentropy``
#      - ``nn.Linear(512, 10)``, ``F.cross_entropy``
#      - the loss contains the softmax; a second one makes learning slow
#    * - ``GlobalMaxPooling2D()``
#      - ``x.amax((2, 3))``
#      -
#    * - ``Model(i, x)``, the functional API
#      - ``nn.Sequential``, or a class with ``forward``
#      - branches are plain Python: ``torch.cat([a(x), b(x)], 1)``
#    * - ``model.summary()``, ``model.fit(...)``
#      - the functions above, or ``torchdl.Trainer``
#      - ``model.eval()`` before measuring, or dropout stays on

# %%
# Exercise 1: A shape
# -------------------
# An image has 32 x 32 pixels. How many pixels a side has the map after ``nn.Conv2d(3, 8, 5, stride=2, padding=1)``
# and ``nn.MaxPool2d(2)``?

side = ...
check(
    side,
    nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=1), nn.MaxPool2d(2))(torch.zeros(1, 3, 32, 32)).shape[-1],
    hint="Use the formula twice, and round down.",
)

# %%
# .. dropdown:: Solution
#
#    The convolution leaves 15 pixels, pooling 7: the last row and column are dropped.
#
#    .. code-block:: python
#
#       side = ((32 + 2 - 5) // 2 + 1) // 2

# %%
# Exercise 2: A receptive field
# -----------------------------
# How many pixels a side does a unit see after four convolutions of 3 x 3 with stride 1, and then one of 5 x 5?

field = ...
deep = nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(4)), nn.Conv2d(1, 1, 5))
check(field, int(receptive_field(deep).any(0).sum()), hint="With stride 1, each kernel adds K - 1.")

# %%
# .. dropdown:: Solution
#
#    All units are one pixel apart, so every kernel adds its side less 1.
#
#    .. code-block:: python
#
#       field = 1 + 4 * (3 - 1) + (5 - 1)

# %%
# Exercise 3: Two branches
# ------------------------
# Write a function of two modules and images (B, C, H, W). It runs the images through both modules, side by side, and
# returns the global maximum of each of their maps in one tensor (B, C'), those of the first module first.

branches = ...
one, two = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 6, 5)
together = torch.cat([one(x_test[:3]).amax((2, 3)), two(x_test[:3]).amax((2, 3))], 1)
check(
    branches,
    lambda function: torch.equal(function(one, two, x_test[:3]), together) or "the numbers are different",
    hint="The maps of the branches differ in size, their maxima do not: use amax and torch.cat.",
)

# %%
# .. dropdown:: Solution
#
#    This is what the functional API is for; in PyTorch it is a line of Python.
#
#    .. code-block:: python
#
#       def branches(first, second, images):
#           return torch.cat([part(images).amax((2, 3)) for part in (first, second)], 1)

# %%
# Where next
# ----------
# - ``python scripts/train_cnn.py --model cnn --dataset fashion_mnist`` trains lecture 32's network on all images, and
#   ``--model cnn_wide --dataset cifar10`` lecture 33's.
# - :class:`torchdl.StridedCNN` and :class:`torchdl.LenetLike` (with pooling) are the networks;
#   :class:`torchdl.AirbenchLike` ends with a global maximum.
# - RESULTS.md has their accuracies under Images. CIFAR-10's network overfits as this one does.
# - The next lesson fights overfitting: :doc:`/learn/12_augmentation_and_batch_norm`.
