"""
Stock prices
============

On the web many networks "predict" share prices, with pictures in which forecast and price can hardly be told apart. Why
do these pictures flatter, and what is left when we ask properly?

At the end you can compare a forecast with the naive one, give the comparison an interval, work with returns instead of
prices, and test whether a network knows if a price will rise.
"""

# %%
# The wrong question first
# ------------------------
#
# The prices are Google's, each trading day from August 2004 to October 2008, with five columns: open, high, low, close
# and volume. We begin with the closing price, and ask for tomorrow's, given those of the last ten days. The first half
# is for training, the second for the test. Mean and standard deviation come from the training part alone: a scale that
# has seen the test part would tell the network how high prices will climb.
from functools import partial

import matplotlib.pyplot as plt
import torch
from check import check
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy, mse_loss

import torchdl
from torchdl.metrics import error_ratio
from torchdl.tasks import binary_accuracy

prices = torchdl.google_prices()
close = prices.select(["close"])
T, boundary = 10, len(close) // 2
mean, deviation = close.values[:boundary].mean(0), close.values[:boundary].std(0, correction=0)  # (1,) each
scaled = ((close.values - mean) / deviation).float()  # (L, 1)
x = torch.stack([scaled[t : t + T] for t in range(boundary - T)])  # (N, T, D), targets all in the first half
y = scaled[T:boundary]  # (N, 1)
print(f"{len(close)} days; training mean {mean.item():.0f} $, deviation {deviation.item():.0f} $; x {tuple(x.shape)}")

# %%
# By hand
# -------
#
# The lecture's network, an LSTM of five units and a linear layer:
torch.manual_seed(0)
model = torchdl.SequenceModel("lstm", hidden=5, horizon=1)
lstm, head = nn.LSTM(1, 5, batch_first=True), nn.Linear(5, 1)
lstm.load_state_dict(model.core.state_dict())
head.load_state_dict(model.head.state_dict())

optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=0.02)
losses = []
for _epoch in range(150):
    loss = mse_loss(head(lstm(x)[0][:, -1]), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"training loss {losses[0]:.3f} -> {losses[-1]:.4f}")

# %%
# With torchdl
# ------------
#
# :class:`torchdl.Split` splits by time and scales by the training part, and has windows for both.
split = torchdl.Split(close, length=T, test_size=len(close) - boundary)
task = torchdl.Supervised(model, mse_loss, optimizer=partial(torch.optim.Adam, lr=0.02))
history = torchdl.Trainer(epochs=150).fit(task, torchdl.BatchLoader(split.train(), batch_size=len(x)))
model.requires_grad_(False)
torch.testing.assert_close([row["train/loss"] for row in history], losses, rtol=1e-2, atol=1e-5)
torch.testing.assert_close(model(x)[:, 0], head(lstm(x)[0][:, -1]).detach(), rtol=0, atol=1e-2)

# %%
# .. list-table::
#    :header-rows: 1
#
#    * - Keras and pandas
#      - here
#      - trap
#    * - ``StandardScaler().fit(series[:len(series) // 2])``
#      - :class:`torchdl.Split`
#      - scikit-learn's scaler divides by N, ``torch.std`` by N - 1 unless you say ``correction=0``
#    * - ``df["close"].shift(1)``
#      - ``values[1:] / values[:-1] - 1``, :meth:`torchdl.Series.returns`
#      - the first day has no return: drop it, or NaN spreads through the loss
#    * - ``Dense(1, activation="sigmoid")``
#      - a linear output and ``binary_cross_entropy_with_logits``
#      - a return of exactly 0 counts as "no rise"
#
# Look: why the one-step plot flatters
# ------------------------------------
#
# Beside the LSTM we take AR(10) by least squares (lesson 13), and the **naive forecast**: tomorrow's price is today's.
ar = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=T, horizon=1), *split.train()[:]).requires_grad_(False)
windows, targets = split.test()[:]  # (N, T, 1), (N, 1, 1)
actual = split.unscale(targets)[:, 0, 0]  # (N,), in dollars
forecasts = {"naive": split.unscale(windows[:, -1])[:, 0]}
forecasts |= {name: split.unscale(m(windows))[:, 0, 0] for name, m in (("AR(10)", ar), ("LSTM", model))}

figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for axis, days in zip(axes, (slice(None), slice(60, 100)), strict=True):
    time = range(boundary, len(close))[days]
    axis.plot(time, actual[days], color="0.5", linewidth=2, label="actual")
    axis.plot(time, forecasts["AR(10)"][days], "C0", linewidth=1, label="AR(10), one step")
    axis.plot(time, forecasts["LSTM"][days], "C3", linewidth=1, label="LSTM, one step")
    axis.set(xlabel="trading day", title="the whole test part" if days.start is None else "forty days of it")
axes[0].set_ylabel("closing price, $")
_ = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

# %%
# On the left, AR(10) lies on the price. On the right we see how: it is the price, a day late. The LSTM follows, too,
# while prices are like those in training; where they climb beyond, its units saturate and it stays below. Which day is
# a forecast nearest to?
for name, forecast in forecasts.items():
    errors = [float((forecast[3:] - actual[3 - lag : len(actual) - lag]).square().mean().sqrt()) for lag in range(4)]
    cells = ", ".join(f"{error:6.2f}" for error in errors)
    print(f"{name:7} RMSE in $ against the price of its day, and of the 1, 2, 3 days before: {cells}")

# %%
# AR(10) is nearest to yesterday's price, as the naive forecast is by definition. Neighbouring prices are so similar
# that a copy of yesterday looks like knowledge of tomorrow. The multi-step forecast starts once and then reads its own
# predictions. It knows nothing:
multi_step = split.unscale(torchdl.forecast(ar, windows[:1], len(actual)))[0, :, 0]
torchdl.plots.plot_forecast(close.values[:, 0], boundary, forecasts["AR(10)"], multi_step, "AR(10), closing price in $")

# %%
# What breaks it: no comparison
# -----------------------------
#
# A picture cannot tell a forecast from a copy, but a ratio can: the error of the model divided by that of the naive
# forecast. Below 1 the model is better. A ratio from a few hundred days is uncertain, so it needs an interval.
# :func:`torchdl.metrics.error_ratio` computes it so that similar errors on neighbouring days do not count as
# independent. If the interval contains 1, we know of no difference. The LSTM's is so wide because its error lasts for
# months: that is hardly more than one observation.
for name in ("AR(10)", "LSTM"):
    ratio, low, high = error_ratio(forecasts[name] - actual, forecasts["naive"] - actual)
    print(f"price, {name:7} RMSE / naive RMSE = {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f}")

# %%
# The same picture can be had from pure chance. A random walk adds random steps, so nothing can forecast it better than
# the naive forecast. Yet the one-step forecast explains nearly all of its variance:
torch.manual_seed(0)
walk = torchdl.Series(100 + torch.randn(1000, 1).double().cumsum(0), ("random walk",))
tossed = torchdl.Split(walk, T, 500)
line = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=T, horizon=1), *tossed.train()[:])
for name, part, m in (("random walk", tossed, line), ("Google", split, ar)):
    inputs, wanted = part.test()[:]
    explained = 1 - (m(inputs).detach() - wanted).square().mean() / wanted.var(correction=0)
    print(f"{name:12} share of variance that AR(10) explains one step ahead: {explained:.1%}")

# %%
# Returns
# -------
#
# What an investor earns is the **return**, the relative change:
#
# .. math:: R_t = \frac{x_t - x_{t-1}}{x_{t-1}}
#
# Returns have no trend to copy, and those of different years have the same unit. Their histogram is narrow, which is
# why they are scaled, too. It is also more pointed than a normal curve, with more days far out.
returns = close.returns()
percent = 100 * returns.values[:, 0]
center, spread = percent.mean().item(), percent.std().item()
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.hist(percent, bins=60, density=True)
grid = torch.linspace(percent.min(), percent.max(), 200)
axis.plot(grid, torch.distributions.Normal(center, spread).log_prob(grid).exp(), "--", color="0.4", label="normal")
axis.set(title="Google's daily returns", xlabel="return, %", ylabel="density, 1 / %")
axis.legend()
far, normal = (percent - center).abs() > 4 * spread, torch.erfc(torch.tensor(4 / 2**0.5))
print(f"mean {center:.2f} %, deviation {spread:.2f} %")
print(f"days beyond four deviations: {far.sum()}; normal returns would have {len(far) * normal:.2f}")

# %%
# The naive forecast of a return is the mean of the training part. Does an LSTM know more?
parted = torchdl.Split(returns, T, len(returns) - boundary)
torch.manual_seed(0)
model = torchdl.SequenceModel("lstm", hidden=5, horizon=1)
task = torchdl.Supervised(model, mse_loss, optimizer=partial(torch.optim.Adam, lr=0.02))
torchdl.Trainer(epochs=60).fit(task, torchdl.BatchLoader(parted.train(), 32, shuffle=True))
inputs, wanted = parted.test()[:]  # the scaled mean of the training part is 0
error = model.requires_grad_(False)(inputs) - wanted
ratio, low, high = error_ratio(error[..., 0], wanted[..., 0])
print(f"return, LSTM: RMSE / naive RMSE = {ratio:.3f}, 95 % interval {low:.3f} to {high:.3f}")

# %%
# Up or down
# ----------
#
# Perhaps a number is too much to ask. Will the price rise, yes or no? And the network may see all five columns, D = 5,
# and have 50 units. The first two thirds of the days are for training.
split = torchdl.Split(prices, T, len(prices) // 3)
rises = (close.values[1:] > close.values[:-1]).float()  # (L - 1, 1): day t + 1 against day t
train = torchdl.ArrayDataset(split.train()[:][0], rises[T - 1 : split.boundary - 1])
test = torchdl.ArrayDataset(split.test()[:][0], rises[split.boundary - 1 :])
torch.manual_seed(0)
model = torchdl.SequenceModel("lstm", in_features=5, hidden=50)
task = torchdl.Supervised(model, cross_entropy, {"accuracy": binary_accuracy}, partial(torch.optim.Adam, lr=3e-3))
loaders = torchdl.BatchLoader(train, 32, shuffle=True), torchdl.BatchLoader(test, 500)
history = torchdl.Trainer(epochs=80).fit(task, *loaders)
accuracy, guess = history[-1]["val/accuracy"], float(rises[: split.boundary - 1].mean() > 0.5)
always = float((test.targets == guess).float().mean())
margin = 1.96 * (0.25 / len(test)) ** 0.5  # two standard errors of a share near one half
print(f"accuracy in training {history[-1]['train/accuracy']:.1%}, in the test {accuracy:.1%} ± {margin:.1%}")
print(f"always the more frequent direction of the training part: {always:.1%}")

# %%
# The training accuracy climbs, and the validation loss with it: the network learns the noise of the past by heart. Its
# test accuracy stays near that of always giving the same answer, drawn dashed.
shown = ("epoch", "train/loss", "val/loss", "train/accuracy", "val/accuracy")
torchdl.plots.plot_history([{name: row[name] for name in shown} | {"val/accuracy_chance": always} for row in history])

# %%
# This is no failure of the network. Prices are made by what happens in the world and by what people expect of it, and
# past prices hold little of that: whoever found a rule in them would trade on it until it was gone.
#
# Exercise 1: up and down again
# -----------------------------
#
# A share costs 100 $. Its return is 10 % on one day and -10 % on the next. What does it cost then?
price = ...
check(price, torch.tensor([0.1, -0.1], dtype=torch.float64).add(1).prod() * 100, hint="Returns multiply.")

# %%
# .. dropdown:: Solution
#
#    Each return multiplies the price by 1 + R, and the second one is taken of a higher price.
#
#    .. code-block:: python
#
#       price = 100 * 1.1 * 0.9

# %%
# Exercise 2: how many days would show it?
# ----------------------------------------
#
# A network's true accuracy is 52 %. How many test days are needed before ``margin``, as above 1.96 standard errors, is
# only 2 %?
days = ...
check(days, (1.96 / 0.02) ** 2 * 0.25, hint="Solve margin = 1.96 sqrt(0.25 / n) for n.", close=0.01)

# %%
# .. dropdown:: Solution
#
#    About ten years of trading days.
#
#    .. code-block:: python
#
#       days = (1.96 / 0.02) ** 2 * 0.25

# %%
# Exercise 3: the best of twenty
# ------------------------------
#
# Twenty people toss a coin on each day of the test part, ``len(test)`` days. Which accuracy does the best of them have
# on average? Simulate it often enough: an error of 1 % is accepted.
best = ...
tosses = torch.distributions.Binomial(len(test), torch.tensor(0.5))
check(best, tosses.sample((5000, 20)).amax(1).mean() / len(test), "Take the maximum of 20, then the mean.", close=0.01)

# %%
# .. dropdown:: Solution
#
#    Whoever tries twenty settings and shows the best one on the test part shows this.
#
#    .. code-block:: python
#
#       heads = (torch.rand(1000, 20, len(test)) < 0.5).float().mean(2)  # (repetitions, people)
#       best = heads.amax(1).mean()

# %%
# Where next
# ----------
#
# ``python scripts/forecast.py prices``, ``returns`` and ``direction`` do this for the lecture's Starbucks prices (with
# ``--google``: these), with intervals and several naive forecasts; ``--csv FILE`` takes yours. RESULTS has them under
# "Sequences and forecasting": none beats the naive forecast. The API: :class:`torchdl.Series`, :class:`torchdl.Split`,
# :func:`torchdl.metrics.error_ratio`. Next: :doc:`/learn/19_words_as_vectors`.
