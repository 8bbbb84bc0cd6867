"""torchdl: a deep-learning course and contrastive predictive coding in PyTorch.

What is public stands in ``__init__.pyi``; each name is imported when it is first used, so ``import torchdl`` costs
little more than ``import torch``.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
