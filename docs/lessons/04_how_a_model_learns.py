"""
How a model learns
==================

A model learns when its loss falls, and the loss falls when the weights move against its gradient. What happens in that
step, and what do momentum, Adagrad or Adam change about it?

At the end you can compute a gradient in three ways, tell from a loss curve whether the learning rate is too small or
too large, and write seven optimizers that agree with PyTorch's, in a few lines each.
"""

# %%
# The idea
# --------
# A model's loss :math:`J(w)` is a landscape over its weights. At the lowest point, all slopes are 0. For linear
# regression, :math:`\nabla J = 0` can be solved on paper. For logistic regression and for networks it cannot. So we
# begin somewhere and walk:
#
# .. math:: w \leftarrow w - \eta \, \nabla J(w), \qquad w, \nabla J: (D), \qquad \eta > 0 \text{: the learning rate.}
#
# The gradient is the vector of all partial derivatives. It points uphill, hence the minus. Here the loss is the mean
# squared error of a linear model with two weights, so it can be drawn, and its gradient is known:
#
# .. math:: J(w) = \frac{1}{N} \lVert X w - y \rVert^2, \qquad \nabla J(w) = \frac{2}{N} X^T (X w - y),
#           \qquad X: (N, 2), \quad y: (N).
#
# The second input varies a fifth as much as the first one. So the valley is steep across and flat along. That makes
# learning slow, in large models, too.

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import Tensor, nn

import torchdl
from torchdl.tasks import make_optimizer

generator = torch.Generator().manual_seed(0)
N = 64
X = torch.randn(N, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.2])
y = X.sum(1) + 0.1 * torch.randn(N, generator=generator, dtype=torch.float64)  # the true weights are (1, 1)
start = torch.tensor([-1.5, 2.5], dtype=torch.float64)


def loss_of(w: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error (...) of weights (..., 2)."""
    return (w @ x.T - target).square().mean(-1)


lowest = loss_of(torch.linalg.lstsq(X, y[:, None]).solution[:, 0], X, y)

# %%
# Three ways to a gradient
# ------------------------
# By the formula; by *differences*, which needs two losses for each weight, hopeless for a million weights but good for
# a check; and by *automatic differentiation*: PyTorch records every operation on ``w``, and ``backward()`` walks the
# record in reverse by the chain rule. That costs about two forward passes, however many weights there are.

formula = 2 / N * X.T @ (X @ start - y)
tiny = 1e-6 * torch.eye(2, dtype=torch.float64)
differences = (loss_of(start + tiny, X, y) - loss_of(start - tiny, X, y)) / 2e-6
w = start.clone().requires_grad_()
loss_of(w, X, y).backward()
assert w.grad is not None
torch.testing.assert_close(w.grad, formula)
torch.testing.assert_close(differences, formula, rtol=1e-6, atol=1e-8)
print(
    "formula",
    formula.numpy().round(6),
    " differences",
    differences.numpy().round(6),
    " autograd",
    w.grad.numpy().round(6),
)

# %%
# By hand
# -------
# An optimizer is a rule: from weights w, a gradient g and what it remembers, it makes new weights. The loop around it
# is always the same. ``batch`` is the number of rows behind each gradient: all of them (*gradient descent*), one
# (*stochastic*), or some (*mini-batch*).

Rule = Callable[[Tensor, Tensor, "defaultdict[str, Any]", float], Tensor]


def descend(rule: Rule, rate: float, batch: int = N, updates: int = 100) -> Tensor:
    """Return the weights (updates + 1, 2) along the way."""
    order = torch.Generator().manual_seed(1)
    passes = -(-updates * batch // N)  # rounded up
    rows = torch.cat([torch.randperm(N, generator=order) for _ in range(passes)])  # each epoch in a new order
    memory: defaultdict[str, Any] = defaultdict(float)  # everything is 0 at first
    w = start.clone()
    path = [w]
    for chosen in rows.split(batch)[:updates]:
        w = w.detach().requires_grad_()
        loss = loss_of(w, X[chosen], y[chosen])
        loss.backward()
        assert w.grad is not None
        w = rule(w.detach(), w.grad, memory, rate)
        path.append(w)
    return torch.stack(path)


def sgd(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
    """Go downhill."""
    return w - rate * g


# %%
# **The learning rate** is found by trying powers of ten. A good one gives a loss that falls fast and flattens. One
# that is too small gives the same curve in slow motion. One that is too large jumps across the valley and back. Look
# at the first weight on the right: near the limit, it bounces between the walls, and above the limit, it climbs them.
# The limit is 2 divided by the largest curvature; see the line below.

curvatures = torch.linalg.eigvalsh(2 / N * X.T @ X)
limit = 2 / curvatures[-1].item()
print(f"curvatures {curvatures[0]:.3f} and {curvatures[1]:.3f}: rates above {limit:.3f} diverge")

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for rate, name in ((0.01, "too small"), (0.5, "good"), (0.98 * limit, "nearly too large"), (1.03 * limit, "too large")):
    path = descend(sgd, rate)
    axes[0].plot(loss_of(path, X, y), label=f"{rate:.2f}: {name}")
    axes[1].plot(path[:21, 0])
axes[0].set(title="Gradient descent with four learning rates", xlabel="update", ylabel="loss", yscale="log")
axes[0].legend(title="learning rate")
axes[1].set(title="The first 20 updates", xlabel="update", ylabel="first weight", xticks=range(0, 21, 5))
plt.show()

# %%
# **Momentum** keeps a velocity v. Steps across the valley cancel each other, steps along it add up, to ten times the
# rate if they agree (:math:`1 / (1 - 0.9)`). **Nesterov** first looks ahead to where the velocity will lead, and
# takes the gradient there:
#
# .. math:: v \leftarrow \gamma v + \nabla J(\theta), \quad \theta \leftarrow \theta - \eta v
#           \qquad \text{and} \qquad v \leftarrow \gamma v + \nabla J(\theta - \eta \gamma v), \quad
#           \theta \leftarrow \theta - \eta v .
#
# PyTorch stores :math:`w = \theta - \eta \gamma v` instead of :math:`\theta`, so its gradient is the one ahead.


def momentum(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
    """Follow the velocity."""
    memory["v"] = 0.9 * memory["v"] + g
    return w - rate * memory["v"]


def nesterov(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
    """Follow the velocity that will be."""
    memory["v"] = 0.9 * memory["v"] + g
    return w - rate * (g + 0.9 * memory["v"])


# %%
# The next four give **each weight a rate of its own**, by the size of its past gradients. **Adagrad** divides by the
# root of the sum of all squares, so its rate can only fall, and in the end it stands still. **RMSprop** takes a moving
# average instead, which forgets. **Adadelta** also replaces the rate by the size of its own past steps, so a step has
# the unit of a weight. **Adam** is momentum and RMSprop together. Its averages begin at 0, and the divisions by
# :math:`1 - \beta^t` make up for that.


def adagrad(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
    """Divide by the root of the sum of squares."""
    memory["s"] = memory["s"] + g**2
    return w - rate * g / (memory["s"].sqrt() + 1e-10)


def rmsprop(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
    """Divide by the root of the mean square."""
    memory["s"] = 0.99 * memory["s"] + 0.01 * g**2
    return w - rate * g / (memory["s"].sqrt() + 1e-8)


def adadelta(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
    """Take steps as large as those before, relative to the gradients."""
    memory["s"] = 0.9 * memory["s"] + 0.1 * g**2
    step = ((memory["u"] + 1e-6) / (memory["s"] + 1e-6)) ** 0.5 * g
    memory["u"] = 0.9 * memory["u"] + 0.1 * step**2
    return w - rate * step


def adam(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
    """Divide the velocity by the root of the mean square."""
    memory["t"] += 1
    memory["m"] = 0.9 * memory["m"] + 0.1 * g
    memory["s"] = 0.999 * memory["s"] + 0.001 * g**2
    m, s = memory["m"] / (1 - 0.9 ** memory["t"]), memory["s"] / (1 - 0.999 ** memory["t"])
    return w - rate * m / (s.sqrt() + 1e-8)


# %%
# With torchdl
# ------------
# ``make_optimizer`` builds PyTorch's optimizers by name, with the settings above. An optimizer of PyTorch's holds the
# weights and changes them in place; as a rule, it only has to be wrapped. All eight take the same path as ours.

rules: dict[str, Rule] = {
    "sgd": sgd, "momentum": momentum, "nesterov": nesterov, "adagrad": adagrad,
    "rmsprop": rmsprop, "adadelta": adadelta, "adam": adam,
}  # fmt: skip


def of_pytorch(name: str) -> Rule:
    """Return an optimizer of PyTorch's as a rule."""

    def rule(w: Tensor, g: Tensor, memory: dict[str, Any], rate: float) -> Tensor:
        if "optimizer" not in memory:
            memory["w"] = nn.Parameter(w.clone())
            memory["optimizer"] = make_optimizer(name, [memory["w"]], rate)
        memory["w"].grad = g
        memory["optimizer"].step()
        return memory["w"].detach().clone()

    return rule


for name, rule in rules.items():
    torch.testing.assert_close(descend(rule, 0.1, batch=16), descend(of_pytorch(name), 0.1, batch=16))
print("equal to PyTorch's:", ", ".join(rules))

# %%
# In a training, ``Supervised`` gets the optimizer, and the ``Trainer`` has the loop.

model = nn.Linear(2, 1, bias=False)
model.load_state_dict({"weight": start.float()[None]})  # (1, 2)
task = torchdl.Supervised(model, F.mse_loss, optimizer=partial(make_optimizer, "adam", lr=0.1))
rows = torchdl.ArrayDataset(X.float(), y.float()[:, None])
torchdl.Trainer(epochs=100, device="cpu").fit(task, torchdl.BatchLoader(rows, batch_size=N))
torch.testing.assert_close(model.weight[0].double(), descend(adam, 0.1)[-1], rtol=1e-3, atol=1e-3)

# %%
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``SGD(0.001, 0.9)``, ``nesterov=True``
#      - ``torch.optim.SGD``
#      - PyTorch's default momentum is 0, too, but ``lr`` is 0.001 there and 0.01 in Keras.
#    * - ``"adagrad"``, ``"rmsprop"``
#      - ``Adagrad``, ``RMSprop``
#      - Keras: rates 0.001 for both, :math:`\rho = 0.9`. PyTorch: 0.01 for both, :math:`\alpha = 0.99`.
#    * - ``"adadelta"``
#      - ``Adadelta``
#      - Keras' rate is 0.001, with which it hardly moves. PyTorch's is 1, as in the paper.
#    * - gradients are new in each step
#      - ``optimizer.zero_grad()``
#      - Without it, gradients add up; see below.
#
# Look
# ----
# Each method gets the best of a few rates. The table shows which one, and how far it comes.

methods = {
    "gradient descent": (sgd, N), "stochastic": (sgd, 1), "mini-batch": (sgd, 16),
    "momentum": (momentum, 16), "Nesterov": (nesterov, 16), "Adagrad": (adagrad, 16),
    "RMSprop": (rmsprop, 16), "Adadelta": (adadelta, 16), "Adam": (adam, 16),
}  # fmt: skip
paths, losses = {}, {}
print(f"{'':17} rows  rate   rows seen   loss above the lowest after 100 updates")
for name, (rule, batch) in methods.items():
    tried = {rate: descend(rule, rate, batch) for rate in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)}
    above = {rate: (loss_of(path, X, y) - lowest).nan_to_num(torch.inf) for rate, path in tried.items()}
    rate = min(above, key=lambda r: above[r][-10:].mean().item())
    paths[name], losses[name] = tried[rate].numpy(), above[rate].clamp(min=1e-12).numpy()
    print(f"{name:17} {batch:4} {rate:5.2f} {100 * batch:11,} {above[rate][-10:].mean():14.1e}")

# %%
# Look at the paths: gradient descent is smooth, mini-batches tremble, and the stochastic path zigzags, because every
# row pulls its own way. Momentum overshoots and comes back. The four with a rate for each weight head for the goal
# at once, because they stretch the flat direction. The star is the end. An update of gradient descent reads
# 64 rows, a stochastic one a single row, so the curves on the right are not equally expensive.

grid = torch.meshgrid(torch.linspace(-2, 3, 100), torch.linspace(-1, 3.5, 100), indexing="xy")
height = loss_of(torch.stack(grid, -1).double(), X, y) - lowest  # (100, 100, 2) -> (100, 100)
torchdl.plots.plot_paths((grid[0].numpy(), grid[1].numpy(), height.numpy()), paths, losses)

# %%
# What breaks it
# --------------
# **The scale of the loss.** A loss that sums over 1,000 rows has 1,000 times the gradients of one that averages.
# Gradient descent explodes with the old rate. Adam divides by the size of the gradients and does not notice. That is
# one reason why it is the usual first choice.


def scaled(rule: Rule) -> Rule:
    """Return a rule that gets gradients 1,000 times as large."""
    return lambda w, g, memory, rate: rule(w, 1000 * g, memory, rate)


for name, rule, rate in (("gradient descent", sgd, 0.5), ("Adam", adam, 0.1)):
    ends = [loss_of(descend(each, rate)[-1], X, y).item() for each in (rule, scaled(rule))]
    print(f"{name:17} loss {ends[0]:.4f}, with gradients 1,000 times as large {ends[1]:.4g}")

# %%
# **A forgotten** ``zero_grad()``. PyTorch adds each gradient to what ``.grad`` holds. The sum of all past gradients is
# a velocity without friction: the weights swing through the minimum and never settle.

forgetful = nn.Parameter(start.clone())
optimizer = torch.optim.SGD([forgetful], lr=0.1)
swinging = []
for _ in range(100):
    loss = loss_of(forgetful, X, y)
    swinging.append(loss.item())
    loss.backward()
    optimizer.step()
print(
    "losses without zero_grad():", " ".join(f"{loss:.1f}" for loss in swinging[:16]), f"... {max(swinging[-16:]):.1f}"
)

# %%
# Exercise 1: the gradient of logistic regression
# -----------------------------------------------
# Its loss is :math:`J = \frac{1}{N} \sum_n \mathrm{BCE}(\sigma(x_n \cdot w), y_n)`. Write a function
# ``gradient(w, x, y)`` that returns :math:`\nabla J` (D) of weights w (D), inputs x (N, D) and labels y (N), without
# ``backward()``.

gradient = ...


def compare(f: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool | str:
    """Return whether a function returns the gradient that autograd finds."""
    w, label = start.clone().requires_grad_(), (X[:, 0] > 0).double()
    F.binary_cross_entropy_with_logits(X @ w, label).backward()
    assert w.grad is not None
    return torch.allclose(f(start, X, label), w.grad) or "autograd finds another gradient"


check(gradient, compare, hint="By the logit, the loss of a row changes by sigmoid(logit) - y.")

# %%
# .. dropdown:: Solution
#
#    The same form as for the squared error, with the sigmoid's output as the prediction.
#
#    .. code-block:: python
#
#       gradient = lambda w, x, y: x.T @ ((x @ w).sigmoid() - y) / len(x)

# %%
# Exercise 2: Adam's first step
# -----------------------------
# Predict: by how much does Adam change the weights (0, 0) in its very first step, with learning rate 0.01 and the
# gradient (100, -0.001)? Answer with a list of two numbers.

change = ...
check(
    change,
    adam(torch.zeros(2), torch.tensor([100.0, -0.001]), defaultdict(float), 0.01),
    hint="In the first step, m is g and s is its square, after the correction.",
)

# %%
# .. dropdown:: Solution
#
#    :math:`m / \sqrt{s} = g / |g|`: only the sign counts. Every weight moves by the learning rate.
#
#    .. code-block:: python
#
#       change = [-0.01, 0.01]

# %%
# Where next
# ----------
# - ``python scripts/show_optimizers.py`` draws the paths with more rates; ``--steepness 20`` narrows the valley. Every
#   script that trains has ``--optimizer``, and ``python scripts/find_lr.py train_lenet.py`` looks for a learning rate.
# - :func:`torchdl.tasks.make_optimizer`, :class:`torchdl.LearningRateFinder`, :func:`torchdl.plots.plot_paths`.
# - RESULTS.md, "Tables, and what optimizers do", compares nine optimizers over several seeds.
# - Next: :doc:`/learn/05_save_load_hand_over`.
