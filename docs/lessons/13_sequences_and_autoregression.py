"""
Sequences and autoregression
============================

How do we turn a series of measurements into examples to learn from? And when we have learned from them, how do we
forecast further ahead than one step?

At the end you can shape any sequences as (N, T, D), count windows, train an autoregressive model, forecast many steps
ahead, and prove that two weights are enough for a sine.
"""

# %%
# N, T, D
# -------
#
# A table has N rows of D features. A sequence adds an order: each example has T terms, one after another, and each term
# has D numbers. Weather, speech, prices and texts are such data. If we only count how often each word occurs (a "bag of
# words"), "dog bites man" equals "man bites dog": the order carries meaning. The libraries agree on (N, T, D).
#
# .. list-table::
#    :header-rows: 1
#
#    * - data
#      - N
#      - T
#      - D
#    * - drives to work, recorded by GPS
#      - drives
#      - positions on the way
#      - 2: latitude and longitude
#    * - letters typed by thought, from a second of brain signals at 1,000 per second
#      - letters
#      - 1,000
#      - electrodes
#    * - the prices of 500 shares, in windows of 10 days
#      - windows
#      - 10
#      - 500, so a window has 5,000 numbers
#
# One tensor needs one T, and a list of sequences of different lengths would be slow. Drives differ in length, so we
# fill the shorter ones up with zeros (padding). The network computes on the zeros, too, which is wasted work:
import math
from functools import partial

import matplotlib.pyplot as plt
import torch
from check import check
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pad_sequence

import torchdl

torch.manual_seed(0)
drives = [torch.randn(steps, 2) for steps in (40, 55, 120)]  # T differs
padded = pad_sequence(drives, batch_first=True)
print(f"padded {tuple(padded.shape)}, {1 - sum(map(len, drives)) / padded[..., 0].numel():.0%} of it are padding")

# %%
# Windows
# -------
#
# From *one* long series of L terms we cut windows: T terms are the input, the next one is the target. There are
# L - T + 1 windows of T terms, but the last one has nothing after it. With a target each needs T + 1 terms, so
# :math:`N = L - T` are left. With T = 3:
series = torch.tensor([1.0, 2, 3, 2, 1, 2, 3, 2, 1, 2])
length = 3
inputs = torch.stack([series[t : t + length] for t in range(len(series) - length)])  # (N, T)
targets = series[length:]  # (N,)
for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
    print(row, "->", target)

windows = torchdl.Windows(series[:, None], length)  # a series is (L, D), here with D = 1
x, y = windows[:]  # (N, T, D), (N, 1, D)
torch.testing.assert_close((x[..., 0], y.flatten()), (inputs, targets))

# %%
# Autoregression by hand
# ----------------------
#
# If D = 1, the windows are a table (N, T): the T terms play the part of features, and linear regression predicts the
# next term from the past ones. This is the **autoregressive model** AR(T):
#
# .. math:: \hat x_t = w_0 + w_1 x_{t-1} + w_2 x_{t-2} + \dots + w_T x_{t-T}
#
# We fit AR(10) to a sine of 200 terms, :math:`x_t = \sin 0.1 t`: on the first half, with the second for validation. The
# split is by time, never at random: a random one would put neighbours of each validation window into the training.
# A single batch holds all training windows.
series = torchdl.sine(200).values.float()  # (L, 1)
T = 10
x = torch.stack([series[t : t + T, 0] for t in range(len(series) - T)])  # (N, T)
y = series[T:]  # (N, 1)
half = len(x) // 2

model = torchdl.SequenceModel("linear", length=T)  # its initial weights are ours, too
line = nn.Linear(T, 1)
with torch.no_grad():
    for ours, theirs in zip(line.parameters(), model.parameters(), strict=True):
        ours.copy_(theirs)
optimizer = torch.optim.Adam(line.parameters(), lr=0.1)
losses, validation = [], []
for _epoch in range(240):
    loss = mse_loss(line(x[:half]), y[:half])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    with torch.no_grad():
        validation.append(mse_loss(line(x[half:]), y[half:]).item())
print(f"training loss {losses[0]:.3f} -> {losses[-1]:.1e}, validation loss {validation[-1]:.1e}")

# %%
# One step, and many
# ------------------
#
# The obvious test feeds every validation window to the model and plots the predictions. Each of them sees the *true*
# terms up to the one before. That is a forecast of tomorrow, every day anew. But a factory plans for the next five
# days, and a weather service for 168 hours: the **horizon** is longer than one step, and the true terms between are not
# known yet. A multi-step forecast must take its own predictions as inputs:
with torch.no_grad():
    one_step = line(x[half:])  # (N, 1)
    window, predictions = x[half], []
    while len(predictions) < len(y) - half:
        predictions.append(line(window))  # (1,)
        window = torch.cat([window[1:], predictions[-1]])  # drop the oldest term, append the prediction
    multi_step = torch.stack(predictions)  # (N, 1)

# %%
# With torchdl
# ------------
#
# :class:`torchdl.Windows` makes the windows, a :class:`torchdl.SequenceModel` of kind ``linear`` is the model, and
# :func:`torchdl.forecast` is the loop above, for many windows at once:
windows, targets = torchdl.Windows(series, T)[:]  # (N, T, 1), (N, 1, 1)
train = torchdl.BatchLoader(torchdl.ArrayDataset(windows[:half], targets[:half, 0]), batch_size=half)
task = torchdl.Supervised(model, mse_loss, optimizer=partial(torch.optim.Adam, lr=0.1))
history = torchdl.Trainer(epochs=240).fit(task, train)
model.requires_grad_(False)
torch.testing.assert_close([row["train/loss"] for row in history], losses, rtol=1e-2, atol=1e-6)
torch.testing.assert_close(model(windows[half:]), one_step, rtol=0, atol=1e-4)
torch.testing.assert_close(torchdl.forecast(model, windows[half : half + 1], 95)[0], multi_step, rtol=0, atol=1e-2)

# %%
# If you come from Keras:
#
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Dense(1)`` on ``Input(shape=(T,))``
#      - ``nn.Linear(T, 1)``
#      - targets must be (N, 1): with (N,), ``mse_loss`` compares every pair
#    * - ``fit(X[:-N//2], ...)``
#      - slices in your own loop
#      - ``-N//2`` is ``(-N)//2``, which rounds down: for odd N the two sizes differ by one
#    * - ``batch_size=32, shuffle=True``
#      - a ``BatchLoader`` or ``DataLoader``
#      - in PyTorch nothing is shuffled unless you say so
#    * - ``predict(x.reshape(1, -1))[0, 0]``
#      - ``model(x[None])``, in ``torch.no_grad()``
#      - the first axis is always N, even for one window
#
# Look
# ----
#
# The loss falls over many powers of ten, so its axis is logarithmic:
figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
axis.plot(range(1, 241), losses, label="training")
axis.plot(range(1, 241), validation, label="validation")
axis.set(title="AR(10) on a sine", xlabel="epoch", ylabel="mean squared error", yscale="log")
_ = axis.legend()

# %%
# Both forecasts lie on the actual series. Is the model that good? Here it is, but the one-step forecast would look good
# in any case, as we shall see.
torchdl.plots.plot_forecast(series[:, 0], 200 - 95, one_step[:, 0], multi_step[:, 0], "AR(10) on a sine")

# %%
# Proof: two weights are enough
# -----------------------------
#
# How can a straight formula make a curve? Add the two identities :math:`\sin(a \pm b) = \sin a \cos b \pm \cos a \sin
# b`, and the second parts cancel:
#
# .. math:: \sin(a + b) + \sin(a - b) = 2 \cos b \, \sin a
#
# With :math:`a = \omega t` and :math:`b = \omega` this is a recurrence like Fibonacci's, with other weights:
#
# .. math:: x_{t+1} = 2 \cos(\omega) \, x_t - x_{t-1}
#
# So AR(2) with :math:`w_1 = 2 \cos \omega`, :math:`w_2 = -1` and no bias forecasts any sine of this frequency exactly,
# with any phase and height. Least squares finds these weights:
x2, y2 = torchdl.Windows(series, 2)[:]
ar2 = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=2, horizon=1), x2[:100], y2[:100])
weight, bias = ar2.parameters()  # (1, T), the oldest term first; (1,)
w2, w1 = weight[0].tolist()
print(f"w1 = {w1:.5f}, and 2 cos 0.1 = {2 * math.cos(0.1):.5f}; w2 = {w2:.5f}; bias {abs(bias.item()):.5f}")

# %%
# What breaks it: noise, and a one-step test
# ------------------------------------------
#
# Now we add noise to the sine, and compare lengths of the window: AR(T) by least squares, and a network with a hidden
# layer of 10 ReLU units, which has the same interface and can also bend. The naive forecast repeats the last value.


def trained_mlp(x: Tensor, y: Tensor) -> nn.Module:
    """Train a network with a hidden layer on windows (N, T, 1) and next terms (N, 1, 1)."""
    torch.manual_seed(0)
    model = torchdl.SequenceModel("mlp", length=x.shape[1], hidden=10, horizon=1)
    task = torchdl.Supervised(model, mse_loss, optimizer=partial(torch.optim.Adam, lr=0.01))
    torchdl.Trainer(epochs=80).fit(task, torchdl.BatchLoader(torchdl.ArrayDataset(x, y), 32, shuffle=True))
    return model


noisy, boundary, found = torchdl.sine(200, noise=0.1).values.float(), 105, {}
print(f"{'RMSE, noise 0.1':22} {'one step':>9} {'95 steps':>9}")
for name, T in (("naive", 1), ("AR", 1), ("AR", 2), ("AR", 10), ("AR", 20), ("hidden layer", 10)):
    x, y = torchdl.Windows(noisy[:boundary], T)[:]  # training
    x_test, y_test = torchdl.Windows(noisy[boundary - T :], T)[:]  # (95, T, 1), (95, 1, 1)
    if name == "AR":
        model = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=T, horizon=1), x, y)
    else:
        model = trained_mlp(x, y) if name == "hidden layer" else partial(torchdl.last_value, horizon=1)
    with torch.no_grad():
        one, many = model(x_test)[:, 0, 0], torchdl.forecast(model, x_test[:1], 95)[0, :, 0]
    found[f"{name}, T = {T}"] = one, many
    errors = [float((path - y_test[:, 0, 0]).square().mean().sqrt()) for path in (one, many)]
    print(f"{f'{name}, T = {T}':22} {errors[0]:9.3f} {errors[1]:9.3f}")

# %%
# By the left column the methods differ little, and even repeating the last value looks good: neighbours in a series are
# similar. Only the right column shows who has found the wave. AR(2) has not, although it was exact without noise: it
# reads two noisy terms, and the noise in them shrinks its weights. A longer window averages the noise away.
figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
for axis, step, title in zip(axes, (0, 1), ("one-step forecasts", "multi-step forecasts"), strict=True):
    axis.plot(range(boundary, 200), noisy[boundary:], color="0.6", linewidth=2, label="actual")
    for name in ("AR, T = 2", "AR, T = 10", "hidden layer, T = 10"):
        axis.plot(range(boundary, 200), found[name][step], label=name)
    axis.set(title=f"{title} of a noisy sine", ylabel="x")
axes[1].set_xlabel("term")
_ = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

# %%
# Exercise 1: count windows
# -------------------------
#
# A series has 1,000 terms. A model reads 24 terms and is to predict the three that follow. How many windows are there?
count = ...
check(count, len(torchdl.Windows(torch.zeros(1000, 1), length=24, horizon=3)), "Each needs 27 terms.")

# %%
# .. dropdown:: Solution
#
#    There are L - T - H + 1: the last window must end three terms before the end.
#
#    .. code-block:: python
#
#       count = 1000 - 24 - 3 + 1

# %%
# Exercise 2: another wave
# ------------------------
#
# Which AR(2) forecasts :math:`x_t = 5 \cos(0.3 t + 1)` exactly? Give its two weights as a list, that of the older term
# first.
weights = ...
wave = 5 * torch.cos(0.3 * torch.arange(100.0, dtype=torch.float64) + 1)[:, None]
fitted = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=2), *torchdl.Windows(wave, 2)[:])
check(weights, next(fitted.parameters())[0], hint="Height and phase do not matter, only the frequency does.")

# %%
# .. dropdown:: Solution
#
#    A cosine is a sine with another phase, so the proof holds with omega = 0.3.
#
#    .. code-block:: python
#
#       weights = [-1, 2 * math.cos(0.3)]

# %%
# Where next
# ----------
#
# ``python scripts/forecast.py sine`` and ``noisy_sine`` do all this and keep the model; ``--model mlp`` adds a hidden
# layer, ``--direct`` predicts the whole horizon at once, and ``forecast.py prices --csv FILE --column NAME`` takes your
# own series. RESULTS has the errors under "Sequences and forecasting". The API: :class:`torchdl.Windows`,
# :class:`torchdl.Split`, :func:`torchdl.fit_linear_`, :func:`torchdl.forecast`. Next:
# :doc:`/learn/14_recurrent_networks`, which read a sequence term by term.
