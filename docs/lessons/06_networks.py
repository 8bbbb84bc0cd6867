r"""
Networks
========

A neuron draws a straight line through its inputs. How can copies of the same neuron, one layer behind another, separate
classes that no line separates?

At the end you can compute a network's output with matrices, predict every shape on the way, write softmax and
cross-entropy for labels of both forms, and see what a hidden layer does to the inputs.
"""

import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from matplotlib.colors import ListedColormap
from torch import nn

import torchdl

# %%
# The idea
# --------
# A neuron computes :math:`\sigma(w^\top x + b)` from :math:`D` inputs (:doc:`/learn/02_linear_classification`). Give
# the same inputs to :math:`M` neurons, each with its own weights, and their outputs are a vector :math:`z`. Give that
# to further neurons, and you have a *feedforward network*. Its signals only go forward, while the brain, which inspired
# it, also has connections back (:doc:`/learn/14_recurrent_networks`). With the weights of a layer as the columns of a
# matrix :math:`W`,
#
# .. math:: z = \sigma(W^\top x + b), \qquad x \in \mathbb{R}^D,\; W \in \mathbb{R}^{D \times M},\;
#    b, z \in \mathbb{R}^M,
#
# where :math:`\sigma` applies to each number on its own. Layer :math:`l` takes the output of layer :math:`l - 1`. The
# last layer depends on the task: no activation for regression, a sigmoid for :math:`p(y = 1 \mid x)`, softmax for more
# than two classes. Each layer turns features into new features: pixels into edges, edges into eyes, eyes into faces.
#
# Three spirals
# -------------
# The data: 300 points of three classes. In code, :math:`N` points are the rows of a matrix (N, D).
torch.manual_seed(0)
radius = torch.linspace(0.1, 1, 100)
points, labels = [], []
for arm in range(3):
    angle = 4 * radius + 2 * math.pi * arm / 3 + 0.15 * torch.randn(100)
    points.append(torch.stack([radius * angle.cos(), radius * angle.sin()], 1))  # (100, 2)
    labels.append(torch.full((100,), arm))
x, y = torch.cat(points), torch.cat(labels)  # (N, D) = (300, 2) and (N,) = (300,)

# %%
# By hand: forward, one neuron at a time and all at once
# ------------------------------------------------------
# The loop is the formula for one neuron; the matrix product is the formula for a layer. For rows of points it is
# :math:`XW + b`. The numbers are equal, and the second form is what computers are fast at.
D, M, K = 2, 32, 3  # inputs, hidden units, classes
W1, b1 = torch.randn(D, M), torch.randn(M)
W2, b2 = torch.randn(M, K) / M**0.5, torch.zeros(K)
one_by_one = torch.stack([torch.sigmoid(x @ W1[:, j] + b1[j]) for j in range(M)], 1)  # M times (N,) -> (N, M)
z = torch.sigmoid(x @ W1 + b1)  # (N, D) @ (D, M) -> (N, M)
torch.testing.assert_close(one_by_one, z)
a = z @ W2 + b2  # (N, M) @ (M, K) -> (N, K), the logits
print(f"x {tuple(x.shape)}  W1 {tuple(W1.shape)}  z {tuple(z.shape)}  W2 {tuple(W2.shape)}  a {tuple(a.shape)}")

# %%
# By hand: softmax and cross-entropy
# ----------------------------------
# Probabilities of :math:`K` classes are not negative and add up to 1. Softmax makes such numbers of any logits
# :math:`a`: the exponential is positive, and the denominator is the sum of all numerators.
#
# .. math:: p_k = \frac{e^{a_k}}{\sum_{j=1}^K e^{a_j}}, \qquad
#    L = -\sum_{k=1}^K y_k \log p_k = -\log p_{k^*}
#
# The cross-entropy :math:`L` is 0 if the network gives the true class the probability 1, and infinite if it gives it 0.
# A *one-hot* label :math:`y` has a 1 at the true class :math:`k^*` and 0 elsewhere, so all terms of the sum but one
# vanish. It is enough to keep :math:`k^*`, a whole number from 0 to :math:`K - 1`, and to look up one logarithm. Keras
# calls this *sparse*; it saves memory and work by a factor :math:`K`.
p = a.exp() / a.exp().sum(1, keepdim=True)  # (N, K)
one_hot = F.one_hot(y, K).float()  # (N,) -> (N, K)
dense = -(one_hot * p.log()).sum(1).mean()
sparse = -p[torch.arange(len(y)), y].log().mean()
torch.testing.assert_close(dense, sparse)
torch.testing.assert_close(sparse, F.cross_entropy(a, y))  # takes logits, and labels of either form:
torch.testing.assert_close(sparse, F.cross_entropy(a, one_hot))
print(f"sums of the probabilities {p.sum(1).min():.3f} to {p.sum(1).max():.3f}, label {y[0]} is {one_hot[0].tolist()}")
print(f"loss before training {sparse:.3f}; log 3, the loss of guessing, is {math.log(3):.3f}")

# %%
# By hand: training
# -----------------
# Three classifiers look at the spirals. The first is linear. The second is linear, too, but a person has engineered
# features for it, squares and products, as one would write a salary as :math:`ax^2 + bx + c` of the years of
# experience. Which products suit a spiral? The third need not know: its hidden layer finds its features by gradient
# descent.


def train(model, inputs, steps=1000, lr=0.03):
    """Train on all points in each step, and return the accuracy."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        loss = F.cross_entropy(model(inputs), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float((model(inputs).argmax(1) == y).float().mean())


def squares(x):
    """Return x1, x2, their squares and their product: (N, 2) -> (N, 5)."""
    return torch.cat([x, x**2, x[:, :1] * x[:, 1:]], 1)


torch.manual_seed(0)
models = {
    "linear": (nn.Linear(2, 3), lambda x: x),
    "linear, with squares": (nn.Linear(5, 3), squares),
    "32 hidden units": (nn.Sequential(nn.Linear(2, 32), nn.Sigmoid(), nn.Linear(32, 3)), lambda x: x),
}
start = {name: value.clone() for name, value in models["32 hidden units"][0].state_dict().items()}
accuracies = {name: train(model, features(x)) for name, (model, features) in models.items()}

# %%
# Look: the boundaries
# --------------------
# The colour of the ground is the predicted class. On the left all boundaries are straight, whatever :math:`w` and
# :math:`b` are. Squares bend them into conic sections. The hidden layer follows the arms. The
# accuracies are those of the training points; :doc:`/learn/08_images` asks what they are worth for new ones.
line = torch.linspace(-1.3, 1.3, 200)
grid = torch.cartesian_prod(line, line)  # (40000, 2)
colors = ListedColormap(["C0", "C1", "C2"])
fig, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
for ax, (name, (model, features)) in zip(axes, models.items(), strict=True):
    classes = model(features(grid)).argmax(1).view(200, 200).T
    ax.pcolormesh(line, line, classes, cmap=colors, alpha=0.3, shading="nearest", rasterized=True)
    ax.scatter(*x.T, c=y, cmap=colors, s=8)
    ax.set(title=f"{name}: {accuracies[name]:.0%}", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")

# %%
# Look: what the hidden units have found
# --------------------------------------
# The eight hidden units with the largest outgoing weights. Each is a neuron, a soft step across a straight line.
# The last layer adds such steps: that is enough for any curve, if there are enough of them.
hidden, _, last = models["32 hidden units"][0]
with torch.no_grad():
    units = torch.sigmoid(hidden(grid))  # (40000, 32)
strongest = last.weight.detach().norm(dim=0).topk(8).indices  # (3, 32) -> (8,)
fig, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained")
for ax, unit in zip(axes.flat, strongest.tolist(), strict=True):
    shown = ax.pcolormesh(line, line, units[:, unit].view(200, 200).T, vmin=0, vmax=1, cmap="gray", rasterized=True)
    ax.scatter(*x.T, c=y, cmap=colors, s=3)
    ax.set(title=f"unit {unit}", aspect="equal", xticks=[], yticks=[])
fig.colorbar(shown, ax=axes).set_label("output of the unit")

# %%
# With torchdl
# ------------
# The same network from the same initial weights, trained in the same steps, is the same at the end.
network = torchdl.MLP(2, 3, hidden=(32,), dropout=0.0, activation="sigmoid")
network.load_state_dict(dict(zip(network.state_dict(), start.values(), strict=True)))
loader = torchdl.BatchLoader(torchdl.ArrayDataset(x, y), batch_size=len(x))
task = torchdl.Supervised(network, F.cross_entropy, optimizer=lambda parameters: torch.optim.Adam(parameters, 0.03))
torchdl.Trainer(epochs=1000, evaluate_every=1000, device="cpu").fit(task, loader)
for ours, by_loop in zip(network.parameters(), models["32 hidden units"][0].parameters(), strict=True):
    torch.testing.assert_close(ours, by_loop, rtol=1e-2, atol=1e-2)
print(f"accuracy {float((network(x).argmax(1) == y).float().mean()):.1%}")

# %%
# .. list-table:: From Keras to PyTorch
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Dense(M, activation="sigmoid")``
#      - ``nn.Linear(D, M), nn.Sigmoid()``
#      - Keras stores :math:`W` as (D, M), PyTorch its transpose (M, D)
#    * - ``Dense(K, activation="softmax")``
#      - ``nn.Linear(D, K)``
#      - softmax is part of the loss
#    * - ``sparse_categorical_crossentropy`` and ``categorical_crossentropy``
#      - ``F.cross_entropy``
#      - takes logits and both forms of labels; whole-number labels must be int64
#    * - ``binary_crossentropy``
#      - ``F.binary_cross_entropy_with_logits``
#      - takes logits, and labels as floats
#
# What breaks it: a forgotten activation, and one too many
# --------------------------------------------------------
# Without :math:`\sigma` the layers multiply out to a single one, with :math:`W' = W_1 W_2` and
# :math:`b' = b_1^\top W_2 + b_2`. The second mistake is softmax before ``F.cross_entropy``, which applies it again. The
# largest difference between two "logits" is then 1, and the loss of three classes cannot fall below
# :math:`\log(1 + 2 e^{-1})`. Nothing fails; the network only learns more slowly.
torch.manual_seed(0)
linear = nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 3))
accuracy = train(linear, x)
W = linear[0].weight.T @ linear[1].weight.T  # (2, 32) @ (32, 3) -> (2, 3)
b = linear[0].bias @ linear[1].weight.T + linear[1].bias  # (3,)
torch.testing.assert_close(linear(x), x @ W + b, rtol=1e-4, atol=1e-4)
print(f"two layers without activation: accuracy {accuracy:.1%}, one layer: {accuracies['linear']:.1%}")
for title, end in (("once", nn.Identity()), ("twice", nn.Softmax(1))):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Sigmoid(), nn.Linear(32, 3), end)
    found = train(model, x, steps=150)
    print(f"softmax {title}: accuracy after 150 steps {found:.1%}, loss {F.cross_entropy(model(x), y):.3f}")
print(f"lowest possible loss with softmax twice: {math.log(1 + 2 / math.e):.3f}")

# %%
# Exercise 1: parameters
# ----------------------
# How many weights and biases has a network of 784 inputs, hidden layers of 128 and 64 units, and 10 outputs?
count = ...

check(count, sum(p.numel() for p in torchdl.MLP(784, 10, hidden=(128, 64)).parameters()), hint="(D + 1) M for a layer.")

# %%
# .. dropdown:: Solution
#
#    Each unit of a layer has a weight for each input and a bias.
#
#    .. code-block:: python
#
#       count = (784 + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 10

# %%
# Exercise 2: a softmax for large logits
# --------------------------------------
# ``torch.tensor([1000.0, 0.0]).exp()`` is infinite. Write a function of logits (N, K) that returns softmax's
# probabilities even for these. Adding the same number to all logits of a row does not change its probabilities.
softmax = ...

some = torch.tensor([[1000.0, 0.0], [-1000.0, -1000.0], [1.0, 2.0]])
check(softmax, lambda f: torch.allclose(f(some), some.softmax(1)) or f"wrong for one of the logits {some.tolist()}")

# %%
# .. dropdown:: Solution
#
#    Subtract the row's maximum: the largest exponential is then 1. ``F.cross_entropy`` does the same.
#
#    .. code-block:: python
#
#       def softmax(a):
#           e = (a - a.amax(1, keepdim=True)).exp()
#           return e / e.sum(1, keepdim=True)

# %%
# Exercise 3: a surprised network
# -------------------------------
# A network gives ten classes the logit 0, but the true one the logit -2. What is the loss?
loss = ...

check(loss, F.cross_entropy(torch.tensor([[-2.0] + [0.0] * 9]), torch.tensor([0])), hint="Which probability is it?")

# %%
# .. dropdown:: Solution
#
#    The true class has the probability :math:`e^{-2} / (9 + e^{-2})`.
#
#    .. code-block:: python
#
#       loss = math.log(9 + math.exp(-2)) + 2

# %%
# Where next
# ----------
# ``python scripts/train_tabular.py --hidden 64`` puts a network beside a linear model on a table. The TensorFlow
# Playground (playground.tensorflow.org) shows a spiral and hidden units while they learn. In the API:
# :class:`torchdl.MLP`, :class:`torchdl.Supervised`. RESULTS lists this part's networks under *Images*. Why a sigmoid,
# and not another function? :doc:`/learn/07_activations`.
