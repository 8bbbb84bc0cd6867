# The names of ``torchdl.predict``, for type checkers and for ``torchdl/predict/__init__.py``.
from .base import Predictor as Predictor
from .classes import ClassAnswers as ClassAnswers
from .direction_forecaster import DirectionAnswer as DirectionAnswer, DirectionForecaster as DirectionForecaster
from .embeddings import EmbeddingAnswers as EmbeddingAnswers
from .exporting import Exported as Exported, export as export
from .forecaster import Forecast as Forecast, Forecaster as Forecaster
from .graphs import Graph as Graph, model_graph as model_graph, predictor_graph as predictor_graph
from .hub import from_hub as from_hub, push_to_hub as push_to_hub
from .image_classifier import ImageClassifier as ImageClassifier
from .image_embedder import ImageEmbedder as ImageEmbedder
from .image_generator import ImageGenerator as ImageGenerator
from .image_reconstructor import ImageReconstructor as ImageReconstructor, Reconstructions as Reconstructions
from .images import ImageInput as ImageInput
from .loading import load_as as load_as, load_predictor as load_predictor
from .numbers import NumberAnswers as NumberAnswers
from .pretrained_weights import (
    model_card as model_card,
    pretrained as pretrained,
    pretrained_models as pretrained_models,
)
from .recommender import RatedItems as RatedItems, Recommendations as Recommendations, Recommender as Recommender
from .sequence_predictor import SequencePredictor as SequencePredictor
from .series import SeriesInput as SeriesInput
from .signal_embedder import SignalEmbedder as SignalEmbedder, SignalInput as SignalInput
from .tabular import TabularPredictor as TabularPredictor
from .text_classifier import TextAnswers as TextAnswers, TextClassifier as TextClassifier
