# The names of ``torchdl``, for type checkers and for ``torchdl/__init__.py``, which imports each on first use.
# fmt: off
# ruff: noqa: I001
from . import (
    callbacks as callbacks, collective as collective, convolution as convolution, data as data, fast as fast,
    keras as keras, latent as latent, losses as losses, metrics as metrics, models as models, pictures as pictures,
    plots as plots, predict as predict, recipes as recipes, tasks as tasks, training as training,
)
from .artifacts import load as load, save as save
from .data import (
    AddingProblem as AddingProblem, ArrayDataset as ArrayDataset, AugmentedImages as AugmentedImages,
    Augmentation as Augmentation, BatchLoader as BatchLoader, Columns as Columns,
    Digits as Digits, FrameSequences as FrameSequences, ImageDataset as ImageDataset,
    OrderedSequences as OrderedSequences, Ratings as Ratings, RatingSplit as RatingSplit, Recordings as Recordings,
    SameNumbers as SameNumbers, Series as Series, ShiftedImages as ShiftedImages,
    SignalWindows as SignalWindows, SortedNumbers as SortedNumbers,
    Split as Split, Table as Table, TableFormat as TableFormat, TextDataset as TextDataset, Texts as Texts,
    Vocabulary as Vocabulary, Windows as Windows, google_prices as google_prices, load_digits as load_digits,
    load_images as load_images, load_prices as load_prices, long_distance as long_distance,
    prepare_digit as prepare_digit, read_ratings as read_ratings, read_recordings as read_recordings,
    read_series as read_series, read_table as read_table,
    read_texts as read_texts, sine as sine, sine_of_square as sine_of_square, split_ratings as split_ratings,
    split_table as split_table, whole_batch as whole_batch,
)
from .errors import InputError as InputError
from .features import CPCFeatures as CPCFeatures
from .forecasts import (
    drift as drift, fit_linear_ as fit_linear_, forecast as forecast, last_value as last_value,
    seasonal_last_value as seasonal_last_value,
)
from .keras import (
    fit_model_cifar10 as fit_model_cifar10, fit_model_on as fit_model_on,
    make_autoencoder_model as make_autoencoder_model, make_lenet_model as make_lenet_model,
)
from .models import (
    CPC as CPC, GAN as GAN, MLP as MLP, AirbenchLike as AirbenchLike, Autoencoder as Autoencoder,
    BionodalRootUnit as BionodalRootUnit, ContextNetwork as ContextNetwork, ConvDiscriminator as ConvDiscriminator,
    ConvGenerator as ConvGenerator, Discriminator as Discriminator, FrozenFeatures as FrozenFeatures,
    Generator as Generator, ImageEncoder as ImageEncoder, LenetLike as LenetLike,
    MatrixFactorization as MatrixFactorization, Predictors as Predictors, ProbedEncoder as ProbedEncoder,
    ProbeHead as ProbeHead, RatingModel as RatingModel,
    RowReader as RowReader, SequenceModel as SequenceModel, SignalEncoder as SignalEncoder, StridedCNN as StridedCNN,
    TextCNN as TextCNN, TextLSTM as TextLSTM, TransferModel as TransferModel, VGGLike as VGGLike,
    conv_gan as conv_gan, deep_gan as deep_gan, image_cpc as image_cpc, layer_table as layer_table,
    simple_gan as simple_gan,
    transfer_model as transfer_model,
)
from .callbacks import (
    BestCheckpoint as BestCheckpoint, BestWeights as BestWeights, Callback as Callback,
    EarlyStopping as EarlyStopping, LearningRateFinder as LearningRateFinder, WeightAverage as WeightAverage,
)
from .predict import (
    from_hub as from_hub, load_predictor as load_predictor, pretrained as pretrained, push_to_hub as push_to_hub,
)
from .tasks import (
    AutoencoderTask as AutoencoderTask, CPCTask as CPCTask, GANTask as GANTask,
    Supervised as Supervised, Task as Task, Update as Update,
)
from .training import Stopped as Stopped, Trainer as Trainer, TrainingDiverged as TrainingDiverged
from .loggers import MLflowLogger as MLflowLogger, RunLogger as RunLogger, WandbLogger as WandbLogger
from .history import History as History

__version__: str
