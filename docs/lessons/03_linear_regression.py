"""
Linear regression
=================

In 1965 Gordon Moore saw that the number of transistors on a chip doubles at a steady pace. How long does a doubling
take, and can a straight line, trained by gradient descent, find the answer in a curve that is anything but straight?

At the end you can turn exponential growth into a line, train that line with momentum and a schedule, check it against
the closed form, and name three ways in which such a training goes wrong without an error message.
"""

# %%
# The idea
# --------
# Growth by the same factor r every year gives counts :math:`C = A_0 \, r^t`. That is no line in t. Its logarithm is:
#
# .. math:: \log C = \log r \cdot t + \log A_0, \qquad \text{or} \quad y = a\,t + b.
#
# The slope a is the logarithm of the yearly factor, and a doubling takes :math:`\log 2 / a` years. For N examples
# with D inputs and M outputs, a linear layer computes
#
# .. math:: \hat Y = X W + b, \qquad X: (N, D), \quad W: (D, M), \quad b: (M), \quad \hat Y: (N, M),
#
# here with D = M = 1. There is no activation, because the output may be any number. The loss is the mean squared error,
#
# .. math:: J = \frac{1}{N} \sum_{n=1}^{N} (y_n - \hat y_n)^2 .
#
# Accuracy makes no sense for numbers. Instead we report :math:`R^2 = 1 - J / \mathrm{Var}(y)`: 1 for a perfect fit, 0
# for a model that always predicts the mean.
#
# The data come with torchdl: 24 processors from 1971 to 2022. If ``TORCHDL_DATA`` names a folder that has the course's
# ``csv/moore.csv``, its 162 processors take their place.

import math
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import Tensor, nn

import torchdl
from torchdl.tasks import milestones

years, logarithms, data = torchdl.data.load_transistors(fetch=False)  # (N,), (N,) in float64
counts = logarithms.exp()
print(f"{len(years)} processors, {years.min():.0f} to {years.max():.0f}")

fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
axes[0].scatter(years, counts / 1e9, s=14, color="0.4")
axes[0].set(title="Before the logarithm", xlabel="year", ylabel="transistors, billions")
axes[1].scatter(years, logarithms, s=14, color="0.4")
axes[1].set(title="After the logarithm", xlabel="year", ylabel="log of the transistors")
plt.show()

# %%
# Look at the left panel: half of the points lie on the floor, and no line could pass near all of them. On the right,
# one line will do.
#
# By hand
# -------
# First centre the years. We subtract the mean but do not divide by the deviation, so the slope keeps its unit: one
# year. Centring also decouples the two parameters. The second derivatives of the loss are
#
# .. math:: \frac{\partial^2 J}{\partial a^2} = \frac{2}{N} \sum x_n^2, \qquad
#           \frac{\partial^2 J}{\partial b^2} = 2, \qquad
#           \frac{\partial^2 J}{\partial a \, \partial b} = \frac{2}{N} \sum x_n ,
#
# and the last one is 0 for centred x. With years near 2,000, the first one would be 8 million; more on that below.
#
# The optimizer is gradient descent with momentum 0.9. Its learning rate falls once, from 0.001 to 0.0001: large steps
# to get near, small steps to settle.

x = (years - years.mean()).float()[:, None]  # (N,) -> (N, 1): a layer wants rows of D numbers
y = logarithms.float()[:, None]  # (N, 1)


def rate(epoch: int, later: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    return 0.001 if epoch < later else 0.0001


def train(line: nn.Linear, x: Tensor, y: Tensor, epochs: int, later: int, batch: int = 1000) -> list[float]:
    """Train by momentum, with a lower rate from epoch ``later`` on; return the loss over all rows after each epoch."""
    optimizer = torch.optim.SGD(line.parameters(), lr=0.001, momentum=0.9)
    order, history = torch.Generator().manual_seed(0), []
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch, later)
        for rows in torch.randperm(len(x), generator=order).split(batch):
            loss = (line(x[rows]) - y[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history.append((line(x) - y).square().mean().item())
    return history


def new_line() -> nn.Linear:
    """Return a line with the same first weights each time."""
    torch.manual_seed(0)
    return nn.Linear(1, 1)


line = new_line()
losses = train(line, x, y, epochs=600, later=500)
slope, bias = line.weight.item(), line.bias.item()
print(f"slope {slope:.5f}: a factor of {math.exp(slope):.3f} a year, a doubling every {math.log(2) / slope:.3f} years")

# %%
# **The closed form.** Linear regression is one of the few models where "gradient = 0" can be solved on paper. With
# centred x,
#
# .. math:: a = \frac{\sum x_n (y_n - \bar y)}{\sum x_n^2}, \qquad b = \bar y,
#           \qquad \text{and in general} \quad w = (X^T X)^{-1} X^T y.
#
# So we can check what 600 epochs have found. (:doc:`/learn/04_how_a_model_learns` is about all the models where this
# is not possible.) The prediction by hand is a matrix product; compare floats by ``allclose``, never by ``==``.

x64, y64 = years - years.mean(), logarithms
exact_slope = ((x64 * (y64 - y64.mean())).sum() / x64.square().sum()).item()
ones = torch.stack([x64, torch.ones_like(x64)], 1)  # (N, 2): a column of ones carries the bias
solution = torch.linalg.solve(ones.T @ ones, ones.T @ y64)  # (2,)
assert abs(solution[0].item() - exact_slope) < 1e-10
assert abs(slope - exact_slope) < 1e-4

with torch.no_grad():
    predicted = line(x)  # (N, 1)
    by_hand = x @ line.weight.T + line.bias  # (N, 1) x (1, 1) + (1) -> (N, 1)
assert torch.allclose(predicted, by_hand)
r2 = 1 - ((predicted - y).square().mean() / y.var(correction=0)).item()
print(f"slope by training {slope:.5f}, in closed form {exact_slope:.5f}; R2 {r2:.4f}")

# %%
# With torchdl
# ------------
# ``schedule`` gets the optimizer and the number of steps. ``milestones`` multiplies the learning rate by a factor at
# given steps. With one batch an epoch, step 500 is epoch 500.

model = torchdl.MLP(1, 1, hidden=(), dropout=0.0)
model.layers[0].load_state_dict(new_line().state_dict())
task = torchdl.Supervised(
    model,
    F.mse_loss,
    optimizer=partial(torch.optim.SGD, lr=0.001, momentum=0.9),
    schedule=partial(milestones, at=[500], factor=0.1),
)
history = torchdl.Trainer(epochs=600, device="cpu").fit(task, torchdl.BatchLoader(data, len(data)))
torch.testing.assert_close(model.layers[0].state_dict(), line.state_dict(), rtol=1e-4, atol=1e-4)
print(f"slope by torchdl {next(model.parameters()).item():.5f}")

# %%
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Dense(1)``
#      - ``nn.Linear(1, 1)``
#      - Keras stores W as (D, M). PyTorch stores its transpose, (M, D).
#    * - ``SGD(0.001, 0.9)``
#      - ``torch.optim.SGD(..., lr=0.001, momentum=0.9)``
#      - Keras multiplies by the rate before it adds to the velocity, PyTorch after it. They differ once the rate falls.
#    * - ``loss="mse"``
#      - ``F.mse_loss``
#      - Outputs (N, 1) against targets (N,): see below.
#    * - ``LearningRateScheduler(schedule)``
#      - ``param_groups``, or ``torch.optim.lr_scheduler``
#      - PyTorch's schedulers need a call of ``step()``, after the optimizer's.
#    * - ``model.layers[0].get_weights()``
#      - ``line.weight``, ``line.bias``
#      - ``.detach()`` before NumPy.
#
# Look
# ----
# Look at the axis: it is logarithmic, so equal factors have equal heights, and exponential growth is a line. The
# trained line lies on the one in closed form.

torchdl.plots.plot_line_fit(
    years,
    logarithms,
    {"trained": predicted[:, 0], "closed form": y64.mean() + exact_slope * x64},
    "year",
    "transistors",
)

# %%
# What does the schedule do? With one batch of all rows, little: the loss is smooth anyway. With batches of 8, every
# step follows the slope of another few rows, and the loss trembles around its minimum. Look at epoch 300: the lower
# rate ends the trembling.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
lowest = (y64 - y64.mean() - exact_slope * x64).square().mean().item()
for name, later, color in (("rate 0.001", 600, "C1"), ("rate 0.0001 from epoch 300 on", 300, "C0")):
    noisy = train(new_line(), x, y, epochs=600, later=later, batch=8)
    ax.plot(range(1, 601), [loss - lowest for loss in noisy], color=color, linewidth=1, label=name)
ax.set(title="Batches of 8", xlabel="epoch", ylabel="loss above its minimum", yscale="log")
ax.legend()
plt.show()

# %%
# A schedule can also come too early. The lecture lowers the rate at epoch 50 of 200, with batches of 32. The slope has
# arrived by then, because its curvature is large, but the bias has not, unless an epoch has several batches, as with
# the course's 162 processors. After that, it hardly moves.

for epochs, later in ((200, 50), (600, 500)):
    trained = new_line()
    last = train(trained, x, y, epochs, later, batch=32)[-1]
    print(
        f"{epochs} epochs, lower rate from {later:3} on: loss {last:.3f} (minimum {lowest:.3f}), "
        f"slope {trained.weight.item():.5f}, bias {trained.bias.item():.3f} (exact {y64.mean().item():.3f})"
    )

# %%
# What breaks it
# --------------
# **Years as they are.** The curvature is in the millions, and a step of 0.001 jumps far over the valley, further each
# time.

raw = new_line()
exploding = train(raw, years.float()[:, None], y, epochs=12, later=500)
print("losses without centring:", ", ".join(f"{loss:.0e}" for loss in exploding[:4]), "...", exploding[-1])

# %%
# **Counts without the logarithm.** The closed form still finds "the best line", but the best is bad: it predicts
# negative transistors for the early years.

wrong_slope = ((x64 * (counts - counts.mean())).sum() / x64.square().sum()).item()
straight = counts.mean() + wrong_slope * x64
straight_r2 = 1 - ((straight - counts).square().mean() / counts.var(correction=0)).item()
print(f"R2 {straight_r2:.2f}, lowest prediction {straight.min():.1e} transistors")

# %%
# **Targets of the wrong shape.** ``(N, 1) - (N,)`` is (N, N): every prediction is compared with every target. There is
# no error (``F.mse_loss`` gives at least a warning), the loss falls, and the slope goes to 0, because a constant is the
# best answer to all targets at once.

flat = new_line()
optimizer = torch.optim.SGD(flat.parameters(), lr=0.001, momentum=0.9)
for _ in range(600):
    difference = flat(x) - y[:, 0]  # (N, 1) - (N,) -> (N, N)
    optimizer.zero_grad()
    difference.square().mean().backward()
    optimizer.step()
print(f"differences {tuple(difference.shape)}, slope {flat.weight.item():.5f}, bias {flat.bias.item():.3f}")

try:
    torchdl.Trainer(epochs=1).fit(task, torchdl.BatchLoader(torchdl.ArrayDataset(x, y[:, 0]), 8))
except torchdl.InputError as error:
    print("torchdl:", error)

# %%
# Exercise 1: from slope to doubling
# ----------------------------------
# Something grows by 41 % a year. Predict first: how many years does a doubling take? Then compute it.

doubling = ...
check(doubling, math.log(2) / math.log(1.41), hint="The slope is log r, and r is 1.41.")

# %%
# .. dropdown:: Solution
#
#    The slope is the logarithm of the yearly factor. 1.41 is nearly the square root of 2, hence two years.
#
#    .. code-block:: python
#
#       doubling = math.log(2) / math.log(1.41)

# %%
# Exercise 2: a forecast
# ----------------------
# In which year does the line in closed form reach :math:`10^{12}` transistors? Use ``exact_slope``, ``years`` and
# ``logarithms``, and remember that the years are centred.

year = ...
check(
    year,
    years.mean().item() + (math.log(1e12) - logarithms.mean().item()) / exact_slope,
    hint="Solve log(1e12) = slope * (year - mean year) + bias.",
    close=1e-5,
)

# %%
# .. dropdown:: Solution
#
#    Solve the line for x, then add the mean that centring took away. It is a forecast far from the data, so trust it as
#    little as any extrapolation.
#
#    .. code-block:: python
#
#       year = years.mean().item() + (math.log(1e12) - logarithms.mean().item()) / exact_slope

# %%
# Exercise 3: the largest learning rate
# -------------------------------------
# Plain gradient descent on a parabola of curvature c multiplies the distance to the minimum by :math:`1 - \eta c` at
# every step. Above which learning rate does the slope diverge, for the centred x of this lesson?

largest = ...
check(
    largest,
    2 / (2 * x.square().mean().item()),
    hint="The curvature is 2 * mean(x^2); |1 - rate * curvature| must be < 1.",
)

# %%
# .. dropdown:: Solution
#
#    The distance shrinks if :math:`|1 - \eta c| < 1`, which means :math:`\eta < 2 / c`.
#
#    .. code-block:: python
#
#       largest = 2 / (2 * x.square().mean().item())

# %%
# Where next
# ----------
# - ``python scripts/train_moore.py`` does all this with a run folder, a standard error and a figure;
#   ``--batch-size 32 --epochs 200 --later-epoch 50`` is the lecture's training.
# - :func:`torchdl.data.load_transistors`, :func:`torchdl.tasks.milestones`, :func:`torchdl.plots.plot_line_fit`.
# - RESULTS.md, "Tables, and what optimizers do", has the slope over several seeds, and how far the lecture's shorter
#   training stays away from it.
# - Next: :doc:`/learn/04_how_a_model_learns`, on what ``optimizer.step()`` does.
