"""No false alarm: correct kernels of every structure pass on every family, with every option, in every format.

One seed and one shape here; python -m tests.honest_kernels --seeds 20 takes more.
"""

from collections import Counter

import pytest

from suite.formats import DTYPES
from suite.ops import NAMES
from tests.honest_kernels import FAMILIES, KERNELS, LOSS_SETTINGS, OFF_BY_ONE, PLAIN, TEMPERATURES, ratios


def test_there_are_enough_structures():
    plain = Counter(kernel.op for kernel in KERNELS if kernel.settings == (PLAIN,))
    assert plain["softmax"] >= 21
    assert plain.total() >= 36
    assert sum(kernel.settings == TEMPERATURES for kernel in KERNELS) >= 4
    assert sum(kernel.settings == OFF_BY_ONE for kernel in KERNELS) >= 3
    assert sum(kernel.settings == LOSS_SETTINGS for kernel in KERNELS) >= 10


CASES = [
    (op, family, dtype)
    for op in NAMES
    for family in FAMILIES
    for dtype in DTYPES
    if family != "every_16_bit_value" or dtype in ("bfloat16", "float16")  # the same rows in the wider formats
]


@pytest.mark.parametrize(("op", "family", "dtype"), CASES)
def test_honest_kernels_never_fail(op, family, dtype):
    found = list(ratios(op, family, dtype, seeds=1, shapes=[(16, 130)], most_rows=24))

    assert found
    assert not [f"{name}: {failed}" for name, failed, _ in found if failed]
