"""Throughput of the oracle's tiers, printed by `make bench`; benchmarks, never timed tests.

Each row is one reference of one thread; `elements` is in its extra info, and the summary prints
elements a second.
"""

import pytest

from suite.case import Case
from suite.formats import float32, float64
from suite.numerics import BEST_PRACTICE
from suite.ops import get_op, row_ops
from suite.oracle import Oracle, libm, tiers

MEDIANS: dict[str, tuple[float, int]] = {}


@pytest.fixture(scope="module", autouse=True)
def _print_summary(request):
    libm.accuracy()
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print()
        for name, (seconds, elements) in MEDIANS.items():
            print(f"{name:<40}{elements / seconds / 1e6:10.2f} million elements a second")
        for op in row_ops():
            arb, mpmath = MEDIANS.get(f"arb {op}"), MEDIANS.get(f"mpmath {op}")
            if arb and mpmath:
                print(
                    f"{'arb against mpmath, ' + op:<40}{(mpmath[0] / mpmath[1]) / (arb[0] / arb[1]):10.2f}"
                    " times as fast"
                )


def measure(benchmark, name, function, elements):
    benchmark.extra_info["elements"] = elements
    benchmark.pedantic(function, rounds=7, warmup_rounds=2)
    if benchmark.stats is not None:
        MEDIANS[name] = (benchmark.stats.stats.median, elements)


@pytest.mark.parametrize("op", row_ops())
@pytest.mark.parametrize("family", ["normal", "ramps"])
def test_float64_tier_with_facts_and_bound(benchmark, op, family):
    """A reference for float32 outputs, 64 rows of 4096: value, radius, facts and the bound that
    they are for.
    """
    case, definition = Case(op=op, family=family, shape=(64, 4096)), get_op(op)
    tensors = case.inputs(float32)

    def reference():
        found = Oracle().reference(definition, tensors, case.resolved_options(), float32)
        assert found.tier == "float64"
        definition.bound(found.facts, BEST_PRACTICE, float32)

    measure(benchmark, f"float64 tier, {op}, {family}", reference, 64 * 4096)


@pytest.mark.parametrize("op", row_ops())
@pytest.mark.parametrize("tier", ["arb", "mpmath"])
def test_certified_tiers(benchmark, op, tier):
    """The certified tiers at 128 bits, 4 rows of 1024."""
    case, definition = Case(op=op, family="normal", shape=(4, 1024)), get_op(op)
    problem = definition.problem(case.inputs(float64), case.resolved_options())
    measure(benchmark, f"{tier} {op}", lambda: getattr(tiers, tier)(definition, problem, 128), 4 * 1024)
