"""
GRU and LSTM
============

Why does a simple recurrent network forget what it read some ten terms ago? And what do the gates of a GRU (2014) and
an LSTM (1997) do about it?

At the end you can compute both units by hand, gate by gate, name the differences between the formulas of a textbook,
Keras and PyTorch, and compare networks on a series that a linear model cannot forecast.
"""

# %%
# Gradients vanish
# ----------------
#
# The last state of a simple network is a function of a function of a function ... of the first term, so by the chain
# rule its gradient is a product with one factor per step:
#
# .. math:: \frac{\partial h_T}{\partial h_t} = \prod_{s=t+1}^{T} \operatorname{diag}(1 - h_s^2) \, W_h
#
# With factors below 1 the product shrinks exponentially, and terms far back hardly change the weights. ReLU instead of
# tanh does not help: its factors are 0 or 1, but those of W_h remain. The remedy is a state that is *kept* unless a
# **gate** says otherwise. A gate is a row of M neurons with a sigmoid :math:`\sigma`, M numbers between 0 and 1. The
# **GRU** has two, r (reset) and z (update), written here as PyTorch has them; :math:`\odot` multiplies unit by unit:
#
# .. math::
#
#    r_t &= \sigma(W_r x_t + U_r h_{t-1} + b_r), \qquad z_t = \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
#    n_t &= \tanh(W_n x_t + b_n + r_t \odot (U_n h_{t-1} + b_n')) \\
#    h_t &= z_t \odot h_{t-1} + (1 - z_t) \odot n_t
#
# Where z is 1, the state stays, and so does its gradient. The **LSTM** has three gates, i (input), f (forget), o
# (output), and a second state, the cell c. It is computed in each step like the GRU's gates, but handed on:
#
# .. math::
#
#    i_t, f_t, o_t &= \sigma(W x_t + U h_{t-1} + b) \text{, each with weights of its own} \\
#    g_t &= \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
#    c_t &= f_t \odot c_{t-1} + i_t \odot g_t, \qquad h_t = o_t \odot \tanh(c_t)
#
# Each W is (M, D), each U is (M, M), each b is (M,). A GRU has three sets of them, an LSTM four.
#
# By hand: one step of each
# -------------------------
#
# PyTorch stacks the sets in one matrix: (3 M, D) in the order r, z, n, or (4 M, D) in the order i, f, g, o.
import copy
from functools import partial

import matplotlib.pyplot as plt
import torch
from check import check
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import torchdl
from torchdl.tasks import schedules


def gru_by_hand(x: Tensor, layer: nn.GRU) -> Tensor:
    """Return the last state (N, M) of sequences (N, T, D)."""
    W, U, b, b_h = layer.parameters()  # (3 M, D), (3 M, M), (3 M,), (3 M,)
    h = x.new_zeros(len(x), layer.hidden_size)
    for term in x.unbind(1):
        (xr, xz, xn), (hr, hz, hn) = (term @ W.T + b).chunk(3, 1), (h @ U.T + b_h).chunk(3, 1)  # (N, M) each
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        h = z * h + (1 - z) * n
    return h


def lstm_by_hand(x: Tensor, layer: nn.LSTM) -> Tensor:
    """Return the last state (N, M) of sequences (N, T, D)."""
    W, U, b, b_h = layer.parameters()  # (4 M, D), (4 M, M), (4 M,), (4 M,)
    h = c = x.new_zeros(len(x), layer.hidden_size)
    for term in x.unbind(1):
        i, f, g, o = (term @ W.T + b + h @ U.T + b_h).chunk(4, 1)  # (N, M) each
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return h


torch.manual_seed(0)
x = torch.randn(6, 10, 3)
gru, lstm = nn.GRU(3, 5, batch_first=True), nn.LSTM(3, 5, batch_first=True)
torch.testing.assert_close(gru_by_hand(x, gru), gru(x)[1][0])
states, (last, cell) = lstm(x)  # (N, T, M), (1, N, M), (1, N, M)
torch.testing.assert_close(lstm_by_hand(x, lstm), last[0])
for layer in (nn.RNN(3, 5), gru, lstm):
    print(f"{type(layer).__name__:4}", sum(p.numel() for p in layer.parameters()), "numbers")

# %%
# .. list-table::
#    :header-rows: 1
#
#    * - elsewhere
#      - PyTorch
#      - trap
#    * - a textbook's GRU: :math:`h_t = (1 - z) h_{t-1} + z n`
#      - :math:`h_t = z h_{t-1} + (1 - z) n`
#      - 0 means "keep" there, 1 means "keep" here
#    * - a textbook's :math:`U (r \odot h)`; Keras ``GRU(reset_after=False)``
#      - :math:`r \odot (U h)`, as Keras' default
#      - different functions: ``torchdl.SequenceModel("gru", reset_after=False)`` has the other one
#    * - Keras' order z, r, n in a GRU
#      - r, z, n
#      - the shapes agree, so a wrong order raises no error
#    * - Keras' forget gates start with bias 1
#      - all biases uniform in ±1/√M
#      - :class:`torchdl.SequenceModel` starts as Keras does
#    * - ``LSTM(5)`` returns h_T; with ``return_sequences=True`` all h, with ``return_state=True`` also c_T
#      - always all h, and the pair (h_T, c_T)
#      - ``nn.GRU`` has no c: its second result is no pair
#    * - ``LSTM(5, activation="relu")``: instead of both tanh
#      - tanh only
#      - another activation needs a loop of your own, as above
#    * - ``Bidirectional(LSTM(5))``, or two layers
#      - ``bidirectional=True``, ``num_layers=2``
#      - the backward state of the *last* term has read one term: take that of the first
#
# Look: how far a gradient reaches
# --------------------------------
#
# We send random sequences through untrained units and measure how strongly the last state depends on a term, by its
# distance from the end. Gates do not remember by themselves: at the start they are half open, so each step halves the
# state. But they *can*: a bias of 3 in z or f keeps 95 % per step, and training can find such a bias.
x = torch.randn(100, 50, 1, requires_grad=True)
figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
for name, kind, bias in (
    ("simple, tanh", nn.RNN, None),
    ("simple, ReLU", partial(nn.RNN, nonlinearity="relu"), None),
    ("GRU", nn.GRU, None),
    ("GRU, z with bias 3", nn.GRU, 3.0),
    ("LSTM", nn.LSTM, None),
    ("LSTM, f with bias 1, as in Keras", nn.LSTM, 1.0),
    ("LSTM, f with bias 3", nn.LSTM, 3.0),
):
    torch.manual_seed(0)
    layer = kind(1, 10, batch_first=True)
    if bias is not None:
        with torch.no_grad():
            layer.bias_ih_l0[10:20] = bias  # the second of the stacked gates is z in a GRU, f in an LSTM
    (gradient,) = torch.autograd.grad(layer(x)[0][:, -1].sum(), x)  # (N, T, 1)
    axis.plot(gradient[..., 0].square().mean(0).sqrt().flip(0), "-" if bias is None else "--", label=name)
axis.set(xlabel="terms before the last one", ylabel="gradient, root mean square", yscale="log", ylim=(1e-12, 1))
axis.set_title("gradient of the last state with respect to a term")
_ = figure.legend(loc="outside right upper")

# %%
# A series that no linear model can forecast
# ------------------------------------------
#
# :math:`x_t = \sin((0.1 t)^2)` swings faster and faster. A sine obeys an AR(2) with a weight :math:`2 \cos \omega`
# (lesson 13), but here :math:`\omega` grows from step to step, and no fixed weight fits. From step t to t + 1 the phase
# grows by :math:`0.01 (2 t + 1)`. Beyond term 156 that is more than :math:`\pi`, and the samples can no longer show the
# true swing; near term 314 it is :math:`2 \pi`, and the series seems to stand still.
series = torchdl.sine_of_square().values.float()  # (400, 1)
x, y = torchdl.Windows(series, length=10)[:]  # (N, T, 1), (N, 1, 1)
y, half = y[:, 0], len(x) // 2
figure, axis = plt.subplots(figsize=(9, 2.6), layout="constrained")
axis.plot(series, linewidth=1)
axis.axvspan(10 + half, 400, color="C1", alpha=0.1)
_ = axis.set(title="sin((0.1 t)²): the second half, shaded, is for the test", xlabel="t", ylabel="x")

# %%
# Train an LSTM by hand, then with torchdl
# ----------------------------------------
#
# Both start from the same weights, and one batch holds all training windows.
torch.manual_seed(0)
model = torchdl.SequenceModel("lstm", hidden=10)
hand = copy.deepcopy(model)
optimizer = torch.optim.Adam(hand.parameters(), lr=0.01)
losses = []
for _epoch in range(30):
    loss = mse_loss(hand.head(lstm_by_hand(x[:half], hand.core)), y[:half])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

train = torchdl.BatchLoader(torchdl.ArrayDataset(x[:half], y[:half]), batch_size=half)
task = torchdl.Supervised(model, mse_loss, optimizer=partial(torch.optim.Adam, lr=0.01))
history = torchdl.Trainer(epochs=30).fit(task, train)
torch.testing.assert_close([row["train/loss"] for row in history], losses, rtol=1e-3, atol=1e-5)
print(f"the same losses by hand and by torchdl: {losses[0]:.3f} -> {losses[-1]:.3f}")

# %%
# Look: models side by side
# -------------------------
#
# Now all of them, for longer, with batches of 32 and a falling learning rate. Two references need no training: repeat
# the last value, or always say 0, the mean.


def trained(kind: str, **options) -> nn.Module:
    """Train a network to predict the next term."""
    torch.manual_seed(0)
    model = torchdl.SequenceModel(kind, length=10, hidden=10, horizon=1, **options)
    adam = partial(torch.optim.Adam, lr=0.05)
    task = torchdl.Supervised(model, mse_loss, optimizer=adam, schedule=schedules.cosine)
    batches = torchdl.BatchLoader(torchdl.ArrayDataset(x[:half], y[:half, None]), 32, shuffle=True)
    torchdl.Trainer(epochs=100).fit(task, batches)
    return model.requires_grad_(False)


models = {
    "last value": partial(torchdl.last_value, horizon=1),
    "zero": lambda x: torch.zeros_like(x[:, :1]),
    "AR(10)": trained("linear"),
    "simple": trained("rnn"),
    "GRU": trained("gru"),
    "LSTM": trained("lstm"),
    "LSTM, 2 layers, both ways": trained("lstm", layers=2, bidirectional=True),
}
one_step = {name: model(x[half:]).flatten() for name, model in models.items()}
multi_step = {
    name: torchdl.forecast(model, x[half : half + 1], len(x) - half).flatten() for name, model in models.items()
}
print(f"{'RMSE in the second half':26} {'one step':>9} {'multi-step':>11}")
for name in models:
    errors = [(path[name] - y[half:, 0]).square().mean().sqrt().item() for path in (one_step, multi_step)]
    print(f"{name:26} {errors[0]:9.3f} {errors[1]:11.3f}")

# %%
# One step ahead, AR(10) fails, and the recurrent networks do far better. AR(10) must give a term the same weight in
# every window, while a network can tell the present frequency from the window. Gates are not what decides here: the
# windows are short.
names = ("AR(10)", "simple", "GRU", "LSTM")
figure, axes = plt.subplots(4, 2, figsize=(11, 7), sharex=True, sharey=True, layout="constrained")
for row, name in zip(axes, names, strict=True):
    row[0].set_ylabel("x")
    for axis, forecast, title in zip(row, (one_step, multi_step), ("one step", "multi-step"), strict=True):
        axis.plot(range(10 + half, 400), y[half:], color="0.6", label="actual")
        axis.plot(range(10 + half, 400), forecast[name], "C3", linewidth=1, label="forecast")
        axis.set(title=f"{name}, {title}", xlim=(10 + half, 335))
for axis in axes[-1]:
    axis.set_xlabel("term")
_ = figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

# %%
# What breaks it: a lively forecast can be worse than silence
# -----------------------------------------------------------
#
# In the right column the networks swing as widely as the series, and AR(10) lies flat. The table says the opposite of
# what the eye says: far ahead the networks are worse than the forecast that always says zero. They swing out of step,
# and then the squared error is that of zero plus the swing's own. Compare every forecast with one that needs no model.
#
# The other trap is the order of the gates. Copied from Keras as they are, r and z change places, and nothing complains:
swapped = nn.GRU(3, 5, batch_first=True)
swapped.load_state_dict({name: w[[*range(5, 10), *range(5), *range(10, 15)]] for name, w in gru.state_dict().items()})
sample = torch.randn(4, 10, 3)
print(f"largest error with r and z swapped: {(swapped(sample)[1] - gru(sample)[1]).abs().max():.2f} (states are in ±1)")

# %%
# Exercise 1: count
# -----------------
#
# How many numbers has ``nn.LSTM(1, 10)``?
numbers = ...
check(numbers, sum(p.numel() for p in nn.LSTM(1, 10).parameters()), "Four sets, each with two biases.")

# %%
# .. dropdown:: Solution
#
#    Each of the four sets has W (M, D), U (M, M) and two vectors (M,).
#
#    .. code-block:: python
#
#       numbers = 4 * (10 * 1 + 10 * 10 + 10 + 10)

# %%
# Exercise 2: how long a cell remembers
# -------------------------------------
#
# A forget gate gets no input but its bias. Which bias keeps one half of the cell over 100 steps?
bias = ...
check(
    bias, torch.logit(torch.tensor(0.5, dtype=torch.float64) ** (1 / 100)), "Which f has f to the power of 100 = 0.5?"
)

# %%
# .. dropdown:: Solution
#
#    f must be the hundredth root of 0.5, and the bias is the inverse sigmoid (the logit) of f: log(f / (1 - f)).
#
#    .. code-block:: python
#
#       import math
#       f = 0.5 ** (1 / 100)
#       bias = math.log(f / (1 - f))

# %%
# Where next
# ----------
#
# ``python scripts/forecast.py sine_of_square --model lstm`` measures with baselines and intervals; RESULTS has it over
# several seeds, and the simple network beside it. Two studies compare LSTM and GRU: `arXiv 1703.03906
# <https://arxiv.org/abs/1703.03906>`_ finds LSTMs better in translation, and `arXiv 1805.04908
# <https://arxiv.org/abs/1805.04908>`_ shows that an LSTM can count and a GRU cannot. The API:
# :class:`torchdl.SequenceModel`. Next: :doc:`/learn/16_long_distance`, where memory decides.
