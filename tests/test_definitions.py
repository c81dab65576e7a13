"""The definitions: three arithmetics agree, special values stand where the contract has them,
identities hold.
"""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.numerics import CONTRACT, Numerics, Semantics
from suite.ops import get_op
from suite.ops.arithmetic import Arb, Float64, Mpmath
from suite.ops.rows import RowFacts, Rows
from suite.ops.special import Special

ROW = st.lists(st.one_of(st.floats(-800, 800), st.just(-np.inf)), min_size=1, max_size=12).filter(
    lambda r: max(r) > -np.inf
)

ROW_OPS = ("softmax", "log_softmax", "logsumexp")


def middle(ball):
    mantissa, exponent = ball.mid().man_exp()
    return mpmath.ldexp(mpmath.mpf(int(mantissa)), int(exponent))


@pytest.mark.parametrize("name", ROW_OPS)
@settings(max_examples=60)
@given(row=ROW)
def test_mpmath_arb_and_float64_agree(name, row):
    """The float64 evaluation lies within its own bound of the mpmath one, and the Arb ball contains
    the mpmath value.
    """
    op, x = get_op(name), np.array([row])
    with Mpmath.precision(300), Arb.precision(300):
        exact = op.define(Mpmath(), Rows(x))
        ball = op.define(Arb(), Rows(x))
        double = op.define(Float64(), Rows(x))
        from suite.formats import float64

        allowed = op.bound(RowFacts.of(x), Numerics(exp_ulp=4, log_ulp=4), float64).absolute
        visible = (x > -np.inf) | (name == "logsumexp")
        for e, b, d, a, v in zip(
            exact.flat, ball.flat, double.flat, allowed.flat, visible.flat, strict=False
        ):
            if v:
                assert abs(e - middle(b)) <= mpmath.mpf(2) ** -250 * (1 + abs(e))
                assert abs(e - mpmath.mpf(float(d))) <= a


def test_definitions_agree_with_the_textbook_formula_in_fifty_digits():
    x = np.array([[1.0, 2.0, 3.0]])
    with mpmath.workdps(50):
        total = sum(mpmath.exp(k) for k in (1, 2, 3))
        softmax = get_op("softmax").define(Mpmath(), Rows(x))[0]
        assert [mpmath.nstr(p, 40) for p in softmax] == [
            mpmath.nstr(mpmath.exp(k) / total, 40) for k in (1, 2, 3)
        ]
        lse = get_op("logsumexp").define(Mpmath(), Rows(x))[0, 0]
        assert mpmath.nstr(lse, 40) == mpmath.nstr(mpmath.log(total), 40)
        log_softmax = get_op("log_softmax").define(Mpmath(), Rows(x))[0]
        assert [mpmath.nstr(z, 40) for z in log_softmax] == [
            mpmath.nstr(k - mpmath.log(total), 40) for k in (1, 2, 3)
        ]


def kinds(name, row, semantics=CONTRACT):
    return get_op(name).special(Rows(np.array([row])), semantics)[0].tolist()


INF, NAN_VALUE = np.inf, np.nan


@pytest.mark.parametrize(
    ("row", "softmax", "log_softmax", "logsumexp"),
    [
        ([0.0, 1.0], [Special.FINITE] * 2, [Special.FINITE] * 2, [Special.FINITE]),
        ([-INF, 1.0], [Special.FINITE] * 2, [Special.NEGATIVE_INFINITY, Special.FINITE], [Special.FINITE]),
        ([-INF, -INF], [Special.NAN] * 2, [Special.NAN] * 2, [Special.NEGATIVE_INFINITY]),
        ([NAN_VALUE, 1.0], [Special.NAN] * 2, [Special.NAN] * 2, [Special.NAN]),
        ([NAN_VALUE, INF], [Special.NAN] * 2, [Special.NAN] * 2, [Special.NAN]),
        ([NAN_VALUE, -INF], [Special.NAN] * 2, [Special.NAN] * 2, [Special.NAN]),
        (
            [INF, 1.0],
            [Special.NAN] * 2,
            [Special.NAN, Special.NAN_OR_NEGATIVE_INFINITY],
            [Special.POSITIVE_INFINITY],
        ),
        (
            [INF, -INF],
            [Special.NAN] * 2,
            [Special.NAN, Special.NAN_OR_NEGATIVE_INFINITY],
            [Special.POSITIVE_INFINITY],
        ),
    ],
)
def test_special_values_are_the_contract(row, softmax, log_softmax, logsumexp):
    assert kinds("softmax", row) == softmax
    assert kinds("log_softmax", row) == log_softmax
    assert kinds("logsumexp", row) == logsumexp


def test_empty_rows():
    empty = np.zeros((2, 0))

    assert get_op("softmax").special(Rows(empty), CONTRACT).shape == (2, 0)
    assert get_op("logsumexp").special(Rows(empty), CONTRACT).tolist() == [
        [Special.NEGATIVE_INFINITY],
        [Special.NEGATIVE_INFINITY],
    ]


def test_safe_softmax_is_a_declared_variant():
    assert kinds("softmax", [-INF, -INF], Semantics(empty_row="zero")) == [Special.FINITE, Special.FINITE]
    with pytest.raises(ValueError, match="empty_row='maybe' is not one of nan, zero"):
        Semantics(empty_row="maybe")


@pytest.mark.parametrize("name", ROW_OPS)
def test_a_special_value_stays_in_its_row(name):
    """Whatever three values a row has, the rows around it are judged as if it were not there."""
    op = get_op(name)
    for triple in itertools.product((0.0, -INF, INF, NAN_VALUE), repeat=3):
        x = np.array([[1.0, 2.0, 3.0], triple, [3.0, 2.0, 1.0]])
        codes = op.special(Rows(x), CONTRACT)
        assert (codes[[0, 2]] == Special.FINITE).all()


@given(row=ROW, shift=st.integers(-500, 500))
def test_facts_do_not_depend_on_a_common_shift(row, shift):
    """Everything that the bound is made of, but for max x and lse, is a function of max x - x."""
    x = np.array([np.round(row)])
    a, b = RowFacts.of(x), RowFacts.of(x + shift)

    for name in ("gap", "total", "mean_gap", "top_mass", "rescales", "probability"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert np.allclose(b.log_sum_exp - a.log_sum_exp, shift, atol=1e-9)


def test_facts_of_a_row_by_hand():
    facts = RowFacts.of(np.array([[0.0, np.log(0.5), np.log(0.25), np.log(0.25), -np.inf]]))

    assert facts.total[0, 0] == pytest.approx(2.0)
    assert facts.top_mass[0, 0] == pytest.approx(0.5)
    assert facts.mean_gap[0, 0] == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(4)) / 2)
    assert facts.rescales[0, 0] == pytest.approx(0.25 * 1 + 0.25 * 2)
    assert facts.visible[0, 0] == 4
    assert facts.summation(2.0**-24)[0, 0] == 3
    absorbed = RowFacts.of(np.array([[0.0, -30.0, -30.0, -40.0]]))
    assert absorbed.summation(2.0**-24)[0, 0] == pytest.approx(1 + 2 * np.exp(-30) * 2**24, rel=1e-4)
    alone = RowFacts.of(np.array([[0.0, -np.inf]]))
    assert alone.summation(2.0**-24)[0, 0] == 0


def test_unknown_numerics_are_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match="shift='col_max' is not one of row_max, folded, lse, none"):
        Numerics(shift="col_max")
    with pytest.raises(ValueError, match="unknown format 'fp32'"):
        Numerics(accumulate="fp32")
    with pytest.raises(ValueError, match=r"exp_ulp=0\.1 must be at least 0\.5"):
        Numerics(exp_ulp=0.1)
    assert str(Numerics(shift="lse", exp_ulp=1.0)) == "exp_ulp=1.0, shift=lse"
