from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from helpers import gaussian
from hypothesis import given, settings, strategies as st
from torch import Tensor

from torchdl import InputError, convolution
from torchdl.convolution import (
    MODES,
    SOBEL_X,
    SOBEL_Y,
    as_matrix,
    convolve,
    correlate,
    correlate_by_loops,
    correlate_color,
    output_size,
    padding,
)

KERNELS = [(1, 1), (3, 3), (5, 3), (2, 2), (4, 3), (2, 5), (1, 6), (4, 4)]
ODD = [sides for sides in KERNELS if sides[0] % 2 and sides[1] % 2]
TIGHT = {"rtol": 1e-10, "atol": 1e-10}

# PyTorch's remark on how it pads for an even kernel
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def pair(sides: tuple[int, int], height: int = 7, width: int = 9) -> tuple[Tensor, Tensor]:
    return gaussian(height, width, dtype=torch.float64), gaussian(*sides, seed=1, dtype=torch.float64)


def by_torch(image: Tensor, kernels: Tensor, bias: Tensor | None, mode: str) -> Tensor:
    """Let PyTorch cross-correlate an image (C, H, W) with kernels (O, C, h, w)."""
    h, w = kernels.shape[2:]
    pad = {"valid": 0, "same": "same", "full": (h - 1, w - 1)}[mode]
    return F.conv2d(image[None], kernels, bias, padding=pad)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", KERNELS)
def test_cross_correlation_is_pytorchs_convolution(sides, mode):
    image, kernel = pair(sides)
    expected = by_torch(image[None], kernel[None, None], None, mode)[0]
    torch.testing.assert_close(correlate(image, kernel, mode), expected, **TIGHT)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", KERNELS)
def test_convolution_is_scipys(sides, mode):
    image, kernel = pair(sides)
    expected = scipy.signal.convolve2d(image.numpy(), kernel.numpy(), mode)
    np.testing.assert_allclose(convolve(image, kernel, mode).numpy(), expected, **TIGHT)


@pytest.mark.parametrize(
    ("sides", "mode"), [(s, mode) for s in KERNELS for mode in MODES if s in ODD or mode in ("valid", "full")]
)
def test_cross_correlation_is_scipys_where_the_middle_of_the_kernel_is_beyond_dispute(sides, mode):
    image, kernel = pair(sides)
    expected = scipy.signal.correlate2d(image.numpy(), kernel.numpy(), mode)
    np.testing.assert_allclose(correlate(image, kernel, mode).numpy(), expected, **TIGHT)


@pytest.mark.parametrize("mode", ["same", "full"])
@pytest.mark.parametrize("sides", [(9, 2), (8, 11)])
def test_a_kernel_may_be_larger_than_the_image_unless_it_has_to_lie_within(sides, mode):
    image, kernel = pair(sides, 4, 5)
    expected = scipy.signal.convolve2d(image.numpy(), kernel.numpy(), "full")
    if mode == "same":
        expected = expected[(sides[0] - 1) // 2 :, (sides[1] - 1) // 2 :][:4, :5]
    np.testing.assert_allclose(convolve(image, kernel, mode).numpy(), expected, **TIGHT)
    torch.testing.assert_close(
        correlate(image, kernel, mode), by_torch(image[None], kernel[None, None], None, mode)[0], **TIGHT
    )


@pytest.mark.parametrize("sides", KERNELS)
def test_the_loops_of_the_lecture_give_the_same(sides):
    image, kernel = pair(sides, 6, 8)
    torch.testing.assert_close(correlate_by_loops(image, kernel), correlate(image, kernel), **TIGHT)
    expected = scipy.signal.correlate2d(image.numpy(), kernel.numpy(), "valid")
    np.testing.assert_allclose(correlate_by_loops(image, kernel).numpy(), expected, **TIGHT)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", KERNELS)
def test_the_matrix_multiplies_an_image_laid_out_as_a_vector(sides, mode):
    image, kernel = pair(sides, 6, 8)
    matrix = as_matrix(kernel, 6, 8, mode)
    expected = by_torch(image[None], kernel[None, None], None, mode)[0]
    assert matrix.shape == (expected.numel(), 48)
    assert matrix.dtype == kernel.dtype
    torch.testing.assert_close((matrix @ image.flatten()).view(expected.shape), expected, **TIGHT)


def test_the_matrix_holds_the_same_few_weights_in_every_row():
    kernel = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert as_matrix(kernel, 2, 3).tolist() == [[1, 2, 0, 3, 4, 0], [0, 1, 2, 0, 3, 4]]
    for row in as_matrix(kernel, 5, 6):
        assert row[row != 0].tolist() == [1, 2, 3, 4]
    # at the edges, the rest of the kernel meets zeros
    assert as_matrix(kernel, 1, 2, "same").tolist() == [[1, 2], [0, 1]]
    assert as_matrix(kernel, 1, 1, "full").tolist() == [[4], [3], [2], [1]]


@pytest.mark.parametrize("sides", KERNELS)
def test_an_impulse_gives_the_kernel_and_under_cross_correlation_the_kernel_turned(sides):
    kernel = gaussian(*sides)
    impulse = torch.zeros(5, 6)
    impulse[2, 3] = 1
    convolved, correlated = convolve(impulse, kernel, "full"), correlate(impulse, kernel, "full")
    h, w = sides
    assert torch.equal(convolved[2 : 2 + h, 3 : 3 + w], kernel)
    assert torch.equal(correlated[2 : 2 + h, 3 : 3 + w], kernel.flip(0, 1))
    assert convolved.count_nonzero() == correlated.count_nonzero() == h * w


def test_true_convolution_may_swap_image_and_kernel():
    image, kernel = pair((4, 3))
    torch.testing.assert_close(convolve(image, kernel, "full"), convolve(kernel, image, "full"), **TIGHT)
    other = gaussian(2, 5, seed=3, dtype=torch.float64)
    twice = convolve(convolve(image, kernel, "full"), other, "full")
    torch.testing.assert_close(twice, convolve(image, convolve(kernel, other, "full"), "full"), **TIGHT)


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 4), st.sampled_from(MODES))
def test_sizes_are_those_of_the_formulas_and_of_the_results(sizes, mode):
    height, width, h, w = sizes
    image, kernel = gaussian(height, width, dtype=torch.float64), gaussian(h, w, seed=1, dtype=torch.float64)
    if mode == "valid" and (h > height or w > width):
        side, kernel_side = (height, h) if h > height else (width, w)
        for function in (correlate, convolve):
            with pytest.raises(InputError, match=f"{kernel_side}.*{side}"):
                function(image, kernel, mode)
        return
    more = {"valid": (1 - h, 1 - w), "same": (0, 0), "full": (h - 1, w - 1)}[mode]
    expected = height + more[0], width + more[1]
    assert (output_size(height, h, mode), output_size(width, w, mode)) == expected
    assert correlate(image, kernel, mode).shape == convolve(image, kernel, mode).shape == expected
    assert as_matrix(kernel, height, width, mode).shape == (expected[0] * expected[1], height * width)
    assert len(np.convolve(np.ones(height), np.ones(h), "full")) == output_size(height, h, "full")
    # in "full", every pixel meets every weight exactly once
    if mode == "full":
        total = image.sum() * kernel.sum()
        torch.testing.assert_close(correlate(image, kernel, mode).sum(), total, rtol=1e-9, atol=1e-9)
    else:
        expected_same = by_torch(image[None], kernel[None, None], None, mode)[0]
        torch.testing.assert_close(correlate(image, kernel, mode), expected_same, **TIGHT)


def test_valid_is_the_default():
    image, kernel = pair((3, 2))
    assert output_size(7, 3) == 5
    assert padding(3) == (0, 0)
    assert correlate(image, kernel).shape == convolve(image, kernel).shape == (5, 8)
    assert as_matrix(kernel, 7, 9).shape == (40, 63)
    assert correlate_color(image[None], kernel[None, None]).shape == (1, 5, 8)


def test_where_the_zeros_stand():
    assert [padding(k, "same") for k in (1, 2, 3, 4, 5)] == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    assert [padding(k, "same", turned=True) for k in (1, 2, 3, 4, 5)] == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]
    assert [padding(k, "full") for k in (1, 2, 3)] == [(0, 0), (1, 1), (2, 2)]


# colour


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", KERNELS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_in_colour_it_is_a_convolutional_layer(sides, mode, with_bias):
    image = gaussian(3, 7, 9, dtype=torch.float64)
    kernels = gaussian(5, 3, *sides, seed=1, dtype=torch.float64)
    bias = gaussian(5, seed=2, dtype=torch.float64) if with_bias else None
    expected = by_torch(image, kernels, bias, mode)
    torch.testing.assert_close(correlate_color(image, kernels, bias, mode), expected, **TIGHT)


def test_in_colour_the_products_are_summed_over_the_channels():
    image, kernels = gaussian(3, 6, 6, dtype=torch.float64), gaussian(2, 3, 3, 3, seed=1, dtype=torch.float64)
    bias = torch.tensor([10.0, -20.0], dtype=torch.float64)
    result = correlate_color(image, kernels, bias)
    for number in range(2):
        expected = sum(correlate_by_loops(image[c], kernels[number, c]) for c in range(3)) + bias[number]
        torch.testing.assert_close(result[number], expected, **TIGHT)


# kernels


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 15])
@pytest.mark.parametrize("sigma", [0.3, 1, 2.0, 50.0])
def test_a_blur_sums_to_one_and_is_a_bell_in_every_direction(size, sigma):
    kernel = convolution.gaussian(size, sigma)
    assert kernel.shape == (size, size)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
    assert (kernel >= 0).all()
    torch.testing.assert_close(kernel, kernel.T)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    x = np.arange(size) - (size - 1) / 2
    expected = np.exp(-(x[:, None] ** 2 + x**2) / (2 * sigma**2))
    np.testing.assert_allclose(kernel.numpy(), expected / expected.sum(), rtol=1e-4, atol=1e-7)


def test_a_blur_leaves_an_even_grey_alone_and_spreads_a_point():
    kernel = convolution.gaussian()
    assert kernel.shape == (7, 7)
    torch.testing.assert_close(correlate(torch.full((9, 9), 0.4), kernel), torch.full((3, 3), 0.4))
    point = torch.zeros(13, 13)
    point[6, 6] = 1
    torch.testing.assert_close(correlate(point, kernel, "same")[3:10, 3:10], kernel)


def test_sobels_kernels_find_vertical_and_horizontal_edges():
    vertical = torch.zeros(6, 6)
    vertical[:, 3:] = 1
    assert correlate(vertical, SOBEL_X).tolist() == [[0, 4, 4, 0]] * 4
    assert not correlate(vertical, SOBEL_Y).any()
    assert torch.equal(correlate(vertical.T, SOBEL_Y), correlate(vertical, SOBEL_X).T)
    # turning the kernel changes the sign
    assert torch.equal(convolve(vertical, SOBEL_X), -correlate(vertical, SOBEL_X))


def test_a_pattern_is_found_where_it_is():
    image, pattern = torch.zeros(12, 12), torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])
    image[7:9, 2:5] = pattern
    response = correlate(image, pattern)
    assert divmod(int(response.argmax()), response.shape[1]) == (7, 2)
    assert response.max() == 6


# what is refused


@pytest.mark.parametrize(
    "call",
    [
        lambda image, kernel: output_size(7, 3, "Same"),
        lambda image, kernel: padding(3, "Same"),
        lambda image, kernel: correlate(image, kernel, "Same"),
        lambda image, kernel: convolve(image, kernel, "Same"),
        lambda image, kernel: as_matrix(kernel, 7, 9, "Same"),
        lambda image, kernel: correlate_color(image[None], kernel[None, None], None, "Same"),
    ],
)
def test_an_unknown_mode_is_refused_with_the_known_ones(call):
    with pytest.raises(InputError, match=r"'Same'.*valid, same, full"):
        call(*pair((3, 3)))


@pytest.mark.parametrize("sides", [(8, 3), (3, 10)])
def test_a_kernel_that_does_not_lie_within_the_image_is_refused_with_what_to_do(sides):
    image, kernel = pair(sides)
    refused = rf"kernel.*{max(sides)}.*{7 if sides[0] == 8 else 9}.*same"
    for call in (
        lambda: correlate(image, kernel),
        lambda: convolve(image, kernel),
        lambda: correlate_by_loops(image, kernel),
        lambda: as_matrix(kernel, 7, 9),
        lambda: correlate_color(image[None], kernel[None, None]),
    ):
        with pytest.raises(InputError, match=refused):
            call()


@pytest.mark.parametrize(("size", "kernel"), [(0, 1), (3, 0), (-1, 3)])
@pytest.mark.parametrize("mode", MODES)
def test_sides_without_pixels_are_refused(size, kernel, mode):
    with pytest.raises(InputError, match=f"1 pixel.*{size} and {kernel}"):
        output_size(size, kernel, mode)


@pytest.mark.parametrize(
    ("image", "kernels"), [((7, 9), (2, 3, 3, 3)), ((3, 7, 9), (3, 3, 3)), ((3, 7, 9), (2, 1, 3, 3)), ((3,), (3,))]
)
def test_in_colour_other_shapes_are_refused(image, kernels):
    with pytest.raises(InputError, match=r"\(C, H, W\).*\(O, C, h, w\)") as error:
        correlate_color(torch.zeros(image), torch.zeros(kernels))
    assert str(image) in str(error.value)
    assert str(kernels) in str(error.value)


@pytest.mark.parametrize(("outputs", "biases"), [(1, 3), (3, 1), (3, 2)])
def test_a_bias_that_is_not_one_number_a_map_is_refused(outputs, biases):
    with pytest.raises(InputError, match="bias"):
        correlate_color(torch.zeros(3, 7, 9), torch.zeros(outputs, 3, 3, 3), torch.zeros(biases))


@pytest.mark.parametrize("call", [correlate, convolve, correlate_by_loops])
@pytest.mark.parametrize(("image", "kernel"), [((3, 7, 9), (3, 3)), ((7, 9), (1, 3, 3))])
def test_what_is_not_a_grey_image_and_its_kernel_is_refused(call, image, kernel):
    with pytest.raises(InputError):
        call(torch.zeros(image), torch.zeros(kernel))


@pytest.mark.parametrize(("size", "sigma"), [(0, 1.0), (7, 0.0)])
def test_a_blur_without_size_or_width_is_refused(size, sigma):
    with pytest.raises(InputError):
        convolution.gaussian(size, sigma)
