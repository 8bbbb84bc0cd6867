"""
Recurrent networks
==================

How can a network with a handful of weights read a sequence of any length? And which of its weights is stored where, in
which shape, so that we could compute its output ourselves?

At the end you can write down the shape of every tensor in a recurrent network, recompute its output by hand, train one
to forecast a sine, and say why a network without an activation forecasts that sine better.
"""

# %%
# One set of weights for all terms
# --------------------------------
#
# Lesson :doc:`/learn/13_sequences_and_autoregression` flattened a window of T terms into one row of numbers, and AR is
# a linear function of that row. A hidden layer, :math:`h = f(W x + b)`, would make it non-linear. But on the whole row
# it has :math:`T \cdot D \cdot M` weights, learns everything anew for each place in the window, and reads one length
# only. Convolutions avoid this for images: they use the same weights at every place. A recurrent network does the same
# for sequences. It reads term by term, and its hidden layer gets a second input: its own output one step before. This
# **hidden state** carries the past. The formula of the simple (Elman) unit, usually in a single layer, is:
#
# .. math:: h_t = \tanh(W_x x_t + W_h h_{t-1} + b), \qquad h_0 = 0, \qquad \hat y_t = W_o h_t + b_o
#
# Drawn once for each term, the network is **unrolled** in time. It is then a deep network with the same weights in
# every layer:
#
# .. code-block:: text
#
#            ŷ_1        ŷ_2               ŷ_T
#             ↑ W_o      ↑ W_o             ↑ W_o
#    h_0 ───▶ h_1 ─────▶ h_2 ──▶ ... ────▶ h_T        each ▶ multiplies by W_h
#             ↑ W_x      ↑ W_x             ↑ W_x
#            x_1        x_2               x_T
#
# The letters of the whole course: N sequences, T terms in each, D numbers per term, M hidden units, K outputs. So the
# sequences are (N, T, D), W_x is (M, D), W_h is (M, M), all states are (N, T, M), W_o is (K, M), an output is (N, K).
# This is PyTorch's order. The lecture and Keras store W_x as (D, M), so their formula has transposes. No shape of a
# weight contains T: with T = 100, D = 3 and M = 5, W_x and W_h have 15 + 25 weights, a layer on the row has 1,500.
#
# The first state is zero; it could be learned, but neither Keras nor PyTorch does so. An output of term t depends on
# :math:`x_1, \dots, x_t`. A forecast keeps only the last one. A translation, from one sentence to another, keeps them
# all: it is a classification whose classes are the words of a dictionary, so a softmax turns each output into
# :math:`p(y_t = k \mid x_1, \dots, x_t)`. A Markov model would assume :math:`p(x_t \mid x_{t-1}, \dots, x_1) = p(x_t
# \mid x_{t-1})`, but if the current word is *the*, who could tell the next one? Such loops are older than deep
# learning. A register remembers by feeding its output back. Signals in a brain run in loops, too: in Hopfield's model,
# a connection grows when both neurons fire together, and fades when they fire out of step (Hebb's rule).
#
# Look at every weight
# --------------------
#
# One sequence of ten terms with three numbers each, five hidden units, two outputs:
import copy
from functools import partial
from statistics import median

import matplotlib.pyplot as plt
import torch
from check import check
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import torchdl
from torchdl.tasks import schedules

torch.manual_seed(0)
torch.set_printoptions(precision=3, linewidth=110)
N, T, D, M, K = 1, 10, 3, 5, 2
x = torch.randn(N, T, D)
layer, head = nn.RNN(D, M, batch_first=True), nn.Linear(M, K)

states, last = layer(x)  # (N, T, M), (1, N, M)
output = head(states[:, -1])  # (N, M) -> (N, K)
print("states", tuple(states.shape), " last", tuple(last.shape), " output", tuple(output.shape))
for name, weight in [*layer.named_parameters(), *head.named_parameters(prefix="head")]:
    print(f"\n{name} {tuple(weight.shape)}\n{weight.detach()}")

# %%
# ``weight_ih_l0`` is W_x ("input to hidden, layer 0"), ``weight_hh_l0`` is W_h. PyTorch stores b as the sum of two
# vectors, ``bias_ih_l0`` and ``bias_hh_l0``. If you come from Keras:
#
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``SimpleRNN(5)``, input (T, 3)
#      - ``nn.RNN(3, 5, batch_first=True)``
#      - without ``batch_first``, PyTorch takes (T, N, D)
#    * - ``Wx, Wh, b = layer.get_weights()``: (3, 5), (5, 5), (5,)
#      - ``weight_ih_l0.T``, ``weight_hh_l0.T``, the sum of both biases
#      - transpose copied weights
#    * - returns the last state
#      - returns all states and the last one
#      - take ``states[:, -1]`` yourself
#    * - activation: tanh by default, or any; None for a linear recurrence
#      - tanh by default, or relu; nothing else
#      - ``torchdl.SequenceModel("rnn", activation="none")`` is linear
#    * - Glorot and orthogonal weights, b = 0
#      - all uniform in ±1/√M
#      - other starts, other results; :class:`torchdl.SequenceModel` starts as Keras does
#    * - ``model.predict(x.reshape(1, T, 1))[0, 0]``
#      - ``model(x.reshape(1, T, 1))[0, 0].item()``
#      - a batch of one sequence in; (N, K) = (1, 1), not a number, out
#    * - ``x = np.roll(x, -1); x[-1] = p``
#      - ``x = torch.cat([x[1:], p])``
#      - the next window: drop the oldest term, append the prediction
#
# By hand
# -------
#
# A short loop computes what the layers compute. It takes whole batches and keeps the output of every term:


def by_hand(x: Tensor, W_x: Tensor, W_h: Tensor, b: Tensor, W_o: Tensor, b_o: Tensor) -> Tensor:
    """Return the outputs (N, T, K) after every term of sequences (N, T, D)."""
    h = x.new_zeros(len(x), len(W_h))  # (N, M)
    outputs = []
    for term in x.unbind(1):  # T times (N, D)
        h = torch.tanh(term @ W_x.T + h @ W_h.T + b)  # the new state takes the place of the old one
        outputs.append(h @ W_o.T + b_o)  # (N, K)
    return torch.stack(outputs, 1)


def weights_of(layer: nn.RNN, head: nn.Linear) -> list[Tensor]:
    """Return copies of W_x, W_h, b, W_o and b_o, ready to train."""
    b = layer.bias_ih_l0 + layer.bias_hh_l0
    found = layer.weight_ih_l0, layer.weight_hh_l0, b, head.weight, head.bias
    return [weight.detach().clone().requires_grad_() for weight in found]


weights = weights_of(layer, head)
outputs = by_hand(x, *weights)
print("by hand", outputs[0, -1].detach(), "\nlayers ", output[0].detach())
torch.testing.assert_close(outputs[:, -1], output)

# %%
# An output after t terms has seen :math:`x_1, \dots, x_t` and nothing later. If the seventh term changes, the first
# six outputs stay as they are:
changed = x.clone()
changed[0, 6] += 1
print("change of each output:", (by_hand(changed, *weights) - outputs)[0].abs().amax(1).detach())

# %%
# Now we train this loop on windows of ten terms of a sine, each with the next term as its target: the first half for
# training, the rest for validation. ``loss.backward()`` goes back through all ten steps ("backpropagation through
# time"), and every step adds its part to the gradient of the same weights.
x, y = torchdl.Windows(torchdl.sine(200).values.float(), length=10)[:]  # (N, T, 1), (N, 1, 1): one step ahead
y, half = y[:, 0], len(x) // 2  # (N, 1), as the outputs
print("windows", tuple(x.shape), " targets", tuple(y.shape))

model = torchdl.SequenceModel("rnn", hidden=5)
weights = weights_of(model.core, model.head)  # our loop starts from its initial weights
optimizer = torch.optim.SGD(weights, lr=0.1)
losses, validation = [], []
for _epoch in range(200):
    loss = mse_loss(by_hand(x[:half], *weights)[:, -1], y[:half])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    with torch.no_grad():
        validation.append(mse_loss(by_hand(x[half:], *weights)[:, -1], y[half:]).item())

figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
axis.semilogy(range(1, 201), losses, label="training")
axis.semilogy(range(1, 201), validation, "--", label="validation")
axis.set(title="Training the loop by hand", xlabel="epoch", ylabel="loss (mean squared error)")
_ = axis.legend()

# %%
# Both curves fall together: the second half of a sine is like the first.
#
# With torchdl
# ------------
#
# :class:`torchdl.SequenceModel` of kind ``rnn`` is the same network on PyTorch's fast layer. We freeze its second bias:
# both biases have the same gradient, so their sum b would move twice as far as ours.
model.core.bias_hh_l0.requires_grad_(False)
train = torchdl.BatchLoader(torchdl.ArrayDataset(x[:half], y[:half]), batch_size=half)
task = torchdl.Supervised(model, mse_loss, optimizer=partial(torch.optim.SGD, lr=0.1))
history = torchdl.Trainer(epochs=200).fit(task, train)
torch.testing.assert_close([row["train/loss"] for row in history], losses, rtol=1e-3, atol=1e-6)
torch.testing.assert_close(model(x), by_hand(x, *weights)[:, -1], rtol=1e-3, atol=1e-4)
print(f"the same losses in all {len(losses)} epochs, and the same outputs afterwards")

# %%
# Look: three activations, with noise and without
# -----------------------------------------------
#
# Which recurrent network forecasts a sine best? We train without an activation, with tanh and with ReLU, on a clean
# sine and on one with noise, from five seeds each, by Adam as in the lecture (the falling learning rate is ours: small
# last steps). The one-step forecast sees the true terms. The multi-step forecast begins in the middle of the series and
# then reads its own predictions. Three references: AR(10) by least squares (lesson 13), repeating the last value, and
# always predicting 0.


def trained(activation: str, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """Train a network on windows (N, T, 1) and next terms (N, 1, 1)."""
    torch.manual_seed(seed)
    model = torchdl.SequenceModel("rnn", hidden=5, activation=activation, horizon=1)  # returns (N, 1, 1), too
    adam = partial(torch.optim.Adam, lr=0.1)
    task = torchdl.Supervised(model, mse_loss, optimizer=adam, schedule=schedules.cosine)
    batches = torchdl.BatchLoader(torchdl.ArrayDataset(x, y), 32, shuffle=True, seed=seed)
    torchdl.Trainer(epochs=80).fit(task, batches)
    return model.requires_grad_(False)


def rmse(predicted: Tensor, actual: Tensor) -> float:
    """Return the root of the mean squared error."""
    return float((predicted - actual).square().mean().sqrt())


drawn = {}
print(f"{'RMSE of the median seed':28} {'one step':>9} {'multi-step':>11}   lowest to highest")
for noise in (0.0, 0.1):
    x, y = torchdl.Windows(torchdl.sine(200, noise=noise).values.float(), length=10)[:]
    ar = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=10, horizon=1), x[:half], y[:half])
    networks = {a: [trained(a, x[:half], y[:half], seed) for seed in range(5)] for a in ("none", "tanh", "relu")}
    networks["AR(10)"] = [ar.requires_grad_(False)]
    actual = y[half:, 0]  # (95, 1)
    for name, models in networks.items():
        paths = [torchdl.forecast(model, x[half:][:1], len(actual))[0] for model in models]  # (95, 1) each
        errors = [rmse(path, actual) for path in paths]
        middle = errors.index(median(errors))
        drawn[noise, name] = paths[middle].flatten(), models[middle]
        row = f"{f'noise {noise:g}, {name}':28} {rmse(models[middle](x[half:])[:, 0], actual):9.4f}"
        print(f"{row} {errors[middle]:11.4f}   {min(errors):.2g} to {max(errors):.2g}")
    last = x[half:, -1]  # (95, 1): the last term of each window
    print(f"{f'noise {noise:g}, repeat the last':28} {rmse(last, actual):9.4f} {rmse(last[:1], actual):11.4f}")
    print(f"{f'noise {noise:g}, always 0':28} {rmse(0 * last, actual):9.4f} {rmse(0 * last, actual):11.4f}")

# %%
# On the clean sine, AR(10) is exact, and without an activation the network comes close (for most seeds): it *is* a
# linear model of the window, and a sine obeys a linear recurrence exactly (lesson 13). A tanh bends each step a little,
# and errors too small to see in one step add up to a wrong phase or height. But nothing bounds a linear state, so its
# forecast can explode: see the highest errors. Fed with its own output, it multiplies by the same matrix every time. A
# sine needs eigenvalues of size exactly 1; with 1.1, an error grows by :math:`1.1^{95}`, over 8,000-fold.
#
# With noise, no one-step error can be much below 0.1, the noise itself. One step ahead, repeating the last value has
# nearly the error of tanh, and ReLU is worse than that. Far ahead, the medians of both are worse than predicting 0. The
# linear network's is lower, but far above AR(10)'s. The lecture found ReLU worse than tanh; here their ranges overlap.
figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
for axis, noise in zip(axes, (0.0, 0.1), strict=True):
    axis.plot(torchdl.sine(200, noise=noise).values, color="0.6", label="actual")
    for name in networks:  # AR(10) is the last one, so nothing covers it
        path, _ = drawn[noise, name]
        style = {"color": "black", "linestyle": (0, (4, 4))} if name == "AR(10)" else {}
        axis.plot(range(200 - len(path), 200), path, label=name, **style)
    axis.axvline(200 - len(path) - 0.5, color="0.5", linestyle=":")
    axis.set(title=f"multi-step forecasts, noise {noise:g} (the seed with the median error)", ylim=(-2, 2))
    axis.set_ylabel("x")
axes[1].set_xlabel("term (forecasts begin at the dotted line)")
_ = axes[0].legend(ncols=5, loc="lower left")

# %%
# No forecast can follow the noise; a good one follows the wave, as AR(10) does. The flat lines are fixed points: the
# network reads its own prediction, and after some steps it predicts what it has just read. One step ahead, the same two
# networks seem to follow the series. But ReLU lies on the last value: it copies it, as in the lecture, and comes a step
# late.
start, shown = 200 - len(actual), slice(0, 40)
terms = range(start, start + 40)
figure, axis = plt.subplots(figsize=(9, 3.5), layout="constrained")
axis.plot(terms, actual[shown], color="0.7", linewidth=3, label="actual")
axis.plot(terms, last[shown], ":", color="0.3", label="last value")
for name, color in (("tanh", "C1"), ("relu", "C2")):
    axis.plot(terms, drawn[0.1, name][1](x[half:][shown])[:, 0], color=color, label=name)
axis.set(title="one-step forecasts, noise 0.1", xlabel="term", ylabel="x")
_ = axis.legend(ncols=4)

# %%
# What breaks it: a forgotten ``batch_first``
# -------------------------------------------
#
# Without it, ``nn.RNN`` takes the first axis for time. Given (N, T, D) it raises no error, but reads the *samples* one
# after another as if they were terms, so one sample changes the states of another. A test for any network: change
# sample 0, look at sample 1.
torch.manual_seed(0)
right = nn.RNN(1, 5, batch_first=True)
wrong = copy.deepcopy(right)
wrong.batch_first = False
other = x[:4].clone()
other[0] += 1  # sample 0 alone
for layer in (right, wrong):
    before, after = layer(x[:4])[0].detach(), layer(other)[0].detach()
    name = f"batch_first={layer.batch_first}"
    print(f"{name:17}  states {tuple(before.shape)}, largest change in sample 1: {(before - after)[1].abs().max():.3f}")

# %%
# Exercise 1: count the weights
# -----------------------------
#
# How many numbers do ``nn.RNN(D, M)`` and ``nn.Linear(M, K)`` have together, with D = 3, M = 5 and K = 2?
numbers = ...
check(
    numbers,
    sum(p.numel() for p in [*nn.RNN(3, 5).parameters(), *nn.Linear(5, 2).parameters()]),
    "W_h is (M, M), and PyTorch has two biases.",
)

# %%
# .. dropdown:: Solution
#
#    W_x has M D numbers, W_h has M M, the two biases have M each, the output layer K M + K. T does not appear.
#
#    .. code-block:: python
#
#       numbers = 5 * 3 + 5 * 5 + 2 * 5 + 2 * 5 + 2

# %%
# Exercise 2: how long a state remembers
# --------------------------------------
#
# A linear recurrence with one unit has W_x = 0.5, W_h = 0.9, b = 0, W_o = 1 and b_o = 0. The first of ten terms rises
# by 1. By how much does the output after the tenth term rise? Give three digits.
rise = ...
check(rise, 0.5 * torch.tensor(0.9).pow(9), "From the first state to the tenth there are nine steps.", close=0.003)

# %%
# .. dropdown:: Solution
#
#    The first state rises by 0.5, and each of the nine steps after it multiplies this by 0.9. With W_h = 0.5 only
#    0.001 would be left: the reason for lesson 15.
#
#    .. code-block:: python
#
#       rise = 0.5 * 0.9**9

# %%
# Exercise 3: forecast many steps
# -------------------------------
#
# Write a function ``forecast(model, window, steps)`` of a network as trained above, a window (T, 1) and a number of
# steps. It returns the multi-step forecast, a list of numbers. The network maps (N, T, 1) to (N, 1, 1).
forecast = ...
path, model = drawn[0.0, "none"]
sine = torchdl.sine(200).values.float()  # (200, 1)


def same(f) -> bool | str:
    """Compare a forecast with the path in the figure."""
    values = torch.tensor([float(value) for value in f(model, sine[half:][:10], 50)])
    return torch.allclose(values, path[:50], atol=1e-3) or "it is not the path in the figure"


check(forecast, same, hint="The table of Keras and PyTorch has both steps.")

# %%
# .. dropdown:: Solution
#
#    Each prediction becomes the newest term of the next window.
#
#    .. code-block:: python
#
#       def forecast(model, window, steps):
#           values = []
#           for _ in range(steps):
#               p = model(window[None])[0]  # (1, 1)
#               values.append(p.item())
#               window = torch.cat([window[1:], p])
#           return values

# %%
# Where next
# ----------
#
# ``python scripts/forecast.py sine --model rnn`` does this with baselines and keeps the model; add
# ``--activation none``, or take ``noisy_sine``. RESULTS has their errors under "Sequences and forecasting".
# :class:`torchdl.SequenceModel` also reads several layers, both directions, or the maximum over all states;
# :func:`torchdl.forecast` makes multi-step forecasts with any model. Next: :doc:`/learn/15_gru_and_lstm`, where gates
# decide what a state keeps.
