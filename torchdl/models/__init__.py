"""Models: tensors in, tensors out. Each keeps its constructor's arguments as attributes of the same names."""

from torchdl.models.activations import ACTIVATIONS, BionodalRootUnit, Sine
from torchdl.models.airbench import AirbenchLike
from torchdl.models.autoencoder import Autoencoder
from torchdl.models.cnn import StridedCNN, VGGLike
from torchdl.models.cpc import (
    CPC,
    ContextNetwork,
    ImageEncoder,
    Predictors,
    ProbedEncoder,
    ProbeHead,
    SignalEncoder,
    image_cpc,
    probe_head,
)
from torchdl.models.dcgan import ConvDiscriminator, ConvGenerator, conv_gan
from torchdl.models.frozen import FrozenFeatures
from torchdl.models.gan import GAN, Discriminator, Generator, deep_gan, simple_gan
from torchdl.models.init import keras_init_
from torchdl.models.layers import layer_table
from torchdl.models.lenet import LenetLike
from torchdl.models.mlp import MLP
from torchdl.models.recommender import MatrixFactorization, RatingModel
from torchdl.models.rnn import RowReader, SequenceModel
from torchdl.models.text import TextCNN, TextLSTM, WordEmbedding
from torchdl.models.transfer import LinearHead, TransferModel, transfer_model

__all__ = [
    "ACTIVATIONS",
    "CPC",
    "GAN",
    "MLP",
    "AirbenchLike",
    "Autoencoder",
    "BionodalRootUnit",
    "ContextNetwork",
    "ConvDiscriminator",
    "ConvGenerator",
    "Discriminator",
    "FrozenFeatures",
    "Generator",
    "ImageEncoder",
    "LenetLike",
    "LinearHead",
    "MatrixFactorization",
    "Predictors",
    "ProbeHead",
    "ProbedEncoder",
    "RatingModel",
    "RowReader",
    "SequenceModel",
    "SignalEncoder",
    "Sine",
    "StridedCNN",
    "TextCNN",
    "TextLSTM",
    "TransferModel",
    "VGGLike",
    "WordEmbedding",
    "conv_gan",
    "deep_gan",
    "image_cpc",
    "keras_init_",
    "layer_table",
    "probe_head",
    "simple_gan",
    "transfer_model",
]
