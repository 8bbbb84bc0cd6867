r"""
Activations
===========

Why did networks of ten layers not learn for decades, and why do they learn now? What happens to a unit whose activation
is flat where all its inputs lie?

At the end you can differentiate the common activations, predict how the gradient changes from layer to layer, count the
dead units of a ReLU network, and choose an activation by measuring.
"""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import nn

import torchdl
from torchdl.metrics import silent_units
from torchdl.models import ACTIVATIONS

# %%
# The idea
# --------
# A layer computes :math:`z = Wx + b` and then, for each number on its own, :math:`f(z)`. The activation :math:`f` must
# be *nonlinear*, or all layers together are one linear map, with a straight decision boundary
# (:doc:`/learn/06_networks`); and *differentiable*, because training needs its slope :math:`f'`. (A single kink, as
# ReLU's at 0, does no harm: PyTorch takes the slope 0 there.) A layer passes the gradient of the loss :math:`L` back as
#
# .. math:: \frac{\partial L}{\partial x} = W^\top \left( f'(z) \odot \frac{\partial L}{\partial f(z)} \right),
#
# where :math:`\odot` multiplies number by number. A network of :math:`n` layers is a chain :math:`f(W f(W f(\dots)))`,
# so the gradient is multiplied by :math:`n` slopes and :math:`n` matrices. If each makes it smaller, nearly nothing is
# left for the first layers, and they do not learn: the **vanishing gradient**.
#
# .. list-table::
#    :header-rows: 1
#
#    * - activation :math:`f(z)`
#      - slope :math:`f'(z)`
#    * - sigmoid :math:`\sigma(z) = 1 / (1 + e^{-z})`
#      - :math:`\sigma(z) (1 - \sigma(z))`, at most 1/4
#    * - tanh :math:`(e^{2z} - 1) / (e^{2z} + 1)`
#      - :math:`1 - \tanh^2 z`, at most 1
#    * - ReLU :math:`\max(0, z)`
#      - 1 if :math:`z > 0`, else 0
#    * - LeakyReLU :math:`\max(0.1 z, z)`
#      - 1 if :math:`z > 0`, else 0.1
#    * - ELU :math:`z` if :math:`z > 0`, else :math:`a (e^z - 1)`; here a = 1
#      - 1 if :math:`z > 0`, else :math:`a e^z`
#    * - softplus :math:`\log(1 + e^z)`
#      - :math:`\sigma(z)`
#    * - BRU :math:`(r^2 z + 1)^{1/r} - 1/r` if :math:`z \ge 0`, else :math:`e^{rz} - 1/r`; here r = 2
#      - :math:`2 / \sqrt{4 z + 1}` if :math:`z \ge 0`, else :math:`2 e^{2z}`
#
# The sigmoid came first: it maps to 0..1, as a neuron that rests or fires. But its outputs are centred at 1/2, although
# the next layer would like inputs centred at 0, as standardized data are; tanh repairs this. ReLU, everyone's default,
# is never negative, nor is softplus; ELU has a mean nearer to 0, and its authors report faster and better training. In
# practice this matters less than the slope. Left of 0, ELU and softplus flatten as ReLU does, and all three work. ReLU
# and LeakyReLU are the cheapest: they need no exponential.
#
# Is ReLU far from biology? A neuron's impulses all have the same size; a stronger stimulus makes them more frequent,
# but ever less so, like a root or a logarithm (as decibels do). So ReLU, silent at rest and then growing (like the
# current of a diode), resembles a neuron more than a sigmoid does. The bionodal root unit (BRU; Bhumbra 2018) was
# fitted to neurons; few networks use it so far. gelu, :math:`z \Phi(z)` with the normal distribution's :math:`\Phi`,
# silu, :math:`z \sigma(z)`, and sine, :math:`\sin z`, are newer ones, compared below.
#
# Two traps: the slope of LeakyReLU on the left is 0.1 here, but 0.3 in Keras and 0.01 in PyTorch by default. Softmax is
# for the output layer alone, where PyTorch's ``cross_entropy`` contains it already (:doc:`/learn/06_networks`).
#
# By hand: functions and slopes
# -----------------------------
# Autograd must find the same slopes as the formulas.
by_hand = {
    "sigmoid": (lambda z: 1 / (1 + (-z).exp()), lambda z: z.sigmoid() * (1 - z.sigmoid())),
    "tanh": (lambda z: ((2 * z).exp() - 1) / ((2 * z).exp() + 1), lambda z: 1 - z.tanh() ** 2),
    "relu": (lambda z: z.clamp(min=0), lambda z: (z > 0).float()),
    "leaky_relu": (lambda z: torch.maximum(0.1 * z, z), lambda z: torch.where(z > 0, 1.0, 0.1)),
    "elu": (lambda z: torch.where(z > 0, z, z.exp() - 1), lambda z: torch.where(z > 0, 1.0, z.exp())),
    "softplus": (lambda z: (1 + z.exp()).log(), lambda z: z.sigmoid()),
    "bru": (
        lambda z: torch.where(z >= 0, (4 * z.clamp(min=0) + 1).sqrt(), (2 * z).exp()) - 0.5,
        lambda z: torch.where(z >= 0, 2 / (4 * z.clamp(min=0) + 1).sqrt(), 2 * (2 * z).exp()),
    ),
}
z = torch.linspace(-4, 4, 400, requires_grad=True)  # (400,): 0, where the slope of ReLU jumps, is not among them
for name, (f, slope) in by_hand.items():
    (found,) = torch.autograd.grad(f(z).sum(), z)
    torch.testing.assert_close(found, slope(z.detach()))
    values = f(z.detach())
    print(f"{name:10}  from {values.min():5.2f} to {values.max():4.2f}, slope at most {found.max():.2f}")

# %%
# With torchdl: the same functions by name
# ----------------------------------------
# Look at the dashed slopes: those of sigmoid and tanh are bumps, nearly 0 a few units away from the middle, and the
# sigmoid's has a quarter of the height. Those of ReLU and its relatives stay at 1 on the right, or come near it. Far on
# the left only LeakyReLU keeps a slope. BRU has the slope 2 at 0 and flattens slowly on the right.
for name, (f, _) in by_hand.items():
    torch.testing.assert_close(ACTIVATIONS[name]()(z), f(z))
curves = {name: tuple(v.tolist() for v in (z, f(z), slope(z))) for name, (f, slope) in by_hand.items()}
torchdl.plots.plot_functions(curves)

# %%
# By hand: the gradient, layer by layer
# -------------------------------------
# Sixteen hidden layers of 64 units look at 500 digits. ``backward`` applies the formula from above, without autograd:
#
# 1. Start with the gradient of cross-entropy by the last sums z, :math:`p - y` for probabilities :math:`p` and one-hot
#    labels :math:`y` (:doc:`/learn/06_networks`).
# 2. The gradient by a layer's weights is the product of the gradient by its sums and its inputs.
# 3. Times the weights, times the slopes, it becomes the gradient by the sums of the layer below. Go on with 2.
#
# The initial weights are Glorot's (also called Xavier's), with the variance 2 / (inputs + outputs): the default of
# Keras and of :class:`torchdl.MLP`. He's have 2 / inputs, made for ReLU, and PyTorch's own 1 / (3 inputs).
train, test = (torchdl.load_images("mnist_5k", part) for part in ("train", "test"))
(x, y), (x_test, y_test) = (data[: len(data)] for data in (train, test))  # (4500, 1, 28, 28), (4500,); (500, ...)


def backward(weights, name, x, y):
    """Return the gradients by the ``weights`` (out, in) and the norms of those by the sums z; x (B, D), y (B,)."""
    f, slope = by_hand[name]
    inputs, sums = [x], []
    for weight in weights:
        sums.append(inputs[-1] @ weight.T)  # (B, in) @ (in, out)
        inputs.append(f(sums[-1]))
    gradient = (sums[-1].softmax(1) - F.one_hot(y, 10)) / len(x)  # (B, 10), by the last sums
    gradients, norms = [], []  # from the last layer to the first
    for layer in reversed(range(len(weights))):
        norms.append(float(gradient.norm()))
        gradients.append(gradient.T @ inputs[layer])  # (out, B) @ (B, in)
        if layer:
            gradient = (gradient @ weights[layer]) * slope(sums[layer - 1])  # (B, in), by the sums of the layer below
    return gradients[::-1], norms[::-1]


fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
starts = {"Glorot's": 1, "He's": 2**0.5, "PyTorch's": 3**-0.5}  # 64 inputs, 64 outputs: relative to Glorot's
for name, start in [("sigmoid", "Glorot's"), ("tanh", "Glorot's"), *(("relu", start) for start in starts)]:
    torch.manual_seed(0)
    model = torchdl.MLP(784, 10, hidden=[64] * 16, dropout=0.0, activation=name)
    weights = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    with torch.no_grad():
        for weight in weights:
            weight *= starts[start]
        gradients, norms = backward(weights, name, x[:500].flatten(1), y[:500])
    F.cross_entropy(model(x[:500]), y[:500]).backward()
    for weight, gradient in zip(weights, gradients, strict=True):
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-6)  # autograd agrees
    style = {"Glorot's": "-o", "He's": ":o", "PyTorch's": "--o"}[start]
    label = f"{name}, {start} weights"
    ax.semilogy(range(1, 18), norms, style, color="C2" if name == "relu" else None, markersize=3, label=label)
    print(f"{label:24} the first layer gets {norms[0] / norms[-1]:.0e} of the last one's gradient")
ax.set(title="Gradient at the start of training", xlabel="layer (1 is next to the pixels)")
ax.set(ylabel="norm of the gradient by z", xticks=range(1, 18, 2))
ax.legend()
ax.grid(alpha=0.3)

# %%
# Read the figure from right to left, as the gradient travels. The sigmoid's falls along a straight line: the axis is
# logarithmic, so every layer costs the same factor, about the 4 that the largest slope explains. Next to the pixels
# nothing arrives. The slope of tanh is 1 around 0, where these weights keep its units. ReLU passes half of its units;
# He's weights make up for it. With PyTorch's own weights ReLU's gradient vanishes again, by a factor of about a
# million: initialize deep networks yourself.
#
# By hand: training a deep network
# --------------------------------
# Do eight hidden layers learn? Before ReLU, deep networks were trained one layer after another (Hinton's greedy
# pretraining, with restricted Boltzmann machines, or deep Boltzmann machines). Today one changes the activation.
loader = torchdl.BatchLoader(train, batch_size=64, shuffle=True, seed=0)


def deep(activation, depth):
    """Build a network of ``depth`` hidden layers of 64 units in plain PyTorch, with Glorot's initial weights."""
    layers = [nn.Flatten()]
    for layer in range(depth):
        layers += [nn.Linear(64 if layer else 784, 64), activation()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    for weight in model.parameters():
        if weight.dim() == 2:
            nn.init.xavier_uniform_(weight)
        else:
            nn.init.zeros_(weight)
    return model


def fit(model, epochs=3, lr=1e-3):
    """Train with the loader's batches, and return the accuracy on the test digits after each epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    accuracies = []
    for epoch in range(epochs):
        for indices in loader.order(epoch).split(64):  # (64,)
            loss = F.cross_entropy(model(x[indices]), y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracies.append(float((model(x_test).argmax(1) == y_test).float().mean()))
    return accuracies


networks = {}
for activation in (nn.Sigmoid, nn.Tanh, nn.ReLU):
    torch.manual_seed(0)
    model = networks[activation] = deep(activation, 8)
    with torch.no_grad():
        spread = model[:-1](x_test).std(0).mean()  # of the last hidden units, over the images
    accuracies = " ".join(f"{accuracy:.1%}" for accuracy in fit(model))
    print(
        f"{activation.__name__:8} accuracy after 1, 2, 3 epochs: {accuracies}; units vary by {spread:.0e} at the start"
    )

# %%
# Tanh and ReLU learn, ReLU more slowly; the sigmoid stays at chance for two epochs, and hardly leaves it in the third.
# Why does Adam not help, which divides by the gradient's size? Because what shrinks gradients on the way back shrinks
# differences on the way forward. The sigmoid's last hidden units have nearly the same values for all images, so the
# output layer has nothing to tell them apart by.
#
# With torchdl: train it
# ----------------------
# The same initial weights and batches give the same network.
torch.manual_seed(0)
model = torchdl.MLP(784, 10, hidden=[64] * 8, dropout=0.0, activation="tanh")
torchdl.Trainer(epochs=3, device="cpu").fit(torchdl.Supervised(model, F.cross_entropy), loader)
for ours, by_loop in zip(model.parameters(), networks[nn.Tanh].parameters(), strict=True):
    torch.testing.assert_close(ours, by_loop, rtol=1e-3, atol=1e-3)

# %%
# Which one is best?
# ------------------
# With two hidden layers all of them learn (three seeds each). Mind the axis, which does not begin at 0: the sigmoid is
# slower, but not bad. The others differ by no more than the seeds do; with 500 test digits, the standard error is above
# 1 %. So take ReLU first, and experiment if the result is not good enough.
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name in ACTIVATIONS:
    for seed in range(3):
        torch.manual_seed(seed)
        ax.plot(name, 100 * fit(torchdl.MLP(hidden=(64, 64), dropout=0.0, activation=name))[-1], "C0o", alpha=0.6)
ax.set(title="Two hidden layers of 64 units, after three epochs", ylabel="test accuracy, %")
ax.tick_params(axis="x", rotation=45)
ax.grid(alpha=0.3)

# %%
# What breaks it: dead units
# --------------------------
# A large step can push the bias of a ReLU unit so far down that :math:`z < 0` for every image. Its slope is then 0 for
# every image, no gradient ever brings it back, and it is dead (the *dying neuron problem*). Below, networks train for
# two epochs at several learning rates. Then we count the silent units: those with :math:`z < 0` for all training
# images. LeakyReLU's units can be silent, too, but their slope is 0.1 there, so they can return.
rates, activations = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), (nn.ReLU, nn.LeakyReLU)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for name in ("relu", "leaky_relu"):
    silent, accuracies = [], []
    for rate in rates:
        torch.manual_seed(0)
        model = torchdl.MLP(hidden=(128, 128), dropout=0.0, activation=name)
        before = silent_units(model, x, activations)
        accuracies.append(100 * fit(model, epochs=2, lr=rate)[-1])
        silent.append(100 * silent_units(model, x, activations))
        print(f"{name:10} learning rate {rate:5g}: {silent[-1]:3.0f} % silent, accuracy {accuracies[-1]:.1f} %")
    print(f"{name:10} before training: {before:4.0%} silent")
    axes[0].semilogx(rates, silent, "-o", label=name)
    axes[1].semilogx(rates, accuracies, "-o", label=name)
axes[0].set(title="Silent units", xlabel="learning rate", ylabel="units silent for all images, %", ylim=(0, 100))
axes[1].set(title="Accuracy", xlabel="learning rate", ylabel="test accuracy, %", ylim=(0, 100))
_ = axes[0].legend()

# %%
# Some units fall silent at every learning rate, and do no harm. At the right end most ReLU units are dead, and the
# accuracy is gone; the leaky network still learns.

# %%
# Exercise 1: a product of slopes
# -------------------------------
# In a chain of ten sigmoids all weights are 1, and the biases are whatever suits you. By what factor do the ten slopes
# multiply the gradient, at best?
left = ...

check(
    left,
    float(by_hand["sigmoid"][1](torch.zeros(()))) ** 10,
    hint="Every sigmoid multiplies by its slope, which is largest at 0.",
    close=0.01,
)

# %%
# .. dropdown:: Solution
#
#    The slope at 0 is 1/4, and there are ten of them: less than a millionth is left.
#
#    .. code-block:: python
#
#       left = 0.25**10

# %%
# Exercise 2: a dead unit
# -----------------------
# A ReLU unit computes :math:`\max(0, x_1 - 2 x_2 + b)` of inputs in :math:`[0, 1]`. What is the largest :math:`b` at
# which it is dead, that is, 0 for every input?
bias = ...

corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
check(bias, -float((corners @ torch.tensor([1.0, -2.0])).max()), hint="Which corner gives the largest sum?")

# %%
# .. dropdown:: Solution
#
#    The largest sum is 1, at (1, 0). The bias must take it away.
#
#    .. code-block:: python
#
#       bias = -1.0

# %%
# Exercise 3: your own activation
# -------------------------------
# silu is :math:`z \sigma(z)`. Write its relative swish, :math:`z \sigma(\beta z)`, as a function of a tensor and a
# number beta.
swish = ...

check(swish, lambda f: torch.allclose(f(z, 2.0), F.silu(2 * z) / 2) or "for beta = 2, some values differ")

# %%
# .. dropdown:: Solution
#
#    It is a smooth ReLU that dips below 0; a large beta makes it sharp. With beta = 1,
#    ``torchdl.MLP(activation="silu")`` has it.
#
#    .. code-block:: python
#
#       def swish(z, beta):
#           return z * torch.sigmoid(beta * z)

# %%
# Where next
# ----------
# ``python scripts/show_activations.py`` draws all ten activations and repeats the dying units with three hundred steps;
# RESULTS lists the share that dies at a learning rate of 0.1, over three seeds. In the API:
# :class:`torchdl.BionodalRootUnit` and the argument ``activation`` of :class:`torchdl.MLP`. The next lesson,
# :doc:`/learn/08_images`, trains on images and reads the curves.
