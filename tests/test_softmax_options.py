"""softmax with a temperature, and off by one: the definitions by mpmath; bounds that tell honest
from prescaled.
"""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.formats import FORMATS, float32, float64
from suite.inputs.draws import Draw
from suite.numerics import BEST_PRACTICE, CONTRACT, Semantics
from suite.ops import get_op
from suite.ops.special import Special
from suite.oracle import Oracle
from suite.verdict.judge import judge

OP, ORACLE, INF = get_op("softmax"), Oracle(), np.inf
ROW = st.lists(st.floats(-600, 600), min_size=1, max_size=8)
TEMPERATURES = (0.001, 0.7, 1.0, 8.0, 1e4)


def reference(x, format=float64, **options):
    x = np.asarray(x, dtype=np.float64)
    return ORACLE.reference(OP, {"x": x}, OP.resolve_options(options, {"x": x.shape}), format)


def by_hand(row, temperature=1.0, off_by_one=False):
    """exp(x / T) / (sum exp(x / T) + 1 where off by one) in mpmath, without a shift; call it with
    enough digits.
    """
    e = [mpmath.exp(mpmath.mpf(v) / mpmath.mpf(temperature)) for v in row]
    total = sum(e) + (1 if off_by_one else 0)
    return [v / total for v in e]


@pytest.mark.parametrize("off_by_one", [False, True])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@settings(max_examples=15, deadline=None)
@given(row=ROW)
def test_the_definition_is_that_of_mpmath(temperature, off_by_one, row):
    found = reference([row], temperature=temperature, off_by_one=off_by_one)
    assert found.hi.shape == (1, len(row))
    with mpmath.workdps(80):
        values = zip(
            found.hi[0], found.lo[0], found.radius[0], by_hand(row, temperature, off_by_one), strict=True
        )
        for hi, lo, radius, exact in values:
            # 80 digits of our own.
            assert abs(mpmath.mpf(float(hi)) + mpmath.mpf(float(lo)) - exact) <= radius + 1e-78
            assert radius <= 1e-25 * hi + 1e-300


@settings(max_examples=30, deadline=None)
@given(row=ROW)
def test_off_by_one_is_softmax_of_one_more_logit_0_without_its_entry(row):
    one, with_zero = reference([row], off_by_one=True), reference([[*row, 0.0]])
    assert np.array_equal(one.hi, with_zero.hi[:, :-1])
    assert np.array_equal(one.lo, with_zero.lo[:, :-1])


@settings(max_examples=30, deadline=None)
@given(row=ROW, power=st.integers(-8, 8))
def test_a_temperature_that_is_a_power_of_two_is_the_same_as_scaled_logits(row, power):
    assert np.array_equal(
        reference([row], temperature=2.0**power).hi, reference([[v / 2.0**power for v in row]]).hi
    )


def test_temperature_1_and_off_by_one_false_are_the_plain_op():
    x = Draw("plain").normal(4, 9)
    plain, given_defaults = reference(x), reference(x, temperature=1, off_by_one=False)
    assert given_defaults is plain
    y = torch.softmax(torch.from_numpy(x), -1)
    assert (
        judge("softmax", x, y.numpy()).message
        == judge("softmax", x, y.numpy(), options={"temperature": 1.0}).message
    )


def test_other_temperatures_are_other_references():
    """The cache must not take one for another."""
    x = Draw("cache").normal(2, 5)
    found = [reference(x, temperature=t, off_by_one=o).hi for t in (1.0, 0.5) for o in (False, True)]
    assert all(not np.array_equal(a, b) for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(
    ("row", "plain", "off_by_one"),
    [
        ([-INF, -INF], [Special.NAN, Special.NAN], [Special.FINITE, Special.FINITE]),
        ([-INF, 3.0], [Special.FINITE, Special.FINITE], [Special.FINITE, Special.FINITE]),
        ([np.nan, -INF], [Special.NAN, Special.NAN], [Special.NAN, Special.NAN]),
        ([INF, 0.0], [Special.NAN, Special.NAN], [Special.NAN, Special.NAN]),
        ([], [], []),
    ],
)
def test_special_values_off_by_one(row, plain, off_by_one):
    """A row of -inf has a finite logit still, and gives zeros; an empty row stays empty."""
    for flag, expected in ((False, plain), (True, off_by_one)):
        options = OP.resolve_options({"off_by_one": flag, "temperature": 0.5}, {"x": (1, len(row))})
        problem = OP.problem({"x": np.array([row]).reshape(1, -1)}, options)
        assert OP.special(problem, CONTRACT)[0].tolist() == expected
        assert OP.special(problem, Semantics(empty_row="zero"))[0].tolist() == [
            Special.FINITE if k == Special.FINITE or max(row) == -INF else k for k in expected
        ]
    if max(row, default=0.0) == -INF:
        assert reference([row], off_by_one=True).hi.tolist() == [[0.0, 0.0]]


# The bounds


def honest(x, temperature, form):
    m = x.amax(-1, keepdim=True)
    t = torch.tensor(temperature, dtype=x.dtype)
    z = {
        "divided": (x - m) / t,
        "reciprocal": (x - m) * (1 / t),
        "base 2": (x - m) * (1.4426950408889634 / t),
    }[form]
    e = torch.exp2(z) if form == "base 2" else torch.exp(z)
    return e / e.sum(-1, keepdim=True)


def prescaled(x, temperature):
    return torch.softmax(x / temperature, -1)


FORMS = ("divided", "reciprocal", "base 2")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [0.001, 0.3, 0.7, 3.0, 1e4])
@settings(max_examples=20, deadline=None)
@given(
    row=st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=8),
    offset=st.sampled_from((0.0, 4096.0, -1e6)),
)
def test_scaling_differences_is_within_the_bound_whatever_the_offset(form, temperature, row, offset):
    x = (torch.tensor([row]) + offset).float()
    found = judge(
        "softmax", x, honest(x, temperature, form), options={"temperature": temperature}, oracle=ORACLE
    )
    assert found.passed or found.status == "unjudged", found.message


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_scaled_before_the_shift_fail_under_an_offset_and_pass_without(form, dtype):
    """x / T is rounded to u |x| / T, which the differences know nothing of
    (flashinfer-ai/flashinfer#5088).
    """
    x = torch.from_numpy(Draw("prescaled").normal(8, 33)).to(getattr(torch, dtype))
    far = (x + 4096.0).to(x.dtype)
    for temperature in (0.3, 0.7, 3.0):
        options = {"temperature": temperature}
        assert judge("softmax", x, prescaled(x, temperature), options=options, oracle=ORACLE).passed
        assert judge("softmax", far, honest(far, temperature, form), options=options, oracle=ORACLE).passed
        found = judge("softmax", far, prescaled(far, temperature), options=options, oracle=ORACLE)
        assert found.status == "inaccurate"
        assert f"temperature {temperature}" in found.message
    assert judge(
        "softmax", far, prescaled(far, 2.0), options={"temperature": 2.0}, oracle=ORACLE
    ).passed  # exact


@pytest.mark.parametrize("dtype", list(FORMATS)[:4])
def test_off_by_one_kernels_are_judged_and_forgetting_the_one_shows(dtype):
    x = torch.from_numpy(Draw("one").normal(6, 17)).to(getattr(torch, dtype))
    wide = x.float() if dtype != "float64" else x
    m = wide.amax(-1, keepdim=True).clamp(min=0)
    e = torch.exp(wide - m)
    right = (e / (e.sum(-1, keepdim=True) + torch.exp(-m))).to(x.dtype)
    unshifted_one = (e / (e.sum(-1, keepdim=True) + 1)).to(x.dtype)
    options = {"off_by_one": True}
    found = judge("softmax", x, right, options=options, oracle=ORACLE)
    assert found.passed, found.message
    assert found.entries == 6 * 17
    for wrong in (torch.softmax(wide, -1).to(x.dtype), unshifted_one):
        failed = judge("softmax", x, wrong, options=options, oracle=ORACLE)
        assert failed.status == "inaccurate"
        assert "in a row of 18, 1 of them the op's own" in failed.message
    assert not judge("softmax", x, right, oracle=ORACLE).passed


def test_off_by_one_along_another_dim_and_with_zeros_for_a_masked_row():
    x = torch.from_numpy(Draw("dims").normal(5, 3, 4))
    x[:, 1, 2] = -INF
    with_zero = torch.cat([x, torch.zeros(1, 3, 4, dtype=x.dtype)])
    right = torch.softmax(with_zero, 0)[:-1]
    assert right[:, 1, 2].tolist() == [0.0] * 5
    options = {"dim": 0, "off_by_one": True}
    assert judge("softmax", x, right, options=options).passed
    assert judge("softmax", x, right.masked_fill(x == -INF, np.nan), options=options).status == "nonfinite"


def test_a_temperature_costs_three_roundings_of_the_gap_more():
    x = np.array([[0.0, -1.0, -10.0]])
    plain, divided = (
        OP.bound(reference(v, float32, temperature=t).facts, BEST_PRACTICE, float32).absolute
        for v, t in ((x, 1.0), (4 * x, 4.0))
    )
    gap, p = -x[0], reference(x).hi[0]
    mean_gap = float((p * gap).sum())
    expected = 2.0**-24 * (3 * gap + 3 * mean_gap) * p
    assert np.allclose((divided - plain)[0], expected, rtol=1e-4, atol=1e-20)


# Misuse


@pytest.mark.parametrize("value", [0, 0.0, -1.0, INF, np.nan, True, "1", None])
def test_a_temperature_that_means_nothing_is_misuse(value):
    with pytest.raises(ValueError, match=r"temperature=.* must be a finite number above 0"):
        judge("softmax", np.zeros((2, 3)), np.zeros((2, 3)), options={"temperature": value})


@pytest.mark.parametrize("value", [1, 0, "True", None])
def test_off_by_one_is_true_or_false(value):
    with pytest.raises(ValueError, match=r"off_by_one=.* must be True or False"):
        judge("softmax", np.zeros((2, 3)), np.zeros((2, 3)), options={"off_by_one": value})


@pytest.mark.parametrize("op", ["log_softmax", "logsumexp"])
@pytest.mark.parametrize("option", ["temperature", "off_by_one"])
def test_other_ops_have_no_such_options(op, option):
    with pytest.raises(ValueError, match=f"{op} has no option '{option}'; valid options: dim"):
        judge(op, np.zeros((2, 3)), np.zeros((2, 3)), options={option: 1.0})
