"""Use a trained run: answer questions on raw inputs, such as photographs, tables, texts or series.

``load_predictor(run)`` returns the predictor of the run's kind, from ``architecture.json``, ``weights.safetensors`` and
``preprocessing.json`` alone: no data set is needed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
