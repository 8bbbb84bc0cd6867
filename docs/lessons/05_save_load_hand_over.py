"""
Save, load, hand over
=====================

A trained model lives in memory and dies with the process. What has to be in a file so that somebody else, next year
and without your code, gets the same numbers from it, and what else could hide in such a file?

At the end you can save and load a model by hand and with torchdl, continue a training that was interrupted, predict
on new input from a folder alone, and tell which files of strangers are safe to load.
"""

# %%
# The idea
# --------
# A model that can be handed over has three parts, and a training that can continue has a fourth:
#
# .. list-table::
#    :header-rows: 1
#
#    * - part
#      - for example
#      - without it
#    * - architecture
#      - class ``MLP``, 30 inputs, 16 hidden units
#      - nobody knows where the numbers belong
#    * - weights
#      - tensors by name
#      - the model is untrained
#    * - preprocessing
#      - means and deviations of the columns, names of the classes
#      - the model gets other inputs than in training, and answers nonsense without an error
#    * - state of the training
#      - Adam's averages, the epoch, the position in the random order
#      - the training starts anew, or continues as another training
#
# Our model classifies the breast tumours of :doc:`/learn/02_linear_classification`, this time with a hidden layer and
# dropout.

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import Tensor, nn

import torchdl

work = Path(tempfile.mkdtemp())
table = torchdl.data.breast_cancer()
split = torchdl.split_table(table, "diagnosis")
x, y, test_x, test_y = split.train.inputs, split.train.targets, split.test.inputs, split.test.targets

# %%
# By hand
# -------
# PyTorch's own way: write ``state_dict()``, a dictionary of tensors, and build the same class again to load it. The
# scaling goes into a JSON file. The architecture is Python code, which the receiver needs, too.


def build() -> nn.Sequential:
    """Build the network with new weights."""
    return nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))


def accuracy(logits: Tensor) -> float:
    """Return the share of test rows whose class is predicted."""
    return ((logits > 0) == (test_y > 0.5)).float().mean().item()


torch.manual_seed(0)
network = build()
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(60):
    optimizer.zero_grad()
    F.binary_cross_entropy_with_logits(network(x), y).backward()
    optimizer.step()
network.eval()  # no dropout from here on

torch.save(network.state_dict(), work / "network.pt")
(work / "scaling.json").write_text(json.dumps(split.columns.numeric))

loaded = build()
loaded.load_state_dict(torch.load(work / "network.pt", weights_only=True))
loaded.eval()
with torch.no_grad():
    assert torch.equal(loaded(test_x), network(test_x))  # the same bits, not only nearly the same
    print(f"test accuracy {accuracy(network(test_x)):.4f} before, {accuracy(loaded(test_x)):.4f} after loading")

# %%
# With torchdl
# ------------
# Give ``fit`` a folder, and the training writes checkpoints, metrics and TensorBoard's logs there. A predictor joins
# the model and its preprocessing, and ``save`` puts both beside them. That is a *run folder*.

torch.manual_seed(0)
model = torchdl.MLP(30, 1, hidden=(16,), dropout=0.2)
task = torchdl.Supervised(model, F.binary_cross_entropy_with_logits)
batches = torchdl.BatchLoader(split.train, 32, shuffle=True)
test_batches = torchdl.BatchLoader(split.test, 500)
run = work / "run"
torchdl.Trainer(epochs=20, device="cpu").fit(task, batches, test_batches, folder=run)
predictor = torchdl.predict.TabularPredictor(model, split.columns, device="cpu")
predictor.save(run)

meaning = {
    "architecture.json": "the model's class and its arguments",
    "weights.safetensors": "the tensors by name, with a checksum",
    "preprocessing.json": "the scaling, and the names of columns and classes",
    "checkpoint.pt": "weights, optimizer and position, to continue from",
    "metrics.csv": "losses and metrics, a row per epoch",
}
for name, sentence in meaning.items():
    print(f"{name:20} {(run / name).stat().st_size:7,} bytes   {sentence}")

# %%
# **Load, and predict on new input.** ``load_predictor`` needs the folder alone: no data set, no class to import. Rows
# may come as a CSV file, a DataFrame or dictionaries, with columns in any order. They are raw; the predictor scales
# them.

again = torchdl.load_predictor(run, device="cpu")
new_rows = table.drop(columns="diagnosis")[::-1][["worst area", *sorted(table.columns[:-1].drop("worst area"))]][:3]
answers = again.predict(new_rows)
assert answers.to_frame().equals(predictor.predict(new_rows).to_frame())
print(answers.to_frame().round(4).to_string())

# %%
# **Read the folder without torchdl.** safetensors is a simple format: eight bytes with the length of a header, the
# header in JSON (type, shape and place of each tensor), then the numbers. So a few lines read it, in any language.


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of float32 numbers."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    header.pop("__metadata__")
    return {
        name: torch.frombuffer(numbers[slice(*entry["data_offsets"])], dtype=torch.float32).view(entry["shape"])
        for name, entry in header.items()
    }


weights = read_safetensors(run / "weights.safetensors")
settings = json.loads((run / "preprocessing.json").read_text())["settings"]
scaled = torch.stack(
    [
        (torch.tensor(new_rows[name].to_numpy()) - mean) / deviation
        for name, (mean, deviation) in settings["numeric"].items()
    ],
    1,
).float()  # (3, 30)
hidden = (scaled @ weights["layers.0.weight"].T + weights["layers.0.bias"]).relu()  # (3, 30) x (30, 16) -> (3, 16)
by_hand = (hidden @ weights["layers.3.weight"].T + weights["layers.3.bias"]).sigmoid()[:, 0]  # (3, 1) -> (3,)
torch.testing.assert_close(by_hand.double(), answers.probabilities[:, 1], rtol=1e-4, atol=1e-6)
print("by hand, probability of malignant:", [f"{p:.4f}" for p in by_hand.tolist()])

# %%
# **Continue.** With ``resume=True`` the training goes on from the checkpoint, in a new process as well as here. The
# test is strict: 20 epochs and then 20 more must end with the same bits as 40 at once. Momentum, the order of
# the batches and dropout's random numbers must all be restored for that.


def fresh() -> tuple[torchdl.MLP, torchdl.Supervised]:
    """Return the model with its first weights, and its task."""
    torch.manual_seed(0)
    model = torchdl.MLP(30, 1, hidden=(16,), dropout=0.2)
    return model, torchdl.Supervised(model, F.binary_cross_entropy_with_logits)


trainer = torchdl.Trainer(epochs=40, device="cpu")
continued, continued_task = fresh()
history = trainer.fit(continued_task, batches, test_batches, folder=run, resume=True)
at_once, at_once_task = fresh()
trainer.fit(at_once_task, batches, test_batches)
assert all(torch.equal(a, b) for a, b in zip(continued.parameters(), at_once.parameters(), strict=True))
print("20 + 20 epochs equal 40 epochs, bit for bit")

# %%
# Look at the loss: there is no kink at epoch 20. A restart that keeps only the weights takes another way, because
# Adam's averages and the order of the batches are new. It need not be worse, but it is another training.

careless, careless_task = fresh()
careless.load_state_dict(torchdl.load(run).state_dict())  # the weights after epoch 20, as the predictor saved them
restarted = torchdl.Trainer(epochs=20, device="cpu").fit(careless_task, batches, test_batches)
fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.plot([row["epoch"] for row in history], [row["train/loss"] for row in history], "C0", label="training, continued")
ax.plot(
    [20 + row["epoch"] for row in restarted],
    [row["train/loss"] for row in restarted],
    "C3--",
    label="weights alone, restarted",
)
ax.axvline(20, color="0.5", linestyle=":")
ax.set(title="Interrupted at epoch 20", xlabel="epoch", ylabel="training loss")
ax.legend()
plt.show()

# %%
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch, torchdl
#      - trap
#    * - ``model.save("model.h5")``
#      - ``torch.save(model.state_dict(), ...)``; ``torchdl.save(model, folder)``
#      - ``torch.save(model)`` pickles the class's *name*: rename or move the class, and the file is lost.
#    * - ``load_model("model.h5")``
#      - ``load_state_dict``; ``torchdl.load(folder)``
#      - The Keras of TensorFlow 2.0 could not load a ``Sequential`` with an ``Input`` layer. PyTorch's model is in
#        training mode after loading: call ``eval()``. torchdl's is in evaluation mode.
#    * - the scaler of scikit-learn
#      - ``preprocessing.json``
#      - ``model.save`` does not include it.
#    * - a ``.h5`` that you have
#      - ``torchdl.keras.from_keras("model.h5")``
#      - ``Lambda`` layers are code, and are not run.
#
# **Hand over.** Without the checkpoint and the logs, the folder has a few kilobytes. Zip it; in Colab,
# ``files.download("tumours.zip")`` of ``google.colab`` brings it to your computer. The receiver unpacks it and calls
# ``load_predictor``.

with zipfile.ZipFile(work / "tumours.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for name in ("architecture.json", "weights.safetensors", "preprocessing.json"):
        archive.write(run / name, name)
print(f"tumours.zip: {(work / 'tumours.zip').stat().st_size:,} bytes")

# %%
# What breaks it
# --------------
# **Raw input to a bare model.** A model without its preprocessing still answers, with full confidence.

some = table[::3]
truth = (some["diagnosis"] == "malignant").to_numpy()
raw = torch.tensor(some[list(settings["numeric"])].to_numpy()).float()
with torch.no_grad():
    bare = torchdl.load(run)(raw)[:, 0].sigmoid().numpy()
complete = again.predict(some).probabilities[:, 1].numpy()
for name, found in (("weights alone, raw input", bare), ("with preprocessing", complete)):
    print(
        f"{name:26} accuracy {((found > 0.5) == truth).mean():.3f}, mean confidence {abs(found - 0.5).mean() + 0.5:.3f}"
    )

# %%
# **A pickle from a stranger.** ``torch.save`` uses pickle, and a pickle may name any function to be called while it is
# loaded. This one calls ``print``. It could as well delete your files or send your keys.


class Harmless:
    """Something that looks like data."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return print, ("!! this line was printed by the file itself, while it was loaded",)


torch.save({"layers.0.weight": Harmless()}, work / "stranger.pt")
torch.load(work / "stranger.pt", weights_only=False)  # never do this with a file that you did not write
try:
    torch.load(work / "stranger.pt", weights_only=True)  # the default since PyTorch 2.6
except Exception as error:
    print(f"with weights_only=True: {type(error).__name__}, nothing was run")

# %%
# **Why a torchdl folder cannot do that.** safetensors holds numbers and nothing else, as you have read above. JSON
# holds texts and numbers. The architecture only *names* a class, which must be one of torchdl's own models, with
# arguments of the right types. A damaged file is noticed by its checksum. Let us try both.

stranger = work / "stranger"
predictor.save(stranger)
attacks = {
    "architecture.json": json.dumps({"class": "os.system", "arguments": {"command": "echo hacked"}}).encode(),
    "weights.safetensors": (stranger / "weights.safetensors").read_bytes()[:-1] + b"\0",
}
for name, content in attacks.items():
    predictor.save(stranger)
    (stranger / name).write_bytes(content)
    try:
        torchdl.load_predictor(stranger)
    except torchdl.InputError as error:
        print(str(error).replace(str(work), ""))

# %%
# Exercise 1: how large is the file?
# ----------------------------------
# Predict the number of bytes that the numbers of ``MLP(30, 1, hidden=(16,))`` take in float32, without the header.

size = ...
check(size, sum(4 * value.numel() for value in model.parameters()), hint="Four bytes for each weight and each bias.")

# %%
# .. dropdown:: Solution
#
#    The hidden layer has 30 x 16 weights and 16 biases, the output 16 weights and 1 bias.
#
#    .. code-block:: python
#
#       size = 4 * (30 * 16 + 16 + 16 + 1)

# %%
# Exercise 2: what is inside?
# ---------------------------
# Somebody sends you a file of weights. Write a function ``shapes(path)`` that returns the shape of every tensor, a
# dictionary of lists by name, from the file's header alone.

shapes = ...
check(
    shapes,
    lambda f: (
        f(run / "weights.safetensors") == {name: list(value.shape) for name, value in weights.items()}
        or "the shapes are not those of the weights"
    ),
    hint="The first eight bytes are the header's length; skip the entry __metadata__.",
)

# %%
# .. dropdown:: Solution
#
#    The header says it all; no tensor needs to be read.
#
#    .. code-block:: python
#
#       def shapes(path):
#           data = path.read_bytes()
#           header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
#           return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}

# %%
# Exercise 3: hand over half
# --------------------------
# ``torchdl.save(model, folder, half=True)`` stores 16 bits per number. Save ``model`` so, load it again, and find the
# largest absolute difference between the logits of both on ``test_x``. (Both models must be in evaluation mode.)

difference = ...


def rounded_difference() -> float:
    """Return the largest difference between the model and its copy in 16 bits."""
    torchdl.save(model, work / "half", half=True)
    with torch.no_grad():
        return (torchdl.load(work / "half")(test_x) - model.eval()(test_x)).abs().max().item()


check(difference, rounded_difference(), hint="torchdl.load returns a model in evaluation mode; model.eval() sets it.")

# %%
# .. dropdown:: Solution
#
#    Sixteen bits keep about three decimal digits, which is plenty for predictions.
#
#    .. code-block:: python
#
#       torchdl.save(model, work / "half", half=True)
#       with torch.no_grad():
#           difference = (torchdl.load(work / "half")(test_x) - model.eval()(test_x)).abs().max().item()

# %%
# Where next
# ----------
# - ``python scripts/predict.py runs/tabular/RUN rows.csv`` predicts with a run folder; ``--resume RUN`` continues a
#   training.
# - :func:`torchdl.save`, :func:`torchdl.load`, :func:`torchdl.load_predictor`, :func:`torchdl.pretrained`;
#   ``torchdl.push_to_hub`` shares a folder.
# - SECURITY.md has what torchdl promises about files of strangers.
# - Next: :doc:`/learn/06_networks`.
