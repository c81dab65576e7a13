"""The tolerance to paste: no honest kernel is beyond it, in the worst case or on data; mutants are."""

import functools
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from suite import inputs
from suite.commands.main import cli
from suite.formats import DTYPES, FORMATS
from suite.numerics import BEST_PRACTICE, Numerics
from suite.ops import get_op, measured_by
from suite.ops.rows import RowFacts
from suite.ops.special import Special
from suite.oracle import Oracle
from suite.studies.tolerance import (
    AGAINST,
    ASSERT_CLOSE_DEFAULTS,
    NoToleranceError,
    WorstFacts,
    tolerance,
)
from suite.tensors import to_float64, to_torch
from tests.honest.rows import HONEST
from tests.mutants import MUTANTS

FAMILIES = (
    "normal",
    "normal_large",
    "underflow_edge",
    "saturation_edge",
    "ties",
    "very_negative",
    "sparse",
    "normal_small",
)
ORACLE = Oracle(remembered=200)


def finite_gap(x):
    """The largest gap max x - x_i of the logits that are not -inf."""
    visible = np.where(np.isneginf(x), x.max(axis=1, keepdims=True), x)
    return float((x.max(axis=1, keepdims=True) - visible).max())


@functools.cache
def exact_rows(op, family, dtype, shape=(8, 33)):
    """(x, exact, rounded, finite): the rows of a family with their exact results, as float64."""
    definition, format = get_op(op), FORMATS[dtype]
    x = inputs.build(family, *shape, format, 0)
    reference = ORACLE.reference(definition, {"x": x}, {"dim": -1}, format)
    rounded = format.round(reference.hi, reference.lo)
    return x, reference.hi + reference.lo, rounded, reference.special == Special.FINITE


def beyond(output, expected, found, finite):
    """How many finite entries of the output are not allclose to the expected ones, as numpy has it."""
    close = np.isclose(output, expected, rtol=found.rtol, atol=found.atol)
    return int((~close & finite).sum())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", measured_by("tolerance"))
def test_no_honest_kernel_is_beyond_the_tolerance(op, dtype, family):
    x, exact, rounded, finite = exact_rows(op, family, dtype)
    tensor, alarms = to_torch(x, FORMATS[dtype]), []
    other = {}
    for name, (kernel, numerics) in HONEST[op].items():
        output = to_float64(kernel(tensor)).reshape(exact.shape)
        expected = {
            "exact": exact,
            "rounded reference": rounded,
            "other kernel": other.setdefault(numerics, output),
        }
        for against in AGAINST:
            found = [found_on(op, family, dtype, numerics, against)]
            if numerics.shift == "row_max":
                found.append(worst_case(op, x.shape[1], dtype, finite_gap(x), numerics, against))
            alarms += [f"{name} {one}" for one in found if beyond(output, expected[against], one, finite)]

    assert not alarms


@functools.cache
def found_on(op, family, dtype, numerics, against):
    return tolerance(
        op,
        input=to_torch(exact_rows(op, family, dtype)[0], FORMATS[dtype]),
        numerics=numerics,
        against=against,
    )


@functools.cache
def worst_case(op, n, dtype, gap, numerics, against):
    return tolerance(op, n, dtype, gap=gap, numerics=numerics, against=against)


@settings(deadline=None, max_examples=60)
@given(
    op=st.sampled_from(measured_by("tolerance")),
    dtype=st.sampled_from(DTYPES),
    n=st.integers(1, 200),
    spread=st.floats(0.0, 200.0),
    offset=st.floats(-500.0, 500.0),
    masked=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_worst_case_is_never_below_what_the_bound_allows_on_a_row(
    op, dtype, n, spread, offset, masked, seed
):
    """The ends of judge()'s interval, rounded, are within the tolerance for the row's own gap, and
    within the row's own one.
    """
    format, definition = FORMATS[dtype], get_op(op)
    x = format.round(np.random.default_rng(seed).uniform(-spread, 0.0, (3, n)) + offset)
    if masked:
        x[:, 1::2] = -np.inf
    reference = ORACLE.reference(definition, {"x": x}, {"dim": -1}, format)
    finite = reference.special == Special.FINITE
    exact, b = reference.hi, definition.bound(reference.facts, BEST_PRACTICE, format).absolute
    lowest = np.maximum(exact - b, definition.lower_limit)
    ends = [format.round(lowest), format.round(exact + b)]

    for found in (
        tolerance(op, n, dtype, gap=finite_gap(x)),
        tolerance(op, n, dtype),
        tolerance(op, input=x, dtype=dtype),
    ):
        assert [beyond(end, exact, found, finite) for end in ends] == [0, 0]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    spread=st.floats(0.0, 50.0),
    offset=st.floats(-50.0, 50.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_row_has_worse_facts_than_the_worst(n, spread, offset, seed):
    x = np.random.default_rng(seed).uniform(-spread, 0.0, (4, n)) + offset
    facts, u, slack = RowFacts.of(x), FORMATS["float32"].unit_roundoff, 1 + 1e-12
    worst = WorstFacts.of_length(get_op("logsumexp"), n, FORMATS["float32"], finite_gap(x))

    for name in ("mean_gap", "rescales", "visible", "log_total"):
        assert np.all(getattr(facts, name) <= getattr(worst, name)[0] * slack + 1e-12), name
    assert np.all(facts.summation(u) <= worst.summation(u)[0])
    assert np.all(facts.top_mass * slack >= worst.top_mass[0])
    assert np.all(np.abs(facts.maximum) <= (worst.maximum[0] + np.abs(facts.log_sum_exp)) * slack + 1e-12)


def test_a_bound_on_the_logits_bounds_the_gaps():
    assert (
        tolerance("softmax", 8, "float32", largest=10.0).rtol
        == tolerance("softmax", 8, "float32", gap=20.0).rtol
    )
    assert (
        tolerance("softmax", 8, "float32", gap=10.0).rtol < tolerance("softmax", 8, "float32", gap=20.0).rtol
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", measured_by("tolerance"))
def test_the_worst_case_covers_data_of_any_smaller_gap(op, dtype):
    """At results of the magnitudes 0, 1 / n, 1 and 100, of which a probability is at most 1."""
    x, *_ = exact_rows(op, "normal", dtype)
    on_data = tolerance(op, input=to_torch(x, FORMATS[dtype]))
    for larger in (
        tolerance(op, 33, dtype, gap=finite_gap(x)),
        tolerance(op, 33, dtype, gap=50.0),
        tolerance(op, 33, dtype),
    ):
        for size in (0.0, 1 / 33, 1.0, *([] if op == "softmax" else [100.0])):
            assert on_data.atol + on_data.rtol * size <= larger.atol + larger.rtol * size


# Each on a family and length where its error is larger than the pair allows. judge() catches all of
# them as well.
BEYOND = [
    ("softmax: last_entry_dropped", "sparse"),
    ("softmax: lse_subtracted", "offset"),
    ("softmax: exponentials_in_bfloat16", "normal"),
    ("softmax: coarse_exp2", "normal"),
    ("softmax: clamped_exponent", "underflow_edge"),
    ("softmax: wrong_base", "normal"),
    ("log_softmax: log_of_a_short_sum", "sparse"),
    ("log_softmax: base_2_result", "normal"),
    ("log_softmax: not_a_logarithm", "normal"),
    ("logsumexp: lse_sum_in_bfloat16", "normal"),
    ("logsumexp: largest_counted_twice", "normal"),
    ("logsumexp: maximum_not_added", "normal"),
]


@pytest.mark.parametrize(("name", "family"), BEYOND)
def test_mutants_are_beyond_the_tolerance(name, family):
    fault = MUTANTS[name]
    x, exact, _, finite = exact_rows(fault.op, family, "float32")
    output = to_float64(fault.kernel().call(to_torch(x, FORMATS["float32"]))).reshape(exact.shape)

    assert beyond(output, exact, tolerance(fault.op, input=to_torch(x, FORMATS["float32"])), finite)
    assert beyond(output, exact, tolerance(fault.op, 33, "float32"), finite)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_are_no_softmax_of_8192_logits(dtype):
    """assert_close's defaults for 16 bits let nearly all of such a row pass; a relative tolerance
    does not.
    """
    found = tolerance("softmax", 8192, dtype)

    assert found.atol + found.rtol / 8192 < 0.01 / 8192


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", measured_by("tolerance"))
def test_the_line_to_paste_runs_and_tells_right_from_wrong(op, dtype):
    x = to_torch(exact_rows(op, "normal", dtype)[0], FORMATS[dtype])
    x = torch.cat([x, torch.full_like(x[:1], torch.nan)])
    y = getattr(torch, op)(x.double(), -1).to(x.dtype)
    exact = getattr(torch, op)(x.double(), -1)
    names = {"torch": torch, "x": x, "exact": exact, "reference": exact.to(x.dtype), "other": y.clone()}
    for against in AGAINST:
        line = tolerance(op, input=x, against=against).assert_close

        exec(line, {**names, "y": y})
        with pytest.raises(AssertionError, match="not close"):
            exec(line, {**names, "y": y * 1.05})


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_defaults_of_assert_close_are_those_of_torch(dtype):
    """Just inside atol + rtol |expected| the default assertion passes, just outside it fails
    (compared at 0 and at 1024).
    """
    rtol, atol = ASSERT_CLOSE_DEFAULTS[dtype]
    step = 2 * FORMATS[dtype].unit_roundoff
    for expected, allowed in ((0.0, atol), (1024.0, atol + 1024.0 * rtol)):
        slack = allowed * 2 * step + (1024 * step if expected else 2 * FORMATS[dtype].smallest_subnormal)
        for error, passes in ((allowed - slack, True), (allowed + slack, False)):
            pair = [
                torch.tensor(value, dtype=getattr(torch, dtype)) for value in (expected + error, expected)
            ]
            if passes:
                torch.testing.assert_close(*pair)
            else:
                with pytest.raises(AssertionError, match="not close"):
                    torch.testing.assert_close(*pair)


def test_what_a_16_bit_kernel_of_torch_rounds_inside_is_beyond_the_tolerance_and_not_beyond_the_defaults():
    """On the CPU torch.log_softmax rounds the log of the sum to bfloat16 (pytorch/pytorch#140222)."""
    x = to_torch(exact_rows("log_softmax", "normal", "bfloat16")[0], FORMATS["bfloat16"])
    y, reference = torch.log_softmax(x, -1), torch.log_softmax(x.double(), -1).bfloat16()

    torch.testing.assert_close(y, reference)
    with pytest.raises(AssertionError, match="not close"):
        exec(tolerance("log_softmax", input=x).assert_close, {"torch": torch, "x": x, "y": y})


def test_only_the_length_of_the_rows_counts():
    assert tolerance("softmax", (32, 100, 7), "float32", dim=1) == tolerance(
        "softmax", (5, 100, 1), "float32", dim=1
    )
    assert tolerance("softmax", 100, "float32") == tolerance("softmax", (32, 100), "float32")


def test_what_is_rounded_is_rounded_up_to_three_digits():
    """One softmax entry is exp(0)/1: the bound's 5 u and half an ulp, u (6 + 5 u)/(1 - 5 u), by
    hand for float32.
    """
    u = 2.0**-24
    exact = 5 * u / (1 - 5 * u) + u * (1 + 5 * u / (1 - 5 * u))

    found = tolerance("softmax", 1, "float32", gap=0.0)

    assert exact <= found.rtol <= 1.01 * exact
    assert float(f"{found.rtol:.2e}") == found.rtol


def test_a_pair_that_says_nothing_is_refused():
    with pytest.raises(
        NoToleranceError,
        match=r"no tolerance says anything about softmax in float32 at n = 10000000 .*judge\(\)",
    ):
        tolerance("softmax", 10**7, "float32")
    for sentinel in (-3.4028234663852886e38, -2.5e38):  # the result overflows; only its base-2 form does
        with pytest.raises(NoToleranceError, match="an honest kernel overflows"):
            tolerance("log_softmax", input=np.array([[0.0, sentinel]], dtype=np.float32))
    with pytest.raises(NoToleranceError, match="no tolerance says anything"):
        tolerance("softmax", 300, "float32", numerics=Numerics(accumulate="bfloat16"))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("matmul", 8, "float32"), {}, "op 'matmul' has no tolerance"),
        (("softmax", 8, "int8"), {}, "dtype 'int8' is not one of float64"),
        (("softmax", 0, "float32"), {}, "rows of 0 logits"),
        (("softmax", (2, 3), "float32"), {"dim": 2}, "dim=2 must be an integer from -2 to 1"),
        (("softmax", 8, "float32"), {"gap": -1.0}, "gap=-1.0 must be at least 0"),
        (("softmax", 8, "float32"), {"largest": math.nan}, "largest=nan must be at least 0"),
        (("logsumexp", 8, "float16"), {"largest": 65504.0}, "largest=65504.0 must be at most 32752"),
        (("softmax", 8, "float32"), {"against": "numpy"}, "against='numpy' is not one of exact"),
        (("softmax", 8, "float32"), {"numerics": Numerics(shift="folded")}, "give the input"),
        (("softmax", 8), {"input": np.zeros((1, 8))}, "give either them or the input"),
        (("softmax",), {"input": np.full((1, 8), -np.inf)}, "no row with a finite largest logit"),
        (("softmax",), {"input": np.zeros((0, 8))}, r"input has shape \[0, 8\]"),
        (("softmax", None, "float16"), {"input": np.full((1, 8), 0.1)}, "values that float16 cannot hold"),
        (("softmax",), {}, "needs a shape and a dtype"),
        (("softmax", 4, "float32"), {"gap": "wide"}, "gap=.wide. must be a number"),
    ],
)
def test_misuse_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        tolerance(*arguments, **options)


def command(*arguments):
    return CliRunner().invoke(cli, ["tolerance", *map(str, arguments)])


def test_the_command_prints_what_the_function_finds(tmp_path):
    found = tolerance("softmax", (32, 8192), "bfloat16", gap=30.0)

    result = command(
        "--op",
        "softmax",
        "--shape",
        "32x8192",
        "--dtype",
        "bfloat16",
        "--gap",
        "30",
        "--json",
        tmp_path / "t.json",
    )

    assert result.exit_code == 0
    assert found.assert_close in result.output
    assert found.assumptions in result.output
    written = json.loads((tmp_path / "t.json").read_text())["tolerances"]
    assert [one["against"] for one in written] == list(AGAINST)
    assert (written[0]["rtol"], written[0]["atol"]) == (found.rtol, found.atol)


def test_the_command_reads_an_input(tmp_path):
    x = exact_rows("logsumexp", "normal", "float32")[0].astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)

    result = command("--op", "logsumexp", "--input", tmp_path / "x.npz")

    assert result.exit_code == 0
    assert tolerance("logsumexp", input=x).assert_close in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "3x", "--dtype", "float32"), "--shape '3x' must be sizes joined by x"),
        (("--dtype", "float32"), "needs a shape, or an input"),
        (("--shape", "9999999", "--dtype", "float32"), "no tolerance says anything"),
        (("--input", "absent.npz"), "does not exist"),
    ],
)
def test_misuse_of_the_command_is_named(arguments, message):
    result = command("--op", "softmax", *arguments)

    assert result.exit_code == 2
    assert message in result.output
