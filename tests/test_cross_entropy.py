"""cross_entropy: the definition against mpmath and torch, its special values by hand, its bound,
and every way to judge it.
"""

import itertools
import json
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from suite.commands.main import cli
from suite.formats import FORMATS
from suite.inputs.draws import Draw
from suite.kernels import own_kernels
from suite.numerics import BEST_PRACTICE, CONTRACT, Numerics
from suite.ops import Values, get_op
from suite.ops.arithmetic import Arb, Float64, Mpmath
from suite.ops.special import Special
from suite.oracle import Oracle, tiers
from suite.records.store import read_run
from suite.verdict.judge import judge
from tests.extras import missing
from tests.test_saved_tensors import safetensors

OP, ORACLE = get_op("cross_entropy"), Oracle()
INF, NONE = np.inf, {"reduction": "none"}
SHAPES = [(5,), (4, 5), (3, 5, 2), (2, 5, 3, 2)]
SMOOTHED, IGNORING = {"label_smoothing": 0.1}, {"ignore_index": 2}


def drawn(shape, *, probabilities=False, ignore_index=-100):
    """Ordinary float64 logits of this shape, and a target: indices, the last of several ignored."""
    draw = Draw(f"x|{shape}")
    logits = 3 * draw.normal(*shape)
    if probabilities:
        weights = draw.uniform(*shape)
        return logits, weights / weights.sum(axis=0 if len(shape) == 1 else 1, keepdims=True)
    rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = draw.integers(5, *rows) if rows else np.array(3)
    if rows:
        target.flat[-1] = ignore_index
    return logits, target


def reference(logits, target, options=None, target_format="float64", oracle=ORACLE):
    logits, target = np.asarray(logits, dtype=np.float64), np.asarray(target)
    shapes = {"logits": logits.shape, "target": target.shape}
    resolved = OP.resolve_options(options, shapes)
    return oracle.reference(OP, {"logits": logits, "target": target}, resolved, FORMATS[target_format])


def by_hand(logits, target, *, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """The loss from -log(exp(z_c) / sum exp(z)) of each class by mpmath, without a shift; call it
    with enough digits.
    """
    z = np.moveaxis(np.asarray(logits), 0 if logits.ndim == 1 else 1, -1)
    rows, n = z.reshape(-1, z.shape[-1]), z.shape[-1]
    weights = np.zeros((len(rows), n))
    kept = [True] * len(rows)
    if target.dtype.kind == "f":
        weights = np.moveaxis(target, 0 if target.ndim == 1 else 1, -1).reshape(-1, n)
    else:
        for row, index in enumerate(target.reshape(-1).tolist()):
            kept[row] = index != ignore_index
            if kept[row]:
                weights[row, index] = 1.0
    smoothing = mpmath.mpf(label_smoothing)
    losses = []
    for row, weight, is_kept in zip(rows.tolist(), weights.tolist(), kept, strict=True):
        total = sum(mpmath.exp(v) for v in row)
        surprisals = [-mpmath.log(mpmath.exp(v) / total) for v in row]
        targeted = sum(mpmath.mpf(w) * s for w, s in zip(weight, surprisals, strict=True))
        losses.append(
            (1 - smoothing) * targeted + smoothing / n * sum(surprisals) if is_kept else mpmath.mpf(0)
        )
    if reduction == "none":
        return losses
    return [sum(losses) / (sum(kept) if reduction == "mean" else 1)]


CALLS = [
    (shape, probabilities, {**options, "reduction": reduction})
    for shape, (probabilities, options), reduction in itertools.product(
        SHAPES,
        [(False, {}), (False, SMOOTHED), (False, IGNORING), (True, {}), (True, SMOOTHED)],
        ("mean", "sum", "none"),
    )
]


@pytest.mark.parametrize(("shape", "probabilities", "options"), CALLS)
def test_the_definition_is_minus_the_log_of_a_probability_by_mpmath_and_by_torch(
    shape, probabilities, options
):
    """mpmath within the radius that the reference claims; torch in float64 within its own bound."""
    logits, target = drawn(shape, probabilities=probabilities, ignore_index=options.get("ignore_index", -100))
    found = reference(logits, target, options)
    assert (found.special == Special.FINITE).all()
    with mpmath.workdps(60):
        exact = by_hand(logits, target, **options)
        values = zip(found.hi.flat, found.lo.flat, strict=True)
        errors = [abs(mpmath.mpf(hi) + mpmath.mpf(lo) - e) for (hi, lo), e in zip(values, exact, strict=True)]
        assert all(error <= radius for error, radius in zip(errors, found.radius.flat, strict=True))
        assert max(found.radius.flat) < 1e-25

    output = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(np.array(target)), **options)
    judgement = judge(
        "cross_entropy", {"logits": logits, "target": target}, output.numpy(), options=options, oracle=ORACLE
    )
    assert judgement.passed, judgement.message
    assert judgement.entries == output.numel()


def test_a_fault_of_one_part_in_ten_to_the_twelve_is_seen_in_float64():
    """The judge of the test above can tell: every reduction, every kind of target."""
    for shape, probabilities, options in CALLS:
        logits, target = drawn(
            shape, probabilities=probabilities, ignore_index=options.get("ignore_index", -100)
        )
        output = functional.cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(np.array(target)), **options
        )
        inputs = {"logits": logits, "target": target}
        assert (
            judge(
                "cross_entropy",
                inputs,
                np.asarray(output.numpy() * (1 + 1e-12)),
                options=options,
                oracle=ORACLE,
            ).status
            == "inaccurate"
        )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3, 1.0])
@settings(max_examples=25, deadline=None)
@given(row=st.lists(st.floats(-700, 700), min_size=1, max_size=8), data=st.data())
def test_mpmath_arb_and_float64_agree_within_their_radii(label_smoothing, row, data):
    target = np.array([data.draw(st.integers(0, len(row) - 1))])
    problem = OP.problem(
        {"logits": np.array([row]), "target": target}, {**OP.options, "label_smoothing": label_smoothing}
    )
    by_arb, by_mpmath = (tier(OP, problem, 200) for tier in (tiers.arb, tiers.mpmath))
    hi, radius = tiers.float64(OP, problem, OP.facts(problem), np.array([0]))
    with mpmath.workprec(300):
        ours, theirs = (
            mpmath.mpf(float(h[0, 0])) + mpmath.mpf(float(lo[0, 0])) for h, lo, _ in (by_arb, by_mpmath)
        )
        assert abs(ours - theirs) <= by_arb[2][0, 0] + by_mpmath[2][0, 0]
        assert abs(ours - mpmath.mpf(float(hi[0, 0]))) <= radius[0, 0]
        assert by_arb[2][0, 0] <= 2.0**-95 * (1 + abs(float(ours)))


@pytest.mark.parametrize(
    ("row", "target", "options", "kind"),
    [
        ([0.0, 1.0], 0, {}, Special.FINITE),
        ([-INF, 1.0], 1, {}, Special.FINITE),
        ([-INF, 1.0], 0, {}, Special.POSITIVE_INFINITY),
        ([-INF, 1.0], 1, {"label_smoothing": 0.5}, Special.POSITIVE_INFINITY),
        ([-INF, -INF], 0, {}, Special.NAN),
        ([np.nan, 1.0], 1, {}, Special.NAN),
        ([np.nan, INF], 1, {}, Special.NAN),
        ([INF, 1.0], 0, {}, Special.NAN_OR_POSITIVE_INFINITY),
        ([INF, 1.0], 1, {}, Special.NAN_OR_POSITIVE_INFINITY),
        ([INF, -INF], 1, {}, Special.NAN_OR_POSITIVE_INFINITY),
        ([np.nan, INF], -100, {}, Special.FINITE),
        ([-INF, -INF], -100, {}, Special.FINITE),
        ([INF, 1.0], 0, {"ignore_index": 0}, Special.FINITE),
    ],
)
def test_special_values_are_the_contract(row, target, options, kind):
    problem = OP.problem({"logits": np.array([row]), "target": np.array([target])}, {**OP.options, **options})
    assert OP.special(problem, CONTRACT).tolist() == [[kind]]


@pytest.mark.parametrize("row", [[0.0, 5.0], [np.nan, 1.0], [INF, -INF], [-INF, -INF]])
def test_an_ignored_row_is_exactly_0_whatever_is_in_it(row):
    logits, target = np.array([row, [1.0, 2.0]], dtype=np.float32), np.array([-100, 1])
    right = functional.cross_entropy(torch.tensor([[1.0, 2.0]]), torch.tensor([1])).item()
    for ignored, status in (
        (0.0, "passed"),
        (-0.0, "passed"),
        (1e-45, "inaccurate"),
        (np.nan, "nonfinite"),
        (INF, "nonfinite"),
    ):
        output = np.array([ignored, right], dtype=np.float32)
        assert (
            judge("cross_entropy", {"logits": logits, "target": target}, output, options=NONE).status
            == status
        ), ignored
    mean = judge("cross_entropy", {"logits": logits, "target": target}, np.array(right, dtype=np.float32))
    assert mean.passed, mean.message


@pytest.mark.parametrize(
    ("row", "target", "accepted", "refused"),
    [
        ([-INF, 1.0], 0, [INF], [np.nan, -INF, 3e38, 0.0]),
        ([np.nan, 1.0], 0, [np.nan], [INF, 0.0, 1.0]),
        ([-INF, -INF], 0, [np.nan], [INF, 0.0]),
        ([INF, 1.0], 0, [np.nan, INF], [0.0, -INF]),
        ([INF, 1.0], 1, [np.nan, INF], [0.0, -INF]),
    ],
)
def test_special_losses_are_judged_by_position(row, target, accepted, refused):
    inputs = {"logits": np.array([row], dtype=np.float32), "target": np.array([target])}
    for reduction in ("none", "mean", "sum"):
        for value in (*accepted, *refused):
            output = np.full((1,) if reduction == "none" else (), value, dtype=np.float32)
            status = judge("cross_entropy", inputs, output, options={"reduction": reduction}).status
            assert status == ("law_broken" if value in refused else "passed"), value


@pytest.mark.parametrize(
    ("logits", "target", "mean", "total"),
    [
        (np.zeros((3, 4)), np.full(3, -100), np.nan, 0.0),
        (np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.nan, 0.0),
        (np.zeros((0, 4)), np.zeros((0, 4)), np.nan, 0.0),
        (np.array([[0.0, 1.0], [np.nan, 0.0], [-INF, 0.0]]), np.array([0, 0, 0]), np.nan, np.nan),
        (np.array([[0.0, 1.0], [0.0, -INF]]), np.array([0, 1]), INF, INF),
        (np.full((2, 3), np.nan), np.array([-100, -100]), np.nan, 0.0),
    ],
)
def test_the_mean_over_nothing_is_nan_and_the_sum_0_and_special_rows_decide(logits, target, mean, total):
    for reduction, right in (("mean", mean), ("sum", total)):
        torches = functional.cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(target), reduction=reduction
        ).numpy()
        assert np.array_equal(torches, right, equal_nan=True)
        for value in (
            right,
            1.0,
            *(v for v in (0.0, np.nan, INF) if not np.array_equal(v, right, equal_nan=True)),
        ):
            found = judge(
                "cross_entropy",
                {"logits": logits, "target": target},
                np.array(value),
                options={"reduction": reduction},
            )
            assert found.passed == np.array_equal(value, right, equal_nan=True), (
                reduction,
                value,
                found.message,
            )


def test_a_class_of_weight_0_takes_no_part_even_at_minus_infinity():
    """torch multiplies 0 by -inf there and gives NaN."""
    logits, target = np.array([[0.0, 1.0, -INF]]), np.array([[0.25, 0.75, 0.0]])
    found = reference(logits, target, NONE)
    assert found.special.tolist() == [[Special.FINITE]]
    right = 0.25 * np.logaddexp(0.0, 1.0) + 0.75 * (np.logaddexp(0.0, 1.0) - 1.0)
    assert found.hi[0, 0] == pytest.approx(right, rel=1e-15)
    assert (
        judge("cross_entropy", {"logits": logits, "target": target}, np.array([np.nan]), options=NONE).status
        == "nonfinite"
    )
    assert reference(logits, np.array([[0.25, 0.5, 0.25]]), NONE).special.tolist() == [
        [Special.POSITIVE_INFINITY]
    ]


def test_a_special_row_leaves_the_others_as_they_are():
    for triple in itertools.product((0.0, -INF, INF, np.nan), repeat=3):
        logits = np.array([[1.0, 2.0, 3.0], triple, [3.0, 2.0, 1.0]])
        found = reference(logits, np.array([0, 1, 2]), NONE)
        assert (found.special[[0, 2], 0] == Special.FINITE).all()
        assert found.hi[0, 0] == pytest.approx(np.log(1 + np.exp(1) + np.exp(2)), rel=1e-15)


DOUBLES = st.floats(0, 1e300, allow_subnormal=False)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(DOUBLES, st.floats(-1, 1)), max_size=30), mean=st.booleans(), wide=st.booleans()
)
def test_a_reduction_is_the_exact_sum_to_a_hundred_bits(rows, mean, wide):
    """hi + lo, against fractions: the sum of all hi and lo over the count, never the sum of rounded ones."""
    hi = np.array([[h] for h, _ in rows]).reshape(-1, 1)
    if not wide:
        hi = np.minimum(hi, 1e6)
    lo = np.array([[tail] for _, tail in rows]).reshape(-1, 1) * hi * 2.0**-53
    radius = hi * 2.0**-60
    logits, target = np.zeros((len(rows), 2)), np.zeros(len(rows), dtype=np.int64)
    options = {**OP.options, "reduction": "mean" if mean else "sum"}
    problem = OP.problem({"logits": logits, "target": target}, options)
    found = OP.reduce(problem, Values(hi, lo, radius, np.zeros(hi.shape, dtype=np.int8)))
    if mean and not rows:
        assert found.special.tolist() == [[Special.NAN]]
        return
    parts = [Fraction(v) for v in (*hi[:, 0].tolist(), *lo[:, 0].tolist())]
    exact = sum(parts, Fraction(0)) / (len(rows) if mean else 1)
    got = Fraction(float(found.hi[0, 0])) + Fraction(float(found.lo[0, 0]))
    inherited = sum((Fraction(v) for v in radius[:, 0].tolist()), Fraction(0)) / (len(rows) if mean else 1)
    assert abs(got - exact) <= Fraction(float(found.radius[0, 0])) - inherited or exact == got
    assert abs(got - exact) <= abs(exact) * Fraction(2) ** -100
    assert found.special.tolist() == [[Special.FINITE]]


def test_rows_are_left_alone_where_they_are_not_reduced():
    values = Values(*(np.ones((3, 1)) for _ in range(3)), np.zeros((3, 1), dtype=np.int8))
    problem = OP.problem(
        {"logits": np.zeros((3, 2)), "target": np.zeros(3, dtype=np.int64)}, {**OP.options, **NONE}
    )
    assert OP.reduce(problem, values) is values


# The bound


ROWS = st.lists(st.lists(st.floats(-90, 90, width=32), min_size=6, max_size=6), min_size=1, max_size=8)


def halves(z):
    """log sum exp by a sum in another order and in base 2."""
    m = z.amax(-1, keepdim=True)
    e = torch.exp2((z - m) * 1.4426950408889634).flip(-1)
    return torch.log2(e.cumsum(-1)[:, -1:]) * 0.6931471805599453 - (z - m)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, data=st.data())
def test_honest_kernels_and_their_reductions_are_within_the_bound(dtype, rows, data):
    """This suite's own, torch's, and one in base 2 that sums the other way round."""
    logits = torch.tensor(rows).to(getattr(torch, dtype))
    target = torch.tensor([data.draw(st.integers(0, 5)) for _ in rows])
    options = {
        "reduction": data.draw(st.sampled_from(("mean", "sum", "none"))),
        "label_smoothing": data.draw(st.sampled_from((0.0, 0.1))),
    }
    inputs = {"logits": logits, "target": target}
    for kernel in own_kernels("cross_entropy").values():
        if missing(*kernel.requires):
            continue
        if kernel.id == "fused" and dtype != "float32":
            # torch rounds log_softmax to the 16 bits before it takes the target's entry: a known failure
            continue
        output = kernel.call(logits, target, **options)
        found = judge(
            "cross_entropy", inputs, output, options=options, numerics=kernel.numerics, oracle=ORACLE
        )
        assert found.passed, (kernel.id, found.message)
    from suite.kernels.parts.class_loss import class_loss

    output = class_loss(halves(logits.float()), target, dtype=logits.dtype, **options)
    found = judge("cross_entropy", inputs, output, options=options, oracle=ORACLE)
    assert found.passed, found.message


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, reduction=st.sampled_from(("sum", "mean")))
def test_the_bound_of_a_sum_grows_with_each_row_and_holds_what_its_rows_may_err(rows, reduction):
    format, allowed = FORMATS["float32"], []
    for count in range(1, len(rows) + 1):
        logits, target = np.array(rows[:count]), np.zeros(count, dtype=np.int64)
        problem = OP.problem({"logits": logits, "target": target}, {**OP.options, "reduction": reduction})
        facts = OP.facts(problem)
        of_rows = OP.bound(facts, BEST_PRACTICE, format).absolute
        whole = float(OP.reduced_bound(facts, BEST_PRACTICE, format).absolute[0, 0])
        assert whole >= of_rows.sum() / (count if reduction == "mean" else 1)
        allowed.append(whole * (count if reduction == "mean" else 1))
    assert all(a < b for a, b in itertools.pairwise(allowed))


def test_weaker_numerics_are_allowed_more_and_an_ignored_row_nothing():
    problem = OP.problem(
        {"logits": np.array([[100.0, 99.0], [5.0, 6.0]]), "target": np.array([0, -100])},
        {**OP.options, **NONE},
    )
    facts, format = OP.facts(problem), FORMATS["float32"]
    best, lse, narrow = (
        OP.bound(facts, numerics, format).absolute[:, 0]
        for numerics in (BEST_PRACTICE, Numerics(shift="lse"), Numerics(accumulate="float16"))
    )
    assert best[0] < lse[0] < narrow[0]
    assert best[1] == lse[1] == narrow[1] == 0.0


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        (lambda z, t: functional.cross_entropy(z, t) * 1.001, {}),
        (lambda z, t: functional.cross_entropy(z, t, reduction="sum") / len(z), {}),
        (lambda z, t: functional.cross_entropy(z, t, reduction="sum") * (1 + 2e-5), {"reduction": "sum"}),
        (lambda z, t: functional.cross_entropy(z, t, reduction="none").roll(1), NONE),
        (lambda z, t: functional.cross_entropy(z, t, label_smoothing=0.1, reduction="none"), NONE),
        (lambda z, t: functional.cross_entropy(z, t, label_smoothing=0.1) * 5 / 4, {"label_smoothing": 0.1}),
        (lambda z, t: functional.cross_entropy(z[:, :-1], t.clamp(max=3), reduction="none"), NONE),
    ],
    ids=[
        "one in a thousand",
        "mean over ignored rows",
        "sum of 2e-5",
        "other rows",
        "smoothed",
        "n - 1",
        "last class lost",
    ],
)
def test_mutants_of_losses_fail(fault, options):
    logits = torch.from_numpy(3 * Draw("faults").normal(6, 5)).float()
    target = torch.tensor([0, 1, 4, -100, 2, 0])
    found = judge(
        "cross_entropy", {"logits": logits, "target": target}, fault(logits, target), options=options
    )
    assert found.status == "inaccurate", found.message


# Misuse


@pytest.mark.parametrize(
    ("logits", "target", "options", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), {}, r"target has class 3; expected 0 to 2 or ignore_index"),
        (np.zeros((2, 3)), np.array([-1, 0]), {}, r"target has class -1; expected 0 to 2 or ignore_index"),
        (np.zeros((2, 3)), np.array([-100, 0]), {"ignore_index": 7}, r"target has class -100"),
        (
            np.zeros((2, 3)),
            np.array([0, 0, 0]),
            {},
            r"target has shape \[3\]; logits of shape \[2, 3\] need that or",
        ),
        (
            np.zeros((2, 3, 4)),
            np.zeros((2, 3), dtype=np.int64),
            {},
            r"target has shape \[2, 3\]; logits of shape \[2, 3, 4\]",
        ),
        (
            np.zeros((2, 3)),
            np.array([[0.5, 0.5, -0.0001], [1, 0, 0]]),
            {},
            "class probabilities that are negative or not finite",
        ),
        (
            np.zeros((2, 3)),
            np.array([[np.nan, 0, 0], [1, 0, 0]]),
            {},
            "class probabilities that are negative or not finite",
        ),
        (np.zeros((2, 0)), np.array([-100, -100]), {}, r"logits of shape \[2, 0\] have no class"),
        (
            np.zeros((2, 3)),
            np.array([0, 0]),
            {"reduction": "avg"},
            "reduction='avg' is not one of mean, sum, none",
        ),
        (
            np.zeros((2, 3)),
            np.array([0, 0]),
            {"label_smoothing": 1.5},
            "label_smoothing=1.5 must be a number from 0 to 1",
        ),
        (
            np.zeros((2, 3)),
            np.array([0, 0]),
            {"label_smoothing": True},
            "label_smoothing=True must be a number from 0 to 1",
        ),
        (
            np.zeros((2, 3)),
            np.array([0, 0]),
            {"label_smoothing": np.nan},
            "label_smoothing=nan must be a number",
        ),
        (np.zeros((2, 3)), np.array([0, 0]), {"ignore_index": 0.5}, "ignore_index=0.5 must be an integer"),
        (
            np.zeros((2, 3)),
            np.array([0, 0]),
            {"dim": 1},
            "cross_entropy has no option 'dim'; valid options: ignore_index,",
        ),
        (
            np.zeros((2, 3)),
            np.zeros((2, 3), dtype=np.int64),
            {},
            r"shape \[2, 3\], which class indices for logits \[2, 3\] have not",
        ),
        (
            np.zeros((2, 3)),
            np.zeros(2),
            {},
            r"shape \[2\], which class probabilities for logits \[2, 3\] have not",
        ),
    ],
)
def test_misuse_names_the_value_and_what_is_expected(logits, target, options, message):
    with pytest.raises(ValueError, match=message):
        judge("cross_entropy", {"logits": logits, "target": target}, np.array(0.0), options=options)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.zeros((2, 3)), ValueError, r"inputs has the keys \['x'\]; cross_entropy takes logits, target"),
        (
            {"logits": np.zeros((2, 3))},
            ValueError,
            r"inputs has the keys \['logits'\]; cross_entropy takes logits, target",
        ),
        ({"logits": np.zeros((2, 3)), "target": [0, 1]}, TypeError, "input target is a list"),
        (
            {"logits": np.zeros((2, 3), dtype=np.int64), "target": np.array([0, 1])},
            ValueError,
            "input logits has dtype int64",
        ),
        (
            {"target": np.zeros(()), "logits": np.array(1.0)},
            ValueError,
            r"input logits has dtype float64 and shape \(\)",
        ),
    ],
)
def test_inputs_that_are_no_logits_and_target_are_misuse(inputs, error, message):
    with pytest.raises(error, match=message):
        judge("cross_entropy", inputs, np.array(0.0))


@pytest.mark.parametrize(
    ("output", "options", "status"),
    [
        (torch.zeros(2), {}, "wrong_shape"),
        (torch.zeros(()), NONE, "wrong_shape"),
        (torch.zeros(1), {}, "wrong_shape"),
        (torch.zeros((), dtype=torch.float64), {}, "wrong_dtype"),
        (1.0986, {}, "wrong_type"),
    ],
)
def test_an_output_of_another_kind_is_a_status(output, options, status):
    inputs = {"logits": torch.zeros(2, 3), "target": torch.tensor([0, 1])}
    assert judge("cross_entropy", inputs, output, options=options).status == status


# Ways to judge


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_tensors_of_torch_and_arrays_of_numpy_are_judged_alike(dtype):
    logits = torch.from_numpy(Draw("alike").normal(4, 5, 3)).to(getattr(torch, dtype))
    target = torch.from_numpy(Draw("alike target").integers(5, 4, 3))
    right = functional.cross_entropy(logits, target, reduction="none")
    for output, status in ((right, "passed"), (right * 1.25, "inaccurate")):
        found = judge("cross_entropy", {"target": target, "logits": logits}, output, options=NONE)
        assert (found.status, found.shape, found.dtype) == (status, (4, 5, 3), dtype)
        if dtype != "bfloat16":
            arrays = {"logits": logits.numpy(), "target": target.numpy()}
            assert judge("cross_entropy", arrays, output.numpy(), options=NONE).message == found.message
    narrow = {"logits": logits, "target": target.to(torch.int32)}
    assert judge("cross_entropy", narrow, right, options=NONE).passed


def test_the_message_says_which_loss_and_names_its_index():
    logits, target = torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64)
    output = functional.cross_entropy(logits, target, reduction="none")
    output[1, 2] = 0.0
    found = judge("cross_entropy", {"logits": logits, "target": target}, output, options=NONE)
    assert found.worst is not None
    assert found.worst.index == (1, 2)
    assert "where     index [1, 2]" in found.message
    assert "target 0, x = 0.0 there, in a row of 3" in found.message
    assert "1.09861228866810969" in found.message
    mean = judge("cross_entropy", {"logits": logits, "target": target}, torch.zeros(()))
    assert mean.worst is not None
    assert mean.worst.index == ()
    assert "8 rows of 3 classes, 8 of them kept" in mean.message


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture
def saved(tmp_path):
    """Saves tensors as NAME.npz and NAME.safetensors, and returns the two paths."""

    def save(name="dump", **tensors):
        np.savez(tmp_path / f"{name}.npz", **{key: tensor.numpy() for key, tensor in tensors.items()})
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors(tensors))
        return tmp_path / f"{name}.npz", tmp_path / f"{name}.safetensors"

    return save


LOGITS = torch.from_numpy(Draw("saved").normal(6, 5)).float()
TARGET = torch.tensor([0, 4, 2, -100, 1, 3])


@pytest.mark.parametrize(
    "options", [{}, {"reduction": "none"}, {"reduction": "sum", "label_smoothing": 0.125, "ignore_index": 4}]
)
def test_the_command_judges_saved_logits_target_and_loss(options, saved, tmp_path):
    target = TARGET.clamp(min=0) if "ignore_index" in options else TARGET
    right = functional.cross_entropy(LOGITS, target, **options)
    given = [f"--option={name}={value}" for name, value in options.items()]
    for factor, code in ((1.0, 0), (1.001, 1)):
        for path in saved(logits=LOGITS, target=target, y=right * factor):
            result = invoke(
                "judge", "--op=cross_entropy", "--tensors", path, *given, "--json", tmp_path / "found.json"
            )
            assert result.exit_code == code, result.output
            assert json.loads((tmp_path / "found.json").read_text())["op"] == "cross_entropy"
    if options:
        assert invoke("judge", "--op=cross_entropy", "--tensors", path).exit_code in (1, 2)


def test_the_command_judges_probabilities(saved):
    weights = torch.softmax(LOGITS.flip(0), -1)
    for path in saved(logits=LOGITS, target=weights, y=functional.cross_entropy(LOGITS, weights)):
        assert invoke("judge", "--op=cross_entropy", "--tensors", path).exit_code == 0


def test_options_of_other_ops_go_the_same_way_and_dim_stays(saved):
    x = LOGITS.double()
    path, _ = saved(x=x, y=torch.softmax(x / 0.5, 0))
    judged = ("judge", "--op=softmax", "--tensors", path)
    assert invoke(*judged, "--option=temperature=0.5", "--option=dim=0").exit_code == 0
    assert invoke(*judged, "--option=temperature=0.5", "--dim=0").exit_code == 0
    assert invoke(*judged, "--dim=0").exit_code == 1
    path, _ = saved(x=x, y=torch.softmax(torch.cat([x, torch.zeros(6, 1)], -1), -1)[:, :-1])
    assert invoke("judge", "--op=softmax", "--tensors", path, "--option=off_by_one=True").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--op=cross_entropy", "--option=reduction"], ["reduction=''", "mean, sum, none"]),
        (["--op=cross_entropy", "--option=reduction=avg"], ["reduction='avg'", "mean, sum, none"]),
        (
            ["--op=cross_entropy", "--option=weight=1"],
            ["'weight=1'", "ignore_index, label_smoothing, reduction"],
        ),
        (
            ["--op=cross_entropy", "--option=ignore_index=x"],
            ["'ignore_index=x'", "expected int, such as ignore_index=-100"],
        ),
        (["--op=cross_entropy", "--option=label_smoothing=2"], ["label_smoothing=2.0", "from 0 to 1"]),
        (["--op=cross_entropy", "--dim=0"], ["cross_entropy has no option 'dim'"]),
        (
            ["--op=softmax", "--option=off_by_one=yes"],
            ["'off_by_one=yes'", "expected bool, such as off_by_one=False"],
        ),
    ],
    ids=lambda value: value[-1],
)
def test_misuse_of_options_is_one_message(arguments, fragments, saved):
    path, _ = saved(logits=LOGITS, x=LOGITS, target=TARGET, y=torch.zeros(()))
    result = invoke("judge", "--tensors", path, *arguments)
    assert result.exit_code == 2
    assert all(fragment in " ".join(result.stderr.split()) for fragment in fragments), result.stderr


def test_a_file_without_a_target_is_misuse(saved):
    path, _ = saved(logits=LOGITS, y=torch.zeros(()))
    result = invoke("judge", "--op=cross_entropy", "--tensors", path)
    assert result.exit_code == 2
    assert "has no tensor 'target'; it has: logits, y" in " ".join(result.stderr.split())


KERNELS = """
import torch
def right(logits, target, **options):
    return torch.nn.functional.cross_entropy(logits, target, **options)
def over_all_rows(logits, target, reduction="mean"):
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return loss.mean() if reduction == "mean" else loss
"""


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_check_judges_kernels_on_saved_logits_and_targets(ending, saved, tmp_path):
    (tmp_path / "mine.py").write_text(KERNELS)
    path = next(p for p in saved(logits=LOGITS, target=TARGET) if p.suffix == ending)
    kernels = (f"--kernel={tmp_path}/mine.py:right", f"--kernel={tmp_path}/mine.py:over_all_rows")
    check = ("check", "--op=cross_entropy", *kernels, "--input", path)

    result = invoke(*check, "--out", tmp_path / "run")
    records = read_run(tmp_path / "run").records
    assert result.exit_code == 1
    assert [(r.status, r.shape, r.dtype) for r in records] == [
        ("passed", (6, 5), "float32"),
        ("inaccurate", (6, 5), "float32"),
    ]

    result = invoke(*check, "--option=reduction=none", "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())["records"]
    assert result.exit_code == 0, result.output
    assert [r["entries"] for r in rows] == [6, 6]
    assert all(f"--input {path} --option reduction=none" in r["reproduce"] for r in rows)


@pytest.mark.parametrize(
    ("tensors", "arguments", "fragment"),
    [
        ({"target": TARGET + 5}, [], "target has class 5; expected 0 to 4 or ignore_index"),
        ({"target": TARGET[:3]}, [], "target has shape [3]"),
        (
            {"target": torch.full((6, 5), 0.3)},
            ["--dtype=float16"],
            "values of target that float16 cannot hold",
        ),
        ({}, [], "has no tensor 'target'"),
    ],
)
def test_misuse_of_check_on_saved_targets_is_found_before_a_kernel_is_called(
    tensors, arguments, fragment, saved
):
    path, _ = saved(logits=LOGITS.half().float(), **tensors)
    result = invoke("check", "--op=cross_entropy", "--kernel=fused", "--input", path, *arguments)
    assert result.exit_code == 2
    assert fragment in " ".join(result.stderr.split())


def test_an_option_without_an_input_is_misuse():
    result = invoke("check", "--op=softmax", "--kernel=shifted", "--option=dim=0")
    assert result.exit_code == 2
    assert "--option goes with --input" in result.stderr


def test_arithmetics_have_the_same_loss_for_a_row_by_hand():
    problem = OP.problem({"logits": np.array([[1.0, 2.0, 3.0]]), "target": np.array([0])}, OP.options)
    with Arb.precision(200), mpmath.workdps(50):
        exact = mpmath.log(1 + mpmath.e + mpmath.e**2)
        assert mpmath.nstr(OP.define(Mpmath(), problem)[0, 0], 40) == mpmath.nstr(exact, 40)
        assert OP.define(Arb(), problem)[0, 0].contains(OP.define(Arb(), problem)[0, 0].mid())
        assert float(OP.define(Float64(), problem)[0, 0]) == pytest.approx(float(exact), rel=4 * 2.0**-52)
