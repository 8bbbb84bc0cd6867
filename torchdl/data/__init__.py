"""Data sets and the loader of their batches."""

from torchdl.data.arrays import ArrayDataset
from torchdl.data.augment import Augmentation, AugmentedImages, ShiftedImages
from torchdl.data.delimited_files import TableFormat
from torchdl.data.digits import Digits, load_digits
from torchdl.data.duplicates import in_training
from torchdl.data.frame_sequences import FrameSequences
from torchdl.data.images import ImageDataset, draw_per_class, load_images
from torchdl.data.info import DatasetInfo
from torchdl.data.loader import BatchLoader, BatchRange
from torchdl.data.ordered_sequences import OrderedSequences
from torchdl.data.photographed_digits import prepare_digit
from torchdl.data.ratings import Ratings, RatingSplit, read_ratings, split_ratings
from torchdl.data.recordings import Recordings, read_recordings
from torchdl.data.sequences import SameNumbers, Sequences, SortedNumbers
from torchdl.data.series import Series, Split, Windows, google_prices, load_prices, read_series, sine, sine_of_square
from torchdl.data.shoulder_exercises import load_exercises, split_exercises
from torchdl.data.signal_windows import SignalWindows
from torchdl.data.synthetic import AddingProblem, long_distance
from torchdl.data.tabular import Columns, Table, breast_cancer, load_transistors, read_table, split_table
from torchdl.data.text import TextDataset, Texts, read_texts
from torchdl.data.vectors import read_vectors
from torchdl.data.vocabulary import Vocabulary, pad, tokenize
from torchdl.data.wrappers import whole_batch

__all__ = [
    "AddingProblem",
    "ArrayDataset",
    "Augmentation",
    "AugmentedImages",
    "BatchLoader",
    "BatchRange",
    "Columns",
    "DatasetInfo",
    "Digits",
    "FrameSequences",
    "ImageDataset",
    "OrderedSequences",
    "RatingSplit",
    "Ratings",
    "Recordings",
    "SameNumbers",
    "Sequences",
    "Series",
    "ShiftedImages",
    "SignalWindows",
    "SortedNumbers",
    "Split",
    "Table",
    "TableFormat",
    "TextDataset",
    "Texts",
    "Vocabulary",
    "Windows",
    "breast_cancer",
    "draw_per_class",
    "google_prices",
    "in_training",
    "load_digits",
    "load_exercises",
    "load_images",
    "load_prices",
    "load_transistors",
    "long_distance",
    "pad",
    "prepare_digit",
    "read_ratings",
    "read_recordings",
    "read_series",
    "read_table",
    "read_texts",
    "read_vectors",
    "sine",
    "sine_of_square",
    "split_exercises",
    "split_ratings",
    "split_table",
    "tokenize",
    "whole_batch",
]
