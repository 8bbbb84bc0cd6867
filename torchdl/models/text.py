"""Networks that read texts: an LSTM and a convolutional network over word embeddings (lectures 57 and 59).

Padding is the index 0. It may come before or after the words and have any length: it never changes an output, unless a
network is built with ``read_padding``.

Shapes: B texts, T words, D numbers per word, M hidden units, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.arguments import plain_arguments, require_tensor
from torchdl.models.embedding import look_up
from torchdl.models.gates import Gate, gated
from torchdl.models.init import keras_init_, spread_


class WordEmbedding(nn.Embedding):
    """Vectors of words, (B, T) to (B, T, D); the vector of padding (index 0) is zero and stays zero.

    Args:
        vocabulary_size: Number of words, without padding.
        dim: D.
        read_padding: Whether padding has a vector that is trained, as a word has.

    Raises:
        InputError: A size is not positive.
    """

    def __init__(self, vocabulary_size: int, dim: int, read_padding: bool = False) -> None:
        require(vocabulary_size >= 1 and dim >= 1, "WordEmbedding: vocabulary_size and dim must be positive")
        super().__init__(vocabulary_size + 1, dim, padding_idx=None if read_padding else 0)
        self.vocabulary_size, self.dim, self.read_padding = vocabulary_size, dim, read_padding
        spread_(self, 0.05)  # as Keras does

    @torch.no_grad()
    def set_(self, vectors: Tensor, frozen: bool = False) -> None:
        """Set the vectors of words 1, 2, ... to ``vectors`` (words, D); ``frozen`` vectors are not trained.

        Raises:
            InputError: The vectors have another shape.
        """
        shape = (self.num_embeddings - 1, self.embedding_dim)
        require(tuple(vectors.shape) == shape, f"vectors must have the shape {shape}, not {tuple(vectors.shape)}")
        self.weight[1:] = vectors
        self.weight.requires_grad_(not frozen)


def words_first(words: Tensor, read_padding: bool = False) -> tuple[Tensor, Tensor]:
    """Move all padding of texts (B, T) behind the words; return the result and the numbers of words (B,).

    With ``read_padding``, padding counts as a word, and stays where it is.
    """
    require_tensor(words, "int64")
    require(words.dim() == 2 and not words.is_floating_point(), "texts must be integers of shape (texts, words)")
    if read_padding:
        return words, words.new_full((words.shape[0],), words.shape[1])
    is_word = words != 0
    # a stable sort would do the same, but ONNX has none
    after = is_word.sum(1, keepdim=True) + (~is_word).cumsum(1, dtype=torch.int64)  # the places of padding, from 1
    place = torch.where(is_word, is_word.cumsum(1, dtype=torch.int64), after) - 1  # (B, T)
    return torch.zeros_like(words).scatter(1, place, words), is_word.sum(1)


def max_pool(x: Tensor) -> Tensor:
    """Return the maxima (B, D, T // 3) of every three positions of (B, D, T)."""
    if torch.compiler.is_exporting():  # max_pool1d, which is faster, is traced for one length alone
        first, second, third = (x[:, :, start : x.shape[2] - 2 + start : 3] for start in range(3))
        return torch.maximum(torch.maximum(first, second), third)
    return F.max_pool1d(x, 3)


@plain_arguments
class TextLSTM(nn.Module):
    """Read texts with an LSTM, and take the maximum of each unit over all words (lecture 57).

    Args:
        vocabulary_size: Number of words, without padding.
        out_features: K.
        embedding_dim: D.
        hidden: M.
        dropout: The probability of dropping a word in training, and of dropping one of the maxima.
        gate: The LSTM's gates; see :mod:`torchdl.models.gates`.
        read_padding: Whether index 0 is read like a word, as by Keras' networks without a mask.

    Raises:
        InputError: A number is outside its range; when called, an index is.

    Example:
        >>> model = torchdl.TextLSTM(vocabulary_size=100, out_features=3).eval()
        >>> model(torch.randint(101, (2, 50))).shape
        torch.Size([2, 3])
        >>> model(torch.tensor([[5, 7, 9]])).allclose(model(torch.tensor([[0, 5, 7, 9, 0]])), atol=1e-6)  # 0 is padding
        True
    """

    def __init__(
        self,
        vocabulary_size: int,
        out_features: int = 1,
        embedding_dim: int = 20,
        hidden: int = 15,
        dropout: float = 0.0,
        gate: Gate = "sigmoid",
        read_padding: bool = False,
    ) -> None:
        super().__init__()
        require(out_features >= 1 and hidden >= 1, "TextLSTM: out_features and hidden must be positive")
        require(0 <= dropout < 1, f"TextLSTM: dropout must be in [0, 1), not {dropout}")
        self.vocabulary_size, self.out_features = vocabulary_size, out_features
        self.embedding_dim, self.hidden, self.dropout, self.gate = embedding_dim, hidden, dropout, gate
        self.read_padding = read_padding
        self.embedding = WordEmbedding(vocabulary_size, embedding_dim, read_padding)
        self.lstm = keras_init_(gated("lstm", embedding_dim, hidden, gate=gate))
        self.head = keras_init_(nn.Linear(hidden, out_features))
        # drop whole words (Gal and Ghahramani 2016, 1512.05287, section 4.2): no single word may decide alone
        self.drop_words, self.drop = nn.Dropout1d(dropout), nn.Dropout(dropout)

    def features(self, words: Tensor) -> Tensor:
        """Return the maxima (B, M) of texts (B, T), which the last layer reads."""
        words, count = words_first(words, self.read_padding)
        words = F.pad(words, (0, max(0, 1 - words.shape[1])))  # (B, T), T at least 1
        states, _ = self.lstm(
            self.drop_words(look_up(self.embedding, words, "words"))
        )  # (B, T, M): no state depends on later words
        position = torch.arange(words.shape[1], device=words.device)
        is_padding = position >= count.clamp(min=1)[:, None]  # (B, T)
        return states.masked_fill(is_padding[..., None], -torch.inf).amax(1)

    def forward(self, words: Tensor) -> Tensor:
        """Return the outputs (B, K) of texts (B, T); an empty text counts as one padding index."""
        return self.head(self.drop(self.features(words)))


@plain_arguments
class TextCNN(nn.Module):
    """Read texts with convolutions over three words, each with ReLU; take each filter's maximum (lecture 59).

    Max-pooling over three positions lies between them. With three convolutions, a text of fewer than 35 words would
    leave no position, so it is padded to 35.

    Args:
        vocabulary_size, out_features, embedding_dim, dropout, read_padding: See :class:`TextLSTM`.
        widths: Filters of the convolutions.

    Raises:
        InputError: A number is outside its range; when called, an index is.

    Example:
        >>> model = torchdl.TextCNN(vocabulary_size=100, out_features=3).eval()
        >>> model(torch.randint(101, (2, 50))).shape
        torch.Size([2, 3])
        >>> model(torch.tensor([[5, 7, 9]])).allclose(model(torch.tensor([[0, 5, 7, 9, 0]])))  # 0 is padding
        True
    """

    def __init__(
        self,
        vocabulary_size: int,
        out_features: int = 1,
        embedding_dim: int = 20,
        widths: Sequence[int] = (32, 64, 128),
        dropout: float = 0.0,
        read_padding: bool = False,
    ) -> None:
        super().__init__()
        require(out_features >= 1, "TextCNN: out_features must be positive")
        require(len(widths) >= 1 and min(widths) >= 1, "TextCNN: widths must be one positive number or more")
        require(0 <= dropout < 1, f"TextCNN: dropout must be in [0, 1), not {dropout}")
        self.vocabulary_size, self.out_features = vocabulary_size, out_features
        self.embedding_dim, self.widths, self.dropout = embedding_dim, tuple(widths), dropout
        self.read_padding = read_padding
        self.embedding = WordEmbedding(vocabulary_size, embedding_dim, read_padding)
        before = [embedding_dim, *widths]
        self.convolutions = nn.ModuleList(keras_init_(nn.Conv1d(a, b, 3)) for a, b in zip(before, widths, strict=False))
        self.head = keras_init_(nn.Linear(widths[-1], out_features))
        # drop whole words (Gal and Ghahramani 2016, 1512.05287, section 4.2): no single word may decide alone
        self.drop_words, self.drop = nn.Dropout1d(dropout), nn.Dropout(dropout)
        positions = 1
        for _ in widths[1:]:
            positions = 3 * (positions + 2)
        self.min_words = positions + 2  # number of words that leaves one position after the last convolution

    def features(self, words: Tensor) -> Tensor:
        """Return the maxima (B, M) of texts (B, T), which the last layer reads; M is the number of the last filters."""
        words, count = words_first(words, self.read_padding)
        # an exported network takes texts of every length: its padding cannot depend on it, nor leave one position alone
        missing = 2 * self.min_words if torch.compiler.is_exporting() else max(0, self.min_words - words.shape[1])
        words = F.pad(words, (0, missing))
        positions = count.clamp(min=self.min_words)  # (B,), number of positions that count
        x = self.drop_words(look_up(self.embedding, words, "words")).transpose(1, 2)  # (B, T, D) -> (B, D, T)
        for number, convolution in enumerate(self.convolutions):
            if number:
                x, positions = max_pool(x), positions // 3
            x, positions = F.relu(convolution(x)), positions - 2
            counts = torch.arange(x.shape[2], device=x.device) < positions[:, None]  # (B, T')
            x = x * counts[:, None]  # ReLU's outputs are 0 or more, so surplus padding never changes a maximum
        return x.amax(2)

    def forward(self, words: Tensor) -> Tensor:
        """Return the outputs (B, K) of texts (B, T)."""
        return self.head(self.drop(self.features(words)))
