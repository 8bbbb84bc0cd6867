"""
Linear classification
=====================

Thirty numbers describe the cells of a breast tumour: is it benign or malignant? A single neuron answers this for
nearly all tumours. This lesson builds it, trains it, and measures it on tumours that it has never seen.

At the end you can write logistic regression and its training loop in plain PyTorch, scale inputs without leaking test
data into training, check an accuracy by hand, and read the weights of a linear model.
"""

# %%
# The idea
# --------
# Supervised learning is a problem of geometry. Regression looks for a line that passes *close to* the points.
# Classification looks for a line that *separates* points of two classes. With two inputs, the line is
#
# .. math:: w_1 x_1 + w_2 x_2 + b = 0,
#
# with D inputs it is a hyperplane, and nothing else changes. For N examples at once, the sums on the left are
#
# .. math:: a = X w + b, \qquad X: (N, D), \quad w: (D, 1), \quad b: (1), \quad a: (N, 1).
#
# On one side of the line, :math:`a` is positive, and we predict class 1. On the other side it is negative: class 0.
# That rule is a step function. It has no slope to learn from, so we replace it by the sigmoid,
#
# .. math:: \sigma(a) = \frac{1}{1 + e^{-a}}, \qquad \sigma'(a) = \sigma(a) \, (1 - \sigma(a)),
#
# and read :math:`p = \sigma(a)` as the probability of class 1. To round p is to ask for the sign of a, because
# :math:`\sigma(0) = 1/2`. The function is also called the logistic function, hence *logistic regression*.
#
# This is the model of a neuron: inputs arrive with weights, positive ones excite and negative ones inhibit, and the
# neuron fires if their sum exceeds a threshold, which is :math:`-b`. Real neurons fire all or nothing, as the step
# does.
#
# Every training has four steps: load the data, build the model, train it, evaluate it.

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from check import check
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import torchdl
from torchdl.tasks.supervised import binary_accuracy

a = torch.linspace(-6, 6, 241)
p = torch.sigmoid(a)
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.plot(a, (a > 0).float(), "--", color="0.5", label="step")
ax.plot(a, p, label="sigmoid")
ax.plot(a, p * (1 - p), color="C2", label="slope of the sigmoid")
ax.set(title="A step, and a step that can learn", xlabel="a", ylabel="output")
ax.legend()
plt.show()

# %%
# Look at the slope: it is largest where the neuron is undecided, and almost 0 where it is certain.
#
# The data
# --------
# Load the data, split off a test part, and only then scale. Large inputs would push the sigmoid to its flat ends, so
# each column gets mean 0 and standard deviation 1. These means and deviations are learned, like weights. So they must
# come from the training part alone: ``fit_transform`` for training, ``transform`` for testing.

table = torchdl.data.breast_cancer()  # 569 rows, 30 numbers each, and the diagnosis
names = [name for name in table.columns if name != "diagnosis"]
inputs = table[names].to_numpy()
labels = (table["diagnosis"] == "malignant").to_numpy()

train_rows, test_rows, train_labels, test_labels = train_test_split(
    inputs, labels, test_size=0.33, random_state=0, stratify=labels
)
scaler = StandardScaler()
train_x = torch.tensor(scaler.fit_transform(train_rows), dtype=torch.float32)  # (N, D)
test_x = torch.tensor(scaler.transform(test_rows), dtype=torch.float32)  # (M, D)
train_y = torch.tensor(train_labels, dtype=torch.float32)[:, None]  # (N,) -> (N, 1), the shape of the outputs
test_y = torch.tensor(test_labels, dtype=torch.float32)[:, None]
D = train_x.shape[1]
print(f"training {tuple(train_x.shape)}, test {tuple(test_x.shape)}, malignant {labels.mean():.1%}")

# %%
# By hand
# -------
# The loss is the binary cross-entropy, the negative logarithm of the probability given to the true class:
#
# .. math:: J = -\frac{1}{N} \sum_{n=1}^{N} \big( y_n \log p_n + (1 - y_n) \log (1 - p_n) \big),
#           \qquad \frac{\partial J}{\partial a_n} = \frac{p_n - y_n}{N}.
#
# The slope of the sigmoid cancels. A neuron that is certain and wrong still gets a large gradient.
#
# The loss function below takes :math:`a`, the *logits*, and applies the sigmoid itself. In float32, ``log(1 - p)``
# would be minus infinity as soon as p rounds to 1.


def train(model: nn.Linear, x: Tensor, y: Tensor, epochs: int = 100) -> list[float]:
    """Train on all rows at once, with Adam; return the loss of each epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    history = []
    for _ in range(epochs):
        logits = model(x)  # (N, 1)
        loss = F.binary_cross_entropy_with_logits(logits, y)
        optimizer.zero_grad()  # gradients add up until they are cleared
        loss.backward()  # fills .grad of the weights and the bias
        optimizer.step()  # changes them
        history.append(loss.item())
    return history


torch.manual_seed(0)
neuron = nn.Linear(D, 1)
first_weights = {name: value.clone() for name, value in neuron.state_dict().items()}
losses = train(neuron, train_x, train_y)
print(f"loss {losses[0]:.3f} before the first update, {losses[-1]:.3f} before the last one")

# %%
# Now predict. The outputs of the sigmoid are (M, 1). Flatten them to (M,) before you compare them with labels (M,),
# or NumPy and PyTorch will compare each with each and return (M, M) without a word.

with torch.no_grad():
    probabilities = neuron(test_x).sigmoid().flatten().numpy()  # (M, 1) -> (M,)
rounded = np.round(probabilities)
accuracy = np.mean(rounded == test_labels)
print("probabilities of 'malignant':", probabilities[:4].round(3), " rounded:", rounded[:4], " true:", test_labels[:4])
print(f"test accuracy by hand: {accuracy:.4f}")

# %%
# With torchdl
# ------------
# ``split_table`` splits at random in the same way, keeps the classes' proportions, and fits the scaling on the training
# rows alone. ``Supervised`` knows the loss and the metrics, the ``Trainer`` has the loop. With the same first weights
# and the same batches, both trainings end with the same weights.

split = torchdl.split_table(table, "diagnosis", share=0.33, seed=0)
torch.testing.assert_close(split.test.inputs, test_x)

model = torchdl.MLP(D, 1, hidden=(), dropout=0.0)
model.layers[0].load_state_dict(first_weights)
task = torchdl.Supervised(
    model,
    F.binary_cross_entropy_with_logits,
    metrics={"accuracy": binary_accuracy},
    optimizer=partial(torch.optim.Adam, lr=0.02),
)
batches = torchdl.BatchLoader(split.train, batch_size=len(split.train))
test_batches = torchdl.BatchLoader(split.test, batch_size=500)
history = torchdl.Trainer(epochs=100, device="cpu").fit(task, batches, test_batches)

torch.testing.assert_close(model.layers[0].weight, neuron.weight, rtol=1e-3, atol=1e-4)
assert abs(history[-1]["val/accuracy"] - accuracy) < 1e-6  # what fit measures is what we counted by hand
print(f"test accuracy measured by the trainer: {history[-1]['val/accuracy']:.4f}")

# %%
# From Keras to PyTorch
# ---------------------
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Input(shape=(D,))``, ``Dense(1, activation="sigmoid")``
#      - ``nn.Linear(D, 1)``
#      - The sigmoid moves into the loss. Apply ``.sigmoid()`` yourself when you predict.
#    * - ``loss="binary_crossentropy"``
#      - ``F.binary_cross_entropy_with_logits``
#      - Targets must be float and (N, 1), like the outputs. Keras accepts (N,).
#    * - ``optimizer="adam"``
#      - ``torch.optim.Adam(model.parameters(), lr=1e-3)``
#      - Keras' epsilon is 1e-7, PyTorch's 1e-8.
#    * - new weights of ``Dense``
#      - new weights of ``nn.Linear``
#      - Keras: Glorot-uniform kernels (D, 1) and biases 0. PyTorch: weights (1, D) and biases, both uniform in
#        :math:`\pm 1/\sqrt{D}`. torchdl's models start as Keras' do.
#    * - ``fit(..., validation_data=..., epochs=100)``
#      - the loop above, or ``Trainer(epochs=100).fit(...)``
#      - Keras' batches have 32 rows unless you say otherwise.
#    * - ``predict``, ``evaluate``
#      - ``model(x)`` in ``torch.no_grad()``
#      - Call ``model.eval()`` first if there is dropout or batch norm.
#
# Look
# ----
# Look at the losses: the training loss still falls at the end, but the test loss has stopped. Longer training would
# only push up the weights and overfit. (The orange curve is the test part. That is fair as long as nothing is chosen by
# it; otherwise use a third part, for validation.)

torchdl.plots.plot_history(history)

# %%
# One kind of mistake is worse than the other. Look at the row "malignant": its first cell counts the missed tumours.

confusion = np.zeros((2, 2), dtype=int)
np.add.at(confusion, (test_labels.astype(int), rounded.astype(int)), 1)
torchdl.plots.plot_confusion(confusion, ["benign", "malignant"])

# %%
# All inputs have the same scale, so the size of a weight tells how much its column moves the logit. Positive weights
# speak for "malignant". Radius, perimeter and area say almost the same thing, and share the weight that one of them
# would get alone. So a small weight does not prove that a column is useless.

weights = dict(zip(names, neuron.weight[0].tolist(), strict=True))
largest = sorted(weights, key=lambda name: -abs(weights[name]))[:15]
torchdl.plots.plot_bars({"malignant": {name: weights[name] for name in largest}}, "weight of the scaled input")

# %%
# With two inputs, the line can be drawn, where p is 0.5. Look at its parallels: between them, the neuron is unsure.

pair = [names.index("worst radius"), names.index("worst concave points")]
flat_neuron = nn.Linear(2, 1)
train(flat_neuron, train_x[:, pair], train_y, epochs=400)
x1, x2 = torch.meshgrid(torch.linspace(-2.2, 4.5, 200), torch.linspace(-2, 3, 200), indexing="xy")
with torch.no_grad():
    surface = flat_neuron(torch.stack([x1, x2], -1)).sigmoid()[..., 0]  # (200, 200, 2) -> (200, 200)
fig, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
ax.contour(x1, x2, surface, levels=[0.1, 0.5, 0.9], colors="0.5", linestyles=["--", "-", "--"])
for label, name, color in ((0, "benign", "C0"), (1, "malignant", "C1")):
    chosen = train_labels == label
    ax.scatter(*train_x[chosen][:, pair].T, s=12, color=color, alpha=0.7, label=name)
ax.set(
    title="p = 0.5 (solid), 0.1 and 0.9 (dashed)", xlabel="worst radius, scaled", ylabel="worst concave points, scaled"
)
ax.legend(loc="lower right")
plt.show()

# %%
# What breaks it
# --------------
# **Without scaling**, the first logits are in the hundreds, the sigmoid is flat there, and 100 updates are spent on
# getting back. **With a scaler fitted on all rows**, information about the test rows enters training. On this table
# the damage is small, because 188 rows hardly move a mean. The habit is what matters.

all_scaled = StandardScaler().fit(inputs)
versions = {
    "scaler fitted on the training part": (train_x, test_x),
    "scaler fitted on all rows (a leak)": tuple(
        torch.tensor(all_scaled.transform(rows), dtype=torch.float32) for rows in (train_rows, test_rows)
    ),
    "no scaling": tuple(torch.tensor(rows, dtype=torch.float32) for rows in (train_rows, test_rows)),
}
for name, (x, x_test) in versions.items():
    torch.manual_seed(0)
    candidate = nn.Linear(D, 1)
    loss = train(candidate, x, train_y)[-1]
    right = ((candidate(x_test) > 0) == (test_y > 0.5)).float().mean().item()
    print(f"{name:36} training loss {loss:8.3f}   test accuracy {right:.4f}")

# %%
# Elsewhere the same mistake ruins the result. The next tables are pure noise: 200 rows with 2,000 random columns, and
# labels from a coin, which nobody can predict. We keep the 20 columns that correlate best with the labels. If *all*
# rows choose them, and the table is split afterwards, the model seems to work.


def accuracy_on_noise(choosing: slice, seed: int) -> float:
    """Choose 20 columns by some rows, train on the first 100 rows, test on the others."""
    rng = np.random.default_rng(seed)
    noise, coin = rng.normal(size=(200, 2000)), rng.integers(0, 2, 200)
    best = np.abs((coin[choosing] - coin[choosing].mean()) @ noise[choosing]).argsort()[-20:]
    x, y = torch.tensor(noise[:, best]).float(), torch.tensor(coin).float()[:, None]
    guesser = nn.Linear(20, 1)
    train(guesser, x[:100], y[:100])
    return ((guesser(x[100:]) > 0) == (y[100:] > 0.5)).float().mean().item()


for name, choosing in {"by all rows (a leak)": slice(0, 200), "by the training rows": slice(0, 100)}.items():
    accuracies = [accuracy_on_noise(choosing, seed) for seed in range(10)]
    print(f"columns chosen {name:22} mean test accuracy of 10 tables {np.mean(accuracies):.2f}")

# %%
# Everything that is *fitted* belongs after the split: means, deviations, the choice of columns, the filling of gaps.
#
# Exercise 1: the baseline
# ------------------------
# An accuracy means little alone. What test accuracy does a model reach that calls every tumour benign? Compute it from
# ``test_labels``.

baseline = ...
check(baseline, 1 - test_labels.mean(), hint="test_labels is True for malignant tumours.")

# %%
# .. dropdown:: Solution
#
#    It is right for every benign tumour, and only for those.
#
#    .. code-block:: python
#
#       baseline = (~test_labels).mean()

# %%
# Exercise 2: the loss by hand
# ----------------------------
# Write a function ``cross_entropy(p, y)`` that returns the mean binary cross-entropy of probabilities p (N,) and labels
# y (N,), both tensors of floats. Do not call PyTorch's loss.

cross_entropy = ...
some_p, some_y = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([1.0, 0.0, 0.0])
check(
    cross_entropy,
    lambda f: (
        abs(float(f(some_p, some_y)) - float(F.binary_cross_entropy(some_p, some_y))) < 1e-5
        or "for p = 0.9, 0.2, 0.6 and y = 1, 0, 0 it returns another number than PyTorch"
    ),
    hint="Where y is 1, only log p counts; where y is 0, only log (1 - p).",
)

# %%
# .. dropdown:: Solution
#
#    One of the two terms is 0 for each example.
#
#    .. code-block:: python
#
#       cross_entropy = lambda p, y: -(y * p.log() + (1 - y) * (1 - p).log()).mean()

# %%
# Exercise 3: miss no tumour
# --------------------------
# Rounding puts the threshold at 0.5. A doctor would rather have false alarms than miss a malignant tumour. With the
# highest threshold at which no malignant tumour of the test part is missed, how many benign ones raise an alarm
# (:math:`p \ge` threshold)?

alarms = ...
check(
    alarms,
    int((probabilities[~test_labels] >= probabilities[test_labels].min()).sum()),
    hint="The threshold is the lowest probability that a malignant tumour got.",
)

# %%
# .. dropdown:: Solution
#
#    The threshold must not exceed the lowest probability of a malignant tumour. A threshold chosen on the test part is
#    another leak, of course: choose it on validation data.
#
#    .. code-block:: python
#
#       threshold = probabilities[test_labels].min()
#       alarms = int((probabilities[~test_labels] >= threshold).sum())

# %%
# Where next
# ----------
# - ``python scripts/train_tabular.py`` trains this model, on a table of yours with ``--csv`` and ``--target``, and
#   compares it with scikit-learn's logistic regression and the most frequent class.
# - :func:`torchdl.split_table`, :class:`torchdl.Supervised`, :class:`torchdl.Trainer`,
#   :class:`torchdl.predict.TabularPredictor`.
# - RESULTS.md, "Tables, and what optimizers do", has the test accuracy over several seeds beside scikit-learn's.
# - Next: :doc:`/learn/03_linear_regression`, where the output is a number.
