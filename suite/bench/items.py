"""Throughput as pytest items: cases/**/test_throughput.py import from here what makes
pytest-benchmark their face.

    pytest cases --benchmark-enable --benchmark-only --op softmax --kernel my.py:f

An item is one point of the sweep. It is measured by suite.bench.points, verdict included, and its
samples are replayed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from suite.bench.lock import device_lock
from suite.bench.plan import PLANS, Plan, Point, points
from suite.bench.points import Bench
from suite.plugin import session_of
from suite.records.record import Measurement
from suite.session import Session
from suite.timing.replay import CLOCK

BENCH = pytest.StashKey[Bench]()
INFORMATION = (
    "status", "ratio", "max_ulp", "bytes", "operations", "clock", "cache", "threads", "calls_per_sample",
    "peak_bytes",
    "copy_bytes_per_second", "matmul_operations_per_second", "note",
)  # fmt: skip
"""What pytest-benchmark keeps beside the samples, in extra_info."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The points of the module's OPS that the command line selects."""
    session = session_of(metafunc.config)
    kernels = {op: session.kernels[op] for op in metafunc.module.OPS if op in session.request.ops}
    dtypes = metafunc.config.option.dtype or ()
    wanted = [
        point
        for direction in session.request.directions
        for point in points(kernels, _plan(session), dtypes=dtypes, direction=direction)
    ]
    ids = [f"{point.case.id}-{point.dtype}-{point.kernel.id}" for point in wanted]
    metafunc.parametrize("point", wanted, ids=ids)


@pytest.fixture
def throughput(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Point], None]:
    """Measures a point and replays its samples; skips what is unsupported, fails what is wrong: it
    gets no times.
    """

    def run(point: Point) -> None:
        __tracebackhide__ = True
        if not benchmark.enabled:
            benchmark.pedantic(lambda: None)
            pytest.skip("benchmarks are off: --benchmark-enable, and no pytest-xdist")
        benchmark.has_error = True  # until there are samples: it is not to complain of having none
        record, measurement = _bench_of(request.config).measure(point)
        if measurement is None:
            assert record is not None
            pytest.skip(f"unsupported: {record.message}")
        data = measurement.data
        if data["status"] == "known_failure":
            pytest.xfail(data["note"])
        if data["status"] != "passed":
            pytest.fail(data["note"], pytrace=False)
        if not data["samples_seconds"]:
            pytest.skip(data["note"])
        benchmark.has_error = False
        benchmark.extra_info.update(_information(measurement))
        benchmark.pedantic(CLOCK.replaying(data["samples_seconds"]), rounds=len(data["samples_seconds"]))

    return run


def _information(measurement: Measurement) -> dict[str, Any]:
    names = {
        "op": measurement.op,
        "kernel": measurement.kernel,
        "dtype": measurement.dtype,
        "case": measurement.case,
    }
    return names | {name: measurement.data[name] for name in INFORMATION}


def _bench_of(config: pytest.Config) -> Bench:
    """This process's bench, made on first use; it holds the device until pytest ends."""
    if BENCH not in config.stash:
        session = session_of(config)
        holding = contextlib.ExitStack()
        try:
            holding.enter_context(device_lock(session.request.device))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        config.add_cleanup(holding.close)
        config.stash[BENCH] = Bench(session, budget_seconds=_plan(session).budget_seconds)
    return config.stash[BENCH]


def _plan(session: Session) -> Plan:
    return PLANS.get(session.request.profile, PLANS["standard"])
