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
# Moore's first figure was a doubling every year; in 1975 he forecast one every two years. Growth by the same factor r
# every year, from a count :math:`A_0` at :math:`t = 0`, gives counts :math:`C = A_0 \, r^t`. That is no line in t. Its
# logarithm is:
#
# .. math:: \log C = \log r \cdot t + \log A_0, \qquad \text{or} \quad y = a\,x + b.
#
# So x is the time t, :math:`a = \log r`, or :math:`r = e^a`, and :math:`b = \log A_0`. A doubling takes the t with
# :math:`r^t = 2`, which is :math:`\log 2 / a` years. For N examples with D inputs and M outputs, a linear layer
# computes
#
# .. math:: \hat Y = X W + b, \qquad X: (N, D), \quad W: (D, M), \quad b: (M), \quad \hat Y: (N, M),
#
# here with D = M = 1. There is no activation, because the output may be any number. The loss is the mean squared error,
#
# .. math:: J = \frac{1}{N} \sum_{n=1}^{N} (y_n - \hat y_n)^2 .
#
# Accuracy makes no sense for numbers. Instead we report :math:`R^2 = 1 - J / \mathrm{Var}(y)`: 1 for a perfect fit, 0
# for a model that always predicts the mean. The steps are those of every model: prepare the data, build, train,
# evaluate.
#
# The data come with torchdl: 24 processors from 1971 to 2022. If ``TORCHDL_DATA`` names a folder that has the course's
# ``csv/moore.csv``, its 162 processors take their place: lines of year and count, such as ``1971,2300``, without a
# header (``pd.read_csv(path, header=None)``).

import math
from functools import partial
from statistics import median

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
# Look at the left panel: three quarters of the points lie on the floor, and no line could pass near all of them. On the
# right, one line will do.
#
# By hand
# -------
# First centre the years: x is the year less the mean year. Then b is the logarithm of the count in the mean year, no
# longer :math:`\log A_0`. Centring decouples the parameters. The gradient of the loss is
#
# .. math:: \frac{\partial J}{\partial a} = 2\,(a\,\overline{x^2} + b\,\bar x - \overline{xy}), \qquad
#           \frac{\partial J}{\partial b} = 2\,(a\,\bar x + b - \bar y),
#
# with bars for means. With :math:`\bar x = 0`, a step for b does not change the slope for a, nor the reverse. The slope
# for a changes by :math:`2\,\overline{x^2}` for each unit of a: this is the *curvature*. With years near 2,000 it would
# be 8 million; more on that below. We could also divide x by its deviation, but the trained slope must then be divided
# by it as well, to be one per year again.
#
# The optimizer is SGD, stochastic gradient descent: every step follows the gradient g of some rows instead of all. With
# momentum, gradients are collected in a velocity v, which the weights w follow:
#
# .. math:: v \leftarrow 0.9\,v + g, \qquad w \leftarrow w - \eta v.
#
# The learning rate :math:`\eta` falls once, from 0.001 to 0.0001, as the lecture's does, but later (see below).

x = (years - years.mean()).float()[:, None]  # (N,) -> (N, 1): a layer wants rows of D numbers
y = logarithms.float()[:, None]  # (N, 1)


def train(line: nn.Linear, x: Tensor, y: Tensor, epochs: int, later: int, batch: int | None = None) -> list[float]:
    """Train with a lower rate from epoch ``later`` on, on all rows at once or in batches; return each epoch's loss."""
    optimizer = torch.optim.SGD(line.parameters(), lr=0.001, momentum=0.9)
    order, history = torch.Generator().manual_seed(0), []
    for epoch in range(epochs):
        for group in optimizer.param_groups:  # an optimizer may hold several groups of parameters, each with its rate
            group["lr"] = 0.001 if epoch < later else 0.0001
        for rows in torch.randperm(len(x), generator=order).split(batch or len(x)):
            loss = (line(x[rows]) - y[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history.append((line(x) - y).square().mean().item())  # over all rows
    return history


def new_line() -> nn.Linear:
    """Return a line with the same first weights each time, so that all runs below can be compared."""
    torch.manual_seed(0)
    return nn.Linear(1, 1)


line = new_line()
losses = train(line, x, y, epochs=600, later=500)
slope, bias = line.weight.item(), line.bias.item()
print(f"slope {slope:.5f}: a factor of {math.exp(slope):.3f} a year, a doubling every {math.log(2) / slope:.3f} years")

fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.semilogy(range(1, 601), losses)
ax.set(title="Training on all rows at once", xlabel="epoch", ylabel="loss (mean squared error)")
plt.show()

# %%
# The loss falls to a level that no line can undercut, because the points do not lie on one.
#
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

residuals = y64 - y64.mean() - exact_slope * x64  # (N,)
error = (residuals.square().sum() / (len(x) - 2) / x64.square().sum()).sqrt().item()  # of the slope: standard error
low, high = (math.log(2) / (exact_slope + k * error) for k in (2, -2))
print(f"a doubling takes {low:.2f} to {high:.2f} years (slope plus or minus two standard errors)")

# %%
# So Moore was nearly right: growth by a constant factor explains almost all of fifty years, and the two years of 1975
# are close. (The course's longer list gives about two years; see RESULTS.)
#
# With torchdl
# ------------
# The trainer calls ``schedule`` with the optimizer and the number of steps; ``partial`` fills in the other arguments of
# ``milestones``, which multiplies the learning rate by a factor at given steps. With one batch an epoch, step 500 is
# epoch 500.

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
#    * - ``Dense(1)``, no activation by default
#      - ``nn.Linear(1, 1)``
#      - One layer; the input does not count. Keras stores W as (D, M), PyTorch its transpose, (M, D).
#    * - ``SGD(0.001, 0.9)``
#      - ``torch.optim.SGD(..., lr=0.001, momentum=0.9)``
#      - In Keras, v = 0.9 v - rate g, and w moves by v: another path after the rate has changed.
#    * - ``optimizer="adam"``
#      - ``torch.optim.Adam(..., lr=0.001)``
#      - A step is about 0.001, whatever the gradient: the bias has 16 to go, so that is 16,000 steps.
#    * - ``loss="mse"``
#      - ``F.mse_loss``
#      - Outputs (N, 1) against targets (N,): see below.
#    * - ``LearningRateScheduler(schedule)``, a callback: a function called in each epoch
#      - ``param_groups``, or ``torch.optim.lr_scheduler``
#      - PyTorch's schedulers need a call of ``step()``, after the optimizer's.
#    * - ``a = model.layers[0].get_weights()[0][0, 0]``
#      - ``line.weight.item()``
#      - W has two axes even here, b has one.
#    * - ``model.predict(X).flatten()``
#      - ``line(x).detach()[:, 0]``
#      - Predictions are (N, 1), the data that you plot are (N,).
#
# Look
# ----
# Using a trained model for predictions is what makes it useful. Left, the line during training: the slope is right
# early, the height takes longer. The axis is logarithmic, so exponential growth is a line. Right, what the line misses:
# waves, so growth was faster at some times than at others; the last chips lie below the line.

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
axes[0].scatter(years, counts, s=14, color="0.4")
for epochs, style in ((20, ":"), (60, "--"), (600, "-")):
    during = new_line()
    train(during, x, y, epochs, later=500)
    axes[0].plot(years, during(x).exp().detach(), style, color="C0", label=f"after {epochs} epochs")
axes[0].set(title="The line during training", xlabel="year", ylabel="transistors", yscale="log")
axes[0].legend()
axes[1].scatter(years, residuals, s=14, color="0.4")
axes[1].axhline(0, color="0.6", linestyle="--")
axes[1].set(title="Data minus line", xlabel="year", ylabel="difference of the logarithms")
plt.show()

# %%
# What does the schedule do? With one batch of all rows, little: the loss is smooth anyway. With batches of 8, every
# step follows the slope of other rows, and the loss trembles around its minimum. The two runs below are the same until
# epoch 300. Then the lower rate makes the trembling much smaller: compare the medians.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
lowest = residuals.square().mean().item()
for name, later, color in (("rate 0.001", 600, "C1"), ("rate 0.0001 from epoch 300 on", 300, "C0")):
    noisy = train(new_line(), x, y, epochs=600, later=later, batch=8)
    ax.plot(range(1, 601), [loss - lowest for loss in noisy], color=color, linewidth=1, label=name)
    print(f"{name:29} median loss above the minimum, epochs 400 to 600: {median(noisy[400:]) - lowest:.1e}")
ax.set(title="Batches of 8", xlabel="epoch", ylabel="loss above its minimum", yscale="log")
ax.legend()
plt.show()

# %%
# A schedule can also come too early. Count steps, not epochs: the lecture lowers the rate at epoch 50, in batches of
# 32. For its 162 rows these are 300 steps, for our 24 rows 50, and that is too early. The slope has arrived by then,
# because its curvature is large; the bias has not, and hardly moves any more.

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
# negative transistors for the early years. (Its R2 is of another y, so do not compare it with that of the logarithms.)

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
# Something grows by 41 % a year. Predict first: how many years does a doubling take? Then compute it, to three digits.

doubling = ...
check(doubling, math.log(2) / math.log(1.41), hint="The slope is log r, and r is 1.41.", close=0.003)

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
exact_year = years.mean().item() + (math.log(1e12) - logarithms.mean().item()) / exact_slope
check(
    year,
    lambda answer: bool(abs(float(answer) - exact_year) < 1) or "the line is elsewhere in that year",
    hint="Solve log(1e12) = slope * (year - mean year) + bias.",
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
    close=0.005,
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
