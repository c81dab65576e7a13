"""No false alarm: correct kernels of every structure pass on every family, with every option, in
every format.

One seed and one shape here; python -m tests.honest --seeds 20 takes more.
"""

from collections import Counter

import pytest

from suite.formats import DTYPES
from suite.ops import row_ops
from suite.records.record import PASSING
from tests.honest.judged import FAMILIES, kernels_of, ratios, records
from tests.honest.rows import KERNELS, LOSS_SETTINGS, OFF_BY_ONE, PLAIN, TEMPERATURES
from tests.mutants.search import cases_of


def test_there_are_enough_structures():
    plain = Counter(kernel.op for kernel in KERNELS if kernel.settings == (PLAIN,))
    assert plain["softmax"] >= 21
    assert plain.total() >= 36
    assert sum(kernel.settings == TEMPERATURES for kernel in KERNELS) >= 4
    assert sum(kernel.settings == OFF_BY_ONE for kernel in KERNELS) >= 3
    assert sum(kernel.settings == LOSS_SETTINGS for kernel in KERNELS) >= 10
    assert len(kernels_of("attention")) >= 28
    assert len(kernels_of("merge_states")) >= 6


CASES = [
    (op, family, dtype)
    for op in row_ops()
    for family in FAMILIES
    for dtype in DTYPES
    if family != "every_16_bit_value"
    or dtype in ("bfloat16", "float16")  # the same rows in the wider formats
]


@pytest.mark.share(of=4, by=lambda op, family, dtype: (op, family))
@pytest.mark.parametrize(("op", "family", "dtype"), CASES)
def test_honest_kernels_never_fail(op, family, dtype):
    found = list(ratios(op, family, dtype, seeds=1, shapes=[(16, 130)], most_rows=24))

    assert found
    assert not [f"{name}: {failed}" for name, failed, _ in found if failed]


@pytest.mark.share(of=4, by=lambda op, dtype: op)
@pytest.mark.parametrize("op", ["attention", "merge_states"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_honest_kernels_pass_the_cases(op, dtype):
    """Of many cases each kernel meets a thirtieth with each of three seeds: python -m
    tests.honest takes all.
    """
    found = list(records(op, dtype, seeds=3, every=30 if len(cases_of(op, dtype, "quick")) > 60 else 1))

    assert {record.kernel for record in found if record.status == "passed"} == {
        kernel.id for kernel in kernels_of(op)
    }
    assert not [
        f"{record.kernel}: {record.message}"
        for record in found
        if record.status not in (*PASSING, "unsupported")
    ]
