"""The declared domain of the naive kernels is checked both ways, against the closed thresholds of
the formats.
"""

import math

import numpy as np
import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.formats import FORMATS
from suite.kernels import Domain, Kernel, own_kernels
from suite.oracle import Oracle

ORACLE = Oracle()
DTYPES = ("float64", "float32", "bfloat16", "float16")


def judged(op, kernel, x, dtype, strict=False):
    case = Case(op=op, family="file", shape=x.shape)
    return evaluate(
        case, kernel, dtype=dtype, oracle=ORACLE, inputs={"x": FORMATS[dtype].round(x)}, strict=strict
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_naive_fails_where_theory_says_so_and_only_there(op, dtype):
    """From 4 ulps below ln Omega - ln n to 4 above it, and the same at the underflow, naive changes
    from passed to failed.
    """
    format, naive = FORMATS[dtype], own_kernels(op)["naive"]
    for n in (2, 64):
        overflow = format.sum_overflow(n)
        vanish = -format.exp_underflow
        room = 16 * float(format.ulp(overflow)) + 16 * format.unit_roundoff
        for level, status in (
            (overflow - room, "passed"),
            (overflow + room, "known_failure"),
            (vanish - 16 * float(format.ulp(vanish)), "known_failure"),
            (-format.exp_subnormal / 2, "passed"),
        ):
            record = judged(op, naive, np.full((3, n), level), dtype)
            assert record.status == status, (n, level, record.message)


@pytest.mark.parametrize("dtype", DTYPES)
def test_outside_the_domain_strict_calls_it_a_failure(dtype):
    record = judged(
        "softmax",
        own_kernels("softmax")["naive"],
        np.full((2, 4), 2 * FORMATS[dtype].ln_omega),
        dtype,
        strict=True,
    )

    assert record.status == "nonfinite"
    assert record.strict


def test_a_kernel_that_passes_where_it_declares_to_fail_declares_wrongly():
    naive = own_kernels("softmax")["naive"]
    pretender = Kernel(
        id="pretender", op="softmax", call=torch.softmax, domain=naive.domain, numerics=naive.numerics
    )
    record = judged("softmax", pretender, np.full((2, 4), 200.0), "float32")

    assert record.status == "law_broken"
    assert "row 0 passes although exp(x) without a shift leaves the format there" in record.message


def test_a_failure_inside_the_domain_is_a_failure_even_beside_rows_outside():
    def half_wrong(x, dim=-1):
        y = torch.exp(x) / torch.exp(x).sum(dim, keepdim=True)
        y[0] *= 1.5
        return y

    naive = own_kernels("softmax")["naive"]
    kernel = Kernel(
        id="half_wrong", op="softmax", call=half_wrong, domain=naive.domain, numerics=naive.numerics
    )
    x = np.vstack([np.zeros(4), np.full(4, 200.0)])
    record = judged("softmax", kernel, x, "float32")

    assert record.status == "nonfinite"
    assert "inaccurate" in record.broken


def test_a_swallowed_nan_is_never_excused_by_a_domain():
    def swallowing(x, dim=-1):
        return (torch.exp(x) / torch.exp(x).sum(dim, keepdim=True)).nan_to_num(0.0)

    naive = own_kernels("softmax")["naive"]
    kernel = Kernel(
        id="swallowing", op="softmax", call=swallowing, domain=naive.domain, numerics=naive.numerics
    )
    record = judged("softmax", kernel, np.array([[math.nan, 0.0]]), "float32")

    assert record.status == "law_broken"


def test_rows_beside_a_threshold_may_go_either_way():
    """A row in neither mask decides nothing: it may fail or pass."""
    nowhere = Domain(np.array([False]), np.array([False]), "nobody knows")
    for factor, status in ((1.0, "passed"), (1.5, "known_failure")):
        kernel = Kernel(
            id="k",
            op="softmax",
            call=lambda x, dim=-1, f=factor: torch.softmax(x, dim) * f,
            domain=lambda facts, format: nowhere,
        )
        assert judged("softmax", kernel, np.zeros((1, 4)), "float32").status == status
