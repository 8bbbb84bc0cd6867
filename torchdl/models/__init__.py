"""Models: tensors in, tensors out. Each keeps its constructor's arguments as attributes of the same names."""

from torchdl.models.cpc import CPC, ContextNetwork, ImageEncoder, Predictors, SignalEncoder, image_cpc, probe_head
from torchdl.models.frozen import FrozenFeatures
from torchdl.models.gan import GAN, Discriminator, Generator, deep_gan, simple_gan
from torchdl.models.init import keras_init_
