"""
Images as sequences
===================

Can a recurrent network classify images? It reads them row by row, as a scanner does, and its last state says
what it has seen.

At the end you can

- turn a batch of images into sequences (N, T, D), by rows or by columns,
- train an LSTM on them, and recompute its states step by step,
- follow its belief from row to row,
- say what it does not know about images, and when it forgets what it has seen.
"""

# %%
# The idea
# --------
# Every model makes something of its inputs that they are not. A dense layer treats the 784 pixels of a digit like 784
# answers to a questionnaire. A convolution treats them as a plane. We now treat them as a time series: an image of H
# x W pixels is a matrix, and so is a series of T steps with D values each. So let
#
# .. math:: T = H, \qquad D = C\,W, \qquad (N, C, H, W) \to (N, T, D).
#
# Step t is row t. An LSTM reads a row, updates its state of M numbers, and goes on; a linear layer classifies the
# last state,
#
# .. math:: h_t, c_t = \mathrm{LSTM}(x_t, h_{t-1}, c_{t-1}), \qquad \hat y = \mathrm{softmax}(W h_T + b).
#
# The same weights read each row. What matters may stand anywhere in the image, so the state has to carry it to the
# end, over many steps. An LSTM is made for such distances.
#
# By hand: an LSTM that reads rows
# --------------------------------
# It has four gates, each with a weight for all of the D + M numbers that it reads and a bias; PyTorch stores each
# bias as the sum of two.

from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

import torchdl
from torchdl.plots import plot_history, plot_predicted_images
from torchdl.tasks import accuracy

train, test = torchdl.load_images("mnist_5k"), torchdl.load_images("mnist_5k", "test")
x_test, y_test = test[:]


class Reader(nn.Module):
    """Read the rows of images (N, 1, 28, 28), and classify them."""

    def __init__(self, units: int = 128) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(28, units, batch_first=True), nn.Linear(units, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, 10)."""
        states, _ = self.lstm(images[:, 0])  # (N, 1, T, D) -> (N, T, D) -> (N, T, M)
        return self.head(states[:, -1])  # the state after the last row: (N, M) -> (N, 10)


torch.manual_seed(0)
reader = Reader()
images = x_test[:5]
shapes = {"images": images, "sequences": images[:, 0], "states": reader.lstm(images[:, 0])[0]}
print(", ".join(f"{name} {tuple(values.shape)}" for name, values in shapes.items()))
print(f"the LSTM has {sum(p.numel() for p in reader.lstm.parameters()):,} parameters: 4 * 128 * (28 + 128 + 2)")

# %%
# One row after another: the same numbers come out if we go through the rows ourselves.

cell = nn.LSTMCell(28, 128)
cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in reader.lstm.state_dict().items()})
h = c = torch.zeros(len(images), 128)
for row in images[:, 0].unbind(1):  # (N, D), T times
    h, c = cell(row, (h, c))
torch.testing.assert_close(reader.head(h), reader(images))

# %%
# The loop is the one of every classifier.


def unchanged(images: Tensor) -> Tensor:
    """Return the images as they are."""
    return images


def fit(model: nn.Module, epochs: int, change: Callable[[Tensor], Tensor] = unchanged) -> list[dict[str, float]]:
    """Train a network on images that ``change`` has changed, and return a row of metrics per epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader, rows = torchdl.BatchLoader(train, batch_size=64, shuffle=True), []
    for epoch in range(1, epochs + 1):
        total = torch.zeros(2)
        for images, labels in loader:
            logits = model(change(images))
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += torch.stack([loss.detach(), (logits.argmax(1) == labels).float().mean()]) / len(loader)
        rows.append({"epoch": epoch, "train/loss": float(total[0]), "train/accuracy": float(total[1])})
        with torch.no_grad():
            logits = model(change(x_test))
        rows[-1]["val/loss"] = F.cross_entropy(logits, y_test).item()
        rows[-1]["val/accuracy"] = (logits.argmax(1) == y_test).float().mean().item()
    return rows


epochs = 6
start = {name: weight.clone() for name, weight in reader.state_dict().items()}
history = fit(reader, epochs)
print(f"test accuracy {history[-1]['val/accuracy']:.3f}")
plot_history(history)

# %%
# It works: the test accuracy (orange) is far above chance, 0.1, although nothing in the network knows that images
# have two directions. The numbers of the training are means over an epoch, during which the network improves, so they
# are behind at first.
#
# With torchdl
# ------------
# :class:`torchdl.RowReader` is this network. From the same weights it gives the same logits, and ends with the same
# accuracy.

same = torchdl.RowReader((1, 28, 28), num_classes=10, kind="lstm", hidden=128)
same.load_state_dict(dict(zip(same.state_dict(), start.values(), strict=True)))
before = Reader()
before.load_state_dict(start)
torch.testing.assert_close(same(images), before(images))
task = torchdl.Supervised(
    same, F.cross_entropy, {"accuracy": accuracy}, lambda weights: torch.optim.Adam(weights, lr=2e-3)
)
loaders = torchdl.BatchLoader(train, 64, shuffle=True), torchdl.BatchLoader(test, 500)
rows = torchdl.Trainer(epochs=epochs, device="cpu").fit(task, *loaders)
print(f"test accuracy: by hand {history[-1]['val/accuracy']:.3f}, with torchdl {rows[-1]['val/accuracy']:.3f}")
assert abs(rows[-1]["val/accuracy"] - history[-1]["val/accuracy"]) < 0.02

# %%
# Look: a belief that grows
# -------------------------
# The head can read the state after any row. So we can ask after each row what the network would say if the image
# ended there.

with torch.no_grad():
    states, _ = reader.lstm(x_test[:, 0])  # (N, T, M)
    beliefs = reader.head(states).softmax(2)  # (N, T, 10)
read = (beliefs.argmax(2) == y_test[:, None]).float().mean(0)  # (T,)
certain = beliefs[:, -1].gather(1, y_test[:, None])[:, 0]
example = int((certain * (y_test == 7)).argmax())

fig, (picture, single, every) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", width_ratios=(2, 3, 3))
picture.imshow(x_test[example, 0], cmap="gray")
picture.set(title="The image", ylabel="row", xticks=[])
for digit in beliefs[example].amax(0).topk(4).indices.tolist():
    single.plot(range(1, 29), beliefs[example, :, digit], label=f"digit {digit}")
single.set(title="Belief in the example", xlabel="rows read", ylabel="probability", ylim=(0, 1))
single.legend()
every.plot(range(1, 29), 100 * read)
every.axhline(10, color="0.5", linestyle="--", label="chance")
every.set(title="All test images", xlabel="rows read", ylabel="accuracy, %", ylim=(0, 100))
every.legend()
plt.show()

# %%
# The first rows are black and say nothing. The belief changes while the digit passes and settles when it is over. The
# accuracy over all images rises late, since the head has been trained on the last state alone.
#
# Its mistakes look much like those of other networks:

predicted = beliefs[:, -1].argmax(1)
wrong = (predicted != y_test).nonzero()[:, 0]
worst = wrong[beliefs[wrong, -1, predicted[wrong]].argsort(descending=True)[:6]]
plot_predicted_images(
    x_test[worst],
    [f"true {y_test[i]}" for i in worst],
    [str(int(predicted[i])) for i in worst],
    "Most confident mistakes",
)

# %%
# What it does not know
# ---------------------
# To a recurrent network, a row is a vector; that pixel 5 is beside pixel 6 is nothing that it knows. So it does not
# mind which order the pixels of a row have, if it is always the same, and reads columns as well as rows. A
# convolutional network looks for patterns of neighbours, and has a harder time if they are torn apart.

orders = torch.Generator().manual_seed(0)
shuffled = torch.randperm(28, generator=orders)
changes = {
    "rows": unchanged,
    "columns": lambda images: images.transpose(2, 3),
    "rows, pixels in another order": lambda images: images[..., shuffled],
}
for name, change in changes.items():
    torch.manual_seed(0)
    scores = [
        fit(model, 3, change)[-1]["val/accuracy"] for model in (Reader(64), torchdl.LenetLike((1, 28, 28), 10, width=4))
    ]
    print(f"{name:30} LSTM {100 * scores[0]:.1f} %, convolutional network {100 * scores[1]:.1f} %")

# %%
# A network that has been trained on rows cannot read columns, though. The order belongs to what it has learned:

with torch.no_grad():
    turned = (reader(x_test.transpose(2, 3)).argmax(1) == y_test).float().mean()
print(f"trained on rows, tested on columns: {100 * turned:.1f} %")

# %%
# What breaks it: a long way to the end
# -------------------------------------
# We add 40 black rows below each digit. Nothing is lost, but what matters is now further from the last state. This is
# the long distance of :doc:`/learn/16_long_distance`. A simple RNN, an LSTM, and an LSTM whose head reads the maximum
# of each unit over all rows:

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
readers = {"simple RNN": ("rnn", "last"), "LSTM": ("lstm", "last"), "LSTM, maximum over rows": ("lstm", "max")}
for name, (kind, pooling) in readers.items():
    torch.manual_seed(0)
    model = torchdl.RowReader((1, 68, 28), 10, kind=kind, hidden=64, pooling=pooling)
    scores = [100 * row["val/accuracy"] for row in fit(model, 4, lambda images: F.pad(images, (0, 0, 0, 40)))]
    ax.plot(range(1, 5), scores, ".-", label=name)
    print(f"{name:25} test accuracy {scores[-1]:.1f} %")
ax.axhline(10, color="0.5", linestyle="--", label="chance")
ax.xaxis.set_major_locator(MaxNLocator(integer=True))
ax.set(title="Digits with 40 black rows below", xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 100))
ax.legend()
plt.show()

# %%
# The LSTM does not even begin to learn: at the start its forget gates are at about 0.7, so 40 black rows leave
# :math:`0.7^{40}`, less than a millionth, of what it has seen, and as little of the gradient. It can learn to keep
# things, but first it has to notice that there is something to keep. The simple RNN here starts with orthogonal
# recurrent weights, which do not shrink a state. A maximum over the rows has no way to go: it takes each unit where
# it was largest.
#
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - the trap
#    * - ``Input(shape=(28, 28))``
#      - ``images[:, 0]``
#      - PyTorch's images have a channel to remove
#    * - ``LSTM(128)(i)``
#      - ``nn.LSTM(28, 128, batch_first=True)``, then ``states[:, -1]``
#      - without ``batch_first`` the batch is read as time, and no error appears
#    * - 80,384 parameters
#      - 80,896 parameters
#      - PyTorch has two biases a gate
#    * - forget biases 1, orthogonal recurrent weights
#      - all uniform
#      - :class:`torchdl.RowReader` starts as Keras does
#    * - ``Dense(10, activation="softmax")``
#      - ``nn.Linear(128, 10)``
#      - ``F.cross_entropy`` contains the softmax

# %%
# Exercise 1: Rows of colours
# ---------------------------
# An image of CIFAR-10 has 3 channels of 32 x 32 pixels. A network reads it row by row, with all channels. What are
# [T, D]?

steps = ...
wide = torch.zeros(1, 3, 32, 32)
check(steps, list(wide.transpose(1, 2).flatten(2).shape[1:]), hint="A row has the pixels of all channels.")

# %%
# .. dropdown:: Solution
#
#    There are 32 rows, and each has 32 pixels of 3 numbers.
#
#    .. code-block:: python
#
#       steps = [32, 3 * 32]

# %%
# Exercise 2: How many parameters?
# --------------------------------
# How many parameters has an LSTM of 64 units in PyTorch that reads these rows?

count = ...
check(count, sum(p.numel() for p in nn.LSTM(96, 64).parameters()), hint="Four gates; two biases each.")

# %%
# .. dropdown:: Solution
#
#    Each of the 4 x 64 numbers has 96 + 64 weights and two biases.
#
#    .. code-block:: python
#
#       count = 4 * 64 * (96 + 64 + 2)

# %%
# Exercise 3: Read columns
# ------------------------
# Write a function that turns images (N, C, H, W) into sequences of their columns, from left to right: (N, W, C * H),
# in each step the first channel from top to bottom first.

columns = ...
pictures = torch.rand(2, 3, 4, 5)
check(
    columns,
    lambda function: (
        torch.equal(function(pictures), torch.stack([c.flatten(1) for c in pictures.unbind(3)], 1))
        or "these are not the columns"
    ),
    hint="permute brings W to the front; flatten joins C and H.",
)

# %%
# .. dropdown:: Solution
#
#    The axes become (N, W, C, H) first.
#
#    .. code-block:: python
#
#       def columns(images):
#           return images.permute(0, 3, 1, 2).flatten(2)

# %%
# Where next
# ----------
# - ``python scripts/train_cnn.py --model lstm --dataset mnist --epochs 10`` trains lecture 50's network.
# - :class:`torchdl.RowReader` reads rows with an ``rnn``, a ``gru`` or an ``lstm``, also in both directions.
# - RESULTS.md, under Images, has its accuracy beside that of convolutional networks, which are better, on all of MNIST.
# - The next lesson forecasts: :doc:`/learn/18_stock_prices`.
