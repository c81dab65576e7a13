"""Throughput of the ops of rows, beside their accuracy; collected with --benchmark-enable or
--benchmark-only alone.
"""

import pytest

from suite.bench.items import pytest_generate_tests, throughput
from suite.timing.replay import CLOCK

__all__ = ["pytest_generate_tests", "throughput"]

OPS = ("softmax", "log_softmax", "logsumexp", "cross_entropy")
pytestmark = pytest.mark.benchmark(timer=CLOCK)


def test_throughput(throughput, point):
    """A kernel that passes on the very inputs has a time, with which it still passes."""
    throughput(point)
