# The names of ``torchdl.predict``, for type checkers and for ``torchdl/predict/__init__.py``.
from .base import Predictor as Predictor
from .classes import ClassAnswers as ClassAnswers
from .image_classifier import ImageClassifier as ImageClassifier
from .images import ImageInput as ImageInput
from .loading import load_as as load_as, load_predictor as load_predictor
from .text_classifier import TextClassifier as TextClassifier
