"""What references of attention cost, printed by `make bench`; benchmarks, never timed tests."""

import pytest
import torch

from suite.case import Case
from suite.execution.evaluation import evaluate
from suite.formats import get_format
from suite.kernels import own_kernels
from suite.ops import get_op
from suite.oracle import Oracle, tiers

ONE_HEAD = "attention/normal/1x1x1024x64/s0"
LONG = "attention/normal/1x1x8192x128/s0"


def problem_of(id, dtype):
    case = Case.from_id(id)
    return case, case.inputs(get_format(dtype))


def test_a_certified_reference_of_one_head(benchmark):
    """Every query of one head, S = 1024, D = 64, in ball arithmetic of 128 bits. The goal is 4 s."""
    case, inputs = problem_of(ONE_HEAD, "float64")
    problem = get_op("attention").problem(inputs, case.resolved_options())
    benchmark.pedantic(lambda: tiers.arb(get_op("attention"), problem, 128), rounds=3)


@pytest.mark.parametrize("id", [ONE_HEAD, LONG])
def test_a_reference_with_audited_rows(benchmark, id):
    """In double precision, two rows of it audited in ball arithmetic; of S = 8192, D = 128 a
    sample. The goal is 60 s.
    """
    case, inputs = problem_of(id, "bfloat16")
    benchmark.pedantic(
        lambda: Oracle().reference(
            get_op("attention"), inputs, case.resolved_options(), get_format("bfloat16")
        ),
        rounds=3,
    )


@pytest.mark.parametrize("kernel", ["sdpa_flash", "online"])
def test_a_second_kernel(benchmark, kernel):
    """A whole evaluation, S = 8192, D = 128, bfloat16, where another kernel was judged on the case before."""
    torch.set_num_threads(1)
    case, oracle, found = Case.from_id(LONG), Oracle(), own_kernels("attention")
    evaluate(case, found["sdpa_math"], dtype="bfloat16", oracle=oracle)
    benchmark.pedantic(
        lambda: (
            evaluate(case, found[kernel], dtype="bfloat16", oracle=oracle).status == "passed"
            or pytest.fail("not passed")
        ),
        rounds=3,
    )
