"""The kernels of JAX and ONNX Runtime: how they are called, and the causes of their known failures."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.adapters import adapted_call
from suite.execution.evaluation import evaluate
from suite.kernels import own_kernels
from suite.oracle import Oracle
from suite.verdict.judge import judge
from tests.extras import needs

needs("jax", "onnxruntime", "onnx")

from suite.kernels.rows import onnxruntime  # noqa: E402

ORACLE = Oracle()
OPS = ("softmax", "log_softmax", "logsumexp")
LIBRARIES = ("jax", "onnxruntime")
KERNELS = {(op, library): own_kernels(op)[library] for op in OPS for library in LIBRARIES}
EVERY = [pytest.param(op, library, id=f"{op}-{library}") for op in OPS for library in LIBRARIES]
INF, NAN = float("inf"), float("nan")


def draw(*shape, dtype=torch.float32):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(7)) * 4).to(dtype)


def result(op, library, x, dim=-1):
    return adapted_call(KERNELS[op, library], {"x": x}, {"dim": dim})[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("op", "library"), EVERY)
def test_any_dim_is_right_in_the_formats_that_they_compute_in(op, library, dtype):
    for shape, dim in (((3, 40), 0), ((2, 5, 7), -2)):
        x = draw(*shape, dtype=dtype)
        judge(op, x, result(op, library, x, dim), options={"dim": dim}).raise_if_failed()


def test_importing_the_kernels_imports_none_of_their_libraries():
    modules = [f"suite.kernels.rows.{name}" for name in (*LIBRARIES, "triton_fused")]
    code = (
        f"import sys, {', '.join(modules)}; print(*[n for n in ('triton', 'jax', 'onnx', 'onnxruntime') if n"
        " in sys.modules])"
    )
    root = Path(__file__).parent.parent

    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )

    assert finished.stdout.split() == []


@pytest.mark.parametrize(("op", "library"), EVERY)
def test_a_call_says_nothing_and_changes_nothing(op, library, capfd):
    record = evaluate(Case.from_id(f"{op}/masked_tiles/16x33/s0"), KERNELS[op, library], oracle=ORACLE)

    assert record.status == "passed"
    assert (record.outcome.warnings, record.outcome.output) == ((), "")
    assert capfd.readouterr() == ("", "")


# ONNX Runtime


def test_a_session_is_built_once_for_each_operator_dtype_axis_and_rank(monkeypatch):
    built = []
    model = onnxruntime._model
    monkeypatch.setattr(onnxruntime, "_model", lambda *key: built.append(key) or model(*key))
    onnxruntime._session.cache_clear()
    x = np.zeros((2, 3), np.float32)
    for axis in (1, -1, 1):
        onnxruntime.run_operator("Softmax", x, axis)
    onnxruntime.run_operator("Softmax", x, 0)

    assert built == [("Softmax", "float32", 1, 2), ("Softmax", "float32", 0, 2)]


def test_a_dtype_without_a_kernel_is_unsupported_in_the_words_of_the_library():
    import ml_dtypes

    with pytest.raises(NotImplementedError, match="Could not find an implementation for ReduceMax"):
        onnxruntime.run_operator("Softmax", np.zeros((1, 2), ml_dtypes.bfloat16), -1)


def test_an_empty_row_has_the_logsumexp_minus_infinity():
    assert onnxruntime.run_operator("ReduceLogSumExp", np.zeros((2, 0), np.float32), 1).tolist() == [
        -INF,
        -INF,
    ]
    assert onnxruntime.run_operator("Softmax", np.zeros((0, 3), np.float32), 1).shape == (0, 3)


def test_known_failure_the_float16_logsumexp_is_exp_sum_log_in_float64_without_a_shift():
    """The result overflows between the neighbours of ln(2^1024) in float16, and is -inf below ln(2^-1075)."""
    overflow, vanish = 1024 * math.log(2), -1075 * math.log(2)
    step = 0.5  # the spacing of float16 between 512 and 1024
    levels = [
        overflow // step * step,
        overflow // step * step + step,
        vanish // step * step + step,
        vanish // step * step,
    ]

    got = [
        float(onnxruntime.run_operator("ReduceLogSumExp", np.full((1, 1), level, np.float16), 1)[0])
        for level in levels
    ]

    assert np.isfinite(got).tolist() == [True, False, True, False]


@pytest.mark.parametrize(("dtype", "level"), [(np.float32, -104.0), (np.float64, -746.0)])
def test_known_failure_a_row_that_begins_with_minus_infinity_has_a_maximum_of_at_least_zero(dtype, level):
    """The running maximum starts at 0 in the place of an infinite first entry, so that all
    exponentials are 0.
    """
    got = onnxruntime.run_operator("ReduceLogSumExp", np.array([[-INF, level], [level, -INF]], dtype), 1)

    assert got.tolist() == [-INF, level]


def test_known_failure_the_float64_log_softmax_takes_a_sum_that_is_nan_for_1e_minus_20():
    x = np.array([[0.0, 0.0, 0.0, 0.0, NAN]])

    assert onnxruntime.run_operator("LogSoftmax", x, 1)[0, :4] == pytest.approx(
        -math.log(np.float32(1e-20)), rel=1e-15
    )
    assert np.isnan(onnxruntime.run_operator("LogSoftmax", x.astype(np.float32), 1)).all()


# JAX


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_known_failure_jax_rounds_every_step_of_a_16_bit_logsumexp(dtype):
    x = draw(64, 257, dtype=dtype)
    m = x.amax(-1)
    terms = torch.exp((x - m[:, None]).float()).to(dtype)
    total = terms.float().sum(-1).to(dtype)
    steps = m + torch.log(total.float()).to(dtype)

    assert torch.equal(result("logsumexp", "jax", x), steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_jax_flushes_subnormal_results(dtype):
    """XLA runs with flush-to-zero on the CPU; the judge allows what a device that flushes gives
    (jax-ml/jax#26658).
    """
    gap = -math.log(torch.finfo(dtype).tiny) + 1
    x = torch.tensor([[0.0, -gap]], dtype=dtype)

    assert torch.softmax(x, -1)[0, 1] > 0
    assert result("softmax", "jax", x)[0, 1] == 0
    judge("softmax", x, result("softmax", "jax", x)).raise_if_failed()
