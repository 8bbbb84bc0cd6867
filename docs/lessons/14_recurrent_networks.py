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
# Lesson :doc:`/learn/13_sequences_and_autoregression` flattened a window of T terms into one row of numbers. A hidden
# layer on that row has :math:`T \cdot D \cdot M` weights, learns everything anew for each place in the window, and
# reads one length only. Convolutions avoid this for images: they use the same weights at every place. A recurrent
# network does the same for sequences. It reads term by term and keeps a **hidden state**, which it updates with the
# same weights each time. This is the simple (Elman) unit, usually in a single layer:
#
# .. math:: h_t = \tanh(W_x x_t + W_h h_{t-1} + b), \qquad h_0 = 0, \qquad \hat y_t = W_o h_t + b_o
#
# The letters of the whole course: N sequences, T terms in each, D numbers per term, M hidden units, K outputs. So the
# sequences are (N, T, D), W_x is (M, D), W_h is (M, M), all states are (N, T, M), W_o is (K, M), an output is (N, K).
#
# The first state, h_0, is zero here; it could be learned, too. There is an output for every term. A forecast needs only
# the last one, which depends on all terms :math:`x_1, \dots, x_T`; a translation needs them all, each with a softmax
# over the words. A Markov model predicts a term from the one before it alone, while :math:`h_t` can carry something of
# every earlier term. Such loops are older than deep learning: a register remembers by feeding its output back, and
# Hopfield's networks model memory by connections between neurons, which grow when both fire together (Hebb's rule).
#
# Look at every weight
# --------------------
#
# One sequence of ten terms with three numbers each, five hidden units, two outputs:
import copy
from functools import partial

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
#    * - kernel (D, M), one bias, returns the last state
#      - weight (M, D), two biases, returns all states and the last one
#      - transpose copied weights; take ``states[:, -1]`` yourself
#    * - ``activation=None``: a linear recurrence
#      - tanh or relu only
#      - ``torchdl.SequenceModel("rnn", activation="none")`` has it
#    * - Glorot and orthogonal weights, b = 0
#      - all uniform in ±1/√M
#      - :class:`torchdl.SequenceModel` starts as Keras does
#
# By hand
# -------
#
# A short loop computes what the layers compute. It takes whole batches and keeps the output of every term:


def by_hand(x: Tensor, W_x: Tensor, W_h: Tensor, b: Tensor, W_o: Tensor, b_o: Tensor) -> Tensor:
    """Return the outputs (N, T, K) after every term of sequences (N, T, D)."""
    h, outputs = x.new_zeros(len(x), len(W_h)), []  # (N, M)
    for term in x.unbind(1):  # T times (N, D)
        h = torch.tanh(term @ W_x.T + h @ W_h.T + b)  # the new state takes the place of the old one
        outputs.append(h @ W_o.T + b_o)  # (N, K)
    return torch.stack(outputs, 1)


def weights_of(layer: nn.RNN, head: nn.Linear) -> list[Tensor]:
    """Return copies of W_x, W_h, b, W_o and b_o, ready to train."""
    b = layer.bias_ih_l0 + layer.bias_hh_l0
    return [
        w.detach().clone().requires_grad_() for w in (layer.weight_ih_l0, layer.weight_hh_l0, b, *head.parameters())
    ]


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
x, y = torchdl.Windows(torchdl.sine(200).values.float(), length=10)[:]
y, half = y[:, 0], len(x) // 2  # (N, 1, 1) -> (N, 1)
print("windows", tuple(x.shape), " targets", tuple(y.shape))

model = torchdl.SequenceModel("rnn", hidden=5)  # its initial weights are ours, too
weights = weights_of(model.core, model.head)
optimizer = torch.optim.SGD(weights, lr=0.1)
losses = []
for _epoch in range(200):
    loss = mse_loss(by_hand(x[:half], *weights)[:, -1], y[:half])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"training loss: {losses[0]:.4f} -> {losses[-1]:.5f}")

# %%
# With torchdl
# ------------
#
# :class:`torchdl.SequenceModel` of kind ``rnn`` is the same network on PyTorch's fast layer. We freeze its second bias,
# because gradient descent on both vectors would move their sum b twice as far.
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
# sine and on one with noise, by Adam with a falling learning rate, from five starts each. The one-step forecast sees
# the true terms. The multi-step forecast starts once, in the middle of the series, and then reads its own predictions.
# AR(10) by least squares, from lesson 13, is the reference.


def trained(activation: str, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """Train a network on windows (N, T, 1) and next terms (N, 1, 1)."""
    torch.manual_seed(seed)
    model = torchdl.SequenceModel("rnn", hidden=5, activation=activation, horizon=1)
    adam = partial(torch.optim.Adam, lr=0.1)
    task = torchdl.Supervised(model, mse_loss, optimizer=adam, schedule=schedules.cosine)
    batches = torchdl.BatchLoader(torchdl.ArrayDataset(x, y), 32, shuffle=True, seed=seed)
    torchdl.Trainer(epochs=80).fit(task, batches)
    return model.requires_grad_(False)


drawn = {}
print(f"{'RMSE, median of five starts':28} {'one step':>9} {'multi-step':>11}   lowest to highest")
for noise in (0.0, 0.1):
    x, y = torchdl.Windows(torchdl.sine(200, noise=noise).values.float(), length=10)[:]
    ar = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=10, horizon=1), x[:half], y[:half])
    networks = {"AR(10)": [ar.requires_grad_(False)]}
    networks |= {a: [trained(a, x[:half], y[:half], seed) for seed in range(5)] for a in ("none", "tanh", "relu")}
    for name, models in networks.items():
        one = [float((model(x[half:]) - y[half:]).square().mean().sqrt()) for model in models]
        paths = [torchdl.forecast(model, x[half : half + 1], len(x) - half)[0] for model in models]  # (95, 1) each
        many = [float((path - y[half:, 0]).square().mean().sqrt()) for path in paths]
        median = sorted(range(len(many)), key=many.__getitem__)[len(many) // 2]
        drawn[noise, name] = paths[median].flatten(), models[median]
        row = f"{f'noise {noise:g}, {name}':28} {sorted(one)[len(one) // 2]:9.4f} {many[median]:11.4f}"
        print(f"{row}   {min(many):.2g} to {max(many):.2g}")

# %%
# One step ahead, the errors are small. Far ahead, AR(10) is exact on the clean sine, and linear recurrences come close
# to it: without an activation the network *is* a linear model of the window, and a sine obeys a linear recurrence
# exactly (lesson 13). But nothing bounds a linear state, so a forecast can also explode: see the highest errors. A tanh
# bends each step a little, and errors too small to see in one step add up to a wrong phase or height. ReLU is no help.
figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
for axis, noise in zip(axes, (0.0, 0.1), strict=True):
    axis.plot(torchdl.sine(200, noise=noise).values, color="0.6", label="actual")
    for (level, name), (path, _) in drawn.items():
        if level == noise:
            axis.plot(range(200 - len(path), 200), path, "--" if name == "AR(10)" else "-", label=name)
    axis.axvline(200 - len(path) - 0.5, color="0.5", linestyle=":")
    axis.set(title=f"multi-step forecasts, noise {noise:g} (the start with the median error)", ylim=(-2, 2))
    axis.set_ylabel("x")
axes[1].set_xlabel("term (forecasts begin at the dotted line)")
_ = axes[0].legend(ncols=5, loc="lower left")

# %%
# No forecast can follow the noise: a good one follows the wave and leaves the noise out. The one-step forecast of the
# same network looks far better than its multi-step forecast, because it is given the true terms at every step:
values, (path, model) = torchdl.sine(200, noise=0.1).values[:, 0], drawn[0.1, "tanh"]
torchdl.plots.plot_forecast(values, 200 - len(path), model(x[half:])[:, 0, 0], path, "sine with noise, tanh network")

# %%
# What breaks it: a forgotten ``batch_first``
# -------------------------------------------
#
# Without ``batch_first=True``, ``nn.RNN`` takes the first axis for time. Given (N, T, D) it raises no error, but reads
# the *samples* one after another as if they were terms. So one sample changes the states of another, which must never
# happen. That is a test for any network: change sample 0, look at sample 1.
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
check(numbers, sum(p.numel() for p in [*nn.RNN(3, 5).parameters(), *nn.Linear(5, 2).parameters()]), "W_h is (M, M).")

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
# by 1. By how much does the output after the tenth term rise?
rise = ...
check(rise, 0.5 * torch.tensor(0.9).pow(9), hint="From the first state to the tenth there are nine steps.")

# %%
# .. dropdown:: Solution
#
#    The first state rises by 0.5, and each of the nine steps after it multiplies this by 0.9. With W_h = 0.5 almost
#    nothing would be left: the reason for lesson 15.
#
#    .. code-block:: python
#
#       rise = 0.5 * 0.9**9

# %%
# Where next
# ----------
#
# ``python scripts/forecast.py sine --model rnn`` does this with baselines and keeps the model; add
# ``--activation none``, or take ``noisy_sine``. RESULTS has their errors under "Sequences and forecasting".
# :class:`torchdl.SequenceModel` also reads several layers, both directions, or the maximum over all states;
# :func:`torchdl.forecast` makes multi-step forecasts with any model. Next: :doc:`/learn/15_gru_and_lstm`, where gates
# decide what a state keeps.
