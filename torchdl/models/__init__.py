"""Models: tensors in, tensors out. Each keeps its constructor's arguments as attributes of the same names."""

from torchdl.models.gan import GAN, Discriminator, Generator, deep_gan, simple_gan
from torchdl.models.init import keras_init_
