r"""
LeNet and autoencoders
======================

How wide and how deep should a small convolutional network be? And what do the same stages learn without any labels, if
32 numbers must stand for a picture?

At the end you can write a LeNet-like classifier and an autoencoder of any width and depth, name every shape in them,
know the files of a run, and use latent codes to reconstruct, retrieve and denoise pictures.
"""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from check import check
from sklearn.cluster import KMeans
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

import torchdl
from torchdl.tasks import accuracy, find_schedule

# %%
# The idea
# --------
# Both networks are made of stages that halve the sides: a 3x3 convolution that keeps them, an activation, and
# max-pooling over 2x2 pixels. After :math:`d` stages an image of :math:`H \times W` pixels has
# :math:`\lfloor H / 2^d \rfloor \times \lfloor W / 2^d \rfloor` places. *Depth* is the number of stages; *width* is the
# number of filters in the first one, and each further stage of the classifier has twice as many. Its last maps are
# flattened, and a hidden layer of 512 units and a linear layer follow.
#
# An *autoencoder* :math:`f` has no labels: its target is its input, and it minimizes
#
# .. math:: \frac{1}{CHW} \lVert f(x) - x \rVert^2, \qquad
#    f(x) = \text{decoder}(z), \quad z = \text{encoder}(x) \in \mathbb{R}^D,\; D \ll CHW.
#
# The *latent code* :math:`z` is so small that copying is impossible. The encoder must find what digits have in common,
# and the decoder, whose stages double the sides by repeating each number, must know it.
train, test = (torchdl.load_images("mnist_5k", part) for part in ("train", "test"))
(x, y), (x_test, y_test) = (data[: len(data)] for data in (train, test))  # (4500, 1, 28, 28), (4500,); (500, ...)
loader = torchdl.BatchLoader(train, batch_size=64, shuffle=True, seed=0)

# %%
# By hand: LeNet
# --------------
# Building the network takes no images; calling it takes any batch of them. One epoch of training follows.


class Lenet(nn.Module):
    """Classify 1x28x28 images by ``depth`` halving stages, the first with ``width`` filters."""

    def __init__(self, width, depth, classes=10):
        super().__init__()
        stages, channels = [], 1
        for stage in range(depth):
            filters = width * 2**stage
            stages += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels = filters
        self.features = nn.Sequential(*stages)
        side = 28 // 2**depth
        self.classifier = nn.Sequential(nn.Linear(channels * side**2, 512), nn.ReLU(), nn.Linear(512, classes))

    def forward(self, images):
        """Return the logits (B, K) of images (B, 1, 28, 28)."""
        return self.classifier(self.features(images).flatten(1))  # (B, C, H, W) -> (B, C * H * W) -> (B, K)


torch.manual_seed(0)
model = torchdl.LenetLike((1, 28, 28), num_classes=10, width=8, depth=2)
by_hand = Lenet(width=8, depth=2)
by_hand.load_state_dict(dict(zip(by_hand.state_dict(), model.state_dict().values(), strict=True)))
optimizer = torch.optim.Adam(by_hand.parameters(), 1e-3)
total = 0.0
for indices in loader.order(epoch=0).split(64):
    loss = F.cross_entropy(by_hand(x[indices]), y[indices])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total += float(loss.detach()) * len(indices)
print(f"one epoch by hand: loss {total / len(x):.4f}")

# %%
# With torchdl: width and depth
# -----------------------------
# The same start and the same batches give the same loss. Then each network has two epochs. Most parameters lie between
# the last maps and the hidden layer. Twice the width doubles them; one stage more halves them, because it has twice the
# filters at a quarter of the places. So deeper is smaller here. After so few steps it is also behind: it learns more
# slowly, and with depth 4 each filter has one place left.


def fit(model, epochs):
    """Train a classifier with torchdl, and return the last row of the history."""
    task = torchdl.Supervised(model, F.cross_entropy, {"accuracy": accuracy})
    return torchdl.Trainer(epochs=epochs, device="cpu").fit(task, loader, torchdl.BatchLoader(test, 500))[-1]


assert abs(fit(model, epochs=1)["train/loss"] - total / len(x)) < 1e-3
print("width depth  last maps   parameters  test accuracy")
for width, depth in ((8, 1), (8, 2), (8, 3), (8, 4), (16, 2)):
    torch.manual_seed(0)
    model = torchdl.LenetLike((1, 28, 28), 10, width=width, depth=depth)
    maps = "x".join(map(str, model.features(x[:1]).shape[1:]))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{width:5} {depth:5}  {maps:10} {count:11,}  {fit(model, epochs=2)['val/accuracy']:.1%}")

# %%
# Artifacts: the files of a run
# -----------------------------
# A training leaves files. Here are those of a short run: the architecture as JSON, the weights as safetensors (Keras'
# ``.h5``), the metrics of each epoch as a table and as a figure. The first two are enough to load the model. An
# autoencoder's run, such as that of :func:`torchdl.fit_model_cifar10`, has the rebuilt test images among its figures.
with tempfile.TemporaryDirectory() as root:
    fitted, history = torchdl.fit_model_on("mnist_5k", epochs=1, folder=f"{root}/run", width=4, depth=2, device="cpu")
    files = sorted(str(file.relative_to(f"{root}/run")) for file in Path(f"{root}/run").rglob("*.*"))
    loaded = torchdl.load(f"{root}/run")
torch.testing.assert_close(loaded(x_test), fitted(x_test))
print(*(file for file in files if not file.startswith("events")), sep=", ")

# %%
# By hand: an autoencoder
# -----------------------
# 784 pixels, 32 numbers, 784 pixels. The sigmoid at the end keeps pixels in [0, 1].
torch.manual_seed(0)
start = torchdl.Autoencoder((1, 28, 28), width=8, depth=2, code_size=32)
encoder = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)),  # (B, 1, 28, 28) -> (B, 8, 14, 14)
    *(nn.Conv2d(8, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)),  # (B, 8, 7, 7)
    *(nn.Flatten(), nn.Linear(8 * 7 * 7, 32)),  # (B, 32): the latent codes
)
decoder = nn.Sequential(
    *(nn.Linear(32, 8 * 7 * 7), nn.Unflatten(1, (8, 7, 7))),  # (B, 8, 7, 7)
    *(nn.Conv2d(8, 8, 3, padding=1), nn.GELU(), nn.Upsample(scale_factor=2)),  # (B, 8, 14, 14)
    *(nn.Conv2d(8, 8, 3, padding=1), nn.GELU(), nn.Upsample(scale_factor=2)),  # (B, 8, 28, 28)
    *(nn.Conv2d(8, 1, 3, padding=1), nn.Sigmoid()),  # (B, 1, 28, 28)
)
by_hand = nn.Sequential(encoder, decoder)
by_hand.load_state_dict(dict(zip(by_hand.state_dict(), start.state_dict().values(), strict=True)))
torch.testing.assert_close(by_hand(x[:8]), start(x[:8]))  # same weights in, same pictures out

EPOCHS = 6
loader = torchdl.BatchLoader(train, batch_size=32, shuffle=True, seed=0)
optimizer = torch.optim.Adam(by_hand.parameters(), 4e-3)
schedule = OneCycleLR(optimizer, 4e-3, EPOCHS * len(loader))  # the rate rises, then falls to 0
for epoch in range(EPOCHS):
    for indices in loader.order(epoch).split(32):
        loss = (by_hand(x[indices]) - x[indices]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

# %%
# Look: reconstruct, and compare with PCA
# ---------------------------------------
# The best *linear* code of 32 numbers is known: the first 32 principal components, the directions in which the training
# images vary most. An autoencoder is worth its training only if its error on new images is lower. Look at the shadows
# around the digits of PCA: it adds and subtracts whole patterns.
mean = x.flatten(1).mean(0)  # (784,)
components = torch.linalg.svd(x.flatten(1) - mean, full_matrices=False).Vh[:32]  # (32, 784), the largest first
pca_codes, pca_test = ((images.flatten(1) - mean) @ components.T for images in (x, x_test))  # (N, 32)
by_pca = (pca_test @ components + mean).clamp(0, 1).view(-1, 1, 28, 28)
with torch.no_grad():
    codes, test_codes = encoder(x), encoder(x_test)  # (4500, 32), (500, 32)
    decoded = decoder(test_codes)  # (500, 1, 28, 28)
for name, images in (("autoencoder", decoded), ("PCA", by_pca)):
    print(f"mean squared error on test images, {name}: {(images - x_test).square().mean():.4f}")
shown = slice(0, 500, 45)
torchdl.plots.plot_image_rows({"true": x_test[shown], "autoencoder": decoded[shown], "PCA": by_pca[shown]})

# %%
# Look: retrieve
# --------------
# Codes are descriptors: images with near codes look alike. Each row has a test image and the training images with the
# nearest codes. Two measures: the nearest training image names the digit; and k-means makes ten clusters, each named by
# its most frequent digit. No label was used to learn the codes. Codes of either kind are as good as all pixels.
for name, known, asked in (
    ("latent codes", codes, test_codes),
    ("components", pca_codes, pca_test),
    ("784 pixels", x.flatten(1), x_test.flatten(1)),
):
    nearest = torch.cdist(asked, known).argmin(1)  # (500, 4500) -> (500,)
    accuracy_1nn = float((y[nearest] == y_test).float().mean())
    groups = KMeans(10, n_init=2, random_state=0).fit_predict(known.numpy())
    named = sum(y[groups == group].bincount().max().item() for group in range(10)) / len(y)
    print(f"{name:12}: nearest neighbour {accuracy_1nn:.1%}, k-means {named:.1%} correct")
found = torch.cdist(test_codes, codes).topk(8, largest=False).indices  # (500, 8)
queries = (30, 140, 260, 410)
torchdl.plots.plot_image_rows({f"query {q}": torch.cat([x_test[q : q + 1], x[found[q]]]) for q in queries})

# %%
# Look: denoise
# -------------
# A second autoencoder gets noisy images as input and the clean ones as target; little noise passes through 32 numbers.
# This one is trained with torchdl, after a check that its loss without noise is the loss of the loop.
loss = torchdl.AutoencoderTask(by_hand).evaluate(x_test)["loss"].mean()
torch.testing.assert_close(loss, (decoded - x_test).square().mean())
task = torchdl.AutoencoderTask(start, noise=0.3, lr=4e-3, schedule=find_schedule("one_cycle"))
torchdl.Trainer(epochs=3, device="cpu").fit(task, loader)
noisy = x_test + 0.3 * torch.randn(x_test.shape, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    clean = start.eval()(noisy)
for name, images in (("noisy", noisy), ("denoised", clean)):
    print(f"mean squared error, {name}: {(images - x_test).square().mean():.4f}")
torchdl.plots.plot_image_rows({"noisy": noisy[shown].clamp(0, 1), "denoised": clean[shown], "true": x_test[shown]})

# %%
# What breaks it: anything but digits
# -----------------------------------
# It compresses digits, not pictures. Give it the same digits in black on white, and it draws nonsense. Nor does it draw
# new digits: random codes with the mean and spread of real ones decode to scribbles, because most of the space between
# the codes was never trained. A network that generates needs a reason to fill it (:doc:`/learn/23_gans`).
drawn = torch.randn(12, 32, generator=torch.Generator().manual_seed(0)) * codes.std(0) + codes.mean(0)
with torch.no_grad():
    inverted, random = by_hand(1 - x_test), decoder(drawn)
print(f"mean squared error of inverted digits: {(inverted - (1 - x_test)).square().mean():.4f}")
torchdl.plots.plot_image_rows({"inverted": 1 - x_test[shown], "decoded": inverted[shown], "random codes": random})

# %%
# .. list-table:: From Keras to PyTorch
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Conv2D(8, 3, padding="same")``
#      - ``nn.Conv2d(1, 8, 3, padding=1)``
#      - PyTorch also wants the number of input channels
#    * - ``UpSampling2D()``
#      - ``nn.Upsample(scale_factor=2)``
#      - 7 pixels become 14, even if they were 15 before pooling
#    * - ``Flatten()``
#      - ``nn.Flatten()``
#      - flattens (H, W, C) there, (C, H, W) here: the next layer's weights have another order
#    * - ``to_json()``, ``save_weights("w.h5")``
#      - ``torchdl.save(model, folder)``
#      - ``.json`` and ``.safetensors``; ``scripts/convert_keras.py`` reads Keras' files
#
# Exercise 1: a larger image
# --------------------------
# How many numbers enter the hidden layer of a LeNet of width 32 and depth 2 for CIFAR-10's 3x32x32 images?
features = ...

check(features, torchdl.LenetLike((3, 32, 32), 10).classifier[2].in_features, hint="Filters of stage 2, times places.")

# %%
# .. dropdown:: Solution
#
#    Two stages have 64 filters at the end, and 32 / 2 / 2 = 8 pixels a side.
#
#    .. code-block:: python
#
#       features = 64 * 8 * 8

# %%
# Exercise 2: noise
# -----------------
# What is the mean squared error of images with normal noise of standard deviation 0.2, before any network?
error = ...

check(error, 0.2**2, hint="The noise has the mean 0.")

# %%
# .. dropdown:: Solution
#
#    It is the variance of the noise.
#
#    .. code-block:: python
#
#       error = 0.04

# %%
# Exercise 3: odd sides
# ---------------------
# 28 pixels are halved to 14, 7, and then? LeNet's pooling drops the last row and column of 7. An autoencoder must get
# back to 28, so it first pads the image to a multiple of :math:`2^d`. What is the side of the last maps at depth 3, for
# LeNet and for the autoencoder? Answer with a list of two numbers.
sides = ...

deep = torchdl.LenetLike((1, 28, 28), 10, depth=3), torchdl.Autoencoder((1, 28, 28), depth=3)
wanted = [deep[0].features(x[:1]).shape[3], deep[1].encoder[:-2](F.pad(x[:1], deep[1].padding)).shape[3]]
check(sides, wanted, hint="The next multiple of 8 is 32.")

# %%
# .. dropdown:: Solution
#
#    7 pixels become 3; 32 pixels become 4.
#
#    .. code-block:: python
#
#       sides = [7 // 2, 32 // 8]

# %%
# Where next
# ----------
# ``python scripts/train_lenet.py --dataset cifar10`` and ``python scripts/train_autoencoder.py --noise 0.3 --summary``
# train on whole data sets; ``--summary`` prints all shapes. RESULTS lists both under *Images*, the autoencoder beside
# principal components on 60,000 digits and on CIFAR-10. In the API: :class:`torchdl.LenetLike`,
# :class:`torchdl.Autoencoder`, :func:`torchdl.fit_model_on`, :func:`torchdl.fit_model_cifar10`. The next lesson learns
# codes by prediction: :doc:`/learn/25_contrastive_predictive_coding`.
