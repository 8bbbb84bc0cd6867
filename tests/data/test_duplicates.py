from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from torchdl import InputError
from torchdl.data.duplicates import duplicates_note, in_training


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(max_size=2)), st.lists(st.text(max_size=2)))
def test_texts_are_found_word_for_word(train, test):
    assert in_training(train, test).tolist() == [text in train for text in test]


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64, torch.bool, torch.bfloat16]
)
@given(shape=st.sampled_from([(), (1,), (3,), (2, 2), (1, 3, 3), (0,)]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_rows_are_found_whatever_their_type_and_shape(dtype, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    train, test = (torch.randint(0, 2, (6, *shape), generator=generator).to(dtype) for _ in range(2))
    expected = [any(torch.equal(row, other) for other in train) for row in test]
    assert in_training(train, test).tolist() == expected


def test_minus_zero_is_zero_and_types_are_not_mixed():
    assert in_training(torch.tensor([[0.0, 1.0]]), torch.tensor([[-0.0, 1.0]])).tolist() == [True]
    with pytest.raises(InputError, match=r"uint8.*float32"):
        in_training(torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(2, 3))


def test_arrays_are_compared_as_they_are():
    train = np.array([[1.0, 2.0], [3.0, 4.0 + 1e-12]])
    assert in_training(train, np.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [True, False]
    assert in_training(np.array(["a", "b"]), np.array(["b", "c"])).tolist() == [True, False]


def test_a_note_counts_them():
    assert duplicates_note(torch.tensor([False]), "rows") == ""
    note = duplicates_note(torch.arange(2000) < 1200, "rows")
    assert note == "1,200 of 2,000 test rows are in the training part, too"
