r"""
Images
======

How does a picture become the row of numbers that a network takes? And why does the training loss go on falling when the
network has long stopped getting better?

At the end you can turn pictures into tensors, train a network on them, read overfitting off its curves, find the
classes that it confuses, and give it a picture of your own.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets
import torch
import torch.nn.functional as F
from check import check
from sklearn.metrics import confusion_matrix
from torch import nn

import torchdl
from torchdl.tasks import accuracy

# %%
# The idea: pixels are numbers
# ----------------------------
# A colour picture is a tensor of height :math:`H`, width :math:`W` and :math:`C = 3` channels: red, green and blue. The
# light in nature is continuous; a pixel stores 8 bits per channel, the whole numbers from 0 to 255, which makes
# :math:`256^3`, about 16 million, colours. That is a lot of bytes, so files are compressed, for example as JPEG.
photograph = sklearn.datasets.load_sample_image("china.jpg")  # (H, W, C) uint8
size = (Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").stat().st_size
print(f"shape {photograph.shape}, {photograph.nbytes:,} bytes; as JPEG {size:,} bytes")
fig, axes = plt.subplots(1, 4, figsize=(11, 2.2), layout="constrained")
axes[0].imshow(photograph)
for ax, channel, name in zip(axes[1:], photograph.transpose(2, 0, 1), ("red", "green", "blue"), strict=True):
    ax.imshow(channel, cmap="gray", vmin=0, vmax=255)  # (H, W); without cmap, matplotlib colours it like a heat map
    ax.set_title(name)
for ax in axes:
    ax.set_axis_off()

# %%
# The sky is bright in blue, the red walls in red. A data set of :math:`N` pictures has the shape (N, H, W, C) in Keras
# and (N, C, H, W) in PyTorch. A network of fully connected layers wants rows (N, D), so it flattens each picture:
# :math:`D = C H W`. It also wants small numbers: dividing by 255 puts them into [0, 1]. They are not centred at 0, but
# that is good enough here. Some networks, such as VGG, want another scale, the mean of each channel subtracted; a
# pretrained network always needs the preparation that it was trained with (:doc:`/learn/22_transfer_learning`).
#
# The digits that come with this course are grey (:math:`C = 1`) and already split. We set 500 of the training images
# aside for validation, and use the test images once, at the end.
images, test = (torchdl.load_images("mnist_5k", part) for part in ("train", "test"))
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, validation = images.subset(order[500:]), images.subset(order[:500])
x, y = train[: len(train)]  # (4000, 1, 28, 28) in [0, 1], (4000,)
x_validation, y_validation = validation[: len(validation)]
print(f"{train.images.dtype} {tuple(train.images.shape)} becomes {x.dtype} from {x.min():.0f} to {x.max():.0f}")
print("a row of the first image:", train.images[0, 0, 14].tolist())

# %%
# By hand: the network and its training
# -------------------------------------
# 784 pixels, 128 hidden units, 10 logits. In each epoch the network sees all images once, in batches of 32. Then we
# measure the loss on the validation images.


def by_hand(dropout, epochs=15):
    """Train a network, and return it with the mean training and validation loss of each epoch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, 10))
    for parameter in model.parameters():  # as Keras: Glorot's weights, and biases of 0
        nn.init.xavier_uniform_(parameter) if parameter.dim() == 2 else nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for epoch in range(epochs):
        total = 0.0
        model.train()  # dropout on
        for indices in loader.order(epoch).split(32):
            loss = F.cross_entropy(model(x[indices]), y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(indices)
        model.eval()  # dropout off
        with torch.no_grad():
            losses.append((total / len(x), float(F.cross_entropy(model(x_validation), y_validation))))
    return model, torch.tensor(losses)  # (epochs, 2)


loader = torchdl.BatchLoader(train, batch_size=32, shuffle=True, seed=0)
plain, losses = by_hand(dropout=0.0)
dropped, losses_with_dropout = by_hand(dropout=0.5)

# %%
# With torchdl
# ------------
# The same images in the same order: the losses of all epochs agree.
torch.manual_seed(0)
model = torchdl.MLP(784, 10, hidden=(128,), dropout=0.0)
task = torchdl.Supervised(model, F.cross_entropy, {"accuracy": accuracy})
history = torchdl.Trainer(epochs=15, device="cpu").fit(task, loader, torchdl.BatchLoader(validation, 500))
found = torch.tensor([[row["train/loss"], row["val/loss"]] for row in history])
torch.testing.assert_close(found, losses, rtol=1e-2, atol=1e-3)
torchdl.plots.plot_history(history)

# %%
# Look: overfitting
# -----------------
# The training loss falls towards 0, and the accuracy on the training images nearly reaches 100 %. The validation loss
# stops falling after a few epochs: from there on the network learns these 4,000 images by heart, and nothing about
# digits. That is *overfitting*, and the gap between the curves shows it.
#
# *Dropout* works against it. In training it sets each hidden unit to 0 with probability :math:`p`, and multiplies the
# others by :math:`1 / (1 - p)`, so that the mean stays the same; in evaluation it does nothing. No unit can rely on
# another one. Below, the curves of :math:`p = 0.5` lie closer together, partly because this training loss is measured
# with half of the units missing. The validation loss is what counts, and it is hardly lower: a network this small gains
# little. More images help more.
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, curves, style in (("", losses, "-"), (", dropout 0.5", losses_with_dropout, ":")):
    for part, color, values in (("training", "C0", curves[:, 0]), ("validation", "C1", curves[:, 1])):
        ax.semilogy(range(1, 16), values, style, marker=".", color=color, label=part + name)
ax.set(title="Overfitting, with and without dropout", xlabel="epoch", ylabel="cross-entropy", xticks=range(1, 16, 2))
ax.legend()
ax.grid(alpha=0.3)

# %%
# Look: which digits are confused?
# --------------------------------
# Now the test images, once. A row of the *confusion matrix* holds the images of one true class; its columns say what
# they were taken for (``normalize=True`` shows shares). The diagonal is correct. Which pairs do you expect, 4 and 9, 7
# and 9, 2 and 7? With 50 images of each digit the counts are small.
x_test, y_test = test[: len(test)]
with torch.no_grad():
    probabilities = dropped(x_test).softmax(1)  # (500, 10)
predicted = probabilities.argmax(1)
matrix = np.zeros((10, 10), int)
for true, guess in zip(y_test.tolist(), predicted.tolist(), strict=True):
    matrix[true, guess] += 1
assert (matrix == confusion_matrix(y_test, predicted)).all()
print(f"test accuracy {np.trace(matrix) / matrix.sum():.1%}")
torchdl.plots.plot_confusion(matrix, test.classes)

# %%
# Look: the mistakes
# ------------------
# The twelve mistakes that the network is most confident of. Some digits fool people as well; others show what it has
# not learnt, for example that a digit may be thin or slanted.
wrong = (predicted != y_test).nonzero()[:, 0]
worst = wrong[probabilities[wrong].amax(1).argsort(descending=True)][:12]
names = [[str(digit) for digit in digits[worst].tolist()] for digits in (y_test, predicted)]
torchdl.plots.plot_predicted_images(x_test[worst], *names)

# %%
# Your own picture
# ----------------
# A photograph of a digit is not yet an input. This one is made of a test digit: dark ink on unevenly lit paper, off the
# centre, with noise. The network knows white digits on black, 20 pixels high, in the middle of 28 x 28, so making the
# photograph smaller is not enough. :func:`torchdl.prepare_digit` finds the ink and does what MNIST's authors did. It
# also takes the name of a file: photograph a digit of your own.
number = 370
digit = test.images[number, 0].numpy()  # (28, 28) uint8
paper = np.linspace(230, 120, 480)[:, None] * np.ones(360)  # (480, 360), darker at the bottom
paper[150:402, 20:272] *= 1 - 0.7 * np.kron(digit / 255, np.ones((9, 9)))
photo = (paper + np.random.default_rng(0).normal(0, 3, paper.shape)).clip(0, 255).astype(np.uint8)

smaller = F.interpolate(torch.from_numpy(photo)[None, None].float() / 255, (28, 28), mode="area")[0]  # (1, 28, 28)
prepared = torchdl.prepare_digit(photo).float() / 255  # (1, 28, 28)
pictures = {"photograph": torch.from_numpy(photo)}
for name, image in (("made smaller", smaller), ("prepared", prepared)):
    with torch.no_grad():
        p = dropped(image[None]).softmax(1)[0]  # (10,)
    pictures[f"{name}: {p.argmax()}, {p.max():.0%}"] = image
    print(f"{name}: true {test.labels[number]}, predicted {p.argmax()} with probability {p.max():.1%}")
torchdl.plots.plot_images(pictures)

# %%
# .. list-table:: From Keras to PyTorch
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Flatten(input_shape=(28, 28))``
#      - ``nn.Flatten()``
#      - the channels come first: (N, 1, 28, 28)
#    * - ``Dropout(0.2)``
#      - ``nn.Dropout(0.2)``
#      - stays on until ``model.eval()``
#    * - ``compile``, ``fit``
#      - a loop, or ``Supervised`` and ``Trainer``
#      - batches of 32 by default in Keras; the course validates on the test images
#    * - ``evaluate``, ``predict``
#      - ``model(x)`` within ``torch.no_grad()``
#      - logits, not probabilities
#
# What breaks it: dropout in evaluation
# -------------------------------------
# Forget ``model.eval()``, and half of the units are missing when you measure. Nothing fails, but the accuracy is lower,
# and another one each time.
dropped.train()
torch.manual_seed(0)
for attempt in range(3):
    print(f"dropout on, attempt {attempt + 1}: {float((dropped(x_test).argmax(1) == y_test).float().mean()):.1%}")
dropped.eval()
print(f"dropout off: {float((dropped(x_test).argmax(1) == y_test).float().mean()):.1%}")

# %%
# Exercise 1: bytes
# -----------------
# How many bytes does a colour photograph of 4000 x 3000 pixels have before compression?
size = ...

check(size, torch.empty(3000, 4000, 3, dtype=torch.uint8, device="meta").nbytes, hint="A byte has 8 bits.")

# %%
# .. dropdown:: Solution
#
#    Every pixel has three channels of one byte.
#
#    .. code-block:: python
#
#       size = 4000 * 3000 * 3

# %%
# Exercise 2: the hardest digit
# -----------------------------
# Of which digit does the network get the smallest share right? Compute it from ``matrix``.
hardest = ...

shares = {digit: float((predicted[y_test == digit] == digit).float().mean()) for digit in range(10)}
check(hardest, min(shares, key=shares.get), hint="Rows are true digits: divide the diagonal by the sums of the rows.")

# %%
# .. dropdown:: Solution
#
#    This share is the *recall* of a class.
#
#    .. code-block:: python
#
#       hardest = int((matrix.diagonal() / matrix.sum(1)).argmin())

# %%
# Exercise 3: dropout by hand
# ---------------------------
# Write a function of the hidden units (N, M), a mask ``keep`` of the same shape with 1 for units that stay and 0 for
# others, and ``p``. It returns what dropout returns.
dropout = ...

units, keep = torch.arange(1.0, 9).view(2, 4), torch.tensor([[1.0, 0, 1, 1], [0, 1, 1, 1]])
check(
    dropout,
    lambda f: (
        torch.allclose(f(units, keep, 0.2), units * keep * 1.25)
        or "a unit of 1 that stays must become 1.25 for p = 0.2"
    ),
)

# %%
# .. dropdown:: Solution
#
#    The division keeps the mean, so evaluation needs no correction.
#
#    .. code-block:: python
#
#       def dropout(units, keep, p):
#           return units * keep / (1 - p)

# %%
# Where next
# ----------
# ``python scripts/train_cnn.py --model mlp --dataset mnist --epochs 10`` trains the course's network on all 60,000
# digits, and ``python scripts/predict.py runs/cnn/RUN photo.jpg`` classifies your picture with it. RESULTS lists its
# accuracy over three seeds beside the course's 98 %. In the API: :class:`torchdl.ImageDataset`,
# :func:`torchdl.load_images`, :func:`torchdl.prepare_digit`. Next come regression, :doc:`/learn/09_a_surface`, and
# :doc:`/learn/10_convolution`, which knows that pixels have neighbours.
