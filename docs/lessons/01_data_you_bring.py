"""
Data you bring
==============

Your data lie in a file that nobody made for you: no header, blanks for commas, question marks for missing values. How
do they become tensors, and what should you see before you train on them?

At the end you can read such files by hand and with torchdl, get them into a notebook, give names and types to their
columns, fill gaps without looking at test rows, and draw what they hold.
"""

# %%
# The idea
# --------
# A table has N rows, the examples, and D columns, the features. A model wants a matrix X of shape (N, D) and targets y
# of shape (N) or (N, 1), in float32 and without gaps. Between file and tensor there are four decisions:
#
# - **Names.** Does the first row hold names, or the first example?
# - **Types.** Is ``3`` a quantity, or the number of a category? A category becomes K columns of 0 and 1 (one-hot).
# - **Missing values.** How are they written? Drop their rows, or fill them in?
# - **Scale.** Each column gets mean 0 and standard deviation 1: :math:`x' = (x - \mu) / \sigma`.
#
# What is *fitted*, such as :math:`\mu`, :math:`\sigma` and the values that fill gaps, comes from training rows alone.
#
# We make two files of the two kinds that you meet most often. Both are invented, so we know what is in them.

import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from check import check
from sklearn.model_selection import train_test_split

import torchdl

work = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)

# 452 patients, and the durations of two waves in their electrocardiograms, QRS and PR: commas, no header, "?" for
# missing
sex = rng.integers(0, 2, 452)
age = rng.integers(18, 85, 452)
height = rng.normal(163 + 13 * sex, 6).round()
weight = (rng.normal(24.5, 3.5, 452) * (height / 100) ** 2).round()
qrs = rng.normal(86 + 8 * sex, 10).round()
pr = rng.normal(150 + 0.2 * age, 18).round()
height[100] = 780  # somebody's typing error
patients = pd.DataFrame({"age": age, "sex": sex, "height": height, "weight": weight, "QRS": qrs, "PR": pr}).astype(
    object
)
patients.loc[rng.choice(452, 18, replace=False), "PR"] = "?"
patients.to_csv(work / "patients.data", header=False, index=False)

# 392 cars: blanks of any number, no header, "?" for missing, names in quotes
cylinders = rng.choice([4, 6, 8], 392, p=[0.5, 0.22, 0.28])
tons = rng.normal(0.38 + 0.2 * cylinders, 0.17).clip(0.7)
power = (rng.normal(22 + 16 * cylinders, 14) + 10 * tons).round().clip(45)
region = np.where(cylinders == 8, 1, rng.integers(1, 4, 392))
miles = (33 / tons**0.85 - 0.02 * power + rng.normal(0, 1.8, 392)).clip(8)
kinds = {4: "small car", 6: "family car", 8: "pickup truck"}
with open(work / "cars.data", "w") as file:
    for i in range(392):
        hp = "?" if i % 65 == 32 else f"{power[i]:.1f}"
        file.write(f'{miles[i]:<7.1f}{cylinders[i]:<4}{hp:<8}{tons[i]:<8.3f}{region[i]}   "{kinds[cylinders[i]]}"\n')

for name in ("patients.data", "cars.data"):
    print(f"{name}:", *(work / name).read_text().splitlines()[:2], sep="\n    ")

# %%
# Get the file
# ------------
# Look at a file's first lines before you read it, as above; in a notebook, ``!head cars.data`` shows them.
#
# - **From a URL**: ``urllib.request.urlretrieve`` as below, ``!wget URL`` in a notebook, or
#   ``pandas.read_csv("https://...")`` without a copy. Keep a copy, so that you get the same numbers next year.
# - **Upload**: JupyterLab has a button. In Colab, this code shows one:
#
#   .. code-block:: python
#
#      from google.colab import files
#
#      uploaded = files.upload()  # a dictionary: name -> content; the files are also in the working directory
#
#   Upload ``my_tools.py`` in the same way, and ``from my_tools import clean`` works in every notebook that needs it.
# - **A drive**: in Colab, ``/content/gdrive/My Drive`` is yours after
#
#   .. code-block:: python
#
#      from google.colab import drive
#
#      drive.mount("/content/gdrive")
#
# A URL may name a local file, too, so that the next line runs without a network:

urllib.request.urlretrieve((work / "cars.data").as_uri(), work / "downloaded.data")
assert (work / "downloaded.data").read_bytes() == (work / "cars.data").read_bytes()

# %%
# By hand
# -------
# The first file, with NumPy alone: split lines at commas, turn texts into numbers, and question marks into NaN,
# "not a number". Then split the rows, fit means and deviations on the training rows, fill gaps with the training mean,
# and scale. After scaling, the mean is 0, so to fill a gap means to write 0.

names = ["age", "sex", "height", "weight", "QRS", "PR"]
lines = (work / "patients.data").read_text().splitlines()
values = np.array([[float("nan" if cell == "?" else cell) for cell in line.split(",")] for line in lines])  # (N, 6)
print(f"{values.shape[0]} rows, {values.shape[1]} columns, missing in each:", np.isnan(values).sum(0))

target = names.index("QRS")
train, test = train_test_split(values, test_size=0.33, random_state=0)
mean, deviation = np.nanmean(train, 0), np.nanstd(train, 0)  # (6), of the known values


def by_hand(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scaled inputs (N, 5) and targets (N, 1), gaps filled."""
    scaled = np.nan_to_num((rows - mean) / deviation)  # NaN becomes 0
    tensor = torch.tensor(scaled, dtype=torch.float32)
    return torch.cat([tensor[:, :target], tensor[:, target + 1 :]], 1), tensor[:, [target]]


inputs, targets = by_hand(train)
print("inputs", tuple(inputs.shape), " targets", tuple(targets.shape))

# %%
# With pandas it is one call. Without ``header=None``, the first patient becomes the header. Without ``na_values``, the
# column with question marks becomes text.

frame = pd.read_csv(work / "patients.data", header=None, names=names, na_values="?")
np.testing.assert_array_equal(frame.to_numpy(), values)
cars_frame = pd.read_csv(work / "cars.data", header=None, sep=r"\s+", na_values="?")
print(cars_frame.head(3).to_string())

# %%
# With torchdl
# ------------
# ``TableFormat`` says how a file is written, ``read_table`` reads it, and ``split_table`` splits, fits, fills and
# scales. What comes out equals what we did by hand. Sex is 0 or 1, so it can stay a number here.

written = torchdl.TableFormat(header=False, names=tuple(names), na=("?",))
table = torchdl.read_table(work / "patients.data", format=written)
split = torchdl.split_table(table, target="QRS", task="regression", missing="fill")
for part, rows in ((split.train, train), (split.test, test)):
    for ours, theirs in zip(by_hand(rows), (part.inputs, part.targets), strict=True):
        torch.testing.assert_close(ours, theirs)
print(*split.notes, sep="\n")

# %%
# In the cars' file, the region is 1, 2 or 3. These are not quantities: region 3 is not three times region 1. So it is
# read as categories. Text columns are categories anyway.

car_names = ("miles", "cylinders", "power", "tons", "region", "kind")
cars = torchdl.read_table(
    work / "cars.data",
    categories=["region"],
    format=torchdl.TableFormat(header=False, names=car_names, separator="blanks", na=("?",)),
)
print(cars.dtypes.to_string())
print(cars.isna().sum().to_string())
car_split = torchdl.split_table(cars, target="miles", missing="drop")
print(car_split.columns.names)

# %%
# .. list-table::
#    :header-rows: 1
#
#    * - Keras, pandas in the lecture
#      - here
#      - trap
#    * - ``keras.utils.get_file(name, url)``
#      - ``urlretrieve``, or ``torch.hub.download_url_to_file``
#      - ``get_file`` keeps its copies in ``~/.keras/datasets``, and does not notice that the file at the URL has
#        changed.
#    * - ``read_csv(..., header=None)``
#      - ``TableFormat(header=False, names=...)``
#      - Forget it, and you lose a row.
#    * - ``delim_whitespace=True``
#      - ``sep=r"\s+"``; ``TableFormat(separator="blanks")``
#      - pandas 3 has removed the old argument.
#    * - ``df[[0, 1, 2]]``, then ``data.columns = [...]``
#      - ``names=...``
#      - Numbers as names break silently when a column is added.
#    * - arrays of NumPy
#      - ``torch.tensor(values, dtype=torch.float32)``
#      - NumPy's float64 stays float64, and ``nn.Linear`` refuses it.
#
# Look
# ----
# **Histograms** show one column each. Look at the height: a single value at 780 squeezes all others into one bar.
# That patient is no giant.

units = {"age": "years", "sex": "0 or 1", "height": "cm", "weight": "kg", "QRS": "ms", "PR": "ms"}
torchdl.plots.plot_histograms({f"{name}, {unit}": frame[name].to_numpy() for name, unit in units.items()})

# %%
# Nobody sees this in a tensor. The mistake widens the standard deviation, so scaling shrinks the differences between
# all other patients. Treat impossible values as missing.

print(f"standard deviation of the height: {frame['height'].std():.1f} cm")
clean = frame.assign(height=frame["height"].where(frame["height"] < 250))
print(f"without the impossible value:     {clean['height'].std():.1f} cm")

# %%
# **A scatter matrix** shows each pair of columns. Look at height and weight: they grow together. Look at the height's
# own histogram: it is broad, because it joins women and men.

numbers = {f"{name}, {unit}": clean[name].to_numpy() for name, unit in units.items() if name != "sex"}
torchdl.plots.plot_scatter_matrix(numbers)

# %%
# Look at the cars' miles per gallon against their weight in tons: a curve, no line. A logarithm would straighten it, as
# in :doc:`/learn/03_linear_regression`. And the weights form three groups, one for each number of cylinders.

torchdl.plots.plot_scatter_matrix({name: cars[name].to_numpy() for name in ("miles", "cylinders", "power", "tons")})

# %%
# What breaks it
# --------------
# None of the following raises an error in pandas. Read each line, and ask what a model would make of it.

no_header = pd.read_csv(work / "patients.data")
print(f"header forgotten: {len(no_header)} rows, and columns named {list(no_header.columns[:3])}")
no_marker = pd.read_csv(work / "patients.data", header=None, names=names)
print(f"marker forgotten: PR has the type {no_marker['PR'].dtype}, {no_marker['PR'].nunique()} different texts")
(work / "codes.csv").write_text("zip,price\n01067,180\n04109,140\n80331,250\n")
print(f"codes: {pd.read_csv(work / 'codes.csv')['zip'].tolist()} in pandas,", end=" ")
print(f"{torchdl.read_table(work / 'codes.csv')['zip'].tolist()} in torchdl, because 01067 is no number")

# %%
# torchdl stops where a guess could be wrong, and its message says which argument decides.

for name, attempt in {
    "header": lambda: torchdl.read_table(work / "patients.data"),
    "marker": lambda: torchdl.split_table(
        torchdl.read_table(work / "patients.data", format=torchdl.TableFormat(header=False)), "V5"
    ),
    "gaps": lambda: torchdl.split_table(table, "QRS"),
}.items():
    try:
        attempt()
    except torchdl.InputError as error:
        print(f"{name}: {str(error).replace(str(work) + '/', '')}")

# %%
# Exercise 1: predict, then run
# -----------------------------
# ``pd.read_csv(work / "cars.data", sep=r"\s+")`` forgets the header. How many rows does it return?

rows = ...
check(rows, len(pd.read_csv(work / "cars.data", sep=r"\s+")), hint="The file has 392 lines.")

# %%
# .. dropdown:: Solution
#
#    The first of the 392 lines becomes the header.
#
#    .. code-block:: python
#
#       rows = 392 - 1

# %%
# Exercise 2: a European file
# ---------------------------
# Spreadsheets in many countries write numbers with a decimal comma, and so need another separator. Which one does
# this file have? Answer with the text for ``TableFormat(separator=...)``.

(work / "rooms.csv").write_text("size;price\n48,5;930,00\n71,0;1240,50\n")
separator = ...


def read_rooms(text: str) -> pd.DataFrame:
    """Read the file with a separator."""
    return torchdl.read_table(work / "rooms.csv", format=torchdl.TableFormat(separator=text, decimal=","))


check(
    separator,
    lambda text: bool(read_rooms(text)["size"].sum() == 48.5 + 71) or "the sizes are not those of the file",
    hint="It stands between size and price.",
)

# %%
# .. dropdown:: Solution
#
#    The comma is taken, so a semicolon separates the cells.
#
#    .. code-block:: python
#
#       separator = ";"

# %%
# Exercise 3: fill gaps
# ---------------------
# Write a function ``fill(train, test)`` of two arrays (N) and (M) with NaN in them. It returns ``test`` with its gaps
# filled by the mean of the known *training* values.

fill = ...
some_train, some_test = np.array([1.0, np.nan, 2.0, 6.0]), np.array([np.nan, 10.0])
check(
    fill,
    lambda f: bool(np.allclose(f(some_train, some_test), [3, 10])) or "for (1, nan, 2, 6) and (nan, 10) it is wrong",
    hint="np.nanmean ignores gaps, np.where chooses between two arrays.",
)

# %%
# .. dropdown:: Solution
#
#    The test values take no part in the mean.
#
#    .. code-block:: python
#
#       fill = lambda train, test: np.where(np.isnan(test), np.nanmean(train), test)

# %%
# Where next
# ----------
# - ``python scripts/explore.py cars.data --no-header --na '?' --separator blanks`` describes and draws a table;
#   ``python scripts/train_tabular.py --csv cars.data --target V1`` with the same options trains on it.
# - :func:`torchdl.read_table`, :class:`torchdl.TableFormat`, :func:`torchdl.split_table`, :class:`torchdl.Columns`,
#   :func:`torchdl.plots.plot_histograms`, :func:`torchdl.plots.plot_scatter_matrix`.
# - To learn the tools: NumPy computes with arrays, SciPy adds numerical methods, pandas has tables, Matplotlib draws,
#   and scikit-learn has classical models. Each has a tutorial for beginners in its documentation.
# - Next: :doc:`/learn/02_linear_classification`.
