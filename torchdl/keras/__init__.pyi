# The names of ``torchdl.keras``, for type checkers and for ``__init__.py``, which imports each on first use.
from .compare import largest_difference as largest_difference
from .exporting import to_keras as to_keras
from .files import KerasFile as KerasFile, Layer as Layer, read_model as read_model
from .importing import Imported as Imported, describe_import as describe_import, from_keras as from_keras
from .sources import (
    fit_model_cifar10 as fit_model_cifar10,
    fit_model_on as fit_model_on,
    make_autoencoder_model as make_autoencoder_model,
    make_lenet_model as make_lenet_model,
)
