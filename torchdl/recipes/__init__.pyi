# The modules of ``torchdl.recipes``, for type checkers and for ``__init__.py``, which imports each on first use.
from . import (
    autoencoder as autoencoder,
    cpc_probe as cpc_probe,
    forecasting as forecasting,
    gan_evaluation as gan_evaluation,
    image_classification as image_classification,
    learning as learning,
    recommendation as recommendation,
    report as report,
    run_comparison as run_comparison,
    sample_monitor as sample_monitor,
    sequence_memory as sequence_memory,
    signal_probe as signal_probe,
    tabular as tabular,
    text_classification as text_classification,
    transfer as transfer,
)
