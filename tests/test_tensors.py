"""tensors.py: values and bits of any tensor, exactly."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.formats import FORMATS, get_format
from suite.tensors import bits, device_name, dtype_name, format_of, is_tensor, to_float64, to_torch

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
VALUES = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    2.0**-14,
    float("inf"),
    -float("inf"),
    float("nan"),
    240.0,
    -0.0078125,
    3.0,
    7.0,
]


def same(a, b):
    return np.array_equal(np.asarray(a).view(np.uint64), np.asarray(b).view(np.uint64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_16_bit_number_is_exact_as_float64(dtype):
    """All 65,536 patterns, against their value by definition: sign, exponent, fraction."""
    patterns = np.arange(2**16, dtype=np.uint16)
    tensor = torch.from_numpy(patterns.copy()).view(dtype)
    fraction_bits, bias = (7, 127) if dtype == torch.bfloat16 else (10, 15)
    fraction = (patterns & (2**fraction_bits - 1)).astype(np.float64)
    exponent = ((patterns & 0x7FFF) >> fraction_bits).astype(np.int64)
    magnitude = np.where(
        exponent == 0,
        np.ldexp(fraction, 1 - bias - fraction_bits),
        np.ldexp(fraction + 2.0**fraction_bits, np.minimum(exponent, 2 * bias) - bias - fraction_bits),
    )
    top = exponent == 2 * bias + 1
    magnitude = np.where(top, np.where(fraction == 0, np.inf, np.nan), magnitude)
    values = to_float64(tensor)

    assert np.array_equal(values, np.where(patterns >> 15, -magnitude, magnitude), equal_nan=True)
    assert np.array_equal(np.signbit(values), patterns >> 15 == 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(width=32), max_size=8), st.sampled_from(["float64", "float32"]))
def test_to_torch_and_back_is_the_identity(values, name):
    array = np.array(values, dtype=np.float64)
    again = to_float64(to_torch(array, get_format(name)))

    assert np.array_equal(again, array, equal_nan=True)
    assert np.array_equal(np.signbit(again[~np.isnan(array)]), np.signbit(array[~np.isnan(array)]))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16", "float16"])
def test_shapes_are_kept_in_both_directions(shape, name):
    values = np.full(shape, 1.5)
    tensor = to_torch(values, get_format(name))

    assert tuple(tensor.shape) == shape
    assert to_float64(tensor).shape == shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_to_float64_of_torch_is_never_a_view(dtype):
    tensor = torch.tensor(VALUES, dtype=dtype)
    to_float64(tensor)[:] = 99.0

    assert same(to_float64(tensor), to_float64(torch.tensor(VALUES, dtype=dtype)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_to_float64_of_numpy_is_never_a_view(dtype):
    array = np.array(VALUES, dtype=dtype)
    to_float64(array)[:] = 99.0

    assert np.array_equal(array, np.array(VALUES, dtype=dtype), equal_nan=True)


def test_to_torch_is_never_a_view():
    array = np.array([1.0, 2.0])
    to_torch(array, get_format("float64")).zero_()

    assert array.tolist() == [1.0, 2.0]


def test_to_torch_takes_strided_arrays_and_gives_contiguous_tensors():
    array = np.arange(12.0).reshape(3, 4)
    for view in (array.T, array[:, ::-1], array[::2, 1::2], np.broadcast_to(array[:1], (3, 4))):
        tensor = to_torch(view, get_format("float32"))
        assert tensor.is_contiguous()
        assert np.array_equal(to_float64(tensor), view)


def test_to_torch_refuses_values_that_the_format_cannot_hold():
    with pytest.raises(AssertionError, match="values that bfloat16 cannot hold"):
        to_torch(np.array([1.0 + 2.0**-20]), get_format("bfloat16"))


VIEWS = {
    "transposed": lambda t: t.T,
    "strided": lambda t: t[::2, 1::2],
    "shifted": lambda t: t[1:, 1:],
    "expanded": lambda t: t[:1].expand(3, 4),
    "expanded scalar": lambda t: t[1, 1].expand(2, 2),
    "negated": torch._neg_view,
    "negated and transposed": lambda t: torch._neg_view(t).T,
    "negated and strided": lambda t: torch._neg_view(t)[:, ::2],
    "of no element": lambda t: t[:0],
    "of no dim": lambda t: t[2, 3],
    "with gradient": lambda t: t.clone().requires_grad_(),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_values_and_bits_of_a_view_are_those_of_its_copy(view, dtype):
    """A copy is contiguous and its negation is carried out: element by element through Python."""
    viewed = view(torch.tensor(VALUES, dtype=dtype).reshape(3, 4))
    plain = torch.tensor(viewed.tolist(), dtype=dtype).reshape(viewed.shape)
    numbers = ~torch.isnan(plain)

    assert np.array_equal(to_float64(viewed), to_float64(plain), equal_nan=True)
    width = plain.element_size()
    kept = numbers.numpy().reshape(-1)
    assert np.array_equal(bits(viewed).reshape(-1, width)[kept], bits(plain).reshape(-1, width)[kept])


def test_the_imaginary_part_of_a_conjugate_is_negated():
    """The negated view that people meet."""
    x = torch.tensor([1 + 2j, 3 - 4j]).conj().imag

    assert to_float64(x).tolist() == [-2.0, 4.0]
    assert bits(x).tobytes() == struct.pack("=ff", -2.0, 4.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_tell_minus_zero_from_zero(dtype):
    assert not np.array_equal(bits(torch.tensor([-0.0], dtype=dtype)), bits(torch.tensor([0.0], dtype=dtype)))


@pytest.mark.parametrize(
    ("integer", "dtype", "nans"),
    [
        (torch.int64, torch.float64, (0x7FF8000000000000, 0x7FF8000000000001, -0x8000000000000)),
        (torch.int32, torch.float32, (0x7FC00000, 0x7FC00001, -0x400000)),
        (torch.int16, torch.bfloat16, (0x7FC0, 0x7FC1, -0x40)),
        (torch.int16, torch.float16, (0x7E00, 0x7E01, -0x200)),
    ],
)
def test_bits_tell_nan_payloads_and_signs_apart(integer, dtype, nans):
    tensors = [torch.tensor([pattern], dtype=integer).view(dtype) for pattern in nans]

    assert all(bool(torch.isnan(t).all()) for t in tensors)
    assert len({bits(t).tobytes() for t in tensors}) == len(nans)
    if dtype not in (torch.bfloat16,):
        assert len({bits(t.numpy()).tobytes() for t in tensors}) == len(nans)


def test_bits_are_a_copy():
    for tensor in (torch.ones(3), np.ones(3)):
        copy = np.array(bits(tensor))
        before = bits(tensor)
        tensor[:] = 0
        assert np.array_equal(before, copy)


def test_bits_of_numpy_and_torch_agree_in_logical_order():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)

    assert bits(array.T).tobytes() == bits(torch.from_numpy(array).T).tobytes() == array.T.tobytes()


def test_names_are_those_of_the_formats():
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        assert dtype_name(torch.ones(1, dtype=dtype)) == name
        assert format_of(torch.ones(1, dtype=dtype)) is FORMATS[name]
    assert dtype_name(np.ones(1, dtype=np.float32)) == "float32"
    assert format_of(torch.ones(1, dtype=torch.int64)) is None
    assert format_of(np.ones(1, dtype=np.complex128)) is None
    assert device_name(torch.ones(1)) == "cpu"
    assert device_name(np.ones(1)) == "cpu"


@pytest.mark.parametrize(
    ("value", "expected"), [(1.0, False), ([1.0], False), (None, False), (np.float64(1), True)]
)
def test_what_is_a_tensor_and_what_is_none(value, expected):
    assert is_tensor(value) is expected
    assert is_tensor(torch.ones(1))
    assert is_tensor(np.ones(1))
