"""adapters.py: bits pass unchanged both ways, conversions are outside the clock, and modes end with
the call.
"""

import numpy as np
import pytest
import torch

from suite.execution import adapters
from suite.execution.adapters import adapted_call
from suite.kernels import Kernel
from suite.tensors import bits
from tests.extras import needs

needs("jax")

import jax  # noqa: E402, TID253  (skipped above where there is no JAX)

WORDS = {torch.float64: np.int64, torch.float32: np.int32, torch.bfloat16: np.int16, torch.float16: np.int16}
ALL_16_BITS = np.arange(-(2**15), 2**15).astype(np.int16)
OPTIONS = {"dim": -1}


def kernel(adapter, call):
    return Kernel(id="k", op="softmax", call=call, adapter=adapter)


def patterns(dtype):
    """Bit patterns of every exponent, sign and kind: all of them for 16 bits, NaN payloads and
    subnormals in every dtype.
    """
    word = np.dtype(WORDS[dtype])
    words = (
        ALL_16_BITS
        if word.itemsize == 2
        else ALL_16_BITS.astype(word) << (8 * word.itemsize - 16) | np.arange(2**16, dtype=word)
    )
    return torch.from_numpy(words.reshape(256, 256)).view(dtype)


def same_bits(a, b):
    return (a.dtype, a.shape) == (b.dtype, b.shape) and np.array_equal(bits(a), bits(b))


@pytest.mark.parametrize(
    ("adapter", "dtype"),
    [(a, d) for a in ("torch", "numpy", "jax") for d in WORDS if (a, d) != ("numpy", torch.bfloat16)],
    ids=str,
)
def test_every_bit_of_input_and_output_passes(adapter, dtype):
    x = patterns(dtype)

    result, _ = adapted_call(kernel(adapter, lambda x, dim: x), {"x": x}, OPTIONS)

    assert isinstance(result, torch.Tensor)
    assert same_bits(result, x)


@pytest.mark.parametrize("dtype", WORDS, ids=str)
def test_strides_and_empty_tensors_pass_to_jax(dtype):
    for x in (patterns(dtype).t()[::3], patterns(dtype)[:0], patterns(dtype)[0, 0]):
        assert same_bits(adapted_call(kernel("jax", lambda x, dim: x), {"x": x}, OPTIONS)[0], x)


@pytest.mark.parametrize("dtype", WORDS, ids=str)
def test_jax_computes_in_the_dtype_that_it_is_given(dtype):
    """Without its 64-bit mode JAX would narrow float64 to float32 with no more than a warning."""
    seen = []

    def double(x, dim):
        seen.append(x)
        return x + x

    result, _ = adapted_call(kernel("jax", double), {"x": torch.ones(2, dtype=dtype)}, OPTIONS)

    assert (str(seen[0].dtype), result.dtype) == (str(dtype).removeprefix("torch."), dtype)
    assert isinstance(seen[0], jax.Array)
    assert result.tolist() == [2.0, 2.0]


def test_the_64_bit_mode_of_jax_ends_with_the_call():
    def fail(x, dim):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        adapted_call(kernel("jax", fail), {"x": torch.ones(2, dtype=torch.float64)}, OPTIONS)

    assert not jax.config.jax_enable_x64


def test_the_clock_runs_from_jax_arrays_to_a_finished_jax_array(monkeypatch):
    timed = []

    def stopwatch(call):
        timed.append(call())
        return timed[0], 2.0

    monkeypatch.setattr(adapters, "timed", stopwatch)
    result, seconds = adapted_call(kernel("jax", lambda x, dim: x @ x), {"x": torch.ones(64, 64)}, OPTIONS)

    assert isinstance(timed[0], jax.Array)
    assert timed[0].is_ready()
    assert (type(result), seconds) == (torch.Tensor, 2.0)


@pytest.mark.parametrize("adapter", ["torch", "numpy", "jax"])
@pytest.mark.parametrize("value", [None, 0.5, [1.0], "text"])
def test_what_is_no_array_is_handed_on_to_the_judge(adapter, value):
    assert adapted_call(kernel(adapter, lambda x, dim: value), {"x": torch.ones(2)}, OPTIONS)[0] == value


def test_an_array_of_another_library_is_not_mistaken_for_a_result():
    result, _ = adapted_call(kernel("jax", lambda x, dim: np.asarray(x)), {"x": torch.ones(2)}, OPTIONS)

    assert isinstance(result, np.ndarray)


@pytest.mark.parametrize("adapter", ["numpy", "jax"])
def test_a_reduction_to_a_scalar_is_a_tensor_without_dims(adapter):
    result, _ = adapted_call(kernel(adapter, lambda x, dim: x.sum()), {"x": torch.ones(3)}, OPTIONS)

    assert (result.shape, result.item()) == ((), 3.0)


def test_jax_declines_other_devices():
    with pytest.raises(NotImplementedError, match="on the CPU only, not on meta"):
        adapted_call(kernel("jax", lambda x, dim: x), {"x": torch.ones(2, device="meta")}, OPTIONS)
