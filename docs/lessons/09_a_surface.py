r"""
A surface
=========

A network has seen a thousand points of a hilly surface and draws it almost perfectly. How good is it one step beyond
the last point?

At the end you can fit a function of two inputs, draw it in three dimensions, choose a schedule for the learning rate,
say what a network of ReLUs does far from its data, and help it with a periodic activation.
"""

import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, MultiStepLR

import torchdl

# %%
# The idea
# --------
# Regression needs no activation at the end: the output is any number. The network here has one hidden layer of
# :math:`M = 128` units,
#
# .. math:: f(x) = \sum_{m=1}^M v_m \, \max(0,\, w_m^\top x + b_m) + c, \qquad x, w_m \in \mathbb{R}^2,
#
# and nobody tells it that the surface is made of cosines, :math:`y = \cos 2 x_1 + \cos 3 x_2`. Each unit is a plane
# folded along a line, so :math:`f` is a surface of flat pieces. It can follow any hills if there are enough folds. All
# folds lie where the data are, because only there does the gradient put them.
torch.manual_seed(0)


def surface(x):
    """Return cos 2 x1 + cos 3 x2, (N, 1), of points (N, 2)."""
    return (2 * x[:, :1]).cos() + (3 * x[:, 1:]).cos()


x = 6 * torch.rand(1000, 2) - 3  # (N, 2), uniform in [-3, 3]^2
y = surface(x)  # (N, 1)
fig = plt.figure(figsize=(5, 4.5), layout="constrained")
ax = fig.add_subplot(projection="3d")
ax.scatter(*x.T, y[:, 0], c=y[:, 0], s=6)
ax.set(title="1,000 training points", xlabel="$x_1$", ylabel="$x_2$", zlabel="$y$")

# %%
# By hand
# -------
# Mean squared error, Adam with the learning rate 0.01, batches of 32, a hundred epochs. What happens to the rate is the
# *schedule*: constant as in Keras by default, or divided by 10 after 80 epochs, or falling from the start along half a
# cosine.
loader = torchdl.BatchLoader(torchdl.ArrayDataset(x, y), batch_size=32, shuffle=True, seed=0)
EPOCHS = 100
schedules = {
    "constant": lambda optimizer: ConstantLR(optimizer, factor=1),
    "falls late": lambda optimizer: MultiStepLR(optimizer, [80], gamma=0.1),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, EPOCHS),
}


def by_hand(schedule_of):
    """Train a network of 128 ReLUs, and return it with the mean loss of each epoch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 1))
    for parameter in model.parameters():  # as Keras: Glorot's weights, and biases of 0
        nn.init.xavier_uniform_(parameter) if parameter.dim() == 2 else nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    schedule = schedule_of(optimizer)
    losses = []
    for epoch in range(EPOCHS):
        total = 0.0
        for indices in loader.order(epoch).split(32):
            loss = (model(x[indices]) - y[indices]).square().mean()  # (32, 1) both
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(indices)
        schedule.step()
        losses.append(total / len(x))
    return model, losses


trained = {name: by_hand(schedule_of) for name, schedule_of in schedules.items()}
relu = trained["falls late"][0]

# %%
# With torchdl
# ------------
# The same network, batches and schedule give the same curve.


def fit(model, optimizer, schedule_of):
    """Train a model with torchdl, and return the losses."""
    task = torchdl.Supervised(model, F.mse_loss, optimizer=optimizer, schedule=schedule_of)
    return [row["train/loss"] for row in torchdl.Trainer(epochs=EPOCHS, device="cpu").fit(task, loader)]


torch.manual_seed(0)
model = torchdl.MLP(2, 1, hidden=(128,), dropout=0.0)
losses = fit(model, lambda parameters: torch.optim.Adam(parameters, 0.01), schedules["falls late"])
expected = torch.tensor(trained["falls late"][1][:20])  # later, differences of rounding have grown
torch.testing.assert_close(torch.tensor(losses[:20]), expected, rtol=1e-2, atol=1e-3)

# %%
# Look: the loss
# --------------
# With the constant rate the loss jumps up and down at the end: the steps are too large for the bottom of the valley. A
# rate that falls late lets it settle. One that falls from the start makes the steps small before the hills are found.
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (_, values) in trained.items():
    ax.semilogy(range(1, EPOCHS + 1), values, label=f"{name}: {values[-1]:.3f} at the end")
ax.set(title="Training loss by schedule", xlabel="epoch", ylabel="mean squared error")
ax.legend()
ax.grid(alpha=0.3)

# %%
# Look: the surface
# -----------------
# To draw a function of two inputs, take 50 places on each axis, make all 2,500 pairs, ask the network for each, and
# fold the answers into a square again. ``torch.cartesian_prod`` does what ``np.meshgrid``, ``flatten`` and ``vstack``
# do together. Between its points the network has found the hills, although it knows nothing of cosines.


def on_grid(function, side):
    """Return x1, x2 and a function's values, (50, 50) each, over [-side, side]^2."""
    line = torch.linspace(-side, side, 50)
    points = torch.cartesian_prod(line, line)  # (2500, 2)
    with torch.no_grad():
        return tuple(v.view(50, 50).numpy() for v in (*points.T, function(points)[:, 0]))


inside = {"learnt, with the points": on_grid(relu, 3), "true": on_grid(surface, 3)}
torchdl.plots.plot_surfaces(inside, torch.cat([x, y], 1).numpy())

# %%
# What breaks it: beyond the points
# ---------------------------------
# Now from -5 to 5. Outside of the square of the data no new fold comes, so along every ray from the centre the surface
# goes on as a straight line, for ever. The true surface keeps within -2 and 2. The error outside is larger than that of
# always predicting 0, the mean.


def rmse(name, function):
    """Print the root mean squared errors within [-3, 3]^2, and beyond it up to 5."""
    x1, x2, found = on_grid(function, 5)
    error = (found - on_grid(surface, 5)[2]) ** 2
    outside = (abs(x1) > 3) | (abs(x2) > 3)
    print(f"{name:10} RMSE inside {error[~outside].mean() ** 0.5:.3f}, outside {error[outside].mean() ** 0.5:.3f}")


rmse("128 ReLUs", relu)
rmse("always 0", lambda points: torch.zeros(len(points), 1))
direction = torch.tensor([[0.6, 0.8]])
with torch.no_grad():
    print(
        "on a ray, at 100, 200 and 300:", *(f"{float(relu(distance * direction)):.1f}" for distance in (100, 200, 300))
    )
torchdl.plots.plot_surfaces({"learnt from [-3, 3]²": on_grid(relu, 5), "true": on_grid(surface, 5)})

# %%
# A periodic activation
# ---------------------
# What goes on for ever must be built in: with :math:`\sin` for :math:`\max(0, \cdot)` each hidden unit is a wave across
# the whole plane, with the frequencies :math:`w_m`. That alone is not enough, because 128 waves of any frequency can
# agree on the points and differ beyond them. So the initial frequencies are spread over -4 to 4, and weight decay on
# the output layer removes waves that are not needed (:class:`torch.optim.AdamW`). That is knowledge about the surface:
# it is made of few waves.
torch.manual_seed(0)
sine = torchdl.MLP(2, 1, hidden=(128,), dropout=0.0, activation="sine")
waves, phases, *outputs = sine.parameters()  # (128, 2), (128,), [(1, 128), (1,)]
nn.init.uniform_(waves, -4, 4)
nn.init.uniform_(phases, -math.pi, math.pi)
groups = [{"params": [waves, phases], "weight_decay": 0.0}, {"params": outputs, "weight_decay": 3.0}]
fit(sine, lambda _: torch.optim.AdamW(groups, 0.01), schedules["cosine"])
rmse("128 sines", sine)
heights = outputs[0][0].detach().abs()  # (128,)
for unit in heights.topk(4).indices.tolist():
    w1, w2 = waves[unit].tolist()
    print(f"a wave of height {heights[unit]:.2f} has the frequencies {w1:5.2f} and {w2:5.2f}")
print(f"the 100 lowest waves reach {heights.sort().values[:100].max():.4f}")

# %%
# Training has found the formula: waves of the frequency 2 along :math:`x_1`, and of 3 along :math:`x_2`. In the cut
# below, the data lie in the white part. Inside, all three curves agree; outside, only the sines follow.
line = torch.linspace(-9, 9, 600)
cut = torch.stack([line, torch.zeros(600)], 1)  # (600, 2), x2 = 0
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
with torch.no_grad():
    ax.plot(line, surface(cut), color="0.75", linewidth=5, label="true")
    ax.plot(line, relu(cut), label="ReLU")
    ax.plot(line, sine(cut), label="sine")
for left in (-9, 3):
    ax.axvspan(left, left + 6, color="grey", alpha=0.15, linewidth=0)
ax.set(title="A cut along $x_2 = 0$", xlabel="$x_1$", ylabel="$y$", ylim=(-6, 6), xlim=(-9, 9))
ax.legend()
ax.grid(alpha=0.3)

# %%
# .. list-table:: From Keras to PyTorch
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Dense(1)``
#      - ``nn.Linear(128, 1)``
#      - outputs are (N, 1): with targets (N,) the difference is (N, N), and the loss is wrong
#    * - ``LearningRateScheduler``
#      - ``torch.optim.lr_scheduler``
#      - some step once an epoch, some once a step
#
# Exercise 1: flat pieces
# -----------------------
# Walk along a straight line across the ReLU network's surface. Of how many straight pieces does the path consist at
# most?
pieces = ...

check(pieces, len(relu[0].bias) + 1, hint="Each hidden unit folds the plane once, along one line.")

# %%
# .. dropdown:: Solution
#
#    Your line crosses each of the 128 folds at most once.
#
#    .. code-block:: python
#
#       pieces = 129

# %%
# Exercise 2: the trap of the table
# ---------------------------------
# Outputs have the shape (1000, 1), targets (1000,). Which shape, as a list, has their difference?
shape = ...

check(shape, list((y - y[:, 0]).shape), hint="PyTorch aligns shapes at their right ends.")

# %%
# .. dropdown:: Solution
#
#    (1000,) is taken as (1, 1000), and then both are repeated to the same shape.
#
#    .. code-block:: python
#
#       shape = [1000, 1000]

# %%
# Exercise 3: the error of a constant
# -----------------------------------
# Over whole periods of both cosines, what is the RMSE of always predicting 0? The mean of :math:`\cos^2` is 1/2.
error = ...

period = torch.arange(1000) * 2 * math.pi / 1000
check(error, (period.cos()[:, None] + period.cos()).square().mean().sqrt(), hint="Square the sum of two cosines.")

# %%
# .. dropdown:: Solution
#
#    The mean square is 1/2 + 1/2; the mixed term has the mean 0. An RMSE above 1 is worse than knowing nothing.
#
#    .. code-block:: python
#
#       error = 1.0

# %%
# Where next
# ----------
# ``python scripts/train_surface.py`` is this lesson as a command, and ``--activation sine`` the second half. RESULTS
# lists the errors beyond the points over three seeds, under *Tables, and what optimizers do*. In the API:
# :class:`torchdl.MLP`, :func:`torchdl.plots.plot_surfaces`. The next lesson is :doc:`/learn/10_convolution`.
