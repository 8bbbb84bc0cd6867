"""Applications, one per file. Each builds a task and its batches, evaluates the model and returns a report.

The files are listed in ``__init__.pyi``; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
