"""The tiers of the oracle on attention: the radius of double precision is honest against balls, and
balls against mpmath.
"""

from dataclasses import replace

import numpy as np
import pytest

from suite.case import Case
from suite.formats import get_format
from suite.numerics import BEST_PRACTICE
from suite.ops import get_op
from suite.oracle import Oracle, tiers
from suite.oracle.certified import certified_tier

pytestmark = pytest.mark.skipif(
    certified_tier() != "arb", reason="python-flint is missing: there are no balls to compare with"
)

ATTENTION, BITS = get_op("attention"), 256

CASES = {
    "normal": {},
    "ends": {"family": "ends"},
    "scores near overflow": {"family": "near_overflow"},
    "very negative": {"family": "very_negative"},
    "values that cancel": {"family": "cancelling_values"},
    "values that are huge": {"family": "value_huge"},
    "outliers": {"family": "outlier_channels"},
    "nearly uniform": {"family": "nearly_uniform"},
    "mixed": {"family": "mixed_difficulty"},
    "boolean mask, sink": {"tensors": {"mask": "random_with_empty_rows", "sink": "mixed"}},
    "additive mask": {"tensors": {"mask": "additive_infinite"}},
    "sentinels": {"tensors": {"mask": "sentinels"}},
    "softcap, scale": {"options": {"softcap": 2.0, "scale": -0.7}},
    "large scores in a softcap": {"family": "near_overflow", "options": {"softcap": 30.0}},
    "ALiBi": {"tensors": {"alibi_slopes": "zero_and_steep"}, "options": {"causal": "bottom_right"}},
    "window, lengths": {"tensors": {"kv_lengths": "ragged"}, "options": {"window": (9, 4)}},
}


def problem_of(*, family="normal", options=None, tensors=None, dtype="float32", seed=0, lse=False):
    sizes = {"keys": 70, "key_heads": 2, **(tensors or {})}
    settings = {**(options or {}), **({"return_lse": True} if lse else {})}
    case = Case(op="attention", family=family, shape=(2, 4, 9, 8), options=settings, tensors=sizes, seed=seed)
    op = ATTENTION.outputs(case.resolved_options())[-1]
    return op, op.problem(case.inputs(get_format(dtype)), case.resolved_options())


def chosen_rows(op, problem, count=6):
    """Some ordinary rows, others for each problem."""
    ordinary = np.flatnonzero(problem.ordinary)
    start = int.from_bytes(problem.content()[-8:], "little") % 7
    return ordinary[start :: max(len(ordinary) // count, 1)][:count]


@pytest.mark.parametrize("lse", [False, True], ids=["o", "lse"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_radius_of_double_precision_is_honest(name, lse, seed):
    op, problem = problem_of(**CASES[name], lse=lse, seed=seed)
    rows = chosen_rows(op, problem)
    hi, radius = tiers.float64(op, problem, op.facts(problem), rows)
    exact, rest, own = tiers.arb(op, problem.take(rows), BITS)
    # exact + rest is right to own; hi - exact is exact where both are near, and off by half an ulp
    # of it where they are not.
    difference = np.abs((hi - exact) - rest)
    allowed = radius + own + np.spacing(np.abs(hi - exact))

    assert len(rows) >= 5
    assert np.isfinite(hi).all()
    assert (difference <= allowed).all()


@pytest.mark.parametrize("name", ["normal", "values that cancel", "boolean mask, sink", "softcap, scale"])
def test_the_radius_is_not_far_too_wide(name):
    """2^-20 of what float32 is allowed there: the verdict of 16 and 32 bits does not depend on it."""
    op, problem = problem_of(**CASES[name])
    rows = chosen_rows(op, problem)
    _, radius = tiers.float64(op, problem, op.facts(problem), rows)
    allowed = op.bound(op.facts(problem.take(rows)), BEST_PRACTICE, get_format("float32")).absolute
    assert (radius <= allowed * 2.0**-20).all()


@pytest.mark.parametrize("name", ["normal", "boolean mask, sink", "ALiBi", "large scores in a softcap"])
@pytest.mark.parametrize("lse", [False, True], ids=["o", "lse"])
def test_balls_and_mpmath_agree(name, lse):
    op, problem = problem_of(**CASES[name], lse=lse)
    some = problem.take(chosen_rows(op, problem, count=2))
    balls, numbers = tiers.arb(op, some, 128), tiers.mpmath(op, some, 128)

    difference = np.abs((balls[0] - numbers[0]) + (balls[1] - numbers[1]))
    assert (difference <= balls[2] + numbers[2]).all()


@pytest.mark.parametrize("lse", [False, True], ids=["o", "lse"])
def test_the_oracle_gives_float64_by_balls_and_its_rows_are_those_of_the_float64_tier(lse):
    case = Case(
        op="attention", family="normal", shape=(2, 4, 9, 8), options={"return_lse": True} if lse else {},
        tensors={"keys": 70, "key_heads": 2},
    )  # fmt: skip
    inputs, options = case.inputs(get_format("float64")), case.resolved_options()
    certified = Oracle().references(ATTENTION, inputs, options, get_format("float64"))[-1]
    quick = Oracle().references(ATTENTION, inputs, options, get_format("float32"))[-1]

    assert (certified.tier, quick.tier) == ("arb", "float64")
    assert certified.radius.max() < 1e-30
    assert (
        np.abs((quick.hi - certified.hi) - certified.lo) <= quick.radius + np.spacing(np.abs(certified.lo))
    ).all()


def test_a_row_is_the_same_alone_and_among_others():
    op, problem = problem_of(**CASES["boolean mask, sink"])
    rows = chosen_rows(op, problem)
    together = tiers.arb(op, problem.take(rows), BITS)
    for i, row in enumerate(rows):
        alone = tiers.arb(op, problem.take(np.array([row])), BITS)
        assert np.array_equal(alone[0][0], together[0][i])


def test_a_wrong_radius_would_be_seen():
    """The comparison itself: with a key left out, double precision is outside its radius."""
    op, problem = problem_of()
    rows = chosen_rows(op, problem)
    hi, radius = tiers.float64(op, problem, op.facts(problem), rows)
    visible = problem.visible.copy()
    visible[:, 5] = False
    exact, _, own = tiers.arb(op, replace(problem, visible=visible).take(rows), BITS)
    assert (np.abs(hi - exact) > radius + own).any()
